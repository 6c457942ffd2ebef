package oids

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// First is the first number that a server gives to what its users make.
const First = 16384

// Unknown is PostgreSQL's type "unknown": what a type is told as whose number on the reference nobody knows.
const Unknown = 705

// Kind says where in a type's binary values numbers of types stand.
type Kind byte

// The kinds.
const (
	Plain      Kind = iota // nowhere, as in enums and base types
	Array                  // before the elements, and in these
	Composite              // before each field, and in these
	Domain                 // where they stand in the type below it
	Range                  // in the bounds
	Multirange             // in the ranges
)

// The types of PostgreSQL's own whose values may hold others.
const (
	record      = 2249
	recordArray = 2287
	anyArray    = 2277
)

// Type is a type that somebody has made on a server, but for the arrays of others.
type Type struct {
	OID    uint32
	Array  uint32 // the type of arrays of it; 0: there is none
	Table  uint32 // the table, view or their like whose rows it is of; 0: none
	Of     uint32 // of a Domain the type below it, of a Range that of its bounds, of a Multirange the range; else 0
	Schema string
	Name   string
	Kind   Kind // never Array
}

type name struct{ schema, name string }

// entry is what a number stands for.
type entry struct {
	to      uint32 // what it is on the other side
	of      uint32 // what it is made of, in its own side's numbers: also the elements of an array
	kind    Kind
	carries bool // a binary value of it may hold numbers that are others on the other side
}

// side is one server's numbers, and what they are on the other side.
type side map[uint32]entry

// Map translates between the numbers of one shard that is not the reference and those that clients see.
type Map struct {
	down, up             side // from the shard's numbers, and from the clients'
	tablesDown, tablesUp map[uint32]uint32
}

// Database is what is known of one database's types on all of its shards.
type Database struct {
	reference string
	home      side // of the reference, to the same numbers; nil: they have not been read yet
	names     []string
	maps      []*Map
	known     map[uint32]bool // numbers that clients may have heard of, and that the reference does not have
}

// Reference is the shard whose numbers clients see.
func (d *Database) Reference() string { return d.reference }

// Map is how a shard's numbers are translated; nil: they need not be, for it is the reference.
func (d *Database) Map(shard string) *Map {
	for i, n := range d.names {
		if n == shard {
			return d.maps[i]
		}
	}
	if shard == d.reference {
		return nil
	}
	return nothing
}

// nothing is the Map of a shard of which nothing has been read.
var nothing = &Map{}

// Knows reports whether clients may speak of a type by that number.
func (d *Database) Knows(oid uint32) bool {
	_, ok := d.home[oid]
	return ok || oid < First || d.known[oid]
}

// Make makes a Database of its shards' types, of which those of one that has not been read are nil.
func Make(reference string, shards map[string][]Type) *Database {
	d := &Database{reference: reference, known: make(map[uint32]bool)}
	if list := shards[reference]; list != nil {
		d.home = make(side)
		tables := make(map[uint32]uint32)
		d.home.add(tables, list, func(t *Type) (oid, array, table uint32) { return t.OID, t.Array, t.Table })
		d.home.close()
	}
	faces := d.faces(shards)
	for shard, list := range shards {
		if shard == reference {
			continue
		}
		m := nothing
		if list != nil && d.home != nil {
			m = translation(list, faces)
		}
		d.names, d.maps = append(d.names, shard), append(d.maps, m)
	}
	return d
}

// face is what clients see of a type.
type face struct{ oid, array, table uint32 }

// faces finds what clients see of each type by its name. Those that the reference lacks get numbers in the order of their names, so that all nodes
// give the same.
func (d *Database) faces(shards map[string][]Type) map[name]face {
	faces := make(map[name]face)
	for i := range shards[d.reference] {
		t := &shards[d.reference][i]
		faces[name{t.Schema, t.Name}] = face{t.OID, t.Array, t.Table}
	}
	var missing []name
	for _, list := range shards {
		for i := range list {
			n := name{list[i].Schema, list[i].Name}
			if _, ok := faces[n]; !ok {
				faces[n] = face{}
				missing = append(missing, n)
			}
		}
	}
	slices.SortFunc(missing, func(a, b name) int { return cmp.Or(cmp.Compare(a.schema, b.schema), cmp.Compare(a.name, b.name)) })
	for _, n := range missing {
		oid := made(n)
		for d.Knows(oid) || d.Knows(oid+1) {
			oid = madeFirst | (oid+2)&madeMask
		}
		d.known[oid], d.known[oid+1] = true, true
		faces[n] = face{oid: oid, array: oid + 1}
	}
	return faces
}

