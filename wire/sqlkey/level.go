package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The bounds on one statement's analysis: beyond them a statement is refused, so that a stranger's cannot cost too much.
const (
	maxKeyedRefs = 100
	maxFacts     = 1000
)

// analysis collects what a statement's tables and keys are.
//
// The rule that it goes by: a statement may run on one shard alone if, for each reference to a sharded table, the rows with
// other keys could not change the result. So every reference, on every query level, needs its own key: an equality that
// holds for every row of that reference that can reach the level's result.
type analysis struct {
	db    *database
	env   *Env
	path  *path
	known *builtins
	fold  *fold // nil: nothing is taken out of the statement

	seen     int      // references to tables that were visited, to be compared with those there are
	keyed    []*ref   // to sharded tables
	plain    []string // unsharded tables
	copied   []*table // reference tables
	changed  []*table // those of them that are written
	own      string   // what in that each server would compute for itself; "": nothing
	schemas  []string // listed ones, in which something is named: see tenants
	tables   []string // all, in order
	catalogs bool     // a system catalog is named

	view      bool   // it makes a view: what it reads is read on each shard by itself, when that is asked for
	made      string // what it makes, among plain: a new table, which has no shard yet
	elsewhere bool   // something is named with a schema that is not listed
	facts     int

	bound   []bound  // constants of a text that shares its plan, as they were compared with key columns
	watch   any      // a query level whose place is of interest
	watched place    // that
	sought  *sought  // the last query that something was looked for in
	spread  *spread  // not nil: whether it is spread over the keys is asked
	rows    []row    // to insert into sharded tables
	each    []*table // that eachShard was told of
	problem *refusal // the first thing that can never be routed
	firm    bool     // there is something that no hint makes right

	top     any         // the statement itself: a message of the parse tree
	rekeyed *issue      // it is an UPDATE that sets key columns; nil: it is not
	parts   []*analysis // of what changes rows in WITH, if it is asked whether it is spread
	stuck   *issue      // why one of these cannot be spread by itself
	unnamed *table      // it is an INSERT into it that names no columns; nil: it is not
}

// refusal is a statement that cannot be routed, or a part of it.
type refusal struct {
	issue
	table *table
	each  bool   // by eachShard
	many  string // a clause: why all shards together cannot run it either; "" if that is not the point
}

func (a *analysis) refuse(t *table, i *issue) {
	if a.problem == nil {
		a.problem = &refusal{issue: *i, table: t}
	}
}

// relation resolves the name of a table and counts it. The result is nil for tables without a key.
func (a *analysis) relation(rv *pgquery.RangeVar) *table {
	a.seen++
	t, kind := a.resolve(rv)
	name := qualified(rv.GetSchemaname(), rv.GetRelname())
	switch kind {
	case keyedTable:
		if name = t.String(); rv.GetSchemaname() == "" {
			a.refuseTwoMeanings(t)
		}
	case schemaTable:
		for _, s := range a.schemasOf(rv) {
			a.ofSchema(s)
		}
		t = nil
	case copiedTable:
		if name = t.String(); rv.GetSchemaname() == "" { // or what is called so in a listed schema
			for _, s := range pathSchemas(a.db, a.path) {
				a.ofSchema(s)
			}
		}
		a.copied = append(a.copied, t)
		t = nil
	case catalogTable:
		a.catalogs = true
	case dependentTable:
		name = t.String()
		if a.view {
			a.eachShard(t, "a view of it")
		} else {
			a.refuseDependent(t)
		}
		t = nil
	default:
		a.plain = append(a.plain, name)
	}
	a.tables = append(a.tables, name)
	if c := rv.GetCatalogname(); c != "" && c != a.env.Database {
		a.firm = a.firm || kind == copiedTable
		a.refuse(t, issuef("table %s.%s is in another database", quoteName(c), name))
	}
	return t
}

// schemasOf are the listed schemas in which a name may be found.
func (a *analysis) schemasOf(rv *pgquery.RangeVar) []string {
	if rv.GetSchemaname() != "" {
		return []string{rv.GetSchemaname()}
	}
	return pathSchemas(a.db, a.path)
}

type tableKind uint8

const (
	plainTable tableKind = iota
	keyedTable
	copiedTable
	schemaTable // in a listed schema, or along a search path that has one
	catalogTable
	dependentTable
)

