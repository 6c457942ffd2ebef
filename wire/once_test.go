package wire_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// newTagged is a rig with a reference table that has defaults of its own, and one without a primary key.
func newTagged(t *testing.T, o rigOptions) *spread {
	s := newSpread(t, o)
	for i, server := range s.servers {
		for _, sql := range []string{
			"CREATE TYPE mood AS ENUM ('sad', 'ok')", "ALTER TYPE mood OWNER TO app",
			"CREATE TABLE tags (id serial PRIMARY KEY, name text UNIQUE, made timestamptz DEFAULT now(), luck float8 DEFAULT random(), feels mood DEFAULT 'ok', " +
				"twice float8 GENERATED ALWAYS AS (luck * 2) STORED, words text[])",
			"CREATE TABLE lines (n int, at timestamptz DEFAULT clock_timestamp())",
			"GRANT ALL ON tags, lines TO app", "GRANT ALL ON SEQUENCE tags_id_seq TO app",
			fmt.Sprintf("SELECT setval('tags_id_seq', %d)", 100*(i+1)), // so that it shows whose is used
		} {
			if err := server.primary.ExecIn(s.ctx, "app", sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	s.own(func(o *rib.Ownership) {
		o.Catalog++
		o.Keyspaces[1].Tables = append(o.Keyspaces[1].Tables, rib.KeyedTable{Schema: "public", Name: "tags", Columns: []string{"id", "made", "luck"}},
			rib.KeyedTable{Schema: "public", Name: "lines", Columns: []string{"at"}})
	})
	return s
}

// copies are what the shards have of a table: the same everywhere, or the test fails.
func (s *spread) copies(table string) string {
	s.t.Helper()
	var first string
	for i, server := range s.servers {
		conn, err := server.primary.ConnTo(s.ctx, "app", "")
		if err != nil {
			s.t.Fatal(err)
		}
		var got string
		err = conn.QueryRow(s.ctx, "SELECT coalesce(string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM "+table+" x").Scan(&got)
		conn.Close(context.Background())
		if err != nil {
			s.t.Fatal(err)
		}
		if i == 0 {
			first = got
		}
		if got != first {
			s.t.Errorf("the copies of %s differ:\n%s\nand\n%s", table, first, got)
		}
	}
	return first
}

// A write to a reference table whose values servers would each compute otherwise is evaluated once, and all copies get what came of it.
func TestReferenceEvaluatedOnce(t *testing.T) {
	s := newTagged(t, rigOptions{})
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			s.t, s.conn = t, s.connect(mode)
			s.exec("DELETE FROM tags")
			steps := []struct {
				sql, tag string
				rows     int
				args     []any
			}{
				{"INSERT INTO tags (name) VALUES ($1)", "INSERT 0 1", 1, []any{`it's "quoted" \`}},
				{"INSERT INTO tags (name, words) VALUES ('b', ARRAY['x y', NULL, '{\"']), ('c', '{}'), ($1, DEFAULT)", "INSERT 0 3", 4, []any{nil}},
				{"INSERT INTO tags (name, made, feels) SELECT 'n' || i, clock_timestamp(), 'sad' FROM generate_series(1, $1::int) i", "INSERT 0 5", 9, []any{5}},
				{"INSERT INTO tags (name) VALUES ('b'), ('z') ON CONFLICT DO NOTHING", "INSERT 0 1", 10, nil},
				{"INSERT INTO tags (name) VALUES ('b'), ('y') ON CONFLICT (name) DO UPDATE SET made = excluded.made, luck = random(), words = '{new}'", "INSERT 0 2", 11, nil},
				{"INSERT INTO tags DEFAULT VALUES", "INSERT 0 1", 12, nil},
				{"UPDATE tags SET luck = random(), made = now() WHERE name LIKE 'n%'", "UPDATE 5", 12, nil},
				{"UPDATE tags AS t SET (luck, feels) = (random(), 'ok') FROM countries c WHERE c.code = t.name", "UPDATE 0", 12, nil},
				{"UPDATE tags SET made = DEFAULT", "UPDATE 12", 12, nil},
				{"DELETE FROM tags WHERE luck > random() + 1 OR name = 'c'", "DELETE 1", 11, nil},
				{"DELETE FROM tags WHERE id IN (SELECT id FROM tags LIMIT 2)", "DELETE 2", 9, nil},
				{"INSERT INTO countries (code, name) VALUES (gen_random_uuid(), current_user)", "INSERT 0 1", 9, nil},
			}
			for _, c := range steps {
				tag, err := s.conn.Exec(s.ctx, c.sql, c.args...)
				if err != nil {
					t.Fatalf("%s: %v", c.sql, err)
				}
				rows := strings.Count(s.copies("tags"), "\n") + 1
				if tag.String() != c.tag || rows != c.rows {
					t.Errorf("%s: %s and %d rows, want %s and %d", c.sql, tag, rows, c.tag, c.rows)
				}
			}
			s.copies("countries")
			// Ids come of one sequence, and RETURNING tells them, in the format that was asked for.
			var id, next int64
			var made any
			if err := s.conn.QueryRow(s.ctx, "INSERT INTO tags AS x (name) VALUES ('r') RETURNING x.id, id + 1, made").Scan(&id, &next, &made); err != nil || next != id+1 || id >= 200 {
				t.Errorf("%d and %d, %v", id, next, err)
			}
			if !strings.Contains(s.copies("tags"), fmt.Sprintf("(%d,r,", id)) {
				t.Error("the row that is returned is not there")
			}
			// In a transaction, with what that has written before; and rolled back.
			s.exec("BEGIN")
			s.exec("INSERT INTO tags (name) VALUES ('t')")
			s.exec("UPDATE tags SET luck = random() WHERE name = 't'")
			s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, $2)", s.one, id)
			s.exec("COMMIT")
			before := s.copies("tags")
			s.exec("BEGIN")
			s.exec("INSERT INTO tags (name) VALUES ('u')")
			s.exec("ROLLBACK")
			if after := s.copies("tags"); after != before || !strings.Contains(after, ",t,") {
				t.Errorf("%s\nwas\n%s", after, before)
			}
			if _, err := s.conn.Exec(s.ctx, "INSERT INTO tags (name) VALUES ('t')"); err == nil {
				t.Error("no error")
			} else {
				wantCode(t, err, "23505")
			}
			s.copies("tags")
			s.busy(t, 0)
		})
	}
}

// What cannot be given to the other copies is refused, with the reason, and nothing is written.
func TestReferenceEvaluatedOnceOrNot(t *testing.T) {
	s := newTagged(t, rigOptions{})
	s.exec("INSERT INTO tags (id, name, made, luck) VALUES (1, 'a', '2024-01-01', 0), (2, 'b', '2024-01-01', 1)")
	s.exec("INSERT INTO lines (n) VALUES (1)") // what is inserted needs no key
	before, lines := s.copies("tags"), s.copies("lines")
	for sql, why := range map[string]string{
		"UPDATE lines SET at = now()":                                                            "no primary key",
		"UPDATE tags SET id = id * 500 + random()::int":                                          "primary key",
		"INSERT INTO tags (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET id = excluded.id": "primary key",
		"WITH x AS (DELETE FROM tags RETURNING *) INSERT INTO tags (name) SELECT 'q' FROM x":     "WITH",
		"UPDATE tags SET luck = o.id * random() FROM orders o":                                   "a sharded table as well",
		"EXPLAIN ANALYZE UPDATE tags SET luck = random()":                                        "EXPLAIN ANALYZE",
	} {
		_, err := s.conn.Exec(s.ctx, sql)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, why) || e.Hint == "" {
			t.Errorf("%s: %+v", sql, e)
		}
	}
	s.exec("SET extra_float_digits = 0")
	_, err := s.conn.Exec(s.ctx, "UPDATE tags SET luck = random()")
	wantCode(t, err, pg.CodeFeatureNotSupported)
	s.exec("RESET extra_float_digits")
	s.exec("EXPLAIN UPDATE tags SET luck = random()")
	// A trigger that makes of a row something else each time, and a copy that differs already.
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "CREATE FUNCTION adds() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$",
			"CREATE TRIGGER adds BEFORE INSERT ON tags FOR EACH ROW EXECUTE FUNCTION adds()"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.conn.Exec(s.ctx, "INSERT INTO tags (name) VALUES ('c')")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Message, "would not be the same") || !strings.Contains(e.Detail, "trigger") {
		t.Errorf("%+v", e)
	}
	if after := s.copies("tags"); after != before || s.copies("lines") != lines {
		t.Errorf("%s\nwas\n%s", after, before)
	}
	if err := s.servers[1].primary.ExecIn(s.ctx, "app", "UPDATE tags SET words = '{other}' WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	_, err = s.conn.Exec(s.ctx, "UPDATE tags SET luck = random()")
	wantCode(t, err, pg.CodeFeatureNotSupported)
	// A row that another transaction has inserted may be seen on one shard first: that is worth another try.
	if err := s.servers[1].primary.ExecIn(s.ctx, "app", "DELETE FROM tags WHERE id = 2"); err != nil {
		t.Fatal(err)
	}
	_, err = s.conn.Exec(s.ctx, "DELETE FROM tags WHERE luck < random() + 5")
	wantCode(t, err, pg.CodeSerializationFailure)
	s.busy(t, 0)
	refusing := newTagged(t, rigOptions{})
	refusing.exec("SET rangefinder.cross_shard_writes = 'refuse'")
	_, err = refusing.conn.Exec(refusing.ctx, "INSERT INTO tags (name) VALUES ('a')")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "cross_shard_writes") {
		t.Errorf("%+v", e)
	}
}

// COPY into a reference table fills all copies, or none.
func TestCopyIntoReference(t *testing.T) {
	s := newTagged(t, rigOptions{})
	fill := func(sql, data string) (string, error) {
		tag, err := s.conn.PgConn().CopyFrom(s.ctx, strings.NewReader(data), sql)
		return tag.String(), err
	}
	var big strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&big, "c%d,\"name, %d\"\n", i, i)
	}
	for _, c := range []struct{ sql, data, want string }{
		{"COPY countries FROM STDIN", "de\tGermany\nfr\t\\N\n", "COPY 2"},
		{"COPY countries (name, code) FROM STDIN CSV HEADER", "name,code\n\"Italy\",it\n", "COPY 1"},
		{"COPY countries FROM STDIN CSV", big.String(), "COPY 20000"},
		{"COPY tags (id, name, made, luck) FROM STDIN", "1\ta\t2024-01-01\t0\n", "COPY 1"},
	} {
		if tag, err := fill(c.sql, c.data); err != nil || tag != c.want {
			t.Errorf("%s: %s, %v", c.sql, tag, err)
		}
	}
	if got := s.copies("tags"); !strings.HasPrefix(got, "(1,a,") {
		t.Errorf("%s", got)
	}
	before := s.copies("countries")
	if n := strings.Count(before, "\n"); n != 20002 {
		t.Errorf("%d rows", n+1)
	}
	if n, err := s.conn.CopyFrom(s.ctx, pgx.Identifier{"countries"}, []string{"code", "name"}, pgx.CopyFromRows([][]any{{"xx", "binary"}})); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if s.copies("countries") == before {
		t.Error("nothing came in binary format")
	}
	before = s.copies("countries")
	_, err := fill("COPY countries FROM STDIN", "a1\tx\na2\ty\nde\tagain\n")
	if e := wantCode(t, err, "23505"); !strings.Contains(e.Where, "line 3") {
		t.Errorf("%+v", e)
	}
	_, err = fill("COPY countries FROM STDIN", "a1\tx\tz\n")
	wantCode(t, err, "22P04")
	_, err = fill("COPY tags (name) FROM STDIN", "a\n")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, "COPY gives no id") {
		t.Errorf("%+v", e)
	}
	s.exec("BEGIN")
	if tag, err := fill("COPY countries FROM STDIN", "a1\tx\n"); err != nil || tag != "COPY 1" {
		t.Errorf("%s, %v", tag, err)
	}
	s.exec("ROLLBACK")
	if s.copies("countries") != before {
		t.Error("something is left")
	}
	s.busy(t, 0)
}

// What is put together of several shards' rows can be copied as well, in all formats as PostgreSQL writes it.
func TestCopyOfMergedRows(t *testing.T) {
	s := newSpread(t, rigOptions{})
	for i, item := range []any{"plain", nil, "", "tab\there", "line\nbreak", `back\slash`, `"quoted", it's`, `\.`, "\\N", "\x01\x08\x0b\x0c\r", "émile;|"} {
		s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, $3)", []int64{s.one, s.two}[i%2], i, item)
	}
	plain, err := s.servers[0].primary.ConnTo(s.ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close(context.Background())
	if _, err := plain.Exec(s.ctx, "CREATE TABLE whole AS SELECT * FROM orders"); err != nil {
		t.Fatal(err)
	}
	rows, err := s.conn.Query(s.ctx, "SELECT * FROM orders WHERE customer_id = $1", s.two)
	if err != nil {
		t.Fatal(err)
	}
	others, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.CopyFrom(s.ctx, pgx.Identifier{"whole"}, []string{"customer_id", "id", "item"}, pgx.CopyFromRows(others)); err != nil {
		t.Fatal(err)
	}
	queries := []string{
		"SELECT * FROM orders ORDER BY id", "SELECT item FROM orders ORDER BY id DESC LIMIT 7 OFFSET 1", "SELECT id % 2, count(*), max(item COLLATE \"C\") FROM orders GROUP BY 1 ORDER BY 1",
		"SELECT item FROM orders ORDER BY item || id", "SELECT count(*) FROM orders", "SELECT id, item FROM orders WHERE id < 0 ORDER BY id", "SELECT DISTINCT id % 3 AS d FROM orders ORDER BY d",
	}
	for _, query := range queries {
		for _, options := range []string{"", "(FORMAT csv)", "(FORMAT csv, HEADER)", "(HEADER)", "(FORMAT binary)", "(DELIMITER '|', NULL 'none')",
			"(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL 'plain', FORCE_QUOTE *)"} {
			var want, got strings.Builder
			wantTag, err := plain.PgConn().CopyTo(s.ctx, &want, "COPY ("+strings.ReplaceAll(query, "orders", "whole")+") TO STDOUT "+options)
			if err != nil {
				t.Fatalf("%s %s: %v", query, options, err)
			}
			tag, err := s.conn.PgConn().CopyTo(s.ctx, &got, "COPY ("+query+") TO STDOUT "+options)
			if err != nil || tag != wantTag || got.String() != want.String() {
				t.Errorf("%s %s: %s, %v\n%q\nwant %s\n%q", query, options, tag, err, got.String(), wantTag, want.String())
			}
		}
	}
	_, err = s.conn.PgConn().CopyTo(s.ctx, new(strings.Builder), "COPY (SELECT 1 / id, id FROM orders ORDER BY id) TO STDOUT")
	wantCode(t, err, "22012")
	_, err = s.conn.PgConn().CopyTo(s.ctx, new(strings.Builder), "COPY (SELECT id FROM orders ORDER BY id) TO STDOUT (ENCODING 'latin1')")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "client_encoding") {
		t.Errorf("%+v", e)
	}
	exchange := s.raw()
	raw := pg.AppendDescribe(append(pg.AppendParse(nil, "", "COPY (SELECT id FROM orders ORDER BY id LIMIT 2) TO STDOUT", nil), bound...), pg.KindPortal, "")
	if got := exchange(pg.AppendSync(pg.AppendExecute(raw, "", 1))); got != "1 2 n H d d c C(COPY 2) Z" {
		t.Error(got)
	}
	s.busy(t, 0)
}
