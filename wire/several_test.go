package wire_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'c')", two)
				if n := count(two); n != 1 {
					t.Fatalf("%d rows on shard_2", n)
				}
				_, err := conn.Exec(ctx, "COMMIT")
				if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Hint == "" {
					t.Error("no hint")
				}
				if n := count(one) + count(two); n != 1 {
					t.Fatalf("%d rows after a commit that was refused", n)
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
