package cluster

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

func TestThreeVotersAndAFollower(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad")
		start := time.Now()
		if err := a.ledger.Bootstrap("c1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the first node led after %v: it has nobody to wait for", took)
		}
		w.form2(a, b, c, d)
		w.shards(3)

		ks, err := w.leader().ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2", "shard_3"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.knows("app.orders"); err != nil {
			t.Error("the leader answered before it served:", err)
		}
		w.until("every voter knows it", func() error { return errors.Join(b.knows("app.orders"), c.knows("app.orders")) })
		for _, n := range []*testNode{b, c} {
			if got := n.ledger.Epoch(); got != ks.Ranges[0].Epoch {
				t.Errorf("%s is at %v, the keyspace at %v", n.name, got, ks.Ranges[0].Epoch)
			}
		}

		// The fourth follows by pulls, from a voter that is not the leader, and learns who leads.
		if s := d.ledger.Status(); s.Role != "follows" || len(s.Voters) != 0 {
			t.Errorf("the fourth: %+v", s)
		}
		if err := d.knows("app.orders"); err == nil {
			t.Error("the fourth knows it before it pulled")
		}
		if applied, err := d.pull(b); err != nil || !applied {
			t.Fatal(applied, err)
		}
		if err := d.knows("app.orders"); err != nil {
			t.Error(err)
		}
		if name, addr := d.ledger.Leader(); name != "a" || addr != a.host.Addr(raftPort) {
			t.Errorf("the fourth believes in %q at %q", name, addr)
		}
		if applied, err := d.pull(b); err != nil || applied {
			t.Errorf("a second pull: %v, %v", applied, err)
		}
		var notLeader *NotLeaderError
		if _, err := d.ledger.CreateKeyspace(w.ctx(), hashSpec("x", "x", "shard_1")); !errors.As(err, &notLeader) || notLeader.Leader != "a" {
			t.Errorf("create on a follower: %v", err)
		}
		if _, err := b.ledger.CreateKeyspace(w.ctx(), hashSpec("x", "x", "shard_1")); !errors.As(err, &notLeader) || notLeader.Leader != "a" || notLeader.Addr != a.host.Addr(raftPort) {
			t.Errorf("create on a voter: %v", err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if !slices.Equal(d.epochs, []rib.Epoch{ks.Ranges[0].Epoch}) {
			t.Errorf("the follower was told of %v", d.epochs)
		}
	})
}

// form2 is form after Bootstrap.
func (w *world) form2(nodes ...*testNode) {
	w.t.Helper()
	for _, n := range nodes[1:] {
		if err := n.ledger.Admit("c1"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.reconcile()
	if got := len(nodes[0].ledger.Status().Voters); got != 3 {
		w.t.Fatalf("%d voters after one Reconcile", got)
	}
}

func TestLeaderDiesAndTheNextOneCreates(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(2)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Fatal(err)
		}
		a.kill()
		died := time.Now()
		next := w.leader()
		t.Logf("a new leader after %v", time.Since(died))
		ks, err := next.ledger.CreateKeyspace(w.ctx(), hashSpec("app.lines", "lines", "shard_1", "shard_2"))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(died); took > 20*time.Second {
			t.Errorf("creating again took %v", took)
		}
		if ks.ID != 2 {
			t.Errorf("id %d", ks.ID)
		}
		// The dead one comes back and catches up.
		a.start()
		w.reconcile()
		w.until("the old leader catches up", func() error { return errors.Join(a.knows("app.orders"), a.knows("app.lines")) })
	})
}

// A leader that died a moment after a command leaves the next one with a table that lacks it: that one leads, and LeadsIn does not say so
// before it has applied it.
func TestLeadsInWithAllThatWasCommitted(t *testing.T) {
	behind := 0
	for range 200 { // followers often hear of a commit before the leader is gone
		if behind += leadsInAfterAKill(t); behind > 0 || t.Failed() {
			return
		}
	}
	t.Error("no leader was ever behind: this shows nothing")
}

