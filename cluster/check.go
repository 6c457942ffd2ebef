package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// PrimaryFunc opens a connection to a shard's primary, in the keyspace's database. The check closes it.
type PrimaryFunc = func(ctx context.Context, shard string) (*pgx.Conn, error)

// Obstacle is one thing that keeps a keyspace from being made.
type Obstacle struct {
	Shard   string `json:"shard"`
	Table   string `json:"table,omitempty"`  // schema.name, as SQL writes it; empty: the shard as a whole
	Column  string `json:"column,omitempty"` // empty: the table as a whole
	Problem string `json:"problem"`          // with what to do about it
	Rows    int64  `json:"rows,omitempty"`   // rows that lie on the wrong shard, or on none

	missing bool // the table is not there
}

// CheckError lists every obstacle that CheckKeyspace found, in the order of shards and tables.
type CheckError struct {
	Keyspace  string
	Obstacles []Obstacle
}

// Error lists the obstacles, a line each; the same one on several shards is one line.
func (e *CheckError) Error() string {
	type problem struct{ table, text string }
	var order []problem
	shards := make(map[problem][]string)
	for _, o := range e.Obstacles {
		p := problem{o.Table, o.Problem}
		if shards[p] == nil {
			order = append(order, p)
		}
		shards[p] = append(shards[p], o.Shard)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "keyspace %s cannot be made:", e.Keyspace)
	for _, p := range order {
		fmt.Fprintf(&b, "\n- on %s", strings.Join(shards[p], ", "))
		if p.table != "" {
			fmt.Fprintf(&b, ", table %s", p.table)
		}
		fmt.Fprintf(&b, ": %s", p.text)
	}
	return b.String()
}

// Unplanned is the error without the tables that no shard has: nil if there is nothing else, else a *CheckError.
func (e *CheckError) Unplanned(shards int) error {
	missing := make(map[string]int)
	for _, o := range e.Obstacles {
		if o.missing {
			missing[o.Table]++
		}
	}
	rest := slices.DeleteFunc(slices.Clone(e.Obstacles), func(o Obstacle) bool { return o.missing && missing[o.Table] == shards })
	if len(rest) == 0 {
		return nil
	}
	return &CheckError{Keyspace: e.Keyspace, Obstacles: rest}
}

// checkAtOnce is how many shards are looked at together.
const checkAtOnce = 8

// CheckKeyspace looks at the primary of every shard of ks, before the keyspace is created, for whatever would make it wrong: tables or
// columns that are missing or of another kind or type, and rows that lie on a shard that would not own them, which PostgreSQL itself
// counts. The error is a *CheckError that lists everything found, or ctx's.
//
// It reads every row's key once. Rows that are written meanwhile are not seen.
//
// Reference tables must have the same columns and rows everywhere. Into their Columns it writes those whose defaults each server would
// compute for itself.
func CheckKeyspace(ctx context.Context, ks *rib.Keyspace, primary PrimaryFunc) error {
	method, err := rib.MethodByName(ks.Method)
	if err != nil {
		return err
	}
	c := &checker{ks: ks, method: method, shards: ks.Shards()}
	if ks.Reference() {
		c.copies = make([][]tableCopy, len(c.shards))
	}
	found := make([][]Obstacle, len(c.shards))
	room := make(chan struct{}, checkAtOnce)
	var wg sync.WaitGroup
	for i := range c.shards {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			found[i] = c.shard(ctx, i, primary)
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("check keyspace %s: %w", ks.Name, context.Cause(ctx))
	}
	all := slices.Concat(found...)
	if ks.Reference() {
		all = append(all, c.compare()...)
	}
	if len(all) > 0 {
		return &CheckError{Keyspace: ks.Name, Obstacles: all}
	}
	return nil
}

type checker struct {
	ks     *rib.Keyspace
	method rib.Method
	shards []string // sorted

	copies [][]tableCopy // of reference tables, by shard and table
}

