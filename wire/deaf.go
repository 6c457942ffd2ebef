package wire

import (
	"context"
	"errors"
	"os"
	"time"

	"rangefinder/fib"
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
// have heard nothing meanwhile.

// deafAfter is how long a backend that is down has to answer.
const deafAfter = time.Second

var errDeaf = errors.New("the backend is down, as this node sees it, and does not answer")

// place is where a backend is.
type place struct{ name, addr string }

// waiter is a session that waits for an answer, and for which.
type waiter struct {
	session *session
	moment
	bytes uint64 // that have come from the client and gone to it
}

func (s *session) exchanged() uint64 { return s.core.tally.sent.Load() + s.core.tally.received.Load() }

// lookDown asks the backends that are down for this node whether they are deaf, on behalf of the sessions that wait for them. asked
// says when that was last done, and is owned by the sweeper.
func (s *Server) lookDown(t *fib.Table, list []*session, asked map[place]time.Time, now time.Time) {
	down := make(map[place][]waiter)
	for _, slot := range t.Slots() {
		for _, b := range slot.Candidates().Down {
			down[place{b.Name, b.Addr}] = nil
		}
	}
	for at := range asked {
		if _, ok := down[at]; !ok {
			delete(asked, at)
		}
	}
	if len(down) == 0 {
		return
	}
	for _, ses := range list {
		w := waiter{ses, ses.moment(), ses.exchanged()}
		if w.conn == nil || w.conn == s.queue || doing(w.turn)&allDoing != busy {
			continue
		}
		at := place{w.conn.Backend.Name, w.conn.Backend.Addr}
		if l, ok := down[at]; ok && now.Sub(asked[at]) >= deafAfter {
			down[at] = append(l, w)
		}
	}
	for at, waiters := range down {
		if len(waiters) > 0 {
			asked[at] = now
			s.helpers.Go(func() { s.askDown(at, waiters) })
		}
	}
}

// askDown asks a backend whether it is deaf, and cuts off who waits for it if so.
func (s *Server) askDown(at place, waiters []waiter) {
	ctx, cancel := context.WithTimeout(s.ctx, deafAfter)
	defer cancel()
	if !waiters[0].conn.Silent(ctx) {
		return
	}
	n := 0
	for i := range waiters {
		if waiters[i].session.giveUpOn(&waiters[i]) {
			n++
		}
	}
	if n > 0 {
		s.log.Warn("a backend that is down does not answer: what waits for it is cut off", "backend", at.name, "addr", at.addr, "statements", n)
	}
}

// giveUpOn cuts the session off from its server connection if it still waits there for the same, and nothing has come. It is safe
// against the session for the same reason as cut is; and mu keeps the connection from its next borrower, who never gets it after this.
// A session for which a cancel request is under way is left to the next time.
func (s *session) giveUpOn(w *waiter) bool {
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	before := s.cutting.Swap(underWay)
	if s.running == nil || s.running != w.conn || s.moment() != w.moment || s.exchanged() != w.bytes || w.conn.Unread() {
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