// Numbers that are made of names are even, and their arrays' the next one. They are as far as can be from where servers count, and positive to whoever
// takes them for signed.
const (
	madeFirst = 0x70000000
	madeMask  = 0x07fffffe
)

func made(n name) uint32 {
	h := fnv.New32a()
	h.Write([]byte(n.schema))
	h.Write([]byte{0})
	h.Write([]byte(n.name))
	return madeFirst | h.Sum32()&madeMask
}

// translation makes the Map of a shard with these types.
func translation(list []Type, faces map[name]face) *Map {
	m := &Map{down: make(side, 2*len(list)), up: make(side, 2*len(list)), tablesDown: make(map[uint32]uint32), tablesUp: make(map[uint32]uint32)}
	m.down.add(m.tablesDown, list, func(t *Type) (oid, array, table uint32) {
		f := faces[name{t.Schema, t.Name}]
		return f.oid, f.array, f.table
	})
	for oid, table := range m.tablesDown {
		m.tablesUp[table] = oid
	}
	for oid, e := range m.down {
		of := e.of
		if of >= First {
			of = m.down[of].to
		}
		m.up[e.to] = entry{to: oid, of: of, kind: e.kind}
	}
	m.down.close()
	m.up.close()
	return m
}

// add adds types, whose numbers on the other side to tells, and that of their tables.
func (s side) add(tables map[uint32]uint32, list []Type, to func(*Type) (oid, array, table uint32)) {
	for i := range list {
		t := &list[i]
		oid, array, table := to(t)
		s[t.OID] = entry{to: oid, of: t.Of, kind: t.Kind}
		if t.Array != 0 && array != 0 {
			s[t.Array] = entry{to: array, of: t.OID, kind: Array}
		}
		if t.Table != 0 && table != 0 {
			tables[t.Table] = table
		}
	}
}

// close finds out which values carry numbers. A composite's fields are not known, so it may.
func (s side) close() {
	for oid := range s {
		s.carrying(oid, maxDepth)
	}
}

// carrying finds out whether values of a type carry numbers. Types are not made of themselves but through composites; depth is for whoever says so.
func (s side) carrying(oid uint32, depth int) bool {
	e, ok := s[oid]
	switch {
	case !ok || depth == 0:
		return holds(oid)
	case e.carries || e.kind == Plain:
		return e.carries
	}
	switch e.kind {
	case Composite:
		e.carries = true
	case Array:
		e.carries = s.renames(e.of) || s.carrying(e.of, depth-1)
	default:
		e.carries = s.carrying(e.of, depth-1)
	}
	s[oid] = e
	return e.carries
}

// renames reports whether a type has another number on the other side.
func (s side) renames(oid uint32) bool {
	e, ok := s[oid]
	return oid >= First && (!ok || e.to != oid)
}

// holds reports whether a type of PostgreSQL's own may have values that hold numbers of others.
func holds(oid uint32) bool { return oid == record || oid == recordArray || oid == anyArray }

// kindOf is what a number of one side's stands for.
func (s side) kindOf(oid uint32) entry {
	switch oid {
	case record:
		return entry{to: oid, kind: Composite, carries: true}
	case recordArray:
		return entry{to: oid, of: record, kind: Array, carries: true}
	case anyArray: // what its elements are each value says
		return entry{to: oid, kind: Array, carries: true}
	}
	if oid < First {
		return entry{to: oid}
	}
	return s[oid]
}

// Face is what clients see of a shard's type; not ok: nobody knows.
func (m *Map) Face(oid uint32) (_ uint32, ok bool) { return m.down.translate(oid) }

// Local is what a type that a client speaks of is on the shard; not ok: the shard does not have it, as far as is known.
func (m *Map) Local(oid uint32) (_ uint32, ok bool) { return m.up.translate(oid) }

// LocalTable is likewise of a table; 0: nobody knows.
func (m *Map) LocalTable(oid uint32) uint32 {
	if oid < First {
		return oid
	}
	return m.tablesUp[oid]
}

func (s side) translate(oid uint32) (uint32, bool) {
	if oid < First {
		return oid, true
	}
	e, ok := s[oid]
	return e.to, ok && e.to != 0
}

// Carries reports whether binary values of a type, by its number for clients, may hold numbers that shards do not have in common.
func (d *Database) Carries(oid uint32) bool {
	if oid < First {
		return holds(oid)
	}
	e, ok := d.home[oid]
	return !ok || e.kind != Plain
}
