package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// lends waits until a node lists these loans: "1000..2000 shard_2-shard_3".
func (c *client) lends(t *testing.T, want ...string) {
	t.Helper()
	pgtest.Eventually(t, 30*time.Second, func() error {
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

	t.Run("of what is lent a part moves, and the rest goes back", func(t *testing.T) {
		lend := func(span, shard string, ttl int) {
			t.Helper()
			body := fmt.Sprintf(`{"partition_key_range": %q, "target_backend": %q, "ttl": %d}`, span, shard, ttl)
			if status, e := api.call(t, "POST", routingMapPath, body, nil); status != 200 {
				t.Fatalf("%s: %d %+v", body, status, e)
			}
		}
		lend("1600-1800", "shard_3", 3600)
		c.settled(t)
		var part RoutingMapView
		if status, e := api.call(t, "POST", routingMapPath, `{"partition_key_range": "1650-1700", "target_backend": "shard_1"}`, &part); status != 200 || !part.Changed {
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
