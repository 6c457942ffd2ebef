package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// tableCopy is what a shard has of a reference table.
type tableCopy struct {
	seen    bool
	columns []string // each as it is declared
	given   []string // whose defaults this server computes for itself
	rows    int64
	sum     string // of all rows, in whatever order they lie
}

// OwnDefault is SQL that is true for a column, of the row a of pg_attribute, whose default may come out otherwise on another server. t is its type's row of
// pg_type, d its row of pg_attrdef, which there need not be.
const OwnDefault = `(a.attidentity <> ''
           OR coalesce(coalesce(d.adbin, t.typdefaultbin)::text ~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|COERCEVIAIO)', false)
           OR EXISTS (SELECT FROM regexp_matches(coalesce(d.adbin, t.typdefaultbin)::text, ':(?:op)?funcid (\d+)', 'g') AS m JOIN pg_proc AS p ON p.oid = m[1]::oid WHERE p.provolatile <> 'i'))`

// columnsSQL describes a table's columns, and tells of which the default may come out otherwise on another server: identities, and what
// calls functions that are not immutable, also if it is the default of the column's domain.
const columnsSQL = `
SELECT a.attname::text,
       quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END
       || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(CASE WHEN a.attgenerated = '' THEN ' DEFAULT ' ELSE ' GENERATED ' END || pg_get_expr(d.adbin, d.adrelid), '')
       || CASE WHEN a.attidentity <> '' THEN ' IDENTITY' ELSE '' END,
       a.attgenerated = '' AND ` + OwnDefault + `
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

// look reads a copy, and keeps what it has seen for compare.
func (c *checker) look(ctx context.Context, conn *pgx.Conn, shard string, t *rib.KeyedTable) error {
	one := tableCopy{seen: true}
	rows, err := conn.Query(ctx, columnsSQL, pgx.QueryExecModeExec, t.SQL())
	if err != nil {
		return err
	}
	var name, declared string
	var own bool
	if _, err = pgx.ForEachRow(rows, []any{&name, &declared, &own}, func() error {
		if one.columns = append(one.columns, declared); own {
			one.given = append(one.given, name)
		}
		return nil
	}); err != nil {
		return err
	}
	err = conn.QueryRow(ctx, `SELECT count(*), coalesce(sum(hashtextextended("the row"::text, 0)), 0)::text FROM `+t.SQL()+` AS "the row"`, pgx.QueryExecModeExec).Scan(&one.rows, &one.sum)
	if err != nil {
		return err
	}
	number := slices.Index(c.shards, shard)
	if c.copies[number] == nil {
		c.copies[number] = make([]tableCopy, len(c.ks.Tables))
	}
	for i := range c.ks.Tables {
		if &c.ks.Tables[i] == t {
			c.copies[number][i] = one
		}
	}
	return nil
}

// compare returns what differs between the copies of the tables that every shard has, and notes the columns of these that must be given.
func (c *checker) compare() (all []Obstacle) {
	for i := range c.ks.Tables {
		if slices.ContainsFunc(c.copies, func(tables []tableCopy) bool { return tables == nil || !tables[i].seen }) {
			continue // what keeps it from being seen is an obstacle already
		}
		t := &c.ks.Tables[i]
		first := &c.copies[0][i]
		t.Columns = slices.Clone(first.given)
		for number, shard := range c.shards[1:] {
			one := &c.copies[number+1][i]
			obstacle := func(rows int64, format string, args ...any) {
				all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Rows: rows, Problem: fmt.Sprintf(format, args...)})
			}
			if !slices.Equal(one.columns, first.columns) {
				mine, its := firstDifference(one.columns, first.columns)
				obstacle(0, "it is not declared as on %s: there it has %s, here %s: make them alike, in the same order", c.shards[0], its, mine)
				continue
			}
			switch {
			case one.rows != first.rows:
				obstacle(max(one.rows, first.rows), "it has %d rows, and on %s it has %d: a reference table has the same ones everywhere; copy them first", one.rows, c.shards[0], first.rows)
			case one.sum != first.sum:
				obstacle(one.rows, "its rows differ from those on %s: a reference table has the same ones everywhere; copy them first", c.shards[0])
			}
		}
	}
	return all
}

func firstDifference(a, b []string) (inA, inB string) {
	at := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return "no more columns"
	}
	for i := 0; ; i++ {
		if inA, inB = at(a, i), at(b, i); inA != inB {
			return inA, inB
		}
	}
}
