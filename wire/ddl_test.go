package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// Statements about a sharded table as such run on all of its shards, all or none, in a transaction and out of one.
func TestSchemaOfShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, s := range r.servers { // who makes tables must own them
		if err := s.primary.ExecIn(ctxOf(t), "app", "DROP TABLE orders"); err != nil {
			t.Fatal(err)
		}
	}
	each := func(sql string, want int) {
		t.Helper()
		if got, sum := r.onShards(t, sql); sum != want*len(r.servers) || got[0] != want {
			t.Fatalf("%s: %v, want %d on each", sql, got, want)
		}
	}
	columns := "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('orders') AND attnum > 0 AND NOT attisdropped"
	indexes := "SELECT count(*) FROM pg_index WHERE indrelid = 'orders'::regclass AND indisvalid"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		conn := r.connect(mode)
		exec := func(sql, tag string) {
			t.Helper()
			got, err := conn.Exec(ctxOf(t), sql)
			if err != nil || got.String() != tag {
				t.Fatalf("%s: %s, %v", sql, got, err)
			}
		}
		exec("CREATE TABLE orders (customer_id bigint NOT NULL, id bigint NOT NULL, item text)", "CREATE TABLE")
		each(columns, 3)
		exec("ALTER TABLE orders ADD PRIMARY KEY (customer_id, id), ADD COLUMN note text", "ALTER TABLE")
		each(columns, 4)
		exec("CREATE INDEX CONCURRENTLY orders_item ON orders (item)", "CREATE INDEX")
		each(indexes, 2)
		exec("VACUUM ANALYZE orders", "VACUUM")
		exec("COMMENT ON TABLE orders IS 'all of them'", "COMMENT")
		each("SELECT count(*) FROM pg_description WHERE objoid = 'orders'::regclass", 1)
		exec("GRANT SELECT ON orders TO public", "GRANT")
		each("SELECT count(*) FROM pg_class WHERE oid = 'orders'::regclass AND relacl::text LIKE '%{=r/%' OR oid = 'orders'::regclass AND relacl::text LIKE '%,=r/%'", 1)
		for i := range 20 {
			if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		exec("BEGIN", "BEGIN")
		exec("TRUNCATE orders", "TRUNCATE TABLE")
		exec("INSERT INTO orders (customer_id, id) VALUES (1, 1)", "INSERT 0 1")
		exec("ROLLBACK", "ROLLBACK")
		if _, n := r.onShards(t, "SELECT count(*) FROM orders"); n != 20 {
			t.Fatalf("%d rows", n)
		}
		// One shard that cannot keeps all from it.
		if err := r.servers[1].primary.ExecIn(ctxOf(t), "app", "CREATE INDEX orders_note ON orders (note)"); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Exec(ctxOf(t), "CREATE INDEX orders_note ON orders (note)")
		wantCode(t, err, "42P07")
		if got, _ := r.onShards(t, indexes); got[0] != 2 || got[1] != 3 {
			t.Fatalf("indexes: %v", got)
		}
		// Where it goes step by step, it is told where it stands.
		_, err = conn.Exec(ctxOf(t), "CREATE INDEX CONCURRENTLY orders_note ON orders (note)")
		e := wantCode(t, err, "42P07")
		if e.Detail != "It failed on shard_2; it is done on shard_1." || !strings.Contains(e.Hint, "/* rangefinder: shard=shard_2 */") {
			t.Fatalf("%s %s", e.Detail, e.Hint)
		}
		exec("BEGIN", "BEGIN")
		_, err = conn.Exec(ctxOf(t), "VACUUM orders")
		wantCode(t, err, pg.CodeActiveTransaction)
		exec("ROLLBACK", "ROLLBACK")
		_, err = conn.Exec(ctxOf(t), "DROP TABLE orders, notes")
		wantCode(t, err, pg.CodeFeatureNotSupported)
		exec("BEGIN", "BEGIN")
		exec("DROP TABLE IF EXISTS orders", "DROP TABLE")
		exec("CREATE TABLE orders (customer_id bigint, id bigint)", "CREATE TABLE")
		exec("COMMIT", "COMMIT")
		each(columns, 2)
		exec("DROP TABLE orders", "DROP TABLE")
		each("SELECT count(*) FROM pg_class WHERE relname = 'orders'", 0)
		r.busy(t, 0)
	}
}

// What concerns a table on all shards waits on the first of them for who holds it there, and holds it on no other: so two that come by different nodes wait in one
// line, and not for each other.
func TestSchemaChangesStandInOneLine(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	for _, sql := range []string{"TRUNCATE orders", "BEGIN; LOCK TABLE orders; COMMIT"} {
		holder, err := r.servers[0].primary.ConnTo(ctx, "app", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = holder.Exec(ctx, "BEGIN; LOCK TABLE orders"); err != nil {
			t.Fatal(err)
		}
		conn, ended := r.connect(pgx.QueryExecModeSimpleProtocol), make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, sql)
			ended <- err
		}()
		pgtest.Eventually(t, patience, func() error {
			n := 0
			if err := holder.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&n); err != nil || n != 1 {
				return fmt.Errorf("%d wait, %v", n, err)
			}
			return nil
		})
		if err := r.servers[1].primary.ExecIn(ctx, "app", "DO $$ BEGIN LOCK TABLE orders NOWAIT; END $$"); err != nil {
			t.Errorf("%s: the table is locked on the second shard before it is on the first: %v", sql, err)
		}
		if err = holder.Close(ctx); err == nil {
			err = <-ended
		}
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	r.busy(t, 0)
}
