package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/cluster"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// lentOut is a table with a range that is lent, and whose time has come.
func lentOut(t *testing.T) (o *rib.Ownership, l rib.Loan) {
	t.Helper()
	ks := rib.Keyspace{ID: 1, Name: "app.readings", Method: "range", Types: []rib.Type{rib.TypeBigint}}
	low, high, err := ks.ParseInterval("1000-2000")
	if err != nil {
		t.Fatal(err)
	}
	l = rib.Loan{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_2", To: "shard_3", Until: time.Unix(1800000000, 0).UTC(), Due: true}
	return &rib.Ownership{Keyspaces: []rib.Keyspace{ks}, Loans: []rib.Loan{l}}, l
}

// lending is a lender over a table that a test changes, with what it has done, in words.
type lending struct {
	lender
	o        *rib.Ownership
	rows     int64
	counting func() // what happens while rows are counted; nil: nothing
	err      error  // of the count
	beginErr error
	done     []string
}

func newLending(t *testing.T, o *rib.Ownership) *lending {
	b := &lending{o: o}
	b.lender = lender{
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), tried: map[uint64]time.Time{}, why: map[uint64]string{},
		owners: func() *rib.Ownership { return b.o },
		count: func(_ context.Context, _ *rib.Keyspace, _, _ rib.Key, shard string) (rowsFound, error) {
			b.done = append(b.done, "count on "+shard)
			if b.counting != nil {
				b.counting()
			}
			return rowsFound{rows: b.rows, where: []string{"all in public.readings"}}, b.err
		},
		keep: func(_ context.Context, id uint64, why string) error {
			b.done = append(b.done, fmt.Sprintf("keep %d: %s", id, why))
			return nil
		},
		begin: func(_ context.Context, _ *rib.Keyspace, _, _ rib.Key, r cluster.MoveRequest) error {
			b.done = append(b.done, fmt.Sprintf("move %s from %s to %s", r.Range, r.From, r.To))
			return b.beginErr
		},
	}
	return b
}

// did is what was done since it was last asked.
func (b *lending) did() string {
	defer func() { b.done = nil }()
	return strings.Join(b.done, "; ")
}

// TestLoansAreNotTouchedWhileTheirRangeMoves: a range that is due, and is under a move already, is neither counted nor said to stay, whichever way it goes. When the move is
// over it is looked at at once.
func TestLoansAreNotTouchedWhileTheirRangeMoves(t *testing.T) {
	o, l := lentOut(t)
	free := *o
	for name, m := range map[string]rib.Move{
		"it goes back":                 {ID: 9, Keyspace: 1, Low: l.Low, High: l.High, From: "shard_3", To: "shard_2", Phase: rib.MovePrepare},
		"a part goes elsewhere":        {ID: 9, Keyspace: 1, High: append(slices.Clone(l.Low), 0), From: "shard_3", To: "shard_1", Phase: rib.MoveFrozen},
		"the move that took it stands": {ID: 7, Keyspace: 1, Low: l.Low, High: l.High, From: "shard_2", To: "shard_3", Phase: rib.MoveFlipped},
	} {
		t.Run(name, func(t *testing.T) {
			under := free
			under.Moves = []rib.Move{m}
			b, now := newLending(t, &under), l.Until.Add(time.Second)
			b.rows = 17
			for range 100 {
				b.look(t.Context(), []rib.Loan{l}, now)
				now = now.Add(loanTick)
			}
			if got := b.did(); got != "" {
				t.Errorf("while it moves: %s", got)
			}
			if list := b.alarms(b.o, now); len(list) != 1 || !strings.Contains(list[0], fmt.Sprintf("move %d", m.ID)) || !strings.Contains(list[0], fmt.Sprintf("rangefinder move status %d", m.ID)) {
				t.Errorf("%q", list)
			}
			b.o = &free
			b.look(t.Context(), []rib.Loan{l}, now)
			if got := b.did(); got != "count on shard_3; keep 7: 17 rows (all in public.readings)" {
				t.Errorf("then: %s", got)
			}
		})
	}

	// One that begins while rows are counted.
	b := newLending(t, &free)
	b.rows = 17
	b.counting = func() {
		under := free
		under.Moves = []rib.Move{{ID: 9, Keyspace: 1, Low: l.Low, High: l.High, From: "shard_3", To: "shard_2", Phase: rib.MovePrepare}}
		b.o = &under
	}
	b.look(t.Context(), []rib.Loan{l}, l.Until)
	if got := b.did(); got != "count on shard_3" {
		t.Errorf("begun meanwhile: %s", got)
	}
}

