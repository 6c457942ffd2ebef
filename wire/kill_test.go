package wire_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/console"
)

// otherDatabase makes the database "other" for the length of a test.
func otherDatabase(t *testing.T) {
	t.Helper()
	s := servers(t)[0]
	if err := s.primary.Exec(ctxOf(t), "DROP DATABASE IF EXISTS other WITH (FORCE)", "CREATE DATABASE other"); err != nil {
		t.Fatal(err)
	}
	if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.primary.Exec(context.Background(), "DROP DATABASE other WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
}

// TestKill ends whatever runs in a database, at once, and nothing in others.
func TestKill(t *testing.T) {
	otherDatabase(t)
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{poolSize: 2, buffered: buffered, sleepAfter: 20 * time.Millisecond}) // idle ones sleep
		connect := func(database string) *pgx.Conn {
			conn, err := pgx.Connect(ctxOf(t), r.dsnOf(database)+" default_query_exec_mode=exec")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		ctx, cancel := context.WithTimeout(ctxOf(t), 30*time.Second)
		defer cancel()
		admin, other := r.console(pgx.QueryExecModeExec), connect("other")
		idle, inBlock, busy, waiting := connect("app"), connect("app"), connect("app"), connect("app")
		if _, err := inBlock.Exec(ctx, "BEGIN; INSERT INTO notes VALUES (1, 'never there')"); err != nil {
			t.Fatal(err)
		}
		slow := start(ctx, busy, "SELECT pg_sleep(600), count(*) FROM notes")
		r.busy(t, 2)
		queued := start(ctx, waiting, "INSERT INTO notes VALUES (2, 'never there')")
		r.until("in the queue", clientsIn(console.Waiting))
		begun := time.Now()
		r.command(admin, "KILL app")
		if err := <-slow; err == nil {
			t.Error("the statement under way has come to its end")
		}
		if err := <-queued; err == nil {
			t.Error("a statement that waited for a connection was run")
		}
		for what, conn := range map[string]*pgx.Conn{"idle": idle, "in a transaction": inBlock} {
			if _, err := conn.Exec(ctx, "SELECT 1"); err == nil || len(codeOf(err)) == 5 && codeOf(err) != "57P01" {
				t.Errorf("a session %s: %v", what, err)
			}
		}
		r.until("without clients of app", func(s *console.Snapshot) bool {
			for _, c := range s.Clients {
				if c.Database == "app" {
					return false
				}
			}
			for _, c := range s.Servers {
				if c.Database == "app" {
					return false
				}
			}
			return true
		})
		t.Logf("took %v", time.Since(begun))
		if _, err := other.Exec(ctx, "SELECT 1"); err != nil {
			t.Errorf("another database: %v", err)
		}
		held := make(chan error, 1)
		go func() {
			conn, err := pgx.Connect(ctx, r.dsn())
			if err == nil {
				conn.Close(context.Background())
			}
			held <- err
		}()
		pgtest.Eventually(t, patience, func() error {
			if n := r.server.Stats().Clients; n < 3 {
				return errors.New("the new client is not there yet")
			}
			return nil
		})
		running(t, "a new login", held)
		r.command(admin, "RESUME app")
		if err := <-held; err != nil {
			t.Errorf("a new client after RESUME: %v", err)
		}
		if n := notes(t); n != 0 {
			t.Errorf("%d rows of the transaction are there", n)
		}
	})
}

// TestDisable keeps new clients out, and nobody else.
func TestDisable(t *testing.T) {
	otherDatabase(t)
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, old := r.console(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	r.command(admin, "DISABLE app")
	if _, err := pgx.Connect(ctx, r.dsn()); codeOf(err) != "55000" {
		t.Errorf("a new client: %v", err)
	}
	if conn, err := pgx.Connect(ctx, r.dsnOf("other")); err != nil {
		t.Errorf("another database: %v", err)
	} else {
		conn.Close(ctx)
	}
	if _, err := old.Exec(ctx, "SELECT 1"); err != nil {
		t.Errorf("whoever is there: %v", err)
	}
	for _, d := range r.server.Snapshot().Databases {
		if d.Disabled != (d.Name == "app") {
			t.Errorf("%+v", d)
		}
	}
	r.command(admin, "ENABLE app")
	if conn, err := pgx.Connect(ctx, r.dsn()); err != nil {
		t.Errorf("a new client after ENABLE: %v", err)
	} else {
		conn.Close(ctx)
	}
	if _, err := admin.Exec(ctx, "DISABLE nowhere"); codeOf(err) != "3D000" {
		t.Errorf("%v", err)
	}
}
