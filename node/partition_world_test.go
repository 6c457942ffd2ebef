package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/cluster"
	"rangefinder/fib"
	"rangefinder/gossip"
	"rangefinder/gossip/memnet"
	"rangefinder/gossip/probe"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/twophase"
)

// partWorld is a cluster in virtual time: of each node everything that believes and routes, as in production (speaker, prober, watch list,
// tables, FIB), over a network in memory; only the servers are made up. Two nodes stand in each of three regions, and of two shards a
// backend each.
type partWorld struct {
	t      *testing.T
	net    *memnet.Net
	owners *rib.Ownership
	nodes  []*partNode
	began  time.Time

	servers map[string]net.Listener // by backend

	// guarded by mu
	mu        sync.Mutex
	primaries []string          // by shard
	timelines []int             // by shard: each promotion begins the next one
	wrote     time.Time         // since when all primaries are written to; zero: they are not
	old       map[string]string // primaries of the past that live on: their timelines, by backend
	still     map[string]uint64 // replicas to which nothing comes from their primaries, by backend: how far they are
}

var partRegions = []string{"fra", "iad", "syd"}

const partSystem = 77 // of shard_1; shard_2's is one more

// partNode is one node, or what is left of it.
type partNode struct {
	*Node
	world       *partWorld
	host        *memnet.Host
	region      string
	addr        string
	incarnation uint32
	stopLoops   context.CancelFunc
	loops       sync.WaitGroup
	dead        bool

	downs map[string]int // how often its verdict of a backend became down
	last  map[string]rib.State
}

// partitioned runs f in such a world, once all nodes agree.
func partitioned(t *testing.T, seed uint64, f func(w *partWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &partWorld{t: t, net: memnet.New(seed), still: map[string]uint64{}, servers: map[string]net.Listener{}}
		w.net.Spread()
		epoch := rib.Epoch{Generation: 1, Index: 7}
		w.owners = &rib.Ownership{ClusterID: "partitions", Epoch: epoch}
		for i := range 2 {
			w.owners.Shards = append(w.owners.Shards, rib.Shard{Name: fmt.Sprint("shard_", i+1), SystemID: partSystem + uint64(i), Epoch: epoch})
			for j, region := range partRegions {
				name := w.backend(i, region)
				ln, err := w.net.Host(name, region).Listen(5432)
				if err != nil {
					t.Fatal(err)
				}
				if i == j { // each shard's primary stands in another region
					w.primaries, w.timelines = append(w.primaries, name), append(w.timelines, 1)
				}
				go pgtest.ServeRow(ln, func() []string {
					at := fmt.Sprintf("0/%X", w.position(name))
					recovering, timeline := w.role(i, name)
					return []string{recovering, timeline, "0", strconv.Itoa(partSystem + i), "0", "10", at, "0/1000000", "f", at, "f"}
				})
				defer ln.Close()
				w.servers[name] = ln
			}
		}
		defer w.close()
		for i := range 2 {
			for _, region := range partRegions {
				n := &partNode{world: w, region: region, incarnation: 1, host: w.net.Host(fmt.Sprintf("%s-%d", region, i+1), region)}
				w.nodes = append(w.nodes, n)
				n.open()
			}
		}
		for _, n := range w.nodes[1:] {
			n.join(w.nodes[0])
		}
		w.until(time.Minute, "all agree", w.agreed)
		<-time.After(15 * time.Second) // those that began to observe and are not chosen have given up
		w.until(time.Minute, "all agree", w.agreed)
		w.began = time.Now()
		for _, n := range w.nodes {
			n.downs, n.last = map[string]int{}, map[string]rib.State{}
		}
		f(w)
	})
}

func (w *partWorld) backend(shard int, region string) string {
	return fmt.Sprintf("pg-%d-%s", shard+1, region)
}

// role is what a server says of itself: whether it is a replica, and its timeline.
func (w *partWorld) role(shard int, backend string) (recovering, timeline string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if timeline, ok := w.old[backend]; ok {
		return "f", timeline
	}
	if recovering = "t"; w.primaries[shard] == backend {
		recovering = "f"
	}
	return recovering, strconv.Itoa(w.timelines[shard])
}

// promote makes a replica the primary, which becomes one.
func (w *partWorld) promote(shard int, backend string) (before string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.primaries[shard] = w.primaries[shard], backend
	w.timelines[shard]++
	return before
}

