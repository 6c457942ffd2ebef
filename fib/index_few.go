package fib

import (
	"encoding/binary"
	"math/bits"
)

// few is the whole way from a key to its owner where one node holds all starts. A lookup among so few ranges takes as long as it has
// instructions, so this has no layers, and leaves to search whatever it is not made for.
type few struct {
	// constant
	least       int    // what is shorter is for search
	from        int    // where a key's number begins: behind what all starts have in common
	first, last uint64 // see layer
	second      int
	shift       uint8
	tied        bool                 // a key with a start's number is not decided by it
	twins       bool                 // see pair
	numbers     [nodeWidth]uint64    // of all starts, padded
	tails       [nodeWidth + 1]tail  // by how many of them are at or before a key's: the last of them
	pairs       [nodeWidth + 1]pair  // by the same
	owners      [nodeWidth + 1]Owner // by the same
}

// tail is a start's number, and what decides about a key with the same one.
type tail struct {
	number, after uint64
	alone         bool // no other start has the number
	nth           int  // which of the different numbers it is, from 1
}

// pair is for starts of which two begin with the same eight bytes, as those of one tenant do. Then many keys will begin like some start, too,
// and for which of them more has to be compared the processor cannot foresee. So 24 bytes of every key are compared, with the last two
// starts whose first eight do not come after it, and nothing that is done depends on the key.
//
// It is as long as a line of the processor's cache.
type pair struct {
	earlier, later words
	n              uint64 // how many starts there are up to later
	_              uint64
}

// words are 24 bytes of a start as numbers; missing ones are zero. A start that is not there is all zero: no key is before it.
type words struct{ a, b, c uint64 }

// newFew is for an index that has its slots; nil if its starts need more than a node, or have much in common.
func (x *index) newFew() *few {
	if x.kind != single || x.size > nodeWidth || len(x.prefix) > 16 {
		return nil
	}
	f := &few{
		least: len(x.prefix) + 8, from: len(x.prefix), first: x.first, last: x.last, second: x.second, shift: x.shift,
		tied: x.tied, twins: x.begins != nil,
	}
	if f.from > 0 {
		f.least = max(f.least, x.reach)
	}
	for i := range f.numbers {
		f.numbers[i] = ^uint64(0)
	}
	for i := range f.owners { // the padding counts for a key of the largest number
		n := min(i, x.size)
		f.owners[i], f.pairs[i].n = x.owner(n), uint64(n)
		if n == 0 {
			continue
		}
		start := x.ranges[n].From[f.from:]
		w := words{head(start, 0), head(start, min(len(start), 8)), head(start, min(len(start), 16))}
		f.numbers[n-1], f.pairs[i].later, f.pairs[i].earlier = w.a, w, f.pairs[n-1].later
		f.tails[i] = tail{number: w.a, after: w.b, nth: 1}
		for f.tails[i].nth < x.n && x.before(f.tails[i].nth) < n {
			f.tails[i].nth++
		}
		f.tails[i].alone = x.before(f.tails[i].nth)-x.before(f.tails[i].nth-1) == 1
		if n > 2 && f.numbers[n-3] == w.a {
			f.twins = false
		}
	}
	return f
}

// lookup is for keys of which eight bytes decide.
func (f *few) lookup(key []byte) Owner {
	return f.owners[countNode(&f.numbers, binary.BigEndian.Uint64(key))]
}

// lookupTwins is for keys of more than 16 bytes behind what all starts have in common, where starts have twins: see pair. It returns false
// if 24 bytes do not decide.
func (f *few) lookupTwins(key []byte) (Owner, bool) {
	if len(key) <= 16 {
		return Owner{}, false
	}
	number := binary.BigEndian.Uint64(key)
	// This, too, is countNode.
	four := lessIfAfter(3, f.numbers[3], number)
	four = lessIfAfter(four, f.numbers[7], number)
	four = lessIfAfter(four, f.numbers[11], number)
	node := (*[4]uint64)(f.numbers[four&3*4:])
	n := lessIfAfter(four*4+4, node[0], number)
	n = lessIfAfter(n, node[1], number)
	n = lessIfAfter(n, node[2], number)
	n = lessIfAfter(n, node[3], number)
	p := &f.pairs[n]
	second := binary.BigEndian.Uint64(key[8:])
	end := min(len(key), 24)
	third := binary.BigEndian.Uint64(key[end-8:]) << ((24 - end) * 8 & 63) // missing bytes are zero
	if third == p.later.c && second == p.later.b || third == p.earlier.c && second == p.earlier.b {
		return Owner{}, false
	}
	_, less := bits.Sub64(third, p.later.c, 0)
	_, less = bits.Sub64(second, p.later.b, less)
	_, less = bits.Sub64(number, p.later.a, less)
	n, _ = bits.Sub64(p.n, 0, less)
	_, less = bits.Sub64(third, p.earlier.c, 0)
	_, less = bits.Sub64(second, p.earlier.b, less)
	_, less = bits.Sub64(number, p.earlier.a, less)
	n, _ = bits.Sub64(n, 0, less)
	return f.owners[n], true
}

// lookupLong is for all others.
func (x *index) lookupLong(key []byte) Owner {
	f := x.few
	if len(key) < f.least {
		return x.owner(x.find(key))
	}
	if f.from > 0 {
		if first, last := binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[f.second:]); ((first^f.first)|(last^f.last))>>(f.shift&63) != 0 {
			return x.owner(x.find(key))
		}
	}
	if f.twins {
		if owner, ok := f.lookupTwins(key[f.from:]); ok {
			return owner
		}
	}
	number := binary.BigEndian.Uint64(key[f.from:])
	// This is countNode: a call would be felt.
	four := lessIfAfter(3, f.numbers[3], number)
	four = lessIfAfter(four, f.numbers[7], number)
	four = lessIfAfter(four, f.numbers[11], number)
	node := (*[4]uint64)(f.numbers[four&3*4:])
	n := lessIfAfter(four*4+4, node[0], number)
	n = lessIfAfter(n, node[1], number)
	n = lessIfAfter(n, node[2], number)
	n = lessIfAfter(n, node[3], number)
	if t := &f.tails[n]; t.number == number {
		if t.alone && len(key)-f.from >= 16 {
			if next := binary.BigEndian.Uint64(key[f.from+8:]); next != t.after {
				return f.owners[lessIfAfter(f.pairs[n].n, t.after, next)]
			}
		}
		return x.owner(x.tie(&x.layer, t.nth, key, f.from))
	}
	return f.owners[n]
}
