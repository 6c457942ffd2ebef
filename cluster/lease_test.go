package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

const leasePort = 7948

// tenant is a node that asks for leases, and what it says of itself.
type tenant struct {
	*testNode
	lessee *Lessee
	leases *memnet.Listener
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	drained []uint64
	aware   []uint64
	behind  rib.Epoch // the table by which it routes is older than the ledger's: this one; zero: it is not
}

// tenants has nodes ask for leases and answer such questions. They pull what they miss from the leader.
func (w *world) tenants(nodes ...*testNode) (list []*tenant) {
	for _, n := range nodes {
		t := &tenant{testNode: n}
		t.begin()
		list = append(list, t)
	}
	return list
}

func (t *tenant) begin() {
	ctx, cancel := context.WithCancel(t.w.t.Context())
	t.cancel = cancel
	var err error
	if t.leases, err = t.host.Listen(leasePort); err != nil {
		t.w.t.Fatal(err)
	}
	ledger, leases := t.ledger, t.leases
	t.done.Go(func() {
		for {
			conn, err := leases.Accept()
			if err != nil {
				return
			}
			t.done.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				_ = ledger.ServeLeases(conn)
			})
		}
	})
	t.lessee = NewLessee(LesseeConfig{
		Ledger: ledger,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return t.host.Dial(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(leasePort)))
		},
		State: func() Acknowledgement {
			t.mu.Lock()
			defer t.mu.Unlock()
			e := ledger.Epoch()
			if t.behind != (rib.Epoch{}) {
				e = t.behind
			}
			return Acknowledgement{Applied: e, Settled: e, Drained: slices.Clone(t.drained), Aware: slices.Clone(t.aware)}
		},
		Behind: func(_, addr string, _ rib.Epoch) {
			t.done.Go(func() {
				host, _, _ := net.SplitHostPort(addr)
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				conn, err := t.host.Dial(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(pullPort)))
				if err != nil {
					return
				}
				defer conn.Close()
				if applied, _ := ledger.Pull(ctx, conn); applied {
					t.lessee.Poke()
				}
			})
		},
	})
	t.done.Go(func() { t.lessee.Run(ctx) })
}

// end stops asking and answering.
func (t *tenant) end() {
	t.cancel()
	t.leases.Close()
	t.done.Wait()
}

func (w *world) allHeld(list []*tenant) {
	w.t.Helper()
	w.until("all have leases", func() error {
		for _, t := range list {
			if !t.lessee.Held() {
				_, why, _ := t.lessee.Status()
				return fmt.Errorf("%s has none: %s", t.name, why)
			}
		}
		return nil
	})
}

// inTenancy runs a test on five nodes with leases; the first is the leader.
func inTenancy(t *testing.T, test func(t *testing.T, w *world, list []*tenant)) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		nodes := []*testNode{a, w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad"), w.add("e", "fra")}
		w.form(nodes...)
		w.shards(2)
		for _, n := range nodes {
			if err := w.leader().ledger.NumberNode(w.ctx(), n.name); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range nodes[3:] {
			if _, err := n.pull(w.leader()); err != nil {
				t.Fatal(err)
			}
		}
		list := w.tenants(nodes...)
		defer func() {
			for _, n := range list {
				n.end()
			}
		}()
		w.allHeld(list)
		test(t, w, list)
	})
}

// TestLeasesAreKept: as long as nothing fails nobody is ever without a lease, and at a loss that streams make up for neither.
func TestLeasesAreKept(t *testing.T) {
	for _, loss := range []float64{0, 0.05} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
				for _, pair := range [][2]string{{"iad", "iad"}, {"iad", "fra"}, {"iad", "syd"}, {"fra", "syd"}} {
					w.net.SetLoss(pair[0], pair[1], loss)
				}
				without, looks := 0, 0
				for range 600 {
					<-time.After(50 * time.Millisecond)
					for _, n := range list {
						looks++
						if !n.lessee.Held() {
							without++
						}
					}
				}
				if loss == 0 && without > 0 || without*20 > looks {
					t.Errorf("without a lease at %d of %d looks", without, looks)
				}
			})
		})
	}
}

