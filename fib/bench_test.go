package fib_test

import (
	"testing"

	"rangefinder/fib"
	"rangefinder/rib"
)

// What a dispatch costs, `go run ./bench fib` measures.

// BenchmarkFlip is what a flip costs that swaps one list, over 12 backends of three shards.
func BenchmarkFlip(b *testing.B) {
	w := newWorld(1000)
	table := compile(b, w)
	var states [2]*rib.Snapshot
	for i := range states {
		w.observe("shard_2_fra", rib.State(int(rib.Down)-i), rib.Replica)
		states[i] = w.Snapshot()
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; table.Flip(states[(i+1)%2]) != 1 {
			b.Fatal("no flip")
		}
	}
}

// BenchmarkCompile is a table of a million ranges.
func BenchmarkCompile(b *testing.B) {
	w := newWorld(1)
	w.own(1_000_000)
	s := w.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fib.Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}
