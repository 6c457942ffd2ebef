package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// fannedSet takes a set operation apart. Each of its parts must be one whose rows are those of the shards.
func (c *compiler) fannedSet(sel *pgquery.SelectStmt) (*fanned, *issue) {
	if sel.GetWithClause() != nil {
		return nil, issuef("a set operation with WITH before it is not taken apart")
	}
	parts, ops := operands(sel)
	var first *fanned
	keys := true // rows of two parts are equal only if their keys are
	var places []int
	for _, part := range parts {
		a := c.spreads(selectNode(part), part)
		if a == nil || part.GetWithClause() != nil {
			return nil, &issue{code: pg.CodeFeatureNotSupported, reason: "all shards together cannot run a part of its set operation: its tables are not joined by their keys", hint: crossed}
		}
		f := &fanned{a: a, client: part, shard: part, set: true}
		if !f.byKey() {
			return nil, issuef("a part of its set operation is made of rows of several shards")
		}
		at := f.keyPlaces()
		if first == nil {
			first, places = f, at
		}
		if f.a.spread.anchor.table.keyspace != first.a.spread.anchor.table.keyspace {
			return nil, issuef("its set operation has parts in two keyspaces")
		}
		keys = keys && len(at) > 0 && slices.Equal(at, places)
	}
	all, unions := true, true
	for i, op := range ops {
		if i > 0 && (len(op.GetSortClause()) > 0 || op.GetLimitCount() != nil || op.GetLimitOffset() != nil || op.GetWithClause() != nil) {
			return nil, issuef("a part of its set operation is ordered or limited by itself")
		}
		all, unions = all && op.GetAll(), unions && op.GetOp() == pgquery.SetOperation_SETOP_UNION
	}
	switch {
	case keys || unions && all:
	case !unions && len(parts) == 2:
		f := &fanned{a: first.a, client: sel, set: true}
		f.compared()
		return f, nil
	case !unions:
		return nil, issuef("INTERSECT and EXCEPT over several shards need the key among the columns")
	case sel.GetAll():
		return nil, issuef("doubles are removed in a part of its set operation alone")
	}
	f := &fanned{a: first.a, client: sel, shard: cloned(sel), set: true}
	return f, f.ordered(parts[0].GetTargetList(), true, keys || unions && all)
}

// compared takes INTERSECT or EXCEPT of two queries apart, whose rows may be equal though they are of two shards: rows of both are gathered,
// with which query they are of.
func (f *fanned) compared() {
	side := func(i int) *pgquery.SelectStmt {
		s := finalOver()
		s.FromClause = []*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: &pgquery.RangeVar{
			Relname: "rangefinder_rows", Inh: true, Relpersistence: "p", Alias: &pgquery.Alias{Aliasname: "rows"}}}}}
		s.TargetList = []*pgquery.Node{target("", columnRef(FinalColumns))}
		s.WhereClause = operation("=", columnRef("rows", FinalHidden+"1}"), pgquery.MakeAConstIntNode(int64(i), 0))
		return s
	}
	gathered := finalOver()
	gathered.TargetList = []*pgquery.Node{target("", pgquery.MakeColumnRefNode([]*pgquery.Node{pgquery.MakeAStarNode()}, 0))}
	f.final = cloned(f.client)
	f.final.Larg, f.final.Rarg = side(1), side(2)
	f.final.WithClause = &pgquery.WithClause{Ctes: []*pgquery.Node{{Node: &pgquery.Node_CommonTableExpr{CommonTableExpr: &pgquery.CommonTableExpr{
		Ctename: "rangefinder_rows", Ctematerialized: pgquery.CTEMaterialize_CTEMaterializeDefault, Ctequery: selectNode(gathered)}}}}}
	f.shard = cloned(f.client)
	f.shard.Op, f.shard.All = pgquery.SetOperation_SETOP_UNION, true
	f.shard.SortClause, f.shard.LimitCount, f.shard.LimitOffset = nil, nil, nil
	f.shard.LimitOption = pgquery.LimitOption_LIMIT_OPTION_DEFAULT
	for i, part := range []*pgquery.SelectStmt{f.shard.Larg, f.shard.Rarg} {
		part.TargetList = append(part.TargetList, target("rangefinder_1", pgquery.MakeAConstIntNode(int64(i+1), 0)))
	}
	f.changed, f.hidden = true, 1
	f.how = "rows of both are gathered and compared by PostgreSQL"
}

