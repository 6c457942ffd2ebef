package scatter

import (
	"fmt"
	"sync"
	"sync/atomic"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Shared is what all coordinators of a node share.
type Shared struct {
	Memory Memory

	// guarded by mu
	mu    sync.Mutex
	heaps map[*sqlkey.Fan]struct{} // whose rows could not be merged in their order when it was last tried
	exact map[*sqlkey.Fan][]int16  // in which formats rows that are gathered come
}

// maxHeaps bounds of how many plans each is remembered.
const maxHeaps = 4096

// unordered reports whether only PostgreSQL knows the order of a plan's rows.
func (s *Shared) unordered(f *sqlkey.Fan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.heaps[f]
	return ok
}

// learn remembers that.
func (s *Shared) learn(f *sqlkey.Fan) { remember(s, &s.heaps, f, struct{}{}) }

// formats are those in which a plan's rows are gathered; nil: they are not known.
func (s *Shared) formats(f *sqlkey.Fan) []int16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exact[f]
}

// learnFormats remembers them.
func (s *Shared) learnFormats(f *sqlkey.Fan, list []int16) { remember(s, &s.exact, f, list) }

// remember notes something of a plan. What is noted of others is forgotten when there are too many.
func remember[T any](s *Shared, of *map[*sqlkey.Fan]T, f *sqlkey.Fan, what T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *of == nil || len(*of) >= maxHeaps {
		*of = make(map[*sqlkey.Fan]T)
	}
	(*of)[f] = what
}

// Memory bounds what statements over several shards keep of their rows, on one node. The zero value bounds nothing.
type Memory struct {
	// atomic
	query atomic.Int64 // bytes that one statement may keep; 0: no limit
	node  atomic.Int64 // bytes that all together may keep; 0: no limit
	used  atomic.Int64
	peak  atomic.Int64
}

// SetLimits bounds, in bytes, what one statement and what all together may keep from now on; 0: no limit.
func (m *Memory) SetLimits(query, node int64) {
	m.query.Store(query)
	m.node.Store(node)
}

// Used is how many bytes are kept at present, and the most that ever were.
func (m *Memory) Used() (now, peak int64) { return m.used.Load(), m.peak.Load() }

// ration is what one statement keeps. Many goroutines may use it at a time.
type ration struct {
	of    *Memory
	bytes atomic.Int64
}

// take counts n bytes more. The error says which limit they would exceed; then they are not counted.
func (s *ration) take(n int) *pg.Error {
	mine := s.bytes.Add(int64(n))
	if most := s.of.query.Load(); most > 0 && mine > most {
		s.bytes.Add(-int64(n))
		return pg.NewError(pg.CodeOutOfMemory, "the statement's rows do not fit in the memory of one statement over several shards").
			WithDetail(fmt.Sprintf("%d bytes have come from the shards, and scatter.query_memory is %d.", mine, most)).
			WithHint("Have fewer rows come from the shards (a condition, LIMIT), or raise scatter.query_memory.")
	}
	used := s.of.used.Add(int64(n))
	if most := s.of.node.Load(); most > 0 && used > most {
		s.give(n)
		return pg.NewError(pg.CodeOutOfMemory, "this node has no memory left for statements over several shards").
			WithDetail(fmt.Sprintf("They keep %d bytes together, and scatter.memory is %d.", used-int64(n), most)).
			WithHint("Try again when fewer of them run, or raise scatter.memory.")
	}
	for {
		peak := s.of.peak.Load()
		if used <= peak || s.of.peak.CompareAndSwap(peak, used) {
			return nil
		}
	}
}

// give gives back n bytes.
func (s *ration) give(n int) {
	s.bytes.Add(-int64(n))
	s.of.used.Add(-int64(n))
}

// drop gives back all.
func (s *ration) drop() { s.give(int(s.bytes.Load())) }

// large is from how many bytes on a single row is counted before it is read: it is read whole, which smaller ones may be uncounted.
const large = 4 * readSize

// takeRow counts a row of the branch's that is about to be read, if it is large; n is what it counts for. One that there is no memory for is not read:
// the branch is given up.
func (s *ration) takeRow(b *branch, size int) (n int, e *pg.Error) {
	if size <= large {
		return 0, nil
	}
	if e := s.take(size); e != nil {
		b.strike()
		b.broken = true
		return 0, e
	}
	return size, nil
}
