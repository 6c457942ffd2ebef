package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// ledgerWriter writes numbers of its own, one a transaction, and notes what became of each.
type ledgerWriter struct {
	acked   atomic.Int64
	ids     []int64 // acknowledged
	unknown []int64 // lost on the way: they may be there or not
	errs    []error // any other
	gap     time.Duration
}

func (w *ledgerWriter) run(ctx context.Context, conn *pgx.Conn, first int64, stop <-chan struct{}) {
	last := time.Now()
	for id := first; ; id++ {
		select {
		case <-stop:
			return
		default:
		}
		_, err := conn.Exec(ctx, "INSERT INTO entries VALUES ($1)", id)
		var pe *pgconn.PgError
		switch {
		case err == nil:
			w.ids = append(w.ids, id)
			w.acked.Add(1)
			w.gap = max(w.gap, time.Since(last))
			last = time.Now()
		case errors.As(err, &pe) && pe.Code == "08007":
			w.unknown = append(w.unknown, id)
		default:
			w.errs = append(w.errs, err)
			if conn.IsClosed() {
				return
			}
		}
	}
}

// The primary is killed under load, and the replica promoted that has the most: nobody sees an error but for what was on its way, nothing
// that was acknowledged is lost or there twice, through the node beside the new primary as well as through the one that has only heard of
// it. The old primary comes back, still believes to be one, and gets nothing.
func TestFailoverUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	if err := errors.Join(
		primary.CreateUser(ctx, "app", appPassword, ""), primary.CreateUser(ctx, "probe", probePassword, ""),
		primary.Exec(ctx, "CREATE DATABASE app OWNER app"),
	); err != nil {
		t.Fatal(err)
	}
	if err := primary.ExecIn(ctx, "app", "CREATE TABLE entries (id bigint)", "GRANT ALL ON entries TO app"); err != nil {
		t.Fatal(err)
	}
	replicas := []*pgtest.Server{pgtest.NewReplica(t, primary, pgtest.Options{Auth: "scram-sha-256"}), pgtest.NewReplica(t, primary, pgtest.Options{Auth: "scram-sha-256"})}
	for _, r := range replicas {
		if err := r.Streaming(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Of the primary alone: the new one has no replica that follows it.
	if err := primary.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	var nodes []*testNode
	var join []string
	for i, list := range [][]Backend{
		{{Name: "db-1", Shard: "shard_1", Address: primary.Addr()}, {Name: "db-2", Shard: "shard_1", Address: replicas[0].Addr()}},
		{{Name: "db-3", Shard: "shard_1", Address: replicas[1].Addr()}},
	} {
		cfg := testConfig(t, testRegions[i], join...)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.FailoverWait = Duration{time.Minute}
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		cfg.Backends = list
		nodes = append(nodes, newNode(t, cfg, clusterEnv()).open(t))
		join = []string{nodes[0].port().Addr()}
	}
	for _, n := range nodes {
		pgtest.Eventually(t, 30*time.Second, func() error {
			slot := n.fib.Load().Slot("shard_1")
			if slot == nil || len(slot.Candidates().Reads) != 3 || len(slot.Candidates().Writes) != 1 {
				return errors.New("not all backends are known yet")
			}
			return nil
		})
	}

	const each = 3
	writers := make([]*ledgerWriter, each*len(nodes))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range writers {
		w, conn := new(ledgerWriter), nodes[i%len(nodes)].connect(t)
		writers[i] = w
		wg.Go(func() { w.run(ctx, conn, int64(i)*1_000_000, stop) })
	}
	more := func(n int64) {
		t.Helper()
		var from []int64
		for _, w := range writers {
			from = append(from, w.acked.Load())
		}
		pgtest.Eventually(t, time.Minute, func() error {
			for i, w := range writers {
				if w.acked.Load() < from[i]+n {
					return fmt.Errorf("writer %d has written %d since", i, w.acked.Load()-from[i])
				}
			}
			return nil
		})
	}
	more(50)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	promoted, name := mostAdvanced(ctx, t, replicas)
	if err := promoted.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	more(1)
	t.Logf("%s was promoted; all writers went on within %v of it", name, time.Since(began))
	more(50)

	if err := primary.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		pgtest.Eventually(t, 30*time.Second, func() error {
			if past := n.fib.Load().Slot("shard_1").Candidates().Past; !strings.Contains(past, "db-1 still calls itself the primary") {
				return fmt.Errorf("the alarm is %q", past)
			}
			return nil
		})
	}
	more(50)
	close(stop)
	wg.Wait()

	left := map[string]string{"db-1": "left out: a primary of timeline 1, while the shard is on 2", "db-2": "left out: still on timeline 1, while the shard is on 2"}
	alarm := "backend db-2 still follows timeline 1, while shard shard_1 is on 2"
	if name == "db-2" {
		left["db-3"], alarm = left["db-2"], strings.Replace(alarm, "db-2", "db-3", 1)
		delete(left, "db-2")
	}
	for _, n := range nodes {
		pgtest.Eventually(t, 30*time.Second, func() error { return n.tellsLeftOut(t, left, alarm) })
	}

	there, old := entries(ctx, t, promoted), entries(ctx, t, primary)
	for i, w := range writers {
		t.Logf("writer %d: %d acknowledged, %d unknown, the longest gap %v", i, len(w.ids), len(w.unknown), w.gap)
		if len(w.errs) > 0 {
			t.Errorf("writer %d: %d errors, the first: %v", i, len(w.errs), w.errs[0])
		}
		if len(w.unknown) > 1 {
			t.Errorf("writer %d: %d writes of unknown fate; only one was on its way", i, len(w.unknown))
		}
		for _, id := range w.ids {
			if there[id] != 1 {
				t.Errorf("%d was acknowledged, and is there %d times", id, there[id])
			}
		}
		for _, id := range w.unknown {
			if there[id] > 1 {
				t.Errorf("%d is there %d times", id, there[id])
			}
		}
		if last := w.ids[len(w.ids)-1]; old[last] != 0 {
			t.Errorf("%d went to the old primary", last)
		}
		for id := range old {
			if there[id] == 0 && id/1_000_000 == int64(i) && !slices.Contains(w.unknown, id) {
				t.Errorf("%d is on the old primary alone", id)
			}
		}
	}
}