// operands are the queries of a set operation, and its nodes.
func operands(s *pgquery.SelectStmt) (parts, ops []*pgquery.SelectStmt) {
	if s.GetOp() == pgquery.SetOperation_SETOP_NONE {
		return []*pgquery.SelectStmt{s}, nil
	}
	l, lo := operands(s.GetLarg())
	r, ro := operands(s.GetRarg())
	return append(l, r...), append(append([]*pgquery.SelectStmt{s}, lo...), ro...)
}

// keyPlaces are where the key's columns stand among the targets; nil if one does not.
func (f *fanned) keyPlaces() (list []int) {
	for i := range f.a.spread.key {
		at := -1
		for j, t := range f.client.GetTargetList() {
			if isStar(t.GetResTarget().GetVal()) {
				return nil
			}
			if at < 0 && f.a.spread.has(f.a, t.GetResTarget().GetVal(), i) {
				at = j
			}
		}
		if at < 0 {
			return nil
		}
		list = append(list, at)
	}
	return list
}

// nested takes a query apart that has one subquery, or one part of a set operation, with all of its tables but reference tables: that is what shards are asked,
// and all around it is done over their rows, on a shard that has the reference tables too. nil: there is none.
func (c *compiler) nested(sel *pgquery.SelectStmt) *fanned {
	if len(sel.GetLockingClause()) > 0 {
		return nil
	}
	tables, copies := c.tablesIn(sel)
	names := withNames(sel)
	var found *fanned
	var at *pgquery.Node
	final := cloned(sel)
	try := func(n *pgquery.Node) {
		s := n.GetSelectStmt()
		if s == nil || found != nil || namesAny(s, names) {
			return
		}
		if here, _ := c.tablesIn(s); here != tables {
			return
		}
		if f, problem := c.fanned(n, s); problem == nil && len(f.a.plain) == 0 && len(s.GetLockingClause()) == 0 {
			found, at = f, n
		}
	}
	put := func(over *pgquery.SelectStmt) { at.Node = selectNode(over).Node }
	var sides func(*pgquery.SelectStmt) // of a set operation: others may have no tables
	sides = func(s *pgquery.SelectStmt) {
		if found != nil || s.GetOp() == pgquery.SetOperation_SETOP_NONE {
			return
		}
		if try(selectNode(s.Larg)); found != nil {
			put = func(over *pgquery.SelectStmt) { s.Larg = over }
			return
		}
		if try(selectNode(s.Rarg)); found != nil {
			put = func(over *pgquery.SelectStmt) { s.Rarg = over }
			return
		}
		sides(s.Larg)
		sides(s.Rarg)
	}
	sides(final)
	walk(final, func(n any) bool { // from the outside in: the larger the part that shards do, the better
		switch n := n.(type) {
		case *pgquery.RangeSubselect:
			if n.GetLateral() { // it may, too
				return copies == 0
			}
			try(n.GetSubquery())
			sides(n.GetSubquery().GetSelectStmt())
		case *pgquery.CommonTableExpr:
			try(n.GetCtequery())
			sides(n.GetCtequery().GetSelectStmt())
		case *pgquery.SubLink: // it may speak of what is around it
			if len(sel.GetFromClause())+copies > 0 {
				return false
			}
			if s := n.GetSubselect().GetSelectStmt(); n.GetSubLinkType() == pgquery.SubLinkType_EXISTS_SUBLINK && s.GetLimitCount() == nil {
				s.LimitCount, s.LimitOption = pgquery.MakeAConstIntNode(1, 0), pgquery.LimitOption_LIMIT_OPTION_COUNT
			}
			try(n.GetSubselect())
		}
		return found == nil
	})
	if found == nil {
		return nil
	}
	over := found.final
	if over == nil {
		over = found.over
	}
	found.shard = found.asked(proto.Clone(at.GetSelectStmt()).(*pgquery.SelectStmt))
	put(over)
	found.final, found.order, found.limit, found.offset, found.changed = final, nil, FanCount{}, FanCount{}, true
	found.how += "; what is around that is done over their rows by PostgreSQL"
	return found
}

