package wire_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// turn is what one of two sessions runs next.
type turn struct {
	who int
	sql string
}

// play has two sessions take turns, and returns what they were told.
func play(t *testing.T, dsn string, turns []turn) (told []string) {
	t.Helper()
	var conns [2]*pgconn.PgConn
	for i := range conns {
		conn, err := pgconn.Connect(ctxOf(t), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		conns[i] = conn
	}
	for _, x := range turns {
		all, err := conns[x.who].Exec(ctxOf(t), x.sql).ReadAll()
		var words []string
		for _, r := range all {
			words = append(words, r.CommandTag.String())
			for _, row := range r.Rows {
				words = append(words, string(slices.Concat(row...)))
			}
		}
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			words = append(words, pe.Code, pe.Message)
		} else if err != nil {
			t.Fatalf("%s: %v", x.sql, err)
		}
		told = append(told, fmt.Sprintf("%c: %s: %s", 'a'+x.who, x.sql, strings.Join(words, ", ")))
	}
	return told
}

// What a role begins with by ALTER ROLE is what it finds through a node, whoever had its server connection before.
func TestDefaultsAreThoseOfPostgreSQL(t *testing.T) {
	for _, place := range places(t) {
		r := newRig(t, rigOptions{shards: place.shards, poolSize: 3, keyed: []rib.KeyedTable{{Schema: "cashier", Name: "slips", Columns: []string{"id"}}}})
		if place.database != "app" {
			plainDatabase(t, place.shards[0].primary, place.database)
		}
		key := r.keyOn("shard_1", 1)
		if len(place.shards) > 1 {
			key = r.keyOn("shard_2", 1)
		}
		prepare := func(sql ...string) {
			t.Helper()
			for _, s := range place.shards {
				for i := range sql {
					sql[i] = strings.ReplaceAll(sql[i], "DEFAULTS", "ALTER ROLE app IN DATABASE "+place.database)
				}
				if err := s.primary.ExecIn(ctxOf(t), place.database, sql...); err != nil {
					t.Fatal(err)
				}
			}
			r.pools.Reconnect(place.database)
			r.server.AgeFresh(place.database)
		}
		alike := func(name string, turns []turn) {
			t.Helper()
			t.Run(name+", "+place.name, func(t *testing.T) {
				want, got := play(t, place.shards[0].primary.DSN(place.database, "app"), turns), play(t, r.dsnOf(place.database), turns)
				if !slices.Equal(want, got) {
					t.Errorf("PostgreSQL and the router differ:\n%s", sideBySide(want, got))
				}
			})
		}
		roles := make(map[string]string)
		for _, name := range []string{"cashier", "teller"} {
			roles[name] = "DO $$ BEGIN CREATE ROLE " + name + "; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
		}
		prepare(roles["cashier"], roles["teller"], "GRANT cashier, teller TO app", "GRANT ALL ON ALL TABLES IN SCHEMA public TO cashier", "GRANT ALL ON SCHEMA public TO cashier", "DEFAULTS SET role = cashier",
			"CREATE SCHEMA cashier AUTHORIZATION cashier", "CREATE TABLE cashier.slips (id int)", "ALTER TABLE cashier.slips OWNER TO cashier")
		var turns []turn
		who := fmt.Sprintf("SELECT current_user, ' ', session_user, ' ', current_setting('role'), count(*) FROM public.orders WHERE customer_id = %d", key)
		for _, sql := range []string{
			"SELECT 1", "SET ROLE teller", "SET ROLE cashier", "RESET ROLE", "SET ROLE NONE", "SET ROLE app", "RESET ALL", "DISCARD ALL", "SET SESSION AUTHORIZATION app", "SET ROLE teller", "SET SESSION AUTHORIZATION app", "RESET ALL", "RESET ROLE",
			"SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION app", "RESET SESSION AUTHORIZATION", "SET ROLE teller", "RESET SESSION AUTHORIZATION", "SET ROLE NONE", "DISCARD ALL",
			"BEGIN; SET LOCAL ROLE teller; SELECT current_user; COMMIT", "BEGIN; SET ROLE NONE; ROLLBACK", "SELECT set_config('role', 'teller', false)", "SELECT set_config('role', 'none', false)", "SELECT set_config('role', null, false)",
			"SET ROLE app", "SET ROLE DEFAULT", "SET ROLE nobody_at_all", "SET work_mem = '5MB'", "SET ROLE NONE; SET work_mem = '6MB'",
			"CREATE TABLE own (a int)", "SELECT tableowner FROM pg_tables WHERE tablename = 'own'", "DROP TABLE own",
			"INSERT INTO slips VALUES (1), (2), (3), (4), (5), (6), (7), (8)", "SELECT count(*) FROM slips", "SET ROLE NONE", "SELECT count(*) FROM slips", "RESET ROLE", "DELETE FROM slips WHERE id = 3", "DISCARD ALL", "SELECT id FROM slips WHERE id = 5",
			"BEGIN; SET LOCAL ROLE NONE", "SELECT id FROM slips WHERE id = 5", "ROLLBACK", "BEGIN; SET LOCAL ROLE NONE", "SELECT set_config('role', null, true)", "SELECT id FROM slips WHERE id = 5", "COMMIT",
		} {
			turns = append(turns, turn{0, sql}, turn{1, who}, turn{0, who})
		}
		for _, sql := range []string{ // what ties a session to a shard
			"CREATE TEMP TABLE t (a int)", "SELECT current_user", "DROP TABLE t", "CREATE TEMP TABLE t (a int)", "SET ROLE app", "DISCARD ALL", "SET ROLE NONE",
			"CREATE TEMP TABLE t (a int)", "DO $$ BEGIN PERFORM set_config('role', 'teller', false); END $$", "DISCARD ALL", // found again only by who is tied
		} {
			if len(place.shards) == 1 {
				turns = append(turns, turn{0, sql}, turn{1, who}, turn{0, who})
			}
		}
		if len(place.shards) == 1 { // not tied: it may or may not find it again, and the other one never does
			turns = append(turns, turn{0, "DO $$ BEGIN PERFORM set_config('role', 'teller', false); END $$"}, turn{1, who}, turn{0, "DISCARD ALL"}, turn{0, who}, turn{1, who})
		}
		alike("role", turns)
		prepare("DEFAULTS RESET role", "DEFAULTS SET search_path = missing, pg_temp")
		turns = nil
		path := fmt.Sprintf("SELECT current_setting('search_path'), current_schemas(false)::text FROM public.notes WHERE id = %d", 1)
		for _, sql := range []string{
			"SELECT 1", "SELECT count(*) FROM notes", "SELECT count(*) FROM orders", "SELECT count(*) FROM missing.orders", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "SELECT a FROM t", "DROP TABLE t",
			"CREATE TABLE t AS SELECT 2 AS a", "SELECT a FROM t", "DISCARD ALL", "SELECT a FROM t", "SELECT 3 AS a INTO t", "SELECT a FROM pg_temp.t", "DROP TABLE t", "CREATE VIEW v AS SELECT 4 AS a", "SELECT a FROM v", "DROP VIEW v",
			"SET search_path = public, pg_temp", "CREATE TABLE t (a int)", "DROP TABLE t", "RESET search_path", "BEGIN; CREATE TABLE t (a int) ON COMMIT DROP; INSERT INTO t VALUES (6); SELECT a FROM t; COMMIT", "SELECT a FROM t",
			"BEGIN", "CREATE TABLE t (a int)", "ROLLBACK", "BEGIN", "CREATE TABLE t (a int)", "COMMIT", "SELECT a FROM t", "DISCARD TEMP", "SELECT a FROM t",
		} {
			turns = append(turns, turn{0, sql}, turn{1, "SELECT count(*) FROM t"}, turn{1, path})
		}
		for _, sql := range []string{ // such definitions are on all shards
			"CREATE SEQUENCE s", "SELECT nextval('s')", "DROP SEQUENCE s", "CREATE TYPE e AS ENUM ('x')", "SELECT 'x'::e", "DROP TYPE e", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 5'", "SELECT pg_temp.f()", "SELECT f()", "DROP FUNCTION f()", "DROP FUNCTION pg_temp.f()",
		} {
			if place.database == "plain" {
				turns = append(turns, turn{0, sql}, turn{1, "SELECT nextval('s')"}, turn{1, path})
			}
		}
		alike("search_path", turns)
		prepare("DEFAULTS RESET ALL")
	}
}

