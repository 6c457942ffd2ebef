package probe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/gossip/memnet"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// A replica that calls itself up to date is as late as this node's looks at the primary say, and not at the head meanwhile.
func TestReplicaThatDoesNotKnowThatItIsLate(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		s.says(row("t", "1", "0", "77", "5", "10"))
		sink.await(t, 0, "b", "at the head", func(r rib.Route) bool { return r.Role == rib.Replica && r.Lag == 0 && r.LagBytes == 5 })
		late := func(d rib.Delay) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			sink.late = func() rib.Delay { return d }
		}
		late(rib.Delay{Time: 9 * time.Second, Bytes: 4096})
		sink.await(t, sink.mark(), "b", "late", func(r rib.Route) bool { return r.Lag == 9*time.Second && r.LagBytes == 4096 })
		<-time.After(20 * time.Second)
		late(rib.Delay{})
		s.says(row("t", "1", "NULL", "77", "NULL", "10")) // its receiver has ended
		r := sink.await(t, sink.mark(), "b", "without a receiver", func(r rib.Route) bool { return r.LagBytes == rib.LagBytesUnknown })
		if r.Lag < 20*time.Second {
			t.Errorf("%v behind: the time in which it was late counts as being at the head", r.Lag)
		}
	})
}

// A transaction runs for long, and nobody else commits meanwhile: then the age of the last commit says nothing of a replica that is in the middle
// of replaying whenever it is asked. What it has of what this node has seen at the primary tells how late it can be.
func TestLongTransactionMakesNoReplicaLate(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		s.says(row("t", "1", "0", "77", "0", "10"))
		sink.await(t, 0, "b", "at the head", func(r rib.Route) bool { return r.Role == rib.Replica && r.Lag == 0 })
		has := func(ago time.Duration) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			sink.late = func() rib.Delay { return rib.Delay{Has: time.Now().Add(-ago)} }
		}
		has(1000 * time.Millisecond)
		s.says(row("t", "1", "3600000", "77", "32", "10"))
		<-time.After(30 * time.Second)
		r := sink.await(t, sink.mark(), "b", "replaying", func(r rib.Route) bool { return r.LagBytes == 32 })
		between(t, "the lag", r.Lag, 0, 100*time.Millisecond)
		has(9 * time.Second)
		r = sink.await(t, sink.mark(), "b", "replaying what is old", func(r rib.Route) bool { return r.Lag > time.Second })
		between(t, "the lag of one that has less", r.Lag, 8*time.Second, 9*time.Second)
	})
}

// The way from the primary to its replica falls silent: the receiver waits for a minute, by default, and the replica says all the while
// that it has replayed all.
func TestLagWhileNothingComesFromThePrimary(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{})
	replica := pgtest.NewReplica(t, primary, pgtest.Options{})
	conn, err := pgx.Connect(ctx, primary.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()

	table := rib.NewTable(rib.Member{Name: "n", Region: "fra"})
	sink := newSeen()
	cfg := Config{Settings: Settings{User: "postgres", Interval: 100 * time.Millisecond, Timeout: 20 * time.Second}, Sink: sink, Logger: quiet(), Saw: table.Positions().Saw}
	for i, s := range []struct {
		name string
		*pgtest.Server
	}{{"p", primary}, {"r", replica}} {
		t := Target{Name: s.name, Shard: "s", Region: "fra", Addr: s.Addr()}
		table.Health().Announce(rib.Announcement{Backend: rib.Backend{Name: t.Name, Shard: t.Shard, Region: t.Region, Addr: t.Addr}, Observer: "n", Stamp: rib.Stamp{Seq: uint64(i + 1)}})
		cfg.Backends = append(cfg.Backends, t)
	}
	p := New(cfg)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	await := func(what string, fits func(rib.Route) bool) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			all := sink.all()
			for i := len(all) - 1; i >= 0; i-- {
				if r := all[i].Route; r.Backend == "r" {
					if fits(r) {
						return nil
					}
					return fmt.Errorf("%s: %+v", what, r)
				}
			}
			return errors.New("not looked at yet")
		})
	}
	head := func(r rib.Route) bool {
		return r.State == rib.Up && r.Role == rib.Replica && r.Lag == 0 && r.LagBytes == 0
	}
	if err := primary.Exec(ctx, "CREATE TABLE t (i int)"); err != nil {
		t.Fatal(err)
	}
	await("at the head", head)

	var pid int
	if err := conn.QueryRow(ctx, "SELECT pid FROM pg_stat_replication").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal("sender "+strconv.Itoa(pid), err)
	}
	goOn := func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	defer goOn()
	if err := primary.Exec(ctx, "INSERT INTO t SELECT generate_series(1, 20000)"); err != nil {
		t.Fatal(err)
	}
	await("late, and more so", func(r rib.Route) bool { return r.Lag > 3*time.Second && r.LagBytes > 1<<20 })
	goOn()
	await("at the head again", head)
}
