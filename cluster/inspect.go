package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// Finding is one thing that is, or may be, wrong with a keyspace as its shards have it.
type Finding struct {
	Severity string   `json:"severity"` // SeverityError or SeverityWarning
	Shards   []string `json:"shards"`   // that have it, sorted
	Table    string   `json:"table,omitempty"`
	Problem  string   `json:"problem"`
	Fix      string   `json:"fix"` // the way out
}

// The severities. An error gives wrong answers, or refuses statements; a warning may be meant.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Inspect asks the primary of every shard of a keyspace about its tables: unique constraints without the key, foreign keys that leave it,
// columns that count by themselves, triggers, rules and functions that reach them, what differs between the shards, rows that lie wrong, and whether transactions can be prepared. The
// findings are sorted, errors first. It reads every row's key once.
func Inspect(ctx context.Context, o *rib.Ownership, ks *rib.Keyspace, primary PrimaryFunc) ([]Finding, error) {
	in := inspect(ctx, o, ks, primary)
	with := *ks
	with.Tables = slices.Clone(ks.Tables) // the check may write into them
	var wrong *CheckError
	switch err := CheckKeyspace(ctx, &with, primary); {
	case errors.As(err, &wrong):
		for _, b := range wrong.Obstacles {
			if in.away[b.Shard] { // that is said already
				continue
			}
			in.add(b.Shard, problem{SeverityError, b.Table, b.Problem, "Nothing routed finds such rows or tables: mend it on the shard itself."})
		}
	case err != nil:
		return nil, err
	}
	for i := range with.Tables {
		if was, now := ks.Tables[i].Columns, with.Tables[i].Columns; wrong == nil && ks.Reference() && !slices.Equal(was, now) {
			in.add(in.shards[0], problem{SeverityError, ks.Tables[i].SQL(), fmt.Sprintf("the columns whose defaults each server computes for itself are %s, and were %s when the keyspace was made: a write may come out differently on each shard",
				orNone(now), orNone(was)), "Give these columns constant defaults."})
		}
	}
	in.drift()
	in.objectDrift()
	in.counting()
	return in.sorted(), nil
}

// InspectTables is Inspect without what CheckKeyspace finds: no row is read.
func InspectTables(ctx context.Context, o *rib.Ownership, ks *rib.Keyspace, primary PrimaryFunc) []Finding {
	in := inspect(ctx, o, ks, primary)
	in.drift()
	in.objectDrift()
	in.counting()
	return in.sorted()
}

// inspect looks at all shards.
func inspect(ctx context.Context, o *rib.Ownership, ks *rib.Keyspace, primary PrimaryFunc) *inspector {
	in := &inspector{o: o, ks: ks, shards: ks.Shards(), found: make(map[problem][]string), away: make(map[string]bool), seen: make([][]tableShape, len(ks.Shards())), has: make([]map[object]string, len(ks.Shards()))}
	room := make(chan struct{}, checkAtOnce)
	var wg sync.WaitGroup
	for i := range in.shards {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			in.shard(ctx, i, primary)
		})
	}
	wg.Wait()
	return in
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// problem is a finding without its shards.
type problem struct{ severity, table, text, fix string }

type inspector struct {
	// constant
	o      *rib.Ownership
	ks     *rib.Keyspace
	shards []string

	// by shard, each written by one goroutine
	seen [][]tableShape
	has  []map[object]string // nil: it could not be asked

	// guarded by mu
	mu    sync.Mutex
	found map[problem][]string // the shards that have it
	away  map[string]bool      // shards that could not be asked
}

// tableShape is what a table looks like on one shard.
type tableShape struct {
	there   bool
	columns []string // as they are declared
	indexes []string // definitions, sorted
	checks  []string // other constraints, sorted
	counts  []string // columns that count by themselves
}

func (in *inspector) add(shard string, f problem) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !slices.Contains(in.found[f], shard) {
		in.found[f] = append(in.found[f], shard)
	}
}

func (in *inspector) sorted() []Finding {
	list := make([]Finding, 0, len(in.found))
	for f, shards := range in.found {
		slices.Sort(shards)
		list = append(list, Finding{f.severity, shards, f.table, f.text, f.fix})
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return strings.Compare(a.Severity+"\x00"+a.Table+"\x00"+a.Problem, b.Severity+"\x00"+b.Table+"\x00"+b.Problem)
	})
	return list
}

