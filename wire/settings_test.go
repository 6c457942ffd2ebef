package wire_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

// shown is what sessions are compared by.
const shown = `SELECT concat_ws('|', current_setting('work_mem'), current_setting('statement_timeout'), current_setting('TimeZone'), current_setting('DateStyle'),
	current_setting('IntervalStyle'), current_setting('search_path'), current_setting('role'), current_user, session_user, current_setting('client_encoding'), current_setting('application_name'),
	coalesce(current_setting('app.x', true), ''), current_setting('default_transaction_isolation'), current_setting('default_transaction_deferrable'), current_setting('lock_timeout'),
	current_setting('extra_float_digits'), current_setting('standard_conforming_strings'))`

// settingTexts are statements that change, and undo, what a session has set.
var settingTexts = []string{
	"SET work_mem = '5MB'", "SET work_mem TO '7MB' -- a comment", "SET LOCAL work_mem = '9MB'", "RESET work_mem", "SET work_mem = DEFAULT", "SET SESSION work_mem = 8192", "SET work_mem = 'much'",
	"SET statement_timeout = '40s'", "RESET statement_timeout", "SET LOCAL statement_timeout TO DEFAULT",
	"SET TIME ZONE 'Asia/Tokyo'", "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE", "SET TIME ZONE LOCAL", "SET LOCAL TIME ZONE 'UTC'", "SET timezone = 'Europe/Berlin'", "RESET TIME ZONE", "SET TIME ZONE 3",
	"SET datestyle = 'SQL, DMY'", "SET datestyle = 'ISO'", "RESET datestyle", "SET IntervalStyle = 'iso_8601'",
	"SET NAMES 'UTF8'", "SET NAMES DEFAULT", "SET client_encoding = 'UTF8'",
	"SET search_path = public, pg_catalog", "SET search_path TO ''", `SET SCHEMA 'pg_catalog'`, "SET LOCAL search_path = pg_temp, public", "RESET search_path",
	"SET ROLE helper", "SET ROLE NONE", "RESET ROLE", "SET LOCAL ROLE helper", "SET SESSION AUTHORIZATION app", "SET SESSION AUTHORIZATION DEFAULT", "RESET SESSION AUTHORIZATION", "SET ROLE nobody",
	"SET app.x = 'one'", "SET LOCAL app.x = 'two'", "RESET app.x",
	"SET application_name = 'it''s me'", "RESET application_name",
	"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET SESSION CHARACTERISTICS AS TRANSACTION DEFERRABLE", "RESET default_transaction_isolation",
	"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, NOT DEFERRABLE",
	"SELECT set_config('work_mem', '6MB', false)", "SELECT set_config('work_mem', '3MB', true)", "SELECT pg_catalog.set_config('app.x', 'three', false), set_config('lock_timeout', '2s', false)",
	"SELECT set_config('search_path', 'public', false)", "SELECT set_config('role', 'helper', true)", "SELECT set_config('TimeZone', 'Asia/Kolkata', false) AS tz", "SELECT set_config('work_mem', 'no', false)",
	"SELECT set_config('extra_float_digits', '3', false), set_config('app.x', 'four', true)", "SELECT set_config('lock_timeout', NULL, false)",
	"RESET ALL", "DISCARD ALL",
	"BEGIN", "BEGIN", "BEGIN", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN",
	"SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a", "RELEASE b", "SELECT 1/0", "SELECT count(*) FROM notes", "SELECT count(*) FROM notes", "LOCK TABLE notes IN ACCESS SHARE MODE", "SELECT 1",
}

// severalTexts hold more than one statement.
var severalTexts = []string{
	"SET work_mem = '11MB'; SET lock_timeout = '3s'", "SET extra_float_digits = 2; SET work_mem = '12MB'; SELECT 1/0", "SET standard_conforming_strings = on;SET lock_timeout TO 4000;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE",
	"BEGIN; SET work_mem = '13MB'; COMMIT", "BEGIN; SET work_mem = '14MB'; ROLLBACK", "SET app.x = 'five'; BEGIN; SET LOCAL app.x = 'six'; SET lock_timeout = '5s'", "SET work_mem = '15MB'; COMMIT; SET lock_timeout = '6s'",
	"RESET ALL; SET work_mem = '16MB'", "SAVEPOINT a; SET work_mem = '17MB'; ROLLBACK TO a", "SELECT 1; SET work_mem = '18MB'; SELECT 2", "BEGIN; SET work_mem = '19MB'; COMMIT; SET lock_timeout = '7s'; SELECT 1/0",
}

