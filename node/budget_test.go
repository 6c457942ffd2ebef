package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/gossip"
	"rangefinder/gossip/memnet"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

func TestShareOf(t *testing.T) {
	for _, c := range []struct {
		budget, assumed int
		nodes           string
		want            string // of each node
	}{
		{10, 0, "a", "10"},
		{10, 0, "a b", "5 5"},
		{10, 0, "a b c", "4 3 3"},
		{11, 0, "a b c", "4 4 3"},
		{2, 0, "a b c", "1 1 1"}, // never nothing at all
		{10, 3, "a b c", "4 3 3"},
		{10, 4, "a b", "2 2"}, // who gets the rest is not known
	} {
		nodes := strings.Fields(c.nodes)
		var got []string
		for _, self := range nodes {
			got = append(got, fmt.Sprint(shareOf(c.budget, nodes, self, c.assumed)))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%d among %s, of perhaps %d: %s, want %s", c.budget, c.nodes, c.assumed, s, c.want)
		}
	}
}

// sharing is a cluster in virtual time: real gossip, and what each node makes of it for its share.
type sharing struct {
	t      *testing.T
	net    *memnet.Net
	budget int

	mu     sync.Mutex
	nodes  map[string]*sharingNode
	shares map[string]int // of nodes that have connections, as far as a backend can tell
	most   int            // the sum of shares, at worst
	boots  uint32
}

type sharingNode struct {
	*gossip.Speaker
	addr string
	stop chan struct{}
	done sync.WaitGroup
}

func (w *sharing) start(name string, peers int, join string) {
	w.t.Helper()
	host := w.net.Host(name, "fra")
	tr, err := host.Transport(7946)
	if err != nil {
		w.t.Fatal(err)
	}
	w.boots++
	self := rib.Member{Name: name, Region: "fra", Incarnation: w.boots}
	n := &sharingNode{addr: tr.Addr(), stop: make(chan struct{}), Speaker: gossip.New(gossip.Config{
		Self: self, ClusterID: "c", Transport: tr, Health: rib.NewTable(self).Health(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})}
	if err := n.Open(); err != nil {
		w.t.Fatal(err)
	}
	keeper := newShareKeeper(name, time.Now(), peers, join != "")
	w.mu.Lock()
	w.nodes[name] = n
	via := w.nodes[join]
	w.mu.Unlock()
	if via != nil {
		if _, err := n.Join([]string{via.addr}); err != nil {
			w.t.Fatal(err)
		}
	}
	n.done.Go(func() {
		for {
			w.set(name, keeper.next(time.Now(), w.budget, n.Present()))
			select {
			case <-time.After(budgetTick):
			case <-n.stop:
				return
			}
		}
	})
}

func (w *sharing) set(name string, share int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if share < 0 {
		w.t.Errorf("%s has no share", name)
	}
	w.shares[name] = share
	sum := 0
	for _, n := range w.shares {
		sum += n
	}
	w.most = max(w.most, sum)
}

// atWorst returns the largest sum of shares since it was last asked.
func (w *sharing) atWorst() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := w.most
	w.most = 0
	return most
}

// end stops a node: with a goodbye, when its connections are closed before; or not, and then they are gone with the process.
func (w *sharing) end(name string, goodbye bool) {
	w.mu.Lock()
	n := w.nodes[name]
	delete(w.nodes, name)
	w.mu.Unlock()
	close(n.stop)
	n.done.Wait()
	w.mu.Lock()
	delete(w.shares, name)
	w.mu.Unlock()
	if goodbye {
		_ = n.Close()
	} else {
		_ = n.Kill()
	}
}

// become waits until the shares are as wanted, and returns how long that took.
func (w *sharing) become(want map[string]int, limit time.Duration) time.Duration {
	w.t.Helper()
	since := time.Now()
	for {
		w.mu.Lock()
		got := fmt.Sprint(w.shares)
		w.mu.Unlock()
		if got == fmt.Sprint(want) {
			return time.Since(since)
		}
		if time.Since(since) > limit {
			w.t.Fatalf("after %v the shares are %s, want %v", limit, got, want)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestSharesOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &sharing{t: t, net: memnet.New(1), budget: 10, nodes: map[string]*sharingNode{}, shares: map[string]int{}}
		defer func() {
			for name := range w.nodes {
				w.end(name, false)
			}
			w.net.Close()
			<-time.After(time.Minute) // memberlist's goroutines end with their timers
		}()
		w.start("a", 0, "")
		w.become(map[string]int{"a": 10}, 100*time.Millisecond) // there is nobody to wait for
		w.start("b", 0, "a")
		w.become(map[string]int{"a": 5, "b": 5}, 10*time.Second)
		w.start("c", 0, "b")
		w.become(map[string]int{"a": 4, "b": 3, "c": 3}, 10*time.Second)
		if most := w.atWorst(); most > 10 {
			t.Errorf("while nodes joined, the shares came to %d", most)
		}

		w.end("b", true)
		w.become(map[string]int{"a": 5, "c": 5}, 10*time.Second)
		w.start("b", 2, "a")
		w.become(map[string]int{"a": 4, "b": 3, "c": 3}, 10*time.Second)
		if most := w.atWorst(); most > 10 {
			t.Errorf("when a node had said goodbye and come back, the shares came to %d", most)
		}

		// A dead node's share is kept for it: it may be behind a cut, with its connections in use.
		w.end("c", false)
		took := w.become(map[string]int{"a": 5, "b": 5}, 2*time.Minute)
		if took < rib.Tombstone || took > rib.Tombstone+15*time.Second {
			t.Errorf("a dead node's share came back after %v", took)
		}
		w.start("c", 2, "a")
		w.become(map[string]int{"a": 4, "b": 3, "c": 3}, 10*time.Second)
		if most := w.atWorst(); most > 10 {
			t.Errorf("when a node had died and come back, the shares came to %d", most)
		}

		// A short cut changes nothing; a long one gives each side the whole, which only the backend can then bound; and it heals.
		w.net.Isolate("c")
		<-time.After(40 * time.Second)
		w.become(map[string]int{"a": 4, "b": 3, "c": 3}, 0)
		w.become(map[string]int{"a": 5, "b": 5, "c": 10}, 2*time.Minute)
		w.net.Rejoin("c")
		w.become(map[string]int{"a": 4, "b": 3, "c": 3}, time.Minute)
		w.atWorst()

		// One that restarts while it is cut off takes no more than it had.
		w.net.Isolate("b")
		w.end("b", false)
		w.start("b", 2, "")
		<-time.After(50 * time.Second)
		if most := w.atWorst(); most > 10 {
			t.Errorf("after a restart behind a cut, the shares came to %d", most)
		}
	})
}

