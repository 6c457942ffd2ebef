package wire_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A block that wants one snapshot sees the catalogs as they were also before it touches a table, and goes on on the shard of a key.
func TestOneSnapshotOfTheCatalogs(t *testing.T) {
	r := newRig(t, rigOptions{})
	admins := make([]*pgx.Conn, 2)
	for i, s := range servers(t) {
		conn, err := s.primary.ConnTo(ctxOf(t), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		admins[i] = conn
	}
	made := 0
	for _, begin := range [][]string{
		{"BEGIN ISOLATION LEVEL REPEATABLE READ"}, {"BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"}, {"SET default_transaction_isolation = 'repeatable read'", "BEGIN"},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"}, {"BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			conn := r.connect(mode)
			r.exec(conn, begin...)
			for _, what := range []string{"SELECT count(*)::text FROM pg_class WHERE relname ~ '^made'", "SELECT pg_current_snapshot()::text"} {
				var before, after string
				if err := conn.QueryRow(ctxOf(t), what).Scan(&before); err != nil {
					t.Fatal(err)
				}
				for i, admin := range admins {
					made++
					if _, err := admin.Exec(ctxOf(t), fmt.Sprintf("CREATE TABLE made%d ()", made)); err != nil {
						t.Fatal(err)
					}
					if err := servers(t)[i].replica.CaughtUp(ctxOf(t)); err != nil {
						t.Fatal(err)
					}
				}
				if err := conn.QueryRow(ctxOf(t), what).Scan(&after); err != nil || after != before {
					t.Errorf("%v: %s: %s, then %s; %v", begin, what, before, after, err)
				}
			}
			for n, shard := range []string{"shard_1", "shard_2"} {
				find(t, conn, fmt.Sprintf("SELECT count(*)::text FROM orders WHERE customer_id = %d", r.keyOn(shard, int64(1000*n))), "0")
			}
			r.exec(conn, "COMMIT")
		}
	}
	// What it writes on one shard is committed there.
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	key := r.keyOn("shard_2", 1)
	r.exec(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class", fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", key), "COMMIT")
	find(t, conn, fmt.Sprintf("SELECT count(*)::text FROM orders WHERE customer_id = %d", key), "1")
}

// A block has one time where there is one shard: it is open there from its first statement on. A block that does not tell where it
// belongs keeps no shard from having it.
func TestOneTime(t *testing.T) {
	for name, shards := range map[string][]shardServers{"one shard": {{primary: servers(t)[0].primary}}, "two shards": nil} {
		r := newRig(t, rigOptions{shards: shards})
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			conn := r.connect(mode)
			r.exec(conn, "BEGIN")
			var first, second, third string
			for sql, at := range map[string]*string{"SELECT now()::text": &first, "SELECT current_timestamp::text": &second, "SELECT transaction_timestamp()::text": &third} {
				if err := conn.QueryRow(ctxOf(t), sql).Scan(at); err != nil {
					t.Fatal(err)
				}
			}
			if name == "one shard" && (first != second || second != third) {
				t.Errorf("%s, %s, %s", first, second, third)
			}
			key := r.keyOn("shard_1", 1)
			if name == "two shards" {
				key = r.keyOn("shard_2", 1)
			}
			r.exec(conn, fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, now()::text)", key))
			r.exec(conn, "CREATE TEMP TABLE own (a int) ON COMMIT DROP", "COMMIT") // not in a transaction over shards
			var stored string
			if err := conn.QueryRow(ctxOf(t), fmt.Sprintf("DELETE FROM orders WHERE customer_id = %d RETURNING item", key)).Scan(&stored); err != nil || name == "one shard" && stored != first {
				t.Errorf("stored %s, not %s: %v", stored, first, err)
			}
		}
	}
}
