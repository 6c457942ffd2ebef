package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rangefinder/gossip/probe"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// That this node cannot reach a backend is another thing than that nobody can: in /debug/rib, on the page and in the log.
func TestNotFromHereIsNotDownForAll(t *testing.T) {
	ctx := t.Context()
	s := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1", Auth: "scram-sha-256"})
	for _, region := range testRegions { // a user for each, so that one of them can be cut off
		if err := s.CreateUser(ctx, "probe_"+region, probePassword, ""); err != nil {
			t.Fatal(err)
		}
	}
	var nodes []*testNode
	var join []string
	var cut atomic.Bool
	for i, region := range testRegions {
		cfg := testConfig(t, region, join...)
		cfg.Probe.User, cfg.Probe.PasswordEnv, cfg.Probe.Interval = "probe_"+region, "PROBE_PASSWORD", Duration{100 * time.Millisecond}
		if i == 0 {
			cfg.Backends = []Backend{{Name: "db", Shard: "shard_1", Address: s.Addr()}}
		}
		n := newNode(t, cfg, clusterEnv())
		if i == 2 {
			n.dialer.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if cut.Load() && addr == s.Addr() {
					return nil, syscall.EHOSTUNREACH
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
		}
		nodes = append(nodes, n.open(t))
		join = []string{nodes[0].port().Addr()}
	}
	listing, other := nodes[0], nodes[2]
	view := func(n *testNode) BackendView {
		_, body := n.get(t, "/debug/rib")
		var dump struct{ Backends []BackendView }
		if err := json.Unmarshal([]byte(body), &dump); err != nil || len(dump.Backends) != 1 {
			return BackendView{}
		}
		return dump.Backends[0]
	}
	shows := func(n *testNode, reach, forAll, forUs, reason string) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			if v := view(n); v.Reach != reach || v.ForAll != forAll || v.ForUs != forUs || v.Reason != reason {
				return fmt.Errorf("%s shows %+v, want %s, %s for all and %s for us: %s", n.cfg.Name, v, reach, forAll, forUs, reason)
			}
			return nil
		})
	}
	for _, n := range nodes { // only one of them lists it, all three watch it
		shows(n, "all", "up", "up", "3 of 3 observers say up")
	}

	cut.Store(true)
	if err := s.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'probe_"+other.cfg.Region+"'"); err != nil {
		t.Fatal(err)
	}
	shows(other, "not from here", "up", "down", "2 of 3 observers say up")
	shows(listing, "all", "up", "up", "2 of 3 observers say up")
	if _, page := other.get(t, "/debug?fragment=1"); !strings.Contains(page, "this node cannot reach it, others can: ") {
		t.Errorf("the page does not tell them apart: %s", page)
	}
	logged(t, other, `"this node cannot reach a backend, others can" backend=db`)
	if strings.Contains(other.log.String(), "nobody can reach a backend") {
		t.Error("the log says that nobody can")
	}

	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		shows(n, "nobody", "down", "down", "3 of 3 observers say down")
		logged(t, n, `"nobody can reach a backend" backend=db`)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	shows(listing, "all", "up", "up", "2 of 3 observers say up")
	shows(other, "not from here", "up", "down", "2 of 3 observers say up")
	cut.Store(false)
	shows(other, "all", "up", "up", "3 of 3 observers say up")
	logged(t, other, `"a backend can be reached again" backend=db`)

	// An observer that leaves stops counting.
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	shows(listing, "all", "up", "up", "2 of 2 observers say up")
}

func logged(t *testing.T, n *testNode, text string) {
	t.Helper()
	pgtest.Eventually(t, 10*time.Second, func() error {
		if !strings.Contains(n.log.String(), text) {
			return errors.New("not logged: " + text)
		}
		return nil
	})
}

