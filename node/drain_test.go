package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// startOne is one node in front of one server with a table t.
func startOne(t *testing.T, change func(*Config)) *testNode {
	t.Helper()
	n, _ := startOneOn(t, change)
	return n
}

// startOneOn also returns the server.
func startOneOn(t *testing.T, change func(*Config)) (*testNode, *pgtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1"})
	if err := errors.Join(
		s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""),
		s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.ExecIn(ctx, "app", "CREATE TABLE t (id int PRIMARY KEY); GRANT ALL ON t TO app"),
	); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "iad")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "iad-db", Shard: "shard_1", Address: s.Addr()}}
	if change != nil {
		change(&cfg)
	}
	n := newNode(t, cfg, clusterEnv()).open(t)
	n.settled(t, 1, 1)
	return n, s
}

// TestDrain closes a node under an open transaction and an idle session.
func TestDrain(t *testing.T) {
	n := startOne(t, func(c *Config) { c.DrainTimeout = Duration{30 * time.Second} })
	busy, idle := n.connect(t), n.connect(t)
	if _, err := idle.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	tx, err := busy.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	addr := n.pgLn.Addr().String()
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()

	pgtest.Eventually(t, 10*time.Second, func() error {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return errors.New("new clients are still accepted")
		}
		return nil
	})
	if status, body := n.get(t, "/readyz"); status != 503 || body != "not ready: draining\n" {
		t.Errorf("readyz while draining = %d %q", status, body)
	}
	pgtest.Eventually(t, 10*time.Second, func() error { // the port is closed first, and sessions are told a moment later
		var e *pgconn.PgError
		if _, err := idle.Exec(t.Context(), "SELECT 1"); err == nil || errors.As(err, &e) && e.Code != "57P01" {
			return fmt.Errorf("the idle session: %v, want its end", err)
		}
		return nil
	})
	select {
	case err := <-closed:
		t.Fatalf("closed under an open transaction: %v", err)
	default:
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (2)"); err != nil {
		t.Errorf("in the transaction while draining: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("commit while draining: %v", err)
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("close: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not stop after its last transaction")
	}
}

// TestDrainIsBounded leaves a transaction open for ever.
func TestDrainIsBounded(t *testing.T) {
	n := startOne(t, func(c *Config) { c.DrainTimeout = Duration{300 * time.Millisecond} })
	tx, err := n.connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("close took %v with a drain_timeout of 300ms", took)
	}
	if !strings.Contains(n.log.String(), "drain_timeout is over") {
		t.Error("the log does not say that sessions were cut off")
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("the session lives on")
	}
}

// TestLimitsReachTheServer: the configuration is more than words.
func TestLimitsReachTheServer(t *testing.T) {
	n := startOne(t, func(c *Config) { c.Limits.Clients = 2 })
	n.connect(t)
	n.connect(t)
	_, err := pgconn.Connect(t.Context(), n.dsn(appPassword))
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "53300" {
		t.Errorf("the third client: %v, want SQLSTATE 53300", err)
	}
	status, body := n.get(t, "/metrics")
	if want := "rangefinder_sessions 2"; status != 200 || !strings.Contains(body, want) {
		t.Errorf("/metrics lacks %q: %s", want, fmt.Sprint(status))
	}
}