// pair is one session, as PostgreSQL has it and as the router has it.
type pair struct{ direct, routed *pgx.Conn }

// do runs a text in both and compares what came of it.
func (p *pair) do(t *rapid.T, sql string, args ...any) {
	var told [2]string
	for i, conn := range []*pgx.Conn{p.direct, p.routed} {
		told[i] = outcome(conn, sql, args...)
	}
	if told[0] != told[1] {
		t.Fatalf("%s %v:\nPostgreSQL %s\nrouter     %s", sql, args, told[0], told[1])
	}
}

func outcome(conn *pgx.Conn, sql string, args ...any) string {
	var words []string
	if len(args) == 0 && strings.Contains(sql, ";") {
		all, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
		for _, one := range all {
			words = append(words, one.CommandTag.String())
		}
		return fmt.Sprint(words, state(err), " ", string(conn.PgConn().TxStatus()))
	}
	rows, err := conn.Query(context.Background(), sql, args...)
	if err == nil {
		for rows.Next() {
			for _, v := range rows.RawValues() {
				words = append(words, string(v))
			}
		}
		rows.Close()
		words, err = append(words, rows.CommandTag().String()), rows.Err()
	}
	if conn.PgConn().TxStatus() != 'I' { // SET LOCAL in a block that is open nowhere yet is reported once it is
		return fmt.Sprint(words, state(err), " ", string(conn.PgConn().TxStatus()))
	}
	return fmt.Sprint(words, state(err), " ", conn.PgConn().ParameterStatus("TimeZone"), " ", conn.PgConn().ParameterStatus("DateStyle"), " ", conn.PgConn().ParameterStatus("application_name"))
}

func state(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return " " + pe.Code
	}
	if err != nil {
		return " " + err.Error()
	}
	return ""
}

// repeatable has rapid draw the same in every run, unless -rapid.seed asks for other draws: a
// difference that hides in some corner of PostgreSQL is to be looked for, not to be met by whoever changes something else.
func repeatable(t *testing.T) {
	t.Helper()
	if f := flag.Lookup("rapid.seed"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("20261125"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
	}
}

// However sessions that share one server connection set, reset and roll back: each finds what it would find on PostgreSQL.
func TestSettingsAreThoseOfPostgreSQL(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: []shardServers{{primary: servers(t)[0].primary}}})
	primary := servers(t)[0].primary
	if err := primary.Exec(ctxOf(t), makeHelper, "GRANT helper TO app"); err != nil {
		t.Fatal(err)
	}
	plainDatabase(t, primary, "plain")
	for _, database := range []string{"plain", "app"} {
		if err := primary.ExecIn(ctxOf(t), database, "GRANT SELECT ON notes TO helper"); err != nil {
			t.Fatal(err)
		}
		t.Run(database, func(t *testing.T) {
			repeatable(t)
			rapid.Check(t, func(rt *rapid.T) {
				pairs := make([]pair, 2)
				for i := range pairs {
					mode := rapid.SampledFrom([]pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}).Draw(rt, "mode")
					startup := rapid.SampledFrom([]map[string]string{nil, {"options": "-c work_mem=6MB -c app.x=start"}, {"TimeZone": "America/New_York", "search_path": "public", "application_name": "tester"}}).Draw(rt, "startup")
					p := pair{settingsConn(t, rt, primary.DSN(database, "app"), mode, startup), settingsConn(t, rt, r.dsnOf(database), mode, startup)}
					defer p.direct.Close(context.Background())
					defer p.routed.Close(context.Background())
					pairs[i] = p
				}
				p := &pairs[0]
				for range rapid.IntRange(1, 25).Draw(rt, "steps") {
					if p.direct.PgConn().TxStatus() == 'I' { // one connection: who has a transaction has it
						p = &pairs[rapid.IntRange(0, len(pairs)-1).Draw(rt, "session")]
					}
					switch rapid.IntRange(0, 9).Draw(rt, "kind") {
					case 0:
						p.do(rt, rapid.SampledFrom(severalTexts).Draw(rt, "texts"))
					case 1:
						name := rapid.SampledFrom([]string{"work_mem", "app.x", "search_path", "TimeZone"}).Draw(rt, "name")
						value := map[string]string{"work_mem": "21MB", "app.x": "it's \\ odd", "search_path": "pg_catalog", "TimeZone": "Asia/Seoul"}[name]
						local := rapid.Bool().Draw(rt, "local")
						if rapid.Bool().Draw(rt, "how") {
							p.do(rt, "SELECT set_config($1, $2, $3)", name, value, local)
						} else {
							p.do(rt, "SELECT set_config('"+name+"', $1, false)", value)
						}
					case 2, 3, 4:
						p.do(rt, shown)
					default:
						p.do(rt, rapid.SampledFrom(settingTexts).Draw(rt, "text"))
					}
				}
				for i := range pairs {
					if p.direct.PgConn().TxStatus() != 'I' {
						p.do(rt, "ROLLBACK")
					}
					p = &pairs[i]
					p.do(rt, shown)
				}
			})
		})
	}
}

