package rib_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rangefinder/rib"
)

// Whose announcements outlive their author for good: those of nodes that the ledger knows, of servers of shards that it knows; of everybody, as long as
// the ledger cannot tell.
func TestWhoseAnnouncementsStay(t *testing.T) {
	many := make([]string, rib.MaxNodes)
	for i := range many {
		many[i] = fmt.Sprint("n", i)
	}
	const owner, other, nobody = "a node's", "a node's, another server", "nobody's"
	for name, c := range map[string]struct {
		owners *rib.Ownership
		stay   []string
	}{
		"no ledger is known":            {nil, []string{owner, other, nobody}},
		"no node has a number yet":      {&rib.Ownership{ClusterID: "c"}, []string{owner, nobody}},
		"the ledger knows the node":     {&rib.Ownership{ClusterID: "c", Nodes: []string{"self", "node"}}, []string{owner}},
		"the ledger knows another node": {&rib.Ownership{ClusterID: "c", Nodes: []string{"self"}}, nil},
		"no number is left":             {&rib.Ownership{ClusterID: "c", Nodes: many}, []string{owner, nobody}},
	} {
		t.Run(name, func(t *testing.T) {
			table := rib.NewTable(rib.Member{Name: "self", Region: "fra", Incarnation: 1})
			h, now := table.Health(), time.Unix(0, 0)
			h.MemberUp(rib.Member{Name: "node", Region: "fra", Incarnation: 1})
			announce := func() {
				for i, a := range []rib.Announcement{
					{Backend: rib.Backend{Name: owner, SystemID: 77}, Observer: "node"},
					{Backend: rib.Backend{Name: other, SystemID: 78}, Observer: "node"},
					{Backend: rib.Backend{Name: nobody, SystemID: 77}, Observer: "nobody"},
				} {
					a.Backend.Shard, a.Stamp = "shard_1", rib.Stamp{Incarnation: 1, Seq: uint64(i)}
					h.Announce(a)
				}
			}
			known := func() (names []string) {
				for _, b := range table.Snapshot().Backends {
					names = append(names, b.Backend.Name)
				}
				return names
			}
			announce()
			if o := c.owners; o != nil {
				o.Epoch, o.Shards = rib.Epoch{Index: 1}, []rib.Shard{{Name: "shard_1", SystemID: 77}}
				table.Owners().Set(o)
			}
			h.MemberGone("node", now)
			expire := func(age time.Duration, want []string) {
				t.Helper()
				if h.Expire(now.Add(age)); !slices.Equal(known(), want) {
					t.Errorf("after %v: %q, want %q", age, known(), want)
				}
			}
			expire(0, []string{owner, other, nobody})
			expire(rib.Tombstone-time.Second, []string{owner, other, nobody})
			expire(rib.Tombstone, c.stay)
			announce() // others hold it still
			expire(rib.Tombstone, c.stay)
			table.Owners().Set(&rib.Ownership{
				ClusterID: "c", Epoch: rib.Epoch{Index: 2}, Nodes: []string{"self", "node", "nobody"}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 77}},
			})
			announce() // the ledger has come to know them all
			expire(rib.Tombstone, []string{owner, nobody})
		})
	}
}
