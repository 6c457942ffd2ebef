package probe

import (
	"errors"
	"fmt"
	"time"

	"rangefinder/rib"
)

func (w *worker) answered(a answer, took time.Duration, asked time.Time) {
	if !w.lists && w.systemID != 0 && a.systemID != w.systemID {
		w.stranger(a.systemID)
		return
	}
	w.reached, w.shutOut, w.strange = true, 0, false
	w.failure.Store(nil)
	if w.latency == 0 {
		w.latency = took
	}
	w.latency += time.Duration(latencyWeight * float64(took-w.latency))
	w.alive(a.role, a.timeline)
	if w.last.role != a.role && w.last.role != rib.RoleUnknown {
		w.prober.log.Info("backend changed its role", "backend", w.target.Name, "from", roleName(w.last.role), "to", roleName(a.role), "timeline", a.timeline)
	}
	if a.hidden && !w.blind {
		w.blind = true
		w.prober.log.Warn("the probe's user may not see which timeline a replica receives: after a failover it gets no reads for minutes though it follows the new primary; GRANT pg_read_all_stats TO that user",
			"backend", w.target.Name, "user", w.prober.settings.Load().User)
	}
	var late rib.Delay
	if f := w.prober.cfg.Saw; f != nil {
		late = f(rib.Position{
			Backend: w.target.Name, Shard: w.target.Shard, Addr: w.target.Addr, SystemID: a.systemID, Role: a.role, Timeline: a.timeline, LSN: a.lsn,
			Asked: asked, Told: asked.Add(took), Flushed: a.flushed, Sync: a.sync, Forks: w.forks(a),
		})
	}
	a.lag = w.sinceHead(a, asked, late)
	if a.lagBytes != rib.LagBytesUnknown {
		a.lagBytes = max(a.lagBytes, late.Bytes)
	}
	w.last = a
	w.load = w.prober.settings.Load().class(a.used, w.load)
	if w.lists && (a.systemID != w.systemID || w.untold) {
		w.systemID, w.untold = a.systemID, false
		w.prober.cfg.Sink.Announce(w.backend())
	}
	w.observe()
}

// alive counts an answer that shows that the server works.
func (w *worker) alive(role rib.Role, timeline uint32) {
	w.heard()
	w.bad, w.again, w.barred = 0, 0, 0
	w.good++
	w.cleared++
	before := w.state
	if before != rib.Down || w.good >= w.prober.settings.Load().Rise {
		w.state = rib.Up
	}
	if before != w.state && w.speaks() {
		w.prober.log.Info("this node reaches a backend that it observes", "backend", w.target.Name, "role", roleName(role), "timeline", timeline)
	}
}

// full is for a server that says itself that it works and has no connection left: not for anybody, or not for the probe's user or database.
// What it was seen to be stands. How far a replica has come stands as long as what is seen of a server stands while probes
// fail, and then nobody can tell.
func (w *worker) full(ofOurs bool) {
	w.shutOut++
	w.alive(w.last.role, w.last.timeline)
	if !ofOurs {
		w.load = rib.LoadAtLimit
	}
	if w.last.role != rib.Primary && (w.shutOut >= w.prober.settings.Load().Fall || w.last.role == rib.RoleUnknown) {
		w.last.lag, w.last.lagBytes = rib.LagUnknown, rib.LagBytesUnknown
	}
	w.observe()
}

// sinceHead is a replica's lag. While something is being replayed the server only knows the age of the last commit, which after
// an idle hour, or in a transaction of an hour, is an hour: but a replica cannot be further behind than it has been away from the head, nor
// than since this node has seen what it has at its primary. Of that an interval is no lag, for the primary is looked at no more often. It is not
// at the head, whatever it says, if late.
func (w *worker) sinceHead(a answer, asked time.Time, late rib.Delay) time.Duration {
	if late.Time > 0 && a.lag != rib.LagUnknown {
		a.lag = max(a.lag, late.Time)
	}
	if a.role != rib.Replica || a.timeline != w.last.timeline {
		w.headAt = time.Time{}
	}
	if a.role == rib.Replica && a.lag == 0 {
		w.headAt = asked
	}
	lag := a.lag
	least := func(at time.Time, unseen time.Duration) {
		if d := time.Since(at); !at.IsZero() && (lag == rib.LagUnknown || lag > d) {
			lag = max(d-unseen, late.Time, 0)
		}
	}
	least(w.headAt, 0)
	least(late.Has, w.prober.settings.Load().Interval)
	return lag
}

