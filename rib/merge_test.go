package rib_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// record is one thing that an observer said: one of the two.
type record struct {
	announcement *rib.Announcement
	route        *rib.Route
}

func (r record) merge(h *rib.Health) {
	if r.announcement != nil {
		h.Announce(*r.announcement)
	} else {
		h.Observe(*r.route)
	}
}

// drawRecords makes up what a few observers said in a few boots: every statement has a stamp of its own.
func drawRecords(r *rapid.T) (records []record) {
	stamps := map[string]*rib.Stamp{}
	for range rapid.IntRange(1, 60).Draw(r, "records") {
		observer := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "observer")
		s := stamps[observer]
		if s == nil {
			s = &rib.Stamp{Incarnation: 1}
			stamps[observer] = s
		}
		if s.Seq++; rapid.IntRange(0, 15).Draw(r, "reboot") == 0 {
			s.Incarnation++
			s.Seq = 1
		}
		name := rapid.SampledFrom([]string{"db1", "db2", "db3"}).Draw(r, "backend")
		if rapid.IntRange(0, 2).Draw(r, "kind") == 0 {
			records = append(records, record{announcement: &rib.Announcement{
				Backend: rib.Backend{
					Name: name, Shard: rapid.SampledFrom([]string{"shard_1", "shard_2"}).Draw(r, "shard"),
					Region: "fra", Addr: name + ":5432", SystemID: rapid.Uint64Range(0, 2).Draw(r, "system"),
				},
				Observer: observer, Stamp: *s, Gone: rapid.Bool().Draw(r, "gone"),
			}})
			continue
		}
		records = append(records, record{route: &rib.Route{
			Backend: name, Observer: observer, Stamp: *s,
			State:    rib.State(rapid.IntRange(0, 3).Draw(r, "state")),
			Role:     rib.Role(rapid.IntRange(0, 2).Draw(r, "role")),
			Timeline: rapid.Uint32Range(0, 2).Draw(r, "timeline"),
			Lag:      time.Duration(rapid.IntRange(-1, 5).Draw(r, "lag")),
			Latency:  time.Duration(rapid.IntRange(0, 5).Draw(r, "latency")),
			Load:     rib.LoadClass(rapid.IntRange(0, 2).Draw(r, "load")),
		}})
	}
	return records
}

// newTable makes a table that knows the observers a and b as members, and c as gone.
func newTable() *rib.Table {
	t := rib.NewTable(rib.Member{Name: "me", Region: "fra"})
	for _, name := range []string{"a", "b", "c"} {
		t.Health().MemberUp(rib.Member{Name: name, Region: "fra"})
	}
	t.Health().MemberGone("c", time.Unix(0, 0))
	t.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 1}, {Name: "shard_2", SystemID: 2}}})
	return t
}

// same fails if two tables do not hold, or do not show, the same.
func same(r *rapid.T, a, b *rib.Table) {
	r.Helper()
	if x, y := a.Health().Digest(), b.Health().Digest(); !reflect.DeepEqual(x, y) {
		r.Fatalf("digests differ:\n%+v\n%+v", x, y)
	}
	unreached := map[string]bool{} // of these a table shows what it has heard before, and each has heard something else
	announcements, _ := a.Health().Newer(nil)
	for _, x := range announcements {
		unreached[x.Backend.Name] = unreached[x.Backend.Name] || x.Backend.SystemID == 0
	}
	x, y := *a.Snapshot(), *b.Snapshot()
	for _, s := range []*rib.Snapshot{&x, &y} {
		s.Version = 0
		for i := range s.Backends {
			v := &s.Backends[i]
			v.Gauge, v.Changed = nil, 0
			if unreached[v.Backend.Name] {
				v.Backend.SystemID, v.Refused = 0, ""
			}
		}
	}
	if !reflect.DeepEqual(x.Backends, y.Backends) {
		r.Fatalf("views differ:\n%+v\n%+v", x.Backends, y.Backends)
	}
}

// sync is one exchange of anti-entropy: both digests, then both pulls.
func sync(a, b *rib.Table) (sent int) {
	da, db := a.Health().Digest(), b.Health().Digest()
	for _, way := range []struct {
		from, to *rib.Table
		digest   []rib.DigestEntry
	}{{a, b, db}, {b, a, da}} {
		announcements, routes := way.from.Health().Newer(way.digest)
		for _, x := range announcements {
			way.to.Health().Announce(x)
		}
		for _, x := range routes {
			way.to.Health().Observe(x)
		}
		sent += len(announcements) + len(routes)
	}
	return sent
}

// The same records in any order, any number of times, make the same table.
func TestMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		records := drawRecords(r)
		shuffled := rapid.Permutation(append(records, records[:len(records)/2]...)).Draw(r, "order")
		a, b := newTable(), newTable()
		for _, x := range records {
			x.merge(a.Health())
		}
		for _, x := range shuffled {
			x.merge(b.Health())
		}
		same(r, a, b)
	})
}

