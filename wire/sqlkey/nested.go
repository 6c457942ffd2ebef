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
	all, unions, limited := true, true, false
	for i, op := range ops {
		if i > 0 && (len(op.GetSortClause()) > 0 || op.GetLimitCount() != nil || op.GetLimitOffset() != nil) {
			limited = true
		}
		if i > 0 && op.GetWithClause() != nil || limited && !byOrdinals(op.GetSortClause()) {
			return nil, issuef("a part of its set operation is ordered or limited by itself")
		}
		all, unions = all && op.GetAll(), unions && op.GetOp() == pgquery.SetOperation_SETOP_UNION
	}
	switch {
	case !limited && (keys || unions && all):
	case !limited && !unions && len(parts) == 2:
		f := &fanned{a: first.a, client: sel, set: true}
		f.compared()
		return f, nil
	case limited || !unions || sel.GetAll(): // doubles are removed, or rows left out, in one part of it and not in another
		f := &fanned{a: first.a, client: sel, set: true}
		return f, f.beside(parts)
	}
	f := &fanned{a: first.a, client: sel, shard: cloned(sel), set: true}
	return f, f.ordered(parts[0].GetTargetList(), true, keys || unions && all)
}

// compared takes INTERSECT or EXCEPT of two queries apart, whose rows may be equal though they are of two shards: rows of both are gathered,
// with which query they are of.
func (f *fanned) compared() {
	side := func(i int) *pgquery.SelectStmt {
		s := overGathered()
		s.TargetList = []*pgquery.Node{target("", columnRef(FinalColumns))}
		s.WhereClause = operation("=", columnRef("rows", FinalHidden+"1}"), pgquery.MakeAConstIntNode(int64(i), 0))
		return s
	}
	f.final = cloned(f.client)
	f.final.Larg, f.final.Rarg = side(1), side(2)
	f.final.WithClause = gatheredOnce()
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

// byOrdinals tells whether an order names columns by their numbers alone.
func byOrdinals(order []*pgquery.Node) bool {
	return !slices.ContainsFunc(order, func(n *pgquery.Node) bool {
		_, ok := ordinal(n.GetSortBy().GetNode())
		return !ok
	})
}

// beside takes any set operation apart: the rows of all of its queries are gathered, each in columns of its own, so that none is given another type, and
// PostgreSQL does with them what the client asked for. In a row that is of one query the columns of all others are NULL.
func (f *fanned) beside(parts []*pgquery.SelectStmt) *issue {
	width := len(parts[0].GetTargetList())
	for _, part := range parts {
		if len(part.GetTargetList()) != width || width == 0 {
			return issuef("the parts of its set operation do not tell how many columns they have")
		}
		if len(part.GetLockingClause()) > 0 {
			return issuef("FOR UPDATE and its like are not allowed in a set operation")
		}
		for _, t := range part.GetTargetList() {
			switch val := t.GetResTarget().GetVal(); {
			case isStar(val):
				return &issue{reason: "* in a part of its set operation does not tell which columns these are", hint: "Name the columns."}
			case val.GetParamRef() != nil, val.GetAConst().GetSval() != nil, val.GetAConst().GetIsnull():
				return &issue{reason: "a value in a part of its set operation has the type that the other parts give it", hint: "Cast it."}
			}
		}
	}
	hidden := func(n int) *pgquery.Node { return columnRef("rows", FinalHidden+itoa(n)+"}") }
	var from *pgquery.Node
	f.shard = &pgquery.SelectStmt{Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}
	sides := make(map[*pgquery.SelectStmt]*pgquery.SelectStmt, len(parts))
	for i, part := range parts {
		// Behind its own columns stands one that is not NULL.
		asked, name := cloned(part), "rangefinder_part_"+itoa(i+1)
		asked.TargetList = append(asked.TargetList, target("rangefinder_1", pgquery.MakeAConstIntNode(1, 0)))
		item := &pgquery.Node{Node: &pgquery.Node_RangeSubselect{RangeSubselect: &pgquery.RangeSubselect{Subquery: selectNode(asked), Alias: &pgquery.Alias{Aliasname: name}}}}
		f.shard.TargetList = append(f.shard.TargetList, target("", starOf(name)))
		side := overGathered()
		if from == nil {
			from = item
			side.TargetList = []*pgquery.Node{target("", columnRef(FinalColumns))}
		} else {
			from = &pgquery.Node{Node: &pgquery.Node_JoinExpr{JoinExpr: &pgquery.JoinExpr{Jointype: pgquery.JoinType_JOIN_FULL, Larg: from, Rarg: item, Quals: boolNode(false)}}}
			for j := range width {
				side.TargetList = append(side.TargetList, target("", hidden(1+(i-1)*(width+1)+j+1)))
			}
		}
		side.WhereClause = &pgquery.Node{Node: &pgquery.Node_NullTest{NullTest: &pgquery.NullTest{Arg: hidden(1 + i*(width+1)), Nulltesttype: pgquery.NullTestType_IS_NOT_NULL}}}
		sides[part] = side
	}
	f.shard.FromClause = []*pgquery.Node{from}
	f.final = withSides(f.client, sides)
	f.final.WithClause = gatheredOnce()
	f.changed, f.hidden = true, 1+(len(parts)-1)*(width+1)
	f.how = "rows of all parts are gathered and put together by PostgreSQL"
	return nil
}

// gatheredRows is the name of the gathered rows where several queries are over them.
const gatheredRows = "rangefinder_rows"

// gatheredOnce gives them that name.
func gatheredOnce() *pgquery.WithClause {
	all := finalOver()
	all.TargetList = []*pgquery.Node{target("", pgquery.MakeColumnRefNode([]*pgquery.Node{pgquery.MakeAStarNode()}, 0))}
	return &pgquery.WithClause{Ctes: []*pgquery.Node{{Node: &pgquery.Node_CommonTableExpr{CommonTableExpr: &pgquery.CommonTableExpr{
		Ctename: gatheredRows, Ctematerialized: pgquery.CTEMaterialize_CTEMaterializeDefault, Ctequery: selectNode(all)}}}}}
}

// overGathered is a query over them that has neither targets nor anything else yet.
func overGathered() *pgquery.SelectStmt {
	s := finalOver()
	s.FromClause = []*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: &pgquery.RangeVar{Relname: gatheredRows, Inh: true, Relpersistence: "p", Alias: &pgquery.Alias{Aliasname: "rows"}}}}}
	return s
}

// withSides is a set operation with other queries in the place of its own.
func withSides(s *pgquery.SelectStmt, sides map[*pgquery.SelectStmt]*pgquery.SelectStmt) *pgquery.SelectStmt {
	if side := sides[s]; side != nil {
		return side
	}
	out := surface(s)
	out.Larg, out.Rarg = withSides(s.GetLarg(), sides), withSides(s.GetRarg(), sides)
	return out
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
