package oids

import (
	"context"
	"fmt"
)

// Rows are the answer of a server.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// Query asks a server.
type Query func(ctx context.Context, sql string, args ...any) (Rows, error)

// maxTypes bounds the types of one database that are read.
const maxTypes = 1_000_000

// madeTypes are the types that somebody has made, but for arrays of others and for those of sessions.
const madeTypes = `
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
     LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
     LEFT JOIN pg_catalog.pg_range m ON m.rngmultitypid = t.oid
     LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid AND c.relkind <> 'c'
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(temp|toast)' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)`

const typeColumns = `t.oid, t.typarray, coalesce(c.oid, 0), CASE t.typtype WHEN 'd' THEN t.typbasetype WHEN 'r' THEN r.rngsubtype WHEN 'm' THEN m.rngtypid ELSE 0 END,
n.nspname::text, t.typname::text, t.typtype::text`

const typesSQL = "SELECT " + typeColumns + madeTypes + " LIMIT $1"

// sumSQL sums up what typesSQL would tell.
const sumSQL = "SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', " + typeColumns + "), 0)))" + madeTypes

// Sum is a text that is another one when the types of a server are others.
func Sum(ctx context.Context, ask Query) (sum string, err error) {
	err = each(ctx, ask, sumSQL, nil, []any{&sum}, func() {})
	return sum, err
}

// Read reads the types that somebody has made in the database that is asked. It never returns nil without an error.
func Read(ctx context.Context, ask Query) ([]Type, error) {
	kinds := map[string]Kind{"c": Composite, "d": Domain, "r": Range, "m": Multirange}
	list := []Type{}
	var t Type
	var kind string
	err := each(ctx, ask, typesSQL, []any{maxTypes + 1}, []any{&t.OID, &t.Array, &t.Table, &t.Of, &t.Schema, &t.Name, &kind}, func() {
		t.Kind = kinds[kind]
		list = append(list, t)
	})
	if err == nil && len(list) > maxTypes {
		err = fmt.Errorf("more than %d types", maxTypes)
	}
	return list, err
}

// each calls do with each row, scanned into to.
func each(ctx context.Context, ask Query, sql string, args, to []any, do func()) error {
	rows, err := ask(ctx, sql, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		do()
	}
	return rows.Err()
}