// shard looks at one shard.
func (in *inspector) shard(ctx context.Context, number int, primary PrimaryFunc) {
	shard := in.shards[number]
	failed := func(err error) {
		in.add(shard, problem{SeverityError, "", fmt.Sprintf("its primary cannot be asked: %v", err), "See rangefinder status for the shard's backends."})
		in.mu.Lock()
		defer in.mu.Unlock()
		in.away[shard] = true
	}
	in.seen[number] = make([]tableShape, len(in.ks.Tables))
	conn, err := primary(ctx, shard)
	if err != nil {
		failed(err)
		return
	}
	defer hangUp(ctx, conn)
	if _, err := conn.PgConn().Exec(ctx, beginSQL).ReadAll(); err != nil {
		failed(err)
		return
	}
	if err := in.server(ctx, conn, shard); err != nil {
		failed(err)
		return
	}
	for i := range in.ks.Tables {
		if err := in.table(ctx, conn, shard, &in.ks.Tables[i], &in.seen[number][i]); err != nil {
			failed(err)
			return
		}
	}
	if in.has[number], err = in.objects(ctx, conn); err != nil {
		failed(err)
	}
}

// server looks at a server's settings.
func (in *inspector) server(ctx context.Context, conn *pgx.Conn, shard string) error {
	var prepared, connections int
	err := conn.QueryRow(ctx, "SELECT current_setting('max_prepared_transactions')::int, current_setting('max_connections')::int", pgx.QueryExecModeExec).Scan(&prepared, &connections)
	const fix = "Set max_prepared_transactions to at least max_connections in postgresql.conf, and restart the server."
	switch {
	case err != nil:
		return err
	case len(in.shards) == 1:
	case prepared == 0:
		in.add(shard, problem{SeverityError, "", "max_prepared_transactions is 0: no transaction over several shards can commit there", fix})
	case prepared < connections:
		in.add(shard, problem{SeverityWarning, "", fmt.Sprintf("max_prepared_transactions is %d, less than max_connections, %d: transactions over several shards may find none left", prepared, connections), fix})
	}
	return nil
}

// indexesSQL lists a table's indexes. Of an expression the column has no name.
const indexesSQL = `
SELECT c.relname::text, i.indisunique, i.indisprimary, pg_get_indexdef(i.indexrelid),
       ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at) LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.n AND k.n > 0
             WHERE k.at <= i.indnkeyatts ORDER BY k.at)
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = $1::regclass AND i.indisvalid ORDER BY 4`

// foreignSQL lists a table's foreign keys, those that point at it, and its other constraints.
const foreignSQL = `
SELECT f.conname::text, f.contype::text, f.conrelid <> $1::regclass, pg_get_constraintdef(f.oid), n.nspname::text, c.relname::text,
       ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k(n, at) JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.n ORDER BY k.at),
       ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k(n, at) JOIN pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.n ORDER BY k.at)
FROM pg_constraint AS f LEFT JOIN pg_class AS c ON c.oid = CASE WHEN f.conrelid = $1::regclass THEN f.confrelid ELSE f.conrelid END LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE (f.conrelid = $1::regclass AND f.contype IN ('f', 'c', 'x') OR f.confrelid = $1::regclass AND f.contype = 'f') AND f.conparentid = 0 ORDER BY 1`

// table looks at one table on one shard.
func (in *inspector) table(ctx context.Context, conn *pgx.Conn, shard string, t *rib.KeyedTable, shape *tableShape) error {
	name := t.SQL()
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, name).Scan(&shape.there); err != nil || !shape.there {
		return err // that it is not there the check says
	}
	add := func(severity, fix, format string, args ...any) {
		in.add(shard, problem{severity, name, fmt.Sprintf(format, args...), fix})
	}
	rows, err := conn.Query(ctx, columnsSQL, pgx.QueryExecModeExec, name)
	if err != nil {
		return err
	}
	var column, declared string
	var own bool
	if _, err := pgx.ForEachRow(rows, []any{&column, &declared, &own}, func() error {
		shape.columns = append(shape.columns, declared)
		if strings.HasSuffix(declared, " IDENTITY") || strings.Contains(declared, "nextval(") {
			shape.counts = append(shape.counts, column)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := in.indexes(ctx, conn, t, shape, add); err != nil {
		return err
	}
	if err := in.foreignKeys(ctx, conn, t, shape, add); err != nil {
		return err
	}
	return in.code(ctx, conn, t, add)
}

type adder = func(severity, fix, format string, args ...any)

// indexes looks for what is unique on each shard alone.
func (in *inspector) indexes(ctx context.Context, conn *pgx.Conn, t *rib.KeyedTable, shape *tableShape, add adder) error {
	rows, err := conn.Query(ctx, indexesSQL, pgx.QueryExecModeExec, t.SQL())
	if err != nil {
		return err
	}
	var name, definition string
	var unique, primary bool
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&name, &unique, &primary, &definition, &columns}, func() error {
		shape.indexes = append(shape.indexes, definition)
		if !unique || in.ks.Reference() {
			return nil
		}
		missing := slices.DeleteFunc(slices.Clone(t.Columns), func(c string) bool { return slices.Contains(columns, c) })
		if len(missing) > 0 {
			what := "unique index"
			if primary {
				what = "primary key"
			}
			add(SeverityError, fmt.Sprintf("Add %s to it. If the values are unique by themselves (uuids, rangefinder.unique_id()), it keeps that on each shard and cannot be relied on beyond.", strings.Join(missing, ", ")),
				"%s %s is without the key, %s: each shard alone keeps it, so two shards may have the same", what, name, strings.Join(missing, ", "))
		}
		return nil
	})
	slices.Sort(shape.indexes)
	return err
}

