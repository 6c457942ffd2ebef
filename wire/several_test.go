package wire_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

var queryModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// wantCode fails the test unless err has that SQLSTATE.
func wantCode(t *testing.T, err error, code string) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("%v, want SQLSTATE %s", err, code)
	}
	return e
}

// A transaction that is open on one shard reaches another one, sees what it has written on each, and writes on one.
func TestTransactionReachesAnotherShard(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		r := newRig(t, rigOptions{buffered: buffered})
		one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
		for _, mode := range queryModes {
			t.Run(fmt.Sprintf("%v buffered=%v", mode, buffered), func(t *testing.T) {
				ctx := ctxOf(t)
				conn := r.connect(mode)
				exec := func(sql string, args ...any) {
					t.Helper()
					if _, err := conn.Exec(ctx, sql, args...); err != nil {
						t.Fatalf("%s: %v", sql, err)
					}
				}
				count := func(customer int64) (n int) {
					t.Helper()
					if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", customer).Scan(&n); err != nil {
						t.Fatal(err)
					}
					return n
				}
				exec("DELETE FROM orders WHERE customer_id = $1", one)
				exec("DELETE FROM orders WHERE customer_id = $1", two)
				exec("BEGIN")
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a')", one)
				if n := count(two); n != 0 {
					t.Fatalf("%d rows on shard_2", n)
				}
				if n := count(one); n != 1 {
					t.Fatalf("%d rows on shard_1", n)
				}
				exec("SAVEPOINT s")
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 2, 'b')", one)
				exec("ROLLBACK TO SAVEPOINT s")
				exec("COMMIT")
				if n := count(one); n != 1 {
					t.Fatalf("%d rows after the commit", n)
				}
				r.busy(t, 0)

				// Two shards that wrote need two-phase commit.
				exec("BEGIN")
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'c')", one)
				_, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'c')", two)
				if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Hint == "" {
					t.Error("no hint")
				}
				exec("COMMIT") // a rollback
				if n := count(one) + count(two); n != 1 {
					t.Fatalf("%d rows after a statement that was refused", n)
				}

				// An error fails all of it.
				exec("BEGIN")
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 4, 'd')", one)
				_, err = conn.Exec(ctx, "SELECT 1/(id - id) FROM orders WHERE customer_id = $1 UNION ALL SELECT 1/0", two)
				wantCode(t, err, "22012")
				_, err = conn.Exec(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", one)
				wantCode(t, err, pg.CodeInFailedTransaction)
				exec("ROLLBACK")
				if n := count(one); n != 1 {
					t.Fatalf("%d rows after a rollback", n)
				}
				r.busy(t, 0)
			})
		}
	}
}

// Reads without a key, in every query mode, as they come, in order, and gathered; in a transaction and outside.
func TestReadsOfSeveralShards(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		r := newRig(t, rigOptions{buffered: buffered})
		one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
		for _, mode := range queryModes {
			t.Run(fmt.Sprintf("%v buffered=%v", mode, buffered), func(t *testing.T) {
				ctx := ctxOf(t)
				conn := r.connect(mode)
				for _, customer := range []int64{one, two} {
					for _, sql := range []string{"DELETE FROM orders WHERE customer_id = $1", "INSERT INTO orders (customer_id, id, item) SELECT $1, i, 'item' || i % 3 FROM generate_series(1, 500) i"} {
						if _, err := conn.Exec(ctx, sql, customer); err != nil {
							t.Fatal(err)
						}
					}
				}
				check := func() {
					t.Helper()
					rows, err := conn.Query(ctx, "SELECT customer_id, id, item FROM orders WHERE id > $1", 100)
					if err != nil {
						t.Fatal(err)
					}
					type row struct {
						Customer, ID int64
						Item         string
					}
					all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
					if err != nil || len(all) != 800 {
						t.Fatalf("%d rows, %v", len(all), err)
					}
					rows, err = conn.Query(ctx, "SELECT customer_id, id, item FROM orders ORDER BY id DESC, customer_id LIMIT $1 OFFSET $2", 7, 3)
					if err != nil {
						t.Fatal(err)
					}
					all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
					if err != nil || len(all) != 7 || all[0].ID != 499 || all[0].Customer != max(one, two) || all[6].ID != 496 {
						t.Fatalf("%v, %v", all, err)
					}
					rows, err = conn.Query(ctx, "SELECT item, count(*), max(id), avg(id)::float8 FROM orders WHERE id <= $1 GROUP BY item ORDER BY item", 300)
					if err != nil {
						t.Fatal(err)
					}
					type group struct {
						Item    string
						N, Max  int64
						Average float64
					}
					groups, err := pgx.CollectRows(rows, pgx.RowToStructByPos[group])
					if err != nil || fmt.Sprint(groups) != "[{item0 200 300 151.5} {item1 200 298 149.5} {item2 200 299 150.5}]" {
						t.Fatalf("%v, %v", groups, err)
					}
				}
				check()
				r.busy(t, 0)
				tx, err := conn.Begin(ctx)
				if err != nil {
					t.Fatal(err)
				}
				check()
				if _, err := tx.Exec(ctx, "UPDATE orders SET item = 'other' WHERE customer_id = $1", one); err != nil {
					t.Fatal(err)
				}
				var n int
				if err := tx.QueryRow(ctx, "SELECT count(*) FROM orders WHERE item = 'other'").Scan(&n); err != nil || n != 500 {
					t.Fatalf("%d rows of the transaction's own are seen, %v", n, err)
				}
				if err := tx.Rollback(ctx); err != nil {
					t.Fatal(err)
				}
				check()
				if _, err := conn.Exec(ctx, "SELECT 1/(id - 250) FROM orders"); err == nil {
					t.Error("no error")
				} else {
					wantCode(t, err, "22012")
				}
				check()
				r.busy(t, 0)
			})
		}
	}
}

