package cluster

import (
	"slices"
	"sort"
	"sync"

	"rangefinder/rib"
)

// chunkSize is about how many ranges a chunk of a partition has, at most twice as many. A command copies one or two chunks and the
// list of them all, which of a million ranges has a thousand.
const chunkSize = 1024

// partition is a keyspace's ranges in chunks, so that a command changes some of a million without copying the others. It is immutable.
type partition struct {
	// constant
	chunks [][]rib.Range // none is empty
	begins []int         // of each chunk: how many ranges are before it
	n      int           // ranges

	// guarded by once
	once sync.Once
	flat []rib.Range
}

// newPartition makes one of ranges that hold together, and keeps them.
func newPartition(ranges []rib.Range) *partition {
	p := &partition{}
	for chunk := range slices.Chunk(ranges, chunkSize) {
		p.add(chunk)
	}
	p.once.Do(func() { p.flat = ranges })
	return p
}

func (p *partition) add(chunks ...[]rib.Range) {
	for _, chunk := range chunks {
		p.chunks, p.begins = append(p.chunks, chunk), append(p.begins, p.n)
		p.n += len(chunk)
	}
}

// ranges are all of them in one piece: made once, of a partition that nobody asks for them never.
func (p *partition) ranges() []rib.Range {
	p.once.Do(func() { p.flat = slices.Concat(p.chunks...) })
	return p.flat
}

// place is which chunk range i is in, and where.
func (p *partition) place(i int) (chunk, at int) {
	chunk = sort.SearchInts(p.begins, i+1) - 1
	return chunk, i - p.begins[chunk]
}

func (p *partition) at(i int) *rib.Range {
	chunk, at := p.place(i)
	return &p.chunks[chunk][at]
}

// find is the range that holds key.
func (p *partition) find(key rib.Key) int {
	chunk := sort.Search(len(p.chunks)-1, func(i int) bool { return p.chunks[i+1][0].From.Compare(key) > 0 })
	in := p.chunks[chunk]
	return p.begins[chunk] + sort.Search(len(in)-1, func(i int) bool { return in[i+1].From.Compare(key) > 0 })
}

// span is which ranges have keys in [low, high): those from i to before j.
func (p *partition) span(low, high rib.Key) (i, j int) {
	i, j = p.find(low), p.n
	if len(high) > 0 {
		if j = p.find(high); p.at(j).From.Compare(high) < 0 {
			j++
		}
	}
	return i, j
}

// slice is a copy of the ranges from i to before j, of which there is one at least.
func (p *partition) slice(i, j int) []rib.Range {
	out := make([]rib.Range, 0, j-i+2)
	for chunk, at := p.place(i); len(out) < j-i; chunk, at = chunk+1, 0 {
		in := p.chunks[chunk][at:]
		out = append(out, in[:min(len(in), j-i-len(out))]...)
	}
	return out
}

// splice is the partition where others, one at least, take the place of the ranges from i to before j, of which there is one at least.
func (p *partition) splice(i, j int, others []rib.Range) *partition {
	first, begin := p.place(i)
	last, end := p.place(j - 1)
	middle := slices.Concat(p.chunks[first][:begin], others, p.chunks[last][end+1:])
	if next := last + 1; next < len(p.chunks) && len(middle)+len(p.chunks[next]) <= chunkSize {
		middle, last = append(middle, p.chunks[next]...), next
	}
	n := &partition{chunks: make([][]rib.Range, 0, len(p.chunks)+2), begins: make([]int, 0, len(p.chunks)+2)}
	n.add(p.chunks[:first]...)
	if len(middle) <= 2*chunkSize {
		n.add(middle)
	} else {
		n.add(slices.Collect(slices.Chunk(middle, chunkSize))...)
	}
	n.add(p.chunks[last+1:]...)
	return n
}

// cut is the partition with a bound at key, which is not empty. The owners stay.
func (p *partition) cut(key rib.Key) *partition {
	i := p.find(key)
	before := *p.at(i)
	if before.From.Compare(key) == 0 {
		return p
	}
	behind := before
	before.To, behind.From = key, key
	return p.splice(i, i+1, []rib.Range{before, behind})
}

// assign is the partition where [low, high) is a shard's. Bounds within it stay.
func (p *partition) assign(low, high rib.Key, shard string, epoch rib.Epoch) *partition {
	for _, key := range []rib.Key{low, high} {
		if len(key) > 0 {
			p = p.cut(key)
		}
	}
	i, j := p.span(low, high)
	given := p.slice(i, j)
	for k := range given {
		given[k].Shard, given[k].Epoch = shard, epoch
	}
	return p.splice(i, j, given)
}

// join is the partition where the ranges from i to before j, which have one owner, are one.
func (p *partition) join(i, j int) *partition {
	one := *p.at(i)
	one.To = p.at(j - 1).To
	for k := i + 1; k < j; k++ {
		if e := p.at(k).Epoch; e.Compare(one.Epoch) > 0 {
			one.Epoch = e
		}
	}
	return p.splice(i, j, []rib.Range{one})
}