func (a *analysis) resolve(rv *pgquery.RangeVar) (*table, tableKind) {
	schema, name := rv.GetSchemaname(), rv.GetRelname()
	switch schema {
	case "":
	case "pg_catalog", "information_schema":
		return nil, catalogTable
	default:
		if t, kind := a.kindOf(tableName{schema, name}); t != nil || a.db.tenants[schema] == nil {
			return t, kind
		}
		return nil, schemaTable
	}
	if a.path.builtinsFirst && a.known.relations[name] {
		return nil, catalogTable
	}
	listed := false
	for _, s := range a.path.schemas {
		if s == "pg_catalog" && a.known.relations[name] {
			return nil, catalogTable
		}
		if t, kind := a.kindOf(tableName{s, name}); t != nil {
			return t, kind
		}
		listed = listed || a.db.tenants[s] != nil
	}
	if listed {
		return nil, schemaTable
	}
	return nil, plainTable
}

func (a *analysis) kindOf(name tableName) (*table, tableKind) {
	t := a.db.relation(name)
	switch {
	case t == nil:
		return nil, plainTable
	case t.of != nil:
		return t, dependentTable
	case t.keyspace.whole:
		return t, copiedTable
	}
	return t, keyedTable
}

// addRef makes the reference of a table and, if it has a key, puts it among those that need one.
func (a *analysis) addRef(rv *pgquery.RangeVar, t *table) *ref {
	r := &ref{alias: rv.GetRelname(), table: t}
	if al := rv.GetAlias(); al != nil {
		r.alias, r.renames = al.GetAliasname(), len(al.GetColnames()) > 0
	} else if t != nil {
		r.schema = t.schema
	}
	if t != nil {
		r.keys = make([]*binding, len(t.columns))
		a.keyed = append(a.keyed, r)
		if len(a.keyed) > maxKeyedRefs {
			a.refuse(t, issuef("it names sharded tables more than %d times", maxKeyedRefs))
		}
	}
	return r
}

// query analyses a statement that may stand inside another.
func (a *analysis) query(n *pgquery.Node, at place) {
	switch {
	case n.GetSelectStmt() != nil:
		a.selects(n.GetSelectStmt(), at)
	case n.GetInsertStmt() != nil:
		a.insert(n.GetInsertStmt(), at)
	case n.GetUpdateStmt() != nil:
		a.update(n.GetUpdateStmt(), at)
	case n.GetDeleteStmt() != nil:
		a.delete(n.GetDeleteStmt(), at)
	case n.GetMergeStmt() != nil:
		a.merge(n.GetMergeStmt(), at)
	}
	// Anything else leaves its tables unseen, which is refused.
}

// with analyses the queries of WITH. One that owner, the statement with it, names once is analysed there instead, as a subquery.
func (a *analysis) with(w *pgquery.WithClause, at place, owner proto.Message) place {
	if w == nil {
		return at
	}
	c := &ctes{parent: at.ctes, names: make(map[string]bool)}
	inside := place{at.scope, at.facts, c}
	if w.GetRecursive() {
		for _, n := range w.GetCtes() {
			c.names[n.GetCommonTableExpr().GetCtename()] = true
		}
	}
	for _, n := range w.GetCtes() {
		name, query := n.GetCommonTableExpr().GetCtename(), n.GetCommonTableExpr().GetCtequery()
		c = &ctes{parent: c, names: map[string]bool{name: true}}
		if a.spread != nil && changes(query) {
			if w.GetRecursive() {
				a.stuck = issuef("it changes rows in WITH RECURSIVE")
			} else {
				c.changing = a.change(n.GetCommonTableExpr(), inside)
			}
		} else if owner != nil && !w.GetRecursive() && query.GetSelectStmt() != nil && len(n.GetCommonTableExpr().GetAliascolnames()) == 0 && namedOnce(owner, name) {
			c.once = map[string]*subquery{name: {query, inside}}
		} else {
			a.query(query, inside)
		}
		inside.ctes = c
	}
	return inside
}

// namedOnce tells whether a statement has one table reference by a name.
func namedOnce(owner proto.Message, name string) bool {
	n := 0
	walk(owner, func(x any) bool {
		switch x := x.(type) {
		case *pgquery.LockingClause:
			return false
		case *pgquery.RangeVar:
			if x.GetSchemaname() == "" && x.GetRelname() == name {
				n++
			}
		}
		return true
	})
	return n == 1
}

