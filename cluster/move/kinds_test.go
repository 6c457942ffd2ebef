package move

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// kind is a keyspace with tables of its own.
type kind struct {
	name      string
	method    string
	types     []rib.Type
	columns   []string // of the key, in each table
	interval  string   // that moves
	schema    []string // of both shards
	target    []string // run on the target in place of schema; nil: the same
	fill      []string // of the source, before the move
	meanwhile []string // run on the source while rows are copied, and once more in the follow step
}

// kinds are moves of all methods and of tables of all sorts. Each has the table t; others are named by their schema.
var kinds = []kind{{
	name: "list", method: "list", types: []rib.Type{rib.TypeText}, columns: []string{"land"}, interval: "de",
	schema:    []string{"CREATE TABLE t (land text, id bigint, note text, PRIMARY KEY (land, id))"},
	fill:      []string{"INSERT INTO t SELECT (ARRAY['de', 'fr', 'it'])[1 + g % 3], g, 'n' || g FROM generate_series(1, 3000) AS g"},
	meanwhile: []string{"INSERT INTO t SELECT 'de', 1 + (SELECT max(id) FROM t), 'later'", "UPDATE t SET note = note || '.' WHERE id % 5 = 0", "DELETE FROM t WHERE id IN (SELECT min(id) FROM t WHERE land = 'de')"},
}, {
	name: "range", method: "range", types: []rib.Type{rib.TypeBigint}, columns: []string{"k"}, interval: "1000..2000",
	schema: []string{"CREATE TABLE t (k bigint, id bigint, note text, PRIMARY KEY (k, id))"},
	fill:   []string{"INSERT INTO t SELECT g, 0, 'n' || g FROM generate_series(-500, 2999) AS g"},
	meanwhile: []string{"UPDATE t SET k = k + 2000 WHERE k BETWEEN 1000 AND 1009", // out of the range and into it: the row filter makes of these a removal and a new row
		"UPDATE t SET k = k + 1000, id = id + 1 WHERE k BETWEEN 500 AND 509", "UPDATE t SET note = note || 'x' WHERE k BETWEEN 990 AND 1100", "DELETE FROM t WHERE k IN (999, 1000, 1999, 2000)"},
}, {
	name: "range of texts", method: "range", types: []rib.Type{rib.TypeText}, columns: []string{"k"}, interval: "b..'d,'",
	schema:    []string{`CREATE TABLE t (k text, note text, PRIMARY KEY (k))`},
	fill:      []string{`INSERT INTO t SELECT c || E'\t' || g, NULL FROM generate_series(1, 300) AS g, unnest(ARRAY['a', 'b', 'B', 'c', 'ä', 'd', 'd,', 'e']) AS c`},
	meanwhile: []string{`UPDATE t SET note = 'x' WHERE k LIKE '%7'`, `INSERT INTO t VALUES ('c' || (SELECT count(*) FROM t), E'\\.\n')`, `UPDATE t SET k = 'cc' || k WHERE k = (SELECT min(k) FROM t)`},
}, {
	name: "range of two columns", method: "range", types: []rib.Type{rib.TypeInt, rib.TypeText}, columns: []string{"a", "b"}, interval: "3,m..7",
	schema:    []string{"CREATE TABLE t (b text, note text, a int, PRIMARY KEY (a, b))"},
	fill:      []string{"INSERT INTO t SELECT c, 'n', g FROM generate_series(0, 9) AS g, unnest(ARRAY['a', 'l', 'm', 'z']) AS c"},
	meanwhile: []string{"UPDATE t SET note = note || '.'", "DELETE FROM t WHERE a = 4 AND b = 'a'", "INSERT INTO t SELECT 'more' || count(*), 'x', 5 FROM t"},
}, {
	name: "hash of two columns", method: "hash", types: []rib.Type{rib.TypeUUID, rib.TypeText}, columns: []string{"u", "x"}, interval: "..0x8000000000000000",
	schema:    []string{"CREATE TABLE t (u uuid, x text, n int, PRIMARY KEY (u, x))"},
	fill:      []string{"INSERT INTO t SELECT md5(g::text)::uuid, 'x' || g, g FROM generate_series(1, 1000) AS g"},
	meanwhile: []string{"UPDATE t SET n = n + 1 WHERE n % 3 = 0", "DELETE FROM t WHERE n % 50 = 1"},
}, {
	name: "partitioned", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema: []string{"CREATE TABLE t (c bigint, at date, note text, PRIMARY KEY (c, at)) PARTITION BY RANGE (at)",
		"CREATE TABLE t_old (note text, at date NOT NULL, c bigint NOT NULL, gone int)", "ALTER TABLE t_old DROP COLUMN gone", // columns in another order
		"ALTER TABLE t ATTACH PARTITION t_old FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
		"CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY HASH (c)", "CREATE TABLE t_new_0 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
		"CREATE TABLE t_new_1 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 1)", "CREATE TABLE t_rest PARTITION OF t DEFAULT"},
	fill:      []string{"INSERT INTO t SELECT g, '2020-06-01'::date + (g % 900)::int, 'n' || g FROM generate_series(1, 3000) AS g"},
	meanwhile: []string{"UPDATE t SET at = at + 200, note = note || '.' WHERE c % 10 = 0", "DELETE FROM t WHERE c % 100 = 7", "INSERT INTO t SELECT 10000 + count(*), '2021-05-05', 'new' FROM t"},
}, {
	name: "partitioned at the source alone", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema: []string{"CREATE TABLE t (c bigint, at date, note text, PRIMARY KEY (c, at)) PARTITION BY RANGE (at)", "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
		"CREATE TABLE t_2 PARTITION OF t DEFAULT"},
	target:    []string{"CREATE TABLE t (at date, c bigint, note text, PRIMARY KEY (c, at))"},
	fill:      []string{"INSERT INTO t SELECT g, '2020-06-01'::date + (g % 900)::int, 'n' || g FROM generate_series(1, 1000) AS g"},
	meanwhile: []string{"UPDATE t SET at = at + 200 WHERE c % 10 = 0", "DELETE FROM t WHERE c % 100 = 7"},
}, {
	name: "without a primary key", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema:    []string{"CREATE TABLE t (c bigint, note text, x float8, big text)", "ALTER TABLE t REPLICA IDENTITY FULL", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL"},
	fill:      []string{"INSERT INTO t SELECT g % 200, CASE WHEN g % 3 > 0 THEN 'same' END, CASE WHEN g % 5 > 0 THEN 'NaN'::float8 END, CASE WHEN g % 40 = 0 THEN repeat(md5(g::text), 300) END FROM generate_series(1, 1000) AS g"}, // rows that are alike
	meanwhile: []string{"UPDATE t SET note = 'changed' WHERE c % 7 = 0", "DELETE FROM t WHERE ctid IN (SELECT min(ctid) FROM t GROUP BY c HAVING c % 11 = 0)", "INSERT INTO t SELECT c FROM t WHERE c % 13 = 0 LIMIT 20"},
}, {
	name: "identity full beside a primary key", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema:    []string{"CREATE TABLE t (c bigint, id int, j json, p point, PRIMARY KEY (c, id))", "ALTER TABLE t REPLICA IDENTITY FULL"},
	fill:      []string{`INSERT INTO t SELECT g, 1, '{"a": 1}', '(1,2)' FROM generate_series(1, 1000) AS g`},
	meanwhile: []string{`UPDATE t SET j = '[1]' WHERE c % 7 = 0`, "DELETE FROM t WHERE c % 11 = 0"},
}, {
	name: "identity by an index", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema:    []string{"CREATE TABLE t (id uuid NOT NULL, c bigint NOT NULL, note text)", "CREATE UNIQUE INDEX t_of ON t (id, c)", "ALTER TABLE t REPLICA IDENTITY USING INDEX t_of"},
	fill:      []string{"INSERT INTO t SELECT md5(g::text)::uuid, g, 'n' FROM generate_series(1, 1000) AS g"},
	meanwhile: []string{"UPDATE t SET note = NULL WHERE c % 7 = 0", "DELETE FROM t WHERE c % 11 = 0"},
}, {
	name: "columns of all sorts", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema: []string{"CREATE TYPE mood AS ENUM ('sad', 'glad')", "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
		`CREATE TABLE t (c bigint, id bigint GENERATED ALWAYS AS IDENTITY, "Mixed, ""quoted""" text DEFAULT 'd', m mood, ms mood[], p pair, d positive, ts timestamptz, i interval, x xml, j jsonb, n numeric(20,5), f float4,
			r int4range, twice numeric GENERATED ALWAYS AS (n * 2) STORED, bytes bytea, gone int, PRIMARY KEY (c, id))`, "ALTER TABLE t DROP COLUMN gone",
		"CREATE TABLE empty (c bigint PRIMARY KEY, x text)"},
	target: []string{"CREATE TYPE mood AS ENUM ('sad', 'glad')", "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
		`CREATE TABLE t (bytes bytea, n numeric(20,5), twice numeric GENERATED ALWAYS AS (n * 2) STORED, f float4, j jsonb, x xml, i interval, ts timestamptz, d positive, p pair, ms mood[], m mood, r int4range,
			"Mixed, ""quoted""" text DEFAULT 'other', id bigint GENERATED ALWAYS AS IDENTITY, c bigint, PRIMARY KEY (c, id))`, // columns in another order
		"CREATE TABLE empty (c bigint PRIMARY KEY, x text)",
		"CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a trigger has fired for a copied row''; END'", "CREATE TRIGGER never BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION never()"},
	fill: []string{`INSERT INTO t (c, "Mixed, ""quoted""", m, ms, p, d, ts, i, x, j, n, f, r, bytes) SELECT g, E'a\tb\\n\n"' || g, 'glad', ARRAY['sad', NULL]::mood[], ROW(g, E'"x",\\')::pair, g, '2024-02-29 12:00:00.123456+05', '1 mon -3 days',
			'<a>b</a>', '{"k": [1, null]}', g / 7.0, g / 7.0, '[1,5)', decode(md5(g::text), 'hex') FROM generate_series(1, 500) AS g`,
		"INSERT INTO t (c) SELECT g FROM generate_series(501, 700) AS g"}, // all else is NULL
	meanwhile: []string{`UPDATE t SET n = n + 1, "Mixed, ""quoted""" = NULL WHERE c % 7 = 0`, "UPDATE t SET m = 'sad', i = NULL WHERE c % 7 = 1", "DELETE FROM t WHERE c % 11 = 0", "INSERT INTO t (c, n) SELECT 1000 + count(*), 0.1 FROM t"},
}, {
	name: "large rows", method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}, interval: "..0x8000000000000000",
	schema: []string{"CREATE TABLE t (c bigint PRIMARY KEY, big text, small text, other bytea)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL"},
	fill: []string{"INSERT INTO t SELECT g, (SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, CASE WHEN g % 20 = 0 THEN 40000 ELSE 100 END) AS i), 's', decode(repeat(md5(g::text), 3000), 'hex') " +
		"FROM generate_series(1, 200) AS g"},
	meanwhile: []string{"UPDATE t SET small = small || '.'", "UPDATE t SET big = big || 'x' WHERE c % 40 = 0", "UPDATE t SET other = NULL WHERE c % 9 = 0"}, // the first leaves the large value where it is: it is not sent
}}