// position is how far a server has come. A replica to which nothing comes does not know that, and says that it is up to date.
func (w *partWorld) position(backend string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.still[backend]; ok {
		return at
	}
	at := uint64(0x1000000)
	if !w.wrote.IsZero() {
		at += uint64(time.Since(w.wrote) / time.Microsecond)
	}
	return at
}

// write has all primaries written to from now on.
func (w *partWorld) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = time.Now()
}

// hush has nothing come to a replica any more, or all at once.
func (w *partWorld) hush(backend string, on bool) {
	at := w.position(backend)
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.still, backend); on {
		w.still[backend] = at
	}
}

// reads tells whether a node would read from a backend.
func (n *partNode) reads(backend string) bool {
	for _, slot := range n.fib.Load().Slots() {
		for _, hop := range slot.Candidates().Reads {
			if hop.Backend.Name == backend && hop.Healthy {
				return true
			}
		}
	}
	return false
}

// all tells whether all nodes say so.
func (w *partWorld) all(says func(n *partNode) bool) bool {
	return !slices.ContainsFunc(w.nodes, func(n *partNode) bool { return !n.dead && !says(n) })
}

func (n *partNode) open() {
	w := n.world
	tr, err := n.host.Transport(7946)
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	n.Node = &Node{log: log, fib: new(fib.Handle), alarms: map[string]string{}}
	n.lender = newLender(n.Node)
	n.twophase = twophase.New(twophase.Config{Wanted: func() bool { return false }})
	n.dead, n.addr = false, tr.Addr()
	n.setup.Store(&setup{cfg: Config{Region: n.region, Probe: Probe{User: "prober"}}})
	settings := probe.Settings{User: "prober"}
	for i := range w.owners.Shards {
		name := w.backend(i, n.region)
		addr := w.net.Host(name, n.region).Addr(5432)
		n.cfg().Backends = append(n.cfg().Backends, Backend{Name: name, Shard: w.owners.Shards[i].Name, Address: addr})
		settings.Backends = append(settings.Backends, probe.Target{Name: name, Shard: w.owners.Shards[i].Name, Region: n.region, Addr: addr})
	}
	self := rib.Member{Name: n.host.Name(), Region: n.region, Incarnation: n.incarnation}
	n.table = rib.NewTable(self)
	n.table.Owners().Set(w.owners)
	n.compiler = fib.NewMaintainer(n.table, n.fib, nil)
	n.compiler.Open()
	speaker := gossip.New(gossip.Config{Self: self, ClusterID: w.owners.ClusterID, Key: []byte("0123456789abcdef0123456789abcdef"), Transport: tr, Health: n.table.Health(), Policy: n.table.Local().Policy, Logger: log, OnRecheck: n.heardRecheck})
	speaker.SetEpoch(w.owners.Epoch)
	if err := speaker.Open(); err != nil {
		w.t.Fatal(err)
	}
	n.parts.speaker.Store(speaker)
	prober := probe.New(probe.Config{
		Settings: settings, Sink: sink{n.Node}, Logger: log,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return n.host.Dial(ctx, network, addr)
		},
		Lost:      func(backend, why string) { n.table.Health().Evidence(backend, true, why) },
		Recovered: func(backend string) { n.table.Health().Evidence(backend, false, "") },
		Saw:       n.table.Positions().Saw,
	})
	if err := prober.Open(); err != nil {
		w.t.Fatal(err)
	}
	n.parts.prober.Store(prober)
	var ctx context.Context
	ctx, n.stopLoops = context.WithCancel(context.Background())
	n.loops.Go(func() { n.watchLoop(ctx) })
	n.loops.Go(func() { n.staleLoop(ctx) })
}

func (n *partNode) join(via *partNode) {
	n.world.until(time.Minute, n.host.Name()+" joins", func() bool {
		joined, err := n.speaker().Join([]string{via.addr})
		return err == nil && joined == 1
	})
}

// crash ends the node as a SIGKILL would.
func (n *partNode) crash() {
	n.dead = true
	n.stopLoops()
	n.host.Close()
	_ = n.speaker().Kill()
	_ = n.prober().Close()
	n.loops.Wait()
	n.compiler.Close()
}

// again starts it anew, as after a crash.
func (n *partNode) again(via *partNode) {
	n.incarnation++
	n.open()
	n.join(via)
}

func (w *partWorld) close() {
	for _, n := range w.nodes {
		if !n.dead && n.Node != nil {
			n.crash()
		}
	}
	w.net.Close()
	<-time.After(time.Minute) // memberlist's goroutines end with their timers
}

