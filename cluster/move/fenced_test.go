package move

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// single is a rig of one table t with the key c.
func single(t *testing.T, method string, of rib.Type, o pgtest.Options, schema string) *rig {
	t.Helper()
	r := startRig(t, false, o, schema)
	k := &kind{method: method, types: []rib.Type{of}, columns: []string{"c"}}
	r.of(k.keyspace("t"))
	return r
}

// first is the job of a move that a first leader begins.
func (r *rig) first(low, high rib.Key) *Job {
	return &Job{Move: rib.Move{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare}, Keyspace: r.ks, Term: 1}
}

// TestPartitionComesMeanwhile: until the tables are guarded somebody may give one another partition, whose rows are to be copied, and which must not be truncated.
// One that comes behind that, on either server, as of a session that had begun to make it, has the copy begin anew.
func TestPartitionComesMeanwhile(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint, at int, PRIMARY KEY (c, at)) PARTITION BY RANGE (at); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	low, high := r.quarter()
	j := r.first(low, high)
	source := r.at("shard_1").primary
	err := p.with(t.Context(), j, func(l *link) error {
		if _, err := l.look(t.Context(), j); err != nil {
			return err
		}
		if err := p.rowsOf(t.Context(), l, j); err != nil {
			return err
		}
		if err := source.Exec(t.Context(), "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (200)"); err != nil {
			return err
		}
		there, err := p.guard(t.Context(), l, j)
		if err != nil {
			return err
		}
		if len(l.tables) != 1 || len(l.tables[0].leaves) != 2 {
			t.Errorf("%+v", l.tables)
		}
		if err := guarded(t.Context(), l.source, j, sideSource, l.tables); err != nil {
			t.Error(err)
		}
		if code := sqlState(source.Exec(t.Context(), "TRUNCATE t_2")); code != "55006" {
			t.Errorf("TRUNCATE of the new partition: %q", code)
		}
		late := "SET rangefinder.mover = 'x'; CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (200) TO (300)"
		if err := errors.Join(source.Exec(t.Context(), late), r.at("shard_2").primary.Exec(t.Context(), late)); err != nil {
			return err
		}
		c := &copier{p: p, j: j, l: l, seed: maphash.MakeSeed(), pace: &pace{rate: 1 << 30}, report: func(Copied) {}, sums: make([]sum, 1)}
		for name, err := range map[string]error{"shard_1": guarded(t.Context(), l.source, j, sideSource, l.tables), "shard_2": c.compare(t.Context(), there)} {
			if err == nil || !strings.Contains(err.Error(), "shard "+name) || !strings.Contains(err.Error(), "begins anew") {
				t.Errorf("a partition has come to %s: %v", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWriterInTheFencesWay: behind the copy the fence waits for whoever has written to a table before. It is told who that is, what is prepared is ended as it was
// decided, and statements go on meanwhile.
func TestWriterInTheFencesWay(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	var settled atomic.Bool
	r.config.Settle = func(_ context.Context, shard string, gids []string) error {
		if shard != "shard_1" || !slices.Equal(gids, []string{"stuck"}) {
			return fmt.Errorf("%s: %q", shard, gids)
		}
		settled.Store(true)
		return errors.New("not decided yet")
	}
	begun := make(chan struct{})
	m := r.mover(hook("Copy within", func() error {
		defer close(begun)
		return r.at("shard_1").primary.Exec(t.Context(), "BEGIN; INSERT INTO nothing SELECT c, 1 FROM generate_series(1000, 1100) AS c WHERE NOT "+strings.ReplaceAll(r.where(low, high), "customer_id", "c")+" LIMIT 1; PREPARE TRANSACTION 'stuck'")
	}))
	id := r.book.start(low, high, "shard_1", "shard_2")
	<-begun
	pgtest.Eventually(t, 30*time.Second, func() error {
		list := m.Status()
		if len(list) != 1 || !strings.Contains(list[0].Problem, `shard_1: the fence on table "public"."nothing" waits`) || !strings.Contains(list[0].Problem, `"stuck"`) || !settled.Load() {
			return fmt.Errorf("settled: %v, %+v", settled.Load(), list)
		}
		return nil
	})
	if err := r.at("shard_1").primary.Exec(t.Context(), "UPDATE nothing SET x = x + 1"); err != nil {
		t.Error(err)
	}
	if err := r.at("shard_1").primary.Exec(t.Context(), "COMMIT PREPARED 'stuck'"); err != nil {
		t.Error(err)
	}
	r.over(id, m)
	m.Close()
	if told := r.book.became(); told[len(told)-1] != "flipped" {
		t.Error(told)
	}
	r.clean()
}

// TestAutovacuumInTheWay: an autovacuum, which a server begins behind a large copy, keeps neither what guards the tables nor the fence waiting for longer than anybody
// else.
func TestAutovacuumInTheWay(t *testing.T) {
	for at, name := range map[string]string{"Copy before": "shard_1", "Copy within": "shard_2"} {
		t.Run(at, func(t *testing.T) { autovacuumAt(t, at, name, 0) })
	}
	t.Run("beside others", func(t *testing.T) { autovacuumAt(t, "Copy before", "shard_1", 6) })
}

// autovacuumAt has one begin on a shard at a moment of a move, beside so many that write to it without a pause.
func autovacuumAt(t *testing.T, at, name string, writers int) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{Params: map[string]string{"autovacuum": "on", "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms", "autovacuum_vacuum_cost_limit": "1"}},
		"CREATE TABLE t (c bigint PRIMARY KEY, x text) WITH (autovacuum_enabled = off)")
	low, high := r.quarter()
	fill := "INSERT INTO t SELECT c, repeat('x', 1000) FROM generate_series(1, 20000) AS c"
	if err := errors.Join(r.at("shard_1").primary.Exec(t.Context(), fill), r.at("shard_2").primary.Exec(t.Context(), fill+" WHERE NOT "+strings.ReplaceAll(r.where(low, high), "customer_id", "c"))); err != nil {
		t.Fatal(err)
	}
	r.config.LockWait = 10 * time.Second // the autovacuum lasts for much longer
	writing, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for i := range writers {
		conn := r.connect(name)
		wg.Go(func() {
			for writing.Err() == nil {
				err := script(writing, conn, fmt.Sprintf("UPDATE t SET x = x WHERE c = %d AND pg_sleep(0.02) IS NOT NULL", i+1))
				if err != nil && writing.Err() == nil && sqlState(err) != "RF001" {
					t.Error(err)
					return
				}
			}
		})
	}
	m := r.mover(hook(at, func() error {
		err := r.at(name).primary.Exec(t.Context(), "SET rangefinder.mover = 'x'", "ALTER TABLE t RESET (autovacuum_enabled)")
		pgtest.Eventually(t, 30*time.Second, func() error {
			if r.query(name, "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%public.t%'") == "0" {
				return errors.New("there is no autovacuum")
			}
			return nil
		})
		return err
	}))
	id := r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	m.Close()
	if told := r.book.became(); told[len(told)-1] != "flipped" {
		t.Error(told)
	}
}

// TestIdleConnections: a connection that is not needed while rows are copied is not ended for that.
func TestIdleConnections(t *testing.T) {
	r := newRig(t, false)
	for _, name := range []string{"shard_1", "shard_2"} {
		if err := r.at(name).primary.Exec(t.Context(), "ALTER DATABASE postgres SET idle_session_timeout = '1s'"); err != nil {
			t.Fatal(err)
		}
	}
	low, high := r.quarter()
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	err := p.with(t.Context(), r.first(low, high), func(l *link) error {
		for _, conn := range []*pgx.Conn{l.source, l.target} {
			var ms string
			if err := conn.QueryRow(t.Context(), "SHOW idle_session_timeout").Scan(&ms); err != nil || ms != "0" {
				t.Errorf("%q, %v", ms, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestKeyOfAnotherType: a key that the fence could not read is found before anything is copied.
func TestKeyOfAnotherType(t *testing.T) {
	r := single(t, "range", rib.TypeInt, pgtest.Options{}, "CREATE TABLE t (c bigint PRIMARY KEY, x int)")
	if err := r.at("shard_1").primary.Exec(t.Context(), "INSERT INTO t SELECT g, 1 FROM generate_series(1, 1000) AS g"); err != nil {
		t.Fatal(err)
	}
	low, high, err := r.ks.ParseInterval("100..200")
	if err != nil {
		t.Fatal(err)
	}
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	_, err = p.Copy(t.Context(), r.first(low, high), func(c Copied) { t.Errorf("%+v is copied", c) })
	if sqlState(err) != "42883" {
		t.Error(err)
	}
}

// TestOlderSnapshotAtTheTarget: a transaction whose snapshot is older than the move cannot know that it must not write to the range.
func TestOlderSnapshotAtTheTarget(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	old := r.connect("shard_2", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM orders")
	var code string
	m := r.mover(hook("Follow after", func() error {
		code = sqlState(script(t.Context(), old, r.insertSQL(low, high)))
		return script(t.Context(), old, "ROLLBACK")
	}))
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if code != "40001" {
		t.Errorf("%q", code)
	}
	r.clean()
}

// TestWhoIsInTheFencesWay: who has written to the table, or to a partition of it, is in the way of its fence. Readers are not, nor is who writes to another table. All
// that is prepared there is ended as it was decided.
func TestWhoIsInTheFencesWay(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint, at int, PRIMARY KEY (c, at)) PARTITION BY RANGE (at); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE other (c bigint)")
	var settled []string
	r.config.Settle = func(ctx context.Context, shard string, gids []string) error {
		settled = append(settled, gids...)
		var errs []error
		for _, gid := range gids { // the second is the younger one, and its time may come later
			errs = append(errs, r.at(shard).primary.Exec(ctx, "ROLLBACK PREPARED "+quote(gid)))
		}
		return errors.Join(errs...)
	}
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	ask := r.connect("shard_1")
	inWay := func() string {
		t.Helper()
		_, whose, err := p.oldest(t.Context(), ask, "shard_1", writersSQL, r.ks.Tables[0].SQL())
		if err != nil {
			t.Fatal(err)
		}
		return whose
	}
	r.connect("shard_1", "BEGIN", "SELECT FROM t FOR UPDATE", "INSERT INTO other VALUES (1)")
	if whose := inWay(); whose != "" {
		t.Errorf("a reader: %s", whose)
	}
	writer := r.connect("shard_1", "BEGIN", "INSERT INTO t_1 VALUES (1, 1)")
	if whose := inWay(); !strings.Contains(whose, fmt.Sprintf("process %d", writer.PgConn().PID())) {
		t.Errorf("a writer to a partition: %q", whose)
	}
	hangUp(writer)
	if err := r.at("shard_1").primary.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (2, 2); PREPARE TRANSACTION 'first'", "BEGIN; INSERT INTO t_1 VALUES (3, 3); PREPARE TRANSACTION 'second'"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if whose := inWay(); whose != "" {
			return errors.New(whose)
		}
		return nil
	})
	if !slices.Equal(settled, []string{"first", "second"}) {
		t.Errorf("settled: %q", settled)
	}
}

// TestNoTryInVain: while somebody has had a lock for long, or has prepared what has it, statements seldom wait behind a try that is likely to come to nothing. But they do:
// who begins his next transaction at the end of each would keep everybody from the lock for ever.
func TestNoTryInVain(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint PRIMARY KEY)")
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	source := r.at("shard_1").primary
	reader := r.connect("shard_1", "BEGIN", "SELECT FROM t")
	if err := source.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'old'"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if r.query("shard_1", "SELECT bool_and(clock_timestamp() - since > interval '1 second')::text FROM (SELECT prepared FROM pg_prepared_xacts UNION ALL SELECT xact_start FROM pg_stat_activity WHERE pid = "+fmt.Sprint(reader.PgConn().PID())+") AS open(since)") != "true" {
			return errors.New("they are not open for long yet")
		}
		return nil
	})
	for i, c := range []struct {
		others, mode string
		end          func() error
	}{
		{writersSQL, "SHARE ROW EXCLUSIVE", func() error { return source.Exec(t.Context(), "COMMIT PREPARED 'old'") }},
		{usersSQL, "ACCESS EXCLUSIVE", func() error { return script(t.Context(), reader, "COMMIT") }},
	} {
		tries := fmt.Sprintf("tries_%d", i)
		if err := source.Exec(t.Context(), "CREATE SEQUENCE "+tries); err != nil {
			t.Fatal(err)
		}
		began, rounds := time.Now(), 0
		if err := p.patiently(t.Context(), lockOn{r.connect("shard_1"), "shard_1", "t", c.others}, func(err error) error {
			if sqlState(err) != codeLockNotAvailable {
				t.Error(err)
			}
			n := r.query("shard_1", "SELECT last_value::text FROM "+tries)
			if rounds++; rounds == 3 && n != "1" && time.Since(began) < betweenTries {
				t.Errorf("%s: %s tries within %s", c.mode, n, time.Since(began))
			}
			if n != "3" { // it is tried again all the same
				return nil
			}
			return c.end()
		}, fmt.Sprintf("SELECT nextval('%s'); LOCK TABLE t IN %s MODE", tries, c.mode)); err != nil {
			t.Fatal(err)
		}
		if n := r.query("shard_1", "SELECT last_value::text FROM "+tries); n != "4" {
			t.Errorf("%s: %s tries", c.mode, n)
		}
	}
}

// TestTriesForALock: the older the transactions are that have a lock, the fewer tries there are; and the longer it is wanted, the longer they are.
func TestTriesForALock(t *testing.T) {
	const ms = time.Millisecond
	for waited, want := range map[time.Duration]time.Duration{0: 50 * ms, 9 * time.Second: 50 * ms, 10 * time.Second: 100 * ms, 89 * time.Second: 450 * ms, 90 * time.Second: 500 * ms, time.Hour: 500 * ms} {
		if try := tryFor(50*ms, waited); try != want {
			t.Errorf("wanted for %s: a try lasts %s", waited, try)
		}
	}
	for _, c := range []struct {
		since, oldest time.Duration
		worth         bool
	}{
		{ms, 0, true},
		{betweenTries - 1, time.Second, false},
		{betweenTries, time.Second, true},
		{betweenTries, 5 * time.Second, true},
		{time.Second, time.Minute, false},
		{6 * time.Second, time.Minute, true},
	} {
		if worth := worthTrying(c.since, c.oldest); worth != c.worth {
			t.Errorf("%s behind the last try, %s old: %v", c.since, c.oldest, worth)
		}
	}
}

// TestWhoHasTheLockIsTold: what gives up on a lock says who had it.
func TestWhoHasTheLockIsTold(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint PRIMARY KEY)")
	r.config.LockWait = 100 * time.Millisecond
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	reader := r.connect("shard_1", "BEGIN", "SELECT FROM t")
	err := p.locked(t.Context(), lockOn{r.connect("shard_1"), "shard_1", "t", usersSQL}, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	if err == nil || !strings.HasPrefix(err.Error(), "a lock on table t was not to be had in 100ms: a transaction of user") || !strings.Contains(err.Error(), fmt.Sprintf("process %d", reader.PgConn().PID())) || sqlState(err) != codeLockNotAvailable {
		t.Error(err)
	}
}

// TestWhoHasAPartitionIsTold: who has locks on a table is told without waiting for one, as for one of its partitions that somebody has for himself (VACUUM FULL).
func TestWhoHasAPartitionIsTold(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint, at int, PRIMARY KEY (c, at)) PARTITION BY RANGE (at); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100) PARTITION BY LIST (at); CREATE TABLE t_1_1 PARTITION OF t_1 FOR VALUES IN (1)")
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	other := r.connect("shard_1", "BEGIN", "LOCK TABLE t_1_1 IN ACCESS EXCLUSIVE MODE")
	_, whose, err := p.oldest(t.Context(), r.connect("shard_1", "SET lock_timeout = '100ms'"), "shard_1", writersSQL, "t")
	if err != nil || !strings.Contains(whose, fmt.Sprintf("process %d", other.PgConn().PID())) {
		t.Errorf("%q, %v", whose, err)
	}
}

