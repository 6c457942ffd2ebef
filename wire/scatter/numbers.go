package scatter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
)

// Numbers of types are the session's everywhere in a Coordinator. Where a branch's frames are read and written they become its server's: see package
// oids. So what the shards answer can be compared, and what is asked of a server by number alone is asked by local.

// LearnLimit bounds how long a branch, or a session, waits for the catalogs to be read anew.
const LearnLimit = 5 * time.Second

// numbers are a branch's.
type numbers struct {
	types    *oids.Map // nil: they are the session's
	of       Host
	columns  []oids.Column // of the rows that come, whose values are to be written anew
	sought   uint32        // a type that was looked for last
	declared []uint32      // of the statement that was prepared last
}

// local is a type as the branch's server numbers it.
func (b *branch) local(oid uint32) uint32 {
	if b.types == nil {
		return oid
	}
	local, ok := b.types.Local(oid)
	if !ok {
		return oids.Unknown
	}
	return local
}

// localTable is likewise of a table; 0: the server does not have it, as far as is known.
func (b *branch) localTable(oid uint32) uint32 {
	if b.types == nil {
		return oid
	}
	return b.types.LocalTable(oid)
}

// learn has the catalogs read if a type is not known. It is not asked twice for the same.
func (b *branch) learn(oid uint32) {
	if oid == 0 || oid == b.sought {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), LearnLimit)
	defer cancel()
	b.of.Learn(ctx)
	b.types, b.sought = b.of.Types(b.slot.Shard()), oid
}

// renumbers reports whether a frame of that type must be whole, because of the numbers in it.
func (b *branch) renumbers(typ byte) bool {
	switch typ {
	case pg.TypeRowDescription, pg.TypeParameterDescription, pg.TypeNoData:
		return b.types != nil
	}
	return b.types != nil && typ == pg.TypeDataRow && len(b.columns) > 0
}

// renumber writes the numbers in a frame of the server's as the session's.
func (b *branch) renumber(frame []byte) error {
	body := frame[pg.HeaderSize:]
	switch frame[0] {
	case pg.TypeRowDescription:
		b.learn(b.types.UnknownColumn(body, nil))
		if b.types != nil {
			b.columns = b.types.Columns(body, b.columns[:0])
		}
	case pg.TypeParameterDescription:
		b.learn(b.types.UnknownParam(body, nil))
		if b.types != nil {
			b.types.Params(body)
		}
	case pg.TypeNoData:
		b.columns = b.columns[:0]
	case pg.TypeDataRow:
		if len(b.columns) > 0 {
			return b.types.Row(body, b.columns)
		}
	}
	return nil
}

// renumberSent writes the numbers in what is due to the server as the server has them.
func (b *branch) renumberSent() *pg.Error {
	for rest := b.send; len(rest) >= pg.HeaderSize; {
		n := pg.Want(rest)
		if n < pg.HeaderSize || n > len(rest) {
			break
		}
		var e *pg.Error
		switch body := rest[pg.HeaderSize:n]; rest[0] {
		case pg.TypeParse:
			e = b.writeTypes(body)
		case pg.TypeBind:
			b.columns = b.columns[:0] // its rows are described anew, if they may hold numbers
			e = b.writeValues(body)
		}
		if e != nil {
			return e
		}
		rest = rest[n:]
	}
	return nil
}

// writeTypes is renumberSent for the body of a Parse.
func (b *branch) writeTypes(body []byte) *pg.Error {
	v, err := pg.DecodeParseView(body)
	if err != nil {
		return asError(err)
	}
	b.declared = b.declared[:0]
	n := v.NumOIDs()
	for i := range n {
		oid := v.OID(i)
		if b.declared = append(b.declared, oid); oid < oids.First || b.types == nil {
			continue
		}
		local, ok := b.types.Local(oid)
		if !ok {
			if b.learn(oid); b.types == nil {
				continue
			}
			if local, ok = b.types.Local(oid); !ok {
				return b.unknown(oid)
			}
		}
		binary.BigEndian.PutUint32(body[len(body)-4*(n-i):], local) // they end it
	}
	return nil
}

// writeValues is renumberSent for the body of a Bind of the statement that was prepared last.
func (b *branch) writeValues(body []byte) *pg.Error {
	if !hasMade(b.declared) || b.types == nil {
		return nil
	}
	var bind pg.Bind
	if err := bind.Decode(body); err != nil {
		return asError(err)
	}
	for i := range min(bind.NumParams(), len(b.declared)) {
		v, format, null := bind.Param(i)
		if null || format != pg.FormatBinary {
			continue
		}
		if e := LocalValue(b.types, b.slot.Shard(), b.declared[i], v, i+1); e != nil {
			return e
		}
	}
	return nil
}

// LocalValue writes the numbers in a binary value of a type, by its number for the session, as the shard has them. parameter is which one of a Bind's it is, from 1;
// 0: none. Sessions do the same.
func LocalValue(types *oids.Map, shard string, oid uint32, v []byte, parameter int) *pg.Error {
	err := types.Param(oid, v)
	var unknown *oids.UnknownError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return UnknownType(unknown.OID, shard)
	}
	text := "incorrect binary data format"
	if parameter > 0 {
		text += fmt.Sprintf(" in bind parameter %d", parameter)
	}
	return pg.NewError(pg.CodeInvalidBinaryRepresentation, text)
}

func hasMade(list []uint32) bool {
	for _, oid := range list {
		if oid >= oids.First {
			return true
		}
	}
	return false
}

func (b *branch) unknown(oid uint32) *pg.Error { return UnknownType(oid, b.slot.Shard()) }

// UnknownType is the error for a session's type that a shard does not have. Sessions say the same.
func UnknownType(oid uint32, shard string) *pg.Error {
	return pg.NewError(pg.CodeUndefinedObject, fmt.Sprintf("type with OID %d does not exist", oid)).
		WithDetail("On shard " + shard + " there is no type of the same name, as far as this node knows.").
		WithHint("Look up the type's OID anew, outside of transactions. Whether all shards have the type tells: rangefinder keyspace check.")
}

// told notes the types of a statement's parameters, as the session has been told them, as far as values must be read by them.
func (s *stmt) told(types []uint32, host Host) {
	var list []uint32
	for i, oid := range types {
		if oid < oids.First || !host.Carries(oid) || i < len(s.oids) && s.oids[i] != 0 {
			continue
		}
		if list == nil {
			list = make([]uint32, max(len(types), len(s.oids)))
			copy(list, s.oids)
			s.oids = list
		}
		list[i] = oid
	}
}