// leadsInAfterAKill kills a leader right after a commit, and tells how often its heir was seen to lead without what was committed.
func leadsInAfterAKill(t *testing.T) (behind int) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(2)
		ks, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2"))
		if err != nil {
			t.Fatal(err)
		}
		if term, ok := a.ledger.LeadsIn(); !ok || term != a.ledger.Term() {
			t.Errorf("a leads: %d, %v", term, ok)
		}
		committed := ks.Ranges[0].Epoch
		a.kill()
		for over := false; !over; <-time.After(time.Millisecond) {
			for _, n := range []*testNode{b, c} {
				leads, newest := n.ledger.IsLeader(), n.ledger.Epoch().Compare(committed) >= 0
				_, ok := n.ledger.LeadsIn()
				if ok && !newest {
					t.Fatalf("%s says that it has all, and is at %v", n.name, n.ledger.Epoch())
				}
				if leads && !newest {
					behind++
				}
				over = over || ok
			}
		}
	})
	return behind
}

// A leader that is asked to lets another voter lead, and what is agreed goes on there. Who does not lead has nothing to give.
func TestLeaderStepsAside(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		if err := a.ledger.StepAside(w.ctx(), Voter{Name: "nobody"}); err != nil {
			t.Errorf("before there is a leader: %v", err)
		}
		w.form(a, b, c)
		w.shards(2)
		if err := a.ledger.StepAside(w.ctx(), Voter{Name: "nobody"}); err == nil {
			t.Error("a leader has stepped aside for nobody")
		}
		if err := b.ledger.StepAside(w.ctx(), Voter{Name: "a"}); err != nil {
			t.Errorf("one that does not lead: %v", err)
		}
		if !a.ledger.IsLeader() {
			t.Fatal("a does not lead")
		}
		if err := a.ledger.StepAside(w.ctx(), Voter{Name: "c"}); err != nil {
			t.Fatal(err)
		}
		w.until("c leads", func() error {
			if !c.ledger.IsLeader() || a.ledger.IsLeader() {
				return errors.New("not yet")
			}
			return nil
		})
		if _, err := c.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Errorf("the new leader: %v", err)
		}
	})
}

func TestMinorityCannotCommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(1)
		w.net.Isolate("a")
		before := a.ledger.Epoch()
		start := time.Now()
		spec := hashSpec("app.lost", "lost", "shard_1")
		spec.RequestID = "once"
		_, err := a.ledger.CreateKeyspace(w.ctx(), spec)
		var unknown *OutcomeUnknownError
		if !errors.As(err, &unknown) || unknown.RequestID != "once" || !strings.Contains(err.Error(), "list the keyspaces") {
			t.Fatalf("the minority answered %v", err)
		}
		if took := time.Since(start); took > 11*time.Second {
			t.Errorf("it took %v to say so", took)
		}
		if a.ledger.Epoch() != before {
			t.Error("the minority's table changed")
		}
		next := w.leader(a)
		if _, err := next.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		var notLeader *NotLeaderError
		w.until("the cut off leader steps down", func() error {
			if _, err := a.ledger.CreateKeyspace(w.ctx(), spec); !errors.As(err, &notLeader) {
				return errors.New("it still leads")
			}
			return nil
		})
		w.net.Rejoin("a")
		w.until("it follows the majority", func() error { return a.knows("app.orders") })
		// The lost command is gone with its term, and repeating it is safe.
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), spec); err != nil {
			t.Fatal(err)
		}
		w.until("all know both", func() error {
			return errors.Join(a.knows("app.lost"), b.knows("app.lost"), c.knows("app.lost"), c.knows("app.orders"))
		})
		if got := len(c.table.Owners().Get().Keyspaces); got != 2 {
			t.Errorf("%d keyspaces", got)
		}
	})
}

