package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestConnectionsToCatalogsAreKept: looks that follow one another share a connection, which outlives neither a moment nor what makes it useless.
func TestConnectionsToCatalogsAreKept(t *testing.T) {
	server := pgtest.NewPrimary(t, pgtest.Options{})
	cfg := testConfig(t, "fra")
	cfg.Probe.User = "postgres"
	n := newNode(t, cfg, nil)
	if err := server.Exec(t.Context(), "CREATE DATABASE looked"); err != nil {
		t.Fatal(err)
	}
	at := catalogPlace{n.setup.Load(), server.Addr(), "looked"}
	look := func() (pid uint32) {
		t.Helper()
		if err := n.askCatalogsAt(t.Context(), at, func(conn *pgx.Conn) error {
			var path, jit string
			if err := conn.QueryRow(t.Context(), "SELECT current_setting('search_path'), current_setting('jit')").Scan(&path, &jit); err != nil || path != "pg_catalog" || jit != "off" {
				return errors.Join(err, fmt.Errorf("search_path %q, jit %q", path, jit))
			}
			pid = conn.PgConn().PID()
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := look()
	if again := look(); again != first {
		t.Errorf("the second look came over another connection: %d, %d", first, again)
	}

	// One that is left in a transaction is not kept.
	failed := errors.New("no")
	if err := n.askCatalogsAt(t.Context(), at, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), "BEGIN")
		return errors.Join(err, failed)
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	second := look()
	if second == first {
		t.Error("a connection in a transaction was kept")
	}

	// The server was started anew: nobody is told.
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if third := look(); third == second {
		t.Error("the same connection after a restart")
	}

	// Two at once have one each, of which one is kept.
	if err := n.askCatalogsAt(t.Context(), at, func(*pgx.Conn) error { look(); return nil }); err != nil {
		t.Fatal(err)
	}

	// It keeps nobody from dropping the database.
	look()
	if err := server.Exec(t.Context(), "DROP DATABASE looked"); err != nil {
		t.Error(err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		n.catalogs.mu.Lock()
		defer n.catalogs.mu.Unlock()
		if len(n.catalogs.idle) > 0 {
			return errors.New("it is kept for ever")
		}
		return nil
	})
	at.database = "postgres"
	look()
	n.catalogs.close()
	if kept := len(n.catalogs.idle); kept > 0 {
		t.Errorf("%d are kept after the end", kept)
	}
	look()
	if kept := len(n.catalogs.idle); kept > 0 {
		t.Errorf("%d are kept that came after the end", kept)
	}
}
