package scatter

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Data of COPY in binary format hold numbers of types where other binary values do: in arrays, composites and what is made of them. Nothing in the data says which
// columns these are.

// carrying finds out which of the columns of a COPY FROM have values that hold such numbers.
func (s *copySplit) carrying(b *branch, columns []string) *pg.Error {
	say := s.plan.Fan.Copy
	of := make(map[string]uint32)
	b.send = appendCommand(b.send, "SELECT attname, atttypid::pg_catalog.int8 FROM pg_catalog.pg_attribute WHERE attrelid = "+
		rib.QuoteLiteral(rib.QuoteIdent(say.Schema)+"."+rib.QuoteIdent(say.Name))+"::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped")
	b.send = pg.AppendSync(b.send)
	e := b.answer(func(values [][]byte, err error) *pg.Error {
		if err != nil || len(values) != 2 {
			return pg.NewError(pg.CodeProtocolViolation, "a shard has answered with other columns than it was asked for")
		}
		oid, _ := strconv.ParseUint(string(values[1]), 10, 32)
		of[string(values[0])] = uint32(oid)
		return nil
	})
	if e != nil {
		return e
	}
	for i, name := range columns {
		oid := of[name]
		face, known := oid, true
		if b.types != nil {
			if face, known = b.types.Face(oid); !known {
				if b.learn(oid); b.types != nil {
					face, known = b.types.Face(oid)
				}
			}
		}
		if !known || !s.c.cfg.Host.Carries(face) { // of a type that nobody knows clients cannot know the number either
			continue
		}
		if s.types == nil {
			s.types = make([]uint32, len(columns))
		}
		s.types[i] = face
	}
	return nil
}

// renumber is copysplit.Config's Values.
func (s *copySplit) renumber(shard int, values [][]byte) error {
	b := s.parts[shard].b
	if b.types == nil {
		return nil
	}
	for i, oid := range s.types {
		if oid == 0 || values[i] == nil {
			continue
		}
		if e := LocalValue(b.types, b.slot.Shard(), oid, values[i], 0); e != nil {
			return e
		}
	}
	return nil
}

// copied is what shards are asked before a COPY TO: whether its columns are alike where it does not name them, and, in binary format, which of them hold numbers of
// types. These are found for each shard; nil: for none.
func (c *Coordinator) copied(x *execution, shares []Share) (columns [][]oids.Column, _ *pg.Error) {
	say := x.stmt.plan.Fan.Copy
	sql, formats := say.Alike, []int16{}
	if say.Format == sqlkey.CopyBinary {
		if formats = []int16{pg.FormatBinary}; sql == "" {
			sql = "SELECT " + strings.Join(rib.QuoteIdents(say.Columns), ", ") + " FROM " + rib.QuoteIdent(say.Schema) + "." + rib.QuoteIdent(say.Name) + " LIMIT 0"
		}
	} else if sql == "" || len(shares) < 2 {
		return nil, nil
	}
	run := &execution{stmt: x.stmt, bind: noArguments}
	var list []*errand
	for i := range shares {
		b, e := c.branch(shares[i].Slot, c.writeFor(x.stmt.plan))
		if e != nil {
			return nil, e
		}
		list = append(list, &errand{b: b, send: run.appendAsk(nil, sql, nil, formats)})
	}
	if e := c.lost(c.ctx); e != nil {
		return nil, e
	}
	if e := c.errands(x, list); e != nil {
		return nil, e.WithPosition(0) // it is one of another text
	}
	for i := range list {
		if !alike(list[0].desc, list[i].desc) {
			return nil, driftBetween(shares[0].Slot, shares[i].Slot)
		}
		columns = append(columns, slices.Clone(list[i].b.columns))
	}
	return columns, nil
}

// row writes the numbers in a row of a shard's data as the session's.
func (o *copyOut) row(b *branch, tuple []byte) *pg.Error {
	if len(o.columns) == 0 || len(tuple) < 2 || int16(binary.BigEndian.Uint16(tuple)) < 0 { // what ends the data
		return nil
	}
	if b.types == nil || b.types.Row(tuple, o.columns) != nil {
		return malformed()
	}
	return nil
}