// contents is what a shard holds of a table's rows for which a condition holds, whatever the order of rows and columns.
func (r *rig) contents(name, table, where string) string {
	return r.query(name, fmt.Sprintf("SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(to_jsonb(t)::text), '' ORDER BY md5(to_jsonb(t)::text))), '') FROM %s AS t WHERE %s", table, where))
}

// keyspaceOf makes the keyspace of a kind with some tables.
func (k *kind) keyspace(tables ...string) *rib.Keyspace {
	ks := &rib.Keyspace{ID: 1, Name: "postgres.kind", Database: "postgres", Method: k.method, Types: k.types, Ranges: []rib.Range{{Shard: "shard_1"}}}
	for _, name := range tables {
		ks.Tables = append(ks.Tables, rib.KeyedTable{Schema: "public", Name: name, Columns: k.columns})
	}
	return ks
}

// TestKinds moves a range of each kind, with writes while it is copied and followed: in the end the target has what the source had when its fence
// was closed, and the source has the rest, and both have nothing else.
func TestKinds(t *testing.T) {
	r := startRig(t, false, pgtest.Options{}, "SELECT")
	for i := range kinds {
		k := &kinds[i]
		t.Run(k.name, func(t *testing.T) {
			r.t = t
			tables := []string{"t"}
			if strings.Contains(strings.Join(k.schema, ";"), "TABLE empty") {
				tables = append(tables, "empty")
			}
			r.of(k.keyspace(tables...))
			low, high, err := r.ks.ParseInterval(k.interval)
			if err != nil {
				t.Fatal(err)
			}
			where, err := predicate(&Job{Move: rib.Move{Low: low, High: high}, Keyspace: r.ks}, keyOf(&r.ks.Tables[0], ""))
			if err != nil {
				t.Fatal(err)
			}
			source, target := r.at("shard_1").primary, r.at("shard_2").primary
			const anew = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
			there := k.target
			if there == nil {
				there = k.schema
			}
			if err := errors.Join(source.Exec(t.Context(), anew), target.Exec(t.Context(), anew)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(source.Exec(t.Context(), k.schema...), target.Exec(t.Context(), there...), source.Exec(t.Context(), k.fill...)); err != nil {
				t.Fatal(err)
			}
			write := func() error { return source.Exec(t.Context(), k.meanwhile...) }
			var moving, rest string
			var counts [3]string
			m := r.mover(func(c *Config) {
				hook("Copy within", write)(c)
				hook("Follow before", write)(c)
				hook("Fence after", func() error {
					moving, rest = r.contents("shard_1", "t", where), r.contents("shard_1", "t", "("+where+") IS NOT TRUE")
					counts[0] = r.query("shard_1", "SELECT count(*)::text FROM t WHERE "+where)
					return nil
				})(c)
			})
			r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
			m.Close()
			if told := fmt.Sprint(r.book.became()); told != "[flipped]" {
				t.Fatal(told)
			}
			if got := r.contents("shard_2", "t", "true"); got != moving || strings.HasPrefix(moving, "0 ") {
				t.Errorf("the target has %s, and the source had %s", got, moving)
			}
			if got := r.contents("shard_1", "t", "true"); got != rest || strings.HasPrefix(rest, "0 ") {
				t.Errorf("the source has %s, and %s was to stay", got, rest)
			}
			if err := target.Exec(t.Context(), "DROP TRIGGER IF EXISTS never ON t"); err != nil {
				t.Fatal(err)
			}
			r.clean()
		})
	}
}

// TestIdentityObstacles: what replication could not identify rows by is told of in words that help, before anything is touched.
func TestIdentityObstacles(t *testing.T) {
	r := startRig(t, false, pgtest.Options{}, `CREATE TABLE silent (c bigint, id int, PRIMARY KEY (c, id)); ALTER TABLE silent REPLICA IDENTITY NOTHING;
		CREATE TABLE bare (c bigint);
		CREATE TABLE texts (c bigint, j json, p point, fine varchar(3)[], b jsonb); ALTER TABLE texts REPLICA IDENTITY FULL;
		CREATE TABLE parts (c bigint, d date, PRIMARY KEY (c, d)) PARTITION BY RANGE (d); CREATE TABLE part_1 PARTITION OF parts DEFAULT; ALTER TABLE part_1 REPLICA IDENTITY NOTHING;
		CREATE TABLE elsewhere (c bigint NOT NULL, id int NOT NULL UNIQUE); ALTER TABLE elsewhere REPLICA IDENTITY USING INDEX elsewhere_id_key`)
	k := &kind{method: "hash", types: []rib.Type{rib.TypeBigint}, columns: []string{"c"}}
	r.of(k.keyspace("silent", "bare", "texts", "parts", "elsewhere"))
	p := NewPostgres(r.config)
	defer p.Close()
	low, high := r.quarter()
	obstacles, err := p.Check(t.Context(), &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks})
	if err != nil {
		t.Fatal(err)
	}
	all := (&ObstacleError{obstacles}).Error()
	for _, want := range []string{
		"on shard_1, table public.silent: it has no replica identity", "on shard_1, table public.bare: it has no replica identity", "on shard_1, table public.part_1: it has no replica identity",
		"on shard_1, table public.elsewhere: its replica identity does not hold the key (c is missing)",
		`on shard_2, table public.texts: its rows can be told apart by all of their columns alone, and values of column "j", of type json, cannot be compared`, `values of column "p", of type point, cannot`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
	if strings.Contains(all, `"fine"`) || strings.Contains(all, `"b"`) {
		t.Errorf("what can be compared is told of:\n%s", all)
	}
	r.clean()
}

// TestSourceIsChecked: the target's server encrypts towards the source as the node does, and checks its certificate as the node does.
func TestSourceIsChecked(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	dir, err := os.MkdirTemp("", "authorities") // the server's user must be able to read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root, wrong := filepath.Join(dir, "it's the root.crt"), filepath.Join(dir, "wrong.crt")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(root, ca.PEM, 0o644), os.WriteFile(wrong, stranger.PEM, 0o644)); err != nil {
		t.Fatal(err)
	}
	r := startRig(t, false, pgtest.Options{TLS: ca.Issue(t, time.Time{}, "127.0.0.1")}, "CREATE TABLE t (k bigint PRIMARY KEY)")
	k := &kind{method: "range", types: []rib.Type{rib.TypeBigint}, columns: []string{"k"}}
	low, high := rib.Key(nil), rib.Key(nil)
	for _, c := range []struct{ mode, root, problem, ssl string }{
		{"disable", "", "", "f"}, {"require", "", "", "t"}, {"verify-full", root, "", "t"}, {"verify-ca", root, "", "t"},
		{"verify-full", wrong, "certificate verify failed", ""}, {"verify-ca", filepath.Join(dir, "nowhere"), "root certificate file", ""},
	} {
		t.Run(c.mode+" "+filepath.Base(c.root), func(t *testing.T) {
			r.t = t
			r.of(k.keyspace("t"))
			r.config.TLS = func() (string, string) { return c.mode, c.root }
			p := NewPostgres(r.config)
			defer p.Close()
			obstacles, err := p.Check(t.Context(), &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks})
			if all := (&ObstacleError{obstacles}).Error(); err != nil || (len(obstacles) > 0) != (c.problem != "") || !strings.Contains(all, c.problem) || strings.Contains(all, "password=") {
				t.Fatal(err, all)
			}
			if c.problem != "" {
				return
			}
			ssl := ""
			m := r.mover(hook("Fence before", func() error {
				ssl = r.query("shard_1", "SELECT string_agg(DISTINCT s.ssl::text, ' ') FROM pg_stat_replication AS p JOIN pg_stat_ssl AS s USING (pid) WHERE p.application_name LIKE 'rangefinder_move_%'")
				return nil
			}))
			r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
			if told := fmt.Sprint(r.book.became()); told != "[flipped]" || !strings.HasPrefix(ssl, c.ssl) || ssl == "" {
				t.Errorf("%s; encrypted: %q", told, ssl)
			}
			r.clean()
		})
	}
}