// shard returns the obstacles on one shard.
func (c *checker) shard(ctx context.Context, number int, primary PrimaryFunc) []Obstacle {
	shard := c.shards[number]
	whole := func(format string, args ...any) []Obstacle {
		return []Obstacle{{Shard: shard, Problem: fmt.Sprintf(format, args...)}}
	}
	conn, err := primary(ctx, shard)
	if err != nil {
		return whole("its primary cannot be asked: %v", err)
	}
	defer hangUp(ctx, conn)
	// The shard may be far away, so few round trips. One snapshot for all tables. Nothing but PostgreSQL's own operators and functions,
	// and no row hidden by a policy: better an error than a count that is too low.
	results, err := conn.PgConn().Exec(ctx, beginSQL).ReadAll()
	if err != nil {
		return whole("its primary cannot be asked: %v", err)
	}
	row, err := oneRow(results, 2)
	if err != nil {
		return whole("its primary cannot be asked: %v", err)
	}
	if row[0] != "f" {
		return whole("the server that answered is a replica: only the primary knows all rows")
	}
	var all []Obstacle
	if encoding := row[1]; encoding != "UTF8" && slices.Contains(c.ks.Types, rib.TypeText) {
		all = append(all, whole("database %s is encoded in %s, and keys of type text need UTF8", c.ks.Database, encoding)...)
	}
	if c.ks.BySchema() {
		obstacles, err := c.schemas(ctx, conn, shard)
		if err != nil {
			return append(all, whole("its schemas cannot be read: %v", err)...)
		}
		return append(all, obstacles...)
	}
	for i := range c.ks.Tables {
		t := &c.ks.Tables[i]
		obstacles, err := c.table(ctx, conn, shard, t)
		all = append(all, obstacles...)
		if err == nil {
			continue
		}
		all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Problem: fmt.Sprintf("it cannot be read: %v", err)})
		// A query that failed must not end the transaction for the tables after it.
		if _, err := conn.PgConn().Exec(ctx, "ROLLBACK TO "+savepoint).ReadAll(); err != nil {
			break
		}
	}
	return all
}

const (
	savepoint = "before_table"
	beginSQL  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off; " +
		"SET LOCAL datestyle = ISO; SET LOCAL intervalstyle = postgres; SET LOCAL timezone = UTC; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; " +
		"SELECT pg_is_in_recovery(), current_setting('server_encoding'); SAVEPOINT " + savepoint
)

// oneRow finds the one row among the results of several statements.
func oneRow(results []*pgconn.Result, columns int) (row []string, err error) {
	for _, r := range results {
		for _, values := range r.Rows {
			for _, v := range values {
				row = append(row, string(v))
			}
		}
	}
	if len(row) != columns {
		return nil, fmt.Errorf("an answer of %d values instead of %d", len(row), columns)
	}
	return row, nil
}

// hangUp says goodbye and does not wait for the answer, which takes a round trip.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	if ctx.Err() == nil {
		if hijacked, err := conn.PgConn().Hijack(); err == nil {
			_ = hijacked.Conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = hijacked.Conn.Write([]byte{'X', 0, 0, 0, 4})
			_ = hijacked.Conn.Close()
			return
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = conn.Close(closing)
}

// relationSQL has a row for each key column that there is, and one if there is none.
const relationSQL = `
SELECT c.relkind::text, c.relispartition, c.relpersistence::text,
       coalesce((SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = c.oid LIMIT 1), ''),
       coalesce(a.attname::text, ''), coalesce(format_type(a.atttypid, a.atttypmod), ''), coalesce(format_type(a.atttypid, NULL), ''),
       coalesce(t.typtype::text, ''), coalesce(l.collisdeterministic, true), coalesce(l.collname::text, ''),
       coalesce(a.attgenerated <> '', false)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY($3::name[]) AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE n.nspname = $1::name AND c.relname = $2::name`

// relation is what PostgreSQL says of a table, and of those of its columns that are asked for.
type relation struct {
	kind, persistence, parent string
	partition                 bool
	columns                   map[string]column
}

type column struct {
	shown, base, kind string
	deterministic     bool
	collation         string
	generated         bool // of other columns
}

