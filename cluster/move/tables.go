package move

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// table is one table of the keyspace, as the source has it.
type table struct {
	keyed     *rib.KeyedTable
	name      string // as SQL writes it
	where     string // the rows that move
	columns   []column
	leaves    []string // tables that hold its rows, as SQL writes them: itself, or its partitions
	partition bool     // it has partitions
}

// column is one column of a table.
type column struct {
	Name      string
	Type      string // with its modifiers
	Generated bool   // computed from others by the server: never copied
	Shape     string // all that must be alike on both servers
}

// copied are the names of the columns that are copied, as SQL writes them.
func (t *table) copied() string {
	var names []string
	for _, c := range t.columns {
		if !c.Generated {
			names = append(names, rib.QuoteIdent(c.Name))
		}
	}
	return strings.Join(names, ", ")
}

// column finds a column by its name; nil if there is none.
func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].Name == name {
			return &t.columns[i]
		}
	}
	return nil
}

const columnsSQL = `
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> 0 THEN 'COLLATE ' || (SELECT l.collname FROM pg_collation AS l WHERE l.oid = a.attcollation) END,
         CASE WHEN a.attnotnull THEN 'NOT NULL' END, CASE WHEN a.attgenerated <> '' THEN 'GENERATED AS ' || pg_get_expr(d.adbin, d.adrelid) END,
         (SELECT 'ENUM (' || string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumlabel) || ')' FROM pg_enum AS e JOIN pg_type AS y ON y.oid = e.enumtypid WHERE a.atttypid IN (y.oid, y.typarray)),
         (SELECT 'DOMAIN ' || format_type(y.typbasetype, y.typtypmod) || CASE WHEN y.typnotnull THEN ' NOT NULL' ELSE '' END || coalesce((SELECT ' ' || string_agg(k.def, ' ' ORDER BY k.def)
            FROM (SELECT replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint WHERE contypid = y.oid AND contype = 'c') AS k(def)), '')
          FROM pg_type AS y WHERE y.typtype = 'd' AND a.atttypid IN (y.oid, y.typarray)))
FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname`

// leavesSQL lists the tables that hold a table's rows: itself, or its partitions, and those partitions that have some themselves and none of them yet.
const leavesSQL = `SELECT p.relid::regclass::text, c.relkind = 'p' FROM pg_partition_tree($1::regclass) AS p JOIN pg_class AS c ON c.oid = p.relid WHERE p.isleaf
UNION ALL SELECT $1::regclass::text, false WHERE NOT EXISTS (SELECT FROM pg_partition_tree($1::regclass)) ORDER BY 1`

// look reads the tables of a keyspace, of which each must be there.
func look(ctx context.Context, conn *pgx.Conn, j *Job) ([]table, error) {
	all := make([]table, len(j.Keyspace.Tables))
	var questions []question
	for i := range all {
		t := &all[i]
		t.keyed, t.name = &j.Keyspace.Tables[i], j.Keyspace.Tables[i].SQL()
		var err error
		if t.where, err = predicate(j, keyOf(t.keyed, "")); err != nil {
			return nil, err
		}
		var leaf string
		var empty bool
		args := []string{t.name}
		questions = append(questions, question{sql: columnsSQL, args: args, answer: t.readColumns}, question{sql: leavesSQL, args: args, answer: each([]any{&leaf, &empty}, func() error {
			if !empty { // a table that has no partition yet is its own leaf
				t.leaves = append(t.leaves, leaf)
			}
			return nil
		})}, question{sql: "SELECT relkind = 'p' FROM pg_class WHERE oid = $1::regclass", args: args, answer: one(&t.partition)})
	}
	if err := ask(ctx, conn, questions...); err != nil {
		return nil, err
	}
	return all, nil
}

// readColumns reads what columnsSQL tells.
func (t *table) readColumns(rows pgx.Rows) (err error) {
	t.columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	return err
}

// tables are those of the source, which do not change while the range moves.
func (l *link) look(ctx context.Context, j *Job) (all []table, err error) {
	if l.tables == nil {
		l.tables, err = look(ctx, l.source, j)
	}
	return l.tables, err
}

// window is a part of a table's blocks, as a condition on ctid; the last one has no end.
type window struct {
	leaf     string
	from, to int64 // blocks; to 0: no end
}

// condition is true for the rows of the window.
func (w window) condition() string {
	c := fmt.Sprintf("ctid >= '(%d,0)'::tid", w.from)
	if w.to > 0 {
		c += fmt.Sprintf(" AND ctid < '(%d,0)'::tid", w.to)
	}
	return c
}

// windowBlocks is how many blocks of a table are looked at in one statement: 4 MiB.
const windowBlocks = 512

// windows divides tables into parts.
func windows(ctx context.Context, conn querier, leaves []string) (all []window, err error) {
	for _, leaf := range leaves {
		var blocks int64
		err := conn.QueryRow(ctx, "SELECT pg_relation_size($1::regclass) / current_setting('block_size')::bigint", pgx.QueryExecModeExec, leaf).Scan(&blocks)
		if err != nil {
			return nil, err
		}
		for from := int64(0); from == 0 || from < blocks; from += windowBlocks {
			w := window{leaf: leaf, from: from, to: from + windowBlocks}
			if w.to >= blocks {
				w.to = 0
			}
			all = append(all, w)
		}
	}
	return all, nil
}

// difference says how two servers' columns of a table differ; "": not at all.
func difference(a, b []column) string {
	if slices.Equal(a, b) {
		return ""
	}
	shapes := func(list []column) (out []string) {
		for _, c := range list {
			out = append(out, rib.QuoteIdent(c.Name)+" "+c.Shape)
		}
		return out
	}
	only := func(list, other []string) string {
		rest := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
		if len(rest) == 0 {
			return "nothing more"
		}
		return strings.Join(rest, "; ")
	}
	x, y := shapes(a), shapes(b)
	return fmt.Sprintf("only on the source %s; only on the target %s", only(x, y), only(y, x))
}
