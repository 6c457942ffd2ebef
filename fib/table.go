package fib

import (
	"sync/atomic"

	"rangefinder/rib"
)

// Table answers which shard owns a key and which backends to try for it. Its ranges never change; the candidate lists in
// its slots and its version do, atomically.
type Table struct {
	// constant
	ownership *rib.Ownership
	dense     []*index                  // by keyspace ID; nil where there is none
	sparse    map[rib.KeyspaceID]*index // those whose ID is too large for dense
	slots     []*Slot                   // by shard name
	byShard   map[string]*Slot

	// owned by the goroutine that flips: what it knows of the last snapshot
	grouped   uint64      // its BackendsChanged
	distances uint64      // its DistancesChanged
	policy    *rib.Policy // its own
	places    []place     // by backend
	members   [][]int     // by slot: its backends
	stale     []bool      // by slot: its candidates are not those of the newest beliefs

	// atomic
	version atomic.Uint64 // of the newest snapshot that went into the table or its slots
}

// place is where one backend of the last snapshot belongs.
type place struct {
	slot    int    // -1: the table has none for its shard (see knows)
	changed uint64 // BackendView.Changed
}

// emptyTable is never changed: it has no slot to flip.
var emptyTable = &Table{ownership: new(rib.Ownership)}

// Owner is where a key belongs.
type Owner struct {
	Slot  *Slot      // nil: to nobody
	Range *rib.Range // must not be changed
}

// Lookup finds the owner of a key; false only if the table does not know the keyspace. It takes no lock and allocates
// nothing. The key must be one that the keyspace's method made.
func (t *Table) Lookup(ks rib.KeyspaceID, key rib.Key) (Owner, bool) {
	x := t.index(ks)
	if x == nil {
		return Owner{}, false
	}
	if f := x.few; f != nil {
		if !f.tied && f.from == 0 && len(key) >= 8 {
			return f.lookup(key), true
		}
		if f.twins && f.from == 0 {
			if owner, ok := f.lookupTwins(key); ok {
				return owner, true
			}
		}
		return x.lookupLong(key), true
	}
	return x.owner(x.find(key)), true
}

func (t *Table) index(ks rib.KeyspaceID) *index {
	if int(ks) < len(t.dense) {
		return t.dense[ks]
	}
	return t.sparse[ks]
}

// Slot is the shard's slot; nil if neither the ledger nor gossip has named the shard.
func (t *Table) Slot(shard string) *Slot { return t.byShard[shard] }

// Slots are all slots, sorted by shard. The slice must not be changed.
func (t *Table) Slots() []*Slot { return t.slots }

// Ownership is what the table's ranges were compiled from; never nil.
func (t *Table) Ownership() *rib.Ownership { return t.ownership }

// Version is that of the newest snapshot in this table. It grows when candidates change, too.
func (t *Table) Version() uint64 { return t.version.Load() }
