package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// pass lets time go by, and gossip tell the nodes now and then who lives.
func (w *world) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(20 * time.Second)
		w.reconcile()
	}
}

func votersOf(n *testNode) string {
	var names []string
	for _, v := range n.ledger.Voters() {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestDeadVoterIsReplaced: after five minutes another node has its place, of its region first, and the majority is one of living nodes.
// The dead one comes back, follows, and knows who leads.
func TestDeadVoterIsReplaced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d, e := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad"), w.add("e", "syd")
		w.form(a, b, c, d, e)
		w.shards(1)
		c.kill()
		w.pass(4 * time.Minute)
		if got := votersOf(w.leader()); got != "a b c" {
			t.Fatalf("after four minutes the voters are %s", got)
		}
		w.pass(2 * time.Minute)
		if got := votersOf(w.leader()); got != "a b e" {
			t.Fatalf("after six minutes the voters are %s", got)
		}
		b.kill() // two of three are left only because e is one
		leader := w.leader()
		if _, err := leader.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		c.start()
		w.reconcile()
		w.until("it follows", func() error {
			if _, err := c.pull(leader); err != nil {
				return err
			}
			if name, _ := c.ledger.Leader(); name != leader.name {
				return fmt.Errorf("it believes in %q", name)
			}
			return c.knows("app.orders")
		})
	})
}

// TestAVoterThatGaveItsPlaceAway because it was drained: its own log of voters and of the past ends about there, before or behind the change itself. So it
// follows, as a node that never was one, and learns who leads also when it has the newest table.
func TestAVoterThatGaveItsPlaceAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad")
		w.form(a, b, c, d)
		w.shards(1)
		c.drained()
		w.until("d has its place", func() error {
			if got := votersOf(w.leader()); got != "a b d" {
				return errors.New(got)
			}
			return nil
		})
		leader := w.leader()
		follows := func(when string) {
			t.Helper()
			w.until("Raft tells it of no leader any more", func() error {
				if _, id := c.ledger.raft.LeaderWithID(); id != "" {
					return errors.New(string(id))
				}
				return nil
			})
			if _, err := c.pull(leader); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if c.ledger.Epoch() != leader.ledger.Epoch() {
				t.Errorf("%s: it is at %s, the leader at %s", when, c.ledger.Epoch(), leader.ledger.Epoch())
			}
			if name, addr := c.ledger.Leader(); name != leader.name || addr != leader.host.Addr(raftPort) || !c.ledger.Follows() || votersOf(c) != "a b d" {
				t.Errorf("%s: it follows %v, believes in %q at %q, and takes %s for the voters", when, c.ledger.Follows(), name, addr, votersOf(c))
			}
			var elsewhere *NotLeaderError
			if list, err := c.ledger.History(w.ctx(), HistoryFilter{}); !errors.As(err, &elsewhere) || elsewhere.Leader != leader.name {
				t.Errorf("%s: it tells of the past by itself: %v, %v", when, list, err)
			}
		}
		follows("at once")
		c.stop()
		c.start()
		w.reconcile()
		follows("restarted")
		d.drained() // now c is one again
		w.until("c has its place again", func() error {
			if got := votersOf(w.leader()) + ", " + votersOf(c); got != "a b c, a b c" || c.ledger.Follows() {
				return fmt.Errorf("%s; it follows: %v", got, c.ledger.Follows())
			}
			return nil
		})
	})
}

// TestAVoterThatIsLeftAlone is still one, and knows the others, whatever it had heard before it became one.
func TestAVoterThatIsLeftAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		b, c := w.add("b", "fra"), w.add("c", "syd")
		if err := c.ledger.Admit("c1"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.pull(a); err != nil || votersOf(c) != "a" || !c.ledger.Follows() {
			t.Fatalf("%v; it follows %v, and takes %s for the voters", err, c.ledger.Follows(), votersOf(c))
		}
		if err := b.ledger.Admit("c1"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if got := votersOf(a) + ", " + votersOf(c); got != "a b c, a b c" || c.ledger.Follows() {
			t.Fatalf("%s; it follows: %v", got, c.ledger.Follows())
		}
		a.kill()
		b.kill()
		w.until("Raft tells it of no leader any more", func() error {
			if _, id := c.ledger.raft.LeaderWithID(); id != "" {
				return errors.New(string(id))
			}
			return nil
		})
		if name, _ := c.ledger.Leader(); name != "" || votersOf(c) != "a b c" || c.ledger.Follows() {
			t.Errorf("it follows %v, believes in %q, and takes %s for the voters", c.ledger.Follows(), name, votersOf(c))
		}
	})
}