// TestLeaseEndsWithContact: a node that is cut off has no lease two seconds later, and the leader does not believe so earlier. Lessees that
// are cut off with a leader, who has lost the majority, have none either.
func TestLeaseEndsWithContact(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		leader := w.leader()
		of := func(name string) time.Duration {
			for _, s := range leader.ledger.Leases().List() {
				if s.Node == name {
					return s.Left
				}
			}
			return 0
		}
		e := list[4]
		w.net.Isolate(e.name)
		began := time.Now()
		for e.lessee.Held() {
			if of(e.name) == 0 {
				t.Fatal("the leader believes that the lease is over, and the node does not")
			}
			<-time.After(5 * time.Millisecond)
		}
		if took := time.Since(began); took > LeaseTerm {
			t.Errorf("the lease outlived the last contact by %v", took)
		}
		w.until("the leader sees the end", func() error {
			if left := of(e.name); left > 0 {
				return fmt.Errorf("%v left", left)
			}
			return nil
		})
		w.net.Rejoin(e.name)
		w.allHeld(list)

		// The leader and d on one side, b, c and e on the other.
		for _, x := range []string{"a", "d"} {
			for _, y := range []string{"b", "c", "e"} {
				w.net.Cut(x, y)
			}
		}
		w.until("the majority has another leader, who gives leases", func() error {
			if !list[1].lessee.Held() || !list[2].lessee.Held() || list[1].ledger.IsLeader() == list[2].ledger.IsLeader() {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		if list[0].lessee.Held() || list[3].lessee.Held() {
			t.Error("two leaders' leases at one time")
		}
		w.net.HealAll()
		w.allHeld(list)
	})
}

// TestLeaseWithoutWordOfVoters: a node that is no voter gets a lease although its table, which nothing changes, has told it of no voter since its start, or of
// a leader that has died since.
func TestLeaseWithoutWordOfVoters(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		e := list[4]
		e.end()
		e.stop()
		e.start()
		if e.ledger.Epoch() != w.leader().ledger.Epoch() || len(e.ledger.Voters()) > 0 {
			t.Fatalf("it is at %v and knows %v", e.ledger.Epoch(), e.ledger.Voters())
		}
		w.reconcile()
		e.begin()
		w.allHeld(list)

		old := list[0]
		old.end()
		old.kill()
		w.until("there is another leader, and leases", func() error {
			if !list[1].ledger.IsLeader() && !list[2].ledger.IsLeader() {
				return fmt.Errorf("there is no leader")
			}
			return nil
		})
		w.allHeld(list[1:])
		<-time.After(2 * LeaseTerm)
		w.allHeld(list[1:])
		old.start()
		old.begin()
		w.reconcile()
		w.allHeld(list)
	})
}

// TestLeasesRefuse: strangers, malformed questions, and nodes whose table is too old get none.
func TestLeasesRefuse(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		l := w.leader().ledger
		now := l.Epoch()
		for what, q := range map[string]leaseQuestion{
			"no name":         {ClusterID: "c1", Applied: now},
			"another cluster": {Node: "x", ClusterID: "c2", Applied: now},
			"no cluster":      {Node: "x", Applied: now},
			"many moves":      {Node: "x", ClusterID: "c1", Applied: now, Drained: make([]uint64, rib.MaxMoves+1)},
			"of many moves":   {Node: "x", ClusterID: "c1", Applied: now, Aware: make([]uint64, rib.MaxMoves+1)},
		} {
			if a := l.leases.answer(&q); a.Granted || a.Why == "" {
				t.Errorf("%s: %+v", what, a)
			}
		}
		if a := list[1].ledger.leases.answer(&leaseQuestion{Node: "x", ClusterID: "c1", Applied: now}); a.Granted || a.Leader != "a" {
			t.Errorf("of a node that does not lead: %+v", a)
		}
		if _, err := l.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Fatal(err)
		}
		if a := l.leases.answer(&leaseQuestion{Node: "x", ClusterID: "c1", Applied: now}); a.Granted || a.Epoch != l.Epoch() {
			t.Errorf("with an old table: %+v", a)
		}
		if a := l.leases.answer(&leaseQuestion{Node: "x", ClusterID: "c1", Applied: l.Epoch()}); !a.Granted {
			t.Errorf("with the newest table: %+v", a)
		}
	})
}

// TestAcknowledgedIsOnDisk: a node whose disk takes nothing may forget in a crash what it knows now, so it has not acknowledged it.
func TestAcknowledgedIsOnDisk(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		l := w.leader().ledger
		full := filepath.Join(list[4].dir, tableFile+".new") // a folder stands where the file is to be
		if err := os.Mkdir(full, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := l.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Fatal(err)
		}
		now := l.Epoch()
		w.until("all but one have acknowledged", func() error {
			if missing := l.Leases().Acknowledged(now); !slices.Equal(missing, []string{"e"}) {
				return fmt.Errorf("%q", missing)
			}
			return nil
		})
		w.allHeld(list)
		for range 200 {
			<-time.After(50 * time.Millisecond)
			if len(l.Leases().Acknowledged(now)) == 0 {
				t.Fatal("acknowledged, and not on disk")
			}
		}
		w.allHeld(list) // it has a lease all the same
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		w.until("it has, too", func() error {
			if missing := l.Leases().Acknowledged(now); len(missing) > 0 {
				return fmt.Errorf("%q", missing)
			}
			return nil
		})
	})
}

