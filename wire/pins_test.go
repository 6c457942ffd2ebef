package wire_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/console"
)

// pinnedAs waits until the only client that is tied to its connection is so for the reason; "" is nobody.
func (r *rig) pinnedAs(want string) {
	r.t.Helper()
	r.until(fmt.Sprintf("pinned as %q", want), func(s *console.Snapshot) bool {
		got := ""
		for _, c := range s.Clients {
			got += c.Pinned
		}
		return got == want
	})
}

// A session is tied to its connection as long as something of it lives there, and no longer.
func TestPinsEnd(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, c := range []struct {
		name string
		hold []string
		why  string
		free []string
	}{
		{"advisory lock", []string{"SELECT pg_advisory_lock(1)"}, "function pg_advisory_lock", []string{"SELECT pg_advisory_unlock(1)"}},
		{"shared advisory lock", []string{"SELECT pg_advisory_lock_shared(1, 2)"}, "function pg_advisory_lock_shared", []string{"SELECT pg_advisory_unlock_shared(1, 2)"}},
		{"one lock taken twice", []string{"SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"}, "function pg_advisory_lock", []string{"SELECT pg_advisory_unlock(1)"}},
		{"several locks at once", []string{"SELECT pg_try_advisory_lock(i) FROM generate_series(1, 5) i", "SELECT pg_advisory_unlock(2)"}, "function pg_try_advisory_lock", []string{"SELECT pg_advisory_unlock_all()"}},
		{"a lock that was not held is unlocked", []string{"SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(7)"}, "function pg_advisory_lock", []string{"SELECT pg_advisory_unlock(1)"}},
		{"lock in a transaction", []string{"BEGIN", "SELECT pg_advisory_lock(1)", "ROLLBACK"}, "function pg_advisory_lock", []string{"SELECT pg_advisory_unlock(1)"}},
		{"temporary table", []string{"CREATE TEMP TABLE t (a int)"}, "a temporary table", []string{"DROP TABLE t"}},
		{"temporary table of a query", []string{"CREATE TEMP TABLE t AS SELECT 1", "CREATE TEMP TABLE u AS SELECT 1", "DROP TABLE t"}, "a temporary table", []string{"DISCARD TEMP"}},
		{"temporary view", []string{"CREATE TEMP VIEW v AS SELECT 1"}, "a temporary view", []string{"DROP VIEW v"}},
		{"temporary view and index", []string{"CREATE TEMP TABLE t (a int)", "CREATE INDEX i ON t (a)", "CREATE TEMP VIEW v AS SELECT * FROM t", "ALTER VIEW v RENAME TO w", "ALTER INDEX i RENAME TO j"},
			"a temporary table", []string{"DISCARD TEMP"}},
		{"temporary index", []string{"CREATE TEMP TABLE t (a int)", "CREATE INDEX i ON t (a)", "DROP INDEX i"}, "a temporary table", []string{"DROP TABLE t"}},
		{"temporary sequence dropped", []string{"CREATE TEMP SEQUENCE s"}, "a temporary table", []string{"DROP SEQUENCE s"}},
		{"temporary sequence", []string{"CREATE TEMP SEQUENCE s"}, "a temporary table", []string{"DISCARD ALL"}},
		{"temporary function", []string{"CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"}, "a temporary object", []string{"DROP FUNCTION pg_temp.f()"}},
		{"temporary type", []string{"CREATE TYPE pg_temp.e AS ENUM ('a')"}, "a temporary object", []string{"DROP TYPE pg_temp.e"}},
		{"SELECT INTO", []string{"SELECT 1 AS a INTO TEMP t"}, "a temporary table", []string{"DROP TABLE t"}},
		{"temporary by the search_path", []string{"SET search_path = pg_temp, public", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "SELECT * FROM t", "RESET search_path", "SELECT * FROM t"}, "a temporary table", []string{"DROP TABLE t"}},
		{"temporary table, rolled back", []string{"CREATE TEMP TABLE t (a int)", "BEGIN", "DROP TABLE t", "ROLLBACK"}, "a temporary table", []string{"DROP TABLE t"}},
		{"cursor", []string{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c"}, "a cursor WITH HOLD", []string{"CLOSE c"}},
		{"two cursors", []string{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE d CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"}, "a cursor WITH HOLD", []string{"CLOSE ALL"}},
		{"cursor of a transaction", []string{"BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT body FROM notes", "COMMIT"}, "a cursor WITH HOLD", []string{"CLOSE c"}},
		{"two kinds", []string{"SELECT pg_advisory_lock(1)", "CREATE TEMP TABLE t (a int)", "SELECT pg_advisory_unlock(1)"}, "a temporary table", []string{"DROP TABLE t"}},
		{"several in one text", []string{"CREATE TEMP TABLE t (a int); SELECT pg_advisory_lock(1)"}, "a temporary table", []string{"DROP TABLE t; SELECT pg_advisory_unlock(1)"}},
	} {
		for mode, how := range map[string]pgx.QueryExecMode{"simple": pgx.QueryExecModeSimpleProtocol, "extended": pgx.QueryExecModeExec} {
			if how == pgx.QueryExecModeExec && strings.Contains(strings.Join(c.hold, ""), ";") {
				continue
			}
			t.Run(c.name+", "+mode, func(t *testing.T) {
				r.t = t
				conn := r.connect(how)
				run := func(sql []string) {
					for _, s := range sql {
						rows, err := conn.Query(ctxOf(t), s)
						if err == nil {
							rows.Close()
							err = rows.Err()
						}
						if err != nil {
							t.Fatalf("%s: %v", s, err)
						}
					}
				}
				run(c.hold)
				r.pinnedAs(c.why)
				r.busy(t, 1)
				run(c.free)
				r.pinnedAs("")
				r.busy(t, 0)
				run([]string{"SELECT body FROM notes"})
				conn.Close(context.Background())
			})
		}
	}
}

// What never came to be, or ends with its transaction, ties nobody.
func TestNoPin(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	for _, sql := range [][]string{
		{"CREATE TEMP TABLE t (a nonsense)"},
		{"BEGIN", "CREATE TEMP TABLE t (a int)", "ROLLBACK"},
		{"BEGIN", "CREATE TEMP TABLE t (a int) ON COMMIT DROP", "INSERT INTO t VALUES (1)", "COMMIT"},
		{"BEGIN", "SELECT pg_advisory_xact_lock(1)", "COMMIT"},
		{"SELECT pg_advisory_unlock(1)"},
		{"DECLARE c CURSOR WITH HOLD FOR SELECT 1/0"},
	} {
		for _, s := range sql {
			conn.Exec(ctxOf(t), s) // it may fail: what is left counts
		}
		r.pinnedAs("")
		r.busy(t, 0)
	}
}

// makeHelper makes a role that sessions may change to.
const makeHelper = "DO $$ BEGIN CREATE ROLE helper; EXCEPTION WHEN duplicate_object THEN NULL; END $$"

// leftovers is what a borrower must not find. Its row is all zeros, and the defaults.
const leftovers = `SELECT concat_ws(' ',
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
	(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
	(SELECT count(*) FROM pg_cursors WHERE is_holdable),
	(SELECT count(*) FROM pg_prepared_statements WHERE from_sql AND name !~ '^rf_'), -- ours are anybody's
	(SELECT coalesce(string_agg(name || '=' || setting, ',' ORDER BY name), 'none') FROM pg_settings WHERE source = 'session' AND name <> 'application_name'),
	current_user, session_user, current_setting('role'), current_setting('search_path'), current_setting('app.mine', true))`

// Sessions that leave all sorts of things behind, end as they like, and share a few connections: nobody finds anything of it.
func TestNothingLeaks(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 3})
	for _, s := range servers(t) {
		if err := s.primary.ExecIn(ctxOf(t), "app", makeHelper, "GRANT helper TO app"); err != nil {
			t.Fatal(err)
		}
	}
	statements := []string{
		"SELECT pg_advisory_lock(%d)", "SELECT pg_try_advisory_lock(%d)", "SELECT pg_advisory_unlock_all()", "CREATE TEMP TABLE IF NOT EXISTS t%d (a int)", "DROP TABLE IF EXISTS t%d",
		"DECLARE c%d CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL", "DISCARD ALL", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s",
		"SET work_mem = '%dMB'", "SET search_path = pg_catalog, public", "SET ROLE helper", "RESET ROLE", "SET LOCAL lock_timeout = '%ds'", "RESET ALL", "SELECT 1/0", "SELECT count(*) FROM notes",
		"SELECT set_config('statement_timeout', '%d00s', false)", "SET SESSION AUTHORIZATION DEFAULT", "SET TIME ZONE 'Asia/Tokyo'", "PREPARE p%d AS SELECT 1", "DEALLOCATE ALL", "SELECT setseed(0.%d)",
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 6 {
				cfg, err := pgx.ParseConfig(r.dsn())
				if err != nil {
					t.Error(err)
					return
				}
				cfg.DefaultQueryExecMode = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}[random.IntN(2)]
				conn, err := pgx.ConnectConfig(context.Background(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				for range random.IntN(8) {
					sql := statements[random.IntN(len(statements))]
					if strings.Contains(sql, "%d") {
						sql = fmt.Sprintf(sql, 1+random.IntN(9))
					}
					conn.Exec(context.Background(), sql) // whatever comes of it
				}
				if random.IntN(3) == 0 {
					conn.PgConn().Conn().Close() // no farewell
					continue
				}
				conn.Close(context.Background())
			}
		})
	}
	wg.Wait()
	r.busy(t, 0)
	var all []*pgx.Conn
	for range 3 {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		if _, err := conn.Exec(ctxOf(t), "BEGIN; LOCK TABLE notes IN ACCESS SHARE MODE"); err != nil { // it keeps its connection
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	r.busy(t, 3)
	for _, conn := range all {
		var got string
		if err := conn.QueryRow(ctxOf(t), leftovers).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if want := `0 0 0 0 none app app none "$user", public`; got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

// With pool_mode = "session" a client keeps its connection, to a primary, until it ends; the next one finds it clean.
func TestSessionMode(t *testing.T) {
	r := newRig(t, rigOptions{own: true, poolSize: 1})
	a := r.connect(pgx.QueryExecModeExec)
	var pid, again int
	const whoami = "SELECT pg_backend_pid() FROM (SELECT count(*) FROM notes) x"
	if err := a.QueryRow(ctxOf(t), whoami).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	r.pinnedAs(`pool_mode = "session"`)
	for _, sql := range []string{"CREATE TEMP TABLE t AS SELECT 1 AS a", "SELECT set_config('app.mine', 'x', false)", "DO $$ BEGIN PERFORM pg_advisory_lock(1); SET work_mem = '7MB'; END $$", "DISCARD PLANS"} {
		if _, err := a.Exec(ctxOf(t), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var mine, mem string
	if err := a.QueryRow(ctxOf(t), "SELECT current_setting('app.mine'), current_setting('work_mem') FROM t").Scan(&mine, &mem); err != nil || mine != "x" || mem != "7MB" {
		t.Errorf("%q %q %v: what a function has set is lost", mine, mem, err)
	}
	if pe := pgErr(t, a, "SELECT * FROM orders WHERE customer_id = "+fmt.Sprint(r.keyOn("shard_2", 1))); pe.Code != "0A000" || !strings.Contains(pe.Detail, "pool_mode") || pe.Hint == "" {
		t.Errorf("another shard: %s %s %s", pe.Code, pe.Message, pe.Detail)
	}
	if _, err := a.Exec(ctxOf(t), "DISCARD ALL"); err != nil {
		t.Fatal(err)
	}
	if err := a.QueryRow(ctxOf(t), whoami).Scan(&again); err != nil || again != pid {
		t.Errorf("backend %d, then %d; %v", pid, again, err)
	}
	for _, sql := range []string{"CREATE TEMP TABLE t AS SELECT 1 AS a", "SELECT pg_advisory_lock(2)", "SET work_mem = '8MB'"} {
		if _, err := a.Exec(ctxOf(t), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var name, poolMode string
	for _, line := range r.show("SHOW DATABASES") {
		if line["name"] == "app" {
			name, poolMode = line["name"], line["pool_mode"]
		}
	}
	if poolMode != "session" {
		t.Errorf("SHOW DATABASES tells of %q: pool_mode %q", name, poolMode)
	}
	for _, line := range r.show("SHOW POOLS") {
		if want := map[string]string{"app": "session", "rangefinder": "transaction"}[line["database"]]; line["pool_mode"] != want {
			t.Errorf("SHOW POOLS: %v", line)
		}
	}
	a.Close(context.Background())
	r.busy(t, 0)
	b := r.connect(pgx.QueryExecModeSimpleProtocol)
	var got string
	if err := b.QueryRow(ctxOf(t), whoami).Scan(&again); err != nil || again != pid {
		t.Errorf("the next session has backend %d, not %d: it was not used again; %v", again, pid, err)
	}
	if err := b.QueryRow(ctxOf(t), leftovers).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := `0 0 0 0 none app app none "$user", public`; strings.TrimSpace(got) != want {
		t.Errorf("found %q, want %q", got, want)
	}
}

// show returns the rows of a command of the console, by column.
func (r *rig) show(command string) (list []map[string]string) {
	r.t.Helper()
	conn := r.console(pgx.QueryExecModeSimpleProtocol)
	defer conn.Close(context.Background())
	res := conn.PgConn().Exec(ctxOf(r.t), command)
	all, err := res.ReadAll()
	if err != nil || len(all) != 1 {
		r.t.Fatal(err)
	}
	for _, row := range all[0].Rows {
		line := make(map[string]string)
		for i, f := range all[0].FieldDescriptions {
			line[f.Name] = string(row[i])
		}
		list = append(list, line)
	}
	return list
}

// What cannot be carried to another connection ties the session to its own.
func TestPinned(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{"CREATE TEMP TABLE scratch (n int)", "INSERT INTO scratch VALUES (1), (2)"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM scratch").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d %v", n, err)
	}
	pe := pgErr(t, conn, "SELECT * FROM orders WHERE customer_id = $1", r.keyOn("shard_2", 1))
	if pe.Code != "0A000" || !strings.Contains(pe.Message, "tied to shard_1") {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", r.keyOn("shard_1", 1)).Scan(&n); err != nil {
		t.Errorf("a key of the session's own shard: %v", err)
	}
	other := r.connect(pgx.QueryExecModeExec)
	if pe := pgErr(t, other, "SELECT * FROM scratch"); pe.Code != "42P01" {
		t.Errorf("another session sees the temporary table: %s", pe.Code)
	}
	if _, err := conn.Exec(ctx, "DISCARD ALL"); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", r.keyOn("shard_2", 1)).Scan(&n); err != nil {
		t.Errorf("after DISCARD ALL: %v", err)
	}
}