// TestLoansAreTriedNowAndThen: what keeps a range from going back is looked at again after half a minute, not each second, also if it is a move that this node did not know of.
func TestLoansAreTriedNowAndThen(t *testing.T) {
	o, l := lentOut(t)
	for name, set := range map[string]func(*lending){
		"the shard is down": func(b *lending) { b.err = errors.New("shard shard_3: connection refused") },
		"obstacles": func(b *lending) {
			b.beginErr = obstructed("1000..2000", []ObstacleView{{Shard: "shard_2", Problem: "wal_level is replica"}})
		},
		"moving": func(b *lending) {
			b.beginErr = &cluster.RejectedError{Reason: cluster.ErrMoving, Text: "range 1000..2000 is under move 9"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, now := newLending(t, o), l.Until
			set(b)
			for range 65 {
				b.look(t.Context(), []rib.Loan{l}, now)
				now = now.Add(loanTick)
			}
			if n := strings.Count(b.did(), "count"); n != 3 {
				t.Errorf("counted %d times in a minute", n)
			}
		})
	}
}

// TestLoansPastTheirTimeAreAlarms: those that stay at once, and after a minute those that have not gone back, with what is in the way.
func TestLoansPastTheirTimeAreAlarms(t *testing.T) {
	o, l := lentOut(t)
	b := newLending(t, o)
	alarms := func(after time.Duration, want ...string) {
		t.Helper()
		list := b.alarms(b.o, l.Until.Add(after))
		if len(want) == 0 && len(list) == 0 {
			return
		}
		if len(list) != 1 {
			t.Fatalf("after %s: %q", after, list)
		}
		for _, w := range want {
			if !strings.Contains(list[0], w) {
				t.Errorf("after %s: %q has no %q", after, list[0], w)
			}
		}
	}
	b.err = errors.New("shard shard_3: connection refused")
	b.look(t.Context(), []rib.Loan{l}, l.Until)
	alarms(loanPatience - time.Second)
	alarms(loanPatience, "range 1000..2000 of app.readings was lent to shard_3 until 2027-01-15T08:00:00Z", "has not gone back to shard_2", "connection refused")
	b.err, b.beginErr = nil, obstructed("1000..2000", []ObstacleView{{Shard: "shard_2", Table: "public.readings", Problem: "there is no such table"}})
	b.look(t.Context(), []rib.Loan{l}, l.Until.Add(loanPatience))
	alarms(loanPatience, "cannot be moved", "on shard_2, table public.readings: there is no such table")

	// Who does not lead, or does not any more, tells that it is late all the same.
	b.only(nil)
	alarms(loanPatience - time.Second)
	alarms(loanPatience, "has not gone back to shard_2", "the node that leads")

	// Found to hold rows.
	kept := *o
	kept.Loans = []rib.Loan{l, {ID: 8, Keyspace: 1, Low: l.High, From: "shard_2", To: "shard_3", Until: l.Until.Add(time.Hour)}}
	kept.Loans[0].Why = "17 rows"
	b.o = &kept
	alarms(0, "holds 17 rows", "rangefinder move start app.readings 1000..2000 --to shard_2")
}

// lends waits until a node lists these loans: "1000..2000 shard_2-shard_3".
func (c *client) lends(t *testing.T, want ...string) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		var lent LoansAnswer
		if status, e := c.call(t, "GET", routingMapPath, "", &lent); status != 200 {
			return fmt.Errorf("%d %+v", status, e)
		}
		var list []string
		for _, l := range lent.Loans {
			list = append(list, fmt.Sprintf("%s %s-%s", l.Range, l.From, l.Target))
		}
		slices.Sort(list)
		if !slices.Equal(list, want) {
			return fmt.Errorf("loans %q, want %q", list, want)
		}
		return nil
	})
}

