package wire_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestReferenceReads: a table that is whole on every shard is read wherever the session is, or on the closest shard.
func TestReferenceReads(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	for _, s := range servers(t) {
		if err := s.primary.ExecIn(ctx, "app", "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')"); err != nil {
			t.Fatal(err)
		}
		if s.replica != nil {
			if err := s.replica.CaughtUp(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	two := r.keyOn("shard_2", 1)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		conn := r.connect(mode)
		one := func(sql string, want string, args ...any) {
			t.Helper()
			var got string
			if err := conn.QueryRow(ctx, sql, args...).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", sql, got, err, want)
			}
		}
		exec := func(sql string, args ...any) {
			t.Helper()
			if _, err := conn.Exec(ctx, sql, args...); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		name := "SELECT name FROM countries WHERE code = $1"
		one(name, "France", "fr")
		for _, begin := range []string{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"} {
			exec(begin)
			one(name, "France", "fr")
			exec("ROLLBACK")
			exec(begin)
			exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'de')", two)
			one(name, "Germany", "de")
			one("SELECT name FROM orders JOIN countries ON code = item WHERE customer_id = $1", "Germany", two)
			exec("ROLLBACK")
		}
		// What is read first does not bind the transaction to a shard.
		exec("BEGIN")
		one(name, "France", "fr")
		exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'de')", two)
		exec("ROLLBACK")
		one("SELECT name FROM countries WHERE code = $1 FOR UPDATE", "France", "fr")
		if mode != pgx.QueryExecModeSimpleProtocol {
			if d, err := conn.Prepare(ctx, "p"+fmt.Sprint(mode), "SELECT code, name FROM countries WHERE name = $1"); err != nil || len(d.Fields) != 2 {
				t.Errorf("described as %v, %v", d, err)
			}
		}
		var e *pgconn.PgError
		if _, err := conn.Exec(ctx, "UPDATE countries SET name = random()::text"); !errors.As(err, &e) || e.Code != "0A000" || e.Hint == "" {
			t.Errorf("a write that would differ: %v", err)
		}
	}
}
