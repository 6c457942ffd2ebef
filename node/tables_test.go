package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestTablesOfAKeyspace: a keyspace is made before its tables, which CREATE TABLE then makes on all shards; gets further ones; and is dropped.
func TestTablesOfAKeyspace(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "DROP TABLE orders", "GRANT CREATE ON SCHEMA public TO app", "GRANT CREATE ON DATABASE app TO probe", "GRANT app TO probe", "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO probe",
		"CREATE TABLE invoices (customer bigint, id int)", "GRANT ALL ON invoices TO app", "GRANT SELECT ON invoices TO probe")
	n := c.follower(t)
	create := []string{"keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3"}
	if code, _, stderr := n.admin(create...); code != 1 || !strings.Contains(stderr, "it does not exist") || !strings.Contains(stderr, "--planned") {
		t.Fatalf("%d %s", code, stderr)
	}
	n.mustAdmin(t, append(create, "--planned")...)
	n.sees(t, "app.orders")
	conn := n.connect(t)
	exec := func(sql, want string) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql)
		if code, text := sqlState(err); code != want {
			t.Fatalf("%s: %s %s, want %q", sql, code, text, want)
		}
	}
	count := func(sql string, want ...int) {
		t.Helper()
		for i, s := range c.servers {
			admin, err := s.ConnTo(t.Context(), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var got int
			if err := admin.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want[i] {
				t.Errorf("%s: shard_%d has %d, want %d; %v", sql, i+1, got, want[i], err)
			}
			_ = admin.Close(t.Context())
		}
	}
	exec("SET rangefinder.cross_shard_writes = '2pc'", "")
	exec("CREATE TABLE orders (customer_id int, id int)", "0A000")
	exec("CREATE TABLE orders (customer_id bigint, id serial, PRIMARY KEY (customer_id, id))", "")
	count("SELECT count(*) FROM pg_class WHERE relname = 'orders'", 1, 1, 1)
	for i := range 12 {
		if _, err := conn.Exec(t.Context(), "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", int64(i)); err != nil {
			t.Fatal(err)
		}
	}

	if code, _, stderr := n.admin("keyspace", "add-table", "app.orders", "app.lines"); code != 1 || !strings.Contains(stderr, "it does not exist") {
		t.Fatalf("%d %s", code, stderr)
	}
	n.mustAdmin(t, "keyspace", "add-table", "app.orders", "app.lines", "--planned")
	out := n.mustAdmin(t, "keyspace", "add-table", "app.orders", "app.invoices", "--column", "customer")
	if !strings.Contains(out, "has the table") {
		t.Error(out)
	}
	if code, _, stderr := n.admin("keyspace", "add-table", "app.orders", "app.invoices", "--column", "customer"); code != 1 || !strings.Contains(stderr, "belongs to keyspace app.orders already") {
		t.Fatalf("%d %s", code, stderr)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // this node has heard of it
		_, err := conn.Exec(t.Context(), "INSERT INTO invoices (customer, id) VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)")
		return err
	})
	exec("CREATE TABLE lines (customer_id bigint, id int, FOREIGN KEY (customer_id, id) REFERENCES orders)", "")
	exec("INSERT INTO lines (customer_id, id) SELECT customer_id, id FROM orders", "")
	var lines int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM lines").Scan(&lines); err != nil || lines != 12 {
		t.Errorf("%d lines, %v", lines, err)
	}

	// What is in no keyspace goes to the shard that is named, or to the database's own.
	exec("CREATE TABLE plain_1 (id int)", "")
	exec("SET rangefinder.shard = 'shard_3'", "")
	exec("CREATE TABLE plain_2 (id int)", "")
	exec("RESET rangefinder.shard", "")
	exec("/* rangefinder: shard=shard_2 */ CREATE TABLE plain_3 (id int)", "")
	count("SELECT count(*) FROM pg_class WHERE relname = 'plain_1'", 1, 0, 0)
	count("SELECT count(*) FROM pg_class WHERE relname = 'plain_2'", 0, 0, 1)
	count("SELECT count(*) FROM pg_class WHERE relname = 'plain_3'", 0, 1, 0)

	if code, _, stderr := n.admin("keyspace", "drop", "app.orders"); code != 1 || !strings.Contains(stderr, "nothing was dropped") {
		t.Fatalf("%d %s", code, stderr)
	}
	if out := n.mustAdmin(t, "keyspace", "drop", "app.orders", "--yes"); !strings.Contains(out, "are where they were") {
		t.Error(out)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if n.fib.Load().Ownership().KeyspaceByName("app.orders") != nil {
			return errors.New("the node has not heard of the end yet")
		}
		return nil
	})
	exec("INSERT INTO invoices (customer, id) VALUES (1, 2), (2, 2)", "") // it is the database's own shard's now
	count("SELECT count(*) FROM invoices WHERE id = 2", 2, 0, 0)
	if out := n.mustAdmin(t, "keyspace", "list"); strings.Contains(out, "app.orders") {
		t.Error(out)
	}
}
