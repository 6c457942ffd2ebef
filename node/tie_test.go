package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestTwoPrimariesOfOneTimeline promotes two replicas of a dead primary, each to timeline 2. Neither gets writes, the alarm says what to do, and
// reads go on. That one is stopped ends nothing, for it could as well be cut off and have other writers; once it is out of the configuration
// too, the other one gets the writes.
func TestTwoPrimariesOfOneTimeline(t *testing.T) {
	ctx := t.Context()
	f := startFile(t)
	second := pgtest.NewReplica(t, f.primary, pgtest.Options{Name: "second"})
	third := pgtest.NewReplica(t, f.primary, pgtest.Options{Name: "third"})
	list := func(servers ...*pgtest.Server) {
		t.Helper()
		text := `address = "ADDRESS"`
		for _, s := range servers {
			text += "\n[[backends]]\nname = \"" + s.Name() + "\"\nshard = \"shard_1\"\naddress = \"" + s.Addr() + "\"\n"
		}
		f.change(t, `drain_timeout = "2s"`, "drain_timeout = \"2s\"\nfailover_wait = \"300ms\"", `address = "ADDRESS"`, text)
		f.reload(t)
	}
	list(second, third)
	state := func(backend string, want rib.State, role rib.Role) error {
		for _, v := range f.table.Snapshot().Backends {
			if v.Backend.Name == backend && v.Verdict == want && v.Role == role {
				return nil
			}
		}
		return fmt.Errorf("%s is not %v as a %v", backend, want, role)
	}
	await := func(what func() error) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, what)
	}
	await(func() error {
		return errors.Join(state("second", rib.Up, rib.Replica), state("third", rib.Up, rib.Replica))
	})
	insert := func(id int) error {
		_, err := f.connect(t).Exec(ctx, insertT, id)
		return err
	}
	if err := insert(1); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*pgtest.Server{second, third} {
		if err := s.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
	}

	if err := errors.Join(f.primary.Kill(), second.Promote(ctx), third.Promote(ctx)); err != nil {
		t.Fatal(err)
	}
	const tie = "TWO PRIMARIES of shard shard_1 on timeline 2: second and third; neither gets writes until one is made a replica, or stopped and taken out of the nodes' configuration"
	shouted := func() error {
		if got := strings.Join(f.View().Alarms, "\n"); !strings.Contains(got, "no writes: "+tie) {
			return fmt.Errorf("alarms: %s", got)
		}
		return nil
	}
	await(shouted)
	logged(t, f.testNode, `msg="split brain"`)
	refused := func() {
		t.Helper()
		var pe *pgconn.PgError
		if err := insert(2); !errors.As(err, &pe) || pe.Code != "57P03" || !strings.Contains(pe.Detail, tie) || pe.Hint == "" {
			t.Errorf("a write: %+v", err)
		}
	}
	refused()
	var rows int
	if err := f.connect(t).QueryRow(ctx, "SELECT count(*) FROM t").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("a read: %d, %v", rows, err)
	}

	if err := third.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	await(func() error { return state("third", rib.Down, rib.Primary) })
	if err := shouted(); err != nil {
		t.Error(err)
	}
	refused()

	list(second)
	await(func() error {
		if err := shouted(); err == nil {
			return errors.New("still two primaries")
		}
		return nil
	})
	if err := insert(2); err != nil {
		t.Error(err)
	}
	conn, err := second.ConnTo(ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("on the second server there are %d rows, %v; want 2", rows, err)
	}
}
