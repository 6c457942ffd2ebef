package oids

import (
	"encoding/binary"
	"errors"
)

// Column is one of a row's whose binary values may hold numbers of types.
type Column struct {
	At  int    // from 0
	OID uint32 // its type, in the numbers of whoever sends the row
}

// fields goes through the columns of a RowDescription's body.
type fields struct {
	body []byte
	left int
	at   int // where the fixed part of the column in hand begins
	next int
}

const fixed = 18 // bytes of a column behind its name

func fieldsOf(body []byte) fields {
	if len(body) < 2 {
		return fields{}
	}
	return fields{body: body, left: int(binary.BigEndian.Uint16(body)), next: 2}
}

// more takes the next column in hand. It returns false if there is none, or the body is cut off.
func (f *fields) more() bool {
	if f.left == 0 {
		return false
	}
	at := f.next
	for at < len(f.body) && f.body[at] != 0 {
		at++
	}
	if at+1+fixed > len(f.body) {
		f.left = 0
		return false
	}
	f.left--
	f.at, f.next = at+1, at+1+fixed
	return true
}

func (f *fields) table() uint32  { return binary.BigEndian.Uint32(f.body[f.at:]) }
func (f *fields) oid() uint32    { return binary.BigEndian.Uint32(f.body[f.at+6:]) }
func (f *fields) isBinary() bool { return f.body[f.at+17] == 1 }

// UnknownColumn is the first type in a RowDescription's body that nobody knows, and that is not among skip; 0: there is none.
func (m *Map) UnknownColumn(body []byte, skip []uint32) uint32 {
	last := uint32(0)
	for f := fieldsOf(body); f.more(); {
		if oid := f.oid(); oid >= First && oid != last {
			if last = oid; m.strange(oid, skip) {
				return oid
			}
		}
	}
	return 0
}

// UnknownParam is the same of a ParameterDescription's body.
func (m *Map) UnknownParam(body []byte, skip []uint32) uint32 {
	for i := 2; i+4 <= len(body); i += 4 {
		if oid := binary.BigEndian.Uint32(body[i:]); oid >= First && m.strange(oid, skip) {
			return oid
		}
	}
	return 0
}

func (m *Map) strange(oid uint32, skip []uint32) bool {
	if _, ok := m.Face(oid); ok {
		return false
	}
	for _, s := range skip {
		if s == oid {
			return false
		}
	}
	return true
}

// Columns writes the shard's numbers in a RowDescription's body as clients see them, and adds to list the columns whose binary values have to be written
// so, too. A column of a table whose number nobody knows is told as one of no table.
func (m *Map) Columns(body []byte, list []Column) []Column {
	last, table := uint32(0), uint32(0)
	at := 0
	for f := fieldsOf(body); f.more(); at++ {
		if t := f.table(); t >= First {
			if t != last {
				last, table = t, m.tablesDown[t]
			}
			binary.BigEndian.PutUint32(body[f.at:], table)
			if table == 0 {
				body[f.at+4], body[f.at+5] = 0, 0
			}
		}
		oid := f.oid()
		if oid < First && !holds(oid) {
			continue
		}
		if f.isBinary() && m.down.kindOf(oid).carries {
			list = append(list, Column{at, oid})
		}
		binary.BigEndian.PutUint32(body[f.at+6:], m.face(oid))
	}
	return list
}

// face is Face, or Unknown.
func (m *Map) face(oid uint32) uint32 {
	if to, ok := m.Face(oid); ok {
		return to
	}
	return Unknown
}

// Params writes the numbers in a ParameterDescription's body as clients see them.
func (m *Map) Params(body []byte) {
	for i := 2; i+4 <= len(body); i += 4 {
		if oid := binary.BigEndian.Uint32(body[i:]); oid >= First {
			binary.BigEndian.PutUint32(body[i:], m.face(oid))
		}
	}
}

// Made reports whether a ParameterDescription's body, with the numbers that clients see, names a type that somebody has made.
func Made(body []byte) bool {
	for i := 2; i+4 <= len(body); i += 4 {
		if binary.BigEndian.Uint32(body[i:]) >= First {
			return true
		}
	}
	return false
}

// CarriesAny reports whether a row that is described so, with the numbers that clients see, may hold some in its binary values.
func (d *Database) CarriesAny(body []byte) bool {
	for f := fieldsOf(body); f.more(); {
		if oid := f.oid(); oid == Unknown || d.Carries(oid) {
			return true
		}
	}
	return false
}

// Row writes the numbers in a DataRow's body as clients see them; columns are those that Columns has found. An error means that the row is not what
// its description says.
func (m *Map) Row(body []byte, columns []Column) error {
	if len(body) < 2 {
		return errMalformed
	}
	rest, at := body[2:], 0
	for _, c := range columns {
		for ; at <= c.At; at++ {
			v, behind, err := cut(rest)
			if err != nil {
				return err
			}
			if rest = behind; at < c.At || v == nil {
				continue
			}
			w := writer{from: m.down, lenient: true}
			if err := w.value(c.OID, v, maxDepth); err != nil {
				return err
			}
		}
	}
	return nil
}

var errMalformed = errors.New("a binary value that is not of its type")
