package node

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/oids"
	"rangefinder/wire/sqlkey"
)

// typesEvery is the time between two looks at the types of all shards that nothing calls for.
const typesEvery = time.Minute

// types is what this node knows of the types of databases that have several shards, as the catalogs of all of these have them: which numbers
// belong together. See package oids.
type types struct {
	learned[*oids.Database]

	begun atomic.Uint64 // looks

	// guarded by looking
	done  uint64                           // the last look that is over
	whole bool                             // it has seen all
	read  map[string]map[string]shardTypes // by database and shard
}

// shardTypes are those of a database on one shard.
type shardTypes struct {
	sum  string // see oids.Sum
	list []oids.Type
}

// alarms says of which databases what is known may be old.
func (t *types) alarms() []string {
	return t.learned.alarms("types in database %s are those last seen, newer ones are told to clients as unknown: %s")
}

// learnTypes is called when somebody has met a type that is not among those known.
func (n *Node) learnTypes(ctx context.Context, _ string) (whole bool) {
	if whole = n.renewTypes(ctx); !whole {
		n.stirDependents()
	}
	return whole
}

// renewTypes looks at the types of all shards, and has sessions go by what is found. The result is false if something could not be seen. A
// look that others have begun since does as well.
func (n *Node) renewTypes(ctx context.Context) (whole bool) {
	t := &n.types
	want := t.begun.Load() + 1
	t.looking.Lock()
	defer t.looking.Unlock()
	if t.done >= want {
		return t.whole
	}
	turn := t.begun.Add(1)
	bounded, cancel := context.WithTimeout(ctx, dependentsAsk)
	defer cancel()
	changed, why := n.lookAtTypes(bounded)
	t.done, t.whole = turn, len(why) == 0
	if changed {
		t.tell()
	}
	if ctx.Err() == nil { // else who has not waited tells nothing of the shards
		t.fail(why)
	}
	return t.whole
}

// lookAtTypes asks all shards of each database that has several. Where there is no answer, what was known stays. It tells whether anything has changed, and
// by database why something could not be read.
func (n *Node) lookAtTypes(ctx context.Context) (changed bool, why map[string]string) {
	type place struct{ database, shard string }
	t := &n.types
	o := n.fib.Load().Ownership()
	rules := n.cfg().databaseRules()
	catalog := sqlkey.NewCatalog(o, rules, nil)
	var places []place
	for i := range o.Keyspaces {
		database := o.Keyspaces[i].Database
		shards := catalog.Shards(database)
		if _, ok := rules[database]; !ok || len(shards) < 2 || slices.ContainsFunc(places, func(p place) bool { return p.database == database }) {
			continue
		}
		for _, shard := range shards {
			places = append(places, place{database, shard})
		}
	}
	names := make([]string, len(places))
	found, failed := make([]shardTypes, len(places)), make([]error, len(places))
	for i, p := range places {
		names[i], found[i] = p.shard, t.read[p.database][p.shard]
	}
	n.eachShard(names, func(i int) {
		failed[i] = n.typesOn(ctx, places[i].shard, places[i].database, &found[i])
	})
	read, known := make(map[string]map[string]shardTypes), make(map[string]*oids.Database)
	why = make(map[string]string)
	for i, p := range places {
		if read[p.database] == nil {
			read[p.database] = make(map[string]shardTypes)
		}
		read[p.database][p.shard] = found[i]
		if failed[i] != nil {
			why[p.database] = failed[i].Error()
		}
	}
	for database, shards := range read {
		reference, old := catalog.CatalogShard(database), t.get()[database]
		same := func(a, b shardTypes) bool { return a.sum == b.sum }
		if old != nil && old.Reference() == reference && maps.EqualFunc(shards, t.read[database], same) {
			known[database] = old
			continue
		}
		changed = true
		lists := make(map[string][]oids.Type)
		for shard, s := range shards {
			lists[shard] = s.list
		}
		known[database] = oids.Make(reference, lists)
	}
	if changed = changed || len(known) != len(t.get()); changed {
		t.read = read
		t.known.Store(&known)
	}
	return changed, why
}

// typesOn reads the types on a shard, if they have changed.
func (n *Node) typesOn(ctx context.Context, shard, database string, to *shardTypes) error {
	return n.askCatalogs(ctx, shard, database, func(conn *pgx.Conn) error {
		ask := func(ctx context.Context, sql string, args ...any) (oids.Rows, error) {
			return conn.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
		}
		sum, err := oids.Sum(ctx, ask)
		if err != nil || sum == to.sum {
			return err
		}
		list, err := oids.Read(ctx, ask)
		if err == nil {
			to.sum, to.list = sum, list
		}
		return err
	})
}
