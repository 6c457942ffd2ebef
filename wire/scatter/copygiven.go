package scatter

import (
	"encoding/binary"
	"fmt"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// A COPY FROM STDIN may leave columns to rangefinder.unique_id(), which the node carries out: the shards get a COPY that names these too, and rows with
// a number for each.

// text is what the shards are asked.
func (s *copySplit) text() string {
	if sql := s.plan.Fan.SQL; sql != "" {
		return sql
	}
	return s.x.stmt.sql
}

// given is how many columns the shards' rows have more than the session's.
func (s *copySplit) given() int { return len(s.plan.Fan.Copy.Given) }

// asked passes on that data are asked for, of as many columns as the session has.
func (s *copySplit) asked(b *branch, size int) *pg.Error {
	f, err := b.frame(size)
	if err != nil {
		return b.lost(err)
	}
	const before = pg.HeaderSize + 1 // the format
	if len(f) < before+2 {
		return b.lost(fmt.Errorf("a CopyInResponse of %d bytes", len(f)))
	}
	count := int(binary.BigEndian.Uint16(f[before:])) - s.given()
	if count < 0 || len(f) < before+2+2*count {
		return b.lost(fmt.Errorf("a CopyInResponse of %d bytes", len(f)))
	}
	body := append([]byte(nil), f[pg.HeaderSize:before+2+2*count]...)
	binary.BigEndian.PutUint16(body[1:], uint16(count))
	s.c.out = pg.AppendFrame(s.c.out, pg.TypeCopyInResponse, body)
	return nil
}

// bigints makes sure that what is given in binary format are columns of that type.
func (s *copySplit) bigints(b *branch) *pg.Error {
	say := s.plan.Fan.Copy
	if len(say.Given) == 0 || say.Format != sqlkey.CopyBinary {
		return nil
	}
	names := ""
	for i, name := range say.Given {
		if i > 0 {
			names += ", "
		}
		names += rib.QuoteLiteral(name)
	}
	table := rib.QuoteLiteral(rib.QuoteIdent(say.Schema) + "." + rib.QuoteIdent(say.Name))
	row, e := s.c.ask(b, &execution{stmt: &stmt{}, bind: noArguments}, "SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute WHERE attrelid = "+table+
		"::pg_catalog.regclass AND attname IN ("+names+") AND atttypid = 'pg_catalog.int8'::pg_catalog.regtype AND NOT attisdropped")
	if e == nil && (len(row) != 1 || row[0] != fmt.Sprint(len(say.Given))) {
		e = pg.NewError(pg.CodeFeatureNotSupported, "COPY in binary format cannot leave a column to rangefinder.unique_id() that is no bigint").
			WithHint("Add the column to COPY's list of columns, and to the data.")
	}
	return e
}