// TestTwoMoves moves two disjoint ranges at once, in the same direction and against each other, under load.
func TestTwoMoves(t *testing.T) {
	r := newRig(t, false)
	r.fill(3000)
	hash, _ := rib.MethodByName("hash")
	interval := func(s string) (low, high rib.Key) {
		low, high, err := rib.ParseInterval(hash, r.ks.Types, s)
		if err != nil {
			t.Fatal(err)
		}
		return low, high
	}
	low1, high1 := interval("..0x2000000000000000")
	low2, high2 := interval("0x2000000000000000..0x4000000000000000")
	ranges := []string{r.where(low1, high1), r.where(low2, high2)}
	before := []string{r.contents("shard_1", "orders", ranges[0]), r.contents("shard_1", "orders", ranges[1])}
	low3, high3 := interval("0x4000000000000000..0x8000000000000000")
	r.book.pinned = true
	l := r.load(3, r.where(low3, high3)) // beside them, which stays
	m := r.mover(nil)
	is := []string{"shard_1", "shard_1"}
	to := func(want ...string) { // both at once, those that are elsewhere
		t.Helper()
		var wg sync.WaitGroup
		for i, low := range []rib.Key{low1, low2} {
			if is[i] != want[i] {
				id := r.book.start(low, []rib.Key{high1, high2}[i], is[i], want[i])
				wg.Go(func() { r.over(id, m) })
			}
		}
		wg.Wait()
		is = want
		for _, name := range []string{"shard_1", "shard_2"} {
			for i := range ranges {
				expected := "0 "
				if is[i] == name {
					expected = before[i]
				}
				if got := r.contents(name, "orders", ranges[i]); got != expected || before[i] == "0 " {
					t.Errorf("of range %d %s has %s, want %s", i, name, got, expected)
				}
			}
		}
		r.clean()
	}
	to("shard_2", "shard_2")
	to("shard_1", "shard_2")
	to("shard_2", "shard_1") // against each other
	to("shard_1", "shard_2")
	if told := r.book.became(); len(told) == 0 || strings.Contains(fmt.Sprint(told), "aborted") {
		t.Error(told)
	}
	l.busy()
	l.end()
	l.check()
}

