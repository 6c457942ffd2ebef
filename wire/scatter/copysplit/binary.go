package copysplit

import (
	"bytes"
	"encoding/binary"
	"math"

	"rangefinder/wire/pg"
)

// signature begins a file in binary format.
const signature = "PGCOPY\n\xff\r\n\x00"

// tuple is how far the splitter is in a tuple of the binary format.
type tuple struct {
	open  bool // its count of fields was read
	field int  // the next one
	left  int  // bytes of the field before that have not come yet: its tuple is on its way already
	spans []span
}

// span is a key column's value in what is kept of the tuple.
type span struct {
	from, to int
	null     bool
}

// binary is the process for the binary format.
func (s *Splitter) binary(b []byte, final bool) (used int, err error) {
	row := 0
	if !s.begun {
		if row, err = s.binaryHeader(b, final); row == 0 || err != nil {
			return 0, err
		}
	}
	for row < len(b) {
		size, err := s.binaryTuple(b[row:])
		if err != nil {
			return row, err
		}
		row += size
		if s.done {
			return len(b), s.afterEnd(b[row:])
		}
		if s.tuple.open || size == 0 {
			break
		}
	}
	if final && (row < len(b) || s.tuple.open) {
		return row, s.at(malformed("unexpected EOF in COPY data"), nil, -1)
	}
	return row, nil
}

// binaryHeader is the size of the header; 0: it has not come whole.
func (s *Splitter) binaryHeader(b []byte, final bool) (int, error) {
	const fixed = len(signature) + 8
	n := min(len(b), len(signature))
	if string(b[:n]) != signature[:n] || final && n < len(signature) {
		return 0, s.at(malformed("COPY file signature not recognized"), nil, -1)
	}
	size := math.MaxInt
	if len(b) >= fixed {
		flags, extension := binary.BigEndian.Uint32(b[len(signature):]), int32(binary.BigEndian.Uint32(b[fixed-4:]))
		switch {
		case flags&(1<<16) != 0:
			return 0, s.at(malformed("invalid COPY file header (WITH OIDS)"), nil, -1)
		case flags>>16 != 0:
			return 0, s.at(malformed("unrecognized critical flags in COPY file header"), nil, -1)
		case extension < 0:
			return 0, s.at(malformed("invalid COPY file header (missing length)"), nil, -1)
		}
		size = fixed + int(extension)
	}
	switch {
	case size <= len(b):
		s.header, s.begun = bytes.Clone(b[:size]), true
		return size, nil
	case final:
		return 0, s.at(malformed("invalid COPY file header (wrong length)"), nil, -1)
	}
	return 0, nil
}

// binaryTuple takes a tuple, or what has come of it, off b, and passes it on. size is how many bytes are done with.
func (s *Splitter) binaryTuple(b []byte) (size int, err error) {
	t, at := &s.tuple, s.scanned
	if !t.open {
		if len(b) < 2 {
			return 0, nil
		}
		switch count := int(int16(binary.BigEndian.Uint16(b))); {
		case count == -1:
			s.trailer, s.done = bytes.Clone(b[:2]), true
			return 2, nil
		case count != len(s.columns):
			return 0, s.at(malformed("row field count is %d, expected %d", count, len(s.columns)), nil, -1)
		}
		t.open, t.field, t.left, t.spans, at = true, 0, 0, t.spans[:0], 2
	}
	for t.left > 0 || t.field < len(s.columns) {
		if t.left > 0 {
			n := min(t.left, len(b)-at)
			if at, t.left = at+n, t.left-n; t.left > 0 {
				return s.part(b, at)
			}
			continue
		}
		if len(b)-at < 4 {
			return s.part(b, at)
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		if n < -1 {
			return 0, s.at(malformed("invalid field size"), nil, -1)
		}
		if n >= maxField {
			return 0, s.at(pg.Errorf(pg.CodeProgramLimitExceeded, "a field of %d bytes is more than PostgreSQL can hold", n), nil, -1)
		}
		value := max(n, 0)
		if next := len(t.spans); next < len(s.read) && s.read[next].index == t.field {
			if len(b)-at-4 < value {
				return s.part(b, at)
			}
			t.spans = append(t.spans, span{at + 4, at + 4 + value, n < 0})
		}
		at, t.left = at+4, value
		t.field++
	}
	shard, first := s.shard, s.shard < 0
	if first {
		if shard, err = s.ownerBinary(b); err != nil {
			return 0, err
		}
	}
	t.open = false
	if s.write != nil {
		if err = s.writeValues(shard, b[:at]); err != nil {
			if e, ok := err.(*pg.Error); ok && e.Where == "" {
				err = s.at(e, nil, -1)
			}
			return 0, err
		}
	}
	return at, s.pass(shard, b[:at], at, first)
}

// writeValues has the values of a whole tuple written for its shard.
func (s *Splitter) writeValues(shard int, b []byte) error {
	s.values = s.values[:0]
	for at := 2; at+4 <= len(b); {
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		if n < 0 {
			s.values = append(s.values, nil)
			continue
		}
		s.values = append(s.values, b[at:at+n:at+n])
		at += n
	}
	return s.write(shard, s.values)
}

// ownerBinary is owner for the tuple in b.
func (s *Splitter) ownerBinary(b []byte) (int, error) {
	for i, v := range s.tuple.spans {
		s.fields[i], s.null[i] = b[v.from:v.to], v.null
	}
	return s.owner(b)
}

// part is what has come of a tuple, looked at up to at.
func (s *Splitter) part(b []byte, at int) (size int, err error) {
	s.scanned = at
	first := s.shard < 0
	if s.write != nil {
		return 0, nil // it is to be whole
	}
	if first {
		if at < keep || len(s.tuple.spans) < len(s.read) {
			return 0, nil
		}
		if s.shard, err = s.ownerBinary(b); err != nil {
			return 0, err
		}
	}
	s.scanned = 0
	if at == 0 {
		return 0, nil
	}
	return at, s.begins(s.shard, b[:at], first)
}

// maxField is the size in bytes, in binary format, from which PostgreSQL takes no field.
const maxField = 1<<30 - 1
