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
	if _, err := tx.Exec(ctx, "/* rangefinder: shard=shard_1 */ SELECT item FROM orders"); err != nil {
		t.Errorf("another shard in one transaction: %v", err)
	}
	if _, err := tx.Exec(ctx, "/* rangefinder: shard=shard_1 */ UPDATE orders SET item = 'x'"); err == nil || !strings.Contains(err.Error(), "would write on several shards") {
		t.Errorf("a transaction that writes on two shards: %v", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestSetHints: SET and the startup packet say where statements run, and what is set ends as all that is SET does.
func TestSetHints(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	admin := r.connect(pgx.QueryExecModeExec)
	for i, key := range []int64{one, two, two, two} {
		if _, err := admin.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, $2)", key, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, server := range r.servers { // other sessions read copies, which may be behind
		if err := server.replica.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
	const count = "SELECT count(*) FROM orders WHERE id >= $1"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		conn := r.connect(mode)
		rows := func() (n int) {
			t.Helper()
			if err := conn.QueryRow(ctx, count, 0).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		exec := func(sql string, rowsAfter int) {
			t.Helper()
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if rowsAfter < 0 { // not to be asked
				return
			}
			if n := rows(); n != rowsAfter {
				t.Errorf("after %s: %d rows, want %d", sql, n, rowsAfter)
			}
		}
		itoa := func(n int64) string { return strconv.FormatInt(n, 10) }
		exec("SET rangefinder.key = '"+itoa(two)+"'", 3)
		exec("SET rangefinder.key = '"+itoa(one)+"'", 1)
		exec("RESET rangefinder.key", 4)
		var set string
		if err := conn.QueryRow(ctx, "SELECT set_config('rangefinder.key', $1, false)", itoa(two)).Scan(&set); err != nil || set != itoa(two) || rows() != 3 {
			t.Errorf("by set_config: %q, %v, %d rows", set, err, rows())
		}
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id IN ($1, $2)", one, two).Scan(&n); err != nil || n != 4 {
			t.Errorf("%v: keys of two shards: %d, %v", mode, n, err) // they say where it runs
		}
		exec("BEGIN", -2)
		if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('rangefinder.key', '"+itoa(one)+"', true)"); err != nil || rows() != 1 {
			t.Errorf("by set_config for the transaction: %v, %d rows", err, rows())
		}
		exec("COMMIT", 3)
		exec("RESET rangefinder.key", 4)
		exec("SET rangefinder.shard = 'shard_2'", 3)
		exec("BEGIN", -2)
		exec("UPDATE orders SET item = 'y'", 3) // the block is open on shard_2
		exec("SAVEPOINT a", 3)
		exec("SET rangefinder.shard = ''", -2)
		exec("ROLLBACK TO SAVEPOINT a", 3)
		exec("SET LOCAL rangefinder.key = '"+itoa(two)+"'", 3)
		exec("COMMIT", 3)
		var key string
		if err := conn.QueryRow(ctx, "SHOW rangefinder.key").Scan(&key); err != nil || key != "" {
			t.Errorf("SHOW after the transaction: %q, %v", key, err)
		}
		exec("BEGIN", -2)
		exec("SET rangefinder.shard = 'shard_1'", 1)
		exec("ROLLBACK", 3)
		exec("RESET ALL", 4)
		exec("BEGIN", -2)
		exec("SET LOCAL rangefinder.shard = 'shard_1'", 1)
		exec("COMMIT", 4)
		exec("SET rangefinder.shard = 'shard_2'", 3)
		if mode == pgx.QueryExecModeCacheStatement { // it keeps what DISCARD ALL takes away
			continue
		}
		exec("DISCARD ALL", -2)
		if n := rows(); n != 4 {
			t.Errorf("after DISCARD ALL: %d rows", n)
		}
	}
	connect := func(params map[string]string) (*pgx.Conn, error) {
		cfg, err := pgx.ParseConfig(r.dsn())
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range params {
			cfg.RuntimeParams[k] = v
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			t.Cleanup(func() { conn.Close(ctx) })
		}
		return conn, err
	}
	for _, params := range []map[string]string{{"options": "-c rangefinder.shard=shard_2"}, {"rangefinder.shard": "shard_2"}, {"rangefinder.key": strconv.FormatInt(two, 10)}} {
		conn, err := connect(params)
		if err != nil {
			t.Fatal(err)
		}
		for _, before := range []string{"SELECT 1", "SET rangefinder.shard = ''; ", "RESET ALL", "DISCARD ALL"} {
			if _, err := conn.Exec(ctx, before, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			if _, set := params["rangefinder.key"]; strings.HasPrefix(before, "SET") && !set {
				continue
			}
			var n int
			if err := conn.QueryRow(ctx, count, pgx.QueryExecModeExec, 0).Scan(&n); err != nil || n != 3 {
				t.Errorf("%v after %s: %d, %v", params, before, n, err)
			}
		}
	}
	for _, x := range []struct{ name, value, code, text string }{
		{"rangefinder.shard", "shard_9", "22023", "names shard shard_9"},
		{"rangefinder.key", "blue", "22P02", "rangefinder.key"},
	} {
		var e *pgconn.PgError
		if _, err := connect(map[string]string{x.name: x.value}); !errors.As(err, &e) || e.Code != x.code || !strings.Contains(e.Message, x.text) || e.Hint == "" {
			t.Errorf("%s=%s: %v", x.name, x.value, err)
		}
	}
}