func TestOfTwoCreatesOneWins(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(1)
		errs := make(chan error, 2)
		for _, name := range []string{"first", "second"} {
			go func() {
				_, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec(name, "orders", "shard_1"))
				errs <- err
			}()
		}
		x, y := <-errs, <-errs
		if x != nil {
			x, y = y, x
		}
		if x != nil || !errors.Is(y, ErrTableTaken) {
			t.Errorf("%v and %v", x, y)
		}
		w.until("all have one", func() error {
			for _, n := range w.nodes {
				if len(n.table.Owners().Get().Keyspaces) != 1 {
					return errors.New(n.name)
				}
			}
			return nil
		})
	})
}

// TestAloneAfterRestart: voter and follower, started with everybody else gone, serve what they last knew, at once.
func TestAloneAfterRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad")
		w.form(a, b, c, d)
		w.shards(1)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		w.until("b follows", func() error { return b.knows("app.orders") })
		if _, err := d.pull(a); err != nil {
			t.Fatal(err)
		}
		epoch := a.ledger.Epoch()
		for _, n := range w.nodes {
			n.kill()
		}
		for _, n := range []*testNode{b, d} {
			n.start()
			if err := n.knows("app.orders"); err != nil {
				t.Error("after a start alone:", err)
			}
			if n.ledger.Epoch() != epoch || !n.ledger.HasState() || n.ledger.ClusterID() != "c1" {
				t.Errorf("%s: epoch %v, cluster %q", n.name, n.ledger.Epoch(), n.ledger.ClusterID())
			}
			if err := n.ledger.Bootstrap("c2"); !errors.Is(err, ErrHasState) {
				t.Errorf("%s bootstrapped a second cluster: %v", n.name, err)
			}
			if err := n.ledger.Admit("c2"); !errors.Is(err, ErrOtherCluster) {
				t.Errorf("%s changed its cluster: %v", n.name, err)
			}
		}
		var notLeader *NotLeaderError
		if _, err := b.ledger.CreateKeyspace(w.ctx(), hashSpec("x", "x", "shard_1")); !errors.As(err, &notLeader) {
			t.Errorf("one of three voters took a command: %v", err)
		}
		// With a second voter there is a majority again.
		c.start()
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), hashSpec("app.lines", "lines", "shard_1")); err != nil {
			t.Error(err)
		}
	})
}

// TestVotersMoveAddresses: all come back elsewhere at once; gossip knows where, and they find each other.
func TestVotersMoveAddresses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(1)
		for _, n := range w.nodes {
			n.stop()
		}
		for _, n := range w.nodes {
			n.host = w.net.Host(n.name+" elsewhere", n.region)
			n.start()
		}
		w.reconcile()
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Error(err)
		}
		// Once more, before gossip has said anything: each still knows where the others were last.
		for _, n := range w.nodes {
			n.stop()
		}
		for _, n := range w.nodes {
			n.start()
		}
		leader := w.leader()
		if _, err := leader.ledger.CreateKeyspace(w.ctx(), hashSpec("app.lines", "lines", "shard_1")); err != nil {
			t.Error(err)
		}
	})
}

// TestUnreachableNodeIsNoVoter: a member that gossip sees and Raft cannot reach must not cost the ledger its majority.
func TestUnreachableNodeIsNoVoter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "iad")
		if err := a.ledger.Bootstrap("c1"); err != nil {
			t.Fatal(err)
		}
		w.net.Cut("a", "b")
		start := time.Now()
		a.ledger.Reconcile([]rib.Member{a.member(), b.member(), c.member()}, nil)
		if took := time.Since(start); took > reconcileTime {
			t.Errorf("Reconcile took %v", took)
		}
		s := a.ledger.Status()
		if s.Role != "leader" || len(s.Voters) != 2 || s.Voters[1].Name != "c" { // b was to be first, for its region
			t.Errorf("%+v", s)
		}
		w.shards(1) // still works
		w.net.HealAll()
		w.until("it is a voter when it can be reached", func() error {
			w.reconcile()
			if s := b.ledger.Status(); s.Role != "voter" {
				return errors.New(s.Role)
			}
			return nil
		})
	})
}

