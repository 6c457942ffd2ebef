package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// followed is one node before a primary in a region far away, and a replica beside the node.
type followed struct {
	*testNode
	t                *testing.T
	primary, replica *pgtest.Server
	next             Config // what a reload reads
}

func startFollowed(t *testing.T, change func(*Config)) *followed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f := &followed{t: t, primary: pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})}
	if err := errors.Join(
		f.primary.CreateUser(ctx, "app", appPassword, ""), f.primary.CreateUser(ctx, "probe", probePassword, ""), f.primary.Exec(ctx, "CREATE DATABASE app OWNER app"),
		f.primary.ExecIn(ctx, "app", "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); GRANT ALL ON counter TO app"),
	); err != nil {
		t.Fatal(err)
	}
	f.replica = pgtest.NewReplica(t, f.primary, pgtest.Options{})
	cfg := testConfig(t, "fra")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv, cfg.Probe.Interval = "probe", "PROBE_PASSWORD", Duration{time.Second}
	cfg.Backends = []Backend{
		{Name: "far", Shard: "shard_1", Address: f.primary.Addr(), Region: "syd"},
		{Name: "here", Shard: "shard_1", Address: f.replica.Addr()},
	}
	cfg.Pool.Connect, cfg.Limits.StartupTimeout = Duration{time.Minute}, Duration{time.Minute}
	if change != nil {
		change(&cfg)
	}
	f.next = cfg
	f.testNode = newNodeWith(t, cfg, Options{
		Getenv: func(k string) (string, bool) { v, ok := clusterEnv()[k]; return v, ok },
		Load:   func() (Config, error) { return f.next, nil },
	}).open(t)
	f.settled(t, 1, 1)
	f.near()
	return f
}

// readsStay has reads go to the replica first although it falls behind, which else counts as distance.
func readsStay(cfg *Config) { cfg.Databases[0].Regions = []string{"fra"} }

// near waits until the replica is the first choice for reads.
func (f *followed) near() {
	f.t.Helper()
	pgtest.Eventually(f.t, 30*time.Second, func() error {
		if c := f.fib.Load().Slot("shard_1").Candidates(); len(c.Reads) != 2 || c.Reads[0].Backend.Name != "here" || !c.Reads[0].Healthy {
			return fmt.Errorf("reads go to %+v", c.Reads)
		}
		return nil
	})
}

// read returns the counter, and whether the replica has said it.
func (f *followed) read(conn *pgx.Conn) (n int, here bool) {
	f.t.Helper()
	var port int
	if err := conn.QueryRow(f.t.Context(), "SELECT n, inet_server_port() FROM counter").Scan(&n, &port); err != nil {
		f.t.Fatal(err)
	}
	return n, port == f.replica.Port()
}

func (f *followed) write(conn *pgx.Conn, n int) {
	f.t.Helper()
	if _, err := conn.Exec(f.t.Context(), "UPDATE counter SET n = $1", n); err != nil {
		f.t.Fatal(err)
	}
}

// sees reads until the replica has answered, and never takes an answer from before the session's write.
func (f *followed) sees(conn *pgx.Conn, n int) {
	f.t.Helper()
	pgtest.Eventually(f.t, 30*time.Second, func() error {
		got, here := f.read(conn)
		if got != n {
			f.t.Fatalf("STALE: read %d after writing %d; by the replica: %v", got, n, here)
		}
		if !here {
			return errors.New("the session's reads never go back to the replica")
		}
		return nil
	})
}

func (f *followed) replay(what string) {
	f.t.Helper()
	if err := f.replica.Exec(f.t.Context(), "SELECT pg_wal_replay_"+what+"()"); err != nil {
		f.t.Fatal(err)
	}
}

// A session never reads what is older than its own write, however long its replica stays behind, whatever happens to it, and whoever
// becomes the primary; and its reads are the replica's again once that has the write.
func TestReadsSeeTheSessionsWrites(t *testing.T) {
	f := startFollowed(t, readsStay)
	conn, other := f.connect(t), f.connect(t)
	if _, here := f.read(conn); !here {
		t.Fatal("the reads of a session that has written nothing do not go to the replica")
	}
	n := 0
	for range 20 {
		n++
		f.write(conn, n)
		if got, here := f.read(conn); got != n {
			t.Fatalf("STALE: read %d right after writing %d; by the replica: %v", got, n, here)
		}
	}
	f.sees(conn, n)

	f.replay("pause")
	f.write(conn, n+1)
	paused := time.Now()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if got, here := f.read(conn); got != n+1 || here {
			t.Fatalf("STALE %v after the write: read %d after writing %d; by the replica: %v", time.Since(paused), got, n+1, here)
		}
		if past := time.Since(paused); past < 3*time.Second {
			return fmt.Errorf("the replica has been paused for %v", past)
		}
		return nil
	})
	if got, here := f.read(other); got != n || !here {
		t.Errorf("another session, which has written nothing, reads %d, by the replica: %v; want %d from there", got, here, n)
	}
	f.replay("resume")
	n++
	f.sees(conn, n)

	// A replica that crashes comes back where it is consistent, and that may be before what it had shown.
	f.write(conn, n+1)
	n++
	f.sees(conn, n)
	if err := f.replica.Kill(); err != nil {
		t.Fatal(err)
	}
	if got, here := f.read(conn); got != n || here {
		t.Fatalf("read %d after writing %d, by the replica that is dead: %v", got, n, here)
	}
	if err := f.replica.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.sees(conn, n)

	// The replica is promoted: what it has is what there is.
	f.write(conn, n+1)
	n++
	if err := f.replica.CaughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.replica.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		var got int
		if err := conn.QueryRow(t.Context(), "SELECT n FROM counter").Scan(&got); err != nil {
			return err
		}
		if got != n {
			t.Fatalf("STALE: read %d after writing %d and a promotion", got, n)
		}
		return nil
	})
}

