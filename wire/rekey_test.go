package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// TestUpdateOfTheKey: an UPDATE that gives rows another key moves them to the shard that owns it, all or none, and tells what PostgreSQL tells.
func TestUpdateOfTheKey(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	other := r.keyOn("shard_1", one+1)
	for _, mode := range queryModes {
		t.Run(mode.String(), func(t *testing.T) {
			conn := r.connect(mode)
			exec := func(sql string, args ...any) string {
				t.Helper()
				tag, err := conn.Exec(ctx, sql, args...)
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				return tag.String()
			}
			on := func(want1, want2 int) {
				t.Helper()
				if each, _ := r.onShards(t, "SELECT count(*) FROM orders"); each[0] != want1 || each[1] != want2 {
					t.Errorf("%v rows, want %d and %d", each, want1, want2)
				}
			}
			exec("DELETE FROM orders")
			for i, key := range []int64{one, one, two} {
				exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'it\"s \\ {rows} ''quoted''')", key, i)
			}
			on(2, 1)
			if got := texts(t, conn, "UPDATE orders SET customer_id = $1, item = item || $3 WHERE customer_id = $2 AND id = 0 RETURNING *, id + 1 AS next", two, one, "!"); len(got) != 1 || got[0] != fmt.Sprint(two, int64(0), `it"s \ {rows} 'quoted'!`, int64(1)) {
				t.Errorf("returned %q", got)
			}
			on(1, 2)
			if tag := exec("UPDATE orders SET customer_id = $1 WHERE id = 1", other); tag != "UPDATE 1" { // it stays
				t.Error(tag)
			}
			on(1, 2)
			exec("BEGIN")
			exec("SAVEPOINT s")
			if tag := exec("UPDATE orders SET customer_id = CASE customer_id WHEN $1 THEN $2::bigint ELSE $1 END", two, other); tag != "UPDATE 3" {
				t.Error(tag)
			}
			if got := texts(t, conn, "SELECT count(*) FROM orders WHERE customer_id = $1", two); len(got) != 1 || got[0] != "1" {
				t.Errorf("%q", got)
			}
			exec("ROLLBACK TO s")
			exec("COMMIT")
			on(1, 2)
			if _, err := conn.Exec(ctx, "UPDATE orders SET customer_id = $1, id = 0 WHERE id = 1", two); err == nil { // it meets the one that is there
				t.Error("no error")
			} else {
				wantCode(t, err, "23505")
			}
			on(1, 2)
			_, err := conn.Exec(ctx, "UPDATE orders SET customer_id = NULL WHERE id = 1")
			wantCode(t, err, pg.CodeNullValueNotAllowed)
			if tag := exec("UPDATE orders SET customer_id = $1 WHERE false", two); tag != "UPDATE 0" {
				t.Error(tag)
			}
			if got := texts(t, conn, "UPDATE orders SET customer_id = customer_id WHERE false RETURNING id"); len(got) != 0 {
				t.Error(got)
			}
			r.busy(t, 0)
		})
	}
}

