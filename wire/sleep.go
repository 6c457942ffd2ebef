package wire

import (
	"runtime/debug"
	"time"
)

// A session whose client has said nothing for a while sleeps: it gives up all that only a request needs. On the raw transport it has no
// goroutine anyway while it waits. The sweeper sends it to sleep.

// sleepAfter is how long a session waits for its client before it goes to sleep.
const sleepAfter = time.Second

// wake has a session that waits for its client look around. One that does not, does so before it next waits.
func (s *session) wake() { s.client.SetReadDeadline(longAgo) }

// sleep sends the session to sleep, if it can be: it is about to wait for its client.
func (s *session) sleep() {
	c := s.core
	if s.drowsy.Load() && s.drowsy.Swap(false) && c.idle() && c.srv == nil && c.held == nil && len(c.in)+len(c.out)+len(c.batch) == 0 {
		c.strip()
		s.server.dozed.Add(1)
	}
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
