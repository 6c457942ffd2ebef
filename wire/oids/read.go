package oids

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// maxTypes bounds the types of one database that are read.
const maxTypes = 1_000_000

// made are the types that somebody has made, but for arrays of others and for those of sessions.
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
func Sum(ctx context.Context, conn *pgx.Conn) (sum string, err error) {
	err = conn.QueryRow(ctx, sumSQL, pgx.QueryExecModeExec).Scan(&sum)
	return sum, err
}

// Read reads the types that somebody has made in the database that conn is connected to. It never returns nil without an error.
func Read(ctx context.Context, conn *pgx.Conn) ([]Type, error) {
	rows, err := conn.Query(ctx, typesSQL, pgx.QueryExecModeExec, maxTypes+1)
	if err != nil {
		return nil, err
	}
	kinds := map[string]Kind{"c": Composite, "d": Domain, "r": Range, "m": Multirange}
	list := []Type{}
	var t Type
	var kind string
	_, err = pgx.ForEachRow(rows, []any{&t.OID, &t.Array, &t.Table, &t.Of, &t.Schema, &t.Name, &kind}, func() error {
		t.Kind = kinds[kind]
		list = append(list, t)
		return nil
	})
	if err == nil && len(list) > maxTypes {
		err = fmt.Errorf("more than %d types", maxTypes)
	}
	return list, err
}
