package fib

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// ranges makes ranges that begin at the starts, over three shards.
func ranges(starts [][]byte) []rib.Range {
	all := make([]rib.Range, len(starts)+1)
	for i := range all {
		all[i].Shard = fmt.Sprintf("shard_%d", i%3+1)
		if i > 0 {
			all[i].From = starts[i-1]
			all[i-1].To = starts[i-1]
		}
	}
	return all
}

// unique sorts and drops doubles and the empty key.
func unique(starts [][]byte) [][]byte {
	slices.SortFunc(starts, bytes.Compare)
	starts = slices.CompactFunc(starts, bytes.Equal)
	if len(starts) > 0 && len(starts[0]) == 0 {
		starts = starts[1:]
	}
	return starts
}

// checkIndex asks the index, a table with it and the reference for keys at, just below and just above starts, and for others.
func checkIndex(t interface{ Fatalf(string, ...any) }, all []rib.Range, x *index, keys [][]byte) {
	k, slots := &rib.Keyspace{Ranges: all}, map[string]*Slot{}
	table := &Table{dense: []*index{nil, x.withSlots(func(shard string) *Slot {
		if slots[shard] == nil {
			slots[shard] = &Slot{shard: shard}
		}
		return slots[shard]
	})}}
	ask := func(key []byte) {
		want := k.Owner(key)
		if got := x.find(key); got != want {
			t.Fatalf("%d ranges, kind %d: key %x is in range %d, not %d", len(all), x.kind, key, want, got)
		}
		if got, ok := table.Lookup(1, key); !ok || got.Range != &all[want] || got.Slot != slots[all[want].Shard] {
			t.Fatalf("%d ranges, kind %d: key %x is in range %d, which begins with %x, and not in that with %x", len(all), x.kind, key, want, all[want].From, got.Range.From)
		}
	}
	for _, key := range keys {
		ask(key)
	}
	step := max(1, len(all)/300)
	for i := 1; i < len(all); i += step {
		from := all[i].From
		ask(from)
		ask(append(slices.Clone(from), 0))
		ask(append(slices.Clone(from), 0xff))
		ask(from[:len(from)-1])
		if last := len(from) - 1; from[last] > 0 {
			below := slices.Clone(from)
			below[last]--
			ask(below)
			ask(append(below, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
		}
	}
	ask(nil)
	ask([]byte{0})
	for _, size := range []int{8, 15, 16, 30} {
		ask(make([]byte, size))
	}
	ask(bytes.Repeat([]byte{0xff}, 8))
	ask(bytes.Repeat([]byte{0xff}, 30))
}

// For every kind of key and every number of ranges, the index finds the same owner as the keyspace itself.
func TestIndexIsTheKeyspace(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 66, 100, 271, 272, 273, 289, 1000, 4623, 4624, 4625, 6000}
	for _, s := range shapes {
		rapid.Check(t, func(r *rapid.T) {
			// The sequence is drawn from the seed: rapid itself prefers small and simple keys.
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
			n := sizes[rnd.IntN(len(sizes))]
			if rnd.IntN(2) == 0 {
				n = rnd.IntN(n + 1)
			}
			var starts, keys [][]byte
			for i := range n {
				starts = append(starts, s.key(rnd, i, n))
			}
			all := ranges(unique(starts))
			for i := range 200 {
				keys = append(keys, s.key(rnd, i, 200))
			}
			checkIndex(r, all, newIndex(all), keys)
		})
	}
}

// shape is one way in which keys lie.
type shape struct {
	name string
	key  func(r *rand.Rand, i, n int) []byte
}

func (s shape) String() string { return s.name }

// odd is a few bytes, most of which are the smallest or the largest.
func odd(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most))
	for i := range b {
		b[i] = []byte{0, 0, 1, 7, 0xfe, 0xff}[r.IntN(6)]
	}
	return b
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