// TestRowsThatWereThere: rows of the range that lay at the target before anything was copied are somebody's, and an abort leaves them.
func TestRowsThatWereThere(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	m := r.mover(hook("Check after", func() error {
		return r.at("shard_2").primary.Exec(t.Context(), r.insertSQL(low, high))
	}))
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if told := r.book.became(); !strings.HasPrefix(told[len(told)-1], "aborted") || !strings.Contains(told[len(told)-1], "1 rows of the range lie there already") {
		t.Errorf("%q", told)
	}
	if n := r.query("shard_2", "SELECT count(*)::text FROM nothing WHERE x = 4711"); n != "1" {
		t.Errorf("%s rows are left", n)
	}
	r.clean()
}

// TestRowsThatCameWhileTheSlotWaits: rows that come to the target before there is a snapshot lay there before anything was copied.
func TestRowsThatCameWhileTheSlotWaits(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	old := r.connect("shard_1")
	m := r.mover(hook("Copy before", func() error { return script(t.Context(), old, "BEGIN", "CREATE TABLE elsewhere (x int)") }))
	id := r.book.start(low, high, "shard_1", "shard_2")
	pgtest.Eventually(t, 30*time.Second, func() error {
		if r.query("shard_1", "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%' AND state = 'active' AND wait_event_type = 'Lock'") == "0" {
			return errors.New("no slot waits")
		}
		return nil
	})
	if err := errors.Join(r.at("shard_2").primary.Exec(t.Context(), r.insertSQL(low, high)), script(t.Context(), old, "COMMIT")); err != nil {
		t.Fatal(err)
	}
	r.over(id, m)
	m.Close()
	if told := r.book.became(); !strings.Contains(told[len(told)-1], "1 rows of the range lie there already") {
		t.Errorf("%q", told)
	}
	if n := r.query("shard_2", "SELECT count(*)::text FROM nothing WHERE x = 4711"); n != "1" {
		t.Errorf("%s rows are left", n)
	}
	r.clean()
}

