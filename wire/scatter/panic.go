package scatter

import (
	"errors"
	"maps"
	"slices"

	"rangefinder/wire/pg"
)

// A panic, in whichever goroutine that works for the session, ends that session and no other. Nobody knows then what has become of the request in hand:
// the session is told no more of it, and hears that its connection has ended.

var errCrashed = errors.New("scatter: a part of the request has panicked")

// guard carries out what a goroutine does.
func (c *Coordinator) guard(do func() *pg.Error) (e *pg.Error) {
	defer func() {
		if r := recover(); r != nil {
			e = c.crash(r)
		}
	}()
	return do()
}

// crash follows a panic: all branches are given up, for nobody knows what is on its way there, and with the request the session ends.
func (c *Coordinator) crash(with any) *pg.Error {
	c.cfg.Panicked(with)
	c.crashed.Store(true)
	c.mu.Lock()
	c.closed = true
	if c.stop != nil {
		c.stop(errGone)
	}
	list := slices.Collect(maps.Keys(c.live))
	c.mu.Unlock()
	for _, b := range list {
		b.strike()
	}
	return pg.NewError(pg.CodeInternalError, "a part of the statement has failed in the router itself")
}
