package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// What one copy of a reference table shows and another does not yet, for it is about to be committed there, must not have writes do another thing to
// each: they are to be tried again.
func TestReferenceCopiesDoTheSame(t *testing.T) {
	s := newTagged(t, rigOptions{})
	on := func(shard int, sql ...string) {
		t.Helper()
		if err := s.servers[shard].primary.ExecIn(s.ctx, "app", sql...); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			s.t, s.conn = t, s.connect(mode)
			s.exec("DELETE FROM countries")
			const inserted = "INSERT INTO countries VALUES ('de', 'Germany')"
			on(0, inserted)
			on(1, "BEGIN", inserted, "PREPARE TRANSACTION 'halfway'")
			t.Cleanup(func() { // it would stand in the others' way
				if t.Failed() {
					_ = s.servers[1].primary.ExecIn(s.ctx, "app", "ROLLBACK PREPARED 'halfway'")
				}
			})
			again := func(sql string, args ...any) {
				t.Helper()
				_, err := s.conn.Exec(s.ctx, sql, args...)
				if e := wantCode(t, err, pg.CodeSerializationFailure); e.Hint == "" || !strings.Contains(e.Detail, "shard_2") {
					t.Errorf("%s: %+v", sql, e)
				}
			}
			again("UPDATE countries SET name = $1 WHERE code = 'de'", "x")
			again("UPDATE countries SET name = 'x' WHERE code = 'de' RETURNING *")
			again("DELETE FROM countries")
			again("WITH gone AS (DELETE FROM countries RETURNING code) SELECT count(*) FROM gone")
			again("WITH gone AS (DELETE FROM countries RETURNING code) SELECT code FROM gone")
			// What reads another one is evaluated once.
			s.exec("INSERT INTO tags (id, name, made, luck) SELECT 9, code, '2024-01-01', 0 FROM countries")
			s.exec("UPDATE tags SET name = (SELECT max(name) FROM countries), luck = (SELECT count(*) FROM countries) WHERE id = 9")
			if got := s.copies("tags"); !strings.HasPrefix(got, "(9,Germany,") || !strings.Contains(got, ",1,ok,2,") {
				t.Error(got)
			}
			s.exec("DELETE FROM tags USING countries WHERE tags.name = countries.name")
			if got := s.copies("tags"); got != "" {
				t.Error(got)
			}
			s.exec("BEGIN")
			again("DELETE FROM countries")
			_, err := s.conn.Exec(s.ctx, "SELECT 1")
			wantCode(t, err, "25P02")
			s.exec("ROLLBACK")
			on(1, "COMMIT PREPARED 'halfway'")
			if got := s.copies("countries"); got != "(de,Germany)" {
				t.Error(got)
			}
			if tag, err := s.conn.Exec(s.ctx, "UPDATE countries SET name = $1 WHERE code = 'de'", "x"); err != nil || tag.String() != "UPDATE 1" {
				t.Errorf("%s, %v", tag, err)
			}
			if got := s.read("UPDATE countries SET name = $1 WHERE code = 'de' RETURNING code, name", "y"); got != "de|y" {
				t.Error(got)
			}
			s.copies("countries")
			s.busy(t, 0)
		})
	}
	// A copy that leaves out rows which it is given.
	on(1, "CREATE FUNCTION skips() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.code = 'fr' THEN RETURN NULL; END IF; RETURN NEW; END $$",
		"CREATE TRIGGER skips BEFORE INSERT ON countries FOR EACH ROW EXECUTE FUNCTION skips()")
	before := s.copies("countries")
	_, err := s.conn.PgConn().CopyFrom(s.ctx, strings.NewReader("fr\tFrance\nit\tItaly\n"), "COPY countries FROM STDIN")
	if e := wantCode(t, err, pg.CodeSerializationFailure); !strings.Contains(e.Detail, "shard_2") {
		t.Errorf("%+v", e)
	}
	if tag, err := s.conn.PgConn().CopyFrom(s.ctx, strings.NewReader("it\tItaly\n"), "COPY countries FROM STDIN"); err != nil || tag.String() != "COPY 1" {
		t.Errorf("%s, %v", tag, err)
	}
	if s.copies("countries") == before {
		t.Error("nothing is copied any more")
	}
	s.busy(t, 0)
}

