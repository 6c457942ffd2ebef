package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/cluster"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// opening opens a node beside the test, and returns when it has joined.
func (n *testNode) opening(t *testing.T) (opened <-chan error, giveUp func()) {
	t.Helper()
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	go func() { done <- n.Open(ctx) }()
	n.says(t, "msg=joining")
	return done, cancel
}

// says waits for a text in the node's log.
func (n *testNode) says(t *testing.T, text string) {
	t.Helper()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if !strings.Contains(n.log.String(), text) {
			return fmt.Errorf("%s has not said %q", n.cfg.Name, text)
		}
		return nil
	})
}

// TestAJoinerServesOnceItHasANumber: a node that joins a peer while nobody leads learns who owns what, and serves nobody by that: no move would wait for it. It does when there is
// a leader again, and after that whether there is one or not.
func TestAJoinerServesOnceItHasANumber(t *testing.T) {
	first := newNode(t, testConfig(t, "iad"), nil).open(t)
	peer := newNode(t, testConfig(t, "fra", first.port().Addr()), nil).open(t)
	pgtest.Eventually(t, 30*time.Second, func() error {
		if got := peer.ledger().Voters(); len(got) != 2 {
			return fmt.Errorf("voters %v", got)
		}
		return nil
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	joiner := newNode(t, testConfig(t, "syd", peer.port().Addr()), nil)
	opened, _ := joiner.opening(t)
	joiner.says(t, "still waiting for the ledger: this node has no number")
	if status, body := joiner.get(t, "/readyz"); status != 503 || !strings.Contains(body, "waiting for the ledger: this node has no number, without which no move waits for it, and ") {
		t.Errorf("readyz = %d %q", status, body)
	}
	select {
	case err := <-opened:
		t.Fatalf("it has opened: %v", err)
	default:
	}
	if o := joiner.table.Owners().Get(); o.ClusterID != first.state.ClusterID || o.Epoch != peer.ledger().Epoch() || o.Admitted("syd-1") {
		t.Errorf("it has the table of %v of cluster %q, which names %q", o.Epoch, o.ClusterID, o.Nodes)
	}
	if err := peer.pull(t.Context(), joiner.port().Addr()); err == nil {
		t.Error("it gives its table to others")
	}

	again := newNode(t, first.cfg, nil).open(t)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if status, body := joiner.get(t, "/readyz"); status != 200 || !joiner.fib.Load().Ownership().Admitted("syd-1") {
		t.Errorf("readyz = %d %q, and the table names %q", status, body, joiner.fib.Load().Ownership().Nodes)
	}
	if err := peer.pull(t.Context(), joiner.port().Addr()); err != nil {
		t.Error(err)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		o, err := cluster.KnownOwnership(joiner.dir.path + "/" + ledgerDir)
		if err == nil && !o.Admitted("syd-1") {
			err = errors.New("its number is not on disk yet")
		}
		return err
	})
	for _, n := range []*testNode{joiner, peer, again} {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	alone := newNode(t, joiner.cfg, nil).open(t)
	if status, body := alone.get(t, "/readyz"); status != 200 || alone.ledger().IsLeader() {
		t.Errorf("alone: readyz = %d %q", status, body)
	}
}

// TestNoNumbersLeft: a node that can have no number takes no clients, and says why and what to do; so does the leader. Nodes that can have one get it all the same, and who
// comes under the name of one that is gone has that one's.
func TestNoNumbersLeft(t *testing.T) {
	first := newNode(t, testConfig(t, "iad"), nil).open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	long := strings.Repeat("x", cluster.MaxName+1)
	refused, err := first.numberNodes(ctx, []string{"gone-0", long, "gone-1"})
	if err != nil || len(refused) != 1 || !errors.Is(refused[0], cluster.ErrInvalid) || !strings.Contains(refusedNumbers(refused), "129 bytes, and may have 128. So it takes no clients. Start it with an empty data_dir and under a shorter name") {
		t.Fatalf("%v, %v", refused, err)
	}
	if o := first.table.Owners().Get(); !o.Admitted("gone-0") || !o.Admitted("gone-1") || len(o.Nodes) != 3 {
		t.Fatalf("%q", o.Nodes)
	}
	var all sync.WaitGroup
	names := make(chan string)
	for range 32 {
		all.Go(func() {
			for name := range names {
				if err := first.ledger().NumberNode(ctx, name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := 2; i < rib.MaxNodes-1; i++ {
		names <- fmt.Sprintf("gone-%d", i)
	}
	close(names)
	all.Wait()

	newcomer := newNode(t, testConfig(t, "fra", first.port().Addr()), nil)
	opened, giveUp := newcomer.opening(t)
	alarm := `node "fra-1" gets no number: all 4096 are given, each to one name for ever. So it takes no clients. ` + oldName
	pgtest.Eventually(t, 20*time.Second, func() error {
		if got := first.View().Alarms; !slices.Contains(got, alarm) {
			return fmt.Errorf("alarms: %q", got)
		}
		return nil
	})
	applied := first.ledger().Status().Applied
	newcomer.says(t, "still waiting for the ledger: it has no number left for this node")
	if status, body := newcomer.get(t, "/readyz"); status != 503 || !strings.Contains(body, "all 4096 are given, each to one name for ever. "+oldName) {
		t.Errorf("readyz = %d %q", status, body)
	}
	if now := first.ledger().Status().Applied; now > applied+5 { // it may be a voter since
		t.Errorf("the log has %d more entries", now-applied)
	}
	select {
	case err := <-opened:
		t.Fatalf("it has opened: %v", err)
	default:
	}
	giveUp()
	if err := <-opened; !errors.Is(err, context.Canceled) {
		t.Errorf("it has opened: %v", err)
	}

	cfg := testConfig(t, "syd", first.port().Addr())
	cfg.Name = "gone-7"
	newNode(t, cfg, nil).open(t)
	pgtest.Eventually(t, 30*time.Second, func() error {
		if got := first.View().Alarms; slices.Contains(got, alarm) {
			return errors.New("the alarm is not over")
		}
		return nil
	})
}

func TestNodesWithoutANumber(t *testing.T) {
	members := []rib.Member{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	var g numbering
	for _, c := range []struct {
		o    rib.Ownership
		want []string
	}{
		{rib.Ownership{Nodes: []string{"a"}}, nil}, // there is no cluster yet
		{rib.Ownership{ClusterID: "c1"}, []string{"a", "b", "c", "d"}},
		{rib.Ownership{ClusterID: "c1", Nodes: []string{"d", "gone", "b", "a"}, Forgotten: []int{1, 2}}, []string{"b", "c"}},
		{rib.Ownership{ClusterID: "c1", Nodes: []string{"d", "gone", "b", "a", "c"}, Forgotten: []int{1}}, nil},
	} {
		for range 2 {
			if got := g.without(&c.o, members); !slices.Equal(got, c.want) {
				t.Errorf("%q without %v: %q, want %q", c.o.Nodes, c.o.Forgotten, got, c.want)
			}
		}
	}
}
