package wire_test

import (
	"strings"
	"testing"

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
			again("INSERT INTO tags (id, name, made, luck) SELECT 9, code, '2024-01-01', 0 FROM countries")
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