// Who locks or writes rows of a reference table does so on one shard first, the same for all: there they meet, and not on several in a circle.
func TestReferenceLocksMeetOnOneShard(t *testing.T) {
	s := newTagged(t, rigOptions{})
	s.exec("INSERT INTO countries VALUES ('de', 'Germany')")
	other := s.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{"UPDATE countries SET name = 'x'", "UPDATE countries SET name = 'x' RETURNING *", "DELETE FROM countries WHERE code = 'fr' OR name = 'Germany'"} {
		tx, err := other.Begin(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(s.ctx, "SELECT * FROM countries FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		s.exec("BEGIN")
		ended := s.begin(sql)
		pgtest.Eventually(t, patience, func() error {
			n, sql := 0, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"
			conn, err := s.servers[0].primary.ConnTo(s.ctx, "app", "")
			if err != nil {
				return err
			}
			defer conn.Close(context.Background())
			if err := conn.QueryRow(s.ctx, sql).Scan(&n); err != nil || n != 1 {
				return fmt.Errorf("%d wait, %v", n, err)
			}
			return nil
		})
		if err := s.servers[1].primary.ExecIn(s.ctx, "app", "SELECT * FROM countries FOR UPDATE NOWAIT"); err != nil {
			t.Errorf("%s: rows are locked on the second shard before they are on the first: %v", sql, err)
		}
		if err := tx.Rollback(s.ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.exec("ROLLBACK")
	}
	if got := s.copies("countries"); got != "(de,Germany)" {
		t.Error(got)
	}
	s.busy(t, 0)
}

// A parameter that is the time at which it is read would be another one on each shard.
func TestReferenceParametersThatTellNow(t *testing.T) {
	s := newTagged(t, rigOptions{})
	run := func(sql string, oids []uint32, values ...string) error {
		t.Helper()
		params := make([][]byte, len(values))
		for i, v := range values {
			params[i] = []byte(v)
		}
		_, err := s.conn.PgConn().ExecParams(s.ctx, sql, params, oids, nil, nil).Close()
		return err
	}
	const insert = "INSERT INTO tags (id, luck, name, made) VALUES ($1, 0, $2, $3)"
	for _, v := range []string{"now", "Today 12:00", "now()", "yesterday"} {
		e := wantCode(t, run(insert, nil, "1", "a", v), pg.CodeFeatureNotSupported)
		if !strings.Contains(e.Message, "$3") || e.Hint == "" {
			t.Errorf("%+v", e)
		}
		wantCode(t, run("INSERT INTO tags (id, luck, name, made) VALUES (1, 0, 'a', $1::timestamptz)", []uint32{25}, v), pg.CodeFeatureNotSupported)
		wantCode(t, run("INSERT INTO tags (id, luck, name, made) VALUES (1, 0, 'a', $1::text::timestamptz)", nil, v), pg.CodeFeatureNotSupported)
	}
	if _, err := s.conn.Prepare(s.ctx, "dated", insert); err != nil {
		t.Fatal(err)
	}
	err := s.conn.PgConn().ExecPrepared(s.ctx, "dated", [][]byte{[]byte("1"), []byte("a"), []byte("tomorrow")}, nil, nil).Read().Err
	wantCode(t, err, pg.CodeFeatureNotSupported)
	if got := s.copies("tags"); got != "" {
		t.Error(got)
	}
	for i, v := range []string{"2024-01-01", "infinity"} {
		if err := run(insert, nil, fmt.Sprint(i), "now or never"+v, v); err != nil {
			t.Error(err)
		}
	}
	if err := run("UPDATE countries SET name = $1", nil, "today"); err != nil {
		t.Error(err)
	}
	if got := strings.Count(s.copies("tags"), "now or never"); got != 2 {
		t.Error(got)
	}
	s.exec("DELETE FROM tags")
	s.exec("INSERT INTO tags (id, luck, name, made) VALUES (1, 0, 'a', 'today 12:00'), (2, 0, 'b', 'now()')")
	s.copies("tags")
	s.busy(t, 0)
}

// What is evaluated once is given to the other copies also where nothing but generated columns is assigned, and where the primary key's index includes
// other columns.
func TestReferenceEvaluatedOnceByItsKey(t *testing.T) {
	s := newTagged(t, rigOptions{})
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "CREATE TABLE packed (made timestamptz, id int, n int, PRIMARY KEY (id) INCLUDE (made))", "GRANT ALL ON packed TO app"); err != nil {
			t.Fatal(err)
		}
	}
	s.own(func(o *rib.Ownership) {
		o.Catalog++
		o.Keyspaces[1].Tables = append(o.Keyspaces[1].Tables, rib.KeyedTable{Schema: "public", Name: "packed"})
	})
	for _, c := range []struct{ sql, tag string }{
		{"INSERT INTO packed (id, made, n) VALUES (1, now(), 1), (2, now(), 1)", "INSERT 0 2"},
		{"UPDATE packed SET made = clock_timestamp()", "UPDATE 2"},
		{"INSERT INTO packed (id, made) VALUES (2, now()), (3, now()) ON CONFLICT (id) DO UPDATE SET made = excluded.made, n = 5", "INSERT 0 2"},
		{"DELETE FROM packed WHERE made < now() + '1 hour' AND n = 5", "DELETE 1"},
		{"INSERT INTO tags (name) VALUES ('a'), ('b')", "INSERT 0 2"},
		{"UPDATE tags SET twice = DEFAULT WHERE luck < random() + 5", "UPDATE 2"},
		{"INSERT INTO tags (name) VALUES ('b'), ('c') ON CONFLICT (name) DO UPDATE SET twice = DEFAULT", "INSERT 0 2"},
	} {
		if tag, err := s.conn.Exec(s.ctx, c.sql); err != nil || tag.String() != c.tag {
			t.Errorf("%s: %s, %v; want %s", c.sql, tag, err, c.tag)
		}
	}
	if got := strings.Count(s.copies("packed"), "\n"); got != 1 {
		t.Errorf("%d rows", got+1)
	}
	if got := strings.Count(s.copies("tags"), "\n"); got != 2 {
		t.Errorf("%d rows", got+1)
	}
	s.busy(t, 0)
}

// Options of a COPY whose data the node makes are checked as those of any other.
func TestCopyOfMergedRowsChecksOptions(t *testing.T) {
	s := newSpread(t, rigOptions{poolSize: 1})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	plain, err := s.servers[0].primary.ConnTo(s.ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close(context.Background())
	for _, options := range []string{"(FORMAT csv, FORMAT csv)", "(DELIMITER 'ab')", "(QUOTE 'x')", "(FORMAT csv, FORCE_QUOTE (nosuch))", "(FORMAT csv, FORCE_QUOTE (id))", "(HEADER match)", "(nosuch 1)",
		"(DELIMITER 'a')", "(FORMAT binary, HEADER)", "(FORMAT csv, NULL 0, DELIMITER 1)", "(DELIMITER 0)", "(FORMAT csv, FORCE_NULL (id))", "CSV HEADER QUOTE AS ''''"} {
		copied := func(conn *pgx.Conn) (string, string) {
			var b strings.Builder
			tag, err := conn.PgConn().CopyTo(s.ctx, &b, "COPY (SELECT id, item FROM orders ORDER BY id) TO STDOUT "+options)
			var e *pgconn.PgError
			if errors.As(err, &e) {
				return "", e.Code + " " + e.Message
			}
			if err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(tag.String(), " ")
			return b.String(), after
		}
		_, want := copied(plain)
		data, got := copied(s.conn)
		if failed := len(want) > 5; failed && got != want || !failed && got != "2" {
			t.Errorf("%s: %s %q, want %s", options, got, data, want)
		}
	}
	s.exec("BEGIN")
	_, err = s.conn.PgConn().CopyTo(s.ctx, new(strings.Builder), "COPY (SELECT id, item FROM orders ORDER BY id) TO STDOUT (DELIMITER 'ab')")
	wantCode(t, err, pg.CodeFeatureNotSupported)
	s.exec("ROLLBACK")
	s.busy(t, 0)
}

// EXPLAIN ANALYZE of a write to a reference table could not tell whether all copies do the same.
func TestReferenceWritesAreNotExplainedByDoing(t *testing.T) {
	s := newTagged(t, rigOptions{})
	s.exec("INSERT INTO countries VALUES ('de', 'Germany')")
	before := s.copies("countries")
	for _, sql := range []string{"EXPLAIN ANALYZE DELETE FROM countries", "EXPLAIN (ANALYZE, FORMAT JSON) INSERT INTO countries VALUES ('fr', 'France')", "EXPLAIN (ANALYZE) UPDATE countries SET name = 'x'"} {
		_, err := s.conn.Exec(s.ctx, sql)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "without ANALYZE") {
			t.Errorf("%s: %+v", sql, e)
		}
	}
	s.exec("EXPLAIN DELETE FROM countries")
	s.exec("EXPLAIN ANALYZE SELECT * FROM countries")
	if s.copies("countries") != before {
		t.Error("it was carried out")
	}
}

// A column of a reference table whose type is a domain with a default of its own is not filled by each server, nor is one that is there already made so.
func TestReferenceColumnsOfDomains(t *testing.T) {
	s := newTagged(t, rigOptions{})
	for _, server := range s.servers {
		if err := server.primary.ExecIn(s.ctx, "app", "ALTER TABLE countries OWNER TO app", "GRANT CREATE ON SCHEMA public TO app"); err != nil {
			t.Fatal(err)
		}
	}
	s.exec("INSERT INTO countries VALUES ('de', 'Germany')")
	for _, sql := range []string{"CREATE DOMAIN stamp AS timestamptz DEFAULT now()", "CREATE DOMAIN later AS stamp", "CREATE DOMAIN fixed AS int DEFAULT 3", "CREATE DOMAIN plain AS text"} {
		s.exec(sql)
	}
	for _, sql := range []string{
		"ALTER TABLE countries ADD COLUMN at stamp", "ALTER TABLE countries ADD COLUMN at public.later NOT NULL", "ALTER TABLE countries ADD COLUMN a int, ADD COLUMN at stamp",
		"ALTER TABLE countries ALTER COLUMN name TYPE stamp USING NULL",
	} {
		_, err := s.conn.Exec(s.ctx, sql)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Message, "a column of type") || e.Hint == "" {
			t.Errorf("%s: %+v", sql, e)
		}
	}
	s.exec("ALTER TABLE countries ADD COLUMN n fixed, ADD COLUMN note plain, ADD COLUMN at stamp DEFAULT NULL")
	_, err := s.conn.Exec(s.ctx, "ALTER DOMAIN plain SET DEFAULT clock_timestamp()::text")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Message, "column note of countries") {
		t.Errorf("%+v", e)
	}
	s.exec("ALTER DOMAIN plain SET DEFAULT 'x'")
	s.exec("ALTER DOMAIN stamp SET DEFAULT clock_timestamp()") // of which no column takes it
	s.exec("INSERT INTO countries (code) VALUES ('fr')")
	if got := s.copies("countries"); got != "(de,Germany,3,,)\n(fr,,3,x,)" {
		t.Error(got)
	}
}

