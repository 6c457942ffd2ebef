package node

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster"
	"rangefinder/rib"
	"rangefinder/wire/sqlkey"
)

const (
	dependentsTick  = 200 * time.Millisecond // how soon another ownership is noticed
	dependentsEvery = 10 * time.Second       // between two looks at a shard's catalogs
	dependentsRetry = 2 * time.Second        // after a look without an answer
	dependentsGap   = 500 * time.Millisecond // between two looks because of news: there may be some without end, true ones or made up
	dependentsAsk   = 5 * time.Second        // one look
	dependentsWait  = 3 * time.Second        // for the first look, before clients are let in
	maxDependents   = 100_000                // of one database
	maxWarnings     = 20                     // about a keyspace that was made
)

// dependents is what this node knows of the relations that depend on sharded tables, as the shards' catalogs have it: views,
// partitions and their like. The planner refuses statements that name them.
type dependents struct {
	learned[[]sqlkey.Dependent]

	stirred chan struct{} // capacity 1: something may be otherwise than it was seen last
}

// alarms says of which databases what is known may be old.
func (d *dependents) alarms() []string {
	return d.learned.alarms("views and partitions of sharded tables in database %s are those last seen, new ones are not refused: %s")
}

// awaitDependents looks for the first time, for a bounded time: a client that names a view over a sharded table would be answered from
// one shard alone.
func (n *Node) awaitDependents(ctx context.Context) error {
	n.waits("reading from the shards which views and partitions depend on sharded tables")
	bounded, cancel := context.WithTimeout(ctx, dependentsWait)
	defer cancel()
	for !n.lookAtDependents(bounded) || !n.renewTypes(bounded) {
		if !pause(bounded, 50*time.Millisecond) {
			break
		}
	}
	return ctx.Err()
}

// dependentsLoop looks again, now and then and whenever the ownership has changed.
func (n *Node) dependentsLoop(ctx context.Context) {
	var seen *rib.Ownership
	var next, nextTypes, looked time.Time
	stirred := false
	tick := time.NewTicker(dependentsTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dependents.stirred:
			stirred = true
		case <-tick.C:
		}
		o := n.fib.Load().Ownership()
		if stirred && time.Since(looked) >= dependentsGap {
			seen = nil
		}
		if !n.whole.Load() || o == seen && time.Now().Before(next) {
			continue
		}
		stirred = false
		wait := dependentsEvery
		if !n.renewDependents(ctx) {
			wait = dependentsRetry
		}
		if o != seen || !time.Now().Before(nextTypes) {
			nextTypes = time.Now().Add(typesEvery)
			if !n.renewTypes(ctx) {
				wait, nextTypes = dependentsRetry, time.Now()
			}
		}
		looked = time.Now()
		seen, next = o, looked.Add(wait)
	}
}

// renewDependents looks, and has plans stand on what is found. The result is false if something could not be seen.
func (n *Node) renewDependents(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dependentsAsk)
	defer cancel()
	n.dependents.looking.Lock()
	defer n.dependents.looking.Unlock()
	before := n.dependents.get()
	whole := n.lookAtDependents(ctx)
	if !reflect.DeepEqual(before, n.dependents.get()) {
		n.dependents.tell()
	}
	return whole
}

// schemaChanged is called when a client has changed a database's schema through this node. It returns when plans stand on the new one, or ctx has
// ended. The others look at the same time.
func (n *Node) schemaChanged(ctx context.Context, _ string) {
	n.speaker().Schema()
	done := make(chan bool, 1)
	go func() { done <- n.renewTypes(ctx) }()
	if whole := n.renewDependents(ctx); !<-done || !whole {
		n.stirDependents()
	}
}

// stirDependents has dependentsLoop look at once, and again until it has seen all. Gossip calls it when a client of another node has changed a schema.
func (n *Node) stirDependents() {
	select {
	case n.dependents.stirred <- struct{}{}:
	default:
	}
}

