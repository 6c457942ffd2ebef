package rib

import (
	"reflect"
	"testing"
	"time"
)

// A field that same forgets would keep news of it from the candidates.
func TestViewsAreComparedInEveryField(t *testing.T) {
	kind := reflect.TypeFor[BackendView]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		var a, b BackendView
		f := reflect.ValueOf(&b).Elem().Field(i)
		switch name {
		case "Changed":
			continue
		case "Routes":
			b.Routes = []Route{{Latency: 1}}
		case "Backend":
			b.Backend.SystemID = 1
		case "Trial":
			b.Held = 1
		case "Gauge":
			b.Gauge = new(Gauge)
		default:
			switch f.Kind() {
			case reflect.String:
				f.SetString("x")
			case reflect.Int, reflect.Int32, reflect.Int64:
				f.SetInt(1)
			case reflect.Uint8, reflect.Uint32, reflect.Uint64:
				f.SetUint(1)
			case reflect.Bool:
				f.SetBool(true)
			default:
				t.Fatalf("the test does not know how to change %s", name)
			}
		}
		if a.same(&b) || b.same(&a) {
			t.Errorf("two views that differ in %s count as the same: BackendView.same must compare it", name)
		}
		if !b.same(&b) {
			t.Errorf("a view with a changed %s is not the same as itself", name)
		}
	}
}

// Each snapshot says since when each of its parts has been as it is.
func TestSnapshotSaysWhatChanged(t *testing.T) {
	table := NewTable(Member{Name: "me", Region: "fra"})
	seq := uint64(0)
	stamp := func() Stamp { seq++; return Stamp{Incarnation: 1, Seq: seq} }
	announce := func(name, shard string) {
		table.Health().Announce(Announcement{Observer: "me", Stamp: stamp(), Backend: Backend{Name: name, Shard: shard, Region: "fra", Addr: name, SystemID: 7}})
	}
	observe := func(name string, state State) {
		table.Health().Observe(Route{Backend: name, Observer: "me", Stamp: stamp(), State: state, Role: Replica})
	}
	before := table.Snapshot()
	check := func(what string, backends, distances bool, changed ...string) {
		t.Helper()
		s := table.Snapshot()
		if (s.BackendsChanged == s.Version) != backends || (s.DistancesChanged == s.Version) != distances {
			t.Errorf("%s: version %d, backends changed in %d, distances in %d", what, s.Version, s.BackendsChanged, s.DistancesChanged)
		}
		if !backends && s.BackendsChanged != before.BackendsChanged || !distances && s.DistancesChanged != before.DistancesChanged {
			t.Errorf("%s: a change that was none", what)
		}
		var names []string
		for _, v := range s.Backends {
			if v.Changed == s.Version {
				names = append(names, v.Backend.Name)
			}
		}
		if !reflect.DeepEqual(names, changed) {
			t.Errorf("%s: %v changed, not %v", what, names, changed)
		}
		before = s
	}
	announce("b", "shard_1")
	announce("c", "shard_1")
	check("two backends", true, false, "b", "c")
	observe("c", Up)
	check("one is up", false, false, "c")
	observe("c", Down)
	check("it is down", false, false, "c")
	table.Health().Distance("syd", 90*time.Millisecond, time.Unix(1000, 0))
	check("a distance", false, true)
	announce("a", "shard_2")
	check("one before the others", true, false, "a")
	table.Owners().Set(&Ownership{Epoch: Epoch{Index: 1}, Shards: []Shard{{Name: "shard_1", SystemID: 7}}})
	check("one shard is recorded", false, false, "b", "c") // they are not refused any more
	announce("b", "shard_2")
	check("another shard", true, false, "b")
	table.Health().Evidence("a", true, "no route to host")
	check("evidence", false, false, "a")
}
