package fib

import (
	"bytes"
	"encoding/binary"
	"math"
)

// layer finds a key among starts by eight bytes of it, as a number: those behind what all of the starts have in common.
// Which structure counts the numbers is chosen when it is built, by how they lie:
//
//   - single: up to 16: one node of the tree;
//   - even: spread evenly, as hashes and counters are: a radix table by the leading bits says where to begin counting,
//     and a fixed number of comparisons from there ends it;
//   - tree: all others, a static B+-tree of 17-way nodes. Up to 272 numbers it is two nodes.
//
// None branches on a key's bits: a binary search mispredicts every second of its steps, and each step of one written without
// branches waits for the one before. `go run ./bench fib` has figures.
//
// Where eight bytes do not tell a key from a start, the rest decides: among many starts in a layer of their own, among few
// by comparing them whole. So a thousand starts that begin with the same twenty bytes cost one step more, not ten.
type layer struct {
	// constant
	kind    kind
	tied    bool               // some start is longer than its number, so that the same number decides nothing
	n       int                // numbers, without padding
	numbers []uint64           // ascending, each once, then padding of the largest number
	node    *[nodeWidth]uint64 // single: all numbers
	radix   radix              // even
	levels  [][]uint64         // tree: its inner levels, root first; numbers are its leaves

	prefix      []byte // common to all starts, behind those of the layers above; cut off
	reach       int    // a key of fewer bytes is compared with the prefix byte by byte, as are all if it has more than 16
	first, last uint64 // else: its first and its last eight bytes
	second      int    // where last begins
	shift       uint8  // takes away what first and last hold beyond the prefix

	base   int      // how many starts lie before the layer's
	size   int      // starts
	depth  int      // bytes of a start that lie before its number
	begins []uint32 // by number, and one more: how many of the layer's starts lie before those of that number; nil: it is its index
	after  []uint64 // by number, if tied: the next eight bytes of its start; if it has several: nothing
	deeper []*layer // by number: the layer of its starts longer than that number; nil where there is none, or nowhere any
}

type kind uint8

const (
	single kind = iota
	even
	tree
)

// Starts with the same number are compared whole if there are few: up to maxTies. A layer is faster even for two, and takes
// some 400 bytes: where there are at most fewStarts in all, all ties get one.
const (
	maxTies   = 16
	fewStarts = 10_000
)

// newLayer builds the layer of the starts from lo to before hi, which are alike in their first bytes up to depth.
func (x *index) newLayer(lo, hi, depth int) *layer {
	start := func(i int) []byte { return x.ranges[i+1].From[depth:] }
	l := &layer{base: lo, size: hi - lo}
	l.cutOff(start, lo, hi)
	depth += len(l.prefix)
	l.depth = depth
	l.numbers = make([]uint64, 0, l.size+nodeWidth)
	l.begins = make([]uint32, 0, l.size+1)
	for i := lo; i < hi; i++ {
		s := start(i)
		l.tied = l.tied || len(s) > 8
		if number := head(s, 0); i == lo || number != l.numbers[len(l.numbers)-1] {
			l.numbers, l.begins = append(l.numbers, number), append(l.begins, uint32(i-lo))
		}
	}
	l.n = len(l.numbers)
	l.begins = append(l.begins, uint32(l.size))
	if l.tied {
		l.after = make([]uint64, l.n)
	}
	for number := range l.n {
		begin, end := lo+int(l.begins[number]), lo+int(l.begins[number+1])
		if end-begin == 1 {
			if s := start(begin); len(s) > 8 {
				l.after[number] = head(s, 8)
			}
			continue
		}
		if end-begin <= maxTies && len(x.ranges) > fewStarts {
			continue
		}
		for begin < end && len(start(begin)) <= 8 { // they are before whatever has eight bytes
			begin++
		}
		if begin == end {
			continue
		}
		if l.deeper == nil {
			l.deeper = make([]*layer, l.n)
		}
		l.deeper[number] = x.newLayer(begin, end, depth+8)
	}
	if l.n == l.size {
		l.begins = nil
	}
	for pad := l.numbers[l.n : l.n+nodeWidth]; len(pad) > 0; pad = pad[1:] {
		pad[0] = ^uint64(0)
	}
	switch {
	case l.n <= nodeWidth:
		l.kind, l.node = single, (*[nodeWidth]uint64)(l.numbers[:nodeWidth])
	case l.radix.build(l.numbers):
		l.kind = even
	default:
		l.kind, l.levels = tree, newTree(l.numbers)
	}
	return l
}

// cutOff finds what all starts begin with, if any of them is longer than a number holds.
func (l *layer) cutOff(start func(int) []byte, lo, hi int) {
	long := false
	for i := lo; i < hi && !long; i++ {
		long = len(start(i)) > 8
	}
	if !long {
		return
	}
	first, last := start(lo), start(hi-1)
	p := 0
	for p < len(first) && p < len(last) && first[p] == last[p] {
		p++
	}
	l.prefix = first[:p]
	if l.reach = math.MaxInt; p <= 16 {
		l.reach, l.second = max(p, 8), max(0, p-8)
		l.first, l.last = head(l.prefix, 0), head(l.prefix, l.second)
		l.shift = uint8(64 - 8*min(p, 8))
	}
}

// alike tells whether the rest of a key begins with the layer's prefix.
func (l *layer) alike(rest []byte) bool {
	if len(rest) < l.reach {
		return bytes.HasPrefix(rest, l.prefix)
	}
	first, last := binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[l.second:])
	return ((first^l.first)|(last^l.last))>>(l.shift&63) == 0
}

// before is how many of the layer's starts have one of its first numbers.
func (l *layer) before(numbers int) int {
	if l.begins == nil {
		return numbers
	}
	return int(l.begins[numbers])
}

// next is the layer that decides about a key with that number, of which as many bytes are left; nil if there is none.
func (l *layer) next(number, left int) *layer {
	if l.deeper == nil || left < 8 {
		return nil
	}
	return l.deeper[number]
}

// head is eight bytes of a key as a number; missing ones are zero.
func head(key []byte, from int) uint64 {
	if len(key)-from >= 8 {
		return binary.BigEndian.Uint64(key[from:])
	}
	return short(key, from)
}

// short is head where the key ends. A key of eight bytes needs no copy: what is before from is shifted out.
func short(key []byte, from int) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key[len(key)-8:]) << (8 * (8 - (len(key) - from)))
	}
	var b [8]byte
	copy(b[:], key[from:])
	return binary.BigEndian.Uint64(b[:])
}
