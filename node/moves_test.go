package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// startMovable starts three nodes beside three shards whose ranges can move.
func startMovable(t *testing.T, change ...func(*Config)) *testCluster {
	t.Helper()
	return startClusterOf(t, map[string]string{"wal_level": "logical", "max_prepared_transactions": "10"}, "SUPERUSER REPLICATION", true, change...)
}

// accounts makes the range keyspace app.accounts.
func (c *testCluster) accounts(t *testing.T) {
	t.Helper()
	if code, out, errs := c.nodes[0].admin("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range",
		"--range", "..1000=shard_1", "--range", "1000..2000=shard_2", "--range", "2000..=shard_3"); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	for _, n := range c.nodes {
		n.sees(t, "app.accounts")
	}
}

// settled waits until every node knows that no move is under way.
func (c *testCluster) settled(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		for _, n := range c.nodes {
			if moves := n.table.Owners().Get().Moves; len(moves) > 0 {
				return fmt.Errorf("%s: moves %v", n.cfg.Name, moves)
			}
		}
		return nil
	})
}

// owner waits until a node routes a key to a shard.
func (n *testNode) owner(t *testing.T, keyspace, key, shard string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		ks := n.fib.Load().Ownership().KeyspaceByName(keyspace)
		m, err := rib.MethodByName(ks.Method)
		if err != nil {
			return err
		}
		k, err := m.ParseBound(ks.Types, key)
		if err != nil {
			return err
		}
		if got := ks.Ranges[ks.Owner(k)].Shard; got != shard {
			return fmt.Errorf("%s: %s of %s is %s's, want %s", n.cfg.Name, key, keyspace, got, shard)
		}
		return nil
	})
}

