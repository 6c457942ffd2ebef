package move

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// seen is one table on one server.
type seen struct {
	there       bool
	columns     []column
	constraints []string
	partitioned bool
	parts       []string // of one that is, the conditions of those partitions that hold rows
	refused     error    // why it could not be read; nil: it could
}

// partsSQL tells which rows each partition takes. The condition of a DEFAULT one is that none of the others do.
const partsSQL = `SELECT coalesce(pg_get_partition_constraintdef(p.relid), 'true') FROM pg_partition_tree(to_regclass($1)) AS p JOIN pg_class AS c ON c.oid = p.relid WHERE p.level > 0 AND c.relkind <> 'p' ORDER BY 1`

// constraintsSQL tells what a table's rows must be.
const constraintsSQL = `SELECT replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint WHERE conrelid = to_regclass($1) AND contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL SELECT 'UNIQUE INDEX ' || regexp_replace(pg_get_indexdef(i.indexrelid), '^.*? USING ', '') FROM pg_index AS i
	WHERE i.indrelid = to_regclass($1) AND i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u')) ORDER BY 1`

// identitySQL tells of a table and of each partition of it what replication identifies rows by.
const identitySQL = `
SELECT c.oid::regclass::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_index AS i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at) JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.n
             WHERE i.indrelid = c.oid AND i.indisvalid AND k.at <= i.indnkeyatts AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
FROM pg_class AS c WHERE c.oid = to_regclass($1) OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1)))`

const uniqueSQL = `
SELECT x.relname::text, i.indisexclusion, ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at)
       LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.n AND k.n > 0 WHERE k.at <= i.indnkeyatts)
FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid WHERE i.indrelid = to_regclass($1) AND (i.indisunique OR i.indisexclusion)`

// alwaysSQL finds triggers of others, and rules, that fire for what is replicated too.
const alwaysSQL = `
SELECT c.oid::regclass::text, g.kind, g.name::text FROM (
	SELECT 'trigger', tgname, tgrelid FROM pg_trigger AS t WHERE NOT tgisinternal AND tgenabled IN ('A', 'R')
		AND NOT EXISTS (SELECT FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace WHERE f.oid = t.tgfoid AND n.nspname = 'rangefinder')
	UNION ALL SELECT 'rule', rulename, ev_class FROM pg_rewrite WHERE ev_enabled IN ('A', 'R')) AS g(kind, name, of) JOIN pg_class AS c ON c.oid = g.of
WHERE c.oid = to_regclass($1) OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1))) ORDER BY 1, 2, 3`

// pointedSQL finds what a table's foreign keys point at.
const pointedSQL = `
SELECT f.conname::text, n.nspname::text, c.relname::text FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.confrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conrelid = to_regclass($1) AND f.conparentid = 0`

// keyColumnSQL tells what keeps a column of the key from being one of a publication's WHERE.
const keyColumnSQL = `
SELECT a.attgenerated <> '', CASE WHEN t.typtype = 'd' THEN format_type(t.oid, NULL) ELSE '' END
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass($1) AND a.attname = $2`

const pointingSQL = `
SELECT f.conname::text, n.nspname::text, c.relname::text FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid = to_regclass($1) AND f.conparentid = 0`

// incomparableSQL finds columns whose type has no equality, in tables that have no index by which rows are found: there a row is looked for by all of
// its columns.
const incomparableSQL = `
SELECT c.oid::regclass::text, a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_type AS d ON d.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_type AS b ON b.oid = CASE d.typcategory WHEN 'A' THEN d.typelem ELSE d.oid END
WHERE (c.oid = to_regclass($1) OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1)))) AND c.relkind = 'r' AND b.typtype = 'b'
AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident AND c.relreplident = 'i'))
AND NOT EXISTS (SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod WHERE o.opcdefault AND m.amname IN ('btree', 'hash')
	AND (o.opcintype = b.oid OR EXISTS (SELECT FROM pg_cast AS k WHERE k.castsource = b.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i')))`

// tables asks for each table.
func (c *checker) tables(s *side) (list []question, err error) {
	for i := range c.j.Keyspace.Tables {
		list = append(list, c.table(s, &c.j.Keyspace.Tables[i], &s.tables[i])...)
	}
	if s.name == sideTarget { // last, for it may take long
		rows, err := c.rows(s)
		if err != nil {
			return nil, err
		}
		list = append(list, rows...)
	}
	return list, nil
}

