package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestTakeoverSettlesNothing: as long as a process that was taken over from has sessions, which route by its last table, the node does not
// say that it knows who owns what, also when two others have followed; so fences stay.
func TestTakeoverSettlesNothing(t *testing.T) {
	first := startOne(t, func(c *Config) { c.TakeoverWait = Duration{time.Minute} })
	first.settled(t, 1, 1)
	conn, err := pgx.Connect(t.Context(), first.dsn(appPassword))
	if err != nil {
		t.Fatal(err)
	}
	missing := func(n *testNode, want ...string) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, func() error {
			leases, e := n.ledger().Leases(), n.table.Owners().Get().Epoch
			if list := leases.List(); len(list) != 1 || list[0].Left == 0 || list[0].Applied != e {
				return fmt.Errorf("no lease: %+v", list)
			}
			if got := leases.Acknowledged(e); !slices.Equal(got, want) {
				return fmt.Errorf("%v are missing, want %v", got, want)
			}
			return nil
		})
	}
	missing(first)
	second := first.heir(t, nil).open(t)
	missing(second, first.state.Node)
	third := second.heir(t, nil).open(t)
	<-second.Retired() // it had none
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	missing(third, first.state.Node)
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the first process's session: %v", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-first.Retired()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	missing(third)
	if files, err := filepath.Glob(filepath.Join(third.cfg.DataDir, elderFiles)); err != nil || len(files) != 1 {
		t.Errorf("%v are left, %v", files, err)
	}
}

// TestServingLocks: locks of processes that have died hold up nobody, and a crash between hides nobody.
func TestServingLocks(t *testing.T) {
	dir := t.TempDir()
	count := func(e *elders, want int) {
		t.Helper()
		if n := e.living(); n != want {
			t.Errorf("%d live, want %d", n, want)
		}
	}
	die := func(f *os.File, e *elders) { // as a crash does: the file stays
		t.Helper()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		e.close()
	}
	lock := func() (*os.File, *elders) {
		t.Helper()
		f, e, err := lockServing(dir)
		if err != nil {
			t.Fatal(err)
		}
		return f, &e
	}
	a, ofA := lock()
	count(ofA, 0)
	b, ofB := lock()
	count(ofB, 1)
	die(b, ofB)
	c, ofC := lock()
	count(ofC, 1) // a, which b knew too
	die(a, ofA)
	count(ofC, 0)
	count(ofC, 0)
	die(c, ofC)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v are left, %v", files, err)
	}
}
