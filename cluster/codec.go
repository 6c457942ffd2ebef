package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"rangefinder/rib"
)

// The encoding of a table of ownership: what a pull carries, what lies on disk, and the body of a Raft snapshot.
//
//	"RFO1" | CRC-32C of the rest | cluster id, epoch, catalog | shards | keyspaces
//	"RFO2" | the same, and behind it the names of nodes that have numbers
//	"RFO3" | the same, of which there may be none, and behind them moves | loans | links of the chain
//
// A keyspace's ranges are flat arrays (split keys as one arena, shard numbers, runs of equal epochs) rather than a record each:
// a million ranges are read with a handful of allocations. As ranges partition the keys, each bound is stored once: a range ends
// where the next begins. All integers are little endian; "uvarint" is encoding/binary's.
const (
	magicOwnership = "RFO1"
	magicNumbered  = "RFO2" // written only if there are numbers: what knows none reads the other
	magicChained   = "RFO3" // written only if there are moves, loans or links
	magicState     = "RFS1"
	magicState2    = "RFS2" // of a table with links
	headSize       = 8      // magic and checksum
)

// Limits of a decoded table. A stranger cannot send one (streams are authenticated), but a damaged one must not take the memory.
const (
	maxEncoded       = 256 << 20 // bytes of a whole table
	maxRangesDecoded = 4 << 20
)

// EncodeOwnership appends the binary form of o to dst. It fails only on ranges that do not partition the keys.
func EncodeOwnership(dst []byte, o *rib.Ownership) ([]byte, error) {
	start := len(dst)
	dst = append(dst, magicOwnership...)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendString(dst, o.ClusterID)
	dst = appendEpoch(dst, o.Epoch)
	dst = binary.AppendUvarint(dst, o.Catalog)
	dst = binary.AppendUvarint(dst, uint64(len(o.Shards)))
	for i := range o.Shards {
		s := &o.Shards[i]
		dst = appendString(dst, s.Name)
		dst = binary.LittleEndian.AppendUint64(dst, s.SystemID)
		dst = appendEpoch(dst, s.Epoch)
	}
	dst = binary.AppendUvarint(dst, uint64(len(o.Keyspaces)))
	var err error
	for i := range o.Keyspaces {
		if dst, err = appendKeyspace(dst, &o.Keyspaces[i]); err != nil {
			return dst[:start], err
		}
	}
	later := len(o.Moves) > 0 || len(o.Loans) > 0 || len(o.Links) > 0
	if later || len(o.Nodes) > 0 {
		copy(dst[start:], magicNumbered)
		dst = binary.AppendUvarint(dst, uint64(len(o.Nodes)))
		for _, name := range o.Nodes {
			dst = appendString(dst, name)
		}
	}
	if later {
		copy(dst[start:], magicChained)
		dst = appendMoves(dst, o.Moves)
		dst = appendLoans(dst, o.Loans)
		dst = appendLinks(dst, o.Links)
	}
	seal(dst[start:])
	return dst, nil
}

// DecodeOwnership reads what EncodeOwnership wrote. The result shares no memory with b. Errors wrap ErrCorrupt; no input makes it
// panic or take memory out of proportion to its length.
func DecodeOwnership(b []byte) (*rib.Ownership, error) {
	magic := magicOwnership
	for _, later := range []string{magicNumbered, magicChained} {
		if bytes.HasPrefix(b, []byte(later)) {
			magic = later
		}
	}
	d, err := unseal(b, magic)
	if err != nil {
		return nil, err
	}
	o := d.ownership()
	if n := 0; magic != magicOwnership && d.err == nil {
		if n = d.count(1); n == 0 && magic == magicNumbered || n > rib.MaxNodes {
			d.fail("it has no nodes with numbers, or too many")
		}
		for range n {
			o.Nodes = append(o.Nodes, d.string())
		}
	}
	if magic == magicChained && d.err == nil {
		o.Moves, o.Loans, o.Links = d.moves(), d.loans(), d.links()
		if len(o.Moves) == 0 && len(o.Loans) == 0 && len(o.Links) == 0 {
			d.fail("it has neither moves, loans nor links")
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return o, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal writes the checksum into an encoding that begins with magic and four bytes for it.
func seal(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[headSize:], castagnoli))
}

// unseal checks magic and checksum and returns a decoder of the rest.
func unseal(b []byte, magic string) (*decoder, error) {
	switch {
	case len(b) < headSize:
		return nil, fmt.Errorf("%w: it has %d bytes", ErrCorrupt, len(b))
	case len(b) > maxEncoded:
		return nil, fmt.Errorf("%w: it has %d bytes, and %d is the limit", ErrCorrupt, len(b), maxEncoded)
	case string(b[:4]) != magic:
		return nil, fmt.Errorf("%w: %w %q, expected %q", ErrCorrupt, errUnknownFormat, b[:4], magic)
	case crc32.Checksum(b[headSize:], castagnoli) != binary.LittleEndian.Uint32(b[4:]):
		return nil, fmt.Errorf("%w: its checksum does not match", ErrCorrupt)
	}
	return &decoder{rest: b[headSize:]}, nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendEpoch(dst []byte, e rib.Epoch) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(dst, e.Generation), e.Index)
}