// Several statements in one text are one transaction, also over several shards.
func TestSeveralStatementsOverShards(t *testing.T) {
	r := newRig(t, rigOptions{})
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	text := func(format string) string { return fmt.Sprintf(format, one, two) }
	results, err := conn.PgConn().Exec(ctx, text("INSERT INTO orders (customer_id, id) VALUES (%d, 1); SELECT count(*) FROM orders WHERE customer_id = %d; SELECT count(*) FROM orders; INSERT INTO notes VALUES (1, 'x')")).ReadAll()
	if err != nil || len(results) != 4 || results[0].CommandTag.String() != "INSERT 0 1" || string(results[2].Rows[0][0]) != "1" || results[3].CommandTag.String() != "INSERT 0 1" {
		t.Fatalf("%v, %v", results, err)
	}
	_, err = conn.Exec(ctx, text("BEGIN; INSERT INTO orders (customer_id, id) VALUES (%d, 2); SELECT 1/count(*) - 1/0 FROM orders WHERE customer_id = %d; COMMIT"))
	wantCode(t, err, "22012")
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(ctx, text("INSERT INTO orders (customer_id, id) VALUES (%d, 3); INSERT INTO orders (customer_id, id) VALUES (%d, 3)"))
	wantCode(t, err, pg.CodeFeatureNotSupported)
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n); err != nil || n != 1 {
		t.Fatalf("%d rows, %v", n, err)
	}
	r.busy(t, 0)
}

// What has to be kept of the rows is bounded, and scatter = forbid lets nothing run on several shards. Counted is what ran.
func TestBoundsOfSeveralShards(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeExec)
	for _, shard := range []string{"shard_1", "shard_2"} {
		if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) SELECT $1, i, repeat('x', 1000) FROM generate_series(1, 1000) i", r.keyOn(shard, 1)); err != nil {
			t.Fatal(err)
		}
	}
	const gathered = "SELECT item FROM orders ORDER BY item || id"
	count := func(sql string) (n int, _ error) {
		rows, err := conn.Query(ctx, sql)
		if err != nil {
			return 0, err
		}
		for rows.Next() {
			n++
		}
		return n, rows.Err()
	}
	if n, err := count(gathered); err != nil || n != 2000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	r.live.QueryMemory = 1 << 20
	r.server.Reload(r.live)
	_, err := count(gathered)
	if e := wantCode(t, err, pg.CodeOutOfMemory); e.Hint == "" || e.Detail == "" {
		t.Errorf("%+v", e)
	}
	if n, err := count("SELECT item FROM orders"); err != nil || n != 2000 { // that is not kept
		t.Errorf("%d rows as they come, %v", n, err)
	}
	r.live.QueryMemory, r.live.ScatterMemory = 0, 1<<20
	r.server.Reload(r.live)
	_, err = count(gathered)
	wantCode(t, err, pg.CodeOutOfMemory)
	r.live.ScatterMemory = 0
	r.live.Scatter = map[string]wire.Scatter{"app": wire.ScatterForbid}
	r.server.Reload(r.live)
	_, err = count(gathered)
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Hint == "" {
		t.Errorf("%+v", e)
	}
	if _, err := conn.Exec(ctx, "SET rangefinder.scatter = 'warn'"); err != nil {
		t.Fatal(err)
	}
	if n, err := count(gathered); err != nil || n != 2000 {
		t.Errorf("%d rows, %v", n, err)
	}
	r.counts.mu.Lock()
	defer r.counts.mu.Unlock()
	if n := r.counts.scatter["2"]; n != 5 {
		t.Errorf("%d statements on two shards were counted", n)
	}
	r.busy(t, 0)
}

