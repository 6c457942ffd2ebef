package fib

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"rangefinder/rib"
)

// Slot is one shard's place in the table. It lives as long as the shard has a name; its candidates change.
type Slot struct {
	// constant
	shard string

	// atomic
	candidates atomic.Pointer[Candidates]
	wrote      atomic.Bool           // see Wrote
	input      atomic.Pointer[input] // what the candidates were chosen from, or would be chosen from alike: for Explain
}

// Shard is the shard's name.
func (s *Slot) Shard() string { return s.shard }

// Wrote notes that a session of this node has written to the shard: it may want to read from a replica that has what it wrote.
func (s *Slot) Wrote() {
	if !s.wrote.Load() { // a store would be felt by all who write
		s.wrote.Store(true)
	}
}

// Written tells whether Wrote was called since it was last asked.
func (s *Slot) Written() bool { return s.wrote.Load() && s.wrote.Swap(false) }

// Candidates is the list to go by now, for databases without a preference of their own; never nil.
func (s *Slot) Candidates() *Candidates { return s.candidates.Load() }

// For is the list to go by now for a database; never nil.
func (s *Slot) For(database string) *Candidates {
	c := s.candidates.Load()
	if c.databases != nil {
		if own := c.databases[database]; own != nil {
			return own
		}
	}
	return c
}

// Candidates are the backends of one shard in the order to try them. They are immutable.
type Candidates struct {
	// Reads is for statements that may run on a replica. It is empty only if the shard has no backend that may serve it.
	Reads []NextHop
	// Writes is for all others: the primary, or nothing.
	Writes []NextHop
	// ReadsNear counts the first Reads that are as close as each other: PickRead chooses among them by load.
	ReadsNear int
	// Down are the backends that are down for this node, by the observers' verdict or by its own evidence, whether the lists
	// have them for want of better ones or not. One that is only behind is not among them.
	Down []*rib.Backend
	// WritesReason says why Writes is empty, or why its health is doubtful; "" if all is well.
	WritesReason string
	// SplitBrain: two backends call themselves primary of one timeline, so that neither gets writes. An operator must act.
	SplitBrain bool
	// Past names a backend that is up and still calls itself the primary, though another one was promoted after it; "": none.
	// It gets nothing. An operator should stop it: whoever reaches it directly writes what will be lost.
	Past string
	// Stray names a replica that is up and still follows a primary of the past; "": none does. It stands still, though it may call itself
	// up to date. An operator should have it follow the new one.
	Stray string

	databases map[string]*Candidates // of databases that prefer other regions; nil: none does
}

// NextHop is one way to a backend.
//
// It is as long as a line of the processor's cache.
type NextHop struct {
	Backend  *rib.Backend
	Gauge    *rib.Gauge    // of statements in flight from this node; the caller counts
	Timeline uint32        // PostgreSQL's, as last heard; 0: unknown
	place    uint16        // of its region in the database's preference
	Healthy  bool          // nothing known speaks against it. If not: it is tried because there is nothing better
	Drained  bool          // an operator wants it to get no reads: it is tried after all others that are any good
	Held     uint8         // percentage of its turns that it leaves to those as close, because it is back only now; 0: none
	Cost     time.Duration // the distance, and what a replica's lag adds to it
	Via      string        // the node to go through; "" is directly
	Reason   string        // why it stands in the list, in a few words; Explain has more
}

// Closer tells whether h is to be tried before o, a backend of another shard, if either will do.
func (h *NextHop) Closer(o *NextHop) bool {
	if h.place != o.place {
		return h.place < o.place
	}
	return h.Cost < o.Cost
}

// PickRead is the index in Reads of the backend to try first: of two of the near ones, chosen by rnd, the one with less in
// flight, unless that is held back because it is back only now. After it the caller tries the others in order. -1 if there are none.
func (c *Candidates) PickRead(rnd uint32) int {
	n := uint64(c.ReadsNear)
	if n < 2 {
		return min(len(c.Reads), 1) - 1
	}
	// Two different ones of n: the second is drawn from those left.
	first := uint64(rnd&0xffff) * n >> 16
	second := uint64(rnd>>16) * (n - 1) >> 16
	second = lessIfAfter(second+1, first, second)
	if c.Reads[second].Gauge.InFlight.Load() < c.Reads[first].Gauge.InFlight.Load() {
		first, second = second, first
	}
	if held := uint32(c.Reads[first].Held); held != 0 && rnd*0x9e3779b1>>16*100>>16 < held { // the bits of rnd once more, mixed
		return int(second)
	}
	return int(first)
}

// equal tells whether two lists would route alike and say the same of it.
func (c *Candidates) equal(o *Candidates) bool {
	return c.ReadsNear == o.ReadsNear && c.WritesReason == o.WritesReason && c.SplitBrain == o.SplitBrain && c.Past == o.Past && c.Stray == o.Stray &&
		sameHops(c.Reads, o.Reads) && sameHops(c.Writes, o.Writes) && maps.EqualFunc(c.databases, o.databases, (*Candidates).equal) &&
		slices.EqualFunc(c.Down, o.Down, func(a, b *rib.Backend) bool { return *a == *b })
}

func sameHops(a, b []NextHop) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if *x.Backend != *y.Backend {
			return false
		}
		if x.Backend, y.Backend = nil, nil; x != y {
			return false
		}
	}
	return true
}
