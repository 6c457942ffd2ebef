package wire_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// spread is a client, and a key on each of two shards.
type spread struct {
	*rig
	ctx      context.Context
	conn     *pgx.Conn
	one, two int64
}

func newSpread(t *testing.T, o rigOptions) *spread {
	t.Helper()
	o.across = true
	r := newRig(t, o)
	return &spread{rig: r, ctx: ctxOf(t), conn: r.connect(pgx.QueryExecModeExec), one: r.keyOn("shard_1", 1), two: r.keyOn("shard_2", 1)}
}

// caughtUp waits until the replicas have replayed what their primaries have written.
func (s *spread) caughtUp() {
	s.t.Helper()
	for _, server := range s.servers {
		if server.replica != nil {
			if err := server.replica.CaughtUp(s.ctx); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *spread) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.conn.Exec(s.ctx, sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// read returns rows as "a|b,c|d".
func (s *spread) read(sql string, args ...any) string {
	s.t.Helper()
	rows, err := s.conn.Query(s.ctx, sql, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		var v []string
		for _, x := range r.RawValues() {
			v = append(v, string(x))
		}
		return strings.Join(v, "|"), nil
	})
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(list, ",")
}

// A commit of which the client is told that it has failed has not taken effect.
func TestCommitThatLosesAReader(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("BEGIN")
	s.read("SELECT id::text FROM orders WHERE customer_id = $1", s.two)
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a')", s.one)
	if err := s.servers[1].primary.ExecIn(s.ctx, "app", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.Exec(s.ctx, "COMMIT"); err == nil {
		t.Error("the commit has not noticed")
	}
	if rows := s.read("SELECT id::text FROM orders WHERE customer_id = $1", s.one); rows != "" {
		t.Errorf("rows %s have been committed all the same", rows)
	}
	s.busy(t, 0)
}

// What a replica refuses, of a read over shards, goes to the primary, once: a primary may refuse it too.
func TestReadOverShardsThatReplicasRefuse(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	for _, shard := range s.servers {
		err := shard.primary.ExecIn(s.ctx, "app",
			"CREATE TABLE marked (id bigint)",
			"CREATE FUNCTION marks(bigint) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER AS 'INSERT INTO marked VALUES ($1) RETURNING 1::bigint'",
			"CREATE OPERATOR @#@ (RIGHTARG = bigint, FUNCTION = marks)",
			"CREATE FUNCTION names(bigint) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_walfile_name(''0/1000000'')'",
			"CREATE OPERATOR @##@ (RIGHTARG = bigint, FUNCTION = names)")
		if err != nil {
			t.Fatal(err)
		}
	}
	s.caughtUp()
	s.conn = s.connect(pgx.QueryExecModeExec)
	if rows := s.read("SELECT left(@##@ id::bigint, 8) FROM orders"); rows != "00000001,00000001" {
		t.Errorf("recovery is in progress: %q", rows)
	}
	if rows := s.read("SELECT @#@ id::bigint FROM orders"); rows != "1,1" {
		t.Errorf("a read that writes: %q", rows)
	}
	s.exec("SET default_transaction_read_only = on")
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	_, err := s.conn.Exec(ctx, "SELECT @#@ id::bigint FROM orders")
	wantCode(t, err, pg.CodeReadOnlyTransaction)
	s.busy(t, 0)
}

// A session that is told that nobody knows whether its transaction was committed looks where that would be seen.
func TestLookAfterAnUnknownCommit(t *testing.T) {
	s := newSpread(t, rigOptions{})
	err := s.servers[0].primary.ExecIn(s.ctx, "app",
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.item = 'slow') EXECUTE FUNCTION slow()",
		fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (%d, 1, 'a')", s.one))
	if err != nil {
		t.Fatal(err)
	}
	s.caughtUp()
	const where = "SELECT inet_server_port()::text FROM orders WHERE customer_id = $1"
	if on := s.read(where, s.one); on != fmt.Sprint(s.servers[0].replica.Port()) {
		t.Fatalf("a read of a session that has written nothing goes to %s", on)
	}
	s.exec("BEGIN")
	s.read("SELECT id::text FROM orders WHERE customer_id = $1", s.two)
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 2, 'slow')", s.one)
	ended := s.begin("COMMIT")
	s.sleeps(1)
	if err := s.servers[0].primary.ExecIn(s.ctx, "app", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app' AND query = 'COMMIT'"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-ended, pg.CodeTransactionResolutionUnknown)
	if on := s.read(where, s.one); on != fmt.Sprint(s.servers[0].primary.Port()) {
		t.Errorf("the look goes to %s, and the primary is %d", on, s.servers[0].primary.Port())
	}
	s.busy(t, 0)
}

// A statement that is described and run in one go needs one connection to each shard.
func TestDescribedAndRunOnOneConnection(t *testing.T) {
	s := newSpread(t, rigOptions{poolSize: 1, wait: 5 * time.Second})
	p := s.conn.PgConn().StartPipeline(s.ctx)
	p.SendPrepare("s", "SELECT customer_id, id FROM orders ORDER BY id", nil)
	p.SendQueryPrepared("s", nil, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		x, err := p.GetResults()
		if err != nil {
			t.Fatal(err)
		}
		switch x := x.(type) {
		case *pgconn.ResultReader:
			if _, err := x.Close(); err != nil {
				t.Fatal(err)
			}
		case *pgconn.PipelineSync, nil:
			done = true
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	s.busy(t, 0)
}

// Shards sort text by its bytes in their encoding, which is not its order in the client's.
func TestOrderInAnotherEncoding(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'я'), ($2, 2, 'ё')", s.one, s.two)
	s.exec("SET client_encoding = 'WIN1251'")
	if got := s.read(`SELECT id::text FROM orders ORDER BY item COLLATE "C"`); got != "1,2" {
		t.Errorf("%s, want 1,2", got)
	}
}

// In some encodings a character's second byte is a backslash's.
func TestGatheredInAnotherEncoding(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec(`INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, '表'), ($2, 2, 'ｱ\"ソ表b')`, s.one, s.two)
	s.exec("SET client_encoding = 'SJIS'")
	want := "\x95\x5c|1,\xb1\\\"\x83\x5c\x95\x5cb|1"
	if got := s.read(`SELECT item, count(*)::text FROM orders GROUP BY item ORDER BY octet_length(item)`); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

// A portal runs once, as on PostgreSQL.
func TestPortalRunsOnce(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("BEGIN")
	s.read("SELECT id::text FROM orders WHERE customer_id = $1", s.two)
	s.read("SELECT id::text FROM orders WHERE customer_id = $1", s.one)
	raw := pg.AppendParse(nil, "", fmt.Sprintf("INSERT INTO orders (customer_id, id, item) SELECT %d, coalesce(max(id), 0) + 1, 'x' FROM orders WHERE customer_id = %[1]d", s.one), nil)
	raw = append(raw, 'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0)
	raw = pg.AppendSync(pg.AppendExecute(pg.AppendExecute(raw, "", 0), "", 0))
	if got := s.raw()(raw); got != "1 2 C(INSERT 0 1) E(55000) Z" {
		t.Errorf("answers %s", got)
	}
}

// Rows may be enough while a shard has still to fail: then its transaction has, and the client must hear of it.
func TestErrorBehindALimit(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($1, 2, 'b'), ($1, 3, 'c'), ($2, 2, 'b')", s.one, s.two)
	var locks []pgx.Tx
	for _, server := range s.servers {
		conn, err := server.primary.ConnTo(s.ctx, "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		tx, err := conn.Begin(s.ctx)
		if err == nil {
			_, err = tx.Exec(s.ctx, "LOCK TABLE orders")
		}
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, tx)
	}
	s.exec("BEGIN")
	ended := s.begin(fmt.Sprintf("SELECT CASE WHEN customer_id = %d THEN length(pg_sleep(0.5)::text) + 1/(id - id) ELSE 1 END FROM orders LIMIT 3", s.two))
	pgtest.Eventually(t, patience, func() error { // one that has not been asked yet would not be
		if each, _ := s.onShards(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"); !slices.Equal(each, []int{1, 1}) {
			return fmt.Errorf("%d wait", each)
		}
		return nil
	})
	for _, tx := range locks {
		if err := tx.Rollback(s.ctx); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, <-ended, "22012")
	s.exec("ROLLBACK")
}

// Rows may be enough before a shard has been asked at all: it takes no part in the commit of what might have written then.
func TestEnoughBeforeAShardIsAsked(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	var all sync.WaitGroup
	for range 8 { // so that one part is now and then late
		conn := s.connect(pgx.QueryExecModeExec)
		all.Go(func() {
			for i := range 40 {
				if _, err := conn.Exec(s.ctx, "SELECT clock_timestamp() IS NULL FROM orders LIMIT 0"); err != nil {
					t.Errorf("the %dth time: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// What is set in a transaction is so on all its shards, also on those that come later, and what the client was told is taken back with it.
func TestSettingsReachAllShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	const ask = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('lock_timeout'), current_setting('TimeZone') FROM orders WHERE customer_id = $1"
	both := func(want string) {
		t.Helper()
		for _, key := range []int64{s.one, s.two} {
			if got := s.read(ask, key); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
	told := func(want string) {
		t.Helper()
		if got := s.conn.PgConn().ParameterStatus("TimeZone"); got != want {
			t.Errorf("the client was told %s, want %s", got, want)
		}
	}
	s.exec("SET TimeZone = 'UTC'")
	s.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	s.exec("SET LOCAL lock_timeout = '1234ms'")
	both("repeatable read|on|1234ms|UTC")
	s.exec("SAVEPOINT s")
	s.exec("SET LOCAL TimeZone = 'Asia/Tokyo'")
	both("repeatable read|on|1234ms|Asia/Tokyo")
	told("Asia/Tokyo")
	s.exec("ROLLBACK TO SAVEPOINT s")
	both("repeatable read|on|1234ms|UTC")
	told("UTC")
	s.exec("SET TimeZone = 'Asia/Seoul'")
	both("repeatable read|on|1234ms|Asia/Seoul")
	told("Asia/Seoul")
	s.exec("ROLLBACK")
	told("UTC")
	both("read committed|off|0|UTC")
	s.exec("BEGIN")
	both("read committed|off|0|UTC")
	s.exec("SET TimeZone = 'Asia/Seoul'")
	s.exec("SET LOCAL TimeZone = 'Asia/Tokyo'")
	told("Asia/Tokyo")
	s.exec("COMMIT")
	told("Asia/Seoul")
	both("read committed|off|0|Asia/Seoul")
	s.busy(t, 0)
}

// sleeps waits until n server processes are in pg_sleep.
func (s *spread) sleeps(n int) {
	s.t.Helper()
	pgtest.Eventually(s.t, patience, func() error {
		found := 0
		for _, shard := range s.servers {
			for _, server := range []*pgtest.Server{shard.primary, shard.replica} {
				c, err := server.ConnTo(s.ctx, "app", "")
				if err != nil {
					return err
				}
				one := 0
				err = c.QueryRow(s.ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'").Scan(&one)
				c.Close(s.ctx)
				if err != nil {
					return err
				}
				found += one
			}
		}
		if found != n {
			return fmt.Errorf("%d sleep, want %d", found, n)
		}
		return nil
	})
}

// begin sends a statement, and returns where its error comes.
func (s *spread) begin(sql string, args ...any) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := s.conn.Exec(s.ctx, sql, args...)
		ended <- err
	}()
	return ended
}

// A commit that is canceled while a shard is at it has not taken effect, and says so. What is canceled leaves its connections to others.
func TestCancelAtCommit(t *testing.T) {
	s := newSpread(t, rigOptions{poolSize: 1})
	for _, shard := range s.servers {
		err := shard.primary.ExecIn(s.ctx, "app",
			"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); RETURN NULL; END $$",
			"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.item = 'slow') EXECUTE FUNCTION slow()")
		if err != nil {
			t.Fatal(err)
		}
	}
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	const processes = "UPDATE orders SET item = item WHERE id IN (1, 2) RETURNING id, pg_backend_pid()"
	ask := func() string { // rows come as the shards answer
		rows := strings.Split(s.read(processes), ",")
		slices.Sort(rows)
		return strings.Join(rows, ",")
	}
	before := ask()
	for name, second := range map[string]string{
		"one writes": "SELECT id FROM orders WHERE customer_id = $1", "both write": "INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'b')",
	} {
		s.exec("BEGIN")
		s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'slow')", s.one)
		s.exec(second, s.two)
		ended := s.begin("COMMIT")
		s.sleeps(1)
		if err := s.conn.PgConn().CancelRequest(s.ctx); err != nil {
			t.Fatal(err)
		}
		wantCode(t, <-ended, pg.CodeQueryCanceled)
		if got := s.read("SELECT id::text FROM orders WHERE customer_id IN ($1, $2) ORDER BY id", s.one, s.two); got != "1,2" {
			t.Errorf("%s: rows %s", name, got)
		}
		s.busy(t, 0)
	}
	ended := s.begin("UPDATE orders SET item = pg_sleep(100)::text WHERE id IN (1, 2)")
	s.sleeps(2)
	if err := s.conn.PgConn().CancelRequest(s.ctx); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-ended, pg.CodeQueryCanceled)
	s.busy(t, 0)
	if after := ask(); after != before {
		t.Errorf("%s is what was %s: connections have been closed", after, before)
	}
}

// A request to cancel ends what runs on all shards, and hits nothing that comes later.
func TestCancelOnSeveralShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	for _, block := range []bool{false, true} {
		if block {
			s.exec("BEGIN")
			s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 3, 'c')", s.one)
		}
		ended := s.begin("SELECT pg_sleep(100) FROM orders WHERE id < 3")
		s.sleeps(2)
		if err := s.conn.PgConn().CancelRequest(s.ctx); err != nil {
			t.Fatal(err)
		}
		wantCode(t, <-ended, pg.CodeQueryCanceled)
		if block {
			s.exec("ROLLBACK")
		}
		if got := s.read("SELECT id::text FROM orders ORDER BY id"); got != "1,2" {
			t.Error(got)
		}
		s.busy(t, 0)
	}
}
