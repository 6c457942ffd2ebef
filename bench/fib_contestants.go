package main

import (
	"fmt"

	"rangefinder/fib"
)

// contestant finds the backend for keys one after another.
type contestant struct {
	name   string
	column func(*fibRow) *float64
	run    func(from, n int)       // dispatches n of the keys, beginning with number from
	slot   func(key int) *fib.Slot // what run finds for a key
}

// The columns that contestants fill.
func fibColumn(r *fibRow) *float64     { return &r.fib }
func chainedColumn(r *fibRow) *float64 { return &r.chained }
func sliceColumn(r *fibRow) *float64   { return &r.slice }
func btreeColumn(r *fibRow) *float64   { return &r.btree }
func mapColumn(r *fibRow) *float64     { return &r.hash }

// choose is what follows once the slot is known, the same for all contestants: the database's list of candidates, and of the near ones
// the less busy of two. It panics if there is no backend: then nothing that is measured would mean anything.
func choose(slot *fib.Slot, i int) int {
	c := slot.For(benchDatabase)
	first := c.PickRead(uint32(i) * 0x9e3779b1)
	if c.Reads[first].Backend == nil {
		panic("no backend")
	}
	return first
}

// contestants are all that find slots: the FIB first.
func (w *fibWorld) contestants() []*contestant {
	all := []*contestant{
		{"fib", fibColumn, w.runFIB, w.fibSlot},
		{"fib, chained", chainedColumn, w.runChained, w.fibSlot},
	}
	slots := make([]*fib.Slot, w.starts.len()+1)
	for i := range slots {
		slots[i] = w.handle.Load().Slot(fibShard(i % 3))
	}
	if w.keys.numbers != nil {
		return append(all, w.numberContestants(slots)...)
	}
	return append(all, w.textContestants(slots)...)
}

// agree fails if a contestant does not find what the keyspace itself says.
func (w *fibWorld) agree(all []*contestant) error {
	for i := range w.keys.len() {
		want := fibShard(int(w.asked[i]) % 3)
		for _, c := range all {
			if got := c.slot(i).Shard(); got != want {
				return fmt.Errorf("key %q: the %s says %s, not %s", w.keys.append(nil, i), c.name, got, want)
			}
		}
	}
	return nil
}

func (w *fibWorld) fibSlot(key int) *fib.Slot {
	owner, _ := w.handle.Load().Lookup(1, w.keys.append(nil, key))
	return owner.Slot
}

// runFIB is what a session does with each statement.
func (w *fibWorld) runFIB(from, n int) {
	var buffer [8]byte
	keys := w.keys
	for i := from; i < from+n; i++ {
		owner, ok := w.handle.Load().Lookup(1, keys.key(i&(askedKeys-1), &buffer))
		if !ok {
			panic("no owner")
		}
		choose(owner.Slot, i)
	}
}

// runChained is the same, but the processor cannot begin with a key before it knows the backend of the one before.
func (w *fibWorld) runChained(from, n int) {
	var buffer [8]byte
	keys, step := w.keys, 0
	for i := from; i < from+n; i++ {
		owner, ok := w.handle.Load().Lookup(1, keys.key((i+step)&(askedKeys-1), &buffer))
		if !ok {
			panic("no owner")
		}
		step = choose(owner.Slot, i) >> 16 // always 0
	}
}
