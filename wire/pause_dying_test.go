package wire_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

// loginHeld begins a login that a PAUSE holds. It returns the client's socket, and how the login ended.
func (r *rig) loginHeld(t *testing.T) (net.Conn, <-chan error) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	dialed, done := make(chan net.Conn, 1), make(chan error, 1)
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			dialed <- conn
		}
		return conn, err
	}
	ctx := ctxOf(t)
	go func() {
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err == nil {
			conn.Close(ctx)
		}
		done <- err
	}()
	return <-dialed, done
}

// Clients that die while a PAUSE holds them, plain and over TLS, are dropped while it lasts: nothing of theirs is run, neither seats nor
// server connections are lost with them, and RESUME serves the others.
func TestClientsDieInAPause(t *testing.T) {
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			o.poolSize = 2 // one that leaks is missed
			r := newRig(t, o)
			slowTable(t)
			ctx := ctxOf(t)
			admin, lives := r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
			var dying []net.Conn
			var say [][]byte
			for _, bytes := range slowly("600") {
				for range 2 {
					dying = append(dying, pgtest.Hijack(ctx, t, r.connect(pgx.QueryExecModeExec).PgConn()))
					say = append(say, bytes)
				}
			}
			connections := func(want int) {
				t.Helper()
				pgtest.Eventually(t, patience, func() error {
					if n, in := r.server.Stats().Clients, r.server.Snapshot().LoggingIn; n != want || in != 0 {
						return fmt.Errorf("%d connections, %d of which are logging in; want %d", n, in, want)
					}
					return nil
				})
			}
			connections(2 + len(dying))

			r.command(admin, "PAUSE")
			held := start(ctx, lives, "INSERT INTO notes VALUES (1, 'of one that lives')")
			for i, socket := range dying {
				if _, err := socket.Write(say[i]); err != nil {
					t.Fatal(err)
				}
			}
			r.waiting(1 + len(dying))
			var logins []<-chan error
			for range 2 { // these have proved who they are, and wait as well
				socket, login := r.loginHeld(t)
				dying, logins = append(dying, socket), append(logins, login)
			}
			connections(2 + len(dying))
			for i, socket := range dying {
				dies(t, socket, i%2 == 0)
			}
			r.waiting(1)
			connections(2)
			for _, login := range logins {
				if err := <-login; err == nil {
					t.Error("a login of a client that died ended well")
				}
			}
			running(t, "the statement of one that lives", held)
			if all := activity(t); len(all) > 0 {
				t.Errorf("in a PAUSE: %q", all)
			}
			r.command(admin, "RESUME")
			if err := <-held; err != nil {
				t.Error(err)
			}

			// What a PAUSE waits for may end by a death, too.
			inBlock, atWork := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
			for _, sql := range []string{"BEGIN", "INSERT INTO notes VALUES (2, 'of one that dies')"} {
				if _, err := inBlock.Exec(ctx, sql); err != nil {
					t.Fatal(err)
				}
			}
			dead := []net.Conn{pgtest.Hijack(ctx, t, inBlock.PgConn()), pgtest.Hijack(ctx, t, atWork.PgConn())}
			if _, err := dead[1].Write(pg.AppendQuery(nil, "INSERT INTO slow VALUES (1)")); err != nil {
				t.Fatal(err)
			}
			r.busy(t, 2)
			pause := start(ctx, admin, "PAUSE")
			r.until("paused", paused(true))
			held = start(ctx, lives, "INSERT INTO notes VALUES (3, 'of one that lives')")
			r.waiting(1)
			running(t, "PAUSE", pause)
			for i, socket := range dead {
				dies(t, socket, i == 0)
			}
			if err := <-pause; err != nil {
				t.Errorf("PAUSE: %v", err)
			}
			running(t, "the statement of one that lives", held)
			pgtest.Eventually(t, patience, func() error { // they were told to go; PostgreSQL takes its moment
				if n := r.connections(); n != 0 {
					return fmt.Errorf("%d server connections are left in a PAUSE", n)
				}
				return nil
			})
			r.command(admin, "RESUME")
			if err := <-held; err != nil {
				t.Error(err)
			}

			// As many seats are taken as there are clients, and all server connections can be had.
			connections(2)
			r.setLimits(wire.Limits{User: 2})
			other := r.connect(pgx.QueryExecModeExec)
			if pe := r.refused(t, "app"); pe.Code != pg.CodeTooManyConnections {
				t.Error(pe)
			}
			for i, conn := range []*pgx.Conn{lives, other} {
				if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES ($1, 'of one that lives')", 4+i); err != nil {
					t.Error(err)
				}
			}
			for _, conn := range []*pgx.Conn{lives, other} {
				if _, err := conn.Exec(ctx, "COMMIT"); err != nil {
					t.Error(err)
				}
			}
			r.busy(t, 0)
			if n := notes(t); n != 4 {
				t.Errorf("%d rows, want those of the clients that live", n)
			}
		})
	}
}
