package fib

import "sync/atomic"

// Handle is the pointer to the current table. Many goroutines load it; one Maintainer stores. The zero Handle holds an empty
// table. A Handle must not be copied.
type Handle struct {
	// atomic
	current atomic.Pointer[Table]
	changed atomic.Pointer[chan struct{}] // closed by the next Store; nil: nobody waits for it
}

// Load is the current table; never nil. A statement loads it once and stays with what it got.
func (h *Handle) Load() *Table {
	if t := h.current.Load(); t != nil {
		return t
	}
	return emptyTable
}

// Store installs a table. Only a Maintainer calls it in a node; tests and tools do it themselves.
func (h *Handle) Store(t *Table) {
	h.current.Store(t)
	if c := h.changed.Swap(nil); c != nil {
		close(*c)
	}
}

// Changed is closed when a table is stored next, which a Maintainer does after every flip of a list as well. Whoever waits for
// something gets the channel first and looks then, so that nothing is missed between the two.
func (h *Handle) Changed() <-chan struct{} {
	for {
		if c := h.changed.Load(); c != nil {
			return *c
		}
		fresh := make(chan struct{})
		if h.changed.CompareAndSwap(nil, &fresh) {
			return fresh
		}
	}
}
