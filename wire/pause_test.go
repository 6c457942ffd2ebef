package wire_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// connections counts the connections to database app on the first shard's servers, but for those of the tests themselves.
func (r *rig) connections() (n int) {
	r.t.Helper()
	for _, s := range []*pgtest.Server{servers(r.t)[0].primary, servers(r.t)[0].replica} {
		conn, err := s.Conn(ctxOf(r.t))
		if err != nil {
			r.t.Fatal(err)
		}
		var k int
		err = conn.QueryRow(ctxOf(r.t), "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND usename = 'app'").Scan(&k)
		conn.Close(context.Background())
		if err != nil {
			r.t.Fatal(err)
		}
		n += k
	}
	return n
}

// start runs a statement and tells how it ended.
func start(ctx context.Context, conn *pgx.Conn, sql string, args ...any) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, sql, args...)
		done <- err
	}()
	return done
}

func running(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s has ended: %v", what, err)
	default:
	}
}

func notes(t *testing.T) int {
	t.Helper()
	return countIn(t, servers(t)[0].primary)
}

func TestPauseWaitsAndHolds(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, one, two := r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	tx, err := one.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1, 'one')"); err != nil {
		t.Fatal(err)
	}
	pause := start(ctx, admin, "PAUSE app")
	r.until("paused", paused(true))
	held := start(ctx, two, "INSERT INTO notes VALUES (2, 'two')")
	r.until("held", clientsIn(console.Waiting))
	if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (3, 'three')"); err != nil { // its transaction goes on
		t.Fatal(err)
	}
	running(t, "PAUSE", pause)
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-pause; err != nil {
		t.Fatal(err)
	}
	running(t, "the held statement", held)
	pgtest.Eventually(t, patience, func() error { // they were told to go; PostgreSQL takes its moment
		if n := r.connections(); n != 0 {
			return fmt.Errorf("%d connections are left", n)
		}
		return nil
	})
	if n := notes(t); n != 2 {
		t.Errorf("%d notes", n)
	}
	login := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(ctx, r.dsn())
		if err == nil {
			err = errors.Join(conn.Ping(ctx), conn.Close(ctx))
		}
		login <- err
	}()
	again := r.console(pgx.QueryExecModeExec)
	if _, err := again.Exec(ctx, "PAUSE app"); codeOf(err) != "55000" {
		t.Errorf("a second PAUSE: %v", err)
	}
	running(t, "a login", login)
	r.command(again, "RESUME")
	if err := errors.Join(<-held, <-login); err != nil {
		t.Fatal(err)
	}
	if n := notes(t); n != 3 {
		t.Errorf("%d notes", n)
	}
	if _, err := again.Exec(ctx, "RESUME"); codeOf(err) != "55000" {
		t.Errorf("a second RESUME: %v", err)
	}
	for _, d := range r.server.Snapshot().Databases {
		if d.Name == "app" && d.Totals.Wait <= 0 {
			t.Error("the wait was not counted")
		}
	}
}

func TestPauseGivenUp(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	one, two := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	tx, err := one.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1, 'one')"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		how    string
		giveUp func(admin *pgx.Conn)
		code   string // "": there is nobody to tell
	}{
		{"canceled", func(admin *pgx.Conn) {
			if err := admin.PgConn().CancelRequest(ctx); err != nil {
				t.Fatal(err)
			}
		}, "57014"},
		{"resumed by another", func(*pgx.Conn) { r.command(r.console(pgx.QueryExecModeExec), "RESUME app") }, "57014"},
		{"gone", func(admin *pgx.Conn) { admin.PgConn().Conn().Close() }, ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			admin := r.console(pgx.QueryExecModeExec)
			pause := start(ctx, admin, "PAUSE")
			r.until("paused", paused(true))
			held := start(ctx, two, "INSERT INTO notes VALUES (2, 'two') ON CONFLICT DO NOTHING")
			r.until("held", clientsIn(console.Waiting))
			c.giveUp(admin)
			if err := <-pause; c.code != "" && codeOf(err) != c.code {
				t.Errorf("PAUSE: %v", err)
			}
			if err := <-held; err != nil {
				t.Error(err)
			}
			r.until("open", paused(false))
			if c.code != "" {
				r.command(admin, "SHOW VERSION")
			}
		})
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}