// asked is what each shard is asked: the query itself, unless that was changed.
func (f *fanned) asked(itself *pgquery.SelectStmt) *pgquery.SelectStmt {
	if f.changed {
		return f.shard
	}
	return itself
}

// regrouped is a UNION of queries in which those that name sharded tables stand together, as one part of it. nil: they cannot, or need not.
func (c *compiler) regrouped(sel *pgquery.SelectStmt) *pgquery.SelectStmt {
	var parts []*pgquery.SelectStmt // from the last to the first
	s := sel
	for ; s.GetOp() == pgquery.SetOperation_SETOP_UNION; s = s.GetLarg() {
		if s != sel && (s.GetAll() != sel.GetAll() && sel.GetAll() || len(s.GetSortClause()) > 0 || s.GetLimitCount() != nil || s.GetLimitOffset() != nil || s.GetWithClause() != nil) {
			return nil
		}
		parts = append(parts, s.GetRarg())
	}
	parts = append(parts, s)
	slices.Reverse(parts)
	join := func(l, r *pgquery.SelectStmt) *pgquery.SelectStmt {
		if l == nil {
			return r
		}
		return &pgquery.SelectStmt{Op: pgquery.SetOperation_SETOP_UNION, All: sel.GetAll(), Larg: l, Rarg: r, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}
	}
	var together, all *pgquery.SelectStmt
	several := false
	for _, part := range parts {
		if others, _ := c.tablesIn(part); others > 0 {
			several = several || together != nil
			together = join(together, part)
		}
	}
	if !several {
		return nil
	}
	placed := false
	for _, part := range parts {
		if others, _ := c.tablesIn(part); others == 0 {
			all = join(all, part)
		} else if !placed { // where the first of them is, as names of columns and types come from the first
			all, placed = join(all, together), true
		}
	}
	if all == together {
		return nil
	}
	out := cloned(sel)
	out.Larg, out.Rarg = cloned(all.Larg), cloned(all.Rarg)
	return out
}

// tablesIn counts the tables that are named in a query, names of WITH left out as far as they are in it: reference tables, and all others.
func (c *compiler) tablesIn(s *pgquery.SelectStmt) (others, copies int) {
	names, a := withNames(s), c.analysis()
	walk(s, func(x any) bool {
		switch x := x.(type) {
		case *pgquery.LockingClause:
			return false
		case *pgquery.RangeVar:
			if x.GetSchemaname() == "" && names[x.GetRelname()] {
				return true
			}
			if _, kind := a.resolve(x); kind == copiedTable {
				copies++
			} else {
				others++
			}
		}
		return true
	})
	return others, copies
}

// withNames are the names that WITH gives in a query, wherever it stands.
func withNames(s *pgquery.SelectStmt) map[string]bool {
	names := map[string]bool{}
	walk(s, func(x any) bool {
		if cte, ok := x.(*pgquery.CommonTableExpr); ok {
			names[cte.GetCtename()] = true
		}
		return true
	})
	return names
}

// namesAny tells whether a query names one of them, which by itself would be another table.
func namesAny(s *pgquery.SelectStmt, names map[string]bool) (found bool) {
	own := withNames(s)
	walk(s, func(x any) bool {
		rv, ok := x.(*pgquery.RangeVar)
		found = found || ok && rv.GetSchemaname() == "" && names[rv.GetRelname()] && !own[rv.GetRelname()]
		return !found
	})
	return found
}
