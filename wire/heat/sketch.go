package heat

import (
	"cmp"
	"container/heap"
	"slices"

	"rangefinder/rib"
)

// ident is what is counted.
type ident struct {
	keyspace rib.KeyspaceID
	key      string
	cut      bool
}

// counter counts one of them. count is too high by at most over.
type counter struct {
	ident
	plain       string // of a key, what it is a hash of; "": it is none, or that is not known
	count, over float64
	at          int // in the heap
}

// sketch counts the most frequent of a stream in bounded memory (Space-Saving): what is new takes the place of the least frequent, with
// its count. All counts fade alike, so their order stays.
type sketch struct {
	limit int
	index map[ident]*counter
	heap  counters
}

func newSketch(limit int) sketch { return sketch{limit: limit, index: make(map[ident]*counter)} }

// negligible is a count that is forgotten.
const negligible = 0.05

func (s *sketch) add(id ident, weight float64) *counter {
	c := s.index[id]
	switch {
	case c != nil:
		c.count += weight
		heap.Fix(&s.heap, c.at)
	case len(s.heap) < s.limit:
		c = &counter{ident: id, count: weight}
		s.index[id] = c
		heap.Push(&s.heap, c)
	default:
		c = s.heap[0]
		delete(s.index, c.ident)
		c.ident, c.plain, c.over = id, "", c.count
		c.count += weight
		s.index[id] = c
		heap.Fix(&s.heap, 0)
	}
	return c
}

// fade makes all counts less by a factor up to 1.
func (s *sketch) fade(by float64) {
	for _, c := range s.heap {
		c.count *= by
		c.over *= by
	}
	for len(s.heap) > 0 && s.heap[0].count < negligible {
		delete(s.index, s.heap[0].ident)
		heap.Pop(&s.heap)
	}
}

// sorted are the counters, the highest first.
func (s *sketch) sorted() []counter {
	list := make([]counter, len(s.heap))
	for i, c := range s.heap {
		list[i] = *c
	}
	slices.SortFunc(list, func(a, b counter) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.keyspace, b.keyspace), cmp.Compare(a.key, b.key))
	})
	return list
}

// counters are a heap, the least first.
type counters []*counter

func (h counters) Len() int           { return len(h) }
func (h counters) Less(i, j int) bool { return h[i].count < h[j].count }
func (h counters) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is heap.Interface's.
func (h *counters) Push(x any) {
	c := x.(*counter)
	c.at = len(*h)
	*h = append(*h, c)
}

// Pop is heap.Interface's.
func (h *counters) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return c
}
