package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/console"
)

func (r *rig) exec(conn *pgx.Conn, sql ...string) {
	r.t.Helper()
	for _, s := range sql {
		if _, err := conn.Exec(ctxOf(r.t), s); err != nil {
			r.t.Fatalf("%s: %v", s, err)
		}
	}
}

// told returns the next notification, as "channel payload".
func told(t *testing.T, conn *pgx.Conn) *pgconn.Notification {
	t.Helper()
	n, err := conn.WaitForNotification(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func expect(t *testing.T, conn *pgx.Conn, want ...string) {
	t.Helper()
	for _, w := range want {
		if n := told(t, conn); n.Channel+" "+n.Payload != w {
			t.Fatalf("told of %q, want %q", n.Channel+" "+n.Payload, w)
		}
	}
}

// untold checks that nothing was passed on: what is sent last on a channel of its own is what comes next.
func untold(t *testing.T, r *rig, listener, sender *pgx.Conn) {
	t.Helper()
	r.exec(listener, "LISTEN marker")
	r.exec(sender, "NOTIFY marker")
	expect(t, listener, "marker ")
	r.exec(listener, "UNLISTEN marker")
}

// unpinned checks that nobody's connection is kept, for nobody asks for anything.
func (r *rig) unpinned() {
	r.t.Helper()
	r.busy(r.t, 0)
	r.pinnedAs("")
}

func TestListen(t *testing.T) {
	for name, buffered := range map[string]bool{"raw": false, "buffered": true} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				r := newRig(t, rigOptions{buffered: buffered})
				a, b, sender := r.connect(mode), r.connect(mode), r.connect(mode)
				r.exec(a, "LISTEN one", `LISTEN "Two"`)
				r.exec(b, "LISTEN one")
				r.unpinned()
				r.exec(sender, "NOTIFY one, 'x'", "NOTIFY two", `NOTIFY "Two", 'y'`, "SELECT pg_notify('one', 'z')")
				expect(t, a, "one x", "Two y", "one z")
				expect(t, b, "one x", "one z")

				// From whichever shard: what different ones tell has no order.
				for _, shard := range []string{"shard_1", "shard_2"} {
					if _, err := sender.Exec(ctxOf(t), "SELECT pg_notify('one', customer_id::text) FROM (SELECT $1::bigint AS customer_id) x", r.keyOn(shard, 1)); err != nil {
						t.Fatal(err)
					}
					for _, c := range []*pgx.Conn{a, b} {
						expect(t, c, fmt.Sprint("one ", r.keyOn(shard, 1)))
					}
				}
				key := r.keyOn("shard_2", 1)
				r.exec(sender, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, 1)", key))
				r.exec(sender, "BEGIN", fmt.Sprintf("UPDATE orders SET item = pg_notify('one', 'of shard 2')::text WHERE customer_id = %d", key), "NOTIFY one, 'with it'", "COMMIT")
				for _, c := range []*pgx.Conn{a, b} {
					expect(t, c, "one of shard 2", "one with it")
				}

				// Its own, and who sent it.
				r.exec(a, "NOTIFY one, 'mine'")
				if n := told(t, a); n.Payload != "mine" || n.PID != a.PgConn().PID() {
					t.Errorf("%q from %d, and a is %d", n.Payload, n.PID, a.PgConn().PID())
				}
				if n := told(t, b); n.PID != a.PgConn().PID() {
					t.Errorf("from %d, and a is %d", n.PID, a.PgConn().PID())
				}
				if mode != pgx.QueryExecModeSimpleProtocol {
					if _, err := b.Exec(ctxOf(t), "SELECT pg_notify($1, $2)", "one", "b's"); err != nil {
						t.Fatal(err)
					}
					if n := told(t, a); n.Payload != "b's" || n.PID != b.PgConn().PID() {
						t.Errorf("%q from %d, and b is %d", n.Payload, n.PID, b.PgConn().PID())
					}
					told(t, b)
				}

				// Nobody is told inside a transaction.
				r.exec(a, "BEGIN", "SELECT 1")
				r.exec(sender, "NOTIFY one, 'later'")
				expect(t, b, "one later")
				r.exec(a, "SELECT 2")
				if n := a.PgConn().TxStatus(); n != 'T' {
					t.Fatal(n)
				}
				r.exec(a, "COMMIT")
				expect(t, a, "one later")

				r.exec(a, "UNLISTEN one")
				r.exec(b, "UNLISTEN *")
				r.exec(sender, "NOTIFY one, 'nobody'", `NOTIFY "Two", 'a'`)
				expect(t, a, "Two a")
				untold(t, r, b, sender)
				r.exec(a, "DISCARD ALL")
				r.exec(sender, `NOTIFY "Two", 'nobody'`)
				untold(t, r, a, sender)
				r.unpinned()
			})
		}
	}
}