func (w *worker) failed(err error) {
	w.failures.Add(1)
	w.hangUp()
	if w.untold {
		w.untold = false
		w.prober.cfg.Sink.Announce(w.backend())
	}
	verdict := judge(err)
	if verdict == crowded && !w.strange && (w.lists || w.reached) {
		w.note(explain(err))
		w.full(limitOfOurs(err))
		return
	}
	w.good, w.shutOut = 0, 0
	barred := verdict == counts && !w.lists && (answeredBy(err) || errors.Is(err, ErrPlain))
	if barred {
		verdict = neutral // it lives, and lets its own node in: that this one may not log in says nothing of it
	}
	w.note(explain(err))
	if verdict == counts {
		w.unheard()
	} else {
		w.heard()
	}
	if verdict == crowded {
		verdict = neutral
	}
	if verdict == neutral && !w.strange {
		w.cleared++ // sessions come as other users
	} else {
		w.cleared = 0
	}
	if verdict == neutral {
		if w.barred++; w.barred >= w.prober.settings.Load().Fall && w.state != rib.StateUnknown {
			w.state = rib.StateUnknown // what was seen last holds no longer: that is for others to say
			w.observe()
		}
		return
	}
	w.barred = 0
	if w.lookAgain(verdict == counts && !w.mute && !answeredBy(err)) {
		return
	}
	w.bad++
	before := w.state
	if verdict == definite || w.bad >= w.prober.settings.Load().Fall {
		w.state = rib.Down
	}
	if w.state != rib.Down {
		return
	}
	if before != rib.Down {
		w.lost()
		w.prober.suspectSelf(w)
		if w.speaks() {
			w.prober.log.Warn("this node cannot reach a backend that it observes", "backend", w.target.Name, "addr", w.target.Addr, "failed_probes", w.bad, "error", w.trouble())
		}
	}
	w.observe()
}

// lookAgain has a server that has broken off a connection looked at again soon: one that is dying may still have its port open, and
// refuses a moment later, which is definite. The pauses double, and what breaks off in such a look does not count: then it returns true.
func (w *worker) lookAgain(broken bool) bool {
	switch {
	case broken && w.extra:
		w.again *= 2
		return true
	case broken && w.bad == 0:
		w.again = suspectGap
	default:
		w.again = 0
	}
	return false
}

// unheard notes that a probe had no answer.
func (w *worker) unheard() {
	if w.silent.CompareAndSwap(0, w.prober.clock()) && w.prober.cfg.Quiet != nil {
		w.prober.cfg.Quiet(w.target.Name, true)
	}
}

// heard notes that the server has said something, or that nobody asks it any more.
func (w *worker) heard() {
	if w.silent.Swap(0) != 0 && w.prober.cfg.Quiet != nil {
		w.prober.cfg.Quiet(w.target.Name, false)
	}
}

// lost makes it evidence for this node alone that it cannot reach the backend.
func (w *worker) lost() {
	w.evidence, w.cleared = true, 0
	if f := w.prober.cfg.Lost; f != nil {
		f(w.target.Name, w.trouble())
	}
}

// stranger is for another server's answer at the address of a backend that somebody else lists. The address leads elsewhere from
// here, so this node cannot use it, and cannot tell how the backend is.
func (w *worker) stranger(systemID uint64) {
	w.failures.Add(1)
	w.hangUp()
	w.good, w.cleared, w.bad, w.strange = 0, 0, 0, true
	w.heard()
	first := w.trouble() == ""
	w.note(fmt.Sprintf("another server answers at %s: its system identifier is %d, not %d", w.target.Addr, systemID, w.systemID))
	if first || !w.evidence {
		w.lost()
	}
	if w.state != rib.StateUnknown {
		w.state = rib.StateUnknown
		w.observe()
	}
}

// speaks tells whether the state is for the sink.
func (w *worker) speaks() bool { return w.watches.Load() && (w.lists || w.reached) }

// followed tells whether how far it has come is of interest.
func (w *worker) followed() bool {
	at := w.looked.Load()
	return at != 0 && time.Duration(w.prober.clock()-at) < lookHold
}

// note logs a failure when it is another than the last.
func (w *worker) note(text string) {
	if text != w.trouble() {
		w.failure.Store(&text)
		w.prober.log.Info("probe failed", "backend", w.target.Name, "addr", w.target.Addr, "error", text)
	}
}

// trouble is what the last probe failed with; "": it had an answer.
func (w *worker) trouble() string {
	if text := w.failure.Load(); text != nil {
		return *text
	}
	return ""
}

func (w *worker) observe() {
	if !w.speaks() {
		return
	}
	state := w.state
	if state == rib.Down && w.silent.Load() != 0 && w.prober.Suspicion() != "" {
		state = rib.StateUnknown
	}
	w.prober.cfg.Sink.Observe(rib.Route{
		Backend:  w.target.Name,
		State:    state,
		Role:     w.last.role, // of a backend that is down: the last known
		Timeline: w.last.timeline,
		Latency:  w.latency,
		Lag:      w.last.lag,
		LagBytes: w.last.lagBytes,
		Load:     w.load,
	})
}

func roleName(r rib.Role) string {
	switch r {
	case rib.Primary:
		return "primary"
	case rib.Replica:
		return "replica"
	}
	return "unknown"
}
