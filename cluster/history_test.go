package cluster

import (
	"testing"
	"time"
)

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
