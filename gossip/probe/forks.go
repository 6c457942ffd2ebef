package probe

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// Where a timeline began decides what a failover has lost, so it must be known exactly or not be claimed. Any user is told where
// recovery ended, which is the place; but after a crash the same function tells of that crash's recovery. So it is believed only of a server
// that this very connection has seen as a replica: no connection survives a crash. What happened before this node looked is in the
// timeline's history file, which PostgreSQL shows by its replication protocol, to who has the attribute REPLICATION (superusers have it).

const (
	historyLimit = 5 * time.Second   // for the whole of that
	historyRetry = time.Minute       // after a failure, and after it turned out that the user may not
	maxHistory   = 1000              // lines that are read
	lastTimeline = uint32(1<<31 - 1) // more is nonsense
)

// branches is what a worker knows of how its server came to its timeline. It is owned by run but for told.
type branches struct {
	replica *pgconn.PgConn // the connection over which it was last seen as a replica; nil: none that there still is
	at      uint32         // the latest timeline that it followed then
	own     rib.Fork       // of its promotion, as seen; Timeline 0: it was not seen
	next    time.Time      // when its history may be asked for
	asked   uint32         // of which timeline it was
	told    chan []rib.Fork
	forks   []rib.Fork // of that timeline's history
}

// forks are those that the answer of a primary is sent on with.
func (w *worker) forks(a answer) []rib.Fork {
	b := &w.branches
	if a.role != rib.Primary {
		if b.replica != w.conn {
			b.replica, b.at = w.conn, 0
		}
		b.at = max(b.at, a.timeline)
		return nil
	}
	if b.replica != nil && b.replica == w.conn && b.at != 0 && a.timeline > b.at && a.ended != 0 {
		b.own = rib.Fork{Timeline: a.timeline, Least: a.ended, Most: a.ended}
		if b.at == a.timeline-1 { // else it may have followed one in between, unseen
			b.own.From = b.at
		}
	}
	b.replica = nil
	if b.asked != a.timeline {
		b.asked, b.next, b.forks, b.told = a.timeline, time.Time{}, nil, nil
	}
	select {
	case f := <-b.told:
		b.told, b.forks = nil, f
		if f == nil {
			b.next = time.Now().Add(historyRetry)
		}
	default:
	}
	if b.forks == nil && b.told == nil && a.timeline > 1 && a.timeline < lastTimeline && !time.Now().Before(b.next) {
		w.askHistory(a.timeline)
	}
	switch {
	case b.own.Timeline != a.timeline:
		return b.forks
	case b.forks == nil:
		return []rib.Fork{b.own}
	}
	return b.forks // which has that one too
}

// askHistory has the history of a timeline read, if the user may.
func (w *worker) askHistory(timeline uint32) {
	b := &w.branches
	ctx, cancel := context.WithTimeout(w.ctx, w.prober.settings.Load().Timeout)
	defer cancel()
	row, err := oneRow(ctx, w.conn, "SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user", 1)
	if err != nil {
		w.hangUp()
	}
	if err != nil || string(row[0]) != "t" {
		b.next = time.Now().Add(historyRetry) // somebody may grant it
		return
	}
	told := make(chan []rib.Fork, 1)
	b.told = told
	w.prober.wg.Go(func() {
		forks, err := w.prober.history(w.ctx, w.target, timeline)
		if err != nil && w.ctx.Err() == nil {
			w.prober.log.Info("the history of a timeline cannot be read", "backend", w.target.Name, "timeline", timeline, "error", explain(err))
		}
		told <- forks
		ring(w.soon) // somebody may wait for it
	})
}

// history asks a server how it came to its timeline.
func (p *Prober) history(ctx context.Context, t Target, timeline uint32) (forks []rib.Fork, err error) {
	ctx, cancel := context.WithTimeout(ctx, historyLimit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil { // the server's bytes are a stranger's
			forks, err = nil, fmt.Errorf("probe: history: %v", r)
		}
	}()
	config, err := p.connConfig(t, p.settings.Load())
	if err != nil {
		return nil, err
	}
	if p.cfg.TLS != nil {
		config.TLSConfig = p.cfg.TLS(t.Addr)
	}
	config.RuntimeParams["replication"] = "database" // pg_hba.conf judges it as any login to that database
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, Refusal(err)
	}
	defer conn.Close(ctx)
	row, err := oneRow(ctx, conn, fmt.Sprintf("TIMELINE_HISTORY %d", timeline), 2)
	if err != nil {
		return nil, err
	}
	return parseHistory(timeline, row[1])
}

// parseHistory reads the content of a history file: a line for each timeline that was left, and where.
func parseHistory(timeline uint32, content []byte) (forks []rib.Fork, err error) {
	for line := range bytes.Lines(content) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		from, errFrom := strconv.ParseUint(string(fields[0]), 10, 31)
		if len(fields) < 2 || errFrom != nil || from == 0 || len(forks) == maxHistory {
			return nil, fmt.Errorf("probe: the history of timeline %d has the line %.80q", timeline, line)
		}
		at, err := rib.ParseLSN(string(fields[1]))
		if err != nil || len(forks) > 0 && uint32(from) <= forks[len(forks)-1].From {
			return nil, fmt.Errorf("probe: the history of timeline %d has the line %.80q", timeline, line)
		}
		if n := len(forks); n > 0 {
			forks[n-1].Timeline = uint32(from)
		}
		forks = append(forks, rib.Fork{From: uint32(from), Least: at, Most: at})
	}
	if n := len(forks); n == 0 || forks[n-1].From >= timeline {
		return nil, fmt.Errorf("probe: the history of timeline %d does not lead there", timeline)
	}
	forks[len(forks)-1].Timeline = timeline
	return forks, nil
}
