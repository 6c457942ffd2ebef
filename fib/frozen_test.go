package fib

import (
	"testing"

	"rangefinder/rib"
)

// TestFrozenRanges: only moves that are frozen hold back, only in their keyspace, only their keys, and asking allocates nothing.
func TestFrozenRanges(t *testing.T) {
	o := &rib.Ownership{
		Shards: []rib.Shard{{Name: "a", SystemID: 1}, {Name: "b", SystemID: 2}},
		Keyspaces: []rib.Keyspace{
			{ID: 1, Name: "one", Method: "range", Types: []rib.Type{rib.TypeText}, Ranges: []rib.Range{{To: rib.Key("k\x00"), Shard: "a"}, {From: rib.Key("k\x00"), Shard: "b"}}},
			{ID: 2, Name: "two", Method: "range", Types: []rib.Type{rib.TypeText}, Ranges: []rib.Range{{Shard: "a"}}},
		},
		Moves: []rib.Move{
			{ID: 7, Keyspace: 1, Low: rib.Key("b\x00"), High: rib.Key("d\x00"), From: "a", To: "b", Phase: rib.MoveFrozen},
			{ID: 8, Keyspace: 1, Low: rib.Key("x\x00"), From: "b", To: "a", Phase: rib.MovePrepare},
		},
	}
	s := &rib.Snapshot{Ownership: o, Policy: &rib.Policy{}}
	table, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{table, table.withShards(s)} {
		for key, want := range map[string]uint64{"a\x00": 0, "b\x00": 7, "c\x00": 7, "d\x00": 0, "y\x00": 0} {
			got := uint64(0)
			if m := table.Frozen(1, rib.Key(key)); m != nil {
				got = m.ID
			}
			if got != want {
				t.Errorf("key %q: move %d, want %d", key, got, want)
			}
			if m := table.Frozen(2, rib.Key(key)); m != nil {
				t.Errorf("key %q of the other keyspace is held back by move %d", key, m.ID)
			}
		}
		for _, c := range []struct {
			low, high string
			want      bool
		}{{"", "", true}, {"", "b\x00", false}, {"", "b\x00\x00", true}, {"d\x00", "", false}, {"c\x00", "z\x00", true}} {
			if got := table.FrozenIn(1, rib.Key(c.low), rib.Key(c.high)) != nil; got != c.want {
				t.Errorf("[%q, %q): %v", c.low, c.high, got)
			}
		}
		if n := len(table.AnyFrozen()); n != 1 {
			t.Errorf("%d moves are frozen", n)
		}
	}
	key := rib.Key("c\x00")
	if n := testing.AllocsPerRun(100, func() { table.Frozen(1, key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// A move that comes and goes leaves the index of unchanged ranges as it is.
	thawed := *o
	thawed.Moves = nil
	next, err := build(&rib.Snapshot{Ownership: &thawed, Policy: &rib.Policy{}}, table)
	if err != nil {
		t.Fatal(err)
	}
	if next.Frozen(1, key) != nil || &next.index(1).layer.numbers[0] != &table.index(1).layer.numbers[0] {
		t.Error("it is held back still, or its index was made anew")
	}
}
