package sqlkey

import (
	"maps"
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// item is a node of a FROM clause's join tree.
type item struct {
	visible []*ref // what the rest of the level can name

	// a leaf
	ref     *ref
	query   *pgquery.Node // a subquery
	around  *place        // that it was written in, if that is not where it stands
	inner   *derived      // the same, if its key columns can be followed
	known   []fact        // what holds of it, of what a part of WITH returns
	exprs   []*pgquery.Node
	lateral bool
	before  []*ref // what a LATERAL item sees to its left

	// a join
	left, right *item
	kind        pgquery.JoinType
	on          []fact
	quals       *pgquery.Node
	sees        []*ref // what the condition can name
}

// builder makes the join tree of one query level.
type builder struct {
	*analysis
	scope *scope // refs: what was built so far
	at    place  // the level around
}

func (b *builder) leaf(r *ref) *item {
	b.scope.refs = append(b.scope.refs, r)
	return &item{ref: r, visible: []*ref{r}}
}

func (b *builder) item(n *pgquery.Node) *item {
	before := b.scope.refs[:len(b.scope.refs):len(b.scope.refs)]
	switch {
	case n.GetRangeVar() != nil:
		rv := n.GetRangeVar()
		if rv.GetSchemaname() == "" && rv.GetCatalogname() == "" && b.at.ctes.has(rv.GetRelname()) {
			b.seen++
			if c := b.at.ctes.returns(rv.GetRelname()); c != nil {
				return b.returned(rv, c)
			}
			it := b.leaf(b.addRef(rv, nil))
			if q := b.at.ctes.find(rv.GetRelname()); q != nil {
				it.query, it.around = q.query, &q.at
				b.derive(it, q.at)
			}
			return it
		}
		return b.leaf(b.addRef(rv, b.relation(rv)))
	case n.GetJoinExpr() != nil:
		return b.join(n.GetJoinExpr())
	case n.GetRangeSubselect() != nil:
		s := n.GetRangeSubselect()
		it := b.leaf(&ref{alias: s.GetAlias().GetAliasname(), renames: len(s.GetAlias().GetColnames()) > 0})
		it.query, it.lateral, it.before = s.GetSubquery(), s.GetLateral(), before
		it.ref.row = rowOf(s.GetSubquery().GetSelectStmt(), s.GetAlias())
		if !it.lateral {
			b.derive(it, b.at)
		}
		return it
	case n.GetRangeTableSample() != nil:
		s := n.GetRangeTableSample()
		it := b.item(s.GetRelation())
		it.exprs = append(append(it.exprs, s.GetArgs()...), s.GetRepeatable())
		return it
	}
	// A function, XMLTABLE, JSON_TABLE: its expressions may hold queries. All of these see what stands to their left.
	var alias *pgquery.Alias
	switch {
	case n.GetRangeFunction() != nil:
		alias = n.GetRangeFunction().GetAlias()
	case n.GetRangeTableFunc() != nil:
		alias = n.GetRangeTableFunc().GetAlias()
	case n.GetJsonTable() != nil:
		alias = n.GetJsonTable().GetAlias()
	}
	name := alias.GetAliasname()
	if name == "" { // a function's columns may then be qualified by its name
		if f := n.GetRangeFunction().GetFunctions(); len(f) > 0 {
			if l := f[0].GetList().GetItems(); len(l) > 0 {
				if names := l[0].GetFuncCall().GetFuncname(); len(names) > 0 {
					name = names[len(names)-1].GetString_().GetSval()
				}
			}
		}
	}
	it := b.leaf(&ref{alias: name, value: givesValues(n.GetRangeFunction())})
	it.exprs, it.lateral, it.before = []*pgquery.Node{n}, true, before
	return it
}

// givesValues tells whether a function in FROM gives one value a row, in a column that is called as the item is unless its alias says otherwise.
func givesValues(f *pgquery.RangeFunction) bool {
	list := f.GetFunctions()
	if len(list) != 1 || len(f.GetColdeflist()) > 0 || f.GetOrdinality() && len(f.GetAlias().GetColnames()) > 0 {
		return false
	}
	items := list[0].GetList().GetItems()
	if len(items) == 0 || items[0].GetFuncCall() == nil || len(list[0].GetList().GetItems()) > 1 && len(items[1].GetList().GetItems()) > 0 {
		return false
	}
	switch name := operator(items[0].GetFuncCall().GetFuncname()); name {
	case "generate_series", "generate_subscripts", "string_to_table", "regexp_split_to_table":
		return true
	case "unnest":
		return len(items[0].GetFuncCall().GetArgs()) == 1
	}
	return false
}

func (b *builder) join(j *pgquery.JoinExpr) *item {
	it := &item{kind: j.GetJointype(), quals: j.GetQuals()}
	start := len(b.scope.refs)
	it.left = b.item(j.GetLarg())
	it.right = b.item(j.GetRarg())
	it.sees = append(append([]*ref{}, it.left.visible...), it.right.visible...)
	it.visible = it.sees
	switch {
	case j.GetIsNatural():
		for _, name := range it.keyColumns() {
			b.using(it, name, true)
		}
	case len(j.GetUsingClause()) > 0:
		for _, n := range j.GetUsingClause() {
			b.using(it, n.GetString_().GetSval(), false)
		}
	default:
		it.on = b.conditions(j.GetQuals(), b.scope.within(it.sees))
	}
	if al := j.GetAlias(); al != nil {
		// Only the alias can be named outside. What a column of it is, is not followed.
		it.visible = []*ref{{alias: al.GetAliasname()}}
		b.scope.refs = append(b.scope.refs[:start:start], it.visible...)
	}
	return it
}

// keyColumns are the names of all key columns that can be named below, each once.
func (it *item) keyColumns() (names []string) {
	for _, r := range it.sees {
		if r.renames {
			continue
		}
		columns := slices.Sorted(maps.Keys(r.exports))
		if r.table != nil {
			columns = r.table.columns
		}
		for _, c := range columns {
			if !slices.Contains(names, c) {
				names = append(names, c)
			}
		}
	}
	return names
}

// using joins the two sides on the column name. With maybe, as in a NATURAL join, a side may lack it unless it is certain
// to have it.
func (b *builder) using(it *item, name string, maybe bool) {
	l, lok := b.side(it.left, name)
	r, rok := b.side(it.right, name)
	if lok && rok && l.typ() == r.typ() {
		it.on = append(it.on, fact{a: l, b: r})
	}
	// Which side's value the merged column has.
	var merged *ref
	switch it.kind {
	case pgquery.JoinType_JOIN_INNER, pgquery.JoinType_JOIN_LEFT:
		if lok {
			merged = l.ref
		}
	case pgquery.JoinType_JOIN_RIGHT:
		if rok {
			merged = r.ref
		}
	}
	if maybe && !lok && !rok {
		return
	}
	b.scope.merged[name] = merged
}

// side finds the key column that name means on one side of a join.
func (b *builder) side(it *item, name string) (column, bool) {
	r, _ := (&scope{refs: it.visible, merged: b.scope.merged}).unqualified(name)
	return r.key(name)
}

// holds are the facts that are true of every row that comes out of an item, and of an outer join those that are true where
// the side that may be missing is there.
func (it *item) holds() []fact {
	if it.left == nil {
		if it.inner != nil {
			return slices.Clone(it.inner.level.list)
		}
		return slices.Clone(it.known)
	}
	l, r := it.left.holds(), it.right.holds()
	switch it.kind {
	case pgquery.JoinType_JOIN_INNER:
		return slices.Concat(l, r, it.on)
	case pgquery.JoinType_JOIN_LEFT:
		return append(l, guarded(slices.Concat(r, it.on), it.right.leaves())...)
	case pgquery.JoinType_JOIN_RIGHT:
		return append(r, guarded(slices.Concat(l, it.on), it.left.leaves())...)
	}
	return append(guarded(l, it.left.leaves()), guarded(r, it.right.leaves())...)
}

// matching are the facts that are true of the rows of a side for which the join's condition is true.
func (it *item) matching(side *item) []fact {
	list := slices.Concat(side.holds(), it.on)
	unlock(list)
	return list
}

// reduce makes outer joins what they are if some of the items are there in every row that matters: a full join whose left side is there is a
// left join. What else they turn into shows in their facts (see unlock).
func (it *item) reduce(present map[*ref]bool) {
	if it.left == nil {
		return
	}
	is := func(r *ref) bool { return present[r] }
	if it.kind == pgquery.JoinType_JOIN_FULL {
		l, r := slices.ContainsFunc(it.left.leaves(), is), slices.ContainsFunc(it.right.leaves(), is)
		switch {
		case l && r:
			it.kind = pgquery.JoinType_JOIN_INNER
		case l:
			it.kind = pgquery.JoinType_JOIN_LEFT
		case r:
			it.kind = pgquery.JoinType_JOIN_RIGHT
		}
	}
	it.left.reduce(present)
	it.right.reduce(present)
}

// leaves are all items below.
func (it *item) leaves() []*ref {
	if it.left == nil {
		list := []*ref{it.ref}
		if it.inner != nil {
			for _, in := range it.inner.level.items {
				list = append(list, in.leaves()...)
			}
		}
		return list
	}
	return append(it.left.leaves(), it.right.leaves()...)
}

// standIn notes the level that the items below are of.
func (it *item) standIn(l *built) {
	if it.left == nil {
		it.ref.level = l
		return
	}
	it.left.standIn(l)
	it.right.standIn(l)
}

// bind gives the sharded tables below an item their keys and analyses the queries there. f is what holds of the rows that
// reach the level's result.
//
// A row on the side of an outer join that may be missing matters only if the join's condition is true of it: either it is
// then part of the result, or it keeps a row of NULLs out, which happens only to rows of the other side that matter
// themselves. So the condition counts for that side, and never for the one that is kept.
func (b *builder) bind(it *item, f *facts) {
	if it.left == nil {
		b.bindLeaf(it, f)
		return
	}
	l, r := f, f
	switch it.kind {
	case pgquery.JoinType_JOIN_INNER: // what holds of it is in f
	case pgquery.JoinType_JOIN_LEFT:
		r = f.with(it.matching(it.right))
	case pgquery.JoinType_JOIN_RIGHT:
		l = f.with(it.matching(it.left))
	default:
		l, r = f.with(it.left.holds()), f.with(it.right.holds())
	}
	b.bind(it.left, l)
	b.bind(it.right, r)
	b.subqueries(place{b.scope.within(it.sees), b.at.facts, b.at.ctes}, it.quals)
}

func (b *builder) bindLeaf(it *item, f *facts) {
	if t := it.ref.table; t != nil {
		for i := range t.columns {
			it.ref.keys[i] = f.value(column{it.ref, i})
		}
	}
	around := b.at
	switch {
	case it.lateral:
		around = place{b.scope.within(it.before), f, b.at.ctes}
	case it.around != nil:
		around = *it.around
	}
	switch {
	case it.inner != nil:
		b.selectsRest(it.inner.query, b.bindLevel(it.inner.level, f))
	case it.query != nil:
		b.query(it.query, around)
	}
	b.subqueries(place{b.scope.within(it.before), b.at.facts, b.at.ctes}, it.exprs...)
}
