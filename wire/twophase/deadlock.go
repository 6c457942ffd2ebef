package twophase

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rangefinder/wire/pg"
)

// PostgreSQL finds transactions that wait for each other on one server. Two that wait for each other on different shards each look, there, as if they
// waited for somebody who is at work. So when a transaction over several shards has waited for a second, all shards that it and its like
// are on are asked who waits there for whom, and the other nodes which server processes belong together.

// Spanning is a transaction that is open on several shards.
type Spanning struct {
	Node   string `json:"node"`
	Number uint64 `json:"number"` // larger: began later, on that node
	Parts  []Part `json:"parts"`
}

// Part is a transaction's server process on one shard.
type Part struct {
	Shard string `json:"shard"`
	PID   uint32 `json:"pid"`
}

// Span is a transaction of this node that is open on several shards, as whoever runs it tells of it. All methods may be called at any time.
type Span interface {
	// Parts are its branches on primaries.
	Parts() []Part
	// Waits is for how long the statement in hand has been running; 0: there is none.
	Waits() time.Duration
	// Break ends the statement in hand with an error.
	Break(e *pg.Error)
}

// Wait is one server process that waits for a lock.
type Wait struct {
	PID   uint32
	Since string   // when it began to, as the server tells it: with PID, which wait it is
	For   []uint32 // server processes that hold the lock, or come before it; 0: a prepared transaction
}

const (
	suspicious   = time.Second            // that a statement over several shards waits, before somebody looks why
	detectEvery  = time.Second            // how often it is looked whether one waits
	betweenLooks = 100 * time.Millisecond // see standstill
	detectTime   = 5 * time.Second        // for one search
)

// spans are the transactions of this node that are open on several shards.
type spans struct {
	// guarded by mu
	mu   sync.Mutex
	next uint64
	open map[uint64]Span
}

// all is a copy: a Span may be held up by somebody who wants to be watched.
func (s *spans) all() map[uint64]Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.open)
}

// Watch has a transaction be looked after until the function that it returns is called.
func (m *Manager) Watch(s Span) (forget func()) {
	m.spans.mu.Lock()
	defer m.spans.mu.Unlock()
	m.spans.next++
	number := m.spans.next
	if m.spans.open == nil {
		m.spans.open = make(map[uint64]Span)
	}
	m.spans.open[number] = s
	return func() {
		m.spans.mu.Lock()
		defer m.spans.mu.Unlock()
		delete(m.spans.open, number)
	}
}

// Spanning lists the transactions of this node that are open on several shards. Other nodes ask for it.
func (m *Manager) Spanning() (list []Spanning) {
	for number, s := range m.spans.all() {
		if parts := s.Parts(); len(parts) > 1 {
			list = append(list, Spanning{m.cfg.Node, number, parts})
		}
	}
	return list
}

// Detect looks for transactions that wait for each other, if one of this node's has waited for long, and ends one of each such circle, provided that it is this
// node's: all nodes choose alike.
func (m *Manager) Detect(ctx context.Context) {
	if !m.suspects() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, detectTime)
	defer cancel()
	all := m.Spanning()
	if m.cfg.Others != nil {
		all = append(all, m.cfg.Others(ctx)...)
	}
	var shards []string
	for _, s := range all {
		for _, p := range s.Parts {
			if !slices.Contains(shards, p.Shard) {
				shards = append(shards, p.Shard)
			}
		}
	}
	first := m.waits(ctx, shards)
	if len(victims(all, first)) == 0 || !pause(ctx, betweenLooks) {
		return
	}
	for _, v := range victims(all, standstill(first, m.waits(ctx, shards))) {
		if v.Node != m.cfg.Node {
			continue
		}
		m.spans.mu.Lock()
		s := m.spans.open[v.Number]
		m.spans.mu.Unlock()
		if s != nil {
			m.counts.deadlocks.Add(1)
			s.Break(pg.NewError(pg.CodeDeadlockDetected, "deadlock detected").
				WithDetail(fmt.Sprintf("Transactions over several shards wait for each other on shards %v, where each shard sees but a part of that.", shards)).
				WithHint("Repeat the transaction. It does not happen to transactions that lock rows in the same order."))
		}
	}
}

func (m *Manager) suspects() bool {
	for _, s := range m.spans.all() {
		if s.Waits() >= suspicious {
			return true
		}
	}
	return false
}

// waits asks shards who waits there. One that cannot be asked is left out.
func (m *Manager) waits(ctx context.Context, shards []string) map[string][]Wait {
	found := make([][]Wait, len(shards))
	numbers := make([]int, len(shards))
	for i := range numbers {
		numbers[i] = i
	}
	errs := each(numbers, func(i int) error {
		return m.at(ctx, place{shard: shards[i]}, func(s Site) (err error) {
			found[i], err = s.Waits(ctx)
			return err
		})
	})
	all := make(map[string][]Wait, len(shards))
	for i, shard := range shards {
		if errs[i] != nil {
			m.cfg.Logger.Warn("cannot look for transactions that wait for each other", "shard", shard, "error", errs[i])
		}
		all[shard] = found[i]
	}
	return all
}

// standstill is what of the first look was still so at the second. The shards are not asked at the same moment: but what was so both times was so all the
// while, and so all of it was at the moment between.
func standstill(first, second map[string][]Wait) map[string][]Wait {
	all := make(map[string][]Wait, len(first))
	for shard, list := range first {
		for _, w := range list {
			for _, x := range second[shard] {
				if x.PID == w.PID && x.Since == w.Since {
					w.For = slices.DeleteFunc(slices.Clone(w.For), func(pid uint32) bool { return !slices.Contains(x.For, pid) })
					all[shard] = append(all[shard], w)
				}
			}
		}
	}
	return all
}

// victims are those to end, so that nobody waits for himself: of each circle that holds several shards the transaction that began last. What one
// server finds by itself is left to it.
func victims(all []Spanning, waits map[string][]Wait) (list []Spanning) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Spanning) int { return cmp.Or(cmp.Compare(b.Number, a.Number), cmp.Compare(b.Node, a.Node)) })
	owner := map[Part]int{} // index in all
	for i, s := range all {
		for _, p := range s.Parts {
			owner[p] = i
		}
	}
	next := map[Part][]Part{}
	for shard, l := range waits {
		for _, w := range l {
			for _, pid := range w.For {
				next[Part{shard, w.PID}] = append(next[Part{shard, w.PID}], Part{shard, pid})
			}
		}
	}
	gone := make([]bool, len(all))
	for i := range all {
		if reaches(i, all, owner, next, gone) {
			gone[i] = true
			list = append(list, all[i])
		}
	}
	return list
}

// reaches tells whether a transaction waits, in the end, for itself, by way of more than one shard. Those that are gone wait for nobody.
func reaches(from int, all []Spanning, owner map[Part]int, next map[Part][]Part, gone []bool) bool {
	type at struct {
		part Part
		far  bool // the way went from one part of a transaction to another
	}
	for _, start := range all[from].Parts {
		seen := map[at]bool{}
		todo := []at{{start, false}}
		for len(todo) > 0 {
			a := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if seen[a] {
				continue
			}
			seen[a] = true
			for _, p := range next[a.part] {
				i, known := owner[p]
				switch {
				case known && gone[i]:
				case known && i == from:
					if a.far || p != start { // else one server sees all of it
						return true
					}
				case known:
					for _, other := range all[i].Parts {
						todo = append(todo, at{other, a.far || other != p})
					}
				default:
					todo = append(todo, at{p, a.far})
				}
			}
		}
	}
	return false
}
