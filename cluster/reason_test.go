package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rangefinder/rib"
)

// TestLongReasonsAreCut: a move is aborted, and a range kept, however much there is to say about why: it is told in part.
func TestLongReasonsAreCut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		w.shards(2)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		why := strings.Repeat("x", MaxReason-1) + "äöü: the table is not there"
		begin := func(r string, until time.Time) rib.Move {
			t.Helper()
			m, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: r, To: "shard_2", Until: until})
			if err == nil {
				m, err = a.ledger.AdvanceMove(w.ctx(), m.ID, rib.MovePrepare, rib.MoveFrozen, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		m, err := a.ledger.AbortMove(w.ctx(), begin("0x0000000000000000..0x0000000000000100", time.Time{}).ID, Origin{Author: "mover", Reason: why})
		if err != nil || m.Phase != rib.MoveAborted || m.Why != why[:MaxReason-1] || !utf8.ValidString(m.Why) {
			t.Fatalf("%v, %v", m.Phase, err)
		}
		lent := begin("0x0000000000000100..0x0000000000000200", time.Now().Add(time.Second))
		if _, err := a.ledger.AdvanceMove(w.ctx(), lent.ID, rib.MoveFrozen, rib.MoveFlipped, nil); err != nil {
			t.Fatal(err)
		}
		if err := a.ledger.FinishMove(w.ctx(), lent.ID); err != nil {
			t.Fatal(err)
		}
		w.until("the loan is due", func() error {
			due, err := a.ledger.DueLoans(w.ctx())
			if err == nil && len(due) == 0 {
				err = errors.New("not yet")
			}
			return err
		})
		if l, err := a.ledger.KeepLoan(w.ctx(), lent.ID, why); err != nil || l.Why != why[:MaxReason-1] {
			t.Fatalf("%+v, %v", l, err)
		}
	})
}
