package fib_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

// Sizes of the tables under test. The targets of a full dispatch are 20, 50, 120 and 600 ns.
var sizes = []int{16, 1000, 100_000, 1_000_000}

// spreads are ways in which the ranges lie, and keys that fall into all of them.
var spreads = []struct {
	name   string
	method string
	starts func(n int) []uint64
	values func(starts []uint64) []int64
}{
	// As hash keyspaces are made.
	{"even", "hash", func(n int) (starts []uint64) {
		for i := 1; i < n; i++ {
			starts = append(starts, uint64(i)*(^uint64(0)/uint64(n)))
		}
		return starts
	}, func([]uint64) []int64 {
		values := make([]int64, 1<<16)
		for i := range values {
			values[i] = int64(i) * 1_000_003
		}
		return values
	}},
	// As splits of hot ranges make them.
	{"skewed", "range", func(n int) (starts []uint64) {
		r := rand.New(rand.NewPCG(1, 1))
		for range n - 1 {
			starts = append(starts, 1+r.Uint64()>>r.UintN(24))
		}
		slices.Sort(starts)
		return slices.Compact(starts)
	}, func(starts []uint64) []int64 {
		r := rand.New(rand.NewPCG(2, 2))
		values := make([]int64, 1<<16)
		for i := range values {
			values[i] = int64(starts[r.IntN(len(starts))]+r.Uint64N(1<<20)) ^ -1<<63
		}
		return values
	}},
}

// spread gives the world's keyspace those ranges.
func (w *world) spread(method string, starts []uint64) {
	o := *w.Owners().Get()
	o.Epoch.Index++
	k := o.Keyspaces[0]
	k.Method, k.Ranges = method, []rib.Range{{Shard: "shard_1"}}
	for i, s := range starts {
		from := rib.Key(binary.BigEndian.AppendUint64(nil, s))
		k.Ranges[i].To = from
		k.Ranges = append(k.Ranges, rib.Range{From: from, Shard: fmt.Sprintf("shard_%d", i%3+1)})
	}
	o.Keyspaces = []rib.Keyspace{k}
	w.Owners().Set(&o)
}

// maintained keeps a handle on the world with some 500 flips a second going on, until the benchmark ends.
func maintained(b *testing.B, w *world) *fib.Handle {
	b.Helper()
	h := new(fib.Handle)
	m := fib.NewMaintainer(w.Table, h, nil)
	m.Open()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.observe(fmt.Sprintf("shard_%d_fra", i%3+1), rib.State(int(rib.Up)+i/3%2), rib.Replica)
			}
		}
	}()
	b.Cleanup(func() {
		close(stop)
		<-done
		m.Close()
		if m.Alarm() != "" {
			b.Error(m.Alarm())
		}
	})
	return h
}

// BenchmarkDispatch is all that the routing of a statement costs once its key's value is known: load the table, make the
// key, find its range and shard, and choose the backend; with flips going on.
func BenchmarkDispatch(b *testing.B) {
	for _, s := range spreads {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("spread=%s/ranges=%d", s.name, n), func(b *testing.B) {
				w := newWorld(1)
				starts := s.starts(n)
				w.spread(s.method, starts)
				h, values := maintained(b, w), s.values(starts)
				m, err := rib.MethodByName(s.method)
				if err != nil {
					b.Fatal(err)
				}
				buffer := make(rib.Key, 0, 16)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					key, err := m.AppendKey(buffer, rib.Value{Type: rib.TypeBigint, Int: values[i&(1<<16-1)]})
					if err != nil {
						b.Fatal(err)
					}
					o, ok := h.Load().Lookup(1, key)
					if !ok {
						b.Fatal("no owner")
					}
					c := o.Slot.Candidates()
					if c.Reads[c.PickRead(uint32(i))].Backend == nil {
						b.Fatal("no backend")
					}
				}
			})
		}
	}
}

// BenchmarkSortedSlice is the same with the plainest index there is, for comparison: a slice of starts and sort.Search.
func BenchmarkSortedSlice(b *testing.B) {
	for _, s := range spreads {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("spread=%s/ranges=%d", s.name, n), func(b *testing.B) {
				w := newWorld(1)
				starts := s.starts(n)
				w.spread(s.method, starts)
				h, values := maintained(b, w), s.values(starts)
				slots := make([]*fib.Slot, len(starts)+1)
				for i := range slots {
					slots[i] = h.Load().Slot(w.Owners().Get().Keyspaces[0].Ranges[i].Shard)
				}
				m, err := rib.MethodByName(s.method)
				if err != nil {
					b.Fatal(err)
				}
				buffer := make(rib.Key, 0, 16)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					key, err := m.AppendKey(buffer, rib.Value{Type: rib.TypeBigint, Int: values[i&(1<<16-1)]})
					if err != nil {
						b.Fatal(err)
					}
					h.Load()
					number := binary.BigEndian.Uint64(key)
					c := slots[sort.Search(len(starts), func(i int) bool { return starts[i] > number })].Candidates()
					if c.Reads[c.PickRead(uint32(i))].Backend == nil {
						b.Fatal("no backend")
					}
				}
			})
		}
	}
}

// BenchmarkDispatchText is the dispatch by a text key under the range method: 100,000 ranges whose starts share a prefix.
func BenchmarkDispatchText(b *testing.B) {
	method, err := rib.MethodByName("range")
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(1)
	o := *w.Owners().Get()
	o.Epoch.Index++
	k := o.Keyspaces[0]
	k.Method, k.Types, k.Ranges = "range", []rib.Type{rib.TypeText}, []rib.Range{{Shard: "shard_1"}}
	var values [][]byte
	for i := range 100_000 {
		values = append(values, fmt.Appendf(nil, "customer/eu/%09d", i*9973))
		from, err := method.AppendKey(nil, rib.Value{Type: rib.TypeText, Bytes: values[i]})
		if err != nil {
			b.Fatal(err)
		}
		k.Ranges[i].To = from
		k.Ranges = append(k.Ranges, rib.Range{From: from, Shard: fmt.Sprintf("shard_%d", i%3+1)})
	}
	o.Keyspaces = []rib.Keyspace{k}
	w.Owners().Set(&o)
	h := maintained(b, w)
	buffer, i := make(rib.Key, 0, 64), 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		key, err := method.AppendKey(buffer, rib.Value{Type: rib.TypeText, Bytes: values[i*7919%len(values)]})
		if err != nil {
			b.Fatal(err)
		}
		owner, ok := h.Load().Lookup(1, key)
		c := owner.Slot.Candidates()
		if !ok || c.Reads[c.PickRead(uint32(i))].Backend == nil {
			b.Fatal("no backend")
		}
	}
}

// BenchmarkFlip is what one flip costs from the record to the swapped list, over 12 backends of three shards.
func BenchmarkFlip(b *testing.B) {
	w := newWorld(1000)
	table := compile(b, w)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		w.observe("shard_2_fra", rib.State(int(rib.Up)+i%2), rib.Replica)
		table.Flip(w.Snapshot())
	}
}

// BenchmarkCompile is a table of a million ranges.
func BenchmarkCompile(b *testing.B) {
	w := newWorld(1)
	w.spread("hash", spreads[0].starts(1_000_000))
	s := w.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fib.Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}