func TestWatchListHoldsForAWhile(t *testing.T) {
	table := rib.NewTable(rib.Member{Name: "me", Region: "fra", Incarnation: 1})
	table.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 11}}})
	table.Health().MemberUp(rib.Member{Name: "lister", Region: "syd"})
	announce := func(seq uint64, b rib.Backend, gone bool) {
		b.Name, b.Shard, b.Region = "db", "shard_1", "syd"
		table.Health().Announce(rib.Announcement{Backend: b, Observer: "lister", Stamp: rib.Stamp{Incarnation: 1, Seq: seq}, Gone: gone})
	}
	w := watchList{}
	now := time.Unix(1_700_000_000, 0)
	var lists []string
	next := func(after time.Duration) []probe.Target {
		now = now.Add(after)
		s := table.Snapshot()
		return w.next(s, lists, rib.NewPlaces(s.Members, nil), now)
	}
	right := rib.Backend{Addr: "10.0.0.1:5432", SystemID: 11}
	want := []probe.Target{{Name: "db", Shard: "shard_1", Region: "syd", Addr: right.Addr, SystemID: 11}}

	announce(1, rib.Backend{Addr: right.Addr, SystemID: 12}, false)
	if got := next(time.Second); len(got) > 0 {
		t.Errorf("it watches a backend that is refused: %+v", got)
	}
	announce(2, right, false)
	if got := next(time.Second); len(got) > 0 {
		t.Errorf("it watches at once: %+v", got)
	}
	for i := range 3 { // it has only not heard of others yet
		table.Health().MemberUp(rib.Member{Name: fmt.Sprint("syd-", i), Region: "syd"})
	}
	if got := next(watchSettle); len(got) > 0 || len(w) > 0 {
		t.Errorf("it watches what others do: %+v", got)
	}
	for i := range 3 {
		table.Health().MemberGone(fmt.Sprint("syd-", i), now)
	}
	begins := func() {
		t.Helper()
		for after := range watchSettle / time.Second { // a node that starts knows nobody yet
			if got := next(time.Second); len(got) > 0 {
				t.Errorf("after %d s it watches %+v", after, got)
			}
		}
		if got := next(time.Second); !slices.Equal(got, want) {
			t.Fatalf("it is one of two nodes and watches %+v", got)
		}
	}
	begins()
	for i := range 3 { // nodes beside the backend: now they are to watch it
		table.Health().MemberUp(rib.Member{Name: fmt.Sprint("syd-", i), Region: "syd"})
	}
	if got := next(watchHold - time.Second); !slices.Equal(got, want) {
		t.Errorf("it gives up at once: %+v", got)
	}
	if got := next(time.Second); len(got) > 0 {
		t.Errorf("it goes on for ever: %+v", got)
	}
	for i := range 3 {
		table.Health().MemberGone(fmt.Sprint("syd-", i), now)
	}
	begins()
	announce(3, right, true)
	if got := next(time.Second); len(got) > 0 || len(w) > 0 {
		t.Errorf("the backend is withdrawn and it watches %+v, %v", got, w)
	}

	announce(4, right, false)
	lists = []string{"db"} // what it lists itself it watches at once
	if got := next(time.Second); !slices.Equal(got, want) {
		t.Errorf("it lists the backend and watches %+v", got)
	}
}

// What a node looks at besides what it observes: the primaries of the replicas that it observes, for how late those are; and what its
// statements are at while the observers cannot tell how it is.
func TestLooksAtWhatItDoesNotObserve(t *testing.T) {
	table := rib.NewTable(rib.Member{Name: "me", Region: "fra", Incarnation: 1})
	h := table.Health()
	table.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 11}, {Name: "shard_2", SystemID: 12}}})
	h.MemberUp(rib.Member{Name: "other", Region: "syd"})
	seq := uint64(0)
	says := func(backend, shard string, system uint64, state rib.State, role rib.Role) probe.Target {
		seq++
		b := rib.Backend{Name: backend, Shard: shard, Region: "syd", Addr: backend + ":5432", SystemID: system}
		h.Announce(rib.Announcement{Backend: b, Observer: "other", Stamp: rib.Stamp{Incarnation: 1, Seq: seq}})
		h.Observe(rib.Route{Backend: backend, Observer: "other", Stamp: rib.Stamp{Incarnation: 1, Seq: seq}, State: state, Role: role, Timeline: 1})
		return target(&b)
	}
	primary := says("p1", "shard_1", 11, rib.Up, rib.Primary)
	replica := says("r1", "shard_1", 11, rib.Up, rib.Replica)
	says("p2", "shard_2", 12, rib.Up, rib.Primary)
	says("wrong", "shard_1", 12, rib.Up, rib.Primary)
	if got := primariesOf(table.Snapshot(), []probe.Target{replica}); len(got) != 1 || got[0] != primary {
		t.Errorf("of one replica: %+v", got)
	}
	if got := primariesOf(table.Snapshot(), []probe.Target{replica, primary}); len(got) != 0 {
		t.Errorf("the primary is observed too: %+v", got)
	}

	busy := func(backend string, n int32) {
		for _, v := range table.Snapshot().Backends {
			if v.Backend.Name == backend {
				v.Gauge.InFlight.Store(n)
			}
		}
	}
	busy("p1", 1)
	busy("r1", 1)
	says("r1", "shard_1", 11, rib.StateUnknown, rib.Replica)
	says("p2", "shard_2", 12, rib.StateUnknown, rib.Primary) // where this node has nothing to do
	if got := unsure(table.Snapshot()); len(got) != 1 || got[0] != replica {
		t.Errorf("its observers cannot tell, and a statement waits: %+v", got)
	}
	busy("r1", 0)
	if got := unsure(table.Snapshot()); len(got) != 0 {
		t.Errorf("nobody waits: %+v", got)
	}
}

func TestPeersBehindACutAreKept(t *testing.T) {
	got := keptPeers([]string{"10.0.0.2:7946", "10.0.0.1:7946"}, []string{"10.9.0.1:7946", "10.0.0.1:7946", "10.9.0.1:7946"})
	if want := []string{"10.0.0.1:7946", "10.0.0.2:7946", "10.9.0.1:7946"}; !slices.Equal(got, want) {
		t.Errorf("kept: %v, want %v", got, want)
	}
	var lost []string
	for i := range 2 * maxPeers {
		lost = append(lost, fmt.Sprintf("10.9.%d.1:7946", i))
	}
	if got := keptPeers([]string{"10.99.0.1:7946"}, lost); len(got) != maxPeers || !slices.Contains(got, "10.99.0.1:7946") {
		t.Errorf("%d are kept; who lives must be among them", len(got))
	}
}