func settingsConn(t *testing.T, rt *rapid.T, dsn string, mode pgx.QueryExecMode, startup map[string]string) *pgx.Conn {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		rt.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	for k, v := range startup {
		cfg.RuntimeParams[k] = v
	}
	conn, err := pgx.ConnectConfig(ctxOf(t), cfg)
	if err != nil {
		rt.Fatal(err)
	}
	return conn
}

// find runs a query of one value.
func find(t *testing.T, conn *pgx.Conn, sql, want string) {
	t.Helper()
	var got string
	if err := conn.QueryRow(ctxOf(t), sql).Scan(&got); err != nil || got != want {
		t.Errorf("%s: %q, want %q; %v", sql, got, want, err)
	}
}

// Statements that set several things, or set them by a function, tie nobody to a connection.
func TestSettingPinsNobody(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	plainDatabase(t, servers(t)[0].primary, "plain")
	a, b := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeExec)
	r.exec(a, "SET work_mem = '5MB'; SET lock_timeout = '3s'", "SELECT set_config('app.x', 'a', false)", "BEGIN; SET statement_timeout = '9s'; COMMIT")
	if _, err := b.Exec(ctxOf(t), "SELECT set_config($1, $2, $3), set_config('work_mem', $4, false)", "app.x", "b", false, "6MB"); err != nil {
		t.Fatal(err)
	}
	r.unpinned()
	const all = "SELECT current_setting('app.x') || ' ' || current_setting('work_mem') || ' ' || current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')"
	for range 2 {
		find(t, a, all, "a 5MB 3s 9s")
		find(t, b, all, "b 6MB 0 0")
	}
	r.exec(a, "SET datestyle = 'SQL, DMY'", "SET datestyle = 'ISO'") // which leaves the order of day and month
	find(t, b, "SHOW DateStyle", "ISO, MDY")
	find(t, a, "SHOW DateStyle", "ISO, DMY")
	const unclear = "SELECT set_config(name, '7MB', false) FROM (VALUES ('work_mem')) x (name)" // who knows what that sets
	if pe := pgErr(t, a, unclear); pe.Code != "0A000" || pe.Hint == "" {
		t.Error(pe)
	}
	conn, err := pgx.Connect(ctxOf(t), r.dsnOf("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	r.exec(conn, unclear)
	r.pinnedAs("function set_config")
}

// SET LOCAL search_path decides what the names in its block mean.
func TestLocalSearchPathIsFollowed(t *testing.T) {
	r := newRig(t, rigOptions{})
	primary := servers(t)[0].primary
	if err := primary.ExecIn(ctxOf(t), "app", "CREATE SCHEMA side", "CREATE TABLE side.orders (customer_id bigint, id bigint, item text)", "GRANT ALL ON SCHEMA side TO app", "GRANT ALL ON side.orders TO app",
		"INSERT INTO side.orders VALUES (1, 1, 'aside')"); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		for _, set := range []string{"SET LOCAL search_path = side", "SELECT set_config('search_path', 'side', true)"} {
			conn := r.connect(mode)
			r.exec(conn, "BEGIN", "SAVEPOINT s", set)
			find(t, conn, "SELECT item FROM orders", "aside") // no key: it is not the sharded table
			r.exec(conn, "ROLLBACK TO s")
			find(t, conn, "SELECT count(*)::text FROM orders", "0") // the sharded table, on all shards
			r.exec(conn, "ROLLBACK", "BEGIN", set)
			find(t, conn, "SELECT item FROM orders", "aside")
			r.exec(conn, "COMMIT")
			find(t, conn, "SELECT count(*)::text FROM orders", "0")
		}
	}
}

