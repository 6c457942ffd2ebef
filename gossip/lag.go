package gossip

import (
	"time"

	"rangefinder/rib"
)

// Lags change all the time, and are told in large steps, seldom, as far as the budget goes. Operators set bounds, and a bound would be none if
// nodes heard of its crossing when the next such step is due. So that is told at once: that a replica is too far behind with no budget, and
// that it is not any more when it has been near for a while, and within a budget. The second bounds the first, too: a replica goes too
// far behind once for each time that it was called near.

const (
	calm      = 5 * time.Second // that long a replica must have been near before it is called near again
	backRate  = budget / 2      // replicas a second that the whole cluster may call near again
	backBurst = pushBurst       // and one node at once: a region may come back
)

// tooFar tells whether a backend that is so gets no reads for how far it is behind.
func tooFar(p *rib.Policy, r *rib.Route) bool {
	return r.Role != rib.Primary && p.Behind(r.Lag, r.LagBytes)
}

// crosses tells whether a change that is no flip crosses the bounds, and if so whether it is to be told. It needs mu.
func (s *Speaker) crosses(p *rib.Policy, old *told, r *rib.Route, now time.Time) (crosses, tell bool) {
	switch far := tooFar(p, r); {
	case far == tooFar(p, &old.route):
		return false, false
	case far:
		return true, true
	}
	return true, now.Sub(old.far) >= calm && s.own.back.take(now, s.share(backRate), backBurst)
}

// see has this node go by what its own probe has just found, which the others are not told, or not yet. As probes find another lag each
// time, the table takes it if that makes a difference to who reads from where. It needs mu.
func (s *Speaker) see(p *rib.Policy, old *told, r *rib.Route) {
	was := &old.seen
	if tooFar(p, was) == tooFar(p, r) && was.Lag/time.Second == r.Lag/time.Second && (was.Lag < 0) == (r.Lag < 0) && !largeSize(was.LagBytes, r.LagBytes) {
		return
	}
	old.seen = *r
	s.cfg.Health.Saw(r.Backend, r.Lag, r.LagBytes)
}

// sided is what a peer makes of a lag, in time or bytes: steps are wide, and it must not take one across the bound. What is beyond both the
// bound and the largest step is unknown to it, which is too far behind as well.
func sided[T time.Duration | int64](lag, bound T, pack func(T) byte, unpack func(byte) T) T {
	b := pack(lag)
	switch told := unpack(b); {
	case bound <= 0 || lag <= 0 || (told > bound) == (lag > bound):
	case lag > bound:
		b++
	default:
		b--
	}
	return unpack(b)
}
