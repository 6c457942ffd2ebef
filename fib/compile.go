package fib

import (
	"fmt"
	"slices"
	"strings"

	"rangefinder/rib"
)

// maxDense bounds the slice of indexes by keyspace ID: IDs count up from 1 and few are dropped, but nothing says so.
const maxDense = 1 << 16

// Compile makes a table of a snapshot. It is pure: the same snapshot gives the same answers, and nothing else is read or
// written. An error names the keyspace that does not hold together.
func Compile(s *rib.Snapshot) (*Table, error) {
	t, err := build(s, nil)
	if err != nil {
		return nil, err
	}
	t.flip(s, nil)
	return t, nil
}

// build makes the table's constant part. The slots of prev are used again, as are its indexes of keyspaces whose ranges are
// the very same; new slots have no candidates until flip.
func build(s *rib.Snapshot, prev *Table) (*Table, error) {
	t := &Table{ownership: s.Ownership, byShard: map[string]*Slot{}}
	slot := func(shard string) *Slot {
		x := t.byShard[shard]
		if x != nil {
			return x
		}
		if prev != nil {
			x = prev.byShard[shard]
		}
		if x == nil {
			x = &Slot{shard: shard}
		}
		t.byShard[shard] = x
		return x
	}
	for i := range s.Ownership.Shards {
		slot(s.Ownership.Shards[i].Name)
	}
	for i := range s.Backends {
		slot(s.Backends[i].Backend.Shard)
	}
	for i := range s.Ownership.Keyspaces {
		k := &s.Ownership.Keyspaces[i]
		if t.index(k.ID) != nil {
			return nil, fmt.Errorf("keyspace %q has the ID %d of another", k.Name, k.ID)
		}
		x := prev.sameIndex(k)
		if x == nil {
			if err := k.Validate(); err != nil {
				return nil, err
			}
			x = newIndex(k.Ranges)
		}
		x = x.withSlots(slot)
		if k.ID < maxDense {
			if n := int(k.ID) + 1; n > len(t.dense) {
				t.dense = append(t.dense, make([]*index, n-len(t.dense))...)
			}
			t.dense[k.ID] = x
			continue
		}
		if t.sparse == nil {
			t.sparse = map[rib.KeyspaceID]*index{}
		}
		t.sparse[k.ID] = x
	}
	t.sortSlots()
	return t, nil
}

// sameIndex is the index of an unchanged keyspace: the ledger shares the ranges that a command did not touch.
func (t *Table) sameIndex(k *rib.Keyspace) *index {
	if t == nil {
		return nil
	}
	x := t.index(k.ID)
	if x == nil || len(x.ranges) != len(k.Ranges) || &x.ranges[0] != &k.Ranges[0] {
		return nil
	}
	return x
}

func (t *Table) sortSlots() {
	t.slots = t.slots[:0:0]
	for _, x := range t.byShard {
		t.slots = append(t.slots, x)
	}
	slices.SortFunc(t.slots, func(a, b *Slot) int { return strings.Compare(a.shard, b.shard) })
}

// knows tells whether every backend of the snapshot has a slot in the table.
func (t *Table) knows(s *rib.Snapshot) bool {
	for i := range s.Backends {
		if t.byShard[s.Backends[i].Backend.Shard] == nil {
			return false
		}
	}
	return true
}

// withShards is the same table with slots also for shards that only gossip names. It shares the indexes.
func (t *Table) withShards(s *rib.Snapshot) *Table {
	n := &Table{ownership: t.ownership, dense: t.dense, sparse: t.sparse, byShard: make(map[string]*Slot, len(t.byShard)+1)}
	for shard, x := range t.byShard {
		n.byShard[shard] = x
	}
	for i := range s.Backends {
		if shard := s.Backends[i].Backend.Shard; n.byShard[shard] == nil {
			n.byShard[shard] = &Slot{shard: shard}
		}
	}
	n.sortSlots()
	n.version.Store(t.version.Load())
	return n
}

// Flip brings the candidates up to the snapshot and tells how many lists it swapped. Its ownership is not read. One
// goroutine at a time may call it: a Maintainer, or a benchmark.
func (t *Table) Flip(s *rib.Snapshot) (changed int) { return t.flip(s, nil) }

// flip brings the candidates up to the snapshot. Only lists that changed are swapped; it returns how many. The ranges are not
// touched: the snapshot's ownership is not read. Each new list is given to before, if that is not nil, before anybody can see
// it: what there is to say of a list is said by then.
func (t *Table) flip(s *rib.Snapshot, before func(shard string, c *Candidates)) (changed int) {
	views := make(map[string][]*rib.BackendView, len(t.slots))
	for i := range s.Backends {
		v := &s.Backends[i]
		views[v.Backend.Shard] = append(views[v.Backend.Shard], v)
	}
	for _, x := range t.slots {
		in := &input{shard: x.shard, views: views[x.shard], distances: s.Distances}
		c, old := in.choose(), x.candidates.Load()
		x.input.Store(in)
		if old == nil || !old.equal(c) {
			if before != nil {
				before(x.shard, c)
			}
			x.candidates.Store(c)
			changed++
		}
	}
	t.version.Store(s.Version)
	return changed
}
