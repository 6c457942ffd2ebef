package wire

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
)

// This file is about statements whose backend says nothing any more, neither an answer nor the end of their connection: its processes
// are stopped, its machine is dead, or the way to it is cut. TCP knows of that only where something was sent that nobody has
// acknowledged, and a stopped server acknowledges. TCP_USER_TIMEOUT is no way out either: it would end a COPY whose server waits for
// a lock as well.
//
// What the node believes is where it begins: a backend that is not down has as much time as it likes. But down is not dead. A server
// that takes nobody in any more (it shuts down, and lets those who are there finish) is down for probes; so is one that the
// observers alone cannot reach. Its statements would be lost for nothing, the writes with an unknown fate. So this node asks the
// backend itself, once for all statements that wait for it, and cuts off those that were waiting then, if there is no answer and they
// have heard nothing meanwhile. It asks as soon as a probe of its own has had no answer; nobody is cut off before the backend is down, nor
// before it has been silent to them for deafPatience, nor if the probes hear of it meanwhile.

const (
	// deafAfter is how long a backend that is down, or quiet, has to answer.
	deafAfter = time.Second
	// deafPatience is how long a statement waits at least for a backend that was quiet before it was down.
	deafPatience = 3 * time.Second
	// deafVerdict is how long the verdict is waited for: a bit longer than probes take to come to one.
	deafVerdict = 5 * time.Second
	deafLook    = 50 * time.Millisecond
)

var errDeaf = errors.New("the backend is down, as this node sees it, and does not answer")

// place is where a backend is.
type place struct{ name, addr string }

// waiter is who waits for an answer of a backend: a session, or a coordinator's branch.
type waiter struct {
	conn   *pool.Conn
	since  time.Time   // it waits for that
	giveUp func() bool // cuts it off, if it still waits for the same
}

// suspect is a backend that may be deaf, with who waits for it.
type suspect struct {
	waiters []waiter
	gauge   *rib.Gauge // of one that is quiet, and not down yet; nil: it is down
}

func (s *session) exchanged() uint64 { return s.core.tally.sent.Load() + s.core.tally.received.Load() }

// isDown reports whether a backend is down for this node.
func isDown(t *fib.Table, at place) bool {
	for _, slot := range t.Slots() {
		for _, b := range slot.Candidates().Down {
			if b.Name == at.name && b.Addr == at.addr {
				return true
			}
		}
	}
	return false
}

// suspects are the backends that are down for this node, or quiet.
func suspects(t *fib.Table) map[place]*suspect {
	found := make(map[place]*suspect)
	for _, slot := range t.Slots() {
		c := slot.Candidates()
		for _, hops := range [...][]fib.NextHop{c.Reads, c.Writes} {
			for i := range hops {
				if h := &hops[i]; h.Gauge.Quiet.Load() {
					found[place{h.Backend.Name, h.Backend.Addr}] = &suspect{gauge: h.Gauge}
				}
			}
		}
		for _, b := range c.Down {
			found[place{b.Name, b.Addr}] = new(suspect)
		}
	}
	return found
}

// lookDown asks the backends that are down for this node, or quiet, whether they are deaf, on behalf of the sessions that wait for them.
// asked says when that was last done, and is owned by the sweeper.
func (s *Server) lookDown(t *fib.Table, list []*session, asked map[place]time.Time, now time.Time) {
	found := suspects(t)
	for at := range asked {
		if found[at] == nil {
			delete(asked, at)
		}
	}
	if len(found) == 0 {
		return
	}
	add := func(w waiter) {
		at := place{w.conn.Backend.Name, w.conn.Backend.Addr}
		if x := found[at]; x != nil && now.Sub(asked[at]) >= deafAfter {
			x.waiters = append(x.waiters, w)
		}
	}
	var branches []scatter.Silence
	for _, ses := range list {
		at, bytes := ses.moment(), ses.exchanged()
		if at.conn == nil || at.conn == s.queue || doing(at.turn)&allDoing != busy {
			continue
		}
		if by, ok := at.conn.Local().(*scatter.Coordinator); ok {
			branches = by.Silences(branches[:0])
			for _, w := range branches {
				add(waiter{w.Conn, w.Since, w.GiveUp})
			}
			continue
		}
		since := now
		if ses.seen.moment == at { // which began before it was seen, though not before the sweep before that
			since = ses.seen.since.Add(-s.sweepEvery())
			if came := s.made.Add(time.Duration(ses.core.tally.asked.Load())); came.After(since) {
				since = came
			}
		}
		add(waiter{at.conn, since, func() bool { return ses.giveUpOn(at, bytes) }})
	}
	for at, x := range found {
		if len(x.waiters) > 0 {
			asked[at] = now
			s.helpers.Go(func() { s.askDown(at, x) })
		}
	}
}

// askDown asks a backend whether it is deaf, and cuts off who waits for it if so.
func (s *Server) askDown(at place, x *suspect) {
	ctx, cancel := context.WithTimeout(s.ctx, deafAfter)
	defer cancel()
	if !x.waiters[0].conn.Silent(ctx) {
		return
	}
	n := 0
	if x.gauge != nil {
		n = s.cutWhenDown(at, x)
	} else {
		for i := range x.waiters {
			if x.waiters[i].giveUp() {
				n++
			}
		}
	}
	if n > 0 {
		s.log.Warn("a backend that is down does not answer: what waits for it is cut off", "backend", at.name, "addr", at.addr, "statements", n)
	}
}

// cutWhenDown waits for the verdict on a backend that was quiet, and then cuts off who has waited long enough. It returns how many.
func (s *Server) cutWhenDown(at place, x *suspect) (n int) {
	tick := time.NewTicker(deafLook)
	defer tick.Stop()
	for end := time.Now().Add(deafVerdict); len(x.waiters) > 0 && x.gauge.Quiet.Load(); {
		now := time.Now()
		if now.After(end) {
			break
		}
		if isDown(s.cfg.FIB.Load(), at) {
			x.waiters = slices.DeleteFunc(x.waiters, func(w waiter) bool {
				if now.Sub(w.since) < deafPatience {
					return false
				}
				if w.giveUp() {
					n++
				}
				return true
			})
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return n
		}
	}
	return n
}

// giveUpOn cuts the session off from its server connection if it still waits there for what it did at a moment, and nothing has come: bytes is what it had exchanged then. It is safe
// against the session for the same reason as cut is; and mu keeps the connection from its next borrower, who never gets it after this.
// A session for which a cancel request is under way is left to the next time.
func (s *session) giveUpOn(at moment, bytes uint64) bool {
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	before := s.cutting.Swap(underWay)
	if s.running == nil || s.running != at.conn || s.moment() != at || s.exchanged() != bytes || at.conn.Unread() {
		s.cutting.Store(before)
		return false
	}
	s.cutting.Store(max(before, deaf))
	s.strike()
	return true
}

// strike ends whatever is done with the server connection, now and later. It is for this session alone: the connection is not given
// back any more. mu is held.
func (s *session) strike() {
	s.struck = true
	s.running.Net.SetDeadline(longAgo)
}

// why is what an error of the server connection means.
func (s *session) why(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && s.cutting.Load() == deaf {
		return errDeaf
	}
	return err
}