// LISTEN and UNLISTEN take effect at COMMIT.
func TestListenIsTransactional(t *testing.T) {
	r := newRig(t, rigOptions{})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			r.t = t
			a, sender := r.connect(mode), r.connect(mode)
			for _, real := range []string{"SELECT 1", "SELECT body FROM notes FOR UPDATE"} { // the block is open nowhere, or on a server
				r.exec(a, "BEGIN", real, "LISTEN c")
				r.exec(sender, "NOTIFY c, 'before'")
				r.exec(a, "ROLLBACK")
				r.exec(sender, "NOTIFY c, 'rolled back'")
				untold(t, r, a, sender)

				r.exec(a, "BEGIN", real, "SAVEPOINT s", "LISTEN d", "ROLLBACK TO s", "LISTEN c", "COMMIT")
				r.exec(sender, "NOTIFY d, 'no'", "NOTIFY c, 'yes'")
				expect(t, a, "c yes")
				r.exec(a, "BEGIN", real, "UNLISTEN c", "ROLLBACK")
				r.exec(sender, "NOTIFY c, 'still'")
				expect(t, a, "c still")
				r.exec(a, "BEGIN", real, "UNLISTEN c", "LISTEN d", "UNLISTEN *", "LISTEN e", "COMMIT AND CHAIN", "LISTEN f", "ROLLBACK")
				r.exec(sender, "NOTIFY c", "NOTIFY d", "NOTIFY f", "NOTIFY e, 'last'")
				expect(t, a, "e last")
				r.exec(a, "UNLISTEN *")

				// An error takes it back, unless a savepoint saves it.
				r.exec(a, "BEGIN", real, "LISTEN c", "SAVEPOINT s")
				pgErr(t, a, "SELECT 1/0")
				r.exec(a, "ROLLBACK TO s", "COMMIT")
				r.exec(sender, "NOTIFY c, 'saved'")
				expect(t, a, "c saved")
				r.exec(a, "BEGIN", real, "UNLISTEN c")
				pgErr(t, a, "SELECT 1/0")
				r.exec(a, "COMMIT")
				r.exec(sender, "NOTIFY c, 'not unlistened'")
				expect(t, a, "c not unlistened")
				r.exec(a, "UNLISTEN c")
			}
			r.unpinned()
		})
	}
	// Before one Sync: all or nothing.
	conn, sender := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	var batch pgx.Batch
	batch.Queue("LISTEN c")
	batch.Queue("SELECT 1/0")
	if err := conn.SendBatch(ctxOf(t), &batch).Close(); err == nil {
		t.Fatal("no error")
	}
	r.exec(sender, "NOTIFY c")
	untold(t, r, conn, sender)
	batch = pgx.Batch{}
	batch.Queue("SELECT count(*) FROM notes")
	batch.Queue("LISTEN c")
	batch.Queue("INSERT INTO notes VALUES (77, 'x')")
	batch.Queue("NOTIFY c, 'own'")
	if err := conn.SendBatch(ctxOf(t), &batch).Close(); err != nil {
		t.Fatal(err)
	}
	r.exec(sender, "NOTIFY c, 'batch'")
	expect(t, conn, "c own", "c batch")
}

