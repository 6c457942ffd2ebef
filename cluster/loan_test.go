package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"rangefinder/rib"
)

// TestLoans: a range that is lent is due when a stamp says so, never earlier, and the loan ends when the range changes hands.
func TestLoans(t *testing.T) {
	s := newStory(t)
	until := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	lend := func(interval, to string) result {
		c := &rangeCommand{Keyspace: "app.orders", To: to, Until: until}
		c.Low, c.High = s.keys("app.orders", interval)
		return s.do(&command{Kind: kindReassign, Range: c})
	}
	due := func(id uint64, stamp time.Time) result {
		return s.do(&command{Kind: kindLoanDue, Loan: &loanCommand{ID: id, Stamp: stamp}})
	}
	keep := func(id uint64, why string) result {
		return s.do(&command{Kind: kindLoanKeep, Loan: &loanCommand{ID: id, Why: why}})
	}
	s.must(lend("100..200", "shard_3"))
	first := s.st.now.table().Loans[0]
	if first.From != "shard_1" || first.To != "shard_3" || !first.Until.Equal(until) || first.ID != s.index {
		t.Fatalf("%+v", first)
	}
	s.must(lend("300..400", "shard_2"))
	second := s.st.now.table().Loans[1]

	s.refused("no loan", func() result { return due(99, until) }, ErrNoLoan, "99")
	s.refused("early", func() result { return due(first.ID, until.Add(-time.Millisecond)) }, ErrNotDue, "2030-01-01T12:00:00Z")
	s.refused("kept early", func() result { return keep(first.ID, "rows") }, ErrNotDue, "not due")
	if r := s.must(due(first.ID, until.Add(time.Hour))); !r.loan.Due {
		t.Fatalf("%+v", r.loan)
	}
	if r := s.must(due(first.ID, until)); r.changed {
		t.Fatal("due twice")
	}
	// The next leader's clock is behind, and time has passed nevertheless.
	if r := s.must(due(second.ID, until.Add(-24*time.Hour))); !r.loan.Due {
		t.Fatalf("%+v", r.loan)
	}
	s.refused("no reason", func() result { return keep(first.ID, "") }, ErrInvalid, "1 to")
	if r := s.must(keep(first.ID, "17 rows")); r.loan.Why != "17 rows" || s.st.now.table().Loan(first.ID).Why != "17 rows" {
		t.Fatalf("%+v", r.loan)
	}

	// A loan that is over, and stays as there are rows, may be given another time, and is due again then.
	another := func(id uint64, at time.Time) result {
		return s.do(&command{Kind: kindLoanUntil, Loan: &loanCommand{ID: id, Until: at}})
	}
	later := until.Add(48 * time.Hour)
	s.refused("another time of nothing", func() result { return another(99, later) }, ErrNoLoan, "99")
	s.refused("no time", func() result { return another(first.ID, time.Time{}) }, ErrInvalid, "end the loan")
	if r := s.must(another(first.ID, later)); !r.changed || r.loan.Due || r.loan.Why != "" || !s.st.now.table().Loan(first.ID).Until.Equal(later) {
		t.Fatalf("%+v", r.loan)
	}
	if r := s.must(another(first.ID, later)); r.changed {
		t.Fatal("the same time changed something")
	}
	s.refused("due at the old time", func() result { return due(first.ID, until.Add(time.Hour)) }, ErrNotDue, "2030-01-03")
	if r := s.must(due(first.ID, later)); !r.loan.Due {
		t.Fatalf("%+v", r.loan)
	}

	// A part of the second changes hands: nobody can give it back whole.
	s.must(s.rangeCommand(kindReassign, "app.orders", "350..360", "", "shard_3"))
	if len(s.st.now.table().Loans) != 1 {
		t.Fatalf("%+v", s.st.now.table().Loans)
	}
	// The first is moved back.
	m := s.must(s.start("app.orders", "100..200", "shard_3", "shard_1")).move
	s.refused("another time on its way back", func() result { return another(first.ID, later.Add(time.Hour)) }, ErrMoving, "under move")
	s.must(s.advance(m.ID, rib.MovePrepare, rib.MoveFrozen))
	if len(s.st.now.table().Loans) != 1 {
		t.Fatal("a move that has not flipped has ended a loan")
	}
	s.must(s.advance(m.ID, rib.MoveFrozen, rib.MoveFlipped))
	if s.st.now.table().Loans != nil {
		t.Fatalf("%+v", s.st.now.table().Loans)
	}

	// A move may lend as well, from its flip on; and what is lent may stay for good.
	c := &moveCommand{Keyspace: "app.orders", To: "shard_2", Until: until}
	c.Low, c.High = s.keys("app.orders", "3000..")
	m = s.must(s.do(&command{Kind: kindMoveStart, Move: c})).move
	s.must(s.advance(m.ID, rib.MovePrepare, rib.MoveFrozen))
	s.must(s.advance(m.ID, rib.MoveFrozen, rib.MoveFlipped))
	if l := s.st.now.table().Loan(m.ID); l == nil || l.From != "shard_3" || l.To != "shard_2" || !l.Until.Equal(until) {
		t.Fatalf("%+v", l)
	}
	s.must(s.do(&command{Kind: kindLoanEnd, Loan: &loanCommand{ID: m.ID}}))
	s.refused("ended twice", func() result { return s.do(&command{Kind: kindLoanEnd, Loan: &loanCommand{ID: m.ID}}) }, ErrNoLoan, "changed hands")
	if got := s.owners("app.orders"); s.st.now.table().Loans != nil || got[len(got)-len("3000..=shard_2@20"):len(got)-3] != "3000..=shard_2" {
		t.Fatalf("%s, %+v", got, s.st.now.table().Loans)
	}
}

