package gossip

import (
	"sync/atomic"
	"time"

	"rangefinder/rib"
)

const (
	budget      = 50.0            // small changes a second that the whole cluster may tell
	budgetBurst = 5               // of them that one node may tell at once
	minGap      = 5 * time.Second // between two small changes of one backend
	largeSteps  = 4               // steps of packDuration (41 %) that make a change of lag or latency worth telling
	largeLag    = 500 * time.Millisecond
	largeDelay  = 2 * time.Millisecond
	largeBytes  = 1 << 20
	jumpRate    = 0.1 // steps a second above what others have said in this node's name: there are not endlessly many incarnations
	jumpBurst   = 10
)

// own is this node's own word. It is guarded by Speaker.mu but for the atomics.
type own struct {
	incarnation   uint32
	seq           uint64
	rowSeq        uint64
	routes        map[string]told
	announcements map[string]rib.Announcement
	budget        bucket
	back          bucket // for replicas that are near again
	jumps         bucket
	rtt           map[string]*smoothed // by region
	lastRow       map[string]time.Duration
	lastRowAt     time.Time

	// atomic
	matrixDue atomic.Bool
}

// told is what this node has told of a backend, and what it has seen since.
type told struct {
	route rib.Route
	at    time.Time
	seen  rib.Route // what the own table has of its lag
	lag   peak[time.Duration]
	bytes peak[int64]
}

// Announce makes a backend known to the cluster, or changes what it is. Saying the same again says nothing. A backend
// that no peer would accept (names over 128 bytes, an address over 256, control characters) is logged and counted.
func (s *Speaker) Announce(b rib.Backend) { s.announce(b, false) }

func (s *Speaker) announce(b rib.Backend, gone bool) {
	if err := checkBackend(&b); err != nil {
		s.count.tooBig.Add(1)
		s.log.Error("backend is not announced", "backend", b.Name, "error", err)
		return
	}
	s.mu.Lock()
	old, ok := s.own.announcements[b.Name]
	if s.closed || (ok && old.Backend == b && old.Gone == gone) {
		s.mu.Unlock()
		return
	}
	a := rib.Announcement{Backend: b, Observer: s.cfg.Self.Name, Stamp: s.stamp(), Gone: gone}
	s.own.announcements[b.Name] = a
	// Another server under the old name must not be taken for the old one for longer than it takes to say so.
	out := s.tellAnnouncement(a, ok && old.Backend.SystemID != 0 && old.Backend.SystemID != b.SystemID)
	s.mu.Unlock()
	s.flush(out)
}

// Withdraw says that this node no longer lists or observes the backend: its word on it stops counting. What the backend
// is goes too, unless another node announces it.
func (s *Speaker) Withdraw(name string) {
	s.mu.Lock()
	a, announced := s.own.announcements[name]
	_, observed := s.own.routes[name]
	s.mu.Unlock()
	if observed {
		s.Observe(rib.Route{Backend: name, State: rib.Withdrawn})
	}
	if announced {
		s.announce(a.Backend, true)
	}
}

// Observe is what this node believes about a backend; Observer and Stamp are filled in. It is written to this node's own
// table and spread: a change of state, role or timeline at once, others when they are worth it and the budget allows. A
// change that is held back is not in the own table either, so that all tables stay equal, but for how far a replica is behind: this node
// goes by that itself (see rib.Health.Saw). Call Observe with every probe.
func (s *Speaker) Observe(r rib.Route) {
	if !validName(r.Backend) {
		s.count.tooBig.Add(1)
		return
	}
	policy := s.cfg.Policy()
	r.Observer = s.cfg.Self.Name
	now := time.Now()
	s.mu.Lock()
	old, ok := s.own.routes[r.Backend]
	old.hold(&r, now)
	r = quantize(s.writes(), policy, r)
	urgent := !ok || old.route.State != r.State || old.route.Role != r.Role || old.route.Timeline != r.Timeline
	if s.closed {
		s.mu.Unlock()
		return
	}
	if !urgent && !s.worthTelling(policy, &old, &r, now) {
		s.see(policy, &old, &r)
		s.own.routes[r.Backend] = old
		s.mu.Unlock()
		return
	}
	r.Stamp = s.stamp()
	s.own.routes[r.Backend] = told{route: r, at: now, seen: r, lag: old.lag, bytes: old.bytes}
	// A first good word is no flip: a cluster that starts would push all of them at once.
	out := s.tellRoute(r, urgent && (ok || r.State == rib.Down))
	out.echoes = out.msgs // nobody else knows yet: all depends on these few packets
	s.mu.Unlock()
	s.flush(out)
}

