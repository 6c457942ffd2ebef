package gossip

import (
	"time"

	"rangefinder/rib"
)

// Lags change all the time, and are told in large steps, seldom, as far as the budget goes. Operators set bounds, and a bound would be none if
// nodes heard of its crossing when the next such step is due. So that is told at once: that a replica is too far behind with no budget, and
// that it is not any more within a budget. The second bounds the first, too: a replica goes too far behind once for each time that it was
// called near.
//
// A lag counts as distance, by the second, and one may dance: a replica that replays in bursts is at the head and two seconds behind by turns. So that
// reads do not go to and fro, here or elsewhere, a replica counts as far behind as it was at any time in the last few seconds.

const (
	calm      = 5 * time.Second // that long a replica must have been less far behind before it counts as that
	backRate  = budget / 2      // replicas a second that the whole cluster may call near again
	backBurst = pushBurst       // and one node at once: a region may come back
)

// peak is the most that a lag has been in the last few seconds. Not to know is more than all.
type peak[T time.Duration | int64] struct {
	most T
	at   time.Time // when it was last that, or more
}

func (p *peak[T]) hold(lag T, now time.Time) T {
	if more := lag < 0 || p.most >= 0 && lag >= p.most; more || now.Sub(p.at) >= calm {
		p.most, p.at = lag, now
	}
	return p.most
}

// hold has what is seen of a replica's lag count as long as it may dance. It needs mu.
func (t *told) hold(r *rib.Route, now time.Time) {
	if r.Role != rib.Replica {
		t.lag, t.bytes = peak[time.Duration]{}, peak[int64]{}
		return
	}
	r.Lag, r.LagBytes = t.lag.hold(r.Lag, now), t.bytes.hold(r.LagBytes, now)
}

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
	return true, s.own.back.take(now, s.share(backRate), backBurst)
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
