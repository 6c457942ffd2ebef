package fib

import "sync/atomic"

// Handle is the pointer to the current table. Many goroutines load it; one Maintainer stores. The zero Handle holds an empty
// table. A Handle must not be copied.
type Handle struct{ current atomic.Pointer[Table] }

// Load is the current table; never nil. A statement loads it once and stays with what it got.
func (h *Handle) Load() *Table {
	if t := h.current.Load(); t != nil {
		return t
	}
	return emptyTable
}

// Store installs a table. Only a Maintainer calls it in a node; tests and tools do it themselves.
func (h *Handle) Store(t *Table) { h.current.Store(t) }