// A cancel request reaches all shards, and the session goes on. When the client goes, nothing is left at work.
func TestCancelOverShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeExec)
	for _, shard := range []string{"shard_1", "shard_2"} {
		if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", r.keyOn(shard, 1)); err != nil {
			t.Fatal(err)
		}
	}
	const slow = "SELECT id FROM orders WHERE (SELECT true FROM pg_sleep(600)) IS NOT NULL"
	sleeping := func(server *pgtest.Server, what string) (n int) {
		t.Helper()
		c, err := server.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if err := c.QueryRow(ctx, "SELECT count("+what+") FROM pg_stat_activity WHERE (query LIKE '%pg_sleep(600)%') AND state = 'active' AND pid <> pg_backend_pid()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	total := func() (n int) {
		for _, s := range r.servers {
			n += sleeping(s.primary, "*") + sleeping(s.replica, "*")
		}
		return n
	}
	begin := func() <-chan error {
		failed := make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, slow)
			failed <- err
		}()
		pgtest.Eventually(t, patience, func() error {
			if n := total(); n != 2 {
				return fmt.Errorf("%d shards are at work", n)
			}
			return nil
		})
		return failed
	}
	for _, inBlock := range []bool{false, true} {
		if inBlock {
			if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
				t.Fatal(err)
			}
		}
		failed := begin()
		if err := conn.PgConn().CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		wantCode(t, <-failed, pg.CodeQueryCanceled)
		if n := total(); n != 0 {
			t.Errorf("%d shards are still at work", n)
		}
		if inBlock {
			if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n); err != nil || n != 2 {
			t.Fatalf("%d rows, %v", n, err)
		}
		r.busy(t, 0)
	}
	failed := begin() // the client goes: nothing is left at work
	conn.PgConn().Conn().Close()
	<-failed
	pgtest.Eventually(t, patience, func() error {
		if n := total(); n != 0 {
			return fmt.Errorf("%d shards are at work for nobody", n)
		}
		return nil
	})
	r.busy(t, 0)
}

// LOCK TABLE is for transaction blocks, as PostgreSQL has it, also where several shards have the table.
func TestLockTableOverShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	for _, mode := range queryModes {
		conn := r.connect(mode)
		_, err := conn.Exec(ctx, "LOCK TABLE orders")
		if e := wantCode(t, err, pg.CodeNoActiveTransaction); e.Message != "LOCK TABLE can only be used in transaction blocks" {
			t.Errorf("%v: %v", mode, e)
		}
		for _, sql := range []string{"BEGIN", "LOCK TABLE orders IN SHARE MODE", "COMMIT"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Errorf("%v: %s: %v", mode, sql, err)
			}
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	if _, err := conn.Exec(ctx, "LOCK TABLE orders; SELECT count(*) FROM orders"); err != nil { // which is a block
		t.Error(err)
	}
	r.busy(t, 0)
}

// A snapshot's name is one server's: a transaction that has imported one is of one shard.
func TestImportedSnapshotIsOfOneShard(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	exporter, err := r.primaryOf("shard_1").ConnTo(ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = exporter.Close(ctx) }()
	var name string
	if _, err := exporter.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		t.Fatal(err)
	}
	if err := exporter.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	snapshot, of := "SET TRANSACTION SNAPSHOT '"+name+"'", func(key int64) string { return fmt.Sprintf("SELECT count(*) FROM orders WHERE customer_id = %d", key) }
	for _, mode := range queryModes {
		for _, statements := range [][]string{
			{snapshot, "SELECT count(*) FROM orders"},
			{snapshot, of(one), "SELECT count(*) FROM orders"},
			{snapshot, of(one), of(two)},
		} {
			conn := r.connect(mode)
			for i, sql := range append([]string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}, statements...) {
				_, err := conn.Exec(ctx, sql)
				if i < len(statements) && err != nil {
					t.Fatalf("%v: %s: %v", mode, sql, err)
				}
				if i == len(statements) && wantCode(t, err, "0A000").Hint == "" {
					t.Errorf("%v: %s: %v", mode, sql, err)
				}
			}
			if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
				t.Error(err)
			}
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; "+snapshot+"; SELECT count(*) FROM orders; COMMIT")
	if wantCode(t, err, "0A000").Hint == "" {
		t.Error(err)
	}
	for _, sql := range []string{"ROLLBACK", "BEGIN ISOLATION LEVEL REPEATABLE READ; " + snapshot + "; " + of(one) + "; COMMIT"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Error(err)
		}
	}
	if _, err := conn.Exec(ctx, "SELECT count(*) FROM orders"); err != nil { // the next transaction has a snapshot of its own
		t.Error(err)
	}
	r.busy(t, 0)
}
