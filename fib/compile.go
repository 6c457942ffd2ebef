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
		if shard == "" { // a range that nobody owns
			return nil
		}
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

// flip brings the candidates up to the snapshot. Only shards are looked at of which something else is believed than in the
// last flip, and only lists that changed are swapped; it returns how many. The ranges are not touched: the snapshot's ownership
// is not read. Each new list is given to before, if that is not nil, before anybody can see it: what there is to say of a
// list is said by then. What is left when it panics, the next flip takes up.
func (t *Table) flip(s *rib.Snapshot, before func(shard string, c *Candidates)) (changed int) {
	t.notice(s)
	for i, x := range t.slots {
		old := x.input.Load()
		if old != nil && !t.stale[i] {
			continue
		}
		in := &input{shard: x.shard, views: kept(old, s, t.members[i]), distances: s.Distances, policy: s.Policy}
		c, last := in.choose(), x.candidates.Load()
		if last == nil || !last.equal(c) {
			if before != nil {
				before(x.shard, c)
			}
			x.candidates.Store(c)
			changed++
		}
		x.input.Store(in)
		t.stale[i] = false
	}
	t.version.Store(s.Version)
	return changed
}

// notice marks the slots as stale that the snapshot has news for.
func (t *Table) notice(s *rib.Snapshot) {
	if len(t.stale) != len(t.slots) || t.grouped != s.BackendsChanged || t.distances != s.DistancesChanged || t.policy != s.Policy {
		t.group(s)
	}
	for i := range s.Backends {
		p := &t.places[i]
		if p.changed == s.Backends[i].Changed {
			continue
		}
		if p.changed = s.Backends[i].Changed; p.slot >= 0 {
			t.stale[p.slot] = true
		}
	}
}

// group finds each slot's backends in the snapshot, and marks all slots as stale.
func (t *Table) group(s *rib.Snapshot) {
	t.grouped, t.distances, t.policy = s.BackendsChanged, s.DistancesChanged, s.Policy
	t.places, t.members, t.stale = make([]place, len(s.Backends)), make([][]int, len(t.slots)), make([]bool, len(t.slots))
	number := make(map[string]int, len(t.slots))
	for i, x := range t.slots {
		number[x.shard], t.stale[i] = i, true
	}
	for i := range s.Backends {
		slot, ok := number[s.Backends[i].Backend.Shard]
		if !ok {
			slot = -1
		} else {
			t.members[slot] = append(t.members[slot], i)
		}
		t.places[i] = place{slot, s.Backends[i].Changed}
	}
}

// kept are the views at some places of the snapshot: copies, since a slot without news keeps them while snapshots come and
// go, and the old ones where nothing has changed.
func kept(old *input, s *rib.Snapshot, at []int) []*rib.BackendView {
	views := make([]*rib.BackendView, len(at))
	for k, i := range at {
		v := &s.Backends[i]
		if old != nil && k < len(old.views) && old.views[k].Changed == v.Changed && old.views[k].Backend.Name == v.Backend.Name {
			views[k] = old.views[k]
			continue
		}
		own := *v
		views[k] = &own
	}
	return views
}