// look reads a relation in one round trip; nil if there is none of that name.
func look(ctx context.Context, conn *pgx.Conn, t *rib.KeyedTable) (*relation, error) {
	rows, err := conn.Query(ctx, relationSQL, pgx.QueryExecModeExec, t.Schema, t.Name, t.Columns)
	if err != nil {
		return nil, err
	}
	var r relation
	var name string
	var one column
	_, err = pgx.ForEachRow(rows, []any{
		&r.kind, &r.partition, &r.persistence, &r.parent, &name, &one.shown, &one.base, &one.kind, &one.deterministic, &one.collation, &one.generated,
	}, func() error {
		if r.columns == nil {
			r.columns = make(map[string]column)
		}
		r.columns[name] = one
		return nil
	})
	if err != nil || r.columns == nil {
		return nil, err
	}
	return &r, nil
}

// table returns the obstacles of one table on one shard.
func (c *checker) table(ctx context.Context, conn *pgx.Conn, shard string, t *rib.KeyedTable) ([]Obstacle, error) {
	var all []Obstacle
	obstacle := func(column, format string, args ...any) {
		all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Column: column, Problem: fmt.Sprintf(format, args...)})
	}
	r, err := look(ctx, conn, t)
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		obstacle("", "it does not exist: create it there first, alike on every shard, or say that it is planned (--planned) if no shard has it")
		all[0].missing = true
		return all, nil
	case r.partition:
		obstacle("", "it is a partition: name its parent %s instead", r.parent)
		return all, nil
	case r.kind == "r", r.kind == "p":
	default:
		obstacle("", "it is %s, not a table: only tables have keys", relationKind(r.kind))
		return all, nil
	}
	if r.persistence == "u" {
		obstacle("", "it is unlogged, so replicas have none of its rows: ALTER TABLE ... SET LOGGED")
	}
	if c.ks.Reference() {
		return all, c.look(ctx, conn, shard, t)
	}
	wrong := c.columns(r, t)
	for _, o := range wrong {
		obstacle(o.Column, "%s", o.Problem)
	}
	if len(wrong) > 0 {
		return all, nil // the rows cannot be counted by columns that are wrong
	}
	misplaced, err := c.rows(ctx, conn, shard, t)
	if err != nil {
		return all, err
	}
	return append(all, misplaced...), nil
}

func relationKind(kind string) string {
	switch kind {
	case "v":
		return "a view"
	case "m":
		return "a materialized view"
	case "f":
		return "a foreign table"
	case "S":
		return "a sequence"
	case "c":
		return "a type"
	case "i", "I":
		return "an index"
	}
	return "a relation of kind " + kind
}

// columns compares a table's key columns with the keyspace's types.
func (c *checker) columns(r *relation, t *rib.KeyedTable) (all []Obstacle) {
	for i, name := range t.Columns {
		want := c.ks.Types[i]
		col, ok := r.columns[name]
		problem := ""
		declared, err := rib.ParseType(col.base)
		switch {
		case !ok:
			problem = fmt.Sprintf("there is no column %s", rib.QuoteIdent(name))
		case col.kind == "d":
			// Not even with a cast: of a publication's WHERE, PostgreSQL refuses columns of types that are not its own.
			problem = fmt.Sprintf("column %[1]s is of the domain %[2]s: no range of the table could be moved, for PostgreSQL replicates no part of a table by a column of a domain. Make it %[3]s, "+
				"and the domain's CHECK one of the table (ALTER COLUMN ... TYPE %[3]s, which rewrites nothing if the domain is made of that)", name, col.shown, want)
		case col.generated:
			problem = fmt.Sprintf("column %s is made of other columns, and an UPDATE of these would make another key of it: make it a plain column (ALTER COLUMN ... DROP EXPRESSION)", name)
		case err != nil:
			problem = fmt.Sprintf("column %s is %s, which cannot be a key: %s can", name, col.shown, rib.TypeNames)
		case strings.HasPrefix(col.shown, "character varying("):
			// A text with blanks past the length is stored without them: the row would lie where the longer text belongs.
			problem = fmt.Sprintf("column %s is %s, which cuts trailing blanks off a key that is too long: make it varchar or text (ALTER COLUMN ... TYPE varchar rewrites nothing)", name, col.shown)
		case strings.HasPrefix(col.shown, "timestamp("):
			problem = fmt.Sprintf("column %s is %s, which rounds a key: make it timestamptz", name, col.shown)
		case declared != want:
			problem = fmt.Sprintf("column %s is %s, keyspace says %s: use --type %s", name, col.shown, want, declared)
		case !col.deterministic:
			problem = fmt.Sprintf("column %s has the nondeterministic collation %s, under which different texts are equal and would have different places: give it a deterministic one", name, col.collation)
		}
		if problem != "" {
			all = append(all, Obstacle{Column: name, Problem: problem})
		}
	}
	return all
}