// TestInterruptedBootstrap: the node died somewhere on the way; the next start goes on with the same cluster. Once it is made, a node that
// loses Raft's files does not make it again.
func TestInterruptedBootstrap(t *testing.T) {
	for name, reached := range map[string]func(t *testing.T, a *testNode){
		"before Raft's bootstrap": func(*testing.T, *testNode) {},
		"before the first command": func(t *testing.T, a *testNode) {
			servers := []raft.Server{{ID: "a", Address: raft.ServerAddress(a.host.Addr(raftPort))}}
			if err := raft.BootstrapCluster(a.ledger.raftConfig(), a.disk.Log, a.disk.Stable, a.disk.Snapshots, a.ledger.transport,
				raft.Configuration{Servers: servers}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.add("a", "iad")
				reached(t, a)
				a.stop()
				if err := writeMembership(a.dir, membership{ClusterID: "c1", Making: true}); err != nil {
					t.Fatal(err)
				}
				a.start()
				if !a.ledger.HasState() {
					t.Error("a cluster half made is no state")
				}
				w.until("the cluster has its id, and is not made any more", func() error {
					m, err := readMembership(a.dir)
					if got := a.table.Owners().Get().ClusterID; got != "c1" || m.Making {
						return errors.Join(err, errors.New(got))
					}
					return nil
				})
				a.stop()
				log := raft.NewInmemStore()
				a.disk.Log, a.disk.Stable = log, log
				a.start()
				<-time.After(time.Minute)
				if s := a.ledger.Status(); s.Role != "follows" || s.Epoch.Index == 0 {
					t.Errorf("after the loss of Raft's files: %+v", s)
				}
			})
		})
	}
}

// TestStalledNodeServesOn: a command of a newer version stops a node's ledger, not the node, and is not lost in a snapshot.
func TestStalledNodeServesOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		w.shards(1)
		epoch := a.ledger.Epoch()
		if err := a.ledger.raft.Apply([]byte("\x02newer"), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		if err := a.ledger.RecordShard(w.ctx(), "shard_2", 101); err == nil || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("a stalled ledger answered %v", err)
		}
		if s := a.ledger.Status(); !strings.Contains(s.Stalled, "newer version") || a.ledger.Epoch() != epoch {
			t.Errorf("%+v", s)
		}
		if err := a.ledger.raft.Snapshot().Error(); err == nil {
			t.Error("a snapshot was taken over the command that was not applied")
		}
	})
}

// TestAFollowerLearnsOfTheNextLeader: what it heard last is worth nothing once that leader is dead, and no other follower's old
// hearsay may come before a voter's word.
func TestAFollowerLearnsOfTheNextLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(1)
		d, e := w.add("d", "iad"), w.add("e", "fra")
		for _, n := range []*testNode{d, e} {
			if err := n.ledger.Admit("c1"); err != nil {
				t.Fatal(err)
			}
		}
		w.reconcile()
		must := func(n, from *testNode) {
			if _, err := n.pull(from); err != nil {
				t.Fatal(err)
			}
		}
		must(d, a)
		must(e, d) // hearsay is better than nothing
		for _, n := range []*testNode{d, e} {
			if name, _ := n.ledger.Leader(); name != "a" || !n.ledger.Follows() || len(n.ledger.Voters()) != 3 {
				t.Errorf("%s follows %v and knows leader %q, voters %v", n.name, n.ledger.Follows(), name, n.ledger.Voters())
			}
		}
		if got := d.ledger.Status(); got.Role != "follows" || len(got.Voters) != 3 || got.Voters[0].Region == "" {
			t.Errorf("%+v", got)
		}
		a.kill()
		next := w.leader()
		other := b
		if next == b {
			other = c
		}
		w.until("the other voter follows", func() error {
			if name, _ := other.ledger.Leader(); name != next.name {
				return errors.New(name)
			}
			return nil
		})
		must(d, other)
		must(d, e) // who has the old word
		if name, addr := d.ledger.Leader(); name != next.name || addr != next.host.Addr(raftPort) {
			t.Errorf("the leader is %s, and the follower says %s at %s", next.name, name, addr)
		}
	})
}