var shapes = []shape{
	{"even", func(_ *rand.Rand, i, n int) []byte { return number(uint64(i+1) * (^uint64(0)/uint64(n+1) + 1)) }},
	{"hashes", func(r *rand.Rand, _, _ int) []byte { return number(r.Uint64()) }},
	{"counter", func(_ *rand.Rand, i, _ int) []byte { return number(1<<63 + uint64(i)*1000) }},
	{"dense", func(_ *rand.Rand, i, _ int) []byte { return number(1<<63 + uint64(i)) }},
	{"skewed", func(r *rand.Rand, _, _ int) []byte { return number(r.Uint64() >> r.UintN(64)) }},
	{"ends", func(r *rand.Rand, _, _ int) []byte { return number(r.Uint64N(50) - 25) }},
	{"short", func(r *rand.Rand, _, _ int) []byte { return number(r.Uint64() >> 48 << 48)[:1+r.IntN(8)] }},
	{"text", func(r *rand.Rand, _, _ int) []byte { return text(r, 1+r.IntN(20), 4) }},
	{"text with ties", func(r *rand.Rand, _, _ int) []byte {
		return append([]byte("customer/eu/00000000"), text(r, r.IntN(12), 2)...)
	}},
	{"at the end", func(r *rand.Rand, _, _ int) []byte { // numbers that are those of the padding
		return append(bytes.Repeat([]byte{0xff}, r.IntN(20)), odd(r, 12)...)
	}},
	{"pairs", func(r *rand.Rand, _, n int) []byte { // often two with the same eight bytes, that differ in one of the next sixteen or behind
		return append(append(number(uint64(r.IntN(1+n/2))*0x0100_0000_0000_00ff), bytes.Repeat([]byte{7}, r.IntN(2)*r.IntN(18))...), odd(r, 12)...)
	}},
	{"two prefixes", func(r *rand.Rand, _, _ int) []byte {
		return append([]byte([]string{"aaaaaaaaaaaa", "aaaabbbbbbbbbb"}[r.IntN(2)]), text(r, r.IntN(6), 26)...)
	}},
	{"tenants", func(r *rand.Rand, _, _ int) []byte { // some with many keys, which begin alike for more than a number
		tenant := r.IntN(1 + r.IntN(40))
		t := rand.New(rand.NewPCG(uint64(tenant), 3))
		return append(append(text(t, 7+t.IntN(20), 26), '/'), text(r, r.IntN(20), 3)...)
	}},
	{"long", func(r *rand.Rand, _, _ int) []byte {
		return append(make([]byte, r.IntN(100)), text(r, r.IntN(3), 2)...)
	}},
	{"zeros", func(r *rand.Rand, _, _ int) []byte { return make([]byte, r.IntN(40)) }},
	{"two columns", func(r *rand.Rand, _, _ int) []byte { return append(number(r.Uint64N(10)), number(r.Uint64())...) }},
}

func text(r *rand.Rand, size, letters int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('a' + r.IntN(letters))
	}
	return b
}

// Many starts that begin alike have a layer of their own, however deep they lie; what lies in between is compared whole.
func TestLayers(t *testing.T) {
	for _, c := range []struct{ others, same, n, layers int }{
		{0, 8, 1, 2}, {0, 8, 2, 2}, {0, 30, 100, 3}, {fewStarts, 8, maxTies - 2, 1}, {fewStarts, 8, maxTies - 1, 2}, {fewStarts, 30, 100, 3},
	} {
		var starts [][]byte
		for i := range c.others {
			starts = append(starts, fmt.Appendf(nil, "a%07d", i))
		}
		for i := range c.n {
			starts = append(starts, fmt.Appendf(nil, "b%s%09d", strings.Repeat("x", c.same), i*1000))
		}
		starts = append(starts, []byte("a"), []byte("b"), []byte("bxxxxxxx"), []byte("bxxxxxxxx"), []byte("c"))
		all := ranges(unique(starts))
		x := newIndex(all)
		if got := layers(&x.layer); got != c.layers {
			t.Errorf("%d starts behind %d bytes: %d layers, not %d", c.n, c.same, got, c.layers)
		}
		var keys [][]byte
		for i := range c.n * 1000 {
			keys = append(keys, fmt.Appendf(nil, "b%s%09d", strings.Repeat("x", c.same), i))
		}
		checkIndex(t, all, x, keys)
	}
}