func appendKeyspace(dst []byte, ks *rib.Keyspace) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(ks.ID))
	dst = appendString(dst, ks.Name)
	dst = appendString(dst, ks.Database)
	dst = appendString(dst, ks.Method)
	dst = binary.AppendUvarint(dst, uint64(len(ks.Types)))
	for _, t := range ks.Types {
		dst = append(dst, byte(t))
	}
	dst = binary.AppendUvarint(dst, uint64(len(ks.Tables)))
	for i := range ks.Tables {
		t := &ks.Tables[i]
		dst = appendString(dst, t.Schema)
		dst = appendString(dst, t.Name)
		dst = binary.AppendUvarint(dst, uint64(len(t.Columns)))
		for _, c := range t.Columns {
			dst = appendString(dst, c)
		}
	}
	return appendRanges(dst, ks)
}

// appendRanges writes: count | width of split keys (0: they differ, and lengths follow) | size of the arena | the arena |
// names of shards | a shard number for each range | runs of epochs.
func appendRanges(dst []byte, ks *rib.Keyspace) ([]byte, error) {
	n := len(ks.Ranges)
	dst = binary.AppendUvarint(dst, uint64(n))
	if n == 0 {
		return dst, nil
	}
	if len(ks.Ranges[0].From) != 0 || len(ks.Ranges[n-1].To) != 0 {
		return nil, fmt.Errorf("encode keyspace %q: its ranges do not cover all keys", ks.Name)
	}
	width, size := 0, 0
	for i := 1; i < n; i++ {
		key := ks.Ranges[i].From
		if to := ks.Ranges[i-1].To; len(key) == 0 || len(to) != len(key) || len(key) > math.MaxUint16 || &to[0] != &key[0] && !bytes.Equal(to, key) {
			return nil, fmt.Errorf("encode keyspace %q: ranges %d and %d do not meet", ks.Name, i-1, i)
		}
		size += len(key)
		switch {
		case i == 1:
			width = len(key)
		case width != len(key):
			width = 0
		}
	}
	dst = slices.Grow(dst, size+n*(2+1)+64)
	dst = binary.AppendUvarint(dst, uint64(width))
	if width == 0 {
		for i := 1; i < n; i++ {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(len(ks.Ranges[i].From)))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(size))
	for i := 1; i < n; i++ {
		dst = append(dst, ks.Ranges[i].From...)
	}

	// Shard numbers, in the order in which the names first occur.
	var names []string
	numbers := make(map[string]uint32)
	own := make([]uint32, n)
	for i := range ks.Ranges {
		name := ks.Ranges[i].Shard
		if i > 0 && name == ks.Ranges[i-1].Shard {
			own[i] = own[i-1]
			continue
		}
		number, ok := numbers[name]
		if !ok {
			number = uint32(len(names))
			numbers[name] = number
			names = append(names, name)
		}
		own[i] = number
	}
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, name := range names {
		dst = appendString(dst, name)
	}
	switch shardWidth(len(names)) {
	case 1:
		for _, number := range own {
			dst = append(dst, byte(number))
		}
	case 2:
		for _, number := range own {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(number))
		}
	default:
		for _, number := range own {
			dst = binary.LittleEndian.AppendUint32(dst, number)
		}
	}

	for i := 0; i < n; {
		run := 1
		for i+run < n && ks.Ranges[i+run].Epoch == ks.Ranges[i].Epoch {
			run++
		}
		dst = binary.AppendUvarint(dst, uint64(run))
		dst = appendEpoch(dst, ks.Ranges[i].Epoch)
		i += run
	}
	return dst, nil
}

// shardWidth is the bytes of one shard number.
func shardWidth(names int) int {
	switch {
	case names <= 1<<8:
		return 1
	case names <= 1<<16:
		return 2
	}
	return 4
}
