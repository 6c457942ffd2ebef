package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"rangefinder/rib"
)

// TestForgetNode: a node that is gone for good is waited for until an operator says so, which is refused while it has a lease. If it comes
// back, it is waited for again, and keeps its number.
func TestForgetNode(t *testing.T) {
	inTenancy(t, func(t *testing.T, w *world, list []*tenant) {
		l := w.leader().ledger
		forget := func(name string) error {
			return l.ForgetNode(w.ctx(), ForgetSpec{Node: name, Origin: Origin{Author: "ops", Reason: "burnt"}})
		}
		missing := func(e rib.Epoch, want ...string) {
			t.Helper()
			w.until(fmt.Sprintf("%q are missing", want), func() error {
				if got := l.Leases().Acknowledged(e); !slices.Equal(got, want) {
					return fmt.Errorf("%q", got)
				}
				return nil
			})
		}
		if err := forget("e"); !errors.Is(err, ErrAlive) {
			t.Errorf("while it has a lease: %v", err)
		}
		for _, name := range []string{"x", ""} {
			if err := forget(name); !errors.Is(err, ErrNoNode) {
				t.Errorf("an unknown one: %v", err)
			}
		}
		numbers := slices.Clone(l.cfg.Owners.Get().Nodes)
		w.net.Isolate("e")
		if _, err := l.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1", "shard_2")); err != nil {
			t.Fatal(err)
		}
		e := l.Epoch()
		missing(e, "e")
		w.until("its lease ends", func() error { return forget("e") })
		missing(e)
		if !l.cfg.Owners.Get().Forgot("e") || l.cfg.Owners.Get().Forgot("d") {
			t.Error("the table does not say so")
		}
		if err := forget("e"); err != nil {
			t.Errorf("again: %v", err)
		}
		past, err := l.History(context.Background(), HistoryFilter{})
		if last := past[len(past)-1]; err != nil || last.Kind != kindForget || last.Subject != "e" || last.Author != "ops" || last.Reason != "burnt" {
			t.Errorf("the history ends with %+v, %v", last, err)
		}

		// It is heard of again, with an old table: it is waited for before anybody has noticed that it is back.
		l.leases.answer(&leaseQuestion{Node: "e", Boot: 7, ClusterID: "c1", Applied: rib.Epoch{Generation: 1, Index: 1}})
		missing(e, "e")
		if l.Leases().Leased("e") {
			t.Error("it has a lease with an old table")
		}
		w.net.Rejoin("e")
		w.allHeld(list)
		missing(e)
		if err := l.NumberNode(w.ctx(), "e"); err != nil {
			t.Fatal(err)
		}
		if o := l.cfg.Owners.Get(); o.Forgot("e") || !slices.Equal(o.Nodes, numbers) {
			t.Errorf("it is back: %v of %v", o.Forgotten, o.Nodes)
		}
		w.net.Isolate("e")
		missing(rib.Epoch{Generation: 9}, "a", "b", "c", "d", "e")
	})
}

// TestForgottenEncoding: what is written is read, and nothing else is taken.
func TestForgottenEncoding(t *testing.T) {
	o := &rib.Ownership{ClusterID: "c", Nodes: []string{"a", "b", "c"}, Forgotten: []int{0, 2}}
	b, err := EncodeOwnership(nil, o)
	if err != nil || string(b[:4]) != magicForgotten {
		t.Fatalf("%.4s %v", b, err)
	}
	back, err := DecodeOwnership(b)
	if err != nil || !slices.Equal(back.Forgotten, o.Forgotten) || !slices.Equal(back.Nodes, o.Nodes) {
		t.Errorf("%+v %v", back, err)
	}
	for _, wrong := range [][]int{{3}, {1, 1}, {2, 0}} {
		o.Forgotten = wrong
		if b, err = EncodeOwnership(nil, o); err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeOwnership(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}
