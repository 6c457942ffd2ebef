package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/gossip"
	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

const (
	gossipPort   = 7946
	postgresPort = 5432
	copies       = 3   // backends of a shard
	backends     = 260 // each may tell a small change every 5 s, and 50 a second are wanted
	updateRate   = 50
	trafficTime  = 30 * time.Second // that traffic is measured for, at rest; for many nodes a third of it
	settleTime   = 3 * time.Minute
	startTime    = 3 * time.Second // within which nodes start
	maxProbed    = 50              // backends that are probed during the watch
	manyNodes    = 200
	calmTime     = 10 * time.Second
)

// world is a cluster in one process: of each node what believes and routes, and nothing that serves clients.
type world struct {
	net      *memnet.Net
	nodes    []*convergeNode
	backends []rib.Backend
	flipped  atomic.Int64 // the backend whose state is another than belief says, and for whom update has nothing to say
}

// convergeNode is one node: its production parts from the speaker to the FIB.
type convergeNode struct {
	self       rib.Member
	host       *memnet.Host
	addr       string
	table      *rib.Table
	fib        *fib.Handle
	maintainer *fib.Maintainer
	speaker    *gossip.Speaker
}

// measureOurs runs in a bubble.
func (c *converge) measureOurs(r *report) error {
	w := newConvergeWorld(c.seed, c.nodes)
	defer w.close()
	if err := w.form(); err != nil {
		return err
	}
	c.step("all nodes know each other and %d backends", len(w.backends))
	time.Sleep(calmTime)
	w.net.SetLoss(memnet.Everyone, memnet.Everyone, c.loss)

	w.flips(c, &r.rest)
	c.step("%d flips at rest", c.flips)
	before, listen := w.sent(), trafficTime
	if c.nodes > manyNodes {
		listen /= 3
	}
	time.Sleep(listen)
	r.restBytes = (w.sent() - before) / listen.Seconds() / float64(c.nodes)
	c.step("%.0f bytes a node and second at rest", r.restBytes)

	stop := w.update()
	time.Sleep(3 * time.Second) // the queues fill
	before, told, began := w.sent(), w.told(), time.Now()
	w.flips(c, &r.busy)
	seconds := time.Since(began).Seconds()
	r.busyBytes, r.updates = (w.sent()-before)/seconds/float64(c.nodes), float64(w.told()-told-uint64(c.flips))/seconds
	stop()
	c.step("%d flips under %.0f updates a second, %.0f bytes a node and second", c.flips, r.updates, r.busyBytes)
	return w.watch(c, r)
}

func newConvergeWorld(seed uint64, nodes int) *world {
	w := &world{net: memnet.New(seed)}
	w.net.Spread()
	regions := memnet.Regions()
	for i := range nodes {
		region := regions[i%len(regions)]
		name := fmt.Sprintf("%s-%d", region, i)
		w.nodes = append(w.nodes, &convergeNode{self: rib.Member{Name: name, Region: region, Incarnation: 1}, host: w.net.Host(name, region)})
	}
	for i := range backends {
		shard := i / copies
		region := w.lister(i).self.Region
		name := fmt.Sprintf("pg-%d", i)
		w.backends = append(w.backends, rib.Backend{
			Name: name, Shard: fmt.Sprintf("shard-%d", shard), Region: region, SystemID: uint64(shard + 1),
			Addr: w.net.Host(name, region).Addr(postgresPort),
		})
	}
	return w
}

// lister is the node that has backend i in its configuration.
func (w *world) lister(i int) *convergeNode { return w.nodes[i%len(w.nodes)] }

// belief is what its observer says of backend i in ordinary times.
func (w *world) belief(i int) rib.Route {
	r := rib.Route{Backend: w.backends[i].Name, State: rib.Up, Role: rib.Replica, Timeline: 1, Latency: 700 * time.Microsecond}
	if i%copies == 0 {
		r.Role = rib.Primary
	}
	return r
}

// form opens all nodes at random moments and waits until all agree, and have told each other of each other. When they are many,
// nobody listens to that: they know all others from the streams over which they meet, and to hear of each of them some sixteen times from
// packets as well is most of what a thousand nodes would take.
func (w *world) form() error {
	many := len(w.nodes) > manyNodes
	w.net.SetSilent(many)
	owners := &rib.Ownership{ClusterID: "bench", Epoch: rib.Epoch{Generation: 1, Index: 1}}
	for i := 0; i < len(w.backends); i += copies {
		owners.Shards = append(owners.Shards, rib.Shard{Name: w.backends[i].Shard, SystemID: w.backends[i].SystemID, Epoch: owners.Epoch})
	}
	for i, n := range w.nodes {
		time.Sleep(rand.N(2 * startTime / time.Duration(len(w.nodes))))
		if err := n.open(owners); err != nil {
			return err
		}
		for j := i; j < len(w.backends); j += len(w.nodes) {
			n.speaker.Announce(w.backends[j])
			n.speaker.Observe(w.belief(j))
		}
	}
	err := introduce(len(w.nodes), func(i, to int) error {
		_, err := w.nodes[i].speaker.Join([]string{w.nodes[to].addr})
		return err
	})
	if err != nil {
		return err
	}
	if many {
		time.Sleep(drained(len(w.nodes), 40))
		w.net.SetSilent(false)
	}
	if err := await("know each other", w.acquainted); err != nil {
		return err
	}
	for _, n := range w.nodes {
		n.maintainer.Open() // not before: it would compile each of a thousand tables a thousand times
	}
	if err := await("route alike", w.settled); err != nil || many {
		return err
	}
	time.Sleep(drained(len(w.nodes), 40))
	return nil
}