// TestOneServer moves a range between two shards that are two databases of one server: nothing there may wait for something that the move itself
// keeps open.
func TestOneServer(t *testing.T) {
	pg := pgtest.NewPrimary(t, pgtest.Options{Name: "both"})
	if err := pg.Exec(t.Context(), "CREATE DATABASE shard_1", "CREATE DATABASE shard_2"); err != nil {
		t.Fatal(err)
	}
	for _, database := range []string{"shard_1", "shard_2"} {
		if err := pg.ExecIn(t.Context(), database, "CREATE TABLE t (k bigint PRIMARY KEY, note text)"); err != nil {
			t.Fatal(err)
		}
	}
	if err := pg.ExecIn(t.Context(), "shard_1", "INSERT INTO t SELECT g, 'n' || g FROM generate_series(1, 2000) AS g"); err != nil {
		t.Fatal(err)
	}
	k := &kind{method: "range", types: []rib.Type{rib.TypeBigint}, columns: []string{"k"}}
	r := &rig{t: t}
	r.of(k.keyspace("t"))
	r.config = PostgresConfig{Rate: 256 << 20, Primary: func(ctx context.Context, shard, _ string) (*pgx.Conn, error) { return pg.ConnTo(ctx, shard, "") }}
	low, high, err := r.ks.ParseInterval("500..1000")
	if err != nil {
		t.Fatal(err)
	}
	write := func() error { return pg.ExecIn(t.Context(), "shard_1", "UPDATE t SET note = note || '.'") }
	m := r.mover(func(c *Config) {
		hook("Copy within", write)(c)
		hook("Follow before", write)(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := fmt.Sprint(r.book.became()); told != "[flipped]" {
		t.Fatal(told)
	}
	for database, want := range map[string]string{"shard_1": "1500 1 2000 0", "shard_2": "500 500 999 0"} {
		conn, err := pg.ConnTo(t.Context(), database, "")
		if err != nil {
			t.Fatal(err)
		}
		var got, left string
		err = conn.QueryRow(t.Context(), "SELECT concat_ws(' ', count(*), min(k), max(k), count(*) FILTER (WHERE note <> 'n' || k || '..')) FROM t").Scan(&got)
		if err == nil {
			err = conn.QueryRow(t.Context(), `SELECT concat_ws(' ', (SELECT string_agg(slot_name, ' ') FROM pg_replication_slots), (SELECT string_agg(pubname, ' ') FROM pg_publication), (SELECT string_agg(subname, ' ') FROM pg_subscription),
				(SELECT string_agg(tgname, ' ') FROM pg_trigger), (SELECT string_agg(evtname, ' ') FROM pg_event_trigger), (SELECT string_agg(move::text, ' ') FROM rangefinder.fence))`).Scan(&left)
		}
		conn.Close(t.Context())
		if err != nil || got != want || left != "" {
			t.Errorf("%s: %s, want %s; left: %q; %v", database, got, want, left, err)
		}
	}
}

// watched are servers with something that happens at each report of a copy.
type watched struct {
	Servers
	at func(Copied)
}

func (w *watched) Copy(ctx context.Context, j *Job, report func(Copied)) (Identity, error) {
	return w.Servers.Copy(ctx, j, func(c Copied) {
		report(c)
		w.at(c)
	})
}

// TestRowsStayInPlace: who writes a table anew (VACUUM FULL, CLUSTER) while it is copied, or read back, waits until that is done: else rows are not
// where they are looked for.
func TestRowsStayInPlace(t *testing.T) {
	r := startRig(t, false, pgtest.Options{}, "CREATE TABLE t (k bigint PRIMARY KEY, note text) PARTITION BY RANGE (k); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10000); CREATE TABLE t_2 PARTITION OF t DEFAULT")
	k := &kind{method: "range", types: []rib.Type{rib.TypeBigint}, columns: []string{"k"}}
	r.of(k.keyspace("t"))
	for name := range r.shards { // what is removed at the front, a table that is written anew has no more
		if err := r.at(name).primary.Exec(t.Context(), "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(40000, 70000) AS g", "DELETE FROM t"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.at("shard_1").primary.Exec(t.Context(), "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 35000) AS g"); err != nil {
		t.Fatal(err)
	}
	low, high, err := r.ks.ParseInterval("5000..35001")
	if err != nil {
		t.Fatal(err)
	}
	r.config.Workers = 1
	tried := map[string]error{}
	m := r.mover(func(c *Config) {
		c.Servers = &watched{c.Servers, func(is Copied) {
			name := "shard_1"
			if is.Part > copyPart {
				name = "shard_2"
			}
			if _, again := tried[name]; !again {
				tried[name] = r.at(name).primary.Exec(t.Context(), "SET lock_timeout = '200ms'", "VACUUM FULL t_2")
			}
		}}
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if told := fmt.Sprint(r.book.became()); told != "[flipped]" {
		t.Error(told)
	}
	for _, name := range []string{"shard_1", "shard_2"} {
		if err, done := tried[name]; !done || sqlState(err) != codeLockNotAvailable {
			t.Errorf("VACUUM FULL on %s: %v, %v", name, done, err)
		}
	}
	if got := r.query("shard_2", "SELECT concat_ws(' ', count(*), min(k), max(k)) FROM t"); got != "30001 5000 35000" {
		t.Errorf("the target has %s", got)
	}
	r.clean()
}