// lookAtDependents asks one shard of each database that has a keyspace. Where there is no answer, what was known stays, and the result is
// false.
func (n *Node) lookAtDependents(ctx context.Context) bool {
	o := n.fib.Load().Ownership()
	rules := n.cfg().databaseRules()
	catalog := sqlkey.NewCatalog(o, rules, nil)
	tables := make(map[string][]rib.KeyedTable)
	for i := range o.Keyspaces {
		k := &o.Keyspaces[i]
		switch _, ok := rules[k.Database]; {
		case !ok: // no client gets there
		case k.Reference(): // what reads a table that is whole knows all rows
			tables[k.Database] = append(tables[k.Database], k.Tables[:0]...)
		default:
			tables[k.Database] = append(tables[k.Database], k.Tables...)
		}
	}
	databases := slices.Sorted(maps.Keys(tables))
	found, failed := make([][]sqlkey.Dependent, len(databases)), make([]error, len(databases))
	n.eachShard(databases, func(i int) { // all that is in no keyspace is sent to the database's own shard: what is there counts
		home := catalog.Home(databases[i])
		if home != "" {
			found[i], failed[i] = n.dependentsOn(ctx, home, databases[i], tables[databases[i]], o)
		}
		var defaults []sqlkey.Dependent
		if failed[i] == nil {
			defaults, failed[i] = n.defaultsElsewhere(ctx, o, home, databases[i])
			found[i] = append(found[i], defaults...)
		}
	})
	known, why := make(map[string][]sqlkey.Dependent), make(map[string]string)
	for i, database := range databases {
		if known[database] = found[i]; failed[i] != nil {
			known[database], why[database] = n.dependents.get()[database], failed[i].Error()
		}
	}
	n.dependents.known.Store(&known)
	n.dependents.fail(why)
	return len(why) == 0
}

// defaultsElsewhere is what is to be known of columns of tables of which a database's own shard has no part.
func (n *Node) defaultsElsewhere(ctx context.Context, o *rib.Ownership, home, database string) (list []sqlkey.Dependent, err error) {
	asked := make(map[string][]sqlkey.Dependent)
	for i := range o.Keyspaces {
		k := &o.Keyspaces[i]
		shards := k.Shards()
		if k.Database != database || len(shards) == 0 || k.BySchema() || slices.Contains(shards, home) {
			continue
		}
		if _, ok := asked[shards[0]]; !ok {
			if asked[shards[0]], err = n.dependentsOn(ctx, shards[0], database, nil, o); err != nil {
				return nil, err
			}
		}
		for _, d := range asked[shards[0]] {
			if slices.ContainsFunc(k.Tables, func(t rib.KeyedTable) bool { return t.Schema == d.Schema && t.Name == d.Name }) {
				list = append(list, d)
			}
		}
	}
	return list, nil
}

// warnDependents names what is refused from now on because a keyspace was made.
func (n *Node) warnDependents(ctx context.Context, made *rib.Keyspace) (warnings []string) {
	ctx, cancel := context.WithTimeout(ctx, dependentsAsk)
	defer cancel()
	o := n.table.Owners().Get()
	home := sqlkey.NewCatalog(o, n.cfg().databaseRules(), nil).Home(made.Database)
	if home == "" {
		return nil
	}
	list, err := n.dependentsOn(ctx, home, made.Database, made.Tables, o)
	if err != nil {
		return []string{"which views and partitions depend on its tables is not known yet: " + err.Error()}
	}
	keyed := make(map[tableName]bool)
	for i := range o.Keyspaces {
		for _, t := range o.Keyspaces[i].Tables {
			keyed[tableName{o.Keyspaces[i].Database, t.Schema, t.Name}] = true
		}
	}
	list = slices.DeleteFunc(list, func(d sqlkey.Dependent) bool {
		return d.None() || keyed[tableName{made.Database, d.Schema, d.Name}]
	})
	for i, d := range list {
		if i == maxWarnings {
			return append(warnings, fmt.Sprintf("so are %d more relations", len(list)-i))
		}
		warnings = append(warnings, d.String()+": statements that name it are refused")
	}
	return warnings
}