// TestUpdateOfTheKeyByTheTable: what else a table has goes with the rows, or keeps them where they are.
func TestUpdateOfTheKeyByTheTable(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	conn := r.connect(pgx.QueryExecModeExec)
	all := func(sql string) {
		t.Helper()
		for _, s := range r.servers {
			if err := s.primary.ExecIn(ctx, "app", sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	all(`CREATE TYPE mood AS ENUM ('sad', 'happy')`)
	all(`ALTER TABLE orders ADD COLUMN twice bigint GENERATED ALWAYS AS (id * 2) STORED, ADD COLUMN n int GENERATED ALWAYS AS IDENTITY, ADD COLUMN dropped int, ADD COLUMN feels mood,
		ADD COLUMN f float8, ADD COLUMN list text[], ADD COLUMN short varchar(5)`)
	all(`ALTER TABLE orders DROP COLUMN dropped`)
	all(`CREATE TABLE happened (what text); GRANT ALL ON happened TO app;
		CREATE FUNCTION happens() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO happened VALUES (TG_OP); RETURN coalesce(NEW, OLD); END $$;
		CREATE TRIGGER happens BEFORE INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION happens()`)
	exec("INSERT INTO orders (customer_id, id, feels, f, list) VALUES ($1, 7, 'sad', 0.1::float8 + 0.2::float8, ARRAY['a,b', NULL, '\"{'])", one)
	var n, twice int64
	var f float64
	var feels, list string
	row := conn.QueryRow(ctx, "UPDATE orders SET customer_id = $1, feels = 'happy', short = 'abc' WHERE id = 7 RETURNING n, twice, feels::text, f, list::text", two)
	if err := row.Scan(&n, &twice, &feels, &f, &list); err != nil || n != 1 || twice != 14 || feels != "happy" || f != 0.30000000000000004 || list != `{"a,b",NULL,"\"{"}` {
		t.Errorf("%d %d %s %v %s, %v", n, twice, feels, f, list, err)
	}
	if each, _ := r.onShards(t, "SELECT count(*) FROM happened"); each[0] != 2 || each[1] != 1 { // INSERT, DELETE; INSERT
		t.Errorf("triggers have run %v times", each)
	}
	_, err := conn.Exec(ctx, "UPDATE orders SET customer_id = $1, short = 'abcdef'", one)
	wantCode(t, err, "22001")
	_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1, feels = 1", one)
	wantCode(t, err, "42804")
	exec("SET extra_float_digits = 0")
	_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1", one)
	wantCode(t, err, pg.CodeFeatureNotSupported)
	exec("RESET extra_float_digits")
	for _, has := range []struct{ made, gone, detail string }{
		{"CREATE RULE kept AS ON DELETE TO orders DO INSTEAD NOTHING", "DROP RULE kept ON orders", "has rules"},
		{"CREATE TABLE child () INHERITS (orders)", "DROP TABLE child", "inherit"},
	} {
		all(has.made)
		_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1", one)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, has.detail) || e.Hint == "" {
			t.Errorf("%+v", e)
		}
		all(has.gone) // the catalog's own note of it is wrong until a VACUUM
		exec("UPDATE orders SET customer_id = $1", one)
		exec("UPDATE orders SET customer_id = $1", two)
	}
	all("DELETE FROM happened")
	all("CREATE TABLE parts (customer_id bigint, id bigint, FOREIGN KEY (customer_id, id) REFERENCES orders ON DELETE CASCADE)")
	_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1", one)
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, "parts_customer_id_id_fkey") || e.Hint == "" {
		t.Errorf("%+v", e)
	}
	exec("UPDATE orders SET customer_id = $1", two) // nothing moves
	all(`DROP TABLE parts; CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER keeps BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION keeps()`)
	_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1", one)
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, "kept some of them from being deleted") {
		t.Errorf("%+v", e)
	}
	all("DROP TRIGGER keeps ON orders; CREATE TRIGGER keeps BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION keeps()")
	_, err = conn.Exec(ctx, "UPDATE orders SET customer_id = $1", one)
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, "kept some of them from being inserted") {
		t.Errorf("%+v", e)
	}
	if each, _ := r.onShards(t, "SELECT count(*) FROM orders"); each[0] != 0 || each[1] != 1 {
		t.Errorf("%v rows", each)
	}
	r.busy(t, 0)
}

// TestUpdateOfTheKeyOnOneShard: without two-phase commit rows may get another key of their shard, and move nowhere.
func TestUpdateOfTheKeyOnOneShard(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	conn := r.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{"INSERT INTO orders (customer_id, id) VALUES ($1, 1)", "UPDATE orders SET customer_id = $1 WHERE customer_id = $1", "UPDATE orders SET customer_id = $1::bigint + 0"} {
		if tag, err := conn.Exec(ctx, sql, one); err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("%s: %v %v", sql, tag, err)
		}
	}
	for _, sql := range []string{"UPDATE orders SET customer_id = $1", "UPDATE orders SET customer_id = $1 WHERE customer_id = $2"} {
		_, err := conn.Exec(ctx, sql, []any{two, one}[:strings.Count(sql, "$")]...)
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "cross_shard_writes") {
			t.Errorf("%+v", e)
		}
	}
	if each, _ := r.onShards(t, "SELECT count(*) FROM orders"); each[0] != 1 || each[1] != 0 {
		t.Errorf("%v rows", each)
	}
	r.busy(t, 0)
}

// An UPDATE of the key whose rows exceed what it may keep ends when they do, and does not have the shards send the others.
func TestUpdateOfTheKeyIsBounded(t *testing.T) {
	s := newSpread(t, rigOptions{})
	for _, key := range []int64{s.one, s.two} {
		s.exec("INSERT INTO orders (customer_id, id, item) SELECT $1, i, repeat('x', 8000) FROM generate_series(1, 500) i", key)
	}
	s.live.QueryMemory = 100 << 10
	s.server.Reload(s.live)
	s.exec("BEGIN")
	s.exec("SAVEPOINT a")
	began := time.Now()
	_, err := s.conn.Exec(s.ctx, "UPDATE orders SET customer_id = $1 WHERE pg_sleep(0.02) IS NOT NULL", s.two)
	wantCode(t, err, pg.CodeOutOfMemory)
	if took := time.Since(began); took > 7*time.Second { // all of them take 10 s
		t.Errorf("it took %v", took)
	}
	s.exec("ROLLBACK TO a")
	if got := s.read("SELECT count(*)::text FROM orders"); got != "1000" {
		t.Errorf("%s rows", got)
	}
	s.exec("COMMIT")
	s.busy(t, 0)
}
