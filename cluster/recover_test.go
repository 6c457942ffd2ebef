package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rangefinder/rib"
)

// TestRecoverAfterTheLossOfAMajority: two of three voters are lost, with a flip that the third has never heard of. It goes on alone as a
// new generation, with what the shards say of that move. The two come back, together a majority of the old generation: they disturb
// nobody, follow, and are voters again once they have been restarted.
func TestRecoverAfterTheLossOfAMajority(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d := w.addDurable("a", "iad"), w.addDurable("b", "fra"), w.addDurable("c", "syd"), w.addDurable("d", "iad")
		w.form(a, b, c, d)
		w.shards(2)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1", "shard_2"}, Splits: []string{"1000"}}); err != nil {
			t.Fatal(err)
		}
		m, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "100-200", To: "shard_2", Origin: Origin{RequestID: "m1", Author: "ann"}})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "100-200", To: "shard_2", Origin: Origin{RequestID: "m1", Author: "ann"}}); err != nil || again.ID != m.ID {
			t.Fatalf("the same request again: %+v, %v", again, err)
		}
		if _, err := a.ledger.AdvanceMove(w.ctx(), m.ID, rib.MovePrepare, rib.MoveFrozen, []byte("lsn")); err != nil {
			t.Fatal(err)
		}
		w.until("c knows that it is frozen", func() error {
			if got := c.table.Owners().Get().Move(m.ID); got == nil || got.Phase != rib.MoveFrozen {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		if _, err := d.pull(a); err != nil {
			t.Fatal(err)
		}
		w.net.Cut("c", "a")
		w.net.Cut("c", "b")
		if _, err := a.ledger.AdvanceMove(w.ctx(), m.ID, rib.MoveFrozen, rib.MoveFlipped, nil); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*testNode{a, b, c} {
			n.stop()
		}
		w.net.HealAll()

		old, err := KnownOwnership(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		low, high := m.Low, m.High
		fence := func(shard, side, state string) Fence {
			return Fence{Shard: shard, Move: m.ID, Side: side, Keyspace: "app.orders", Low: low, High: high, From: "shard_1", To: "shard_2", State: state}
		}
		cfg := RecoverConfig{Node: "c", Addr: c.host.Addr(raftPort), Dir: c.dir, Fences: []Fence{fence("shard_1", "source", "frozen"), fence("shard_2", "target", "filled")}}
		cfg.Dry = true
		if r, err := Recover(cfg); err != nil || len(r.Handed) != 1 || r.Before.Compare(old.Epoch) < 0 || r.After.Generation != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		if now, err := KnownOwnership(c.dir); err != nil || now.Epoch != old.Epoch {
			t.Fatalf("only asked, and the table is of %v (%v)", now.Epoch, err)
		}
		cfg.Dry = false
		r, err := Recover(cfg)
		if err != nil || len(r.Handed) != 1 || !strings.Contains(r.Handed[0], "range 100..200 of keyspace app.orders belongs to shard_2") {
			t.Fatalf("%+v, %v", r, err)
		}
		c.start()
		w.until("c leads", func() error {
			if !c.ledger.IsLeader() {
				return errors.New(c.ledger.Status().Role)
			}
			return nil
		})
		o := c.table.Owners().Get()
		ks := o.KeyspaceByName("app.orders")
		if got := ks.Ranges[ks.Owner(low)]; got.Shard != "shard_2" || got.Epoch != r.After || o.Move(m.ID).Phase != rib.MoveFlipped || string(o.Move(m.ID).Note) != "lsn" {
			t.Fatalf("%+v, %+v", got, o.Moves)
		}
		// It goes on: the move ends, and another keyspace is made.
		if err := c.ledger.FinishMove(w.ctx(), m.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ledger.CreateKeyspace(w.ctx(), hashSpec("app.lines", "lines", "shard_1")); err != nil {
			t.Fatal(err)
		}
		w.until("d follows", func() error {
			_, err := d.pull(c)
			return errors.Join(err, d.knows("app.lines"))
		})
		events, err := c.ledger.History(w.ctx(), HistoryFilter{Move: m.ID})
		if err != nil || len(events) != 3 || events[0].Author != "ann" || events[0].Range != "100..200" || events[0].At.IsZero() || events[2].Kind != kindMoveFinish {
			t.Fatalf("%+v, %v", events, err)
		}

		// The dead come back. Until they hear of the new generation they are a majority of their own, and then nothing they say counts.
		a.start()
		b.start()
		w.until("they have a leader", func() error {
			if name, _ := a.ledger.Leader(); name == "" {
				return errors.New("none")
			}
			return nil
		})
		w.reconcile()
		for _, n := range []*testNode{a, b} {
			if _, err := n.pull(c); err != nil {
				t.Fatal(err)
			}
			if n.ledger.Epoch() != c.ledger.Epoch() || n.ledger.IsLeader() {
				t.Fatalf("%s is at %v and leads: %v", n.name, n.ledger.Epoch(), n.ledger.IsLeader())
			}
			var notLeader *NotLeaderError
			if _, err := n.ledger.CreateKeyspace(w.ctx(), hashSpec("app.x", "x", "shard_1")); !errors.As(err, &notLeader) {
				t.Fatalf("%s has made a keyspace: %v", n.name, err)
			}
		}
		if !c.ledger.IsLeader() || c.ledger.Epoch().Generation != 2 {
			t.Fatalf("c: %+v", c.ledger.Status())
		}
		for _, n := range []*testNode{a, b} {
			n.stop()
			n.start()
		}
		w.until("they are voters again", func() error {
			w.reconcile()
			for _, n := range []*testNode{a, b, c, d} {
				if _, err := n.pull(c); err != nil {
					return err
				}
			}
			if n := len(c.ledger.Voters()); n != 3 {
				return fmt.Errorf("%d voters", n)
			}
			return nil
		})
		if _, err := w.leader().ledger.Split(w.ctx(), SplitSpec{Keyspace: "app.orders", At: []string{"150"}}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRecoverAFollower: also a node that was no voter can go on.
func TestRecoverAFollower(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, d := w.addDurable("a", "iad"), w.addDurable("d", "fra")
		if err := a.ledger.Bootstrap("c1"); err != nil {
			t.Fatal(err)
		}
		if err := d.ledger.Admit("c1"); err != nil {
			t.Fatal(err)
		}
		w.shards(1)
		if _, err := d.pull(a); err != nil {
			t.Fatal(err)
		}
		a.kill()
		d.stop()
		if r, err := Recover(RecoverConfig{Node: "d", Addr: d.host.Addr(raftPort), Dir: d.dir}); err != nil || r.After.Generation != 2 || len(r.Handed) != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		d.start()
		w.until("d leads", func() error {
			if !d.ledger.IsLeader() {
				return errors.New(d.ledger.Status().Role)
			}
			return nil
		})
		ks, err := d.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1"))
		if err != nil || ks.Ranges[0].Epoch.Generation != 2 {
			t.Fatalf("%+v, %v", ks, err)
		}
	})
}
