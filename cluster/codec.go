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
//	"RFO4" | the same, and behind it the numbers of nodes that are forgotten, ascending
//
// A keyspace's ranges are flat arrays (split keys as one arena, shard numbers, runs of equal epochs) rather than a record each:
// a million ranges are read with a handful of allocations. As ranges partition the keys, each bound is stored once: a range ends
// where the next begins. All integers are little endian; "uvarint" is encoding/binary's.
const (
	magicOwnership = "RFO1"
	magicNumbered  = "RFO2" // written only if there are numbers: what knows none reads the other
	magicChained   = "RFO3" // written only if there are moves, loans or links
	magicForgotten = "RFO4" // written only if nodes are forgotten
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
	later := len(o.Moves) > 0 || len(o.Loans) > 0 || len(o.Links) > 0 || len(o.Forgotten) > 0
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
	if len(o.Forgotten) > 0 {
		copy(dst[start:], magicForgotten)
		dst = binary.AppendUvarint(dst, uint64(len(o.Forgotten)))
		for _, number := range o.Forgotten {
			dst = binary.AppendUvarint(dst, uint64(number))
		}
	}
	seal(dst[start:])
	return dst, nil
}

// DecodeOwnership reads what EncodeOwnership wrote. The result shares no memory with b. Errors wrap ErrCorrupt; no input makes it
// panic or take memory out of proportion to its length.
func DecodeOwnership(b []byte) (*rib.Ownership, error) {
	magic := magicOwnership
	for _, later := range []string{magicNumbered, magicChained, magicForgotten} {
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
	if (magic == magicChained || magic == magicForgotten) && d.err == nil {
		o.Moves, o.Loans, o.Links = d.moves(), d.loans(), d.links()
		if magic == magicForgotten {
			o.Forgotten = d.forgotten(len(o.Nodes))
		} else if len(o.Moves) == 0 && len(o.Loans) == 0 && len(o.Links) == 0 {
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
	// One pass over the ranges: of a million, reading them takes most of the time.
	var (
		width  = len(ks.Ranges[min(1, n-1)].From)
		arena  = make([]byte, 0, width*(n-1))
		own    = make([]uint32, n)
		owners shardNumbers
		epochs []byte
		run    = 0
	)
	for i := range ks.Ranges {
		r := &ks.Ranges[i]
		own[i] = owners.of(r.Shard)
		if i == 0 {
			continue
		}
		before := &ks.Ranges[i-1]
		if len(r.From) == 0 || len(before.To) != len(r.From) || len(r.From) > math.MaxUint16 || &before.To[0] != &r.From[0] && !bytes.Equal(before.To, r.From) {
			return nil, fmt.Errorf("encode keyspace %q: ranges %d and %d do not meet", ks.Name, i-1, i)
		}
		arena = append(arena, r.From...)
		if len(r.From) != width {
			width = 0
		}
		if r.Epoch != before.Epoch {
			epochs = appendEpoch(binary.AppendUvarint(epochs, uint64(i-run)), before.Epoch)
			run = i
		}
	}
	epochs = appendEpoch(binary.AppendUvarint(epochs, uint64(n-run)), ks.Ranges[n-1].Epoch)

	dst = slices.Grow(dst, len(arena)+n*(2+shardWidth(len(owners.names)))+len(epochs)+64)
	dst = binary.AppendUvarint(dst, uint64(width))
	if width == 0 {
		for i := 1; i < n; i++ {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(len(ks.Ranges[i].From)))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(arena)))
	dst = append(dst, arena...)
	dst = binary.AppendUvarint(dst, uint64(len(owners.names)))
	for _, name := range owners.names {
		dst = appendString(dst, name)
	}
	switch shardWidth(len(owners.names)) {
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
	return append(dst, epochs...), nil
}

// shardNumbers numbers names in the order in which they first occur.
type shardNumbers struct {
	names   []string
	numbers map[string]uint32
	recent  [256]struct { // by a few bytes of the name: as a rule it is there, and a map takes five times as long
		name   string
		number uint32
	}
}

func (s *shardNumbers) of(name string) uint32 {
	at := 0
	if n := len(name); n > 0 {
		at = (n + 31*int(name[0]) + 7*int(name[n-1]) + 61*int(name[n/2])) & (len(s.recent) - 1)
	}
	recent := &s.recent[at]
	if recent.name == name && len(s.names) > 0 && s.names[recent.number] == name {
		return recent.number
	}
	number, ok := s.numbers[name]
	if !ok {
		if s.numbers == nil {
			s.numbers = make(map[string]uint32)
		}
		number = uint32(len(s.names))
		s.numbers[name] = number
		s.names = append(s.names, name)
	}
	recent.name, recent.number = name, number
	return number
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
