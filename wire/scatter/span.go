package scatter

import (
	"context"
	"errors"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/twophase"
)

// A Coordinator with more than one branch is a twophase.Span: it may wait on one shard for who waits for it on another.

// watch begins to be watched, with the second branch. mu may be held.
func (c *Coordinator) watch() {
	if c.cfg.Watch != nil && c.watched == nil && len(c.branches) == 2 {
		c.watched = c.cfg.Watch(c)
	}
}

func (c *Coordinator) unwatch() {
	if c.watched != nil {
		c.watched()
		c.watched = nil
	}
}

// Parts are the branches on primaries: replicas have no locks that matter. It is a twophase.Span's.
func (c *Coordinator) Parts() (parts []twophase.Part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := range c.live {
		if b.write {
			parts = append(parts, twophase.Part{Shard: b.slot.Shard(), PID: b.conn.PID})
		}
	}
	return parts
}

// Waits is for how long the request in hand has been running. It is a twophase.Span's.
func (c *Coordinator) Waits() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		return 0
	}
	return time.Since(c.since)
}

// Break ends the request in hand with an error. It is a twophase.Span's.
func (c *Coordinator) Break(e *pg.Error) {
	c.mu.Lock()
	if c.stop != nil {
		c.stop(e)
	}
	c.mu.Unlock()
	c.cancelLive()
}

// brokenBy is why the request in hand was broken, if that is what a server's error comes from; nil: it is not.
func (c *Coordinator) brokenBy(e *pg.Error) *pg.Error {
	var why *pg.Error
	if e.Code != pg.CodeQueryCanceled || !errors.As(context.Cause(c.ctx), &why) || why == errCanceled {
		return nil
	}
	return why
}
