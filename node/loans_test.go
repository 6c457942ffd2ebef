package node

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

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