// await waits until all nodes have come to something.
func await(what string, done func() bool) error {
	for began := time.Now(); !done(); time.Sleep(time.Second) {
		if time.Since(began) > settleTime {
			return fmt.Errorf("after %v not all nodes %s", settleTime, what)
		}
	}
	return nil
}

func (n *convergeNode) open(owners *rib.Ownership) error {
	tr, err := n.host.Transport(gossipPort)
	if err != nil {
		return err
	}
	n.addr = tr.Addr()
	n.table, n.fib = rib.NewTable(n.self), new(fib.Handle)
	n.table.Owners().Set(owners)
	n.maintainer = fib.NewMaintainer(n.table, n.fib, nil)
	n.speaker = gossip.New(gossip.Config{
		Self: n.self, ClusterID: "bench", Key: []byte("0123456789abcdef0123456789abcdef"), Transport: tr,
		Health: n.table.Health(), Logger: slog.New(slog.DiscardHandler),
	})
	n.speaker.SetEpoch(owners.Epoch)
	return n.speaker.Open()
}

// routes reports whether n's FIB takes the backend for healthy.
func (n *convergeNode) routes(b *rib.Backend) bool {
	slot := n.fib.Load().Slot(b.Shard)
	if slot == nil {
		return false
	}
	for _, hop := range slot.Candidates().Reads {
		if hop.Backend.Name == b.Name {
			return hop.Healthy
		}
	}
	return false
}

// knows says what n has heard of a backend from its observer, for whoever asks why it is late.
func (n *convergeNode) knows(backend string, observer *convergeNode) string {
	s := n.table.Snapshot()
	said := "nothing"
	for i := range s.Backends {
		if v := &s.Backends[i]; v.Backend.Name == backend {
			said = fmt.Sprintf("%s, %v, by %+v", v.Verdict, v.Reason, v.Routes)
		}
	}
	live := slices.ContainsFunc(s.Members, func(m rib.Member) bool { return m.Name == observer.self.Name })
	heard := slices.ContainsFunc(observer.table.Snapshot().Members, func(m rib.Member) bool { return m.Name == n.self.Name })
	return fmt.Sprintf("%s takes %s for live: %v, and the other way round: %v; of %s it holds: %s; %+v", n.self.Name, observer.self.Name, live, heard, backend, said, n.speaker.Stats())
}

// acquainted reports whether every node knows every other and all there is to know.
func (w *world) acquainted() bool {
	for _, n := range w.nodes {
		if st := n.speaker.Stats(); st.Members != len(w.nodes) || st.Records != 2*len(w.backends) {
			return false
		}
	}
	return true
}

// settled reports whether every node routes to every backend.
func (w *world) settled() bool {
	for _, n := range w.nodes {
		for i := range w.backends {
			if !n.routes(&w.backends[i]) {
				return false
			}
		}
	}
	return true
}

// flips lets an observer change its mind about a backend, n times, and waits for all FIBs: down, and then up again.
func (w *world) flips(c *converge, s *spread) {
	backend := 0
	for i := range c.flips {
		time.Sleep(leastPause + rand.N(mostPause-leastPause))
		up := i%2 == 1
		if !up {
			backend = rand.IntN(len(w.backends))
			w.flipped.Store(int64(backend))
		}
		r := w.belief(backend)
		if !up {
			r.State = rib.Down
		}
		w.lister(backend).speaker.Observe(r)
		s.await(len(w.nodes), func(i int) bool { return w.nodes[i].routes(&w.backends[backend]) == up }, func(i int) {
			c.step("flip %d is late: %s", i, w.nodes[i].knows(w.backends[backend].Name, w.lister(backend)))
		})
	}
}

// update makes observers tell small changes, 50 a second in the whole cluster, until it is stopped.
func (w *world) update() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(time.Second / updateRate)
		defer t.Stop()
		lag := make([]bool, len(w.backends))
		for i := 0; ; i = (i + 1) % len(w.backends) {
			select {
			case <-done:
				return
			case <-t.C:
			}
			if int64(i) == w.flipped.Load() {
				continue
			}
			r := w.belief(i)
			if lag[i] = !lag[i]; lag[i] {
				r.Lag = 3 * time.Second
			}
			w.lister(i).speaker.Observe(r)
		}
	}()
	return func() { close(done); <-stopped }
}

// sent is what all nodes have sent, in bytes.
func (w *world) sent() (bytes float64) {
	for _, n := range w.nodes {
		t := n.host.Traffic()
		bytes += float64(t.PacketBytes + t.StreamBytes)
	}
	return bytes
}

func (w *world) told() (records uint64) {
	for _, n := range w.nodes {
		records += n.speaker.Stats().Told
	}
	return records
}

func (w *world) close() {
	for _, n := range w.nodes {
		if n.speaker != nil {
			_ = n.speaker.Kill()
			n.maintainer.Close()
		}
	}
	w.net.Close()
	time.Sleep(time.Minute) // memberlist's goroutines end with their timers
}
