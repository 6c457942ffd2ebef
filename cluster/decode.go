package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"rangefinder/rib"
)

// decoder takes an encoding apart. The first error stays and everything after it reads as zero, so callers check once, at the end.
// Before anything is allocated for a count, the count is checked against the bytes that are left.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, what)
		d.rest = nil
	}
}

// end returns the error, or complains of bytes that nobody asked for.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail(fmt.Sprintf("%d bytes too many", len(d.rest)))
	}
	return d.err
}

// take returns the next n bytes, which stay the encoding's.
func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.fail("it ends too early")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads how many things follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.rest)/size) {
		d.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

func (d *decoder) string() string { return string(d.take(d.count(1))) }

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) epoch() rib.Epoch { return rib.Epoch{Generation: d.uint32(), Index: d.uint64()} }

const (
	minShard    = 1 + 8 + 12
	minKeyspace = 7
	minTable    = 3
)

func (d *decoder) ownership() *rib.Ownership {
	o := &rib.Ownership{ClusterID: d.string(), Epoch: d.epoch(), Catalog: d.uvarint()}
	if n := d.count(minShard); n > 0 {
		o.Shards = make([]rib.Shard, n)
		for i := range o.Shards {
			o.Shards[i] = rib.Shard{Name: d.string(), SystemID: d.uint64(), Epoch: d.epoch()}
		}
	}
	if n := d.count(minKeyspace); n > 0 {
		o.Keyspaces = make([]rib.Keyspace, n)
		for i := range o.Keyspaces {
			if d.keyspace(&o.Keyspaces[i]); d.err != nil {
				return nil
			}
		}
	}
	return o
}

func (d *decoder) keyspace(ks *rib.Keyspace) {
	ks.ID = d.keyspaceID()
	ks.Name, ks.Database, ks.Method = d.string(), d.string(), d.string()
	if types := d.take(d.count(1)); len(types) > 0 {
		ks.Types = make([]rib.Type, len(types))
		for i, t := range types {
			ks.Types[i] = rib.Type(t)
		}
	}
	if n := d.count(minTable); n > 0 {
		ks.Tables = make([]rib.KeyedTable, n)
		for i := range ks.Tables {
			t := &ks.Tables[i]
			t.Schema, t.Name = d.string(), d.string()
			if c := d.count(1); c > 0 {
				t.Columns = make([]string, c)
				for j := range t.Columns {
					t.Columns[j] = d.string()
				}
			}
		}
	}
	d.ranges(ks)
}

func (d *decoder) ranges(ks *rib.Keyspace) {
	n := d.count(1) // each has a shard number of a byte at least
	if n > maxRangesDecoded {
		d.fail(fmt.Sprintf("%d ranges are more than the limit of %d", n, maxRangesDecoded))
	}
	if n == 0 || d.err != nil {
		return
	}
	width := int(min(d.uvarint(), 1<<16))
	var lengths []byte
	if width == 0 {
		lengths = d.take(2 * (n - 1))
	}
	size := d.count(1)
	if width > 0 && size != width*(n-1) {
		d.fail("the split keys have another size than stated")
	}
	arena := bytes.Clone(d.take(size)) // the ranges keep this, not the whole encoding
	shards := d.count(1)
	names := make([]string, min(shards, n))
	if shards > n {
		d.fail("more shards than ranges")
	}
	for i := range names {
		names[i] = d.string()
	}
	numbers := d.take(n * shardWidth(shards))
	if d.err != nil {
		return
	}

	ks.Ranges = make([]rib.Range, n)
	var (
		last     rib.Key
		at       = 0
		left     = uint64(0) // ranges of the epoch
		epoch    rib.Epoch
		eachSize = shardWidth(shards)
	)
	for i := range ks.Ranges { // one pass: of a million ranges, touching them takes most of the time
		r := &ks.Ranges[i]
		if i > 0 {
			end := at + width
			if width == 0 {
				end += int(binary.LittleEndian.Uint16(lengths[2*i-2:]))
			}
			if end > len(arena) || end == at {
				d.fail("the split keys have another size than stated")
				return
			}
			key := rib.Key(arena[at:end:end])
			if bytes.Compare(last, key) >= 0 {
				d.fail("the split keys do not rise")
				return
			}
			ks.Ranges[i-1].To, r.From = key, key
			last, at = key, end
		}
		number := 0
		switch eachSize {
		case 1:
			number = int(numbers[i])
		case 2:
			number = int(binary.LittleEndian.Uint16(numbers[2*i:]))
		default:
			number = int(binary.LittleEndian.Uint32(numbers[4*i:]))
		}
		if number >= len(names) {
			d.fail("a range's shard is not listed")
			return
		}
		if left == 0 {
			left, epoch = d.uvarint(), d.epoch()
			if d.err != nil || left == 0 || left > uint64(n-i) {
				d.fail("the epochs do not fit the ranges")
				return
			}
		}
		left--
		r.Shard, r.Epoch = names[number], epoch
	}
	if at != len(arena) || left != 0 {
		d.fail("the split keys have another size than stated, or the epochs do not fit the ranges")
	}
}
