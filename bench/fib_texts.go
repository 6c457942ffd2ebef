package main

import (
	"bytes"
	"slices"
	"sync"
	"unsafe"

	"github.com/tidwall/btree"

	"rangefinder/fib"
)

// textIndexes are what the FIB is compared with, for keys of any length.
type textIndexes struct {
	// constant
	w      *fibWorld
	starts [][]byte
	slots  []*fib.Slot // by range
	tree   btree.Map[string, *fib.Slot]

	// guarded by mu
	mu     sync.RWMutex
	byFrom map[string]*fib.Slot
}

func (w *fibWorld) textContestants(slots []*fib.Slot) []*contestant {
	x := &textIndexes{w: w, slots: slots, byFrom: make(map[string]*fib.Slot, len(slots))}
	for i, slot := range slots {
		if i > 0 {
			x.starts = append(x.starts, w.starts.key(i-1, nil))
		}
		x.tree.Load(x.from(i), slot)
		x.byFrom[x.from(i)] = slot
	}
	w.lock = &x.mu
	return []*contestant{
		{"sorted slice", sliceColumn, x.runSlice, func(key int) *fib.Slot { return x.bySlice(w.keys.key(key, nil)) }},
		{"btree", btreeColumn, x.runTree, func(key int) *fib.Slot { return x.byTree(w.keys.key(key, nil)) }},
		{"RWMutex map", mapColumn, x.runMap, func(key int) *fib.Slot { return x.byMap([]byte(x.from(int(w.asked[key])))) }},
	}
}

// asText is a key as a string, without a copy.
func asText(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }

// from is the first key of a range.
func (x *textIndexes) from(i int) string {
	if i == 0 {
		return ""
	}
	return asText(x.starts[i-1])
}

func (x *textIndexes) bySlice(key []byte) *fib.Slot {
	at, found := slices.BinarySearchFunc(x.starts, key, bytes.Compare)
	if found {
		at++
	}
	return x.slots[at]
}

func (x *textIndexes) runSlice(from, n int) {
	for i := from; i < from+n; i++ {
		x.w.handle.Load()
		choose(x.bySlice(x.w.keys.key(i&(askedKeys-1), nil)), i)
	}
}

func (x *textIndexes) byTree(key []byte) (slot *fib.Slot) {
	x.tree.Descend(asText(key), func(_ string, s *fib.Slot) bool {
		slot = s
		return false
	})
	return slot
}

func (x *textIndexes) runTree(from, n int) {
	for i := from; i < from+n; i++ {
		x.w.handle.Load()
		choose(x.byTree(x.w.keys.key(i&(askedKeys-1), nil)), i)
	}
}

// byMap is asked for keys that are in the map alone, since a map finds no ranges.
func (x *textIndexes) byMap(key []byte) *fib.Slot {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byFrom[string(key)]
}

func (x *textIndexes) runMap(from, n int) {
	keys := x.w.mapped
	for i := from; i < from+n; i++ {
		choose(x.byMap(keys.key(i&(askedKeys-1), nil)), i)
	}
}
