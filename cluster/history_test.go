package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// TestNotesThatSomebodyWantsAreInTheHistory: who has a move pause, or go on, is told with the reason; what the mover notes for itself is not. A request that is repeated is known.
func TestNotesThatSomebodyWantsAreInTheHistory(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		w.shards(2)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		m, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "..0x0000000000000100", To: "shard_2"})
		if err != nil {
			t.Fatal(err)
		}
		night := Origin{Author: "ann", Reason: "paused: " + strings.Repeat("n", MaxReason), RequestID: "night"}
		if done, err := a.ledger.Noted(m.ID, night); done || err != nil {
			t.Errorf("before: %v %v", done, err)
		}
		for _, o := range []Origin{{}, night, {}} {
			if err := a.ledger.NoteMove(w.ctx(), m.ID, []byte("note of "+o.Author), false, o); err != nil {
				t.Fatal(err)
			}
		}
		if done, err := a.ledger.Noted(m.ID, night); !done || err != nil {
			t.Errorf("after: %v %v", done, err)
		}
		for name, other := range map[string]Origin{"another author": {Author: "bob", Reason: night.Reason, RequestID: "night"}, "another reason": {Author: "ann", Reason: "resumed", RequestID: "night"}} {
			if _, err := a.ledger.Noted(m.ID, other); !errors.Is(err, ErrRequestReused) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := a.ledger.Noted(m.ID+1, night); !errors.Is(err, ErrRequestReused) {
			t.Errorf("another move: %v", err)
		}
		events, err := a.ledger.History(w.ctx(), HistoryFilter{Move: m.ID})
		if err != nil || len(events) != 2 {
			t.Fatalf("%+v, %v", events, err)
		}
		if e := events[1]; e.Kind != kindMoveNote || e.Author != "ann" || e.Reason != night.Reason[:MaxReason] || e.Request != "night" || e.Keyspace != "app.orders" || e.From != "shard_1" || e.To != "shard_2" || e.Phase != rib.MovePhase(0) {
			t.Errorf("%+v", e)
		}
	})
}

// TestHistoryTellsWhoWhenAndWhy of all changes, by keyspace, range and move; also from a snapshot.
func TestHistoryTellsWhoWhenAndWhy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		w.shards(2)
		began := time.Now().Truncate(time.Millisecond)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"}, Origin: Origin{RequestID: "make"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1", "shard_2"}, Splits: []string{"1000"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.ledger.Split(w.ctx(), SplitSpec{Keyspace: "app.orders", At: []string{"500"}, Origin: Origin{Author: "ann", Reason: "hot"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.ledger.Merge(w.ctx(), MergeSpec{Keyspace: "app.orders", Range: "..1000", Origin: Origin{Author: "bob"}}); err != nil {
			t.Fatal(err)
		}
		low, high, err := a.table.Owners().Get().KeyspaceByName("app.orders").ParseInterval("2000..")
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			filter HistoryFilter
			kinds  []string
		}{
			"all":       {HistoryFilter{}, []string{kindInit2, kindShard, kindShard, kindKeyspace, kindSplit, kindMerge}},
			"keyspace":  {HistoryFilter{Keyspace: "app.orders"}, []string{kindKeyspace, kindSplit, kindMerge}},
			"range":     {HistoryFilter{Keyspace: "app.orders", Low: low, High: high}, []string{kindKeyspace}},
			"no move":   {HistoryFilter{Move: 99}, []string{}},
			"from here": {HistoryFilter{After: a.ledger.Epoch()}, []string{}},
		} {
			events, err := a.ledger.History(w.ctx(), c.filter)
			if err != nil || len(events) != len(c.kinds) {
				t.Errorf("%s: %+v, %v", name, events, err)
				continue
			}
			for i, e := range events {
				if e.Kind != c.kinds[i] || e.Kind == kindSplit && (e.Author != "ann" || e.Reason != "hot" || e.Subject != "500") || e.Kind == kindMerge && (e.Author != "bob" || e.Range != "..1000") ||
					e.Keyspace != "" && e.At.Before(began) {
					t.Errorf("%s: %+v", name, e)
				}
			}
		}
	})
}