// dependentsSQL finds what has rows of the tables $1 (schemas) and $2 (names), which is what inherits from them, and then what reads
// that: views, views over views, and parents, whose rows are their children's too. Views are found by what their rules depend on. Then there is what is to be
// known of columns, of domains and of functions.
const dependentsSQL = `
WITH RECURSIVE keyed AS (
	SELECT c.oid, k.schema, k.name
	FROM unnest($1::text[], $2::text[]) AS k(schema, name)
	     JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema::name
	     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name::name
), holds(oid, root) AS (
	SELECT oid, oid FROM keyed
	UNION SELECT i.inhrelid, h.root FROM holds h JOIN pg_catalog.pg_inherits i ON i.inhparent = h.oid
), reads(oid, root) AS (
	SELECT oid, root FROM holds
	UNION SELECT x.oid, r.root FROM reads r CROSS JOIN LATERAL (
		SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.oid
		UNION ALL
		SELECT w.ev_class FROM pg_catalog.pg_depend d
		     JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
		     JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
		WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
		  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = r.oid
	) AS x
)
(SELECT DISTINCT ON (n.nspname, c.relname) n.nspname::text, c.relname::text,
       CASE WHEN c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN 'materialized view'
            WHEN r.oid NOT IN (SELECT oid FROM holds) THEN 'parent'
            WHEN c.relispartition THEN 'partition' ELSE 'child' END,
       k.schema, k.name
FROM reads r JOIN keyed k ON k.oid = r.root
     JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.oid NOT IN (SELECT oid FROM keyed)
ORDER BY n.nspname, c.relname, k.schema, k.name
LIMIT $3)
UNION ALL
(SELECT n.nspname::text, c.relname::text, 'unique id', '', a.attname::text
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
     JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
     JOIN pg_catalog.pg_class c ON c.oid = f.adrelid AND c.relpersistence <> 't' JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass
  AND d.refobjid = pg_catalog.to_regprocedure('rangefinder.unique_id()') AND pg_catalog.pg_get_expr(f.adbin, f.adrelid) = 'rangefinder.unique_id()'
ORDER BY 1, 2, 5
LIMIT $3)
UNION ALL
(SELECT k.schema, k.name, 'key column',
       CASE WHEN a.attgenerated <> '' THEN 'made of other columns' ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END, k.name_of
FROM unnest($4::text[], $5::text[], $6::text[], $7::text[]) AS k(schema, name, name_of, types)
     JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema::name
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name::name
     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = k.name_of::name AND a.attnum > 0 AND NOT a.attisdropped
     CROSS JOIN LATERAL (
	WITH RECURSIVE below AS ( -- a domain stores what the type below it makes of a value
		SELECT a.atttypid AS type, a.atttypmod AS modifier
		UNION ALL
		SELECT t.typbasetype, t.typtypmod FROM below JOIN pg_catalog.pg_type t ON t.oid = below.type AND t.typtype = 'd')
	SELECT pg_catalog.format_type(below.type, below.modifier) AS name FROM below JOIN pg_catalog.pg_type t ON t.oid = below.type AND t.typtype <> 'd') AS plain
WHERE a.attgenerated <> '' OR plain.name <> ALL (string_to_array(k.types, '|'))
ORDER BY 1, 2, 5
LIMIT $3)
UNION ALL
(SELECT k.schema, k.name, 'own default', '', a.attname::text
FROM unnest($8::text[], $9::text[]) AS k(schema, name)
     JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema::name
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name::name
     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE ` + cluster.OwnDefault + `
ORDER BY 1, 2, 5
LIMIT $3)
UNION ALL
(SELECT k.schema, k.name, 'columns', '', (
	SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum)::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM (SELECT * FROM unnest($4::text[], $5::text[]) UNION SELECT * FROM unnest($8::text[], $9::text[])) AS k(schema, name)
     JOIN pg_catalog.pg_namespace n ON n.nspname = k.schema::name
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = k.name::name
WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
ORDER BY 1, 2
LIMIT $3)
UNION ALL
(SELECT n.nspname::text, t.typname::text, 'domain', plain.name, ''
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     CROSS JOIN LATERAL (
	WITH RECURSIVE below AS (
		SELECT t.oid AS type, -1 AS modifier
		UNION ALL
		SELECT d.typbasetype, d.typtypmod FROM below JOIN pg_catalog.pg_type d ON d.oid = below.type AND d.typtype = 'd')
	SELECT b.typname::text AS name FROM below JOIN pg_catalog.pg_type b ON b.oid = below.type AND b.typcollation = t.typcollation
	WHERE b.typnamespace = 'pg_catalog'::regnamespace AND b.typname IN ('int2', 'int4', 'int8', 'text', 'varchar', 'uuid', 'bytea', 'date', 'timestamptz')
	  AND NOT EXISTS (SELECT FROM below WHERE modifier <> -1)) AS plain
WHERE t.typtype = 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type o WHERE o.typname = t.typname AND o.oid <> t.oid)
ORDER BY 1, 2
LIMIT $3)
UNION ALL
(SELECT '', p.proname::text, 'immutable function', '', ''
FROM pg_catalog.pg_proc p
GROUP BY p.proname
HAVING bool_and(p.provolatile = 'i' AND p.prokind = 'f' AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace))
ORDER BY 2
LIMIT $3)`