// Three nodes under load on one server never hold more connections than the budget, as that server counts; when one leaves the
// others use its share.
func TestBudgetOnARealServer(t *testing.T) {
	const budget = 7
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	if err := errors.Join(
		s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""), s.Exec(ctx, "CREATE DATABASE app OWNER app"),
	); err != nil {
		t.Fatal(err)
	}
	admin, err := s.ConnTo(ctx, "app", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	var most, now atomic.Int64
	watched := make(chan struct{})
	stop := make(chan struct{})
	go func() { // looks as often as it can
		defer close(watched)
		for {
			var n int64
			if err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").Scan(&n); err != nil {
				t.Error(err)
				return
			}
			now.Store(n)
			most.Store(max(most.Load(), n))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	var nodes []*testNode
	var loads []func() // end them
	var done [3]atomic.Int64
	start := func(i int) {
		region := testRegions[i]
		cfg := testConfig(t, region)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.Pool.Budget = budget
		cfg.Pool.Wait, cfg.Limits.StartupTimeout = Duration{time.Minute}, Duration{time.Minute} // twelve wait for two connections: a busy machine takes its time to make those
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		if i == 0 {
			cfg.Backends = []Backend{{Name: "db", Shard: "shard_1", Address: s.Addr()}}
		} else {
			cfg.Join = []string{nodes[0].port().Addr()}
		}
		n := newNode(t, cfg, clusterEnv()).open(t)
		nodes = append(nodes, n)
		n.settled(t, i+1, 1)
		end := make(chan struct{})
		var wg sync.WaitGroup
		loads = append(loads, func() { close(end); wg.Wait() })
		for range 12 {
			wg.Go(func() {
				conn, err := pgx.Connect(ctx, n.dsn(appPassword))
				if err != nil {
					t.Errorf("%s: %v", region, err)
					return
				}
				defer conn.Close(ctx)
				for {
					if _, err := conn.Exec(ctx, "SELECT pg_sleep(0.002)"); err != nil {
						t.Errorf("%s: %v", region, err)
						return
					}
					done[i].Add(1)
					select {
					case <-end:
						return
					default:
					}
				}
			})
		}
	}
	shares := func(want ...int) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, func() error {
			for i, n := range nodes {
				v := n.poolViews()
				if len(v) != 1 || v[0].Share != want[i] || v[0].Limit != want[i] || v[0].Budget != budget || v[0].Size != 20 || v[0].InUse+v[0].Idle > want[i] {
					return fmt.Errorf("%s: %+v, want a share of %d", n.cfg.Name, v, want[i])
				}
			}
			return nil
		})
		var before [3]int64
		for i := range nodes {
			before[i] = done[i].Load()
		}
		pgtest.Eventually(t, 20*time.Second, func() error {
			for i := range nodes {
				if done[i].Load() < before[i]+100 {
					return fmt.Errorf("%s answers nothing", nodes[i].cfg.Name)
				}
			}
			if n := now.Load(); n != budget {
				return fmt.Errorf("%d connections are held under load, want all %d", n, budget)
			}
			return nil
		})
	}
	start(0)
	shares(7)
	start(1)
	shares(3, 4) // by name: fra, iad
	start(2)
	shares(2, 3, 2) // fra, iad, syd
	var alarms string
	for _, v := range []int{budget, 2} {
		was := *nodes[0].setup.Load()
		was.cfg.Pool.Budget = v
		nodes[0].setup.Store(&was)
		alarms += strings.Join(nodes[0].View().Alarms, "; ") + "|"
	}
	was := *nodes[0].setup.Load()
	was.cfg.Pool.Budget = budget
	nodes[0].setup.Store(&was)
	if before, after, _ := strings.Cut(alarms, "|"); strings.Contains(before, "pool.budget") || !strings.Contains(after, "pool.budget is 2 and there are 3 nodes") {
		t.Errorf("alarms %q", alarms)
	}
	loads[2]()
	if err := nodes[2].Close(); err != nil {
		t.Error(err)
	}
	nodes, loads = nodes[:2], loads[:2]
	shares(3, 4)
	settings := map[string]string{}
	for _, x := range nodes[0].settings(nodes[0].Node.cfg()) {
		settings[x.Key] = x.Value
	}
	if settings["pool.share"] != "3" || settings["pool.budget"] != "7" || settings["pool.size"] != "20" {
		t.Errorf("SHOW CONFIG has pool.share %q, pool.budget %q, pool.size %q", settings["pool.share"], settings["pool.budget"], settings["pool.size"])
	}
	for _, end := range loads {
		end()
	}
	close(stop)
	<-watched
	if most.Load() > budget {
		t.Errorf("at worst the server had %d connections, and the budget is %d", most.Load(), budget)
	}
}