// rows counts a table's rows by the shard that would own them.
func (c *checker) rows(ctx context.Context, conn *pgx.Conn, shard string, t *rib.KeyedTable) ([]Obstacle, error) {
	rows, err := conn.Query(ctx, c.rowsSQL(shard, t), pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	var owner int
	var count, elsewhere int64
	var to []string
	var all []Obstacle
	_, err = pgx.ForEachRow(rows, []any{&owner, &count}, func() error {
		switch {
		case owner == unlisted:
			all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Rows: count, Problem: fmt.Sprintf(
				"%s a value in the key that is not listed and so would belong to no shard: list it, or give a default shard", rowsHave(count))})
		case owner < 0:
			all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Rows: count, Problem: fmt.Sprintf(
				"%s NULL in the key and so would belong to no shard: give them a key, or delete them", rowsHave(count))})
		case c.shards[owner] != shard:
			elsewhere += count
			to = append(to, fmt.Sprintf("%d to %s", count, c.shards[owner]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if elsewhere > 0 {
		all = append(all, Obstacle{Shard: shard, Table: t.SQL(), Rows: elsewhere, Problem: fmt.Sprintf(
			"%d of its rows would belong to another shard (%s): move them there, or choose ranges that leave them here", elsewhere, strings.Join(to, ", "))})
	}
	return all, nil
}

func rowsHave(n int64) string {
	if n == 1 {
		return "1 row has"
	}
	return fmt.Sprintf("%d rows have", n)
}

// Rows that no shard would own.
const (
	keyless  = -1 // with NULL in the key
	unlisted = -2
)

// rowsSQL is the statement that counts the rows of each owner: the owner's index in shards, below zero for a row that has none. The
// shard's own ranges are tested first: nearly all rows stop there.
func (c *checker) rowsSQL(shard string, t *rib.KeyedTable) string {
	columns := rib.QuoteIdents(t.Columns)
	conditions := make(map[string][]string)
	for i := 0; i < len(c.ks.Ranges); {
		r := &c.ks.Ranges[i]
		next := i + 1
		for next < len(c.ks.Ranges) && c.ks.Ranges[next].Shard == r.Shard {
			next++ // neighbours of one owner are one condition
		}
		conditions[r.Shard] = append(conditions[r.Shard], c.method.Predicate(columns, c.ks.Types, r.From, c.ks.Ranges[next-1].To))
		i = next
	}
	var b strings.Builder
	b.WriteString("SELECT owner, count(*) FROM (SELECT CASE")
	when := func(i int) {
		if i < 0 || len(conditions[c.shards[i]]) == 0 {
			return // a shard that is looked at and would own nothing
		}
		fmt.Fprintf(&b, " WHEN %s THEN %d", strings.Join(conditions[c.shards[i]], " OR "), i)
	}
	own := slices.Index(c.shards, shard)
	when(own)
	for i := range c.shards {
		if i != own {
			when(i)
		}
	}
	for _, name := range columns {
		fmt.Fprintf(&b, " WHEN %s IS NULL THEN %d", name, keyless)
	}
	fmt.Fprintf(&b, " ELSE %d END AS owner FROM %s) AS keyed GROUP BY owner ORDER BY owner", unlisted, t.SQL())
	return b.String()
}
