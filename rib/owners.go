package rib

import (
	"sync"
	"sync/atomic"
)

// Owners is the table's half that the ledger writes: which shard owns which keys.
type Owners struct {
	// constant
	touch func()

	// atomic
	current atomic.Pointer[Ownership]

	// guarded by mu
	mu sync.Mutex // one writer at a time
}

func newOwners(touch func()) *Owners {
	o := &Owners{touch: touch}
	o.current.Store(new(Ownership))
	return o
}

// Set installs n if its epoch is newer than what the table holds, and tells whether it did. n and all that it points to
// must not be changed afterwards.
func (o *Owners) Set(n *Ownership) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.Epoch.Compare(o.current.Load().Epoch) <= 0 {
		return false
	}
	o.current.Store(n)
	o.touch()
	return true
}

// Get is the ownership at the newest epoch known; never nil, and of the zero epoch before the first Set.
func (o *Owners) Get() *Ownership { return o.current.Load() }
