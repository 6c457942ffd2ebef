package main

import (
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"rangefinder/fib"
)

// numberIndexes are what the FIB is compared with, for keys of eight bytes: as numbers, which suits them best.
type numberIndexes struct {
	// constant
	w      *fibWorld
	starts []uint64
	slots  []*fib.Slot // by range
	tree   btree.Map[uint64, *fib.Slot]

	// guarded by mu
	mu     sync.RWMutex
	byFrom map[uint64]*fib.Slot
}

func (w *fibWorld) numberContestants(slots []*fib.Slot) []*contestant {
	x := &numberIndexes{w: w, starts: w.starts.numbers, slots: slots, byFrom: make(map[uint64]*fib.Slot, len(slots))}
	for i, slot := range slots {
		x.tree.Load(x.from(i), slot)
		x.byFrom[x.from(i)] = slot
	}
	w.lock = &x.mu
	return []*contestant{
		{"sorted slice", sliceColumn, x.runSlice, func(key int) *fib.Slot { return x.bySlice(w.keys.numbers[key]) }},
		{"btree", btreeColumn, x.runTree, func(key int) *fib.Slot { return x.byTree(w.keys.numbers[key]) }},
		{"RWMutex map", mapColumn, x.runMap, func(key int) *fib.Slot { return x.byMap(x.from(int(w.asked[key]))) }},
	}
}

// from is the first key of a range.
func (x *numberIndexes) from(i int) uint64 {
	if i == 0 {
		return 0
	}
	return x.starts[i-1]
}

func (x *numberIndexes) bySlice(key uint64) *fib.Slot {
	at, found := slices.BinarySearch(x.starts, key)
	if found {
		at++
	}
	return x.slots[at]
}

func (x *numberIndexes) runSlice(from, n int) {
	keys := x.w.keys.numbers
	for i := from; i < from+n; i++ {
		x.w.handle.Load()
		choose(x.bySlice(keys[i&(askedKeys-1)]), i)
	}
}

func (x *numberIndexes) byTree(key uint64) (slot *fib.Slot) {
	x.tree.Descend(key, func(_ uint64, s *fib.Slot) bool {
		slot = s
		return false
	})
	return slot
}

func (x *numberIndexes) runTree(from, n int) {
	keys := x.w.keys.numbers
	for i := from; i < from+n; i++ {
		x.w.handle.Load()
		choose(x.byTree(keys[i&(askedKeys-1)]), i)
	}
}

// byMap is asked for keys that are in the map alone, since a map finds no ranges.
func (x *numberIndexes) byMap(key uint64) *fib.Slot {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byFrom[key]
}

func (x *numberIndexes) runMap(from, n int) {
	keys := x.w.mapped.numbers
	for i := from; i < from+n; i++ {
		choose(x.byMap(keys[i&(askedKeys-1)]), i)
	}
}
