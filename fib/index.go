package fib

import (
	"bytes"
	"sort"

	"rangefinder/rib"
)

// index finds the range of a key. A key's owner is the number of starts that are at or before it (the first range's start,
// before all keys, is left out).
type index struct {
	// constant
	layer  // of all starts
	ranges []rib.Range
	narrow []uint8  // by range: which of slots. Four times as many fit into a cache line as of
	wide   []uint32 // the same, used if there are more slots than a byte counts
	shards []string // by slot
	slots  []*Slot
	direct []*Slot // by range, if they are not too many: a step less
	few    *few    // if they are so few that one node holds them
	ties   ties
}

// newIndex builds the index of valid ranges. It has no slots yet.
func newIndex(ranges []rib.Range) *index {
	x := &index{ranges: ranges}
	x.nameShards()
	x.layer = *x.newLayer(0, len(ranges)-1, 0)
	x.ties = newTies(ranges[1:])
	return x
}

// nameShards numbers the shards and notes each range's.
func (x *index) nameShards() {
	numbers := map[string]uint32{}
	x.wide = make([]uint32, len(x.ranges))
	for i := range x.ranges {
		shard := x.ranges[i].Shard
		number, ok := numbers[shard]
		if !ok {
			number = uint32(len(x.shards))
			numbers[shard] = number
			x.shards = append(x.shards, shard)
		}
		x.wide[i] = number
	}
	if len(x.shards) > 256 {
		return
	}
	x.narrow = make([]uint8, len(x.wide))
	for i, number := range x.wide {
		x.narrow[i] = uint8(number)
	}
	x.wide = nil
}

// maxDirect is how many ranges may point at their slots themselves: the processor's fastest cache has room for them.
const maxDirect = 1024

// slotOf is the slot of a range.
func (x *index) slotOf(i int) *Slot {
	if x.direct != nil {
		return x.direct[i]
	}
	if x.narrow != nil {
		return x.slots[x.narrow[i]]
	}
	return x.slots[x.wide[i]]
}

// owner is that of a range.
func (x *index) owner(i int) Owner { return Owner{x.slotOf(i), &x.ranges[i]} }

// withSlots is the index with its shards' slots filled in.
func (x *index) withSlots(slot func(shard string) *Slot) *index {
	n := *x
	n.slots = make([]*Slot, len(x.shards))
	for i, shard := range x.shards {
		n.slots[i] = slot(shard)
	}
	n.direct, n.few = nil, nil
	if len(n.ranges) <= maxDirect {
		direct := make([]*Slot, len(n.ranges))
		for i := range direct {
			direct[i] = n.slotOf(i)
		}
		n.direct = direct
	}
	n.few = n.newFew()
	return &n
}

// find is the index of the range that holds key.
func (x *index) find(key []byte) int { return x.search(&x.layer, key, 0) }

// search is find among the starts of a layer, for a key that is like them up to a byte.
func (x *index) search(l *layer, key []byte, from int) int {
	for {
		if p := len(l.prefix); p > 0 {
			if !l.alike(key[from:]) {
				if bytes.Compare(key[from:], l.prefix) < 0 {
					return l.base
				}
				return l.base + l.size
			}
			from += p
		}
		number := head(key, from)
		var n int
		switch {
		case l.kind == single:
			n = min(countNode(l.node, number), l.n)
		case l.kind == even && number >= l.radix.low && number < l.radix.high:
			n = int(l.radix.first[(number-l.radix.low)>>(l.radix.shift&63)])
			x.touch(l.base + n)
			n = l.radix.countFrom(l.numbers, n, number)
		case l.kind == even && number < l.radix.low:
			n = 0
		case l.kind == even || number == ^uint64(0): // a node would count the padding
			n = l.n
		default:
			n = descend(l.levels, number)
			x.touch(l.base + n)
			n += countNode((*[nodeWidth]uint64)(l.numbers[n:n+nodeWidth:cap(l.numbers)]), number)
		}
		if (l.tied || len(key)-from < 8) && n > 0 && l.numbers[n-1] == number {
			next := l.next(n-1, len(key)-from)
			if next == nil {
				return x.breakTie(l, n-1, key, from)
			}
			l, from = next, from+8
			continue
		}
		return l.base + l.before(n)
	}
}

// tie is search where the first n numbers of the layer are at or before the key's, and the last of them, if any, is it.
func (x *index) tie(l *layer, n int, key []byte, from int) int {
	if n == 0 {
		return l.base
	}
	if next := l.next(n-1, len(key)-from); next != nil {
		return x.search(next, key, from+8)
	}
	return x.breakTie(l, n-1, key, from)
}

// touch begins to load what slotOf will need for a range near i, while the search waits for the memory that says which.
func (x *index) touch(i int) {
	if i < len(x.narrow) && int(x.narrow[i]) >= len(x.shards) {
		panic("fib: a range has a slot that there is none of")
	}
}

// breakTie decides among the starts whose number is the key's, from its byte from on.
func (x *index) breakTie(l *layer, number int, key []byte, from int) int {
	begin, end := l.before(number), l.before(number+1)
	if end-begin == 1 && l.tied && len(key)-from >= 8 {
		next := head(key, from+8)
		if after := l.after[number]; after != next {
			return l.base + int(lessIfAfter(uint64(end), after, next))
		}
	}
	rest := key[from:]
	return l.base + begin + sort.Search(end-begin, func(i int) bool { return bytes.Compare(x.ties.start(x, l.base+begin+i)[l.depth:], rest) > 0 })
}

// ties holds the starts whole, one after another, if some are longer than a number.
type ties struct {
	arena []byte
	ends  []uint32
}

func newTies(ranges []rib.Range) (t ties) {
	size, long := 0, false
	for i := range ranges {
		size += len(ranges[i].From)
		long = long || len(ranges[i].From) > 8
	}
	if !long || uint64(size) > 1<<32-1 { // keys of that size stay where they are
		return t
	}
	t.arena, t.ends = make([]byte, 0, size), make([]uint32, len(ranges))
	for i := range ranges {
		t.arena = append(t.arena, ranges[i].From...)
		t.ends[i] = uint32(len(t.arena))
	}
	return t
}

// start is start number i.
func (t *ties) start(x *index, i int) []byte {
	if t.ends == nil {
		return x.ranges[i+1].From
	}
	begin := uint32(0)
	if i > 0 {
		begin = t.ends[i-1]
	}
	return t.arena[begin:t.ends[i]]
}