func layers(l *layer) int {
	n := 0
	for _, d := range l.deeper {
		if d != nil {
			n += layers(d)
		}
	}
	return n + 1
}

// The index that is meant for a shape is the one that is chosen.
func TestIndexIsChosen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		shape string
		n     int
		want  kind
	}{
		{"even", 0, single}, {"even", 1, single}, {"even", 16, single}, {"even", 17, even}, {"even", 65, even}, {"even", 100_000, even}, {"counter", 5000, even}, {"dense", 5000, even}, {"hashes", 10_000, even},
		{"skewed", 16, single}, {"skewed", 64, tree}, {"skewed", 5000, tree}, {"two prefixes", 5000, single}, {"tenants", 5000, even},
	} {
		for _, s := range shapes {
			if s.name != c.shape {
				continue
			}
			var starts [][]byte
			for i := range c.n {
				starts = append(starts, s.key(rnd, i, c.n))
			}
			all := ranges(unique(starts))
			x := newIndex(all)
			if x.kind != c.want {
				t.Errorf("%d %s keys: index kind %d, not %d", c.n, s.name, x.kind, c.want)
			}
			checkIndex(t, all, x, nil)
		}
	}
}

func TestLessIfAfter(t *testing.T) {
	numbers := []uint64{0, 1, 2, 1<<63 - 1, 1 << 63, 1<<63 + 1, ^uint64(0) - 1, ^uint64(0)}
	for _, start := range numbers {
		for _, number := range numbers {
			want := uint64(10)
			if start > number {
				want = 9
			}
			if got := lessIfAfter(10, start, number); got != want {
				t.Errorf("lessIfAfter(10, %d, %d) is %d", start, number, got)
			}
		}
	}
}

// More shards than a byte counts.
func TestManyShards(t *testing.T) {
	for _, shards := range []int{256, 257, 1000} {
		var names []string
		for i := range 2000 {
			names = append(names, fmt.Sprintf("shard_%d", i%shards))
		}
		all := rib.EvenRanges(names)
		x := newIndex(all).withSlots(func(shard string) *Slot { return &Slot{shard: shard} })
		if (x.narrow == nil) != (shards > 256) {
			t.Errorf("%d shards: narrow is %v", shards, x.narrow != nil)
		}
		few := newIndex(all[:maxDirect:maxDirect]).withSlots(func(shard string) *Slot { return &Slot{shard: shard} })
		if x.direct != nil || len(few.direct) != maxDirect {
			t.Errorf("%d ranges point at their slots themselves, and %d do", len(x.direct), len(few.direct))
		}
		for i := range all {
			if got := x.slotOf(x.find(all[i].From)).Shard(); got != names[i] {
				t.Fatalf("range %d is %s's, not %s's", i, got, names[i])
			}
			if i < maxDirect && few.slotOf(i).Shard() != names[i] {
				t.Fatalf("of few: range %d is %s's, not %s's", i, few.slotOf(i).Shard(), names[i])
			}
		}
		again := few.withSlots(func(shard string) *Slot { return &Slot{shard: "new " + shard} })
		if got := again.slotOf(0).Shard(); got != "new "+names[0] {
			t.Errorf("with new slots range 0 is %q's", got)
		}
	}
}

// A million ranges, even and skewed, agree with the reference too.
func TestIndexOfAMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("builds large tables")
	}
	rnd := rand.New(rand.NewPCG(2, 2))
	for _, s := range shapes {
		if !slices.Contains([]string{"even", "hashes", "skewed", "tenants"}, s.name) {
			continue
		}
		starts := make([][]byte, 1_000_000)
		for i := range starts {
			starts[i] = s.key(rnd, i, len(starts))
		}
		all := ranges(unique(starts))
		var keys [][]byte
		for range 20_000 {
			keys = append(keys, s.key(rnd, rnd.IntN(len(starts)), len(starts)))
		}
		checkIndex(t, all, newIndex(all), keys)
	}
}
