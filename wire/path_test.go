package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Sessions go by the search_path of their login, on all server connections, also those that are made after it was altered.
func TestSearchPathOfTheLogin(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	for _, s := range servers(t) {
		if err := s.primary.ExecIn(ctx, "app", "CREATE SCHEMA other", "CREATE TABLE other.orders (LIKE public.orders)", "GRANT ALL ON SCHEMA other TO app", "GRANT ALL ON other.orders TO app"); err != nil {
			t.Fatal(err)
		}
	}
	old := r.connect(pgx.QueryExecModeSimpleProtocol)
	find(t, old, "SELECT count(*)::text FROM orders", "0")
	for _, s := range servers(t) {
		if err := s.primary.ExecIn(ctx, "app", "ALTER ROLE app IN DATABASE app SET search_path = other"); err != nil {
			t.Fatal(err)
		}
		if err := s.replica.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.pools.Reconnect("app")
	r.server.AgeFresh("app")
	late := r.connect(pgx.QueryExecModeSimpleProtocol)
	keys := []int64{r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)}
	inserted := int64(0)
	insert := func(conn *pgx.Conn) {
		t.Helper()
		for _, key := range keys {
			inserted++
			if _, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, %d)", key, inserted)); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows := func(n int, table, want string) {
		t.Helper()
		var got string
		conn, err := servers(t)[n-1].primary.ConnTo(ctx, "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if err := conn.QueryRow(ctx, "SELECT count(*)::text FROM "+table).Scan(&got); err != nil || got != want {
			t.Errorf("shard %d has %s rows in %s, want %s; %v", n, got, table, want, err)
		}
	}
	begin := []string{"SELECT 1", "RESET search_path", "RESET ALL", "DISCARD ALL", "SET search_path TO DEFAULT", "SET SESSION AUTHORIZATION DEFAULT", "SET ROLE app"}
	for _, sql := range begin {
		if _, err := old.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
		insert(old)
		find(t, old, "SELECT current_setting('search_path') FROM notes RIGHT JOIN (SELECT 1) x ON true", `"$user", public`)
		find(t, old, "SHOW search_path", `"$user", public`)
	}
	each := fmt.Sprint(len(begin))
	for n := 1; n <= 2; n++ {
		rows(n, "public.orders", each)
		rows(n, "other.orders", "0")
	}
	find(t, old, "SELECT count(*)::text FROM orders", fmt.Sprint(inserted))
	for _, sql := range []string{"BEGIN", "SELECT count(*) FROM notes", "SET search_path TO other", "SET LOCAL search_path TO DEFAULT"} {
		if _, err := old.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	find(t, old, "SELECT count(*)::text FROM orders", fmt.Sprint(inserted))
	if _, err := old.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	insert(late)
	find(t, late, "SHOW search_path", "other")
	if _, err := late.Exec(ctx, "DISCARD ALL"); err != nil {
		t.Fatal(err)
	}
	insert(late)
	rows(1, "other.orders", "4")
	rows(2, "other.orders", "0")
	rows(1, "public.orders", each)
	rows(2, "public.orders", each)
}
