package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

// login connects, and closes at the end of the test.
func (r *rig) login(t *testing.T, database string) (*pgconn.PgConn, error) {
	t.Helper()
	conn, err := pgconn.Connect(ctxOf(t), r.dsnOf(database))
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

// refused is the error of a login that met a limit.
func (r *rig) refused(t *testing.T, database string) *pgconn.PgError {
	t.Helper()
	_, err := r.login(t, database)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != pg.CodeTooManyConnections || pe.Severity != "FATAL" || pe.Detail == "" || pe.Hint == "" {
		t.Fatalf("got %v, want a refusal with detail and hint", err)
	}
	return pe
}

func TestClientLimits(t *testing.T) {
	for _, c := range []struct {
		name    string
		limits  wire.Limits
		kind    wire.Refusal
		message string
		hint    string
	}{
		{"all", wire.Limits{Clients: 2}, wire.RefusedClients, "too many clients", "limits.clients"},
		{"user", wire.Limits{User: 2}, wire.RefusedUser, `for role "app"`, "limits.user_clients"},
		{"this user", wire.Limits{User: 1, Users: map[string]int{"app": 2}}, wire.RefusedUser, `for role "app"`, "max_clients in [[users]]"},
		{"database", wire.Limits{Database: 2}, wire.RefusedDatabase, `for database "app"`, "limits.database_clients"},
		{"this database", wire.Limits{Database: 1, Databases: map[string]int{"app": 2}}, wire.RefusedDatabase, `for database "app"`, "max_clients in [[databases]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigOptions{limits: c.limits})
			// Logins that fail, for whatever reason, take no place for good.
			for range 5 {
				var pe *pgconn.PgError
				if _, err := r.login(t, "other"); !errors.As(err, &pe) || pe.Code != pg.CodeInvalidCatalogName {
					t.Fatalf("a database that the backends do not have: %v", err)
				}
			}
			first, err := r.login(t, "app")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.login(t, "app"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				pe := r.refused(t, "app")
				if !strings.Contains(pe.Message, c.message) || !strings.Contains(pe.Hint, c.hint) || !strings.Contains(pe.Detail, "2") {
					t.Errorf("%s: %s; %s", pe.Message, pe.Detail, pe.Hint)
				}
			}
			if n := r.counts.limits(c.kind); n != 2 {
				t.Errorf("%d refusals counted, want 2", n)
			}
			first.Close(ctxOf(t))
			pgtest.Eventually(t, patience, func() error {
				_, err := r.login(t, "app")
				return err
			})
			r.refused(t, "app")
			// Other limits are in force at once, and end no session.
			r.setLimits(wire.Limits{Clients: 1})
			r.refused(t, "app")
			if n := r.server.Stats().Sessions; n != 2 {
				t.Errorf("%d sessions are left", n)
			}
			r.setLimits(wire.Limits{})
			if _, err := r.login(t, "app"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A node that is full lets a few operators in all the same; nobody else gets as far as being asked for a password.
func TestOperatorsReserve(t *testing.T) {
	r := newRig(t, rigOptions{limits: wire.Limits{Clients: 1, User: 1}})
	if _, err := r.login(t, "app"); err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(r.dsn(), "s3cret", "wrong", 1)
	var pe *pgconn.PgError
	if _, err := pgconn.Connect(ctxOf(t), wrong); !errors.As(err, &pe) || pe.Code != pg.CodeTooManyConnections {
		t.Errorf("with a wrong password, while the node is full: %v", err)
	}
	if _, err := pgconn.Connect(ctxOf(t), strings.Replace(wrong, "dbname=app", "dbname=rangefinder", 1)); !errors.As(err, &pe) || pe.Code != pg.CodeInvalidPassword {
		t.Errorf("the console with a wrong password: %v", err)
	}
	var consoles []*pgconn.PgConn
	for {
		conn, err := r.login(t, "rangefinder")
		if err != nil {
			break
		}
		consoles = append(consoles, conn)
	}
	if len(consoles) != 5 {
		t.Errorf("%d operators got in, want 5", len(consoles))
	}
	r.refused(t, "rangefinder")
	consoles[0].Close(ctxOf(t))
	pgtest.Eventually(t, patience, func() error {
		_, err := r.login(t, "rangefinder")
		return err
	})
}

// Connections that never log in are bounded apart from sessions: the oldest ones go, and whoever means it gets in at once.
func TestHalfOpenConnections(t *testing.T) {
	const bound = 500
	r := newRig(t, rigOptions{limits: wire.Limits{Clients: 10, Handshakes: bound}, startup: time.Minute})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	flood := func(n int) {
		for i := range n {
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 { // some begin to say something
				conn.Write([]byte{0, 0, 0})
			}
			open = append(open, conn)
		}
	}
	for range 10 {
		flood(2 * bound)
		conn, err := r.login(t, "app")
		if err != nil {
			t.Fatalf("a client that logs in: %v", err)
		}
		if err := conn.Ping(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
		conn.Close(ctxOf(t))
	}
	if n := r.server.Stats().Clients; n > bound+1 { // of 10,000
		t.Errorf("%d connections, want at most %d", n, bound)
	}
	if n := r.counts.limits(wire.RefusedHandshake); n < 18*bound {
		t.Errorf("%d connections had to go", n)
	}
	open[0].SetReadDeadline(time.Now().Add(patience))
	var b [1]byte
	if _, err := open[0].Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest is still there: %v", err)
	}
	last := open[len(open)-1]
	last.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := last.Read(b[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Errorf("the newest: %v", err)
	}
}

// An address that logs in too often is told so before it is asked for anything, and can still cancel.
func TestLoginRate(t *testing.T) {
	r := newRig(t, rigOptions{limits: wire.Limits{Logins: 2}})
	conn, err := r.login(t, "app")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)").ReadAll()
		got <- err
	}()
	r.busy(t, 1)
	wrong := strings.Replace(r.dsn(), "s3cret", "wrong", 1)
	logins, refusals := 0, 0
	for range 200 {
		_, err := pgconn.Connect(ctxOf(t), wrong)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) { // told often enough
			break
		}
		switch pe.Code {
		case pg.CodeInvalidPassword:
			logins++
		case pg.CodeTooManyConnections:
			refusals++
			if !strings.Contains(pe.Message, "too many logins from 127.0.0.1") || !strings.Contains(pe.Hint, "limits.logins") || !strings.Contains(pe.Detail, "2 times a second") {
				t.Errorf("%s; %s; %s", pe.Message, pe.Detail, pe.Hint)
			}
		default:
			t.Fatal(err)
		}
	}
	if logins < 19 || refusals < 20 {
		t.Errorf("%d logins, and %d refusals that were told", logins, refusals)
	}
	if n := r.counts.limits(wire.RefusedLogin); n < refusals {
		t.Errorf("%d refusals counted, want at least %d", n, refusals)
	}
	pgtest.Eventually(t, patience, func() error {
		if err := conn.CancelRequest(ctxOf(t)); err != nil {
			return err
		}
		select {
		case err := <-got:
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != pg.CodeQueryCanceled {
				t.Errorf("the canceled statement: %v", err)
			}
			return nil
		default:
			return fmt.Errorf("it runs on")
		}
	})
	r.setLimits(wire.Limits{})
	if _, err := r.login(t, "app"); err != nil {
		t.Error(err)
	}
}

// A backend's own refusal is waited out; what is told at the end says whose limit it was.
func TestBackendOwnLimit(t *testing.T) {
	r := newRig(t, rigOptions{wait: 300 * time.Millisecond})
	primary := servers(t)[0].primary
	if err := primary.Exec(ctxOf(t), "ALTER ROLE app CONNECTION LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := primary.Exec(context.Background(), "ALTER ROLE app CONNECTION LIMIT -1"); err != nil {
			t.Error(err)
		}
	}()
	ctx, a, b := ctxOf(t), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	if _, err := a.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	// The rig's replica knows of the limit as well; a write can only go to the primary.
	pe := pgErr(t, b, "INSERT INTO notes VALUES (2, 'x')")
	if pe.Code != pg.CodeTooManyConnections || !strings.Contains(pe.Detail, "too many connections for role") || !strings.Contains(pe.Hint, "CONNECTION LIMIT") {
		t.Errorf("%s: %s; %s; %s", pe.Code, pe.Message, pe.Detail, pe.Hint)
	}
	if n := r.counts.limits(wire.RefusedWait); n != 1 {
		t.Errorf("%d statements waited in vain, want 1", n)
	}
	if _, err := a.Exec(ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(ctx, "INSERT INTO notes VALUES (2, 'x')"); err != nil {
		t.Error(err)
	}
}

// keepAliveTimer is when the kernel asks next whether the client of that connection is there; 0: never. The other end of it is told
// from other connections by both ports: another server may have a client with the same one.
func keepAliveTimer(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	client, server := conn.LocalAddr().(*net.TCPAddr).Port, conn.RemoteAddr().(*net.TCPAddr).Port
	for _, line := range strings.Split(string(table), "\n") {
		f := strings.Fields(line)
		if len(f) > 5 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", server)) && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", client)) && f[3] == "01" && strings.HasPrefix(f[5], "02:") {
			ticks, err := strconv.ParseInt(f[5][3:], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return 0
}

func TestClientKeepAlive(t *testing.T) {
	on := net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: -1}
	r := newRig(t, rigOptions{limits: wire.Limits{KeepAlive: on}})
	for _, c := range []struct {
		cfg         net.KeepAliveConfig
		least, most time.Duration
	}{{on, 40 * time.Second, time.Minute}, {net.KeepAliveConfig{}, 0, 0}} {
		r.setLimits(wire.Limits{KeepAlive: c.cfg}) // for connections from now on
		conn, err := r.login(t, "app")
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, patience, func() error { // until what was sent last is acknowledged, another timer shows
			if at := keepAliveTimer(t, conn.Conn()); at < c.least || at > c.most {
				return fmt.Errorf("%+v: asked in %v", c.cfg, at)
			}
			return nil
		})
	}
}