// What a session has begun with is its own, also if it was the default then and another one is by now.
func TestStartupOutlivesDefaults(t *testing.T) {
	own := []shardServers{{primary: servers(t)[0].primary}, {primary: servers(t)[1].primary}}
	r := newRig(t, rigOptions{shards: own, poolSize: 1})
	was, alter := "", func(sql string) {
		t.Helper()
		for _, s := range own {
			if err := s.primary.ExecIn(ctxOf(t), "app", "ALTER ROLE app IN DATABASE app "+sql); err != nil {
				t.Fatal(err)
			}
		}
		r.pools.Reconnect("app")
	}
	defer alter("RESET timezone")
	connect := func(zone string) *pgconn.PgConn {
		t.Helper()
		cfg, err := pgconn.ParseConfig(r.dsnOf("app"))
		if err != nil {
			t.Fatal(err)
		}
		if zone != "" {
			cfg.RuntimeParams["timezone"] = zone
		}
		conn, err := pgconn.ConnectConfig(ctxOf(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	finds := func(who string, conn *pgconn.PgConn, sql, want string) {
		t.Helper()
		all, err := conn.Exec(ctxOf(t), sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %s: %v", who, sql, err)
		}
		for _, r := range all {
			for _, row := range r.Rows {
				if string(row[0]) != want {
					t.Errorf("%s: %s: %s, want %s", who, sql, row[0], want)
				}
			}
		}
		if told := conn.ParameterStatus("TimeZone"); told != want {
			t.Errorf("%s: after %s is told %s, want %s", who, sql, told, want)
		}
	}
	for _, key := range []int64{r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)} {
		if _, err := connect("").Exec(ctxOf(t), fmt.Sprintf("INSERT INTO orders VALUES (%d, 1, 'x')", key)).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	was = connect("").ParameterStatus("TimeZone")
	one := func(shard string) string {
		return fmt.Sprintf("SELECT current_setting('TimeZone') FROM orders WHERE customer_id = %d", r.keyOn(shard, 1))
	}
	all := "SELECT DISTINCT current_setting('TimeZone') FROM orders"
	scattered, keyed, other := connect(was), connect(was), connect("")
	alter("SET timezone = 'Asia/Tokyo'")
	for range 2 {
		finds("over shards", scattered, all, was)
		finds("by the key", keyed, one("shard_1"), was)
		finds("no wish", other, one("shard_1"), "Asia/Tokyo")
		finds("by the key", keyed, "BEGIN; "+one("shard_1")+"; COMMIT", was)
		finds("by the key", keyed, one("shard_2"), was)
		finds("by the key", keyed, all, was)
		finds("no wish", other, all, "Asia/Tokyo")
	}
	finds("by the key", keyed, "SET timezone = 'Asia/Seoul'", "Asia/Seoul")
	finds("by the key", keyed, one("shard_1"), "Asia/Seoul")
	finds("by the key", keyed, "RESET timezone", was)
	finds("in a block", keyed, "BEGIN", was)
	finds("in a block", keyed, one("shard_1"), was)
	finds("in a block", keyed, "ROLLBACK", was)
	finds("by the key", keyed, "DISCARD ALL", was)
	finds("by the key", keyed, one("shard_2"), was)
	r.server.AgeFresh("app")
	finds("new", connect(""), one("shard_1"), "Asia/Tokyo")
	finds("new", connect(was), one("shard_1"), was)
}
