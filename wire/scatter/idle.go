package scatter

import (
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// This file is about branches that wait: for a server that does not answer any more, and for a session that is at work elsewhere. The
// session's sweeper looks at both.

const (
	// touchBetween is how long a branch has rested at least before it is touched at the beginning and at the end of a request, and so how much
	// too early its server may find the session idle.
	touchBetween = 250 * time.Millisecond
	// touchEvery is the same while a request runs on others.
	touchEvery = time.Second
	// touchSlower is after how many times without an answer read it is done half as often, and so on: the answers must have room.
	touchSlower = 60
)

// Tend keeps the servers of branches on which nothing runs from taking a session that is at work on another one for idle: their
// idle_in_transaction_session_timeout is meant for clients. It never waits. It may be called at any time, about twice a second.
func (c *Coordinator) Tend(now time.Time) {
	c.mu.Lock()
	working := c.stop != nil
	c.mu.Unlock()
	if working {
		c.touch(now, touchEvery)
	}
}

// touch touches the branches that have been at rest for some time.
func (c *Coordinator) touch(now time.Time, rested time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live) < 2 { // the session's request is that one's
		return
	}
	for b := range c.live {
		b.touch(now, rested)
	}
}

// touch has the server begin to count anew for how long it has been idle in its transaction, as any message does: by a Sync. What it says to
// that is read when there is something else to be read.
func (b *branch) touch(now time.Time, rested time.Duration) {
	if !b.mu.TryLock() { // something is being done with it
		return
	}
	defer b.mu.Unlock()
	if b.rests.IsZero() || b.running || b.given || b.struck || now.Sub(b.rests) < rested*time.Duration(1+b.owed/touchSlower) {
		return
	}
	b.rests = now
	if _, err := b.conn.Net.Write(pg.AppendSync(nil)); err == nil { // else it is lost, and whoever uses it next learns why
		b.owed++
	}
}

// Silence is a wait of a branch's for its server.
type Silence struct {
	Conn  *pool.Conn
	Since time.Time

	b  *branch
	at int64
}

// Silences appends what the branches are waiting for to list. It may be called at any time.
func (c *Coordinator) Silences(list []Silence) []Silence {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := range c.live {
		if at := b.waits.Load(); at != 0 {
			list = append(list, Silence{Conn: b.conn, Since: epoch.Add(time.Duration(at)), b: b, at: at})
		}
	}
	return list
}

// GiveUp ends the wait, if it is still the same one and nothing has come: the server is known to answer nobody. It reports whether it
// has done so. What is said to a branch by that is that its connection is lost.
func (s Silence) GiveUp() bool {
	b := s.b
	if !b.mu.TryLock() { // a cancel request is under way for it: next time
		return false
	}
	defer b.mu.Unlock()
	if b.given || b.waits.Load() != s.at || b.conn.Unread() {
		return false
	}
	b.deaf = true
	b.strikeLocked()
	return true
}

func (b *branch) isDeaf() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.deaf
}
