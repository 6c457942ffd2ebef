package wire

import (
	"maps"
	"slices"
	"time"

	"rangefinder/wire/console"
)

// statsPeriod is what averages are taken over, as PgBouncer's stats_period is by default.
const statsPeriod = time.Minute

// period is what had been counted when one period ended and when the one before it had. It is guarded by Server.mu.
type period struct {
	since, until time.Time // zero until: the first one is not over yet
	from, to     map[string]console.Totals
}

// averageLoop ends one period after the other.
func (s *Server) averageLoop() {
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			s.endPeriod(now)
		}
	}
}

func (s *Server) endPeriod(now time.Time) {
	totals, _ := s.totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.period
	if !p.until.IsZero() {
		p.since, p.from = p.until, p.to
	}
	p.until, p.to = now, totals
}

// lately is what was counted for a database in the last period, and how long that was; in the first one, up to now.
func (p *period) lately(database string, now time.Time, total console.Totals) (console.Totals, time.Duration) {
	if p.until.IsZero() {
		return total, now.Sub(p.since)
	}
	return p.to[database].Minus(p.from[database]), p.until.Sub(p.since)
}

// totals is what was counted for each database since the start, and the sessions that are a part of it.
func (s *Server) totals() (map[string]console.Totals, []*session) {
	s.mu.Lock()
	// A session that ends meanwhile is counted as a session, and not among those that have ended.
	totals := make(map[string]console.Totals, len(s.ended))
	for name, ended := range s.ended {
		totals[name] = *ended
	}
	sessions := slices.Collect(maps.Values(s.sessions))
	gates := maps.Clone(s.gates)
	s.mu.Unlock()
	for _, ses := range sessions {
		t := totals[ses.id.Database]
		ses.core.tally.addTo(&t)
		totals[ses.id.Database] = t
	}
	for name, g := range gates {
		t := totals[name]
		t.Wait = s.pools.Waited(name) + time.Duration(g.held.Load())
		totals[name] = t
	}
	return totals, sessions
}
