package wire_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// A hot standby runs nothing that is serializable: such transactions, and sessions that are so by default, are on primaries, whatever is known of
// their first statement.
func TestSerializableIsNotOnReplicas(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	s.caughtUp()
	byKey := s.standby()
	elsewhere := func(when string) { // what the session leaves behind harms nobody
		t.Helper()
		conn := s.connect(pgx.QueryExecModeExec)
		for _, sql := range []string{byKey, "SELECT current_setting('in_hot_standby')"} {
			var got string
			if err := conn.QueryRow(s.ctx, sql).Scan(&got); err != nil || got != "on" {
				t.Errorf("%s: %s of another session: %q, %v", when, sql, got, err)
			}
		}
		conn.Close(s.ctx)
	}
	for _, mode := range queryModes {
		for _, set := range []string{
			"SET default_transaction_isolation = 'serializable'", "SET default_transaction_isolation TO 'Serializable'",
			"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT set_config('default_transaction_isolation', 'serializable', false)",
			"BEGIN READ ONLY; " + byKey + "; SET default_transaction_isolation = 'serializable'; COMMIT", "BEGIN; SET default_transaction_isolation = 'serializable'; COMMIT",
		} {
			conn := s.connect(mode)
			for sql := range strings.SplitSeq(set, "; ") {
				if _, err := conn.Exec(s.ctx, sql); err != nil {
					t.Fatalf("%s: %s: %v", mode, sql, err)
				}
			}
			when := fmt.Sprintf("%s, %s", mode, set)
			elsewhere(when)
			s.reads(when, conn)
			if _, err := conn.Exec(s.ctx, "RESET default_transaction_isolation"); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			var got string
			if err := conn.QueryRow(s.ctx, byKey).Scan(&got); err != nil || got != "on" {
				t.Errorf("%s, and RESET: %q, %v", when, got, err)
			}
			conn.Close(s.ctx)
			elsewhere(when)
		}
	}
	s.begun("options")
	elsewhere("options")
}

// What the role begins with counts as well. Who does not know of it yet is told by the replica, and has its reads on the primary.
func TestSerializableByRole(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	s := &spread{rig: r, ctx: ctxOf(t), one: r.keyOn("shard_1", 1), two: r.keyOn("shard_2", 1)}
	alter := func(what string) {
		t.Helper()
		for _, server := range s.servers {
			conn, err := server.primary.ConnTo(s.ctx, "app", "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(s.ctx, "ALTER ROLE app IN DATABASE app "+what); err != nil {
				t.Error(err)
			}
			conn.Close(s.ctx)
		}
		s.caughtUp()
	}
	const level = "SET default_transaction_isolation = 'serializable'"
	late := r.connect(pgx.QueryExecModeExec)
	alter(level)
	defer alter("RESET ALL")
	r.pools.Reconnect("app")
	if _, err := late.Exec(s.ctx, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1), (%d, 2)", s.one, s.two)); err != nil {
		t.Fatal(err)
	}
	s.caughtUp()
	early := r.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{s.standby(), "SELECT count(*)::text FROM orders", "SELECT 1::text", "SELECT max(id)::text FROM orders"} {
		for _, conn := range []*pgx.Conn{late, early} {
			var got string
			if err := conn.QueryRow(s.ctx, sql).Scan(&got); err != nil || sql == s.standby() && got != "off" {
				t.Errorf("%s: %q, %v", sql, got, err)
			}
		}
	}
	again := newRig(t, rigOptions{across: true}) // makes the database anew
	s = &spread{rig: again, ctx: s.ctx, one: s.one, two: s.two}
	alter(level)
	conn, err := s.servers[1].primary.ConnTo(s.ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(s.ctx, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", s.two)); err != nil {
		t.Fatal(err)
	}
	conn.Close(s.ctx)
	s.begun("role")
}

// standby is a read by key of whether it is on a replica.
func (s *spread) standby() string {
	return fmt.Sprintf("SELECT current_setting('in_hot_standby') FROM orders WHERE customer_id = %d LIMIT 1", s.two)
}

