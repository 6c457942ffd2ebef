package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
)

const insertT = "INSERT INTO t (id) VALUES ($1)"

// heir makes, without opening it, a node that takes over from n.
func (n *testNode) heir(t *testing.T, change func(*Config)) *testNode {
	t.Helper()
	cfg := n.cfg
	for port, addr := range map[*int]string{&cfg.Ports.Postgres: n.pgLn.Addr().String(), &cfg.Ports.Cluster: n.port().Addr(), &cfg.Ports.HTTP: n.httpLn.Addr().String()} {
		if _, err := fmt.Sscanf(addr[strings.LastIndexByte(addr, ':')+1:], "%d", port); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&cfg)
	}
	return newNodeWith(t, cfg, Options{Takeover: true, Getenv: func(k string) (string, bool) { v, ok := clusterEnv()[k]; return v, ok }})
}

// load is clients that connect, ask and leave, and others that stay, until stop; no one of them may fail.
type load struct {
	logins, statements atomic.Int64
	failed             atomic.Pointer[error]
	stop               func()
}

// Each of them writes by insert, a statement with a number that is never the same.
func startLoad(t *testing.T, insert string, dsns ...string) *load {
	t.Helper()
	l := new(load)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	ask := func(conn *pgx.Conn, id int64) error {
		var one int
		err := conn.QueryRow(ctx, "SELECT 1").Scan(&one)
		if err == nil {
			_, err = conn.Exec(ctx, insert, id)
		}
		if err == nil {
			l.statements.Add(2)
		}
		return err
	}
	var ids atomic.Int64
	run := func(dsn string, stay bool) {
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, dsn)
			if err == nil {
				l.logins.Add(1)
				err = ask(conn, ids.Add(1))
				for stay && err == nil && ctx.Err() == nil {
					err = ask(conn, ids.Add(1))
				}
				conn.Close(context.Background())
			}
			if err != nil && ctx.Err() == nil {
				l.failed.CompareAndSwap(nil, &err)
				return
			}
		}
	}
	for _, dsn := range dsns {
		for range 3 {
			wg.Go(func() { run(dsn, false) })
		}
		wg.Go(func() { run(dsn, true) })
	}
	l.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(l.stop)
	return l
}

// more waits until so many more logins and statements have come through.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	logins, statements := l.logins.Load(), l.statements.Load()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		if err := l.failed.Load(); err != nil {
			t.Fatalf("a client failed: %v", *err)
		}
		if l.logins.Load() < logins+n || l.statements.Load() < statements+n {
			return errors.New("the clients do not get on")
		}
		return nil
	})
}

