package rib

import (
	"encoding/binary"
	"math/bits"
)

// The hash method uses PostgreSQL's own seeded hash functions with seed 0, so that psql computes the position that a node
// routes by. The algorithm is Bob Jenkins' lookup3 as PostgreSQL has it in src/common/hashfn.c (hash_bytes_extended,
// hash_bytes_uint32_extended) on a little-endian machine; big-endian servers hash the same for integers only, and are not
// supported. Checked against a real server in hash_postgres_test.go.

// HashBigint is hashint8extended(v, 0), as an unsigned position.
func HashBigint(v int64) uint64 {
	// The high half is folded in so that equal values of int and bigint hash alike.
	low, high := uint32(v), uint32(uint64(v)>>32)
	return hashUint32(low ^ high ^ uint32(v>>63))
}

// HashInt is hashint4extended(v, 0), as an unsigned position. It is HashBigint of the same number.
func HashInt(v int32) uint64 { return hashUint32(uint32(v)) }

// HashBytes is hash_any_extended(b, 0): what hashtextextended computes of a text's bytes under a deterministic collation,
// and uuid_hash_extended of a uuid's 16.
func HashBytes(b []byte) uint64 {
	x := start(uint32(len(b)))
	for len(b) >= 12 {
		x.a += binary.LittleEndian.Uint32(b)
		x.b += binary.LittleEndian.Uint32(b[4:])
		x.c += binary.LittleEndian.Uint32(b[8:])
		x.mix()
		b = b[12:]
	}
	// The tail is read as if padded with zeros, but for c, whose lowest byte stands for the length.
	var tail [12]byte
	copy(tail[:], b)
	x.a += binary.LittleEndian.Uint32(tail[:])
	x.b += binary.LittleEndian.Uint32(tail[4:])
	x.c += binary.LittleEndian.Uint32(tail[8:]) << 8
	return x.final()
}

func hashUint32(k uint32) uint64 {
	x := start(4)
	x.a += k
	return x.final()
}

// lookup3 is the algorithm's state of three words.
type lookup3 struct{ a, b, c uint32 }

func start(length uint32) lookup3 {
	s := 0x9e3779b9 + length + 3923095
	return lookup3{s, s, s}
}

// mix stirs twelve bytes into the state, reversibly.
func (x *lookup3) mix() {
	a, b, c := x.a, x.b, x.c
	a = a - c ^ bits.RotateLeft32(c, 4)
	c += b
	b = b - a ^ bits.RotateLeft32(a, 6)
	a += c
	c = c - b ^ bits.RotateLeft32(b, 8)
	b += a
	a = a - c ^ bits.RotateLeft32(c, 16)
	c += b
	b = b - a ^ bits.RotateLeft32(a, 19)
	a += c
	c = c - b ^ bits.RotateLeft32(b, 4)
	b += a
	x.a, x.b, x.c = a, b, c
}

// final stirs the state so that every bit of it changes the two words that are the result.
func (x *lookup3) final() uint64 {
	a, b, c := x.a, x.b, x.c
	c = c ^ b - bits.RotateLeft32(b, 14)
	a = a ^ c - bits.RotateLeft32(c, 11)
	b = b ^ a - bits.RotateLeft32(a, 25)
	c = c ^ b - bits.RotateLeft32(b, 16)
	a = a ^ c - bits.RotateLeft32(c, 4)
	b = b ^ a - bits.RotateLeft32(a, 14)
	c = c ^ b - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