// until waits in virtual time for a condition and returns how long that took.
func (w *partWorld) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.t.Fatalf("after %v still not: %s\n%s", limit, what, w.dump())
		}
		<-time.After(20 * time.Millisecond)
	}
	return time.Since(start)
}

func (w *partWorld) dump() (s string) {
	for _, n := range w.nodes {
		if n.dead {
			s += n.host.Name() + " is dead\n"
			continue
		}
		s += fmt.Sprintf("%s: members %d, suspicion %q\n", n.host.Name(), len(n.speaker().Members()), n.prober().Suspicion())
		for _, v := range n.table.Snapshot().Backends {
			s += fmt.Sprintf("  %s %v (%s) %v evidence %q routes %v\n", v.Backend.Name, v.Verdict, v.Reason, v.Role, v.Evidence, v.Routes)
		}
	}
	return s
}

// during lets time pass, and looks ten times a second (less often if it takes longer than a minute) at what must hold whatever happens;
// also says more of each node and backend, with its verdict.
func (w *partWorld) during(d time.Duration, also func(n *partNode, v *rib.BackendView)) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); <-time.After(max(100*time.Millisecond, d/600)) {
		for _, n := range w.nodes {
			if n.dead {
				continue
			}
			n.holds()
			s := n.table.Snapshot()
			for i := range s.Backends {
				v := &s.Backends[i]
				if name := v.Backend.Name; v.Verdict != n.last[name] {
					if n.last[name] = v.Verdict; v.Verdict == rib.Down {
						n.downs[name]++
					}
				}
				if also != nil {
					also(n, v)
				}
			}
			if w.t.Failed() {
				w.t.Fatalf("after %v:\n%s", time.Since(w.began), w.dump())
			}
		}
	}
}

// holds is what no partition may change: who owns what, that the node knows all backends, and that a statement has somewhere to go.
func (n *partNode) holds() {
	t := n.world.t
	if o := n.table.Owners().Get(); !reflect.DeepEqual(o, n.world.owners) || !reflect.DeepEqual(n.fib.Load().Ownership(), n.world.owners) {
		t.Errorf("%s: ownership is %+v", n.host.Name(), o)
	}
	if alarm := n.compiler.Alarm(); alarm != "" {
		t.Errorf("%s: %s", n.host.Name(), alarm)
	}
	if n.world.began.IsZero() || n.incarnation > 1 {
		return // it has only begun to know them
	}
	if got := len(n.table.Snapshot().Backends); got != len(partRegions)*len(n.world.owners.Shards) {
		t.Errorf("%s knows %d backends", n.host.Name(), got)
	}
	for _, slot := range n.fib.Load().Slots() {
		c := slot.Candidates()
		if len(c.Reads) == 0 || len(c.Writes) != 1 {
			t.Errorf("%s: %s has %d for reads and %d for writes", n.host.Name(), slot.Shard(), len(c.Reads), len(c.Writes))
		}
		for _, hop := range slices.Concat(c.Reads, c.Writes) {
			if hop.Backend.Shard != slot.Shard() {
				t.Errorf("%s: %s would be sent to %s of %s", n.host.Name(), slot.Shard(), hop.Backend.Name, hop.Backend.Shard)
			}
		}
	}
}

// agreed reports whether all nodes live, know each other, hold the same records, and take every backend for up.
func (w *partWorld) agreed() bool {
	type belief struct {
		backend rib.Backend
		routes  []rib.Route
		verdict rib.State
		role    rib.Role
	}
	var first []belief
	for _, n := range w.nodes {
		if n.dead || len(n.speaker().Members()) != len(w.nodes) || len(n.speaker().Lost()) != 0 {
			return false
		}
		var mine []belief
		for _, v := range n.table.Snapshot().Backends {
			if v.Verdict != rib.Up || v.Evidence != "" || v.Refused != "" {
				return false
			}
			mine = append(mine, belief{v.Backend, v.Routes, v.Verdict, v.Role})
		}
		if first == nil {
			first = mine
		}
		if len(mine) != len(partRegions)*len(w.owners.Shards) || !reflect.DeepEqual(first, mine) || len(n.worries()) != 0 {
			return false
		}
	}
	return true
}

// worries are the node's alarms, as if a leader were known.
func (n *partNode) worries() []string {
	return n.alarmList(n.table.Snapshot(), cluster.Status{Leader: "somebody"})
}
