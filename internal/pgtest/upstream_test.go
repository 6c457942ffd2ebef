package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// The primary dies, a replica is promoted: the other follows it, and what is left of the old primary becomes a replica, without what
// nobody else had.
func TestFollowAndRebuild(t *testing.T) {
	ctx := t.Context()
	old := pgtest.NewPrimary(t, pgtest.Options{})
	next, other := pgtest.NewReplica(t, old, pgtest.Options{}), pgtest.NewReplica(t, old, pgtest.Options{})
	must(t, old.Exec(ctx, "CREATE TABLE t (id int PRIMARY KEY)"))
	must(t, next.CaughtUp(ctx))
	must(t, other.CaughtUp(ctx))
	must(t, other.Stop(ctx))
	must(t, next.Stop(ctx))
	must(t, old.Exec(ctx, "INSERT INTO t VALUES (1)")) // reaches nobody
	must(t, old.Kill())
	must(t, next.Start(ctx))
	must(t, other.Start(ctx))
	must(t, next.Promote(ctx))

	must(t, other.Follow(next))
	must(t, old.Rebuild(ctx, next))
	must(t, next.Set(map[string]string{"synchronous_standby_names": "ANY 1 (*)"}))
	for _, r := range []*pgtest.Server{other, old} {
		must(t, r.Streaming(ctx))
	}
	must(t, next.Exec(ctx, "INSERT INTO t VALUES (2)"))
	pgtest.Eventually(t, 10*time.Second, func() error { // each connection reads the settings when it comes to it
		if n := count(t, next, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"); n != 2 {
			return fmt.Errorf("%d synchronous replicas, want 2", n)
		}
		return nil
	})
	for _, r := range []*pgtest.Server{other, old} {
		must(t, r.CaughtUp(ctx))
		if n := count(t, r, "SELECT sum(id) FROM t"); n != 2 {
			t.Errorf("the rows of %s add up to %d, want 2", r.Name(), n)
		}
	}
	must(t, old.Restart(ctx)) // it is a replica for good
	if n := count(t, old, "SELECT pg_is_in_recovery()::int"); n != 1 {
		t.Error("the old primary is one again")
	}
}

// elsewhere is a network that counts who goes there.
type elsewhere struct {
	refuses error
	dialed  *int
}

func (e elsewhere) Enter() error { return e.refuses }

func (e elsewhere) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	*e.dialed++
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func TestAnotherNetwork(t *testing.T) {
	dialed := 0
	if _, err := pgtest.OpenIn(t.Context(), "", elsewhere{refuses: errors.New("closed today"), dialed: &dialed}); err == nil || !strings.Contains(err.Error(), "closed today") {
		t.Errorf("opened: %v", err)
	}
	farm, err := pgtest.OpenIn(t.Context(), "", elsewhere{dialed: &dialed})
	if err != nil {
		t.Fatal(err)
	}
	defer farm.Close()
	if _, err := farm.Primary(t.Context(), pgtest.Options{}); err == nil || !strings.Contains(err.Error(), "its port") {
		t.Errorf("without a port: %v", err)
	}
	here, err := pgtest.OpenIn(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	spare, err := here.Primary(t.Context(), pgtest.Options{})
	must(t, err)
	must(t, spare.Kill()) // its port is free now
	s, err := farm.Primary(t.Context(), pgtest.Options{Port: spare.Port()})
	must(t, err)
	must(t, s.Exec(t.Context(), "SELECT 1"))
	if dialed == 0 {
		t.Error("connected past the network")
	}
}
