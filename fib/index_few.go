package fib

import "encoding/binary"

// few is the whole way from a key to its owner where one node holds all starts. A lookup among so few ranges takes as long as it has
// instructions, so this has one case and no layers, and leaves to search whatever it is not made for.
type few struct {
	// constant
	least       int    // what is shorter is for search
	from        int    // where a key's number begins: behind what all starts have in common
	first, last uint64 // see layer
	second      int
	shift       uint8
	tied        bool                 // a key with a start's number is not decided by it
	numbers     [nodeWidth]uint64    // of the layer, padded
	tails       [nodeWidth + 1]tail  // by how many of them are at or before a key's: the last of them
	owners      [nodeWidth + 1]Owner // by the same
}

// tail is a start's number, and what decides about a key with the same one.
type tail struct {
	number, after uint64
	alone         bool // no other start has the number
}

// newFew is for an index that has its slots; nil if its starts need more than a node, or have much in common.
func (x *index) newFew() *few {
	if x.kind != single || len(x.prefix) > 16 {
		return nil
	}
	f := &few{
		least: len(x.prefix) + 8, from: len(x.prefix), first: x.first, last: x.last, second: x.second, shift: x.shift,
		tied: x.tied, numbers: *x.node,
	}
	if f.from > 0 {
		f.least = max(f.least, x.reach)
	}
	for i := range f.owners { // the padding counts for a key of the largest number
		n := min(i, x.n)
		f.owners[i] = x.owner(x.before(n))
		if n > 0 {
			f.tails[i].number, f.tails[i].alone = x.numbers[n-1], x.before(n)-x.before(n-1) == 1
			if x.tied {
				f.tails[i].after = x.after[n-1]
			}
		}
	}
	return f
}

// lookup is for keys of which eight bytes decide.
func (f *few) lookup(key []byte) Owner {
	return f.owners[countNode(&f.numbers, binary.BigEndian.Uint64(key))]
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
	number := binary.BigEndian.Uint64(key[f.from:])
	n := countNode(&f.numbers, number)
	if t := &f.tails[n]; t.number == number {
		if t.alone && len(key)-f.from >= 16 {
			if next := binary.BigEndian.Uint64(key[f.from+8:]); next != t.after {
				return f.owners[lessIfAfter(uint64(n), t.after, next)]
			}
		}
		return x.owner(x.tie(&x.layer, min(n, x.n), key, f.from))
	}
	return f.owners[n]
}