// drained tells all nodes that this one is to be stopped.
func (n *testNode) drained() {
	var members []rib.Member
	for _, m := range n.w.nodes {
		if m.ledger != nil {
			members = append(members, m.member())
		}
	}
	for _, m := range n.w.nodes {
		if m.ledger != nil {
			m.ledger.Reconcile(members, map[string]bool{n.name: true})
		}
	}
}

// TestFiveVotersInFiveRegions, and five they stay when a region is gone for a while.
func TestFiveVotersInFiveRegions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var nodes []*testNode
		for _, region := range []string{"iad", "fra", "syd", "gru", "sin"} {
			nodes = append(nodes, w.add(region+"1", region), w.add(region+"2", region))
		}
		if err := nodes[0].ledger.Bootstrap("c1"); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes[1:] {
			if err := n.ledger.Admit("c1"); err != nil {
				t.Fatal(err)
			}
		}
		w.reconcile()
		if got := votersOf(nodes[0]); got != "fra1 gru1 iad1 sin1 syd1" {
			t.Fatalf("the voters are %s", got)
		}
		nodes[8].kill()
		nodes[9].kill()
		w.pass(time.Minute)
		if got := votersOf(w.leader()); got != "fra1 gru1 iad1 sin1 syd1" {
			t.Fatalf("the voters are %s", got)
		}
	})
}

// TestVotersSpreadOverRegions: three that were there first, in one region, do not stay voters for ever: when nodes of other regions have been there for five
// minutes without a break, they take the places of two, one after the other, and then all is at rest. Who leads stays.
func TestVotersSpreadOverRegions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "iad"), w.add("c", "iad")
		w.form(a, b, c)
		w.shards(1)
		leader, term := w.leader(), w.leader().ledger.Term()
		d, e, f := w.add("d", "fra"), w.add("e", "syd"), w.add("f", "syd")
		for _, n := range []*testNode{d, e, f} {
			if err := n.ledger.Admit("c1"); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(3 * time.Minute)
		d.kill()
		w.pass(time.Minute)
		d.start()
		if got := votersOf(leader); got != "a b c" {
			t.Fatalf("after four minutes the voters are %s", got)
		}
		w.pass(2 * time.Minute)
		if got := votersOf(leader); got != "a b e" {
			t.Fatalf("after six minutes, with one that was away, the voters are %s", got)
		}
		w.pass(4 * time.Minute)
		if got := votersOf(leader); got != "a d e" {
			t.Fatalf("after ten minutes the voters are %s", got)
		}
		at := leader.ledger.raft.GetConfiguration().Index()
		w.pass(20 * time.Minute)
		if got := leader.ledger.raft.GetConfiguration().Index(); got != at {
			t.Errorf("the voters have changed again: %s", votersOf(leader))
		}
		if now := w.leader(); now != leader || now.ledger.Term() != term {
			t.Errorf("%s leads in term %d; it was %s in term %d", now.name, now.ledger.Term(), leader.name, term)
		}
		for _, n := range []*testNode{a, b, c} { // a whole region, of which there were three voters once
			n.kill()
		}
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTimeoutsFollowTheRoundTrip: they grow and shrink with it, within bounds, and are the usual ones where not all is known.
func TestTimeoutsFollowTheRoundTrip(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		for _, c := range []struct {
			rtt   time.Duration
			every bool
			want  time.Duration
		}{
			{80 * time.Millisecond, false, 1500 * time.Millisecond}, {600 * time.Millisecond, false, 3 * time.Second}, {650 * time.Millisecond, false, 3 * time.Second},
			{time.Minute, true, 10 * time.Second}, {0, false, 1500 * time.Millisecond}, {0, true, time.Second}, {100 * time.Millisecond, true, time.Second},
			{240 * time.Millisecond, true, 1200 * time.Millisecond}, {250 * time.Millisecond, true, 1200 * time.Millisecond}, {250 * time.Millisecond, false, 1500 * time.Millisecond},
		} {
			a.ledger.SetRTT(c.rtt, c.every)
			if got := a.ledger.raft.ReloadableConfig(); got.HeartbeatTimeout != c.want || got.ElectionTimeout != c.want {
				t.Errorf("at %v: %v and %v, want %v", c.rtt, got.HeartbeatTimeout, got.ElectionTimeout, c.want)
			}
		}
	})
}