// TestRangesThatAreLent maps ranges for a time, on three shards of real PostgreSQL.
func TestRangesThatAreLent(t *testing.T) {
	c := startMovable(t)
	c.accounts(t)
	api := newClient(t, c.follower(t))

	t.Run("twice at once over two nodes is one call", func(t *testing.T) {
		const body = `{"partition_key_range": "1100-1200", "target_backend": "shard_3", "ttl": %d, "reason": "a sale"}`
		lend := func(n *testNode, ttl int) (v RoutingMapView, status int, e ErrorView) {
			status, e = newClient(t, n).call(t, "POST", routingMapPath, fmt.Sprintf(body, ttl), &v, func(r *http.Request) { r.Header.Set(requestIDHeader, fmt.Sprintf("lend-%d", ttl/3600)) })
			return v, status, e
		}
		for _, ttl := range []int{3600, 7200} { // the first makes a loan, the second lengthens it
			var answers [2]RoutingMapView
			var asked sync.WaitGroup
			for i, n := range []*testNode{c.nodes[0], c.nodes[1]} {
				asked.Go(func() {
					v, status, e := lend(n, ttl)
					if answers[i] = v; status != 200 || v.From != "shard_2" || v.Until == nil {
						t.Errorf("ttl %d: %d %+v %+v", ttl, status, e, v)
					}
				})
			}
			asked.Wait()
			if a, b := answers[0], answers[1]; t.Failed() || a.Changed != b.Changed || a.Changed != (ttl == 3600) || a.Move != b.Move || !a.Until.Equal(*b.Until) {
				t.Fatalf("ttl %d: %+v", ttl, answers)
			}
			c.settled(t)
			if again, status, e := lend(c.nodes[2], ttl); status != 200 || again.Move != answers[0].Move || again.From != "shard_2" || again.Until == nil || !again.Until.Equal(*answers[0].Until) {
				t.Errorf("ttl %d, repeated when nothing of it is left: %d %+v %+v", ttl, status, e, again)
			}
			other, status, e := lend(c.nodes[2], ttl+60) // under the same id
			if status != 409 || e.Code != "request_id_reused" {
				t.Errorf("another ttl under the same id: %d %+v %+v", status, e, other)
			}
		}
		if status, e := api.call(t, "POST", routingMapPath, `{"partition_key_range": "1100-1200", "target_backend": "shard_3"}`, nil); status != 200 {
			t.Errorf("for good: %d %+v", status, e)
		}
		api.lends(t)
	})

	t.Run("of what is lent a part moves, and the rest goes back", func(t *testing.T) {
		lend := func(span, shard string, ttl int) {
			t.Helper()
			body := fmt.Sprintf(`{"partition_key_range": %q, "target_backend": %q, "ttl": %d}`, span, shard, ttl)
			if status, e := api.call(t, "POST", routingMapPath, body, nil); status != 200 && status != 202 { // 202: it takes longer than a call waits
				t.Fatalf("%s: %d %+v", body, status, e)
			}
		}
		lend("1600-1800", "shard_3", 3600)
		c.settled(t)
		var part RoutingMapView
		if status, e := api.call(t, "POST", routingMapPath, `{"partition_key_range": "1650-1700", "target_backend": "shard_1"}`, &part); status != 202 && (status != 200 || !part.Changed) {
			t.Fatalf("%d %+v %+v", status, e, part)
		}
		api.lends(t, "1600..1650 shard_2-shard_3", "1700..1800 shard_2-shard_3")
		c.settled(t)
		lend("1700-1800", "shard_3", 1)
		for _, n := range c.nodes {
			n.owner(t, "app.accounts", "1750", "shard_2") // a second later
			n.owner(t, "app.accounts", "1620", "shard_3")
			n.owner(t, "app.accounts", "1680", "shard_1")
		}
		api.lends(t, "1600..1650 shard_2-shard_3")
		var past HistoryAnswer
		if status, _ := api.call(t, "GET", "/api/v1/history?keyspace=app.accounts&range=1600-1800", "", &past); status != 200 || !slices.ContainsFunc(past.Events, func(e EventView) bool {
			return e.Kind == "loan.cut" && e.Reason == fmt.Sprintf("move %d takes a part of it", part.Move)
		}) {
			t.Errorf("%d %+v", status, past)
		}
	})
}
