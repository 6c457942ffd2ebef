package rib_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

var drainNow = time.Unix(1_700_000_000, 0)

func target(kind rib.DrainKind, name string) rib.DrainTarget {
	return rib.DrainTarget{Kind: kind, Name: name}
}

// tellDrain merges a word that must be news.
func tellDrain(t *testing.T, h *rib.Health, d rib.Drain) {
	t.Helper()
	if changed, err := h.Drain(d, drainNow); err != nil || !changed {
		t.Fatalf("%+v: changed %v, %v", d, changed, err)
	}
}

// Whatever comes how often and in which order, all tables end with the same words, and each is the latest that was given.
func TestDrainsMerge(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var words []rib.Drain
		for range rapid.IntRange(1, 40).Draw(r, "words") {
			since := drainNow.Unix() - rapid.Int64Range(0, 3600).Draw(r, "since")
			d := rib.Drain{
				Target: target(rib.DrainKind(rapid.IntRange(1, 3).Draw(r, "kind")), rapid.SampledFrom([]string{"fra", "db1"}).Draw(r, "name")),
				Number: rapid.Uint64Range(1, 4).Draw(r, "number"), Back: rapid.Bool().Draw(r, "back"),
				Author: rapid.SampledFrom([]string{"a", "b"}).Draw(r, "author"), By: rapid.SampledFrom([]string{"x", "y"}).Draw(r, "by"), Since: since,
			}
			if rapid.Bool().Draw(r, "ends") {
				d.Until = drainNow.Unix() + rapid.Int64Range(-5, 5).Draw(r, "until")
			}
			words = append(words, d)
		}
		tables := []*rib.Table{newTable(), newTable()}
		for _, b := range []rib.Backend{{Name: "db1", Shard: "shard_1", Region: "fra", SystemID: 1}, {Name: "db2", Shard: "shard_1", Region: "fra", SystemID: 1}} {
			for _, x := range tables {
				x.Health().Announce(rib.Announcement{Backend: b, Observer: "a", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}})
			}
		}
		seed := rapid.Uint64().Draw(r, "order")
		for i, x := range tables {
			all := slices.Concat(words, words[:len(words)/2])
			rand.New(rand.NewPCG(seed, uint64(i))).Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
			for _, d := range all {
				if _, err := x.Health().Drain(d, drainNow); err != nil {
					r.Fatal(err)
				}
			}
		}
		a, b := tables[0].Health(), tables[1].Health()
		if !reflect.DeepEqual(a.Drains(), b.Drains()) || a.DrainSum() != b.DrainSum() {
			r.Fatalf("two tables heard the same and hold\n%+v\n%+v", a.Drains(), b.Drains())
		}
		for i := range tables[0].Snapshot().Backends {
			if x, y := tables[0].Snapshot().Backends[i].Drained, tables[1].Snapshot().Backends[i].Drained; x != y {
				r.Fatalf("drained %q and %q", x, y)
			}
		}
		for _, held := range a.Drains() {
			for _, d := range words {
				if d.Target != held.Target {
					continue
				}
				if d.Number > held.Number || d.Number == held.Number && !d.Back && held.Back {
					r.Fatalf("%+v is held, and %+v is later", held, d)
				}
			}
		}
	})
}

