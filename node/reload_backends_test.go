package node

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestReloadBackends adds, moves and removes backends; another node hears of all of it.
func TestReloadBackends(t *testing.T) {
	f := startFile(t)
	replica := pgtest.NewReplica(t, f.primary, pgtest.Options{Name: "replica"})
	cfg := testConfig(t, "iad", f.port().Addr())
	cfg.Name = "iad-2"
	peer := newNode(t, cfg, nil).open(t)
	knows := func(n *testNode, want map[string]string) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, func() error {
			got := map[string]string{}
			for _, b := range n.table.Snapshot().Backends {
				got[b.Backend.Name] = b.Backend.Addr + " " + b.Verdict.String()
			}
			if !reflect.DeepEqual(got, want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	up := rib.Up.String()
	knows(peer, map[string]string{"iad-db": f.primary.Addr() + " " + up})

	// Statements go on all the while.
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(ctx, f.dsn(appPassword))
		for err == nil {
			_, err = conn.Exec(ctx, "SELECT count(*) FROM t")
			if err == nil {
				_, err = conn.Exec(ctx, "INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t")
			}
		}
		if ctx.Err() != nil {
			err = nil
		}
		if conn != nil {
			conn.Close(context.Background())
		}
		failed <- err
	}()

	added := "\n[[backends]]\nname = \"iad-replica\"\nshard = \"shard_1\"\naddress = \"" + replica.Addr() + "\"\n"
	f.change(t, `address = "ADDRESS"`, `address = "ADDRESS"`+added)
	if got, want := changes(f.reload(t).Changed), []string{"backends[iad-replica]:  -> shard = shard_1, address = " + replica.Addr()}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	both := map[string]string{"iad-db": f.primary.Addr() + " " + up, "iad-replica": replica.Addr() + " " + up}
	knows(f.testNode, both)
	knows(peer, both)

	// The same server by another address: nobody notices but the tables.
	_, port, err := net.SplitHostPort(f.primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	moved := "localhost:" + port
	f.change(t, `address = "ADDRESS"`, `address = "`+moved+`"`+added)
	if got, want := changes(f.reload(t).Changed), []string{"backends[iad-db].address: " + f.primary.Addr() + " -> " + moved}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	both["iad-db"] = moved + " " + up
	knows(f.testNode, both)
	knows(peer, both)

	f.change(t, `address = "ADDRESS"`, `address = "`+moved+`"`)
	if got, want := changes(f.reload(t).Changed), []string{"backends[iad-replica]: shard = shard_1, address = " + replica.Addr() + " -> removed"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	delete(both, "iad-replica")
	knows(f.testNode, both)
	knows(peer, both)
	pgtest.Eventually(t, 10*time.Second, func() error { // no connection is left at the removed one
		for _, s := range f.pools.Stats() {
			if s.Backend == "iad-replica" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	cancel()
	if err := <-failed; err != nil {
		t.Errorf("a statement during the reloads: %v", err)
	}
}