// TestElectionsAtAllDistances: with the timeouts that follow from the distances nobody takes a live leader for dead, and a dead one has a
// follower soon: sooner where all are near. A follower waits up to twice the timeout for the leader, and whoever stands for election while
// another one still waits stands once more, after up to as long. Two that go on standing at the same time may need some rounds more, which is rare.
func TestElectionsAtAllDistances(t *testing.T) {
	const deaths = 9
	for _, c := range []struct {
		name           string
		regions        [3]string
		farest         [3]time.Duration
		median, always time.Duration
	}{
		{"in one region", [3]string{"iad", "iad", "iad"}, [3]time.Duration{}, 4200 * time.Millisecond, 10 * time.Second},
		{"around the world", [3]string{"iad", "fra", "syd"}, [3]time.Duration{200 * time.Millisecond, 280 * time.Millisecond, 280 * time.Millisecond}, 6200 * time.Millisecond, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for range deaths {
				inWorld(t, func(t *testing.T, w *world) {
					var nodes []*testNode
					for i, region := range c.regions {
						nodes = append(nodes, w.add(string(rune('a'+i)), region))
					}
					w.form(nodes...)
					for i, n := range nodes {
						n.ledger.SetRTT(c.farest[i], true)
					}
					w.pass(time.Minute) // what was begun by the old timeouts is over
					leader := w.leader()
					term := leader.ledger.Term()
					for range 3 {
						w.pass(time.Minute)
						w.shards(1)
					}
					if got := w.leader(); got != leader || got.ledger.Term() != term {
						t.Errorf("%s leads in term %d; it was %s in term %d", got.name, got.ledger.Term(), leader.name, term)
					}
					leader.kill()
					begin := time.Now()
					w.leader(leader)
					took = append(took, time.Since(begin))
				})
			}
			slices.Sort(took)
			t.Logf("the next leader was there after %v", took)
			if took[deaths/2] > c.median || took[deaths-1] > c.always {
				t.Errorf("the next leader was there after %v, half of the times more than %v, or once more than %v", took, c.median, c.always)
			}
		})
	}
}

// TestDivergedTablesAreRefused: two nodes of one cluster whose tables have come from different commands give each other nothing, and say so.
func TestDivergedTablesAreRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, z, f := w.add("a", "iad"), w.add("z", "fra"), w.add("f", "iad")
		for _, n := range []*testNode{a, z} {
			if err := n.ledger.Bootstrap("c1"); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.ledger.Admit("c1"); err != nil {
			t.Fatal(err)
		}
		a.record("shard_1")
		for i := range 8 { // Raft's own entries come before, how many differs: the last command must not be older than all that the other side knows of
			z.record(fmt.Sprintf("other_%d", i))
		}
		if _, err := f.pull(z); err != nil {
			t.Fatal(err)
		}
		if applied, err := f.pull(z); err != nil || applied || f.ledger.Status().Diverged != "" {
			t.Fatalf("the same table again: %v, %v", applied, err)
		}
		before := f.ledger.Epoch()
		for i := 2; a.ledger.Epoch().Compare(before) <= 0; i++ {
			a.record(fmt.Sprintf("shard_%d", i))
		}
		if applied, err := f.pull(a); !errors.Is(err, ErrDiverged) || applied {
			t.Fatalf("%v, %v", applied, err)
		}
		for _, n := range []*testNode{a, f} {
			if s := n.ledger.Status(); !strings.Contains(s.Diverged, "other commands") || s.PullsDiverged != 1 {
				t.Errorf("%s says %q, %d times", n.name, s.Diverged, s.PullsDiverged)
			}
		}
		if f.ledger.Epoch() != before {
			t.Error("it has taken the table")
		}
		z.record("other_8")
		if applied, err := f.pull(z); err != nil || !applied || f.ledger.Status().Diverged != "" {
			t.Fatalf("a table that goes on from its own: %v, %v, %q", applied, err, f.ledger.Status().Diverged)
		}
	})
}

// record records a shard with a node that leads.
func (n *testNode) record(shard string) {
	n.w.t.Helper()
	if err := n.ledger.RecordShard(n.w.ctx(), shard, uint64(shard[len(shard)-1])); err != nil {
		n.w.t.Fatal(err)
	}
}