// TestRangesChangeHandsByTheAPI hands an empty range over and back, moves one with rows, and aborts a move, through a node that does not lead.
func TestRangesChangeHandsByTheAPI(t *testing.T) {
	c := startMovable(t)
	c.accounts(t)
	n := c.follower(t)
	api := newClient(t, n)
	conn := n.connect(t)

	// The line of the manual, with what curl -d sends.
	var mapped RoutingMapView
	first := func(r *http.Request) { r.Header.Set(requestIDHeader, "first") }
	status, e := api.call(t, "POST", "/api/v1/routing-map", `{"partition_key_range": "1000-2000", "target_backend": "shard_3", "ttl": 3600}`, &mapped, first)
	if status != 200 || !mapped.Changed || mapped.From != "shard_2" || mapped.Target != "shard_3" || mapped.Drained == nil || mapped.Until == nil || mapped.Epoch == "" {
		t.Fatalf("%d %+v: %+v", status, e, mapped)
	}
	if left := time.Until(*mapped.Until); left < 58*time.Minute || left > time.Hour {
		t.Errorf("it goes back in %v", left)
	}
	var same RoutingMapView // what is repeated is not another one, though time has passed
	if status, e := api.call(t, "POST", "/api/v1/routing-map", `{"partition_key_range": "1000-2000", "target_backend": "shard_3", "ttl": 3600}`, &same, first); status != 200 || same.Move != mapped.Move || same.Until == nil || !same.Until.Equal(*mapped.Until) {
		t.Fatalf("repeated: %d %+v: %+v", status, e, same)
	}
	t.Logf("drained in %d ms, missing %v", mapped.Drained.MS, mapped.Drained.Missing)
	for _, each := range c.nodes {
		each.owner(t, "app.accounts", "1500", "shard_3")
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES (1500, 7)"); err != nil {
		t.Fatal(err)
	}
	ks := n.sees(t, "app.accounts")
	if all, own := c.countOn(t, ks, "accounts", "id", 2); all != 1 || own != 1 {
		t.Errorf("shard_3 has %d rows and owns %d", all, own)
	}
	var lent LoansAnswer
	if status, _ := api.call(t, "GET", "/api/v1/routing-map", "", &lent); status != 200 || len(lent.Loans) != 1 || lent.Loans[0].Range != "1000..2000" || lent.Loans[0].From != "shard_2" {
		t.Errorf("%d %+v", status, lent)
	}

	// What is lent is lent for another time, or for good, if that is asked for; a part of it is not taken out of it.
	lentUntil := func(ttl time.Duration) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error { // the node that is asked may not have heard of it yet
			if status, _ := api.call(t, "GET", "/api/v1/routing-map", "", &lent); status != 200 || len(lent.Loans) != 1 {
				return fmt.Errorf("%d %+v", status, lent)
			}
			if left := time.Until(lent.Loans[0].Until); left > ttl || left < ttl-5*time.Minute {
				return fmt.Errorf("it goes back in %v, want %v", left, ttl)
			}
			return nil
		})
	}
	once := func(r *http.Request) { r.Header.Set(requestIDHeader, "two-hours") }
	for range 2 { // the second is the first, repeated
		var again RoutingMapView
		if status, e := api.call(t, "POST", "/api/v1/routing-map", `{"partition_key_range": "1000-2000", "target_backend": "shard_3", "ttl": 7200}`, &again, once); status != 200 || again.Changed || again.From != "shard_2" || again.Until == nil {
			t.Fatalf("%d %+v: %+v", status, e, again)
		}
		lentUntil(2 * time.Hour)
	}
	c.settled(t)
	for _, x := range []struct{ path, body string }{
		{"routing-map", `{"partition_key_range": "1200-1300", "target_backend": "shard_3", "ttl": 60}`},
		{"routing-map", `{"partition_key_range": "1200-1300", "target_backend": "shard_3"}`},
	} {
		if status, e := api.call(t, "POST", "/api/v1/"+x.path, x.body, nil); status != 409 || !strings.Contains(e.Error, "1000..2000 is shard_3's until") || !strings.Contains(e.Hint, "range map 1000..2000 --to shard_3") {
			t.Errorf("%s: %d %+v", x.body, status, e)
		}
	}
	lentUntil(2 * time.Hour)
	if code, out, errs := n.admin("range", "map", "1000..2000", "--to", "shard_3", "--keyspace", "app.accounts"); code != 0 || !strings.Contains(out, "for good") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	pgtest.Eventually(t, 10*time.Second, func() error {
		if status, _ := api.call(t, "GET", "/api/v1/routing-map", "", &lent); status != 200 || len(lent.Loans) != 0 {
			return fmt.Errorf("%d %+v", status, lent)
		}
		return nil
	})

	// A time that is over: with rows it stays, and an alarm says so; without it goes back.
	if status, e := api.call(t, "POST", "/api/v1/routing-map", `{"partition_key_range": "5000-6000", "target_backend": "shard_1", "ttl": 2}`, &mapped); status != 200 {
		t.Fatalf("%d %+v", status, e)
	}
	n.owner(t, "app.accounts", "5500", "shard_1")
	n.owner(t, "app.accounts", "5500", "shard_3") // two seconds later
	if status, e := api.call(t, "POST", "/api/v1/routing-map", `{"partition_key_range": "7000-8000", "target_backend": "shard_1", "ttl": 3}`, &mapped); status != 200 {
		t.Fatalf("%d %+v", status, e)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES (7500, 7)"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if alarms := strings.Join(n.View().Alarms, "\n"); !strings.Contains(alarms, "range 7000..8000 of app.accounts was lent to shard_1") || !strings.Contains(alarms, "rangefinder move start app.accounts 7000..8000 --to shard_3") {
			return fmt.Errorf("alarms: %s", alarms)
		}
		return nil
	})

	// A range with rows moves back, as the alarm says, watched from the command line.
	c.settled(t) // the time may be over before the move to shard_1 is, on a busy machine
	code, out, errs := n.admin("move", "start", "app.accounts", "7000..8000", "--to", "shard_3", "--reason", "back home", "--watch")
	if code != 0 || !strings.Contains(out, "over flipped") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	n.owner(t, "app.accounts", "7500", "shard_3")
	var balance int
	if err := conn.QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = 7500").Scan(&balance); err != nil || balance != 7 {
		t.Errorf("%d %v", balance, err)
	}
	var past HistoryAnswer
	if status, _ := api.call(t, "GET", "/api/v1/history?keyspace=app.accounts&range=7000-8000", "", &past); status != 200 || !slices.ContainsFunc(past.Events, func(e EventView) bool {
		return e.Author == "loopback" && e.Reason == "back home" && e.Phase == "prepare"
	}) {
		t.Errorf("%d %+v", status, past)
	}

	// Two at once on ranges that overlap: one of them is refused, and so is a split of what moves.
	if _, err := conn.Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES (10, 1)"); err != nil {
		t.Fatal(err)
	}
	var started MoveView
	if status, e := api.call(t, "POST", "/api/v1/moves", `{"keyspace": "app.accounts", "range": "..100", "to": "shard_2"}`, &started); status != 202 || started.ID == 0 {
		t.Fatalf("%d %+v", status, e)
	}
	if status, e := api.call(t, "POST", fmt.Sprintf("/api/v1/moves/%d/pause", started.ID), `{}`, nil); status != 200 && status != 503 {
		t.Fatalf("%d %+v", status, e)
	}
	if status, e := api.call(t, "POST", "/api/v1/moves", `{"keyspace": "app.accounts", "range": "50-150", "to": "shard_3"}`, nil); status != 409 || e.Code != "range_moving" || !strings.Contains(e.Hint, "abort") {
		t.Errorf("a second move: %d %+v", status, e)
	}
	if status, e := api.call(t, "POST", "/api/v1/ranges/split", `{"keyspace": "app.accounts", "at": ["50"]}`, nil); status != 409 || e.Code != "range_moving" {
		t.Errorf("a split: %d %+v", status, e)
	}
	if code, out, errs := n.admin("move", "abort", fmt.Sprint(started.ID), "--watch"); code != 0 || !strings.Contains(out, "aborted") {
		t.Errorf("abort: exit %d\n%s%s", code, out, errs)
	}
	n.owner(t, "app.accounts", "10", "shard_1")
	if status, e := api.call(t, "POST", fmt.Sprintf("/api/v1/moves/%d/abort", started.ID), `{}`, nil); status != 409 || e.Code != "wrong_phase" || !strings.Contains(e.Error, "is over: it was aborted") || !strings.Contains(e.Hint, "shard_1 has the range") {
		t.Errorf("aborted twice: %d %+v", status, e)
	}
	for shard, s := range c.servers {
		left, err := s.ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var slots, subscriptions, publications, triggers int
		err = left.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)").
			Scan(&slots, &subscriptions, &publications, &triggers)
		left.Close(context.Background())
		if err != nil || slots+subscriptions+publications+triggers != 0 {
			t.Errorf("shard_%d: %v: %d slots, %d subscriptions, %d publications, %d triggers are left", shard+1, err, slots, subscriptions, publications, triggers)
		}
	}
}
