package wire

import (
	"runtime/debug"
	"time"

	"rangefinder/wire/epoll"
)

// A session whose client has said nothing for a while sleeps: it gives up its goroutine, whose stack is more than all else that it
// has, and an epoll set wakes it by a new one when something comes. The sweeper sends it to sleep. It is in one of two states, and
// whoever takes it from asleep to awake starts the goroutine: the set, or who calls wake. Sleeping it has neither a server connection
// nor bytes in hand, so there is nothing but the session itself to be handed over.

// sleepAfter is how long a session waits for its client before it goes to sleep.
const sleepAfter = time.Second

// wake has a session that waits for its client look around. One that does not, does so before it next waits.
func (s *session) wake() {
	s.client.SetReadDeadline(longAgo)
	s.Told()
}

// Told wakes the session if it sleeps.
func (s *session) Told() {
	if s.asleep.CompareAndSwap(true, false) {
		go s.goOn()
	}
}

// sleeps sends the session to sleep, if it can be. Its goroutine must do nothing with it any more: another one may have it already.
func (s *session) sleeps() bool {
	c, b := s.core, s.inbox
	if !s.drowsy.Swap(false) || !c.idle() || c.srv != nil || s.ear != nil || s.writing != nil || c.held != nil || len(c.in)+len(c.out)+len(c.batch) > 0 {
		return false
	}
	c.strip()
	s.asleep.Store(true)
	if s.server.beds.Await(s.raw.client, epoll.Input, s) < 0 {
		return !s.stays()
	}
	s.server.dozed.Add(1)
	// Who had something for it before it slept, and so did not wake it, has left a mark.
	if s.server.draining.Load() || s.leaving.Load() || s.killed.Load() || s.server.ctx.Err() != nil || b != nil && b.full.Load() || s.expired.Load() == c.tally.turn.Load() {
		return !s.stays()
	}
	return true
}

// stays takes the session back that was about to sleep, unless another goroutine has it already.
func (s *session) stays() bool {
	if !s.asleep.CompareAndSwap(true, false) {
		return false
	}
	s.core.inHand = new(inHand)
	return true
}

// strip drops what only a request needs.
func (c *core) strip() {
	c.in, c.inOff, c.out, c.toServer, c.batch = nil, 0, nil, nil, nil
	c.inHand = nil
}

// relief gives memory that sleeping sessions have left back to the operating system. Go would take minutes to.
type relief struct {
	seen   int64         // server.dozed at the last look
	served int64         // and when memory was given back
	next   time.Time     // not before this
	took   time.Duration // what it cost
}

const (
	// reliefWorth is how many sessions must have gone to sleep: their stacks are 2 MB.
	reliefWorth = 256
	// reliefShare is how many times as long as it takes the next one has to wait: it may cost 2 % of a processor.
	reliefShare = 50
)

// due reports whether it is worth it: many have gone to sleep, and no more are about to, or very many.
func (r *relief) due(dozed int64, now time.Time) bool {
	settled, gone := dozed == r.seen, dozed-r.served
	r.seen = dozed
	return (settled && gone >= reliefWorth || gone >= 8*reliefWorth) && !now.Before(r.next)
}

func (r *relief) give() {
	begin := time.Now()
	debug.FreeOSMemory()
	r.took, r.served = time.Since(begin), r.seen
	r.next = begin.Add(reliefShare * r.took)
}
