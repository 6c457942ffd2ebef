package cluster

import (
	"slices"
	"sync"

	"rangefinder/rib"
)

// draft is a table as the state machine has it: its keyspaces have no ranges, which stand beside them in partitions. What readers get is
// made of it elsewhere, since that takes long for a million ranges. A command changes a copy, which shares what it does not change.
type draft struct {
	rib.Ownership
	parts []*partition // of the keyspaces, in their order

	// guarded by once
	once sync.Once
	made *rib.Ownership
}

// newDraft takes a table apart, and keeps it.
func newDraft(o *rib.Ownership) *draft {
	d := &draft{Ownership: *o, parts: make([]*partition, len(o.Keyspaces))}
	d.Keyspaces = slices.Clone(o.Keyspaces)
	for i := range d.Keyspaces {
		d.parts[i] = newPartition(d.Keyspaces[i].Ranges)
		d.Keyspaces[i].Ranges = nil
	}
	d.once.Do(func() { d.made = o })
	return d
}

// next is a copy to be changed.
func (d *draft) next() *draft { return &draft{Ownership: d.Ownership, parts: d.parts} }

// table is the whole, with ranges: always the same for the same draft. What was not changed is shared with the tables of earlier drafts.
func (d *draft) table() *rib.Ownership {
	d.once.Do(func() {
		o := d.Ownership
		o.Keyspaces = slices.Clone(d.Keyspaces)
		for i := range o.Keyspaces {
			o.Keyspaces[i].Ranges = d.parts[i].ranges()
		}
		d.made = &o
	})
	return d.made
}

// edit returns a keyspace that may be changed, and the place of its partition.
func (d *draft) edit(name string) (*rib.Keyspace, **partition, error) {
	at := slices.IndexFunc(d.Keyspaces, func(k rib.Keyspace) bool { return k.Name == name })
	if at < 0 {
		return nil, nil, reject(ErrNoKeyspace, "there is no keyspace named %s", name)
	}
	d.Keyspaces, d.parts = slices.Clone(d.Keyspaces), slices.Clone(d.parts)
	return &d.Keyspaces[at], &d.parts[at], nil
}

// part is a keyspace's partition; nil if there is no such keyspace.
func (d *draft) part(id rib.KeyspaceID) *partition {
	for i := range d.Keyspaces {
		if d.Keyspaces[i].ID == id {
			return d.parts[i]
		}
	}
	return nil
}
