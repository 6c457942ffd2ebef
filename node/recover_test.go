package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/cluster"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestRecoverOnRealPostgreSQL: two of three nodes are lost, and with them a flip that only the shards know of. The third is recovered: it
// asks all shards first, leads a new generation, routes the range to the shard that has it, and what is agreed goes on.
func TestRecoverOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	made, err := c.nodes[2].CreateKeyspace(ctx, KeyspaceRequest{KeyspaceSpec: cluster.KeyspaceSpec{
		Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
		Tables: []cluster.TableSpec{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}},
		Shards: []string{"shard_1", "shard_2", "shard_3"}, Splits: []string{"1000", "2000"}}})
	if err != nil {
		t.Fatal(err)
	}
	last := c.nodes[2]
	ks := last.sees(t, "app.orders")
	pgtest.Eventually(t, 30*time.Second, func() error { // what it goes by is on its disk
		o, err := cluster.KnownOwnership(last.dir.path + "/" + ledgerDir)
		if err == nil && o.KeyspaceByName("app.orders") == nil {
			err = errors.New("the keyspace is not on disk yet")
		}
		return err
	})
	low, high, err := ks.ParseInterval("100-200")
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []string{"'source', 'app.orders', %s, 'shard_1', 'shard_2', 'moved'", "'target', 'app.orders', %s, 'shard_1', 'shard_2', 'filled'"} {
		row = fmt.Sprintf(row, fmt.Sprintf(`'\x%x', '\x%x'`, []byte(low), []byte(high)))
		if err := c.servers[i].ExecIn(ctx, "app", `CREATE SCHEMA IF NOT EXISTS rangefinder;
			CREATE TABLE IF NOT EXISTS rangefinder.fence (move bigint, side text, keyspace text, low bytea, high bytea, from_shard text, to_shard text, state text);
			GRANT USAGE ON SCHEMA rangefinder TO probe; GRANT SELECT ON rangefinder.fence TO probe;
			INSERT INTO rangefinder.fence VALUES (4711, `+row+`)`); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}

	offline := newNode(t, last.cfg, clusterEnv())
	r, err := openRecovery(offline.Node, nil)
	if err != nil {
		t.Fatal(err)
	}
	how, found, err := r.plan(ctx)
	if err != nil || len(found.Handed) != 1 || !strings.Contains(found.Handed[0], "range 100..200 of keyspace app.orders belongs to shard_2") {
		t.Fatalf("%+v, %v", found, err)
	}
	// A shard that cannot be asked is named, and nothing happens without it.
	if err := c.servers[0].Stop(ctx); err != nil {
		t.Fatal(err)
	}
	var failure *Failure
	if _, _, err := r.plan(ctx); !errors.As(err, &failure) || !strings.Contains(failure.Message, "shard shard_1: ") || strings.Contains(failure.Message, "shard_2") {
		t.Fatalf("with a shard down: %v", err)
	}
	if err := c.servers[0].Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Recover(how); err != nil {
		t.Fatal(err)
	}
	if err := r.dir.Close(); err != nil {
		t.Fatal(err)
	}

	again := newNode(t, last.cfg, clusterEnv()).open(t)
	now := again.sees(t, "app.orders")
	if got := now.Ranges[now.Owner(low)]; got.Shard != "shard_2" || got.Epoch.Generation != 2 {
		t.Fatalf("%+v", got)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if !again.ledger().IsLeader() {
			return errors.New("it does not lead")
		}
		return nil
	})
	if _, err := again.ledger().Split(ctx, cluster.SplitSpec{Keyspace: made.Name, At: []string{"500"}}); err != nil {
		t.Fatal(err)
	}
	if m := again.ledger().Status(); m.Epoch.Generation != 2 || again.table.Owners().Get().Move(4711).Phase != rib.MoveFlipped {
		t.Fatalf("%+v", m)
	}
}