// drain has the tenant say from now on for which moves it is drained.
func (t *tenant) drain(moves ...uint64) {
	t.mu.Lock()
	t.drained = moves
	t.mu.Unlock()
	t.lessee.Poke()
}

// knows has the tenant say from now on with which moves all is routed that is at work there.
func (t *tenant) knows(moves ...uint64) {
	t.mu.Lock()
	t.aware = moves
	t.mu.Unlock()
	t.lessee.Poke()
}

// TestDrained: a move is drained when every node with a lease has said so, or has no lease any more; who has lost it gets none before it has
// drained; and another leader waits until the leases of this one are over.
func TestDrained(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		l := w.leader().ledger
		_, err := l.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1", "shard_2"}, Splits: []string{"1000"}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := l.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "10..20", To: "shard_2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			n.knows(m.ID)
		}
		w.allHeld(list)
		leases := l.Leases()
		if leases.Drained(m.ID) {
			t.Error("drained before it is frozen")
		}
		if m, err = l.AdvanceMove(w.ctx(), m.ID, rib.MovePrepare, rib.MoveFrozen, nil); err != nil {
			t.Fatal(err)
		}
		for _, n := range list[:4] {
			n.drain(m.ID)
		}
		w.until("one is left", func() error {
			if left := leases.Undrained(m.ID); !slices.Equal(left, []string{"e"}) {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
		w.allHeld(list) // also who has not drained keeps its lease

		w.net.Isolate("e")
		w.until("it counts no more", func() error {
			if !leases.Drained(m.ID) {
				return fmt.Errorf("%q", leases.Undrained(m.ID))
			}
			return nil
		})
		if list[4].lessee.Held() {
			t.Error("drained, and a node that has not has a lease")
		}
		w.net.Rejoin("e")
		for range 100 {
			<-time.After(50 * time.Millisecond)
			if list[4].lessee.Held() {
				t.Fatal("a node that has not drained has a lease again")
			}
		}
		list[4].drain(m.ID)
		w.allHeld(list)

		began := time.Now()
		w.net.Isolate("a")
		other := w.leader(list[0].testNode).ledger.Leases()
		w.until("another leader says so too", func() error {
			if !other.Drained(m.ID) {
				return fmt.Errorf("%q", other.Undrained(m.ID))
			}
			return nil
		})
		if took := time.Since(began); took < LeaseTerm {
			t.Errorf("after %v", took)
		}
		w.net.Rejoin("a")

		flipped, err := w.leader(list[0].testNode).ledger.AdvanceMove(w.ctx(), m.ID, rib.MoveFrozen, rib.MoveFlipped, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.until("all have acknowledged", func() error {
			if missing := w.leader().ledger.Leases().Acknowledged(flipped.Epoch); len(missing) > 0 {
				return fmt.Errorf("%q", missing)
			}
			return nil
		})
		w.net.Isolate("d")
		if missing := list[1].ledger.Leases().Acknowledged(rib.Epoch{Generation: 9}); len(missing) != 5 {
			t.Errorf("of an epoch that is to come: %q", missing)
		}
	})
}

// TestUnaware: nobody with a lease is left out of who has to know of a move before it copies; who has none is not waited for; and another leader
// waits until the leases of this one are over.
func TestUnaware(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		l := w.leader().ledger
		if _, err := l.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Fatal(err)
		}
		if waiting := l.Leases().Unaware(1); len(waiting) == 0 {
			t.Error("of a move that there is not")
		}
		m, err := l.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "0x0000000000000000..0x0000000000000020", To: "shard_2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list[:3] {
			n.knows(m.ID)
		}
		w.allHeld(list)
		w.until("two are left", func() error {
			if waiting := l.Leases().Unaware(m.ID); !slices.Equal(waiting, []string{"d", "e"}) {
				return fmt.Errorf("%q", waiting)
			}
			return nil
		})
		if waiting := list[1].ledger.Leases().Unaware(m.ID); len(waiting) == 0 {
			t.Error("on a node that does not lead")
		}
		list[3].knows(m.ID)
		w.net.Isolate("e")
		began := time.Now()
		w.until("one has no lease any more", func() error {
			if waiting := l.Leases().Unaware(m.ID); len(waiting) > 0 {
				return fmt.Errorf("%q", waiting)
			}
			return nil
		})
		if list[4].lessee.Held() {
			t.Errorf("after %v, and it has its lease still", time.Since(began))
		}
		w.net.Rejoin("e")
		for range 100 {
			<-time.After(50 * time.Millisecond)
			if list[4].lessee.Held() {
				t.Fatal("a node with something at work that was routed without the move has a lease again")
			}
		}
		list[4].knows(m.ID)
		w.allHeld(list)
	})
}