// reads reads in all ways, and on primaries.
func (s *spread) reads(when string, conn *pgx.Conn) {
	s.t.Helper()
	byKey := s.standby()
	for _, begin := range []string{"", "BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY, DEFERRABLE"} {
		for _, sql := range []string{byKey, "SELECT 1::text", "SELECT count(*)::text FROM orders", "SHOW transaction_isolation", "SELECT relname::text FROM pg_class LIMIT 1"} {
			if begin != "" {
				if _, err := conn.Exec(s.ctx, begin); err != nil {
					s.t.Fatalf("%s: %s: %v", when, begin, err)
				}
			}
			var got string
			if err := conn.QueryRow(s.ctx, sql).Scan(&got); err != nil || sql == byKey && got != "off" {
				s.t.Errorf("%s: %s; %s: %q, %v", when, begin, sql, got, err)
			}
			if begin != "" {
				if _, err := conn.Exec(s.ctx, "ROLLBACK"); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
}

// begun does so in sessions that begin as serializable.
func (s *spread) begun(when string) {
	s.t.Helper()
	cfg, err := pgx.ParseConfig(s.dsn())
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // DISCARD ALL takes away what is prepared
	if when == "options" {
		cfg.RuntimeParams["options"] = "-c default_transaction_isolation=serializable"
	}
	for range 2 {
		conn, err := pgx.ConnectConfig(s.ctx, cfg)
		if err != nil {
			s.t.Fatalf("%s: %v", when, err)
		}
		s.reads(when, conn)
		for _, sql := range []string{"RESET ALL", "DISCARD ALL"} {
			for _, sql := range []string{"SET default_transaction_isolation = 'read committed'", sql} {
				if _, err := conn.Exec(s.ctx, sql); err != nil {
					s.t.Errorf("%s: %s: %v", when, sql, err)
				}
			}
			s.reads(when+" after "+sql, conn)
		}
		conn.Close(s.ctx)
	}
}

// What SET TRANSACTION says counts for a statement that is prepared by itself, as many drivers do.
func TestSerializableByThePrepared(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	s.caughtUp()
	for _, set := range []string{"BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "BEGIN; SET transaction_isolation = 'serializable'"} {
		for _, sql := range []string{"SELECT id FROM orders WHERE customer_id = $1", "SELECT $1::int", "SELECT count(*) FROM orders WHERE id > $1", "UPDATE orders SET id = id WHERE customer_id = $1"} {
			if strings.HasSuffix(set, "ONLY") && strings.HasPrefix(sql, "UPDATE") {
				continue
			}
			s.conn = s.connect(pgx.QueryExecModeSimpleProtocol)
			exchange := s.raw()
			for one := range strings.SplitSeq(set, "; ") {
				exchange(pg.AppendQuery(nil, one))
			}
			if got := exchange(pg.AppendSync(pg.AppendParse(nil, "a", sql, nil))); got != "1 Z" {
				t.Errorf("%s; %s: %s", set, sql, got)
			}
			var bind pg.Bind
			if err := bind.Decode(pg.AppendBindText(nil, fmt.Sprint(s.two))[pg.HeaderSize:]); err != nil {
				t.Fatal(err)
			}
			if got := exchange(pg.AppendSync(pg.AppendExecute(pg.AppendBindRenamed(nil, &bind, "a"), "", 0))); strings.Contains(got, "E(") {
				t.Errorf("%s; %s: %s", set, sql, got)
			}
			exchange(pg.AppendQuery(nil, "COMMIT"))
		}
	}
}

// A block that no server opens is one error for each Sync, whatever comes behind it.
func TestOneErrorForEachSync(t *testing.T) {
	s := newSpread(t, rigOptions{})
	for _, begin := range []string{"BEGIN; SET LOCAL no_such_parameter = 1", "BEGIN; SET LOCAL work_mem = 'much'"} {
		for what, segment := range map[string][]byte{
			"Parse":               pg.AppendParse(nil, "a", "SELECT $1::int", nil),
			"Parse of a key":      pg.AppendParse(nil, "a", "SELECT id FROM orders WHERE customer_id = $1", nil),
			"Parse and Describe":  pg.AppendDescribe(pg.AppendParse(nil, "a", "SELECT 1", nil), 'S', "a"),
			"two Parses":          pg.AppendParse(pg.AppendParse(nil, "a", "SELECT 1", nil), "b", "SELECT 2", nil),
			"Execute":             pg.AppendExecute(append(pg.AppendParse(nil, "", "SELECT 1", nil), bound...), "", 0),
			"Execute of a key":    pg.AppendExecute(append(pg.AppendParse(nil, "", fmt.Sprintf("SELECT id FROM orders WHERE customer_id = %d", s.one), nil), bound...), "", 0),
			"Execute over shards": pg.AppendExecute(append(pg.AppendParse(nil, "", "SELECT count(*) FROM orders", nil), bound...), "", 0),
			"Query":               nil,
		} {
			s.conn = s.connect(pgx.QueryExecModeSimpleProtocol)
			exchange := s.raw()
			for one := range strings.SplitSeq(begin, "; ") {
				exchange(pg.AppendQuery(nil, one))
			}
			message := pg.AppendSync(segment)
			if segment == nil {
				message = pg.AppendQuery(nil, "SELECT 1")
			}
			got := exchange(message)
			if strings.Count(got, "E(") != 1 || !strings.HasSuffix(got, ") Z") || strings.Contains(got, "25P02") {
				t.Errorf("%s, %s: %s", begin, what, got)
			}
			if got := exchange(pg.AppendQuery(nil, "SELECT 1")); got != "E(25P02) Z" {
				t.Errorf("%s, %s, then: %s", begin, what, got)
			}
			if got := exchange(pg.AppendQuery(nil, "ROLLBACK")); got != "C(ROLLBACK) Z" {
				t.Errorf("%s, %s, ROLLBACK: %s", begin, what, got)
			}
			if got := exchange(pg.AppendSync(pg.AppendParse(nil, "a", "SELECT 1", nil))); got != "1 Z" { // it was not made
				t.Errorf("%s, %s, again: %s", begin, what, got)
			}
		}
	}
}

// What one server's own file says counts on that server alone: a replica that is serializable by it takes no read that does not say otherwise, so
// they go to the primary; a primary's file is nothing to replicas.
func TestSerializableByTheServersFile(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", s.one, s.two)
	for _, server := range s.servers { // the tests' own questions
		if err := server.primary.Exec(s.ctx, "ALTER ROLE postgres SET default_transaction_isolation = 'read committed'"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.primary.Exec(context.Background(), "ALTER ROLE postgres RESET default_transaction_isolation"); err != nil {
				t.Error(err)
			}
		})
	}
	s.caughtUp()
	setLevel := func(server *pgtest.Server, level string) {
		t.Helper()
		if err := server.Set(map[string]string{"default_transaction_isolation": level}); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, patience, func() error {
			conn, err := server.ConnTo(s.ctx, "app", testUser)
			if err != nil {
				return err
			}
			defer conn.Close(s.ctx)
			var got string
			if err := conn.QueryRow(s.ctx, "SHOW default_transaction_isolation", pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil || got != level {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
	replicas, primaries := []*pgtest.Server{s.servers[0].replica, s.servers[1].replica}, []*pgtest.Server{s.servers[0].primary, s.servers[1].primary}
	for _, c := range []struct {
		what    string
		strict  []*pgtest.Server
		standby string // whether plain reads are on one
	}{
		{"replicas", replicas, "off"}, {"one replica", replicas[1:], "off"}, {"primaries", primaries, "on"},
	} {
		s.pools.Reconnect("app")
		goesOn := s.connect(pgx.QueryExecModeExec)
		s.readsOf(c.what+", before", goesOn, readBegins, "on") // over connections that stay
		for _, server := range c.strict {
			setLevel(server, "serializable")
		}
		s.readsOf(c.what+", a session that goes on", goesOn, readBegins[:1], c.standby)
		s.readsOf(c.what+", a session that goes on", goesOn, readBegins, c.standby)
		for _, mode := range queryModes {
			s.pools.Reconnect("app")
			conn := s.connect(mode)
			s.readsOf(fmt.Sprintf("%s, %s", c.what, mode), conn, readBegins, c.standby)
			conn.Close(s.ctx)
		}
		if n := s.counts.failedOver("shard_2-replica"); n > 0 {
			t.Errorf("%s: %d statements have found the replica out of reach", c.what, n)
		}
		for _, server := range c.strict {
			setLevel(server, "read committed")
		}
	}
}

var readBegins = []string{"", "BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"}

// readsOf reads in all ways, in transactions that begin so; outside of one it has to be on a replica if want is "on".
func (s *spread) readsOf(when string, conn *pgx.Conn, begins []string, want string) {
	s.t.Helper()
	byKey := s.standby()
	for _, begin := range begins {
		for _, sql := range []string{
			byKey, "SELECT 1::text", "SELECT count(*)::text FROM orders", "SELECT customer_id::text FROM orders", "SELECT customer_id::text FROM orders ORDER BY id",
			"SELECT avg(id)::text FROM orders GROUP BY item", "SHOW work_mem", "SELECT relname::text FROM pg_class LIMIT 1",
		} {
			if begin != "" {
				if _, err := conn.Exec(s.ctx, begin); err != nil {
					s.t.Fatalf("%s: %s: %v", when, begin, err)
				}
			}
			var got string
			if err := conn.QueryRow(s.ctx, sql).Scan(&got); err != nil || begin == "" && sql == byKey && got != want {
				s.t.Errorf("%s: %s; %s: %q, %v", when, begin, sql, got, err)
			}
			if begin != "" {
				if _, err := conn.Exec(s.ctx, "ROLLBACK"); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
}