// A statement that is held can be canceled, and is never run for a client that has gone.
func TestHeldStatementsThatNobodyWants(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, one, two := r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	if _, err := one.Exec(ctx, "SET application_name = 'one'"); err != nil {
		t.Fatal(err)
	}
	r.command(admin, "PAUSE")
	canceled := start(ctx, one, "INSERT INTO notes VALUES (1, 'one')")
	r.until("held", clientsIn(console.Waiting))
	if err := one.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-canceled; codeOf(err) != "57014" {
		t.Errorf("a canceled statement: %v", err)
	}
	gone := start(ctx, two, "INSERT INTO notes VALUES (2, 'two')")
	r.until("held", clientsIn(console.Waiting))
	socket := two.PgConn().Conn()
	if _, err := socket.Write(pg.AppendQuery(nil, "INSERT INTO notes VALUES (4, 'four')")); err != nil {
		t.Fatal(err)
	}
	socket.Close()
	if err := <-gone; err == nil {
		t.Error("the client that went has an answer")
	}
	r.until("noticed", func(s *console.Snapshot) bool { return countClients(s, console.Waiting) == 0 })
	three := r.connectHeld(t)
	r.command(admin, "RESUME")
	if err := <-three; err != nil {
		t.Error(err)
	}
	if n := notes(t); n != 0 {
		t.Errorf("%d notes", n)
	}
	var name string
	if err := one.QueryRow(ctx, "INSERT INTO notes VALUES (3, 'three') RETURNING current_setting('application_name')").Scan(&name); err != nil || name != "one" {
		t.Errorf("after RESUME: %q %v", name, err)
	}
}

// connectHeld connects while the database is paused.
func (r *rig) connectHeld(t *testing.T) <-chan error {
	done := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(ctxOf(t), r.dsn())
		if err == nil {
			err = conn.Close(context.Background())
		}
		done <- err
	}()
	return done
}

func TestReconnect(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, one, two := r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	pid := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) (pid int) {
		t.Helper()
		if err := q.QueryRow(ctx, "INSERT INTO notes VALUES ((random()*1e9)::int, '') RETURNING pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	tx, err := one.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	busy, idle := pid(tx), pid(two)
	if same := pid(two); same != idle {
		t.Fatalf("idle connections are not used again: %d, %d", idle, same)
	}
	r.command(admin, "RECONNECT other")
	if same := pid(two); same != idle {
		t.Errorf("another database's connection was closed")
	}
	r.command(admin, "RECONNECT app")
	if pid(two) == idle {
		t.Error("an idle connection was not closed")
	}
	marked := 0
	for _, v := range r.server.Snapshot().Servers {
		if v.CloseNeeded {
			marked++
			if int(v.PID) != busy {
				t.Errorf("%+v is to be closed", v)
			}
		}
	}
	if marked != 1 {
		t.Errorf("%d connections are to be closed, want the busy one", marked)
	}
	if again := pid(tx); again != busy {
		t.Error("a transaction has lost its connection")
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if pid(one) == busy {
			t.Error("the busy connection was not closed when it came back")
		}
	}
}

// Under load nobody notices a PAUSE but by waiting, and none of them finds a connection of the database alive.
func TestPauseUnderLoad(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 4})
	ctx := ctxOf(t)
	admin := r.console(pgx.QueryExecModeExec)
	var stop atomic.Bool
	var answers atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		conn := r.connect([]pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol}[i%2])
		wg.Go(func() {
			for k := 0; !stop.Load(); k++ {
				if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i*1_000_000+k); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				answers.Add(1)
			}
		})
	}
	for range 30 {
		from := answers.Load()
		r.command(admin, "PAUSE app")
		s := r.server.Snapshot()
		for _, v := range s.Servers {
			if v.Database == "app" {
				t.Errorf("in a PAUSE: %+v", v)
			}
		}
		if n := countClients(s, console.Active); n > 0 {
			t.Errorf("in a PAUSE %d clients are active", n)
		}
		r.command(admin, "RESUME app")
		pgtest.Eventually(t, patience, func() error {
			if answers.Load() < from+20 {
				return errors.New("nobody goes on")
			}
			return nil
		})
	}
	stop.Store(true)
	wg.Wait()
	if n := notes(t); int64(n) != answers.Load() {
		t.Errorf("%d rows for %d answers", n, answers.Load())
	}
}

// A node that stops waits neither for held statements nor for consoles.
func TestShutdownWhilePaused(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, waits, one, two := r.console(pgx.QueryExecModeExec), r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	tx, err := one.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1, 'one')"); err != nil {
		t.Fatal(err)
	}
	pause := start(ctx, waits, "PAUSE app")
	r.until("paused", paused(true))
	held := start(ctx, two, "INSERT INTO notes VALUES (2, 'two')")
	r.until("held", clientsIn(console.Waiting))
	down := make(chan error, 1)
	go func() { down <- r.server.Shutdown(ctx) }()
	if err := <-held; codeOf(err) != "57P01" {
		t.Errorf("the held statement: %v", err)
	}
	if err := <-pause; codeOf(err) != "57P01" {
		t.Errorf("PAUSE: %v", err)
	}
	pgtest.Eventually(t, patience, func() error { // each console is told by itself
		if admin.Ping(ctx) == nil {
			return errors.New("a console goes on")
		}
		return nil
	})
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}
