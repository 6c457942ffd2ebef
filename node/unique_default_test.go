package node

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestUniqueDefault: tables whose columns have rangefinder.unique_id() for their default are made through a node, and their rows get numbers from
// whichever node takes the INSERT, also if the column is the key. Where no node can give one the server says so.
func TestUniqueDefault(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "DROP TABLE orders, order_lines, accounts", "GRANT CREATE ON DATABASE app TO probe", "GRANT ALL ON SCHEMA public TO app", "GRANT app TO probe")
	const shards = "shard_1,shard_2,shard_3"
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.events", "--planned", "--key", "id", "--type", "bigint", "--shards", shards)
	n.mustAdmin(t, "keyspace", "create", "app.calls", "--planned", "--key", "customer_id", "--type", "bigint", "--shards", "shard_2,shard_3")
	n.mustAdmin(t, "keyspace", "create", "app.countries", "--planned", "--reference", "--shards", shards)
	var conns []*pgx.Conn
	for i, node := range c.nodes {
		node.sees(t, "app.countries")
		conn := node.connect(t)
		conns = append(conns, conn)
		if _, err := conn.Exec(t.Context(), "SET rangefinder.cross_shard_writes = '2pc'"); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 20*time.Second, func() error {
			if _, err := conn.Exec(t.Context(), "SELECT rangefinder.unique_id()"); err != nil {
				return err
			}
			admin, err := c.servers[i].ConnTo(t.Context(), "app", "")
			if err != nil {
				return err
			}
			defer admin.Close(t.Context())
			_, err = admin.Exec(t.Context(), "SELECT 'rangefinder.unique_id()'::regprocedure")
			return err
		})
	}
	conn := conns[0]
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			code, text := sqlState(err)
			t.Fatalf("%s: %s %s", sql, code, text)
		}
	}
	run("CREATE TABLE events (id bigint PRIMARY KEY DEFAULT rangefinder.unique_id(), note text)")
	run("CREATE TABLE calls (customer_id bigint, id bigint, n int DEFAULT 1, PRIMARY KEY (customer_id, id))")
	run("ALTER TABLE calls ALTER COLUMN id SET DEFAULT rangefinder.unique_id()")
	run("CREATE TABLE countries (id bigint PRIMARY KEY DEFAULT rangefinder.unique_id(), name text)")
	run("CREATE TABLE plain (a text, id bigint NOT NULL DEFAULT rangefinder.unique_id())")

	var mu sync.Mutex
	seen := make(map[int64]string)
	insert := func(t *testing.T, conn *pgx.Conn, mode pgx.QueryExecMode, sql string, rows int, args ...any) (ids []int64) {
		t.Helper()
		got, err := conn.Query(t.Context(), sql, append([]any{mode}, args...)...)
		if err == nil {
			ids, err = pgx.CollectRows(got, pgx.RowTo[int64])
		}
		if err != nil || len(ids) != rows {
			code, text := sqlState(err)
			t.Fatalf("%v: %s: %v, %s %s", mode, sql, ids, code, text)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			if was := seen[id]; was != "" || id < 1<<40 {
				t.Fatalf("%s has given %d, as had %q", sql, id, was)
			}
			seen[id] = sql
		}
		return ids
	}
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec}
	for _, mode := range modes {
		insert(t, conn, mode, "INSERT INTO events (note) VALUES ('x') RETURNING id", 1)
		insert(t, conn, mode, "INSERT INTO events (note) VALUES ($1) RETURNING id", 1, "it's, (this)")
		insert(t, conn, mode, "INSERT INTO events (note) VALUES ($1), (upper('b, )')), /* , ( */ (NULL) RETURNING id", 3, "a")
		insert(t, conn, mode, "INSERT INTO events (id, note) VALUES (DEFAULT, 'y'), (DEFAULT, $1) RETURNING id", 2, "z")
		insert(t, conn, mode, "INSERT INTO calls (customer_id) VALUES (7) RETURNING id", 1)
		insert(t, conn, mode, "INSERT INTO public.calls (customer_id, n) VALUES ($1, DEFAULT), (8, (SELECT 3)) RETURNING id", 2, int64(7))
		insert(t, conn, mode, "INSERT INTO plain (a) VALUES ('p'), ('q') RETURNING id", 2)
		insert(t, conn, mode, "INSERT INTO countries (name) VALUES ('here') RETURNING id", 1)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO events (id, note) VALUES (5, 'mine')"); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{"INSERT INTO plain (a) SELECT 'x' FROM generate_series(1, 2)", "INSERT INTO plain DEFAULT VALUES", "INSERT INTO calls (customer_id) SELECT 7"} {
		_, err := conn.Exec(t.Context(), sql)
		if code, text := sqlState(err); code != "0A000" || !strings.Contains(text, "SELECT rangefinder.unique_id() makes a number") {
			t.Errorf("%s: %s %s", sql, code, text)
		}
	}
	for _, table := range []string{"plain (a)", "countries (name)"} {
		_, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("x\n"), "COPY "+table+" FROM STDIN")
		if code, text := sqlState(err); code != "0A000" || !strings.Contains(text, "makes") {
			t.Errorf("COPY %s: %s %s", table, code, text)
		}
	}
	// A COPY that leaves the column out gives each row a number, and the row goes where that belongs.
	calls := 0
	for _, x := range []struct{ sql, data, tag string }{
		{"COPY events (note) FROM STDIN", "copied\na\\tb\n", "COPY 2"},
		{"COPY public.events (note) FROM STDIN (FORMAT csv, HEADER match, DELIMITER ';')", "note\n\"copied\nin quotes\"\ncopied", "COPY 2"},
		{"COPY events (note) FROM STDIN WITH (FORMAT binary)", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x06copied\xff\xff", "COPY 1"},
		{"COPY events (note) FROM STDIN WHERE id > 5 AND note <> 'no'", strings.Repeat("copied\nno\n", 100), "COPY 100"},
		{"COPY calls (customer_id, n) FROM STDIN", "7\t5\n8\t5\n9\t5\n", "COPY 3"},
		{"COPY calls (n, customer_id) FROM STDIN csv", "5,7\n5,8\n", "COPY 2"},
		{"COPY calls (customer_id) FROM STDIN binary", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff", "COPY 1"},
	} {
		tag, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(x.data), x.sql)
		if code, text := sqlState(err); tag.String() != x.tag {
			t.Errorf("%s: %s, %s %s", x.sql, tag, code, text)
		}
		if strings.Contains(x.sql, "calls") {
			calls += int(tag.RowsAffected())
		}
	}
	var total, different, most int
	if err := conn.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT id), max(id) FROM calls").Scan(&total, &different, &most); err != nil || total != 9+calls || different != total || most < 1<<40 {
		t.Errorf("%d calls with %d ids up to %d, want %d: %v", total, different, most, 9+calls, err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT id) FROM events WHERE note LIKE 'copied%'").Scan(&total, &different); err != nil || total != 104 || different != total {
		t.Errorf("%d events with %d ids: %v", total, different, err)
	}
	for sql, data := range map[string]string{
		"COPY events (note) FROM STDIN":                   "one\ttwo\n",
		"COPY calls (customer_id, n) FROM STDIN":          "7\n",
		"COPY events (note, id) FROM STDIN (DEFAULT 'D')": "x\tD\n",
	} {
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(data), sql); err == nil {
			t.Errorf("%s takes %q", sql, data)
		}
	}
	// Other nodes hear of the default by themselves.
	for i, conn := range conns[1:] {
		pgtest.Eventually(t, 5*time.Second, func() error {
			_, err := conn.Exec(t.Context(), "INSERT INTO plain (a) VALUES ('other')")
			return err
		})
		t.Run(fmt.Sprint("through node ", i+2), func(t *testing.T) {
			for range 50 {
				insert(t, conn, pgx.QueryExecModeCacheStatement, "INSERT INTO events (note) VALUES ($1), ($1) RETURNING id", 2, "many")
			}
		})
	}
	ks := n.sees(t, "app.events")
	rows := 0
	for shard := range c.servers {
		all, own := c.countOn(t, ks, "events", "id", shard)
		if all != own || all == 0 {
			t.Errorf("shard %d has %d events and owns %d of them", shard+1, all, own)
		}
		rows += all
	}
	if want := 3*7 + 200 + 1 + 105; rows != want {
		t.Errorf("%d events, want %d", rows, want)
	}
	for _, s := range c.servers { // the copies are alike
		admin, err := s.ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		if err := admin.QueryRow(t.Context(), "SELECT array_agg(id) FROM countries").Scan(&ids); err != nil || len(ids) != 3 {
			t.Errorf("%v, %v", ids, err)
		}
		for _, id := range ids {
			if seen[id] == "" {
				t.Errorf("%s has a country with id %d, which nobody was told", s.Name(), id)
			}
		}
		_ = admin.Close(t.Context())
	}
	run("ALTER TABLE calls ALTER COLUMN id DROP DEFAULT")
	if _, err := conn.Exec(t.Context(), "INSERT INTO calls (customer_id) VALUES (7)"); !strings.Contains(fmt.Sprint(err), "null value") {
		t.Errorf("without the default: %v", err)
	}
}

// A node that starts again while a shard is down waits for a moment to see what depends on its tables; then it serves the others. Meanwhile
// it may have found that it has functions to make.
func TestRestartWhileAShardIsDown(t *testing.T) {
	b := startBank(t, 5, 5)
	b.create(t)
	if err := b.node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.servers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	b.node = newNode(t, b.node.cfg, clusterEnv()).open(t)
	conn := b.node.connect(t)
	if _, err := conn.Exec(t.Context(), "INSERT INTO accounts VALUES (1001, 7)"); err != nil {
		t.Fatal(err)
	}
}