// Whatever each of two tables missed, one exchange makes them equal, and a second one has nothing to say.
func TestAntiEntropy(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := newTable(), newTable()
		all := newTable()
		for _, x := range drawRecords(r) {
			heard := rapid.IntRange(1, 3).Draw(r, "heard by") // at least one
			if heard&1 != 0 {
				x.merge(a.Health())
			}
			if heard&2 != 0 {
				x.merge(b.Health())
			}
			x.merge(all.Health())
		}
		sync(a, b)
		same(r, a, b)
		same(r, a, all)
		if n := sync(a, b); n != 0 {
			r.Fatalf("%d records sent between equal tables", n)
		}
	})
}

// What an observer said last is what stays, and what is said again under the same or an older stamp changes nothing.
func TestLowerStampNeverWins(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := newTable()
		newest := map[[2]string]rib.Stamp{}
		for _, x := range rapid.Permutation(drawRecords(r)).Draw(r, "order") {
			if x.route == nil {
				continue
			}
			id := [2]string{x.route.Backend, x.route.Observer}
			change := table.Health().Observe(*x.route)
			if news := x.route.Stamp.Compare(newest[id]) > 0; news != (change != rib.None) {
				r.Fatalf("%+v after %+v: change %d", x.route.Stamp, newest[id], change)
			} else if news {
				newest[id] = x.route.Stamp
			}
		}
		_, routes := table.Health().Newer(nil)
		for _, x := range routes {
			if want := newest[[2]string{x.Backend, x.Observer}]; x.Stamp != want {
				r.Fatalf("%+v is kept, %+v was newer", x, want)
			}
		}
		if len(routes) != len(newest) {
			r.Fatalf("%d routes are kept of %d", len(routes), len(newest))
		}
	})
}

// No gossip changes the ownership, and no ledger changes what gossip said: only whether a backend is refused, and so whether it counts as a primary
// that lives, by which one observer's word of another role is believed or doubted.
func TestHalvesNeverTouch(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := newTable()
		ownership := table.Owners().Get()
		records := drawRecords(r)
		for _, x := range records {
			x.merge(table.Health())
		}
		if table.Snapshot().Ownership != ownership {
			r.Fatal("gossip changed the ownership")
		}
		before, views := table.Health().Digest(), table.Snapshot().Backends
		table.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 2}, Shards: []rib.Shard{{Name: "shard_1", SystemID: rapid.Uint64Range(0, 2).Draw(r, "system")}}})
		if after := table.Health().Digest(); !reflect.DeepEqual(before, after) {
			r.Fatalf("the ledger changed what is believed: %+v, then %+v", before, after)
		}
		now := table.Snapshot().Backends
		decided := map[string]bool{} // shards of which other backends are refused than before
		for i := range now {
			if now[i].Refused != views[i].Refused {
				decided[now[i].Backend.Shard] = true
			}
		}
		for i, v := range now {
			old := views[i]
			old.Refused, v.Refused = "", ""
			if decided[v.Backend.Shard] {
				old.Doubted, old.Role, old.Timeline = v.Doubted, v.Role, v.Timeline
			}
			old.Changed, v.Changed = 0, 0
			if !reflect.DeepEqual(old, v) {
				r.Fatalf("the ledger changed %+v to %+v", old, v)
			}
		}
	})
}

// An older or equal epoch never replaces the ownership, whatever it brings.
func TestOwnershipOnlyGrows(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		table := rib.NewTable(rib.Member{Name: "me"})
		best := rib.Epoch{}
		for range 20 {
			n := &rib.Ownership{Epoch: rib.Epoch{Generation: rapid.Uint32Range(0, 2).Draw(r, "generation"), Index: rapid.Uint64Range(0, 5).Draw(r, "index")}}
			newer := n.Epoch.Generation > best.Generation || n.Epoch.Generation == best.Generation && n.Epoch.Index > best.Index
			if table.Owners().Set(n) != newer {
				r.Fatalf("epoch %s after %s", n.Epoch, best)
			}
			if newer {
				best = n.Epoch
			}
			if got := table.Owners().Get().Epoch; got != best {
				r.Fatalf("the table is at %s, not %s", got, best)
			}
		}
	})
}

func ExampleHealth_Observe() {
	table := rib.NewTable(rib.Member{Name: "me", Region: "fra"})
	h := table.Health()
	h.Announce(rib.Announcement{Observer: "me", Backend: rib.Backend{Name: "db1", Shard: "shard_1", Region: "fra"}})
	h.Observe(rib.Route{Backend: "db1", Observer: "me", State: rib.Up, Role: rib.Primary})
	view := table.Snapshot().Backends[0]
	fmt.Println(view.Backend.Name, view.Verdict, view.Role, "-", view.Reason)
	// Output: db1 up primary - 1 of 1 observers say up
}