// A read that turns out to write, as a replica refuses it, is a write that the session's reads see.
func TestReadThatWritesIsSeen(t *testing.T) {
	f := startFollowed(t, nil)
	err := errors.Join(f.primary.ExecIn(t.Context(), "app", `
		CREATE FUNCTION bump() RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER AS 'UPDATE counter SET n = n + 1 RETURNING n';
		CREATE VIEW bumped AS SELECT bump() AS n;
		GRANT SELECT ON bumped TO app; GRANT EXECUTE ON FUNCTION bump() TO app`), f.replica.CaughtUp(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	conn := f.connect(t)
	f.read(conn)
	f.replay("pause")
	defer f.replay("resume")
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT n FROM bumped").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if got, here := f.read(conn); got != n || here {
		t.Errorf("the view's function has set the counter to %d; then the session reads %d, by the replica: %v", n, got, here)
	}
}

// What a replica refuses since it recovers all the time, though it is a read, the primary answers; and it is no write.
func TestReadThatReplicasRefuse(t *testing.T) {
	f := startFollowed(t, readsStay)
	err := errors.Join(f.primary.ExecIn(t.Context(), "app", "CREATE VIEW file AS SELECT pg_walfile_name('0/1000000') AS name; GRANT SELECT ON file TO app"), f.replica.CaughtUp(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		conn := f.connect(t)
		for _, sql := range []string{"SELECT pg_walfile_name('0/1000000')", "SELECT name FROM file"} {
			var name string
			if err := conn.QueryRow(t.Context(), sql, mode).Scan(&name); err != nil || !strings.HasPrefix(name, "00000001") {
				t.Errorf("%v: %s: %q, %v", mode, sql, name, err)
			}
		}
		if _, here := f.read(conn); !here {
			t.Errorf("%v: the session's reads do not go to the replica any more", mode)
		}
	}
}

// The connection of a write is lost when it is done and not acknowledged. The client is told to look whether it took effect, and so must not be
// shown a replica that does not know.
func TestLookAfterAnUnknownWrite(t *testing.T) {
	f := startFollowed(t, readsStay)
	if err := f.primary.Exec(t.Context(), "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	f.replay("pause")
	defer f.replay("resume")
	conn := f.connect(t)
	if _, here := f.read(conn); !here {
		t.Fatal("the session's reads do not go to the replica")
	}
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "UPDATE counter SET n = 5")
		done <- err
	}()
	server, err := f.primary.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(context.Background())
	pgtest.Eventually(t, 30*time.Second, func() error {
		var n int
		err := server.QueryRow(t.Context(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("no write waits for a replica")
		}
		return err
	})
	var pe *pgconn.PgError
	if err := <-done; !errors.As(err, &pe) || pe.Code != "08007" {
		t.Fatal(err)
	}
	if n, here := f.read(conn); n != 5 || here {
		t.Errorf("the write took effect, and the session reads %d, by the replica: %v", n, here)
	}
}

// What a database's reads must see is configured, reloaded and set: eventual reads what is old from the paused replica, primary reads
// nothing from it, and both hold however long it is paused.
func TestReadConsistency(t *testing.T) {
	f := startFollowed(t, readsStay)
	session, eventual, primary := f.connect(t), f.connect(t), f.connect(t)
	for _, x := range []struct {
		conn *pgx.Conn
		is   string
	}{{eventual, "eventual"}, {primary, "primary"}} {
		if _, err := x.conn.Exec(t.Context(), "SET rangefinder.read_consistency = '"+x.is+"'"); err != nil {
			t.Fatal(err)
		}
		var is string
		if err := x.conn.QueryRow(t.Context(), "SHOW rangefinder.read_consistency").Scan(&is); err != nil || is != x.is {
			t.Fatalf("SHOW says %q, %v", is, err)
		}
	}
	f.replay("pause")
	for i, conn := range []*pgx.Conn{session, eventual, primary} {
		f.write(conn, i+1)
	}
	check := func(conn *pgx.Conn, what string, n int, here bool) {
		t.Helper()
		if got, on := f.read(conn); got != n || on != here {
			t.Errorf("%s: read %d, by the replica: %v; want %d, %v", what, got, on, n, here)
		}
	}
	for range 20 {
		check(session, "session", 3, false)
		check(eventual, "eventual", 0, true)
		check(primary, "primary", 3, false)
	}
	f.next.Databases = []Listing{{Name: "app", Shard: "shard_1", ReadConsistency: "eventual", Regions: []string{"fra"}}}
	if _, err := f.Reload("a test"); err != nil {
		t.Fatal(err)
	}
	check(session, "the database is eventual now", 0, true)
	check(primary, "set to primary", 3, false)
	f.replay("resume")
}