// What functions and DO blocks set is the session's own if the server tells of it, and in no case somebody else's.
func TestFunctionsThatSet(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	for _, s := range servers(t) {
		err := s.primary.ExecIn(ctxOf(t), "app",
			"CREATE FUNCTION sets(name text, value text) RETURNS text LANGUAGE sql AS 'SELECT set_config(name, value, false)'",
			"CREATE PROCEDURE setting(name text, value text) LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(name, value, false); PERFORM pg_advisory_lock(7); END'",
			makeHelper, "GRANT helper TO app")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			r.t = t
			a, b := r.connect(mode), r.connect(mode)
			r.exec(a, "SET TIME ZONE 'Asia/Tokyo'", "SELECT sets('TimeZone', 'Asia/Seoul')")
			r.exec(b, "SELECT 1")
			find(t, b, "SHOW TimeZone", "UTC")
			find(t, a, "SHOW TimeZone", "Asia/Seoul")
			find(t, b, "SHOW TimeZone", "UTC")
			r.exec(a, "BEGIN", "DO $$ BEGIN PERFORM set_config('DateStyle', 'SQL, DMY', false); END $$", "ROLLBACK")
			find(t, a, "SHOW DateStyle", "ISO, MDY")
			r.exec(a, "BEGIN", "DO $$ BEGIN PERFORM set_config('DateStyle', 'SQL, DMY', false); END $$", "COMMIT")
			find(t, b, "SHOW DateStyle", "ISO, MDY")
			find(t, a, "SHOW DateStyle", "SQL, DMY")
			r.exec(a, "RESET DateStyle")
			find(t, a, "SHOW DateStyle", "ISO, MDY")

			// Not told of: it does not leak.
			for _, sql := range []string{
				"SELECT sets('app.secret', 'x')", "DO $$ BEGIN PERFORM set_config('app.secret', 'x', false); SET work_mem = '9MB'; SET ROLE helper; END $$", "BEGIN; SELECT sets('app.secret', 'x'); COMMIT",
				"CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.secret', 'x', false) $$; SELECT pg_temp.f(); DISCARD TEMP",
			} {
				if mode != pgx.QueryExecModeSimpleProtocol && strings.Contains(sql, "; SELECT") {
					continue
				}
				r.exec(a, sql)
				r.unpinned()
				find(t, b, "SELECT coalesce(current_setting('app.secret', true), '') || current_setting('work_mem') || current_user", "4MBapp")
			}
			// Another kind of thing keeps the connection.
			r.exec(a, "CALL setting('work_mem', '8MB')")
			r.pinnedAs("an advisory lock")
			find(t, a, "SHOW work_mem", "8MB")
			r.exec(a, "SELECT pg_advisory_unlock_all()")
			r.unpinned()
			find(t, b, "SHOW work_mem", "4MB")
			r.exec(a, "DO $$ BEGIN CREATE TEMP TABLE t AS SELECT 1 AS a; END $$")
			r.pinnedAs("a temporary table")
			find(t, a, "SELECT a::text FROM t", "1")
			a.Close(context.Background())
			find(t, b, leftovers, `0 0 0 0 none app app none "$user", public`)
			b.Close(context.Background())
		})
	}
}

// What ALTER ROLE and ALTER DATABASE have set is what new sessions begin with, though their connections are older.
func TestRoleDefaultsArePickedUp(t *testing.T) {
	r := newRig(t, rigOptions{})
	old := r.connect(pgx.QueryExecModeSimpleProtocol)
	find(t, old, "SELECT current_setting('work_mem') FROM (SELECT count(*) FROM notes) x", "4MB")
	for _, c := range []struct{ sql, show, want string }{
		{"ALTER ROLE app IN DATABASE app SET work_mem = '23MB'", "work_mem", "23MB"},
		{"ALTER DATABASE app SET lock_timeout = '7s'", "lock_timeout", "7s"},
		{"ALTER DATABASE app SET search_path = 'public', 'pg_catalog'", "search_path", "public, pg_catalog"},
		{"ALTER ROLE app IN DATABASE app SET timezone = 'Asia/Tokyo'", "TimeZone", "Asia/Tokyo"},
		{"ALTER ROLE app IN DATABASE app RESET ALL", "work_mem", "4MB"},
	} {
		for _, s := range servers(t) {
			if err := s.primary.ExecIn(ctxOf(t), "app", c.sql); err != nil {
				t.Fatal(err)
			}
			if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
		}
		r.server.AgeFresh("app")
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		for _, from := range []string{"notes", fmt.Sprintf("orders WHERE customer_id = %d", r.keyOn("shard_2", 1))} {
			find(t, conn, "SELECT current_setting('"+c.show+"') FROM (SELECT count(*) FROM "+from+") x", c.want)
		}
		if c.show == "TimeZone" && conn.PgConn().ParameterStatus("TimeZone") != c.want {
			t.Errorf("the client was told %s", conn.PgConn().ParameterStatus("TimeZone"))
		}
	}
}