func TestListenRefused(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	if pe := pgErr(t, conn, "LISTEN a; SELECT 1"); pe.Code != "0A000" || pe.Hint == "" {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
	if pe := pgErr(t, conn, "SELECT pg_listening_channels()"); pe.Code != "0A000" || pe.Hint == "" {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
	r.exec(conn, "LISTEN a; LISTEN b")
	r.exec(r.connect(pgx.QueryExecModeSimpleProtocol), "NOTIFY a, '1'; NOTIFY b, '2'")
	expect(t, conn, "a 1", "b 2")
	var all []string
	for i := range 998 {
		all = append(all, fmt.Sprintf("LISTEN c%d", i))
	}
	r.exec(conn, strings.Join(all, ";"))
	if pe := pgErr(t, conn, "LISTEN more"); pe.Code != "54000" || pe.Hint == "" {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
	r.exec(conn, "UNLISTEN c7", "LISTEN more")
}

// Many sessions on one channel, and senders through both shards: each is told of everything once, in each shard's order.
func TestNotificationsFanOut(t *testing.T) {
	r := newRig(t, rigOptions{})
	const listeners, senders, each = 20, 4, 50
	var wg sync.WaitGroup
	for range listeners {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		r.exec(conn, "LISTEN c")
		wg.Go(func() {
			next := make(map[string]int)
			for range senders * each {
				n, err := conn.WaitForNotification(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				var i int
				var who string
				fmt.Sscanf(n.Payload, "%s %d", &who, &i)
				if next[who] != i {
					t.Errorf("%s, and %d was to come", n.Payload, next[who])
					return
				}
				next[who] = i + 1
			}
		})
	}
	for s := range senders {
		conn := r.connect(pgx.QueryExecModeExec)
		key := r.keyOn(fmt.Sprintf("shard_%d", 1+s%2), 1)
		r.exec(conn, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, %d)", key, s))
		wg.Go(func() {
			for i := range each {
				_, err := conn.Exec(context.Background(), fmt.Sprintf("UPDATE orders SET item = pg_notify('c', 's%d %d')::text WHERE customer_id = $1 AND id = $2", s, i), key, s)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := r.listening(t); n != 2 {
		t.Errorf("%d connections listen, to two primaries", n)
	}
}

// listening counts the servers' connections that listen for the node.
func (r *rig) listening(t *testing.T) (n int) {
	t.Helper()
	for _, s := range servers(t) {
		conn, err := s.primary.ConnTo(ctxOf(t), "app", "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		var one int
		if err := conn.QueryRow(ctxOf(t), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rangefinder LISTEN' AND datname = 'app'").Scan(&one); err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// A client that reads nothing is ended when too much waits for it, with a word that says so; the others are not harmed.
func TestNotificationsAreBounded(t *testing.T) {
	r := newRig(t, rigOptions{})
	deaf, good, sender := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
	r.exec(deaf, "LISTEN c", "BEGIN")
	r.exec(good, "LISTEN c")
	r.exec(sender, "DO $$ BEGIN FOR i IN 1..700 LOOP PERFORM pg_notify('c', i || repeat('x', 7000)); END LOOP; END $$")
	for range 700 {
		told(t, good)
	}
	_, err := deaf.Exec(ctxOf(t), "SELECT 1")
	var pe *pgconn.PgError
	for range 3 { // it may have been ended before it asked
		if errors.As(err, &pe) || err == nil {
			break
		}
		_, err = deaf.WaitForNotification(ctxOf(t))
	}
	if pe == nil || pe.Code != "53200" || pe.Severity != "FATAL" || pe.Hint == "" {
		t.Errorf("%v", err)
	}
	r.until("one session less", func(s *console.Snapshot) bool { return len(s.Clients) == 2 })
}

// When what a session relies on is lost, it is ended: it must not believe that nothing has happened.
func TestListenerLost(t *testing.T) {
	shards := ownShards(t, 2)
	r := newRig(t, rigOptions{shards: shards})
	ended := func(conn *pgx.Conn, words string) {
		t.Helper()
		_, err := conn.WaitForNotification(ctxOf(t))
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P01" || pe.Severity != "FATAL" || !strings.Contains(pe.Detail, words) || pe.Hint == "" {
			t.Fatalf("ended with %v, want 57P01 because of %s", err, words)
		}
	}
	idle, busy, other := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
	r.exec(idle, "LISTEN c")
	r.exec(busy, "LISTEN c", "BEGIN", "INSERT INTO notes VALUES (1, 'x')")

	// The connection alone.
	kill := func(s *pgtest.Server) {
		t.Helper()
		if err := s.ExecIn(ctxOf(t), "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rangefinder LISTEN'"); err != nil {
			t.Fatal(err)
		}
	}
	kill(shards[1].primary)
	ended(idle, "shard_2-primary")
	ended(busy, "shard_2-primary")
	r.exec(other, "SELECT body FROM notes")

	// A shard that cannot be listened to: a warning, and the end when it can.
	if err := shards[1].primary.Kill(); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Detail) }
	part, err := pgx.ConnectConfig(ctxOf(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close(context.Background())
	r.exec(part, "LISTEN c")
	if len(notices) != 1 || !strings.HasPrefix(notices[0], "WARNING") || !strings.Contains(notices[0], "shard_2") {
		t.Errorf("notices %q", notices)
	}
	r.exec(other, "NOTIFY c, 'from shard 1'")
	expect(t, part, "c from shard 1")
	if err := shards[1].primary.Start(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	ended(part, "shard_2")

	// Another primary.
	again := r.connect(pgx.QueryExecModeSimpleProtocol)
	r.exec(again, "LISTEN c")
	r.exec(other, "NOTIFY c, 'whole again'")
	expect(t, again, "c whole again")
	p := shards[1].primary
	r.announce(rib.Backend{Name: "shard_2-new", Shard: "shard_2", Region: "far", Addr: p.Addr(), SystemID: p.SystemID()}, rib.Primary)
	r.announce(rib.Backend{Name: "shard_2-primary", Shard: "shard_2", Region: "far", Addr: p.Addr(), SystemID: p.SystemID()}, rib.Replica)
	ended(again, "shard_2-new")
}

// Nobody is left listening when nobody listens.
func TestListenersGo(t *testing.T) {
	r := newRig(t, rigOptions{})
	for range 3 {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		r.exec(conn, "LISTEN c")
		conn.PgConn().Conn().Close()
	}
	for i, s := range servers(t) {
		conn, err := s.primary.ConnTo(ctxOf(t), "app", "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		pgtest.Eventually(t, patience, func() error { // an UNLISTEN is the last that each has said
			var last string
			err := conn.QueryRow(ctxOf(t), "SELECT query FROM pg_stat_activity WHERE application_name = 'rangefinder LISTEN' AND datname = 'app'").Scan(&last)
			if err != nil || !strings.Contains(last, "UNLISTEN") {
				return fmt.Errorf("shard %d: %q %v", i+1, last, err)
			}
			return nil
		})
	}
}
