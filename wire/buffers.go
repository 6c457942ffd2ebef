package wire

import (
	"sync"

	"rangefinder/wire/pg"
)

// buffers are what a session needs while bytes are in hand. A session that waits for its client holds none.
type buffers struct{ in, out, toServer, batch []byte }

// largestKept bounds a buffer that is kept for the next session.
const largestKept = 64 << 10

// shrink drops large buffers that nothing is in.
func (c *core) shrink() {
	if len(c.in) > c.inOff || len(c.ops) > 0 {
		return
	}
	if cap(c.in) > largestKept {
		c.in, c.inOff, c.frame = nil, 0, nil
	}
	if cap(c.batch) > largestKept {
		c.batch, c.bind = nil, pg.Bind{} // which is a view of it
	}
	if c.plan != nil && len(c.plan.SQL) > largestKept && !c.waiting() && !c.copyIn {
		c.plan = nil // the text is as large as the buffer that it came in
		clear(c.expect[:cap(c.expect)])
	}
	if cap(c.ops) > 1000 {
		c.ops = nil
	}
	if cap(c.expect) > 1000 && !c.waiting() {
		c.expect, c.expectOff = nil, 0
	}
}

// park gives the buffers back, if nothing is in them.
func (c *core) park(spare *sync.Pool) {
	if c.held == nil || len(c.in) > c.inOff || len(c.out)+len(c.toServer)+len(c.batch) > 0 {
		return
	}
	b := c.held
	for _, x := range [...]struct {
		kept *[]byte
		used []byte
	}{{&b.in, c.in}, {&b.out, c.out}, {&b.toServer, c.toServer}, {&b.batch, c.batch}} {
		*x.kept = x.used[:0]
		if cap(x.used) > largestKept {
			*x.kept = nil
		}
	}
	c.in, c.inOff, c.out, c.toServer, c.batch, c.held = nil, 0, nil, nil, nil, nil
	spare.Put(b)
}

// unpark gets buffers for what is about to come.
func (c *core) unpark(spare *sync.Pool) {
	if c.held != nil {
		return
	}
	b := spare.Get().(*buffers)
	// What the core has of its own by now (a greeting, for one) stays.
	c.in, c.out = append(b.in[:0], c.in[c.inOff:]...), append(b.out[:0], c.out...)
	c.toServer, c.batch = append(b.toServer[:0], c.toServer...), append(b.batch[:0], c.batch...)
	c.inOff, c.held = 0, b
}
