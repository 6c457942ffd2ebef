package gossip

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// regions are where the nodes of these tests stand.
var regions = memnet.Regions()

// world is a cluster in virtual time: production speakers and tables over a network in memory.
type world struct {
	t     *testing.T
	net   *memnet.Net
	nodes []*node
}

type node struct {
	*Speaker
	world *world
	self  rib.Member
	host  *memnet.Host
	table *rib.Table
	addr  string
	cfg   Config
	level byte // newest that it reads; 0: this release's
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, net: memnet.New(seed)}
	w.net.Spread()
	return w
}

// add opens a node; tweak may change its configuration.
func (w *world) add(name, region string, tweak func(*Config)) *node {
	w.t.Helper()
	n := &node{world: w, self: rib.Member{Name: name, Region: region, Incarnation: 1}, host: w.net.Host(name, region)}
	n.open(tweak)
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) open(tweak func(*Config)) {
	n.world.t.Helper()
	tr, err := n.host.Transport(7946)
	if err != nil {
		n.world.t.Fatal(err)
	}
	n.addr = tr.Addr()
	cfg := Config{
		ClusterID: "test-cluster",
		Key:       []byte("0123456789abcdef0123456789abcdef"),
		Transport: tr,
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	cfg.Self = n.self
	if tweak != nil {
		tweak(&cfg)
	}
	n.self = cfg.Self
	n.table = rib.NewTable(cfg.Self)
	cfg.Health = n.table.Health()
	n.cfg = cfg
	n.Speaker = New(cfg)
	if n.level > 0 {
		n.speak(n.level)
	}
	if err := n.Open(); err != nil {
		n.world.t.Fatal(err)
	}
}

// form makes a cluster of n nodes spread over the regions, joined at random phases.
func (w *world) form(n int) {
	w.t.Helper()
	for i := range n {
		nd := w.add(fmt.Sprintf("%s-%d", regions[i%8], i), regions[i%8], nil)
		wait(rand.N(200 * time.Millisecond))
		if i > 0 {
			w.join(nd, w.nodes[rand.IntN(i)])
		}
	}
	w.until(time.Minute, "all know each other", func() bool {
		for _, nd := range w.nodes {
			if int(nd.live.Load()) != n-1 {
				return false
			}
		}
		return true
	})
}

// join tries as a node does that starts: again until it is in.
func (w *world) join(nd, via *node) {
	w.t.Helper()
	w.until(time.Minute, nd.self.Name+" joins", func() bool {
		n, err := nd.Join([]string{via.addr})
		return err == nil && n == 1
	})
}

func (w *world) close() {
	for _, n := range w.nodes {
		_ = n.Kill()
	}
	w.net.Close()
	wait(time.Minute) // memberlist's goroutines end with their timers
}

// wait lets virtual time pass.
func wait(d time.Duration) { <-time.After(d) }

// until waits in virtual time for a condition and returns how long that took.
func (w *world) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.t.Fatalf("after %v still not: %s\n%s", limit, what, w.dump())
		}
		wait(5 * time.Millisecond) // all times found are exact to this
	}
	return time.Since(start)
}

func (w *world) dump() (s string) {
	for _, n := range w.nodes[:min(len(w.nodes), 4)] {
		s += fmt.Sprintf("%s: %+v\n", n.self.Name, n.Stats())
		for _, v := range n.table.Snapshot().Backends {
			s += fmt.Sprintf("  %s verdict %d role %d: %+v\n", v.Backend.Name, v.Verdict, v.Role, v.Routes)
		}
	}
	return s
}

// beliefs is what must be the same everywhere.
func (n *node) beliefs() any {
	type view struct {
		Backend rib.Backend
		Routes  []rib.Route
		Verdict rib.State
		Role    rib.Role
	}
	var views []view
	for _, v := range n.table.Snapshot().Backends {
		views = append(views, view{v.Backend, v.Routes, v.Verdict, v.Role})
	}
	return views
}

// agree tells whether all these tables are equal and hold so many backends.
func agree(nodes []*node, backends int) bool {
	for _, n := range nodes { // most often enough, and cheap
		if len(n.table.Snapshot().Backends) != backends {
			return false
		}
	}
	first := nodes[0].beliefs()
	if reflect.ValueOf(first).Len() != backends {
		return false
	}
	for _, n := range nodes[1:] {
		if !reflect.DeepEqual(first, n.beliefs()) {
			return false
		}
	}
	return true
}

func (n *node) verdict(backend string) rib.State {
	for _, v := range n.table.Snapshot().Backends {
		if v.Backend.Name == backend {
			return v.Verdict
		}
	}
	return rib.StateUnknown
}

func up(name string) rib.Route {
	return rib.Route{Backend: name, State: rib.Up, Role: rib.Replica, Timeline: 1, Latency: 730 * time.Microsecond, Lag: 17 * time.Millisecond}
}

// lists announces a backend and says that it is up.
func (n *node) lists(name string) {
	n.Announce(rib.Backend{Name: name, Shard: "shard_1", Region: n.self.Region, Addr: "10.9.9.9:5432", SystemID: 77})
	n.Observe(up(name))
}

func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestClusterConvergesAndFlipsReachEverybody(t *testing.T) {
	for _, nodes := range []int{3, 10, 50} {
		for _, loss := range []float64{0, 0.10, 0.25} {
			t.Run(fmt.Sprintf("%d nodes %.0f%% loss", nodes, loss*100), func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					w := newWorld(t, uint64(nodes))
					defer w.close()
					w.form(nodes)
					w.net.SetLoss(memnet.Everyone, memnet.Everyone, loss)
					for _, n := range w.nodes {
						n.lists("b-" + n.self.Name)
					}
					took := w.until(15*time.Second, "one table everywhere", func() bool { return agree(w.nodes, nodes) })

					flipped := w.nodes[0]
					wait(time.Second)
					down := up("b-" + flipped.self.Name)
					down.State = rib.Down
					flipped.Observe(down)
					flip := w.until(5*time.Second, "the flip everywhere", func() bool {
						for _, n := range w.nodes {
							if n.verdict(down.Backend) != rib.Down {
								return false
							}
						}
						return true
					})
					if flip > 2*time.Second {
						t.Errorf("the flip took %v", flip)
					}
					if !agree(w.nodes, nodes) {
						t.Error("tables differ after the flip")
					}
					t.Logf("one table after %v; flip everywhere after %v", took, flip)
				})
			})
		}
	}
}