// TestLoansAreDueByTheLeadersClock: when the time has come the leader says so, once, and names those that nobody has settled.
func TestLoansAreDueByTheLeadersClock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a", "iad"), w.add("b", "fra")
		w.form(a, b)
		w.shards(2)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1"}}); err != nil {
			t.Fatal(err)
		}
		spec := ReassignSpec{Keyspace: "app.orders", Range: "100-200", To: "shard_2", Until: time.Now().Add(time.Hour), Origin: Origin{RequestID: "lend", Author: "ann"}}
		for name, healthy := range map[string]func(string) error{"ill": func(shard string) error { return errors.New(shard + " is ill") }, "well": func(string) error { return nil }} {
			a.ledger.cfg.CheckShard = healthy
			if _, err := a.ledger.Reassign(w.ctx(), spec); (name == "ill") != errors.Is(err, ErrUnhealthy) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if due, err := a.ledger.DueLoans(w.ctx()); err != nil || len(due) != 0 {
			t.Fatalf("at once: %+v, %v", due, err)
		}
		w.pass(time.Hour)
		leader := w.leader()
		due, err := leader.ledger.DueLoans(w.ctx())
		if err != nil || len(due) != 1 || !due[0].Due || due[0].From != "shard_1" || due[0].To != "shard_2" {
			t.Fatalf("after an hour: %+v, %v", due, err)
		}
		at := leader.ledger.Epoch()
		if again, err := leader.ledger.DueLoans(w.ctx()); err != nil || len(again) != 1 || leader.ledger.Epoch() != at {
			t.Fatalf("asked again: %+v, %v, at %v", again, err, leader.ledger.Epoch())
		}
		if _, err := leader.ledger.KeepLoan(w.ctx(), due[0].ID, "17 rows are there"); err != nil {
			t.Fatal(err)
		}
		if left, err := leader.ledger.DueLoans(w.ctx()); err != nil || len(left) != 0 {
			t.Fatalf("settled: %+v, %v", left, err)
		}
		var notLeader *NotLeaderError
		for _, n := range []*testNode{a, b} {
			if n == leader {
				continue
			}
			if _, err := n.ledger.DueLoans(w.ctx()); !errors.As(err, &notLeader) {
				t.Errorf("on a node that does not lead: %v", err)
			}
		}
	})
}