// dependentsOn asks where a shard's catalogs are read. What is to be known of columns is asked of the tables that the shard has by o.
func (n *Node) dependentsOn(ctx context.Context, shard, database string, tables []rib.KeyedTable, o *rib.Ownership) (list []sqlkey.Dependent, err error) {
	err = n.askCatalogs(ctx, shard, database, func(conn *pgx.Conn) (err error) {
		list, err = readDependents(ctx, conn, tables, columnsOn(o, shard, database))
		return err
	})
	return list, err
}

// asked are tables of which something of their columns is to be known, as arrays of a query.
type asked struct {
	schemas, names, columns, types []string // of each column of a key: types are those that it may have
	copies                         struct{ schemas, names []string }
}

// columnsOn is what is asked of a shard about columns.
func columnsOn(o *rib.Ownership, shard, database string) (a asked) {
	for i := range o.Keyspaces {
		k := &o.Keyspaces[i]
		if k.Database != database || k.BySchema() || !slices.Contains(k.Shards(), shard) {
			continue
		}
		for _, t := range k.Tables {
			if k.Reference() {
				a.copies.schemas, a.copies.names = append(a.copies.schemas, t.Schema), append(a.copies.names, t.Name)
				continue
			}
			for j, column := range t.Columns {
				types := k.Types[j].String()
				switch k.Types[j] {
				case rib.TypeInt:
					types = "integer"
				case rib.TypeText:
					types = "text|character varying"
				case rib.TypeTimestamptz:
					types = "timestamp with time zone"
				}
				a.schemas, a.names, a.columns, a.types = append(a.schemas, t.Schema), append(a.names, t.Name), append(a.columns, column), append(a.types, types)
			}
		}
	}
	return a
}

func readDependents(ctx context.Context, conn *pgx.Conn, tables []rib.KeyedTable, a asked) ([]sqlkey.Dependent, error) {
	var schemas, names []string
	for i := range tables {
		schemas, names = append(schemas, tables[i].Schema), append(names, tables[i].Name)
	}
	rows, err := conn.Query(ctx, dependentsSQL, pgx.QueryExecModeExec, schemas, names, maxDependents+1, a.schemas, a.names, a.columns, a.types, a.copies.schemas, a.copies.names)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sqlkey.Dependent])
	if err == nil && len(list) > maxDependents {
		err = fmt.Errorf("more than %d relations depend on sharded tables", maxDependents)
	}
	return list, err
}
