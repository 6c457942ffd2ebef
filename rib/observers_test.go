package rib_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

func members(regions map[string]int) (list []rib.Member) {
	for region, n := range regions {
		for i := range n {
			list = append(list, rib.Member{Name: fmt.Sprintf("%s-%d", region, i), Region: region})
		}
	}
	return list
}

func TestObserversAreOfTheBackendsRegionThenOfTheNearest(t *testing.T) {
	rtt := map[string]map[string]time.Duration{
		"fra": {"lhr": 15 * time.Millisecond, "iad": 88 * time.Millisecond, "syd": 280 * time.Millisecond},
	}
	regionsOf := func(names []string) (regions []string) {
		for _, n := range names {
			regions = append(regions, n[:3])
		}
		return regions
	}
	for _, test := range []struct {
		name   string
		nodes  map[string]int
		region string
		near   string
		want   []string // regions
	}{
		{"enough at home", map[string]int{"fra": 5, "lhr": 5}, "fra", "fra", []string{"fra", "fra", "fra"}},
		{"filled up", map[string]int{"fra": 1, "lhr": 1, "iad": 4, "syd": 4}, "fra", "fra", []string{"fra", "lhr", "iad"}},
		{"the way back counts too", map[string]int{"fra": 1, "lhr": 1, "iad": 4}, "lhr", "lhr", []string{"lhr", "fra", "iad"}},
		{"a region without nodes", map[string]int{"fra": 1, "lhr": 1, "syd": 4}, "ams", "fra", []string{"fra", "lhr", "syd"}},
		{"nobody knows how far anything is", map[string]int{"fra": 2, "lhr": 2}, "ams", "", []string{"fra", "fra", "lhr"}},
		{"one node", map[string]int{"syd": 1}, "fra", "", []string{"syd"}},
		{"nobody", nil, "fra", "", nil},
	} {
		b := &rib.Backend{Name: "db", Region: test.region}
		got := regionsOf(rib.NewPlaces(members(test.nodes), rtt).Observers(b, test.near))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: observers are in %v, want %v", test.name, got, test.want)
		}
	}
}

// The order of the members, and a little noise in what is measured, change nothing.
func TestObserversAreTheSameOnEveryNode(t *testing.T) {
	nodes := members(map[string]int{"fra": 2, "lhr": 3, "iad": 3})
	rtt := func(lhr, iad time.Duration) map[string]map[string]time.Duration {
		return map[string]map[string]time.Duration{"fra": {"lhr": lhr, "iad": iad}}
	}
	b := &rib.Backend{Name: "db", Region: "fra"}
	want := rib.NewPlaces(nodes, rtt(14*time.Millisecond, 88*time.Millisecond)).Observers(b, "fra")
	slices.Reverse(nodes)
	got := rib.NewPlaces(nodes, rtt(12*time.Millisecond, 91*time.Millisecond)).Observers(b, "fra")
	if !slices.Equal(got, want) {
		t.Errorf("one node says %v, another %v", want, got)
	}
}

// Who comes or goes takes over, or gives away, only what is its own; and the work is shared out evenly.
func TestObserversChangeLittleWithMembers(t *testing.T) {
	const backends = 1000
	nodes := members(map[string]int{"fra": 10})
	before, after := rib.NewPlaces(nodes, nil), rib.NewPlaces(slices.DeleteFunc(slices.Clone(nodes), func(m rib.Member) bool { return m.Name == "fra-3" }), nil)
	watched := map[string]int{}
	for i := range backends {
		b := &rib.Backend{Name: fmt.Sprintf("db_%d", i), Region: "fra"}
		was, now := before.Observers(b, ""), after.Observers(b, "")
		for _, n := range was {
			watched[n]++
			if n != "fra-3" && !slices.Contains(now, n) {
				t.Fatalf("%s was watched by %v, and by %v once fra-3 is gone", b.Name, was, now)
			}
		}
	}
	for n, count := range watched {
		if mean := backends * rib.MaxObservers / len(nodes); count < mean*3/4 || count > mean*5/4 {
			t.Errorf("%s watches %d of %d backends, about %d are its share", n, count, backends, mean)
		}
	}
}

// The choice is by weight and not by the order of the members, also where there is room for fewer than three.
func TestObserversOfManyNodes(t *testing.T) {
	nodes := members(map[string]int{"fra": 40, "lhr": 1})
	for i := range 100 {
		b := &rib.Backend{Name: fmt.Sprintf("db_%d", i), Region: []string{"fra", "lhr"}[i%2]}
		want := rib.NewPlaces(nodes, nil).Observers(b, "")
		slices.SortFunc(nodes, func(x, y rib.Member) int { return (i%7 - 3) * strings.Compare(x.Name, y.Name) })
		if got := rib.NewPlaces(nodes, nil).Observers(b, ""); !slices.Equal(got, want) || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 3 {
			t.Fatalf("%s in %s: %v, then %v", b.Name, b.Region, want, got)
		}
	}
}

func BenchmarkObservers(b *testing.B) {
	places := rib.NewPlaces(members(map[string]int{"fra": 125, "iad": 125}), nil)
	backend := &rib.Backend{Name: "db_1", Region: "fra"}
	b.ReportAllocs()
	for b.Loop() {
		places.Observers(backend, "")
	}
}

func TestWhoListsABackendWatchesItAsLongAsNobodyElseDoes(t *testing.T) {
	w := newWorld(t)
	chosen := func() bool {
		s, v := w.Snapshot(), w.view()
		return slices.Contains(rib.NewPlaces(s.Members, nil).Observers(&v.Backend, ""), "n1")
	}
	for i := 0; chosen(); i++ { // until n1 is not
		w.Health().MemberUp(rib.Member{Name: fmt.Sprintf("fra-%d", i), Region: "fra"})
	}
	watches := func(lists bool) bool {
		s, v := w.Snapshot(), w.view()
		return s.Watches(&v, lists, rib.NewPlaces(s.Members, nil))
	}
	if !watches(true) || watches(false) {
		t.Errorf("nobody says anything: a node that lists it watches: %v, another: %v", watches(true), watches(false))
	}
	w.observe("n1", rib.Route{State: rib.Up}) // its own word is not somebody else's
	w.observe("n2", rib.Route{})              // nor is one that cannot tell
	if !watches(true) {
		t.Error("nobody else has a say, and yet it watches no more")
	}
	w.observe("n2", rib.Route{State: rib.Down})
	if watches(true) {
		t.Error("others watch, and it goes on")
	}
}
