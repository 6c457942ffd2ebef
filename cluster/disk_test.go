package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// TestDurableLedger: with the stores of production, a ledger survives restarts of all its nodes, with and without snapshots, and a
// request that was answered before is still known after.
func TestDurableLedger(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.addDurable("a", "iad"), w.addDurable("b", "fra"), w.addDurable("c", "syd")
		w.form(a, b, c)
		w.shards(2)
		first := hashSpec("app.orders", "orders", "shard_1", "shard_2")
		first.RequestID = "r1"
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), first); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			w.until(n.name+" has a snapshot", func() error { return n.ledger.raft.Snapshot().Error() }) // once it has applied what it has
		}
		second, err := w.leader().ledger.CreateKeyspace(w.ctx(), hashSpec("app.lines", "lines", "shard_2"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			n.kill()
		}
		// The tables kept on disk are gone on one: Raft alone brings all of it back.
		if err := os.Remove(filepath.Join(b.dir, tableFile)); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			n.start()
		}
		if err := errors.Join(a.knows("app.orders"), a.knows("app.lines")); err != nil {
			t.Error("before there is a leader:", err)
		}
		w.reconcile()
		leader := w.leader()
		w.until("everything is back everywhere", func() error {
			for _, n := range w.nodes {
				if err := errors.Join(n.knows("app.orders"), n.knows("app.lines")); err != nil {
					return err
				}
				if n.ledger.Epoch() != second.Ranges[0].Epoch {
					return errors.New("another epoch")
				}
			}
			return nil
		})
		again, err := leader.ledger.CreateKeyspace(w.ctx(), first)
		if err != nil || again.ID != 1 {
			t.Errorf("the repeated request: %v, %v", again, err)
		}
		third, err := leader.ledger.CreateKeyspace(w.ctx(), hashSpec("app.third", "third", "shard_2"))
		if err != nil || third.ID != 3 {
			t.Errorf("the next id: %+v, %v", third, err)
		}
	})
}

// TestLateVoterGetsASnapshot: a node that joins when the log has been cut gets the state by Raft's snapshot.
func TestLateVoterGetsASnapshot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.addDurable("a", "iad")
		w.form(a)
		w.shards(3)
		if err := a.ledger.raft.ReloadConfig(func() (c raft.ReloadableConfig) {
			c = a.ledger.raft.ReloadableConfig()
			c.TrailingLogs = 0
			return c
		}()); err != nil {
			t.Fatal(err)
		}
		if err := a.ledger.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		b := w.addDurable("b", "fra")
		w.reconcile()
		w.until("it has the table", func() error {
			if b.ledger.Epoch() != a.ledger.Epoch() || b.ledger.Status().Role != "voter" || len(b.table.Owners().Get().Shards) != 3 {
				return errors.New(b.ledger.Status().Role)
			}
			return nil
		})
		w.until("it keeps which cluster it belongs to", func() error {
			if m, err := readMembership(b.dir); err != nil || m != (membership{ClusterID: "c1"}) {
				return errors.Join(err, errors.New(m.ClusterID))
			}
			return nil
		})
	})
}

// TestDamagedFiles: a damaged table is told and done without; a damaged membership stops the node, for it might make a second cluster.
func TestDamagedFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.addDurable("a", "iad")
		w.form(a)
		w.shards(1)
		epoch := a.ledger.Epoch()
		a.stop()
		path := filepath.Join(a.dir, tableFile)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a.start()
		w.until("the log brings it back", func() error {
			if a.ledger.Epoch() != epoch {
				return errors.New("not yet")
			}
			return nil
		})
		a.stop()
		if after, err := os.ReadFile(path); err != nil || bytes.Equal(after, b) {
			t.Error("the damaged table was not replaced", err)
		}

		open := func() error {
			table := rib.NewTable(a.member())
			listener, err := a.host.Listen(raftPort)
			if err != nil {
				t.Fatal(err)
			}
			l, err := New(Config{Node: "a", Addr: "x:1", Dir: a.dir, Stream: memnetLayer{listener, a.host}, Owners: table.Owners()})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if !l.HasState() {
				t.Error("a closed ledger denies its state")
			}
			return l.Open()
		}
		if err := os.WriteFile(filepath.Join(a.dir, clusterFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := open(); err == nil || !strings.Contains(err.Error(), clusterFile) {
			t.Errorf("damaged membership: %v", err)
		}
		if err := writeMembership(a.dir, membership{ClusterID: "c2"}); err != nil {
			t.Fatal(err)
		}
		if err := open(); !errors.Is(err, ErrOtherCluster) {
			t.Errorf("files of two clusters: %v", err)
		}
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	for _, c := range []Config{{}, {Node: "a"}, {Node: "a", Addr: "x"}, {Node: "a", Addr: "x", Dir: "d"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
}