// An operator's word is of a backend by its name or its region, and of a node by its name or its region.
func TestWhatADrainIsOf(t *testing.T) {
	table := newTable()
	h := table.Health()
	for _, name := range []string{"db1", "db2"} {
		h.Announce(rib.Announcement{Backend: rib.Backend{Name: name, Shard: "shard_1", Region: "fra", SystemID: 1}, Observer: "a", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}})
	}
	drained := func() (list []string) {
		s := table.Snapshot()
		for i := range s.Backends {
			if v := &s.Backends[i]; v.Drained != "" {
				list = append(list, v.Backend.Name+": "+v.Drained)
			}
		}
		for _, m := range s.Members {
			if why := s.NodeDrained(m); why != "" {
				list = append(list, m.Name+": "+why)
			}
		}
		return list
	}
	check := func(want ...string) {
		t.Helper()
		if got := drained(); !slices.Equal(got, want) {
			t.Errorf("drained: %q, want %q", got, want)
		}
	}
	word := rib.Drain{Target: target(rib.DrainBackend, "db2"), Number: 1, Author: "a", By: "alice", Why: "disks", Since: drainNow.Unix()}
	before := table.Snapshot().Backends[0].Changed
	tellDrain(t, h, word)
	check("db2: drained by alice since 2023-11-14 22:13 UTC (disks)")
	if now := table.Snapshot(); now.Backends[0].Changed != before || now.Backends[1].Changed == before {
		t.Error("the drain of one backend made another one's list anew, or not its own")
	}
	tellDrain(t, h, rib.Drain{Target: target(rib.DrainNode, "b"), Number: 1, Author: "a", By: "bob", Since: drainNow.Unix()})
	check("db2: drained by alice since 2023-11-14 22:13 UTC (disks)", "b: drained by bob since 2023-11-14 22:13 UTC")
	if observing := table.Snapshot().Observing(); len(observing) != 2 || observing[0].Name != "a" || observing[1].Name != "me" {
		t.Errorf("observing: %v", observing)
	}
	tellDrain(t, h, rib.Drain{Target: target(rib.DrainRegion, "fra"), Number: 1, Author: "a", By: "carol", Since: drainNow.Unix(), Until: drainNow.Unix() + 60})
	const region = "region fra drained by carol since 2023-11-14 22:13 UTC until 2023-11-14 22:14 UTC"
	check("db1: "+region, "db2: drained by alice since 2023-11-14 22:13 UTC (disks)", "a: "+region, "b: drained by bob since 2023-11-14 22:13 UTC", "me: "+region)
	if observing := table.Snapshot().Observing(); len(observing) != 3 {
		t.Errorf("nobody is to observe but %v", observing)
	}
	h.Expire(drainNow.Add(59 * time.Second))
	check("db1: "+region, "db2: drained by alice since 2023-11-14 22:13 UTC (disks)", "a: "+region, "b: drained by bob since 2023-11-14 22:13 UTC", "me: "+region)
	h.Expire(drainNow.Add(60 * time.Second))
	check("db2: drained by alice since 2023-11-14 22:13 UTC (disks)", "b: drained by bob since 2023-11-14 22:13 UTC")
	word.Number, word.Back = 2, true
	tellDrain(t, h, word)
	h.Expire(drainNow.Add(60 * time.Second)) // this test's clock stands still between
	check("b: drained by bob since 2023-11-14 22:13 UTC")
}

// What is over is kept, so that an older word does not count again, and forgotten after a month everywhere alike.
func TestDrainsAreForgotten(t *testing.T) {
	h := newTable().Health()
	word := rib.Drain{Target: target(rib.DrainRegion, "fra"), Number: 1, Author: "a", By: "alice", Since: drainNow.Unix()}
	tellDrain(t, h, word)
	back := word
	back.Number, back.Back = 2, true
	tellDrain(t, h, back)
	if changed, err := h.Drain(word, drainNow); changed || err != nil {
		t.Errorf("an older word counts again: %v", err)
	}
	h.Expire(drainNow.Add(rib.DrainKept - time.Second))
	if n := len(h.Drains()); n != 1 {
		t.Errorf("%d words are kept, want 1", n)
	}
	h.Expire(drainNow.Add(rib.DrainKept))
	if n := len(h.Drains()); n != 0 || h.DrainSum() != 0 {
		t.Errorf("%d words are kept, with sum %x", n, h.DrainSum())
	}
	if changed, err := h.Drain(back, drainNow.Add(rib.DrainKept)); changed || !errors.Is(err, rib.ErrOldDrain) {
		t.Errorf("a peer brings back what was forgotten: %v, %v", changed, err)
	}
	// One that is in force is never forgotten.
	tellDrain(t, h, word)
	h.Expire(drainNow.Add(100 * rib.DrainKept))
	if n := len(h.Drains()); n != 1 {
		t.Error("a drain in force was forgotten")
	}
}

