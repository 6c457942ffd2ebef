package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/sqlkey"
)

// parameter is a Bind with one parameter, as pgbench sends it.
type parameter []byte

func (p parameter) Arg(i int) (val []byte, format int16, oid uint32, null, ok bool) {
	return p, 0, 0, false, i == 1
}

// routing times what a session does to find a statement's backend, on one processor: its plan by its text, the key from its
// parameter, the owner, the closest copy. These are the calls of wire.core, without its sockets.
func (c *comparison) routing(context.Context) error {
	owners := rib.Ownership{
		Epoch: rib.Epoch{Index: 1},
		Keyspaces: []rib.Keyspace{{ID: 1, Name: "bench.pgbench_accounts", Database: benchDatabase, Method: "hash", Types: []rib.Type{rib.TypeInt},
			Tables: []rib.KeyedTable{{Schema: "public", Name: "pgbench_accounts", Columns: []string{"aid"}}},
			Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"})}},
		Shards: []rib.Shard{{Name: "shard_1", SystemID: 1}, {Name: "shard_2", SystemID: 2}},
	}
	table := rib.NewTable(rib.Member{Name: "bench", Region: "here"})
	table.Health().Distance("here", 0, time.Now())
	table.Owners().Set(&owners)
	for i, shard := range owners.Shards {
		name, stamp := shard.Name+"-here", rib.Stamp{Incarnation: 1, Seq: uint64(2*i + 1)}
		table.Health().Announce(rib.Announcement{Observer: "bench", Stamp: stamp,
			Backend: rib.Backend{Name: name, Shard: shard.Name, Region: "here", Addr: name + ":5432", SystemID: shard.SystemID}})
		stamp.Seq++
		table.Health().Observe(rib.Route{Backend: name, Observer: "bench", Stamp: stamp, State: rib.Up, Role: rib.Primary, Timeline: 1})
	}
	compiled, err := fib.Compile(table.Snapshot())
	if err != nil {
		return err
	}
	handle := new(fib.Handle)
	handle.Store(compiled)
	catalog := sqlkey.NewCatalog(&owners, map[string]sqlkey.DatabaseRule{benchDatabase: {Shard: "shard_1"}}, nil)
	planner := sqlkey.NewPlanner(sqlkey.PlannerConfig{})
	env := sqlkey.Env{Database: benchDatabase, User: benchUser, Encoding: "UTF8"}

	text, arg, buffer := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = $1;"), sqlkey.Args(parameter("123456")), make(rib.Key, 0, 64)
	var failed error
	route := func(rnd uint32) *rib.Backend {
		t := handle.Load()
		plan := planner.PlanBytes(catalog, &env, text)
		if plan.Target != sqlkey.Keyed {
			failed = errors.New(plan.Reason)
			return nil
		}
		key, err := plan.AppendKey(buffer[:0], 0, arg, true)
		if err != nil {
			failed = err
			return nil
		}
		owner, ok := t.Lookup(plan.Keyspace, key)
		if !ok {
			failed = errors.New("no owner")
			return nil
		}
		if plan.Intent == sqlkey.Read {
			near := owner.Slot.Candidates()
			if i := near.PickRead(rnd); i >= 0 {
				return near.Reads[i].Backend
			}
		}
		failed = errors.New("no backend to read from")
		return nil
	}
	if route(0); failed != nil {
		return fmt.Errorf("routing: %w", failed)
	}
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			route(uint32(i))
		}
	})
	if failed != nil {
		return fmt.Errorf("routing: %w", failed)
	}
	c.result.RoutingNS, c.result.RoutingAllocs = round(float64(r.T.Nanoseconds())/float64(r.N)), r.AllocsPerOp()
	c.printf("\nrouting a statement (its plan known, a parameter for its key): %.0f ns, %d allocations\n", c.result.RoutingNS, c.result.RoutingAllocs)
	return nil
}