// worthTelling decides about a change that is no flip. It needs mu.
func (s *Speaker) worthTelling(p *rib.Policy, old *told, r *rib.Route, now time.Time) bool {
	if crosses, tell := s.crosses(p, old, r, now); crosses {
		if !tell {
			s.count.withheld.Add(1) // and all else with it: a record is whole
		}
		return tell
	}
	was := &old.route
	differs := was.Load != r.Load || largeSize(was.LagBytes, r.LagBytes) || (was.Lag < 0) != (r.Lag < 0) ||
		large(was.Lag, r.Lag, largeLag) || large(was.Latency, r.Latency, largeDelay)
	if !differs {
		return false
	}
	if now.Sub(old.at) < minGap || !s.own.budget.take(now, s.share(budget), budgetBurst) {
		s.count.withheld.Add(1)
		return false
	}
	return true
}

// share is this node's of what the whole cluster may tell a second. It needs mu.
func (s *Speaker) share(rate float64) float64 { return rate / float64(len(s.peers)+1) }

func large(a, b, least time.Duration) bool {
	if a < 0 || b < 0 || (a-b).Abs() < least {
		return false
	}
	steps := int(packDuration(a)) - int(packDuration(b))
	return steps >= largeSteps || steps <= -largeSteps
}

// largeSize is the same for lags in bytes: twice as many, or half, and a MiB at least; or known and unknown.
func largeSize(a, b int64) bool {
	if a < 0 || b < 0 {
		return (a < 0) != (b < 0)
	}
	more, less := max(a, b), min(a, b)
	return more-less >= largeBytes && more/2 >= less
}

// SetEpoch tells the cluster the epoch that this node's ledger has reached, at once if nobody was known to have it.
func (s *Speaker) SetEpoch(e rib.Epoch) {
	s.mu.Lock()
	if s.closed || e.Compare(s.epoch) <= 0 {
		s.mu.Unlock()
		return
	}
	s.epoch = e
	var out outgoing
	if e.Compare(s.heard.epoch) > 0 {
		s.heard = epochNews{epoch: e, author: s.cfg.Self.Name}
		out = s.tell("epoch", appendEpoch(nil, s.heard), true)
	}
	s.mu.Unlock()
	s.sumsStale.Store(true)
	s.flush(out)
}

// stamp needs mu. A boot that has said 2^28 things becomes a new incarnation at hear's next tick.
func (s *Speaker) stamp() rib.Stamp {
	s.own.seq = min(s.own.seq+1, maxSeq)
	return rib.Stamp{Incarnation: s.own.incarnation, Seq: s.own.seq}
}

// tellRoute and tellAnnouncement write into the own table and queue. They need mu.
func (s *Speaker) tellRoute(r rib.Route, urgent bool) outgoing {
	s.cfg.Health.Observe(r)
	s.count.told.Add(1)
	s.learn(r.Backend)
	key := recordKey{kindObservation, idOf(r.Backend), s.self}
	s.records[key] = struct{}{}
	s.changed()
	return s.tell(key.queueName(), appendObservation(nil, s.writes(), key.backend, key.observer, &r), urgent)
}

func (s *Speaker) tellAnnouncement(a rib.Announcement, urgent bool) outgoing {
	s.cfg.Health.Announce(a)
	s.count.told.Add(1)
	s.learn(a.Backend.Name)
	s.backends[a.Backend.Name] = struct{}{}
	key := recordKey{kindAnnouncement, idOf(a.Backend.Name), s.self}
	s.records[key] = struct{}{}
	s.changed()
	return s.tell(key.queueName(), appendAnnouncement(nil, &a), urgent)
}

// jump steps over a higher stamp of this node's own name: an earlier life of this node whose counter was lost. It is
// called by hear.
func (s *Speaker) jump(heard rib.Stamp) {
	s.mu.Lock()
	stale := heard.Compare(rib.Stamp{Incarnation: s.own.incarnation, Seq: s.own.seq}) <= 0
	next := max(heard.Incarnation, s.own.incarnation) + 1
	wait := stale || !s.own.jumps.take(time.Now(), jumpRate, jumpBurst) // the next digest brings it again
	s.mu.Unlock()
	if wait {
		return
	}
	s.count.jumps.Add(1)
	s.log.Warn("heard a higher incarnation of this node; going on above it", "heard", heard.Incarnation, "now", next)
	s.reincarnate(next)
}

// reincarnate says everything again under a new incarnation.
func (s *Speaker) reincarnate(next uint32) {
	if next > maxIncarnation {
		s.log.Error("this node has no incarnation left: give it another name", "incarnation", next)
		return
	}
	if s.cfg.SetIncarnation != nil {
		s.cfg.SetIncarnation(next) // on disk before it is spoken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.incarnation, s.own.seq, s.own.rowSeq = next, 0, 0
	for name, a := range s.own.announcements {
		a.Stamp = s.stamp()
		s.own.announcements[name] = a
		s.tellAnnouncement(a, false)
	}
	for name, t := range s.own.routes {
		t.route.Stamp = s.stamp()
		t.seen = t.route
		s.own.routes[name] = t
		s.tellRoute(t.route, false)
	}
	s.own.matrixDue.Store(true)
}
