package cluster

import (
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

// TestRecoverEndsMovesThatOnlyShardsKnow: a move of which the node has never heard is handed in as aborted when it cannot have flipped, for
// its fence and its slots are on the shards. Where it may have, nothing is given back.
func TestRecoverEndsMovesThatOnlyShardsKnow(t *testing.T) {
	at := func(first byte) rib.Key { return rib.Key{first, 0, 0, 0, 0, 0, 0, 0} }
	low, high := at(0x10), at(0x20)
	source := func(state string) Fence {
		return Fence{Shard: "shard_1", Move: 20, Side: "source", Keyspace: "app.orders", Low: low, High: high, From: "shard_1", To: "shard_2", State: state}
	}
	target := func(state string) Fence {
		f := source(state)
		f.Shard, f.Side = "shard_2", "target"
		return f
	}
	known := func(phase rib.MovePhase) []rib.Move {
		return []rib.Move{{ID: 20, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: phase, Note: []byte(`{"step":"fence","touched":true,"leader":7}`)}}
	}
	asked := []Place{{"shard_2", "app"}, {"shard_1", "app"}}
	stale := rib.Move{ID: 10, Keyspace: 1, Low: at(0x18), High: at(0x30), From: "shard_3", To: "shard_1", Phase: rib.MovePrepare}
	for _, c := range []struct {
		name   string
		fences []Fence
		asked  []Place
		moves  []rib.Move
		owner  string // by the table before; "": shard_1
		want   rib.MovePhase
		owns   string
		left   int // moves of before
	}{
		{name: "it copies", fences: []Fence{source("open"), target("open")}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "it was about to be aborted", fences: []Fence{source("open"), target("filled")}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "it was frozen", fences: []Fence{source("frozen"), target("open")}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "the source is clean", fences: []Fence{target("open")}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "the target is clean", fences: []Fence{source("open")}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "it may have flipped", fences: []Fence{source("frozen"), target("filled")}, want: rib.MoveFlipped, owns: "shard_2"},
		{name: "it has flipped", fences: []Fence{source("moved")}, want: rib.MoveFlipped, owns: "shard_2"},
		{name: "the target was not asked", fences: []Fence{source("frozen")}, owns: "shard_1"},
		{name: "the source was not asked", fences: []Fence{target("filled")}, owns: "shard_1"},
		{name: "it is known", fences: []Fence{source("open"), target("open")}, want: rib.MovePrepare, owns: "shard_1",
			moves: []rib.Move{{ID: 20, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare}}},
		{name: "it came after a flip that is forgotten", fences: []Fence{source("open"), target("open")}, owner: "shard_3", moves: []rib.Move{stale}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "one that is over is known yet", fences: []Fence{source("open")}, moves: []rib.Move{stale}, want: rib.MoveAborted, owns: "shard_1"},
		{name: "one elsewhere is known", fences: []Fence{source("open")}, want: rib.MoveAborted, owns: "shard_1", left: 1,
			moves: []rib.Move{{ID: 10, Keyspace: 1, Low: at(0x30), High: at(0x40), From: "shard_1", To: "shard_3", Phase: rib.MovePrepare}}},
		{name: "it was frozen here, then aborted and cleaned up", asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveAborted, owns: "shard_1"},
		{name: "it was frozen here, then aborted, and the target is not clean", fences: []Fence{target("open")}, asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveAborted, owns: "shard_1"},
		{name: "it was frozen here, then aborted when the target had all", fences: []Fence{target("filled")}, asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveAborted, owns: "shard_1"},
		{name: "it is frozen here, and its fence is open yet", fences: []Fence{source("open"), target("open")}, asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveFrozen, owns: "shard_1"},
		{name: "it is frozen here, and on the source", fences: []Fence{source("frozen")}, asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveFrozen, owns: "shard_1"},
		{name: "it was frozen here, and has flipped", fences: []Fence{source("moved")}, asked: asked, moves: known(rib.MoveFrozen), want: rib.MoveFlipped, owns: "shard_2"},
		{name: "it is frozen here, and its source was not asked", asked: asked[:1], moves: known(rib.MoveFrozen), want: rib.MoveFrozen, owns: "shard_1"},
		{name: "it is frozen here, and its source was asked in another database", asked: []Place{{"shard_1", "other"}, {"shard_2", "app"}}, moves: known(rib.MoveFrozen), want: rib.MoveFrozen, owns: "shard_1"},
		{name: "it begins here", asked: asked, moves: known(rib.MovePrepare), want: rib.MovePrepare, owns: "shard_1"},
		{name: "it has flipped here", asked: asked, moves: known(rib.MoveFlipped), want: rib.MoveFlipped, owns: "shard_1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			owner := c.owner
			if owner == "" {
				owner = "shard_1"
			}
			next := newDraft(&rib.Ownership{
				ClusterID: "c1", Epoch: rib.Epoch{Generation: 2, Index: 30}, Moves: c.moves, Shards: []rib.Shard{{Name: "shard_1"}, {Name: "shard_2"}, {Name: "shard_3"}},
				Keyspaces: []rib.Keyspace{{ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: []rib.Range{{Shard: owner}}}},
			}).next()
			f := &recovering{fences: c.fences, asked: c.asked, r: &Recovery{}}
			if err := f.settle(next); err != nil {
				t.Fatal(err)
			}
			o := next.table()
			var phase rib.MovePhase
			if m := o.Move(20); m != nil {
				phase = m.Phase
				if phase == rib.MoveAborted && (string(m.Note) != `{"touched":true}` || m.Epoch != next.Epoch || m.Why == "") {
					t.Errorf("%+v", m)
				}
			}
			ks := o.Keyspace(1)
			if aborted := phase == rib.MoveAborted; aborted && (len(f.r.Handed) != 1 || !strings.Contains(f.r.Handed[0], "stays with shard_1")) {
				t.Errorf("an operator hears of %q", f.r.Handed)
			}
			if len(c.moves) > 0 && c.moves[0].ID == 20 && phase == rib.MoveAborted && c.moves[0].Phase != rib.MoveFrozen {
				t.Error("the table that was given has changed")
			}
			if got := ks.Ranges[ks.Owner(at(0x11))].Shard; phase != c.want || got != c.owns {
				t.Errorf("it is %s, and the range %s's; handed in: %q", phase, got, f.r.Handed)
			}
			if left := len(slices.DeleteFunc(slices.Clone(o.Moves), func(m rib.Move) bool { return m.ID == 20 })); left != c.left {
				t.Errorf("%d moves of before are left", left)
			}
		})
	}
}
