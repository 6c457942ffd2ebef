package rib

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What a table keeps from one snapshot or digest to the next is what it would make anew, whatever has happened.
func TestKeptIsAsMadeAnew(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := NewTable(Member{Name: "n0", Region: "fra", Incarnation: 1})
		h := table.Health()
		now := time.Unix(0, 0)
		names := func(what string, n int) string {
			return fmt.Sprintf("%s%d", what, rapid.IntRange(0, n-1).Draw(r, what))
		}
		stamp := func() Stamp {
			return Stamp{Incarnation: uint32(rapid.IntRange(1, 3).Draw(r, "incarnation")), Seq: uint64(rapid.IntRange(1, 5).Draw(r, "seq"))}
		}
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 8).Draw(r, "step") {
			case 0, 1:
				h.Announce(Announcement{
					Backend:  Backend{Name: names("b", 3), Shard: "s", SystemID: uint64(rapid.IntRange(0, 2).Draw(r, "system"))},
					Observer: names("n", 4), Stamp: stamp(), Gone: rapid.Bool().Draw(r, "gone"),
				})
			case 2, 3:
				h.Observe(Route{
					Backend: names("b", 3), Observer: names("n", 4), Stamp: stamp(),
					State: State(rapid.IntRange(0, 3).Draw(r, "state")), Role: Role(rapid.IntRange(0, 2).Draw(r, "role")),
				})
			case 4:
				h.MemberUp(Member{Name: names("n", 4), Region: "fra", Incarnation: stamp().Incarnation})
			case 5:
				h.MemberGone(names("n", 4), now)
			case 6:
				now = now.Add(time.Duration(rapid.IntRange(1, 70).Draw(r, "seconds")) * time.Second)
				h.Expire(now)
			case 7:
				h.Evidence(names("b", 3), rapid.Bool().Draw(r, "down"), "")
			case 8:
				o := Ownership{ClusterID: "c", Epoch: Epoch{Index: table.Owners().Get().Epoch.Index + 1}, Shards: []Shard{{Name: "s", SystemID: 1}}, Nodes: []string{"n1", "n2"}}
				if rapid.Bool().Draw(r, "forgotten") {
					o.Forgotten = []int{1}
				}
				table.Owners().Set(&o)
			}
			kept, digests := table.Snapshot(), maps.Clone(h.digests)
			var anew Snapshot
			h.recount()
			h.sorted = nil
			h.fill(&anew)
			if !reflect.DeepEqual(kept.Members, anew.Members) || len(kept.Backends) != len(anew.Backends) {
				r.Fatalf("kept %+v, made anew %+v", kept, anew)
			}
			for i, v := range anew.Backends {
				v.Refused, v.Changed = kept.Backends[i].Refused, kept.Backends[i].Changed // are filled in by the table
				if !reflect.DeepEqual(kept.Backends[i], v) {
					r.Fatalf("kept %+v, made anew %+v", kept.Backends[i], v)
				}
			}
			for o := range digests {
				h.sumAnew(o)
			}
			if !maps.Equal(digests, h.digests) {
				r.Fatalf("digests kept %+v, made anew %+v", digests, h.digests)
			}
		}
	})
}