// foreignKeys looks for those that point at rows which may be on another shard.
func (in *inspector) foreignKeys(ctx context.Context, conn *pgx.Conn, t *rib.KeyedTable, shape *tableShape, add adder) error {
	rows, err := conn.Query(ctx, foreignSQL, pgx.QueryExecModeExec, t.SQL())
	if err != nil {
		return err
	}
	var name, kind, definition string
	var schema, other *string
	var incoming bool
	var from, to []string
	_, err = pgx.ForEachRow(rows, []any{&name, &kind, &incoming, &definition, &schema, &other, &from, &to}, func() error {
		if !incoming {
			shape.checks = append(shape.checks, name+" "+definition)
		}
		if kind != "f" || schema == nil || other == nil {
			return nil
		}
		o := rib.KeyedTable{Schema: *schema, Name: *other}
		ks, far := in.find(o.Schema, o.Name)
		what := fmt.Sprintf("foreign key %s to %s", name, o.SQL())
		if incoming {
			what = fmt.Sprintf("foreign key %s of %s to it", name, o.SQL())
		}
		switch {
		case ks != nil && ks.ID == in.ks.ID && (ks.Reference() || !incoming && keyed(from, to, t.Columns, far.Columns)):
		case incoming && ks != nil: // told of the table that has it
		case ks != nil && ks.Reference() && !incoming:
			for _, s := range in.shards {
				if !slices.Contains(ks.Shards(), s) {
					add(SeverityError, "Make the reference table's keyspace over that shard too.", "%s: shard %s has no copy of that reference table", what, s)
				}
			}
		case in.ks.Reference() && !incoming:
			add(SeverityError, "Drop it, or make the other table a reference table.", "%s leaves the reference tables: not every shard has the rows that it points at", what)
		case ks == nil && incoming && in.ks.Reference(): // of an unsharded table, on the shard that has it
		case ks == nil:
			add(SeverityError, "Drop it, give the other table the key and put it into the keyspace (rangefinder keyspace create --table), or make it a reference table.",
				"%s leaves the keyspace: the other table has no key, so the row may be on another shard", what)
		default:
			add(SeverityError, fmt.Sprintf("Drop it, or have it hold the key on both sides, %s: then both rows are on one shard.", strings.Join(t.Columns, ", ")),
				"%s does not hold the key, so the row that it points at may be on another shard", what)
		}
		return nil
	})
	slices.Sort(shape.checks)
	return err
}

// keyed tells whether a foreign key has each key column point at that of the other table.
func keyed(from, to, key, otherKey []string) bool {
	if len(key) != len(otherKey) {
		return false
	}
	for i, c := range key {
		at := slices.Index(from, c)
		if at < 0 || at >= len(to) || to[at] != otherKey[i] {
			return false
		}
	}
	return true
}

// find finds the keyspace of a table.
func (in *inspector) find(schema, name string) (*rib.Keyspace, *rib.KeyedTable) {
	for i := range in.o.Keyspaces {
		k := &in.o.Keyspaces[i]
		for j := range k.Tables {
			if t := &k.Tables[j]; k.Database == in.ks.Database && t.Schema == schema && t.Name == name {
				return k, t
			}
		}
	}
	return nil, nil
}

// drift compares the shards with the first one that could be asked.
func (in *inspector) drift() {
	for i := range in.ks.Tables {
		name, first := in.ks.Tables[i].SQL(), -1
		for number, shard := range in.shards {
			if i >= len(in.seen[number]) || !in.seen[number][i].there {
				continue
			}
			if first < 0 {
				first = number
				continue
			}
			a, b := &in.seen[first][i], &in.seen[number][i]
			compare := func(severity, what string, a, b []string) {
				if slices.Equal(a, b) {
					return
				}
				only := func(list, other []string) string {
					rest := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
					if len(rest) == 0 {
						return "nothing more"
					}
					return strings.Join(rest, "; ")
				}
				text := fmt.Sprintf("%s differ from those on %s: only here %s; only there %s", what, in.shards[first], only(b, a), only(a, b))
				if only(a, b) == only(b, a) {
					text = fmt.Sprintf("%s stand in another order than on %s: SELECT * and INSERT without a list of columns mean something else", what, in.shards[first])
				}
				in.add(shard, problem{severity, name, text, "Make the shards alike."})
			}
			compare(SeverityError, "its columns", a.columns, b.columns)
			compare(SeverityWarning, "its indexes", a.indexes, b.indexes)
			compare(SeverityError, "its constraints", a.checks, b.checks)
		}
	}
}