// lends writes the loans of a table: "100..200 of shard_1 until 12:00".
func lends(o *rib.Ownership) (list []string) {
	for _, l := range o.Loans {
		text := fmt.Sprintf("%s of %s until %s", o.Keyspace(l.Keyspace).FormatInterval(l.Low, l.High), l.From, l.Until.Format("15:04"))
		if l.Due {
			text += " due"
		}
		if l.Why != "" {
			text += " " + l.Why
		}
		list = append(list, text)
	}
	return list
}

// TestALoanIsCut: both parts go back as the whole would have.
func TestALoanIsCut(t *testing.T) {
	s := newStory(t)
	until := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	c := &rangeCommand{Keyspace: "app.orders", To: "shard_3", Until: until}
	c.Low, c.High = s.keys("app.orders", "100..200")
	s.must(s.do(&command{Kind: kindReassign, Range: c}))
	id := s.st.now.table().Loans[0].ID
	cut := func(id uint64, at string) result {
		key, _ := s.keys("app.orders", at+"..")
		return s.do(&command{Kind: kindLoanCut, Loan: &loanCommand{ID: id, At: key}})
	}
	s.must(s.do(&command{Kind: kindLoanDue, Loan: &loanCommand{ID: id, Stamp: until}}))
	s.must(s.do(&command{Kind: kindLoanKeep, Loan: &loanCommand{ID: id, Why: "3 rows"}}))
	for _, at := range []string{"100", "200", "50", "250", ""} {
		s.refused("cut at "+at, func() result { return cut(id, at) }, ErrInvalid, "where it begins or ends")
	}
	s.refused("cut nothing", func() result { return cut(99, "150") }, ErrNoLoan, "99")
	if r := s.must(cut(id, "150")); r.loan.ID != id {
		t.Errorf("%+v", r.loan)
	}
	// In which of them the rows are is to be found out again.
	want := []string{"100..150 of shard_1 until 12:00 due", "150..200 of shard_1 until 12:00 due"}
	if got := lends(s.st.now.table()); !slices.Equal(got, want) {
		t.Errorf("loans\n%q\nwant\n%q", got, want)
	}
}

// TestTheRestOfALoanGoesBack: a move that takes a part of what is lent leaves the loan of the rest, on both sides and of several.
func TestTheRestOfALoanGoesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.add("a", "iad")
		w.form(a)
		w.shards(3)
		if _, err := a.ledger.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1"}}); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Hour)
		for _, interval := range []string{"100-200", "200-300", "300-400"} {
			if _, err := a.ledger.Reassign(w.ctx(), ReassignSpec{Keyspace: "app.orders", Range: interval, To: "shard_2", Until: until}); err != nil {
				t.Fatal(err)
			}
		}
		at := until.UTC().Format("15:04")
		move := func(interval string, want ...string) {
			t.Helper()
			m, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: interval, To: "shard_3"})
			for _, phase := range []rib.MovePhase{rib.MovePrepare, rib.MoveFrozen} {
				if err == nil {
					_, err = a.ledger.AdvanceMove(w.ctx(), m.ID, phase, phase+1, nil)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				want[i] += " of shard_1 until " + at
			}
			got := lends(a.table.Owners().Get())
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s has moved: loans\n%q\nwant\n%q", interval, got, want)
			}
		}
		move("120-150", "100..120", "150..200", "200..300", "300..400")
		move("250-350", "100..120", "150..200", "200..250", "350..400")
		move("100-120", "150..200", "200..250", "350..400")
		if _, err := a.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "160-170", To: "shard_3"}); err != nil {
			t.Fatal(err)
		}
		if got := lends(a.table.Owners().Get()); len(got) != 3 {
			t.Errorf("a move that is prepared has cut a loan: %q", got)
		}
	})
}