// table asks for one table. Of one that is not there nothing is answered.
func (c *checker) table(s *side, t *rib.KeyedTable, found *seen) []question {
	name, args := t.SQL(), []string{t.SQL()}
	var leaf, kind, persistence, identity, sort, trigger, index string
	var columns, unique []string
	var inherited, exclusion bool
	list := []question{
		{sql: "SELECT to_regclass($1) IS NOT NULL", args: args, answer: each([]any{&found.there}, func() error {
			if !found.there {
				s.add(name, "it does not exist: create it there first, as it is on the other shard")
			}
			return nil
		})},
		{sql: identitySQL, args: args, answer: each([]any{&leaf, &kind, &persistence, &identity, &columns}, func() error {
			missing := slices.DeleteFunc(slices.Clone(t.Columns), func(k string) bool { return slices.Contains(columns, k) })
			switch {
			case kind != "r" && kind != "p":
				s.add(leaf, "it is not a table")
			case persistence == "u":
				s.add(leaf, "it is unlogged, so its rows are not replicated: ALTER TABLE ... SET LOGGED")
			case identity == "f":
			case identity == "n", len(columns) == 0:
				s.add(leaf, "it has no replica identity, so updates of moving rows could not be replicated: give it a primary key that holds the key (%s), or ALTER TABLE ... REPLICA IDENTITY FULL", strings.Join(t.Columns, ", "))
			case len(missing) > 0:
				s.add(leaf, "its replica identity does not hold the key (%s is missing), so updates of moving rows could not be replicated: add it to the primary key, or ALTER TABLE ... REPLICA IDENTITY FULL", strings.Join(missing, ", "))
			}
			return nil
		})},
		{sql: "SELECT relkind = 'p', relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = oid) FROM pg_class WHERE oid = to_regclass($1)", args: args, answer: each([]any{&found.partitioned, &inherited}, func() error {
			if inherited { // reading it reads their rows too, which do not move
				s.add(name, "other tables inherit from it, whose rows would not move along: ALTER TABLE ... NO INHERIT for each, or make it a partitioned table")
			}
			return nil
		})},
		{sql: alwaysSQL, args: args, answer: each([]any{&leaf, &sort, &trigger}, func() error {
			s.add(leaf, "%[1]s %[2]s fires for replicated rows too (ENABLE ALWAYS or REPLICA): it would do its work again for each row that is copied here, or removed from here. Until the move is over: ALTER TABLE ... ENABLE %[3]s %[2]s, or DISABLE %[3]s",
				sort, rib.QuoteIdent(trigger), strings.ToUpper(sort))
			return nil
		})},
		{sql: uniqueSQL, args: args, answer: each([]any{&index, &exclusion, &unique}, func() error {
			if slices.ContainsFunc(t.Columns, func(k string) bool { return !slices.Contains(unique, k) }) {
				s.add(name, "unique index %s is without the key (%s): a moving row may clash with one of the target's. Add the key to it", index, strings.Join(t.Columns, ", "))
			}
			return nil
		})},
		{sql: columnsSQL, args: args, answer: func(rows pgx.Rows) (err error) {
			found.columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[column])
			return err
		}},
		{sql: constraintsSQL, args: args, answer: func(rows pgx.Rows) (err error) {
			found.constraints, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		}},
		{sql: partsSQL, args: args, answer: func(rows pgx.Rows) (err error) {
			found.parts, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		}},
	}
	if s.name == sideTarget {
		var column, kind string
		return append(list, question{sql: incomparableSQL, args: args, answer: each([]any{&leaf, &column, &kind}, func() error {
			s.add(leaf, "its rows can be told apart by all of their columns alone, and values of column %s, of type %s, cannot be compared: give it a primary key that holds the key", rib.QuoteIdent(column), kind)
			return nil
		})})
	}
	return append(list, c.around(s, t)...)
}

// around asks the source for what else does not move along with a table.
func (c *checker) around(s *side, t *rib.KeyedTable) (list []question) {
	name, args := t.SQL(), []string{t.SQL()}
	for _, k := range t.Columns {
		var generated bool
		var domain string
		list = append(list, question{sql: keyColumnSQL, args: []string{name, k}, answer: each([]any{&generated, &domain}, func() error {
			if domain != "" {
				s.add(name, "key column %s is of the domain %s, and PostgreSQL replicates no part of a table by a column of a domain: give it the type below it (ALTER TABLE ... ALTER COLUMN ... TYPE, which rewrites nothing then)", rib.QuoteIdent(k), domain)
			}
			if generated {
				s.add(name, "key column %s is a generated one, which is not replicated", rib.QuoteIdent(k))
			}
			return nil
		})})
	}
	var constraint, schema, other string
	movesAlong := func() bool {
		return slices.ContainsFunc(c.j.Keyspace.Tables, func(k rib.KeyedTable) bool { return k.Schema == schema && k.Name == other })
	}
	return append(list, question{sql: pointedSQL, args: args, answer: each([]any{&constraint, &schema, &other}, func() error {
		if !movesAlong() && (c.p.cfg.Everywhere == nil || !c.p.cfg.Everywhere(c.j.Keyspace.Database, schema, other)) {
			s.add(name, "its foreign key %s points at %s.%s, which does not move along and is no reference table: the rows would stand on %s without what they point at. Put that table into the keyspace, make it a reference table, or drop the constraint",
				constraint, rib.QuoteIdent(schema), rib.QuoteIdent(other), c.j.Move.To)
		}
		return nil
	})}, question{sql: pointingSQL, args: args, answer: each([]any{&constraint, &schema, &other}, func() error {
		if !movesAlong() {
			s.add(name, "foreign key %s of %s.%s points at it, and that table does not move along: drop the constraint, or put the table into the keyspace", constraint, rib.QuoteIdent(schema), rib.QuoteIdent(other))
		}
		return nil
	})})
}