// selects analyses one query level. at.scope and at.facts are those of the level around it.
func (a *analysis) selects(s *pgquery.SelectStmt, at place) {
	at = a.with(s.GetWithClause(), at, s)
	if into := s.GetIntoClause(); into != nil {
		a.creates(into.GetRel())
	}
	if s.GetOp() != pgquery.SetOperation_SETOP_NONE {
		a.selects(s.GetLarg(), at)
		a.selects(s.GetRarg(), at)
		a.subqueries(at, s.GetSortClause()...)
		a.subqueries(at, s.GetLimitOffset(), s.GetLimitCount())
		return
	}
	a.selectsRest(s, a.level(s, nil, s.GetFromClause(), s.GetWhereClause(), at))
}

// selectsRest analyses what stands in a query beside FROM and WHERE.
func (a *analysis) selectsRest(s *pgquery.SelectStmt, inside place) {
	for _, list := range [][]*pgquery.Node{
		s.GetDistinctClause(), s.GetTargetList(), s.GetGroupClause(), s.GetWindowClause(), s.GetValuesLists(), s.GetSortClause(),
		{s.GetHavingClause(), s.GetLimitOffset(), s.GetLimitCount()},
	} {
		a.subqueries(inside, list...)
	}
}

// level analyses a FROM and a WHERE clause: it finds the items and what holds of them, and gives every sharded table among
// them its key if there is one. It returns the place of the level's other expressions.
func (a *analysis) level(owner any, target *ref, from []*pgquery.Node, where *pgquery.Node, at place) place {
	return a.bindLevel(a.build(owner, target, from, where, at), at.facts)
}

// built is a level of which the keys are not known yet.
type built struct {
	owner any
	at    place
	where *pgquery.Node
	scope *scope
	items []*item
	list  []fact // that hold for each of its rows
	from  *builder
}

// build finds a level's items and what holds of them.
func (a *analysis) build(owner any, target *ref, from []*pgquery.Node, where *pgquery.Node, at place) *built {
	s := &scope{parent: at.scope, merged: make(map[string]*ref)}
	b := &builder{analysis: a, scope: s, at: at}
	var items []*item
	if target != nil {
		items = append(items, b.leaf(target))
	}
	for _, n := range from {
		items = append(items, b.item(n))
	}
	s.refs = nil
	for _, it := range items {
		s.refs = append(s.refs, it.visible...)
	}
	list := a.conditions(where, s)
	for before := -1; ; { // each full join that is reduced may show that more is there
		all := slices.Clone(list)
		for _, it := range items {
			all = append(all, it.holds()...)
		}
		present := unlock(all)
		if len(present) == before {
			break
		}
		before = len(present)
		for _, it := range items {
			it.reduce(present)
		}
	}
	for _, it := range items {
		list = append(list, it.holds()...)
	}
	for _, it := range items {
		it.mayMiss(false)
	}
	if a.sought != nil && a.sought.in == owner {
		list = a.paired(a.sought, list, s, at)
	}
	if a.spread != nil && a.spread.owner == owner {
		list = a.spread.pickFrom(items, list)
	}
	unlock(list)
	l := &built{owner, at, where, s, items, list, b}
	for _, it := range items {
		it.standIn(l)
	}
	return l
}

// bindLevel gives the tables of a level their keys. f is what holds around it.
func (a *analysis) bindLevel(l *built, f *facts) place {
	b, items, where, owner := l.from, l.items, l.where, l.owner
	inside := place{l.scope, f.with(l.list), l.at.ctes}
	if a.spread != nil && a.spread.owner == owner {
		a.spread.inside = inside
	}
	if a.watch == owner {
		a.watch, a.watched = nil, inside
	}
	for _, it := range items {
		b.bind(it, inside.facts)
	}
	a.subqueries(inside, where)
	return inside
}

// subqueries analyses every query inside the expressions.
func (a *analysis) subqueries(at place, exprs ...*pgquery.Node) {
	for _, e := range exprs {
		walk(e, func(n any) bool {
			switch n := n.(type) {
			case *pgquery.SelectStmt:
				a.selects(n, at)
				return false
			case *pgquery.SubLink:
				if m := membership(n); m != nil {
					a.subqueries(at, n.GetTestexpr())
					a.sought = m
					a.selects(m.in, at)
					return false
				}
			}
			return true
		})
	}
}

// countTables counts the table references of a tree, so that none can have been missed.
func countTables(m proto.Message) (n int) {
	walk(m, func(x any) bool {
		switch x.(type) {
		case *pgquery.RangeVar:
			n++
		case *pgquery.LockingClause: // names of FROM items, not of tables
			return false
		}
		return true
	})
	return n
}
