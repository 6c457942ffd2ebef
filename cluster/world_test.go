package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

const (
	raftPort = 7946
	pullPort = 7947
)

// world is a cluster of ledgers over an in-memory network, in virtual time.
type world struct {
	t     *testing.T
	net   *memnet.Net
	nodes []*testNode
}

// testNode is one node: what of it survives a restart, and what does not.
type testNode struct {
	w            *world
	name, region string
	host         *memnet.Host
	dir          string
	disk         *Stores // Raft's, in memory, kept over restarts; nil: on disk

	// since the last start
	table   *rib.Table
	ledger  *Ledger
	pulls   *memnet.Listener
	serving sync.WaitGroup

	mu     sync.Mutex
	epochs []rib.Epoch // as OnApply told them
}

// inWorld runs a test in virtual time. RTTs between regions are those of three continents.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: memnet.New(1)}
		w.net.SetRTT("iad", "fra", 90*time.Millisecond)
		w.net.SetRTT("iad", "syd", 200*time.Millisecond)
		w.net.SetRTT("fra", "syd", 280*time.Millisecond)
		w.net.SetJitter(0.1)
		defer func() {
			w.net.HealAll()
			for _, n := range w.nodes {
				n.stop()
			}
			w.net.Close()
			synctest.Wait()
		}()
		test(t, w)
	})
}

// memnetLayer is Raft's stream layer on a host.
type memnetLayer struct {
	*memnet.Listener
	host *memnet.Host
}

func (l memnetLayer) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.host.DialTimeout(string(a), timeout)
}

// add starts a node that keeps Raft's state in memory: it survives restarts of the node within the test.
func (w *world) add(name, region string) *testNode {
	w.t.Helper()
	log := raft.NewInmemStore()
	n := &testNode{w: w, name: name, region: region, host: w.net.Host(name, region), dir: w.t.TempDir(),
		disk: &Stores{Log: log, Stable: log, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }}}
	w.nodes = append(w.nodes, n)
	n.start()
	return n
}

// addDurable starts a node that keeps everything on disk, as in production.
func (w *world) addDurable(name, region string) *testNode {
	w.t.Helper()
	n := &testNode{w: w, name: name, region: region, host: w.net.Host(name, region), dir: w.t.TempDir()}
	w.nodes = append(w.nodes, n)
	n.start()
	return n
}

func (n *testNode) start() {
	t := n.w.t
	t.Helper()
	listener, err := n.host.Listen(raftPort)
	if err != nil {
		t.Fatal(err)
	}
	n.table = rib.NewTable(n.member())
	cfg := Config{
		Node: n.name, Region: n.region, Addr: n.host.Addr(raftPort), Dir: n.dir,
		Stream: memnetLayer{listener, n.host}, Owners: n.table.Owners(),
		OnApply: func(e rib.Epoch) { n.mu.Lock(); n.epochs = append(n.epochs, e); n.mu.Unlock() },
		Logger:  slog.New(slog.NewTextHandler(testWriter{t, n.name}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if n.disk != nil {
		cfg.Stores = func(string) (*Stores, error) { return n.disk, nil }
	}
	if n.ledger, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := n.ledger.Open(); err != nil {
		t.Fatal(err)
	}
	if n.pulls, err = n.host.Listen(pullPort); err != nil {
		t.Fatal(err)
	}
	ledger, pulls := n.ledger, n.pulls
	n.serving.Go(func() {
		for {
			conn, err := pulls.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() {
				defer conn.Close()
				_ = ledger.ServePull(conn)
			})
		}
	})
}

// stop ends the node in good order; it may be started again.
func (n *testNode) stop() {
	n.w.t.Helper()
	if n.ledger == nil {
		return
	}
	if err := n.ledger.Close(); err != nil {
		n.w.t.Errorf("%s: close: %v", n.name, err)
	}
	n.pulls.Close()
	n.serving.Wait()
	n.ledger = nil
}

// kill cuts all of the node's connections at one stroke, then stops what is left of it.
func (n *testNode) kill() {
	n.host.Close()
	n.stop()
}

func (n *testNode) member() rib.Member {
	return rib.Member{Name: n.name, Region: n.region, Addr: n.host.Addr(raftPort), Incarnation: 1}
}

// reconcile tells every running node who lives, as gossip would.
func (w *world) reconcile() {
	var members []rib.Member
	for _, n := range w.nodes {
		if n.ledger != nil {
			members = append(members, n.member())
		}
	}
	for _, n := range w.nodes {
		if n.ledger != nil {
			n.ledger.Reconcile(members, nil)
		}
	}
}

// form makes a cluster of the nodes: the first bootstraps, the others are admitted.
func (w *world) form(nodes ...*testNode) {
	w.t.Helper()
	if err := nodes[0].ledger.Bootstrap("c1"); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		if err := n.ledger.Admit("c1"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.reconcile()
	w.until("all voters agree on a leader", func() error {
		for _, n := range nodes[:min(3, len(nodes))] {
			if s := n.ledger.Status(); len(s.Voters) != min(3, len(nodes)) || s.Leader == "" || s.ClusterID != "c1" || s.Epoch.Index == 0 {
				return fmt.Errorf("%s: %+v", n.name, s)
			}
		}
		return nil
	})
}

// shards records shard_1 to shard_n with the leader.
func (w *world) shards(n int) {
	w.t.Helper()
	for i := range n {
		if err := w.leader().ledger.RecordShard(w.ctx(), fmt.Sprintf("shard_%d", i+1), uint64(100+i)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// leader waits for one that a majority may follow.
func (w *world) leader(except ...*testNode) (leader *testNode) {
	w.t.Helper()
	w.until("there is a leader", func() error {
		leader = nil
	nodes:
		for _, n := range w.nodes {
			for _, e := range except {
				if e == n {
					continue nodes
				}
			}
			if n.ledger != nil && n.ledger.IsLeader() && n.ledger.raft.VerifyLeader().Error() == nil {
				leader = n
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

// until polls a condition in virtual time, for two minutes of it.
func (w *world) until(what string, condition func() error) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 6000 {
		if err = condition(); err == nil {
			return
		}
		<-tick.C
	}
	w.t.Fatalf("not so: %s: %v", what, err)
}

// pull lets one node pull from another.
func (n *testNode) pull(from *testNode) (bool, error) {
	ctx, cancel := context.WithTimeout(n.w.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := n.host.Dial(ctx, "tcp", from.host.Addr(pullPort))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return n.ledger.Pull(ctx, conn)
}

// knows reports whether a node serves a keyspace.
func (n *testNode) knows(keyspace string) error {
	for _, ks := range n.table.Owners().Get().Keyspaces {
		if ks.Name == keyspace {
			return nil
		}
	}
	return fmt.Errorf("%s has no keyspace %s at %v", n.name, keyspace, n.ledger.Epoch())
}

// testWriter gives a node's log to the test.
type testWriter struct {
	t    *testing.T
	node string
}

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.node, b)
	return len(b), nil
}