// TestATTLIsCountedFromTheFirstAsking: a move that lends for some time may be asked for again under its request id, later and of another leader, or twice at once; with
// another time it is another request.
func TestATTLIsCountedFromTheFirstAsking(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		w.form(a, b, c)
		w.shards(2)
		if _, err := w.leader().ledger.CreateKeyspace(w.ctx(), KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
			Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}}, Shards: []string{"shard_1"}}); err != nil {
			t.Fatal(err)
		}
		r := MoveRequest{Keyspace: "app.orders", Range: "100-200", To: "shard_2", TTL: time.Hour, Origin: Origin{RequestID: "lend", Author: "ann", Reason: "a sale"}}
		begin := time.Now()
		first, err := w.leader().ledger.StartMove(w.ctx(), r)
		if err != nil || first.Until.Before(begin.Add(time.Hour-time.Millisecond)) || first.Until.After(time.Now().Add(time.Hour)) {
			t.Fatalf("%+v, %v, begun at %v", first, err, begin)
		}
		w.pass(10 * time.Minute)
		epoch := w.leader().ledger.Epoch()
		w.leader().ledger.cfg.CheckShard = func(shard string) error { return errors.New(shard + " has fallen ill") }
		if again, err := w.leader().ledger.StartMove(w.ctx(), r); err != nil || again.ID != first.ID || !again.Until.Equal(first.Until) {
			t.Errorf("repeated: %+v, %v", again, err)
		}
		old := w.leader()
		old.stop()
		w.pass(time.Minute)
		if again, err := w.leader().ledger.StartMove(w.ctx(), r); err != nil || w.leader() == old || again.ID != first.ID || !again.Until.Equal(first.Until) {
			t.Errorf("repeated at the next leader: %+v, %v", again, err)
		}
		longer := r
		longer.TTL = 2 * time.Hour
		if _, err := w.leader().ledger.StartMove(w.ctx(), longer); !errors.Is(err, ErrRequestReused) {
			t.Errorf("another ttl under the same id: %v", err)
		}
		if now := w.leader().table.Owners().Get().Moves; len(now) != 1 || w.leader().ledger.Epoch() != epoch {
			t.Errorf("%+v at %v, was %v", now, w.leader().ledger.Epoch(), epoch)
		}

		// A loan that is lengthened is so once.
		for _, phase := range []rib.MovePhase{rib.MovePrepare, rib.MoveFrozen} {
			if _, err := w.leader().ledger.AdvanceMove(w.ctx(), first.ID, phase, phase+1, nil); err != nil {
				t.Fatal(err)
			}
		}
		o := Origin{RequestID: "lengthen"}
		once, err := w.leader().ledger.LendFor(w.ctx(), first.ID, 3*time.Hour, o)
		w.pass(time.Minute)
		again, err2 := w.leader().ledger.LendFor(w.ctx(), first.ID, 3*time.Hour, o)
		if err := errors.Join(err, err2); err != nil || !once.Until.After(first.Until) || again.ID != first.ID || !again.Until.Equal(once.Until) {
			t.Errorf("lengthened: %v, %+v and %+v", err, once, again)
		}
		if _, err := w.leader().ledger.LendFor(w.ctx(), first.ID, time.Hour, o); !errors.Is(err, ErrRequestReused) {
			t.Errorf("another time under the same id: %v", err)
		}

		// Twice at once: whoever is second has the other's time.
		r.Range, r.RequestID = "300-400", "twice"
		var both [2]rib.Move
		var errs [2]error
		var asked sync.WaitGroup
		leader, ctx := w.leader(), w.ctx()
		for i := range both {
			asked.Go(func() {
				<-time.After(time.Duration(i) * 5 * time.Millisecond)
				both[i], errs[i] = leader.ledger.StartMove(ctx, r)
			})
		}
		asked.Wait()
		if errs[0] != nil || errs[1] != nil || both[0].ID != both[1].ID || !both[0].Until.Equal(both[1].Until) || both[0].ID == 0 {
			t.Errorf("twice at once: %+v, %v", both, errs)
		}
	})
}
