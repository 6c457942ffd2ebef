package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

// router is what a session has to find a statement's backend with.
type router struct {
	handle  *fib.Handle
	catalog *sqlkey.Catalog
	planner *sqlkey.Planner
	env     sqlkey.Env
	known   sqlkey.Constants
	buffer  rib.Key

	text []byte // pgbench's statement in the extended protocol
	arg  sqlkey.Args
}

func newRouter() (*router, error) {
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
		return nil, err
	}
	r := &router{
		handle: new(fib.Handle), planner: sqlkey.NewPlanner(sqlkey.PlannerConfig{}), buffer: make(rib.Key, 0, 64),
		catalog: sqlkey.NewCatalog(&owners, map[string]sqlkey.DatabaseRule{benchDatabase: {Shard: "shard_1"}}, nil),
		env:     sqlkey.Env{Database: benchDatabase, User: benchUser, Encoding: "UTF8"},
		text:    []byte("SELECT abalance FROM pgbench_accounts WHERE aid = $1;"), arg: parameter("123456"),
	}
	r.handle.Store(compiled)
	return r, nil
}

// route goes a statement's way: its plan, the key from its arguments, the owner, the closest copy. These are the calls of wire.core, without its
// sockets. args nil: the text holds its values itself, as a Query does.
func (r *router) route(text []byte, args sqlkey.Args, rnd uint32) error {
	t := r.handle.Load()
	var plan *sqlkey.Plan
	if args == nil {
		plan, args = r.planner.PlanQuery(r.catalog, &r.env, text, &r.known), &r.known
	} else {
		plan = r.planner.PlanBytes(r.catalog, &r.env, text)
	}
	if plan.Target != sqlkey.Keyed {
		return errors.New(plan.Reason)
	}
	key, err := plan.AppendKey(r.buffer[:0], 0, args, true)
	if err != nil {
		return err
	}
	owner, ok := t.Lookup(plan.Keyspace, key)
	if !ok {
		return errors.New("no owner")
	}
	if plan.Intent == sqlkey.Read {
		near := owner.Slot.Candidates()
		if i := near.PickRead(rnd); i >= 0 && near.Reads[i].Backend != nil {
			return nil
		}
	}
	return errors.New("no backend to read from")
}

// timed returns what one call of route takes: nanoseconds of its thread's processor time, and allocations. It never waits, so on an idle machine
// that is the time it takes, and on another one that of others is not in it.
func (r *router) timed(route func(r *router, i int) error) (ns float64, allocs int64, err error) {
	if err = route(r, 0); err != nil {
		return 0, 0, fmt.Errorf("routing: %w", err)
	}
	var took time.Duration
	b := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := threadCPU()
		for i := range b.N {
			if e := route(r, i); e != nil {
				err = e
			}
		}
		took = threadCPU() - before // of the last and longest run, in the end
	})
	if err != nil {
		return 0, 0, fmt.Errorf("routing: %w", err)
	}
	return round(float64(took.Nanoseconds()) / float64(b.N)), b.AllocsPerOp(), nil
}

// byParameter routes it.
func byParameter(r *router, i int) error { return r.route(r.text, r.arg, uint32(i)) }

// routing times what a session does to find a statement's backend.
func (c *comparison) routing(context.Context) error {
	r, err := newRouter()
	if err != nil {
		return err
	}
	if c.result.RoutingNS, c.result.RoutingAllocs, err = r.timed(byParameter); err != nil {
		return err
	}
	c.printf("\nrouting a statement (its plan known, a parameter for its key): %.0f ns, %d allocations\n", c.result.RoutingNS, c.result.RoutingAllocs)
	return nil
}