// Bounds of a look for rows that must not be there. How many there are beyond the first does not matter, and a large table is read whole if no index
// begins with its key.
const (
	rowsCounted = 10_000
	rowsTime    = 10 * time.Second // where somebody waits, for all tables
)

// rows looks for rows of the range on the target, which cannot be told from copied ones.
func (c *checker) rows(s *side) (list []question, err error) {
	for i := range c.j.Keyspace.Tables {
		t := &c.j.Keyspace.Tables[i]
		where, err := predicate(c.j, keyOf(t, ""))
		if err != nil {
			return nil, err
		}
		var n int64
		list = append(list, question{sql: fmt.Sprintf("SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %d) AS few", t.SQL(), where, rowsCounted), answer: each([]any{&n}, func() error {
			if n > 0 {
				number := fmt.Sprint(n)
				if n == rowsCounted {
					number = "at least " + number
				}
				s.all = append(s.all, Obstacle{Shard: s.shard, Table: t.SQL(), Rows: n,
					Problem: fmt.Sprintf("%s rows of the range lie there already, and nobody knows why: delete them, or move them to %s", number, c.j.Move.From)})
			}
			return nil
		}), failed: func(refused *pgconn.PgError) error {
			if !s.hurry || refused.Code != codeCanceled {
				s.tables[i].refused = refused // perhaps for the columns that it lacks
			}
			return nil
		}})
	}
	return c.hurried(list), nil
}

// hurried bounds how long looks for rows take together, if somebody waits for the answer.
func (c *checker) hurried(list []question) []question {
	if !c.target.hurry || len(list) == 0 {
		return list
	}
	bound := question{sql: fmt.Sprintf("SET statement_timeout = %d", rowsTime.Milliseconds()/int64(len(list)))}
	return append(append([]question{bound}, list...), question{sql: "SET statement_timeout = 0"})
}

// untaken asks the source for rows of the range for which the target has no partition. Where both have the same ones there are none; and those of the method hash, whose
// conditions name the target's own table, take all rows or are told of by the copy.
func (c *checker) untaken(ctx context.Context) error {
	var list []question
	for i := range c.j.Keyspace.Tables {
		t, a, b := &c.j.Keyspace.Tables[i], &c.source.tables[i], &c.target.tables[i]
		if !a.there || !b.partitioned || slices.Equal(a.parts, b.parts) || strings.Contains(strings.Join(b.parts, " "), "satisfies_hash_partition") {
			continue
		}
		where, err := predicate(c.j, keyOf(t, ""))
		if err != nil {
			return err
		}
		taken := "false"
		if len(b.parts) > 0 {
			taken = "(" + strings.Join(b.parts, ") OR (") + ")"
		}
		var key string
		list = append(list, question{sql: fmt.Sprintf("SELECT concat_ws(', ', %s) FROM %s WHERE %s AND NOT coalesce(%s, false) LIMIT 1", strings.Join(keyOf(t, ""), ", "), t.SQL(), where, taken),
			answer: each([]any{&key}, func() error {
				c.target.add(t.SQL(), "it has no partition for rows of the range, such as one of %s %s: create the partitions there that it has on %s, or a DEFAULT one", strings.Join(t.Columns, ", "), key, c.j.Move.From)
				return nil
			}), failed: func(refused *pgconn.PgError) error {
				c.p.cfg.Logger.Warn("whether a move's target has partitions for all rows is not known", "move", c.j.Move.ID, "table", t.SQL(), "error", refused)
				return nil
			}})
	}
	if len(list) == 0 {
		return nil
	}
	return c.askOne(ctx, &c.source, func(*side) ([]question, error) { return c.hurried(list), nil })
}

// compare holds what was found on the servers against each other: rows that the source has taken the target may not take, and what the target would take later
// the source would not have.
func (c *checker) compare() (all []Obstacle, err error) {
	only := func(list, other []string) string {
		return cmp.Or(strings.Join(slices.DeleteFunc(slices.Clone(list), func(d string) bool { return slices.Contains(other, d) }), ", "), "nothing more")
	}
	for i := range c.j.Keyspace.Tables {
		a, b := &c.source.tables[i], &c.target.tables[i]
		if !a.there || !b.there {
			continue
		}
		name := c.j.Keyspace.Tables[i].SQL()
		add := func(format string, args ...any) {
			all = append(all, Obstacle{Shard: c.j.Move.To, Table: name, Problem: fmt.Sprintf(format, args...)})
		}
		if d := difference(a.columns, b.columns); d != "" {
			add("its columns differ from those on %s: %s. Make them alike", c.j.Move.From, d)
			continue
		}
		if b.refused != nil {
			return nil, fmt.Errorf("shard %s, table %s: %w", c.j.Move.To, name, b.refused)
		}
		if x, y := a.constraints, b.constraints; !slices.Equal(x, y) {
			add("its constraints differ from those on %s: only on the source %s; only on the target %s. Make them alike", c.j.Move.From, only(x, y), only(y, x))
		}
	}
	return all, nil
}
