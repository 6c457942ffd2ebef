package rib

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Gauge counts what this node has to do with one backend. There is one per backend name for as long as anybody announces it or a statement is in flight. Sessions write it on
// a statement's way: atomics, nothing else.
type Gauge struct {
	InFlight atomic.Int32
	Seen     atomic.Pointer[Seen]   // how far it had come when this node last asked; nil: never. Positions writes it
	Quiet    atomic.Bool            // this node's own last probe of it had no answer at all; see Health.Quiet
	errors   atomic.Uint32          // what speaks against the backend; it wraps
	reads    [buckets]atomic.Uint32 // answers to reads by the time they took; they wrap
}

// Answers are counted in buckets by time: all up to 64 us, then two for each doubling, and the last for all over two minutes.
const (
	buckets  = 44
	tinyBits = 6 // 64 us are 2^6
)

// Read counts a read that the backend has answered.
func (g *Gauge) Read(took time.Duration) {
	us := uint64(max(took, 0) / time.Microsecond)
	i, n := 0, bits.Len64(us)
	if n > tinyBits {
		i = 2*(n-tinyBits) - 1 + int(us>>(n-2)&1) // the bit behind the first halves the doubling
	}
	g.reads[min(i, buckets-1)].Add(1)
}

// leastOf is the least time in a bucket.
func leastOf(bucket int) time.Duration {
	if bucket == 0 {
		return 0
	}
	return time.Duration(2+(bucket-1)%2) << ((bucket-1)/2 + tinyBits - 1) * time.Microsecond
}

// Failed counts an answer that speaks against the backend, or the loss of a connection to it.
func (g *Gauge) Failed() { g.errors.Add(1) }

// counts is what a gauge showed at one moment.
type counts struct {
	errors uint32
	reads  [buckets]uint32
}

func (g *Gauge) counts() (c counts) {
	c.errors = g.errors.Load()
	for i := range c.reads {
		c.reads[i] = g.reads[i].Load()
	}
	return c
}

// since is what was counted between from and c.
func (c *counts) since(from *counts) counts {
	d := counts{errors: c.errors - from.errors}
	for i := range d.reads {
		d.reads[i] = c.reads[i] - from.reads[i]
	}
	return d
}

// total is how many reads were answered.
func (c *counts) total() (n int) {
	for _, k := range c.reads {
		n += int(k)
	}
	return n
}

// median is between what and what the median of the times lies; false without reads.
func (c *counts) median() (least, most time.Duration, ok bool) {
	half := (c.total() + 1) / 2
	for i, k := range c.reads {
		if half -= int(k); half <= 0 {
			return leastOf(i), leastOf(i + 1), c.total() > 0
		}
	}
	return 0, 0, false
}