// Data of a COPY into a reference table hold no time that each server would take for its own; what is no time may be called so.
func TestCopyIntoReferenceTellsNoNow(t *testing.T) {
	s := newTagged(t, rigOptions{})
	for _, x := range []struct{ sql, data, code string }{
		{"COPY tags (id, name, made, luck) FROM STDIN", "1\tnow\t2024-01-01\t0\n2\tb\tnow\t0\n", pg.CodeFeatureNotSupported},
		{"COPY tags (id, name, made, luck) FROM STDIN", "1\ta\t\\N\t0\n2\ttoday\t To\\x44ay 10:00 \t0", pg.CodeFeatureNotSupported},
		{"COPY tags (made, luck, id, name) FROM STDIN (FORMAT csv, HEADER)", "made,luck,id,name\n\"tomorrow\",0,1,x\n", pg.CodeFeatureNotSupported},
		{"COPY tags (id, name, made, luck) FROM STDIN (FORMAT csv)", "1,now,2024-01-01,0\n2,\"today,\",\"2024-01-02\",0\n", ""},
		{"COPY tags (id, name, made, luck) FROM STDIN", "3\tyesterday\t2024-01-01 10:00:00+00\t0\n", ""},
		{"COPY countries FROM STDIN", "no\tnow\n", ""},
	} {
		_, err := s.conn.PgConn().CopyFrom(s.ctx, strings.NewReader(x.data), x.sql)
		if x.code == "" {
			if err != nil {
				t.Errorf("%s: %v", x.sql, err)
			}
			continue
		}
		if e := wantCode(t, err, x.code); !strings.Contains(e.Where, "column made") || e.Hint == "" {
			t.Errorf("%s: %+v", x.sql, e)
		}
	}
	if got := s.copies("tags"); strings.Count(got, "\n") != 2 {
		t.Error(got)
	}
	s.busy(t, 0)
}
