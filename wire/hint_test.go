package wire_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestHints: a comment says where a statement runs, in both protocols, and is held against the statement's own key.
func TestHints(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeCacheStatement)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	itoa := func(n int64) string { return strconv.FormatInt(n, 10) }
	if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", one); err != nil {
		t.Fatal(err)
	}
	for id := range 3 {
		if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, $2)", two, id); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		for hint, want := range map[string]int{"shard=shard_1": 1, "shard=shard_2": 3, "key=" + itoa(one): 1, "key=" + itoa(two): 3} {
			var n int
			if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE id >= $1 /* rangefinder: "+hint+" */", mode, 0).Scan(&n); err != nil || n != want {
				t.Errorf("%s: %d rows, %v; want %d", hint, n, err, want)
			}
		}
		for _, x := range []struct {
			sql        string
			key        int64
			code, text string
		}{
			{"/* rangefinder: shard=shard_1 */ SELECT * FROM orders WHERE customer_id = $1", two, "22023", "contradicts its key"},
			{"/* rangefinder: key=" + itoa(one) + " */ SELECT * FROM orders WHERE customer_id = $1", two, "", "rangefinder: key="},
			{"/* rangefinder: shard=shard_9 */ SELECT count(*) FROM orders WHERE id = $1", 1, "22023", "names shard shard_9, which is not known"},
		} {
			_, err := conn.Exec(ctx, x.sql, mode, x.key)
			var e *pgconn.PgError
			if !errors.As(err, &e) || x.code != "" && (e.Code != x.code || !strings.Contains(e.Message, x.text)) || e.Hint == "" {
				t.Errorf("%s: %v", x.sql, err)
			}
		}
		if _, err := conn.Exec(ctx, "/* rangefinder: shard=shard_2 */ SELECT * FROM orders WHERE customer_id = $1", mode, two); err != nil {
			t.Errorf("a hint that agrees: %v", err)
		}
	}
	if _, err := conn.Exec(ctx, "PREPARE held(bigint) AS SELECT * FROM orders WHERE customer_id = $1", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	execute := "EXECUTE held(" + itoa(two) + ")"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		var e *pgconn.PgError
		if _, err := conn.Exec(ctx, "/* rangefinder: shard=shard_1 */ "+execute, mode); !errors.As(err, &e) || e.Code != "22023" {
			t.Errorf("EXECUTE on another shard than the hint says: %v", err)
		}
		if tag, err := conn.Exec(ctx, "/* rangefinder: shard=shard_2 */ "+execute, mode); err != nil || tag.RowsAffected() != 3 {
			t.Errorf("EXECUTE with a hint that agrees: %v, %v", tag, err)
		}
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "/* rangefinder: shard=shard_2 */ UPDATE orders SET item = 'x'"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "/* rangefinder: shard=shard_1 */ UPDATE orders SET item = 'x'"); err == nil || !strings.Contains(err.Error(), "open on shard_2") {
		t.Errorf("another shard in one transaction: %v", err)
	}
	_ = tx.Rollback(ctx)
}
