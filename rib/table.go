package rib

import (
	"sync"
	"sync/atomic"
)

// Table is everything this node believes, and what it wants. Both halves, the local part and the snapshots are safe for concurrent use; none of them is on
// the path of a statement, which reads the table compiled from a snapshot instead.
type Table struct {
	// constant
	health    *Health
	owners    *Owners
	local     *Local
	positions *Positions
	changed   chan struct{}

	// atomic
	version  atomic.Uint64 // counts changes to either half
	snapshot atomic.Pointer[Snapshot]

	// guarded by mu
	mu sync.Mutex // one snapshot is made at a time
}

// NewTable makes an empty table. self is this node: a live member for as long as the table lives.
func NewTable(self Member) *Table {
	t := &Table{changed: make(chan struct{}, 1)}
	t.owners = newOwners(t.touch)
	t.health = newHealth(self, t.owners, t.touch)
	t.local = &Local{touch: t.touch, policy: new(Policy)}
	t.positions = newPositions(t.health, t.owners)
	return t
}

// Health is gossip's half: its methods are the only way to write it.
func (t *Table) Health() *Health { return t.health }

// Positions are what this node's own probes say of how far its backends have come. They are not part of any snapshot.
func (t *Table) Positions() *Positions { return t.positions }

// Owners is the ledger's half: the Raft FSM and followers' pulls write it, nobody else.
func (t *Table) Owners() *Owners { return t.owners }

// Local is the part that this node decides for itself.
func (t *Table) Local() *Local { return t.local }

// Changed receives after any change to either half. Changes coalesce, so it is for one consumer: who takes the signal
// takes a Snapshot, which holds them all.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// touch makes a change known. It is called after the change, under the half's lock, and never blocks.
func (t *Table) touch() {
	t.version.Add(1)
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Snapshot is the whole table at one moment. It is immutable and shared: asking again without a change costs nothing.
func (t *Table) Snapshot() *Snapshot {
	if s := t.snapshot.Load(); s != nil && s.Version == t.version.Load() {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	version := t.version.Load() // before the halves are read: a change in between makes the next snapshot, not a stale one
	if s := t.snapshot.Load(); s != nil && s.Version == version {
		return s
	}
	s := &Snapshot{Version: version, Ownership: t.owners.Get()}
	most := t.health.fill(s)
	shards := make(map[string]*Shard, len(s.Ownership.Shards))
	for i := range s.Ownership.Shards {
		shards[s.Ownership.Shards[i].Name] = &s.Ownership.Shards[i]
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		b.Refused = refusal(shards, &b.Backend)
	}
	settle(s.Backends, most)
	t.local.fill(s)
	s.since(t.snapshot.Load())
	t.snapshot.Store(s)
	return s
}
