package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

func TestBackendTLSModes(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	dir := t.TempDir()
	root, wrong := filepath.Join(dir, "root.crt"), filepath.Join(dir, "wrong.crt")
	replaceFile(t, root, ca.PEM)
	replaceFile(t, wrong, stranger.PEM)
	good := ca.Issue(t, time.Time{}, "db.test", "127.0.0.1")
	elsewhere := ca.Issue(t, time.Time{}, "other.test")
	expired := ca.Issue(t, time.Now().Add(-time.Minute), "db.test")
	for _, c := range []struct {
		mode, ca, host string
		shown          pgtest.KeyPair
		want           string // "": trusted
	}{
		{"require", "", "db.test", elsewhere, ""},
		{"require", "", "db.test", expired, ""},
		{"verify-ca", root, "db.test", good, ""},
		{"verify-ca", root, "db.test", elsewhere, ""},
		{"verify-ca", root, "db.test", expired, "expired"},
		{"verify-ca", wrong, "db.test", good, "unknown authority"},
		{"verify-ca", "", "db.test", good, "unknown authority"}, // the operating system does not know it
		{"verify-full", root, "db.test", good, ""},
		{"verify-full", root, "127.0.0.1", good, ""},
		{"verify-full", root, "127.0.0.2", good, "not 127.0.0.2"},
		{"verify-full", root, "db.test", elsewhere, "not db.test"},
		{"verify-full", root, "db.test", expired, "expired"},
		{"verify-full", wrong, "db.test", good, "unknown authority"},
		{"verify-full", "", "db.test", good, "unknown authority"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.mode, filepath.Base(c.ca), c.host), func(t *testing.T) {
			b, err := newBackendTLS(BackendTLS{Mode: c.mode, CAFile: c.ca}, slog.New(slog.DiscardHandler), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := b.verifies(), c.ca != "" && c.mode != "require"; got != want {
				t.Errorf("whoever answers has shown who it is: %v, want %v", got, want)
			}
			shown := &tls.Config{Certificates: []tls.Certificate{c.shown.TLS(t)}}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if conn, err := ln.Accept(); err == nil {
					tls.Server(conn, shown).Handshake()
					conn.Close()
				}
			}()
			ours, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			err = tls.Client(ours, b.config(net.JoinHostPort(c.host, "5432"))).Handshake()
			ours.Close()
			<-served
			ln.Close()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	b, err := newBackendTLS(BackendTLS{Mode: "disable"}, slog.Default(), time.Now)
	if err != nil || b.config("db.test:5432") != nil || b.verifies() {
		t.Errorf("disabled: %v", err)
	}
	if _, err := newBackendTLS(BackendTLS{Mode: "verify-ca", CAFile: "/nonexistent"}, slog.Default(), time.Now); err == nil {
		t.Error("a missing file is no error")
	}
}

// TestBackendsOverTLS: everything that a node says to a backend is encrypted, and new authorities count without a restart.
func TestBackendsOverTLS(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	root := filepath.Join(t.TempDir(), "root.crt")
	replaceFile(t, root, stranger.PEM)
	n, s := startBeside(t, pgtest.Options{
		TLS: ca.Issue(t, time.Time{}, "127.0.0.1"), Params: map[string]string{"log_connections": "on"},
	}, func(cfg *Config) { cfg.BackendTLS = BackendTLS{Mode: "verify-full", CAFile: root} })
	pgtest.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(n.log.String(), "unknown authority") {
			return errors.New("nobody has complained about the certificate")
		}
		return nil
	})
	replaceFile(t, root, ca.PEM)
	n.settled(t, 1, 1)

	if status, body := n.post(t, "/api/v1/keyspaces", `{"name": "app.orders", "key": ["customer_id"], "types": ["bigint"], "method": "hash", "shards": ["shard_1"]}`); status/100 != 2 {
		t.Fatalf("keyspace: %d %s", status, body)
	}
	conn := n.connect(t)
	if _, err := conn.Exec(t.Context(), "INSERT INTO orders (customer_id, id, note) VALUES ($1, 1, 'x')", 42); err != nil {
		t.Fatal(err)
	}
	var note string
	if err := conn.QueryRow(t.Context(), "SELECT repeat(note, 100000) FROM orders WHERE customer_id = $1", 42).Scan(&note); err != nil || len(note) != 100000 {
		t.Fatalf("%d bytes, %v", len(note), err)
	}
	n.cancelled(t, n, conn.PgConn())

	text, err := os.ReadFile(s.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"app", "probe"} {
		lines := regexp.MustCompile(`connection authorized: user=`+user+` .*`).FindAllString(string(text), -1)
		if len(lines) == 0 {
			t.Errorf("%s has not logged in", user)
		}
		for _, line := range lines {
			if !strings.Contains(line, "SSL enabled") {
				t.Errorf("in clear text: %s", line)
			}
		}
	}
	for _, application := range []string{"rangefinder", "rangefinder_probe"} {
		if !strings.Contains(string(text), "application_name="+application+" ") {
			t.Errorf("nobody has logged in as %s", application)
		}
	}
}

// cancelled runs a long statement in a session of n and has it cancelled through another node, or the same.
func (n *testNode) cancelled(t *testing.T, through *testNode, conn *pgconn.PgConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(30)").ReadAll()
		ended <- err
	}()
	pgtest.Eventually(t, 15*time.Second, func() error {
		through.sendCancel(t, conn.PID(), conn.SecretKey())
		select {
		case err := <-ended:
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "57014" {
				t.Errorf("it ended with %v", err)
			}
			return nil
		default:
			return errors.New("the statement runs on")
		}
	})
}

// sendCancel asks a node to cancel by a key, and returns when it has closed the connection.
func (n *testNode) sendCancel(t *testing.T, pid uint32, secret []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", n.pgLn.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := pg.Cancel(ctx, nc, nil, pid, secret); err != nil {
		t.Errorf("cancel through %s: %v", n.cfg.Name, err)
	}
}
