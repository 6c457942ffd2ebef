package fib

import (
	"bytes"
	"sort"

	"rangefinder/rib"
)

// Cover finds the shards that a statement over several keys needs: those that are in each of its sets of keys. It is its owner's
// scratch: Reset makes it ready for a statement, and nothing is allocated once it has been used for as many shards.
type Cover struct {
	// owned by one goroutine
	index *index   // nil: the table does not know the keyspace
	now   []uint64 // bits, by number of shard: of the set that was begun
	all   []uint64 // of the sets before
	begun int
}

// Reset empties the cover and makes it one of a table's keyspace. It returns false if the table does not know that.
func (c *Cover) Reset(t *Table, ks rib.KeyspaceID) bool {
	c.index, c.begun = t.index(ks), 0
	if c.index == nil {
		return false
	}
	words := (len(c.index.shards) + 63) / 64
	if cap(c.now) < words {
		c.now, c.all = make([]uint64, words), make([]uint64, words)
	}
	c.now, c.all = c.now[:words], c.all[:words]
	return true
}

// Begin begins a set of keys.
func (c *Cover) Begin() {
	c.meet()
	c.begun++
	clear(c.now)
}

func (c *Cover) meet() {
	for i := range c.all {
		switch c.begun {
		case 0:
		case 1:
			c.all[i] = c.now[i]
		default:
			c.all[i] &= c.now[i]
		}
	}
}

// Key adds the owner of a key, if it has one, to the set.
func (c *Cover) Key(k rib.Key) error {
	c.add(c.index.find(k))
	return nil
}

// Range adds the owners of [from, to) to the set; an empty bound is open.
func (c *Cover) Range(from, to rib.Key) error {
	ranges := c.index.ranges
	first, end := 0, len(ranges)
	if len(from) > 0 {
		first = c.index.find(from)
	}
	if len(to) > 0 {
		end = sort.Search(len(ranges), func(i int) bool { return bytes.Compare(ranges[i].From, to) >= 0 })
	}
	for i := first; i < end; i++ {
		c.add(i)
	}
	return nil
}

func (c *Cover) add(i int) {
	n := uint32(0)
	if c.index.narrow != nil {
		n = uint32(c.index.narrow[i])
	} else {
		n = c.index.wide[i]
	}
	if c.index.slots[n] != nil {
		c.now[n/64] |= 1 << (n % 64)
	}
}

// Slots appends the shards that are in all sets that were begun.
func (c *Cover) Slots(dst []*Slot) []*Slot {
	if c.begun > 0 {
		c.meet()
		c.begun = 1
		copy(c.now, c.all)
		for n, s := range c.index.slots {
			if c.all[n/64]&(1<<(n%64)) != 0 {
				dst = append(dst, s)
			}
		}
	}
	return dst
}
