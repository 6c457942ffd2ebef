package fib

import (
	"slices"
	"testing"

	"rangefinder/rib"
)

// TestCover: the shards of keys and ranges, each once; those of several sets are the ones in all of them.
func TestCover(t *testing.T) {
	eight := func(s string) rib.Key { // a position
		if s == "" {
			return nil
		}
		return append(rib.Key(s), make(rib.Key, 8-len(s))...)
	}
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{{ID: 1, Name: "k", Database: "d", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: []rib.Range{
		{To: eight("b"), Shard: "one"}, {From: eight("b"), To: eight("c"), Shard: "two"}, {From: eight("c"), To: eight("d"), Shard: "three"}, {From: eight("d"), Shard: "one"},
	}}}}
	for _, r := range o.Keyspaces[0].Ranges {
		if r.Shard != "" && !slices.ContainsFunc(o.Shards, func(s rib.Shard) bool { return s.Name == r.Shard }) {
			o.Shards = append(o.Shards, rib.Shard{Name: r.Shard})
		}
	}
	table, err := Compile(&rib.Snapshot{Ownership: o, Policy: &rib.Policy{}})
	if err != nil {
		t.Fatal(err)
	}
	var c Cover
	if c.Reset(table, 7) {
		t.Error("a keyspace that there is not")
	}
	ask := func(f func()) (names []string) {
		if !c.Reset(table, 1) {
			t.Fatal("the keyspace is not known")
		}
		f()
		for _, s := range c.Slots(nil) {
			names = append(names, s.Shard())
		}
		slices.Sort(names)
		return names
	}
	check := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	key := func(k string) { _ = c.Key(eight(k)) }
	span := func(from, to string) { _ = c.Range(eight(from), eight(to)) }
	check("no set", ask(func() {}))
	check("an empty set", ask(func() { c.Begin() }))
	check("all", ask(func() { c.Begin(); span("", "") }), "one", "three", "two")
	check("a key", ask(func() { c.Begin(); key("bb") }), "two")
	check("another key", ask(func() { c.Begin(); key("cc") }), "three")
	check("a range that ends where another begins", ask(func() { c.Begin(); span("a", "b") }), "one")
	check("one that ends later", ask(func() { c.Begin(); span("a", "ba") }), "one", "two")
	check("one in a range", ask(func() { c.Begin(); span("ba", "bb") }), "two")
	check("one range", ask(func() { c.Begin(); span("c", "d") }), "three")
	check("two sets", ask(func() { c.Begin(); key("a"); key("b"); c.Begin(); span("b", "") }), "one", "two")
	check("sets that share a shard", ask(func() { c.Begin(); key("a"); key("b"); c.Begin(); span("b", "c") }), "two")
	check("sets that share none", ask(func() {
		c.Begin()
		key("b")
		c.Begin()
		key("a")
		c.Begin()
		span("", "")
	}))
	bound := eight("b")
	if n := testing.AllocsPerRun(100, func() {
		c.Reset(table, 1)
		c.Begin()
		_ = c.Range(bound, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