// TestWhoHoldsTheSlotUp: the copy can begin only when the transactions are over that were there before it, on whatever table. It is told who that is, and what is prepared
// is ended as it was decided.
func TestWhoHoldsTheSlotUp(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	source := r.at("shard_1").primary
	if err := source.Exec(t.Context(), "CREATE TABLE elsewhere (x int)"); err != nil {
		t.Fatal(err)
	}
	var settled atomic.Bool
	r.config.Settle = func(ctx context.Context, shard string, gids []string) error {
		if shard != "shard_1" || !slices.Equal(gids, []string{"ours"}) {
			return fmt.Errorf("%s: %q", shard, gids)
		}
		if young := r.query("shard_1", fmt.Sprintf("SELECT (clock_timestamp() - prepared < interval '%d s')::text FROM pg_prepared_xacts", int(longTransaction.Seconds()))); young != "false" {
			t.Error("whoever has prepared it may be about to decide")
		}
		settled.Store(true)
		return source.Exec(ctx, "ROLLBACK PREPARED 'ours'")
	}
	old := r.connect("shard_1")
	m := r.mover(hook("Copy before", func() error {
		return errors.Join(source.Exec(t.Context(), "BEGIN; INSERT INTO elsewhere VALUES (1); PREPARE TRANSACTION 'ours'"), script(t.Context(), old, "BEGIN", "INSERT INTO elsewhere VALUES (2)"))
	}))
	id := r.book.start(low, high, "shard_1", "shard_2")
	pgtest.Eventually(t, 30*time.Second, func() error {
		s := m.Status()
		if len(s) != 1 || !strings.HasPrefix(s[0].Problem, "shard shard_1: the copy waits for what was open there before it, for ") ||
			!strings.HasSuffix(s[0].Problem, fmt.Sprintf("(process %d), and waits for its client", old.PgConn().PID())) || !settled.Load() {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := script(t.Context(), old, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.over(id, m)
	m.Close()
	if told := fmt.Sprint(r.book.became()); told != "[flipped]" {
		t.Error(told)
	}
}

// TestAlteredMeanwhile: who had begun to change a table when it was guarded is heard of, though what he changes is neither a column nor a partition.
func TestAlteredMeanwhile(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE TABLE t (c bigint, at int, PRIMARY KEY (c, at)) PARTITION BY RANGE (at); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	low, high := r.quarter()
	j := r.first(low, high)
	err := p.with(t.Context(), j, func(l *link) error {
		if err := p.rowsOf(t.Context(), l, j); err != nil {
			return err
		}
		if _, err := p.guard(t.Context(), l, j); err != nil {
			return err
		}
		if err := errors.Join(p.publishable(t.Context(), l, j), p.unchanged(t.Context(), l, j)); err != nil {
			return err
		}
		if err := r.at("shard_1").primary.Exec(t.Context(), "SET rangefinder.mover = 'x'; ALTER TABLE t_1 REPLICA IDENTITY NOTHING"); err != nil {
			return err
		}
		for _, err := range []error{p.publishable(t.Context(), l, j), p.unchanged(t.Context(), l, j)} {
			if err == nil || !strings.Contains(err.Error(), "it has no replica identity") {
				t.Error(err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