// tellsLeftOut is nil if status, page and metrics say of these backends that they get nothing, and why, and of all others that they are in use.
func (n *testNode) tellsLeftOut(t *testing.T, left map[string]string, alarm string) error {
	t.Helper()
	v := n.View()
	if !slices.ContainsFunc(v.Alarms, func(a string) bool { return strings.HasPrefix(a, alarm) }) {
		return fmt.Errorf("%s has the alarms %q, want %s", n.cfg.Name, v.Alarms, alarm)
	}
	_, status, _ := n.cli(t, "status")
	_, page := n.get(t, "/debug?fragment=1")
	_, metrics := n.get(t, "/metrics")
	for _, b := range v.Backends {
		want, usable := "up", 1
		why := left[b.Name]
		if why != "" {
			want, usable = "left out", 0
		}
		if b.ForAll != "up" || b.ForUs != want || b.Choice != why {
			return fmt.Errorf("%s shows %s as %s for all, %s for us: %s; want %s: %s", n.cfg.Name, b.Name, b.ForAll, b.ForUs, b.Choice, want, why)
		}
		if !strings.Contains(status, why) || !strings.Contains(page, why) {
			return fmt.Errorf("status or page of %s do not say %q:\n%s", n.cfg.Name, why, status)
		}
		if line := fmt.Sprintf("rangefinder_backend_usable{backend=%q} %d\n", b.Name, usable); !strings.Contains(metrics, line) {
			return fmt.Errorf("the metrics of %s lack %s", n.cfg.Name, line)
		}
	}
	return nil
}

// mostAdvanced is the replica that has received the most.
func mostAdvanced(ctx context.Context, t *testing.T, replicas []*pgtest.Server) (best *pgtest.Server, name string) {
	t.Helper()
	most := int64(-1)
	for i, r := range replicas {
		conn, err := r.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var at int64
		err = conn.QueryRow(ctx, "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint").Scan(&at)
		conn.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if at > most {
			most, best, name = at, r, fmt.Sprintf("db-%d", i+2)
		}
	}
	return best, name
}

// entries counts each number on a server.
func entries(ctx context.Context, t *testing.T, s *pgtest.Server) map[int64]int {
	t.Helper()
	conn, err := s.ConnTo(ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id FROM entries")
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int64]int, len(list))
	for _, id := range list {
		found[id]++
	}
	return found
}
