package node

import (
	"slices"
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/pool"
)

// nextReads is where somebody's reads would go if a backend failed: the best of its shard's others, unless something speaks against that one, or
// so many of its connections are in use that those who wait in case are too many.
func (n *Node) nextReads(b *rib.Backend, id pool.Identity) *rib.Backend {
	slot := n.fib.Load().Slot(b.Shard)
	if slot == nil {
		return nil
	}
	for _, hop := range slot.For(id.Database).Reads {
		if hop.Backend.Name == b.Name {
			continue
		}
		all := n.table.Snapshot().Backends
		i, found := slices.BinarySearchFunc(all, hop.Backend.Name, func(v rib.BackendView, name string) int { return strings.Compare(v.Backend.Name, name) })
		if !hop.Healthy || hop.Drained || !found || all[i].Load != rib.LoadBelow {
			return nil
		}
		return hop.Backend
	}
	return nil
}