// TestTakeover: a second process takes over from the first under load, and a third from the second. No client notices.
func TestTakeover(t *testing.T) {
	first := startOne(t, func(c *Config) { c.TakeoverWait = Duration{time.Minute} })
	first.settled(t, 1, 1)
	tx, err := first.connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (-1)"); err != nil {
		t.Fatal(err)
	}
	slow, err := pgx.Connect(t.Context(), first.dsn(appPassword)) // its statement will be canceled by way of the two that come
	if err != nil {
		t.Fatal(err)
	}
	slowEnded := make(chan error, 1)
	go func() {
		_, err := slow.Exec(context.Background(), "SELECT pg_sleep(60)")
		slowEnded <- err
	}()
	l := startLoad(t, insertT, first.dsn(appPassword))
	l.more(t, 20)

	second := first.heir(t, nil).open(t)
	if second.state.ClusterID != first.state.ClusterID || second.state.Incarnation != first.state.Incarnation+1 {
		t.Errorf("cluster %s, boot %d", second.state.ClusterID, second.state.Incarnation)
	}
	l.more(t, 20)
	if status, body := second.get(t, "/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	if why := first.NotReady(); len(why) != 1 || why[0] != "another process has taken over" {
		t.Errorf("the first: %v", why)
	}
	third := second.heir(t, nil).open(t)
	l.more(t, 20)
	for name, n := range map[string]*testNode{"first": first, "second": second, "third": third} {
		if _, ok := n.pgLn.(*wire.Listener); !ok {
			t.Errorf("the %s accepts from a %T", name, n.pgLn)
		}
	}

	// A cancel request goes on from the third to the first.
	if err := slow.PgConn().CancelRequest(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-slowEnded; sqlstate(err) != "57014" {
		t.Errorf("canceled by way of the new processes: %v", err)
	}
	if _, err := slow.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session after that: %v", err)
	}
	slow.Close(t.Context())
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (-2)"); err != nil {
		t.Errorf("in the transaction: %v", err)
	}
	select {
	case <-first.Retired():
		t.Error("the first process ends under an open transaction")
	default:
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("commit: %v", err)
	}
	var n int
	if err := third.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM t WHERE id < 0").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows of the transaction, %v", n, err)
	}
	if err := tx.Conn().Close(t.Context()); err != nil {
		t.Error(err)
	}
	l.more(t, 20)
	l.stop()
	t.Logf("%d logins, %d statements", l.logins.Load(), l.statements.Load())
	for _, n := range []*testNode{first, second} {
		select {
		case <-n.Retired():
		case <-time.After(10 * time.Second):
			t.Fatal("the process does not end after its last session")
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := third.connect(t).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}

// TestTakeoverInACluster: of three nodes, each beside one shard, each in its turn is taken over from while clients write to all
// shards through all nodes.
func TestTakeoverInACluster(t *testing.T) {
	c := startCluster(t)
	if code, out, errs := c.nodes[0].admin("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3"); code != 0 {
		t.Fatal(out, errs)
	}
	var dsns []string
	for _, n := range c.nodes {
		n.sees(t, "app.accounts")
		dsns = append(dsns, n.dsn(appPassword))
	}
	l := startLoad(t, "INSERT INTO accounts (id, balance) VALUES ($1, 1)", dsns...)
	l.more(t, 30)
	for i, old := range c.nodes {
		tx, err := old.connect(t).Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES ($1, 2)", -i-1)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = old.heir(t, nil).open(t)
		l.more(t, 30)
		if err := tx.Commit(t.Context()); err != nil {
			t.Errorf("%s: the transaction that was open: %v", old.cfg.Name, err)
		}
		for _, n := range c.nodes {
			n.settled(t, 3, 3)
		}
		l.more(t, 30)
	}
	l.stop()
	l.more(t, 0)
	t.Logf("%d logins, %d statements", l.logins.Load(), l.statements.Load())
	for _, n := range c.nodes { // nobody was ever declared dead
		if strings.Contains(n.log.String(), "left=false") {
			t.Errorf("%s has taken a node for dead", n.cfg.Name)
		}
	}
}

// TestTakeoverTimeout: idle sessions stay for takeover_timeout, and are then told to go; a transaction may finish within drain_timeout.
func TestTakeoverTimeout(t *testing.T) {
	first := startOne(t, func(c *Config) {
		c.TakeoverWait, c.DrainTimeout = Duration{time.Second}, Duration{30 * time.Second}
	})
	idle, busy := first.connect(t), first.connect(t)
	tx, err := busy.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (1)")
	}
	if err != nil {
		t.Fatal(err)
	}
	first.heir(t, nil).open(t)
	if _, err := idle.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("an idle session within takeover_timeout: %v", err)
	}
	<-first.Retired()
	closed := make(chan error, 1)
	go func() { closed <- first.Close() }()
	pgtest.Eventually(t, 10*time.Second, func() error {
		_, err := idle.Exec(t.Context(), "SELECT 1")
		var e *pgconn.PgError
		if err == nil || errors.As(err, &e) && e.Code != "57P01" {
			return fmt.Errorf("the idle session: %v", err)
		}
		return nil
	})
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (2)"); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestTakeoverOfNobody starts as usual, also where a socket was left behind.
func TestTakeoverOfNobody(t *testing.T) {
	cfg := testConfig(t, "iad")
	n := newNodeWith(t, cfg, Options{Takeover: true}).open(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, takeoverFile)); err != nil {
		t.Fatal(err)
	}
	n = newNodeWith(t, cfg, Options{Takeover: true}).open(t)
	if info, err := os.Stat(filepath.Join(cfg.DataDir, takeoverFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if !strings.Contains(n.log.String(), "nobody runs with this data_dir") {
		t.Error("the log does not say so")
	}
}

// TestTakeoverRefused: whoever cannot take over leaves the other one as it was.
func TestTakeoverRefused(t *testing.T) {
	first := startConsole(t)
	t.Run("paused", func(t *testing.T) {
		psql := func(command string) {
			if out, err := first.consolePsql(t, "ops", opsPassword, command); err != nil {
				t.Fatal(err, out)
			}
		}
		psql("DISABLE app;")
		err := first.heir(t, nil).Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the running process says: databases are paused or disabled: app") {
			t.Errorf("%v", err)
		}
		psql("ENABLE app;")
	})
	l := startLoad(t, insertT, first.dsn(appPassword))
	l.more(t, 5)
	t.Run("another port", func(t *testing.T) {
		err := first.heir(t, func(c *Config) { c.Ports.Postgres = 1 }).Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the configuration wants ports.postgres at 127.0.0.1:1") {
			t.Errorf("%v", err)
		}
	})
	// The next two fail after the first one has let go of everything.
	t.Run("another name", func(t *testing.T) {
		err := first.heir(t, func(c *Config) { c.Name = "other" }).Open(t.Context())
		if err == nil || !strings.Contains(err.Error(), "belongs to node") {
			t.Errorf("%v", err)
		}
		first.isWhole(t, l)
	})
	t.Run("gone in the middle", func(t *testing.T) {
		conn, err := dialTakeover(first.cfg.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		heir := &link{conn: conn, most: maxReleasedLine}
		if err := heir.write(takeoverMessage{Step: stepAsk, Version: takeoverVersion}); err != nil {
			t.Fatal(err)
		}
		if _, err := heir.expect(stepSockets, takeoverStep); err != nil || len(heir.files) != 4 {
			t.Fatalf("%d files, %v", len(heir.files), err)
		}
		if err := heir.write(takeoverMessage{Step: stepGo}); err != nil {
			t.Fatal(err)
		}
		if _, err := heir.expect(stepReleased, takeoverRelease); err != nil {
			t.Fatal(err)
		}
		dir, err := openDataDir(first.cfg.DataDir)
		if err != nil {
			t.Fatalf("released, and locked: %v", err)
		}
		l.more(t, 5) // served by the first one all the while
		if status, _ := first.get(t, "/readyz"); status != 200 {
			t.Errorf("readyz meanwhile: %d", status)
		}
		if status, _ := first.get(t, "/debug/cluster"); status != 200 {
			t.Errorf("/debug/cluster meanwhile: %d", status)
		}
		if _, err := first.Reload("test"); err == nil {
			t.Error("reloaded meanwhile")
		}
		heir.close()
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		first.isWhole(t, l)
	})
	t.Run("no protocol", func(t *testing.T) {
		for _, in := range []string{"", "\n", "hello\n", `{"step":"go"}` + "\n", `{"step":"ask","version":99}` + "\n", strings.Repeat("x", 100<<10)} {
			conn, err := dialTakeover(first.cfg.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			if in == "" {
				conn.Close()
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write([]byte(in))
			answer := make([]byte, 1000)
			n, err := conn.Read(answer)
			if strings.Contains(in, "99") != strings.Contains(string(answer[:n]), "version 99 of takeovers is not known here") || err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%.30q: %q %v", in, answer[:n], err)
			}
			conn.Close()
		}
		first.isWhole(t, l)
	})
	second := first.heir(t, nil).open(t)
	l.more(t, 5)
	second.isWhole(t, l)
}

// isWhole waits until a node is again what it was before somebody failed to take over, and clients get on.
func (n *testNode) isWhole(t *testing.T, l *load) {
	t.Helper()
	pgtest.Eventually(t, 20*time.Second, func() error {
		if !n.ledger().IsLeader() {
			return errors.New("the ledger has no leader")
		}
		if conn, err := net.Dial("udp", n.port().Addr()); err == nil {
			conn.Close()
		}
		return nil
	})
	n.settled(t, 1, 1)
	if _, err := openDataDir(n.cfg.DataDir); !errors.Is(err, ErrLocked) {
		t.Errorf("the data directory: %v", err)
	}
	if l != nil {
		l.more(t, 5)
	}
}
