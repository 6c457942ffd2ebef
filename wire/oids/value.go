package oids

import (
	"encoding/binary"
	"fmt"
)

// maxDepth bounds how deep values stand in each other. PostgreSQL has no such bound; nobody has come near it.
const maxDepth = 64

// UnknownError is that a value speaks of a type that the shard does not have, as far as is known.
type UnknownError struct{ OID uint32 }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no type with OID %d", e.OID)
}

// Param writes the numbers in a binary value of a client's as the shard has them. oid is the value's type, by its number for clients. On an error v may
// be written in part.
func (m *Map) Param(oid uint32, v []byte) error {
	w := writer{from: m.up}
	return w.value(oid, v, maxDepth)
}

// ParamCarries reports whether Param may have something to write in values of a type.
func (m *Map) ParamCarries(oid uint32) bool { return m.up.kindOf(oid).carries }

// writer writes the numbers in binary values as they are on the other side. They keep their length.
type writer struct {
	from    side
	lenient bool // what nobody knows is told as Unknown; else it is an error
}

// number writes one number. It returns what it stands for.
func (w *writer) number(p []byte) (uint32, error) {
	oid := binary.BigEndian.Uint32(p)
	to, ok := w.from.translate(oid)
	switch {
	case ok:
		binary.BigEndian.PutUint32(p, to)
	case !w.lenient:
		return oid, &UnknownError{oid}
	default:
		binary.BigEndian.PutUint32(p, Unknown)
	}
	return oid, nil
}

// value writes the numbers in a value of a type.
func (w *writer) value(oid uint32, v []byte, depth int) error {
	e := w.from.kindOf(oid)
	if !e.carries {
		return nil
	}
	if depth == 0 {
		return errMalformed
	}
	switch e.kind {
	case Array:
		return w.array(v, depth)
	case Composite:
		return w.composite(v, depth)
	case Range:
		return w.bounds(e.of, v, depth)
	case Multirange:
		return w.ranges(e.of, v, depth)
	}
	return w.value(e.of, v, depth-1)
}

// array is dimensions, flags, the elements' type, the length and lower bound of each dimension, and the elements.
func (w *writer) array(v []byte, depth int) error {
	if len(v) < 12 {
		return errMalformed
	}
	dimensions := int64(binary.BigEndian.Uint32(v))
	oid, err := w.number(v[8:])
	if err != nil {
		return err
	}
	if !w.from.kindOf(oid).carries {
		return nil
	}
	if dimensions*8 > int64(len(v)-12) {
		return errMalformed
	}
	rest := v[12+8*dimensions:]
	for len(rest) > 0 {
		var element []byte
		if element, rest, err = cut(rest); err != nil {
			return err
		}
		if element == nil {
			continue
		}
		if err = w.value(oid, element, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// composite is the number of fields, and of each its type and its value.
func (w *writer) composite(v []byte, depth int) error {
	if len(v) < 4 {
		return errMalformed
	}
	rest := v[4:]
	for range binary.BigEndian.Uint32(v) {
		if len(rest) < 8 {
			return errMalformed
		}
		oid, err := w.number(rest)
		if err != nil {
			return err
		}
		var field []byte
		if field, rest, err = cut(rest[4:]); err != nil {
			return err
		}
		if field == nil {
			continue
		}
		if err = w.value(oid, field, depth-1); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return errMalformed
	}
	return nil
}

// The flags of a range.
const (
	rangeEmpty   = 0x01
	rangeNoLower = 0x08 | 0x20
	rangeNoUpper = 0x10 | 0x40
)

// bounds is a range: flags, and the bounds that there are.
func (w *writer) bounds(of uint32, v []byte, depth int) error {
	if len(v) < 1 {
		return errMalformed
	}
	flags, rest := v[0], v[1:]
	for _, missing := range [...]byte{rangeEmpty | rangeNoLower, rangeEmpty | rangeNoUpper} {
		if flags&missing != 0 {
			continue
		}
		var bound []byte
		var err error
		if bound, rest, err = cut(rest); err != nil {
			return err
		}
		if bound == nil {
			return errMalformed
		}
		if err := w.value(of, bound, depth-1); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return errMalformed
	}
	return nil
}

// ranges is a multirange: the number of ranges, and these.
func (w *writer) ranges(of uint32, v []byte, depth int) error {
	if len(v) < 4 {
		return errMalformed
	}
	rest := v[4:]
	for range binary.BigEndian.Uint32(v) {
		var one []byte
		var err error
		if one, rest, err = cut(rest); err != nil {
			return err
		}
		if one == nil {
			return errMalformed
		}
		if err := w.value(of, one, depth-1); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return errMalformed
	}
	return nil
}

// cut takes a value with its length before it; nil is NULL.
func cut(p []byte) (v, rest []byte, _ error) {
	if len(p) < 4 {
		return nil, nil, errMalformed
	}
	size := int64(int32(binary.BigEndian.Uint32(p)))
	p = p[4:]
	if size == -1 {
		return nil, p, nil
	}
	if size < 0 || size > int64(len(p)) {
		return nil, nil, errMalformed
	}
	return p[:size:size], p[size:], nil
}