func TestDrainsAreBounded(t *testing.T) {
	h := newTable().Health()
	for i := range rib.MaxDrains {
		tellDrain(t, h, rib.Drain{Target: target(rib.DrainNode, fmt.Sprint(i)), Number: 1, Author: "a", By: "x", Since: drainNow.Unix()})
	}
	if _, err := h.Drain(rib.Drain{Target: target(rib.DrainNode, "more"), Number: 1, Since: drainNow.Unix()}, drainNow); !errors.Is(err, rib.ErrManyDrains) {
		t.Errorf("one more: %v", err)
	}
	// What is in force no more makes room for what is to be, however late it says to be; but not for what is not in force itself.
	tellDrain(t, h, rib.Drain{Target: target(rib.DrainNode, "7"), Number: 2, Back: true, Author: "a", By: "x", Since: 1<<40 - 1})
	if _, err := h.Drain(rib.Drain{Target: target(rib.DrainNode, "more"), Number: 2, Back: true, Since: drainNow.Unix()}, drainNow); !errors.Is(err, rib.ErrManyDrains) {
		t.Errorf("one more that is taken back: %v", err)
	}
	tellDrain(t, h, rib.Drain{Target: target(rib.DrainNode, "more"), Number: 1, Author: "a", By: "x", Since: drainNow.Unix()})
	if n := len(h.Drains()); n != rib.MaxDrains {
		t.Errorf("%d words are held", n)
	}
	if _, ok := h.DrainOf(target(rib.DrainNode, "7")); ok {
		t.Error("what was taken back is held, and what else is not?")
	}
	if _, err := h.Drain(rib.Drain{Target: target(rib.DrainNode, "yet more"), Number: 1, Since: drainNow.Unix()}, drainNow); !errors.Is(err, rib.ErrManyDrains) {
		t.Errorf("one more while all are in force: %v", err)
	}
	sum := h.DrainSum()
	other := newTable().Health()
	for _, w := range h.Drains() {
		tellDrain(t, other, w)
	}
	if other.DrainSum() != sum {
		t.Error("the sum is not that of what is held")
	}
}

// A backend that was drained comes back as one that was down does: little by little.
func TestDrainedWarmsUp(t *testing.T) {
	table := newTable()
	h := table.Health()
	h.Announce(rib.Announcement{Backend: rib.Backend{Name: "db1", Shard: "shard_1", Region: "fra", SystemID: 1}, Observer: "a", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}})
	h.Observe(rib.Route{Backend: "db1", Observer: "a", Stamp: rib.Stamp{Incarnation: 1, Seq: 2}, State: rib.Up, Role: rib.Replica, Timeline: 1})
	judge, now := rib.NewOutliers(), drainNow
	held := func() uint8 {
		now = now.Add(time.Second)
		return judge.Judge(table.Snapshot(), rib.OutlierRules{Base: 30 * time.Second, WarmUp: 30 * time.Second}, now)["db1"].Held
	}
	if got := held(); got != 0 {
		t.Errorf("before: held %d", got)
	}
	word := rib.Drain{Target: target(rib.DrainBackend, "db1"), Number: 1, Author: "a", By: "x", Since: now.Unix()}
	tellDrain(t, h, word)
	if got := held(); got != 90 {
		t.Errorf("drained: held %d, want 90", got)
	}
	word.Number, word.Back = 2, true
	tellDrain(t, h, word)
	if got := held(); got != 90 {
		t.Errorf("back: held %d, want 90", got)
	}
	for range 30 {
		held()
	}
	if got := held(); got != 0 {
		t.Errorf("long back: held %d", got)
	}
}
