package sqlkey

import (
	"fmt"
	"math"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// fanned is a query over several shards: what each of them is asked, and what becomes of their rows.
type fanned struct {
	a      *analysis
	client *pgquery.SelectStmt // the query itself
	shard  *pgquery.SelectStmt // a copy, which is changed
	// changed: shard is not what the client asked for
	changed bool
	hidden  int
	order   []FanOrder
	offset  FanCount
	limit   FanCount
	final   *pgquery.SelectStmt // nil: merging in order is enough
	how     string              // for people
	over    *pgquery.SelectStmt // what final would be
	set     bool                // a set operation, whose parts have conditions of their own

	groupBy []*pgquery.Node
	guards  []string
}

// selects takes a SELECT whose rows are spread over the shards apart.
func (f *fanned) selects() *issue {
	s := f.shard
	sh := shapeOf(s)
	if sh.odd != nil {
		return sh.odd
	}
	q := f.a.spread
	byKey := !sh.sets && !s.GetGroupDistinct() && q.haveKey(f.a, f.groupExprs())
	switch {
	case sh.grouped && (!byKey || len(sh.windows) > 0):
		return f.gathered(sh, sh.partial)
	case !f.windowsByKey(sh.windows):
		return f.gathered(sh, false)
	}
	return f.ordered(f.shard.GetTargetList(), len(f.shard.GetDistinctClause()) > 0, f.undoubled())
}

// byKey tells whether what the query gives is no other on a shard than what it gives of that shard's keys on all together.
func (f *fanned) byKey() bool {
	s, sh := f.shard, shapeOf(f.shard)
	return sh.odd == nil && s.GetLimitCount() == nil && s.GetLimitOffset() == nil &&
		(!sh.grouped || !sh.sets && f.a.spread.haveKey(f.a, f.groupExprs())) && f.windowsByKey(sh.windows) && f.undoubled()
}

// undoubled tells whether no row of one shard has its double, in the sense of DISTINCT, on another.
func (f *fanned) undoubled() bool {
	list := f.shard.GetDistinctClause()
	if len(list) == 0 {
		return true
	}
	if list[0].GetNode() == nil {
		list = nil
		for _, t := range f.shard.GetTargetList() {
			list = append(list, t.GetResTarget().GetVal())
		}
	}
	return f.a.spread.haveKey(f.a, list)
}

// groupExprs are the expressions of GROUP BY that certainly mean what is in them.
func (f *fanned) groupExprs() (list []*pgquery.Node) {
	for _, n := range f.shard.GetGroupClause() {
		target, guard, problem := f.groupTarget(n)
		switch {
		case problem != nil || guard:
		case target != nil:
			list = append(list, target)
		default:
			list = append(list, n)
		}
	}
	return list
}

// windowsByKey tells whether all rows of each window lie on one shard.
func (f *fanned) windowsByKey(windows []*pgquery.WindowDef) bool {
	for _, w := range windows {
		if !f.a.spread.haveKey(f.a, w.GetPartitionClause()) {
			return false
		}
	}
	return true
}

// ordered takes a query apart whose rows are those of the shards, in an order and with a limit at most, or without doubles (distinct):
// these are none of two shards if it is whole.
func (f *fanned) ordered(targets []*pgquery.Node, distinct, whole bool) *issue {
	s := f.shard
	final := finalOver()
	f.how = "rows come as they are"
	on := len(s.GetDistinctClause()) > 0 && s.GetDistinctClause()[0].GetNode() != nil
	if !whole && len(s.GetLockingClause()) > 0 {
		return issuef("it locks rows, and its result is made of the rows of several shards")
	}
	if s.GetLimitCount() != nil || s.GetLimitOffset() != nil {
		for _, n := range s.GetLockingClause() {
			if n.GetLockingClause().GetWaitPolicy() != pgquery.LockWaitPolicy_LockWaitBlock {
				i := issuef("each shard would lock as many rows as LIMIT says, also those that are not in the result, and others would skip them, or fail")
				i.hint = "Or leave out SKIP LOCKED or NOWAIT."
				return i
			}
		}
	}
	p := &picker{fanned: f, targets: targets, distinct: distinct && !on, star: slices.ContainsFunc(targets, func(t *pgquery.Node) bool { return isStar(t.GetResTarget().GetVal()) })}
	var distinctOn []*pgquery.Node
	if on {
		for _, n := range s.GetDistinctClause() {
			collate, e := collation(n)
			column, _ := p.column(e, collate == nil)
			distinctOn = append(distinctOn, collated(column.node, collate))
		}
	}
	var names []string
	merge := true
	for _, n := range s.GetSortClause() {
		by, name, mergeable := p.sort(n)
		merge = merge && mergeable
		final.SortClause = append(final.SortClause, by)
		names = append(names, name)
	}
	if merge {
		f.order = p.order
	}
	for i, e := range p.hidden {
		s.TargetList = append(s.TargetList, target("rangefinder_"+itoa(i+1), e))
		f.changed = true
	}
	f.hidden = len(p.hidden)
	simple := f.limits()
	final.TargetList = []*pgquery.Node{target("", columnRef(FinalColumns))}
	final.LimitCount, final.LimitOffset, final.LimitOption = f.client.GetLimitCount(), f.client.GetLimitOffset(), f.client.GetLimitOption()
	f.over = final
	switch {
	case !whole:
		inner := finalOver()
		inner.TargetList = []*pgquery.Node{target("", pgquery.MakeColumnRefNode([]*pgquery.Node{pgquery.MakeAStarNode()}, 0))}
		inner.DistinctClause = []*pgquery.Node{{}}
		if on {
			inner.DistinctClause = distinctOn
			for _, n := range final.SortClause {
				inner.SortClause = append(inner.SortClause, proto.Clone(n).(*pgquery.Node))
			}
		}
		final.FromClause = []*pgquery.Node{rowsOf(inner)}
		f.order, f.limit, f.offset, f.final = nil, FanCount{}, FanCount{}, final
		f.how = "doubles among their rows are removed by PostgreSQL"
		return nil
	case !simple || !merge:
		f.order, f.limit, f.offset, f.final = nil, FanCount{}, FanCount{}, final
		f.how = "their rows are gathered and ordered by PostgreSQL"
	case len(final.SortClause) > 0:
		f.final = final
		f.how = "rows are merged by " + strings.Join(names, ", ")
	}
	return nil
}

// limits gives the shards their LIMIT. It returns false if what is the client's cannot be told by constants and parameters alone.
func (f *fanned) limits() bool {
	s := f.shard
	count, offset := s.GetLimitCount(), s.GetLimitOffset()
	if count == nil && offset == nil {
		return true
	}
	var ok, also bool
	f.limit, ok = fanCount(count)
	f.offset, also = fanCount(offset)
	if offset != nil {
		s.LimitCount, s.LimitOffset = limitSum(count, offset), nil
		f.changed = true
		if s.LimitCount == nil {
			s.LimitOption = pgquery.LimitOption_LIMIT_OPTION_DEFAULT
		}
	}
	return ok && also && s.GetLimitOption() != pgquery.LimitOption_LIMIT_OPTION_WITH_TIES
}

// fanCount is what LIMIT or OFFSET says, if it is a constant or a parameter.
func fanCount(n *pgquery.Node) (c FanCount, ok bool) {
	if n == nil || n.GetAConst().GetIsnull() {
		return c, true
	}
	if cast := n.GetTypeCast(); cast != nil {
		if names := cast.GetTypeName().GetNames(); len(names) != 2 || names[0].GetString_().GetSval() != "pg_catalog" || !isOneOf(names[1].GetString_().GetSval(), "int8", "int4") ||
			cast.GetArg().GetParamRef() == nil {
			return c, false
		}
		n = cast.GetArg()
	}
	if number := n.GetParamRef().GetNumber(); number > 0 {
		return FanCount{Set: true, Param: int(number)}, true
	}
	if i, ok := ordinal(n); ok && i >= 0 {
		return FanCount{Set: true, Value: uint64(i)}, true
	}
	return c, false
}

// limitSum is how many rows of a shard may be needed; nil: all. An OFFSET of NULL is none, and a LIMIT of NULL is all.
func limitSum(count, offset *pgquery.Node) *pgquery.Node {
	if count == nil || offset == nil {
		return count
	}
	c, ok := ordinal(count)
	o, also := ordinal(offset)
	if ok && also && c >= 0 && o >= 0 {
		return numberNode(uint64(c) + uint64(o))
	}
	big := func(n *pgquery.Node) *pgquery.Node {
		return castNode(proto.Clone(n).(*pgquery.Node), "pg_catalog", "int8")
	}
	sum := operation("+", castNode(big(count), "pg_catalog", "numeric"), coalesce(big(offset), pgquery.MakeAConstIntNode(0, 0)))
	return castNode(least(sum, numberNode(math.MaxInt64)), "pg_catalog", "int8")
}

// picker finds columns of the shards' rows by which to order.
type picker struct {
	fanned   *fanned
	targets  []*pgquery.Node
	star     bool // it cannot be told how many columns the targets are
	distinct bool // there can be no others
	hidden   []*pgquery.Node
	order    []FanOrder
}

// picked is a column of the shards' rows.
type picked struct {
	at     int
	hidden bool
	node   *pgquery.Node // its name in Final
}

func (p *picker) visible(i int) picked {
	return picked{at: i, node: columnRef("rows", "c"+itoa(i+1))}
}

// column is the one that an item of ORDER BY or DISTINCT ON means; whole: it is no part of an expression, so that a number or a name
// may mean a target. ok is false if there is none: PostgreSQL will say so.
func (p *picker) column(n *pgquery.Node, whole bool) (c picked, ok bool) {
	name := ""
	if whole {
		if i, ok := ordinal(n); ok {
			return p.visible(i - 1), true
		}
		name = bareName(n)
	}
	e := n
	after := false // a star came before
	for i, t := range p.targets {
		val := t.GetResTarget().GetVal()
		if isStar(val) {
			after = true
			continue
		}
		if name != "" && targetLabel(t) == name {
			if !after {
				return p.visible(i), true
			}
			e = val
			break
		}
	}
	if e == n {
		for i, t := range p.targets {
			if isStar(t.GetResTarget().GetVal()) {
				break
			}
			if proto.Equal(t.GetResTarget().GetVal(), n) {
				return p.visible(i), true
			}
		}
	}
	if p.distinct && !p.star {
		return picked{node: n}, false
	}
	at := len(p.hidden)
	for i, h := range p.hidden {
		if proto.Equal(h, e) {
			at = i
		}
	}
	if at == len(p.hidden) {
		p.hidden = append(p.hidden, proto.Clone(e).(*pgquery.Node))
	}
	c = picked{at: at, hidden: true, node: columnRef("rows", FinalHidden+itoa(at+1)+"}")}
	if !p.star {
		c.node = columnRef("rows", "c"+itoa(len(p.targets)+at+1))
	}
	return c, true
}

// collation is what COLLATE says of an expression, nil if nothing, and the expression without it.
func collation(n *pgquery.Node) (*pgquery.CollateClause, *pgquery.Node) {
	if c := n.GetCollateClause(); c != nil {
		return c, c.GetArg()
	}
	return nil, n
}

// collated is a column with what COLLATE says of it. A column of Final has no collation of its own, and DISTINCT ON has to be what ORDER BY is.
func collated(column *pgquery.Node, c *pgquery.CollateClause) *pgquery.Node {
	if c == nil {
		return column
	}
	c = proto.Clone(c).(*pgquery.CollateClause)
	c.Arg = column
	return &pgquery.Node{Node: &pgquery.Node_CollateClause{CollateClause: c}}
}

// sort is an item of ORDER BY for Final, and the order that the shards' rows come in. ok is false if only PostgreSQL can tell that.
func (p *picker) sort(n *pgquery.Node) (final *pgquery.Node, name string, ok bool) {
	by := n.GetSortBy()
	collate, e := collation(by.GetNode())
	order := FanOrder{}
	if collate != nil {
		names := collate.GetCollname()
		order.Bytes = len(names) > 0 && isOneOf(names[len(names)-1].GetString_().GetSval(), "C", "POSIX") &&
			(len(names) == 1 || names[0].GetString_().GetSval() == "pg_catalog")
	}
	c, ok := p.column(e, collate == nil)
	order.Column, order.Hidden = c.at, c.hidden
	final = cloned(n)
	final.GetSortBy().Node = collated(c.node, collate)
	ok = ok && (collate == nil || order.Bytes)
	switch by.GetSortbyDir() {
	case pgquery.SortByDir_SORTBY_DESC:
		order.Desc = true
	case pgquery.SortByDir_SORTBY_USING:
		switch operator(by.GetUseOp()) {
		case ">":
			order.Desc = true
		case "<":
		default:
			ok = false
		}
	}
	order.NullsFirst = order.Desc
	switch by.GetSortbyNulls() {
	case pgquery.SortByNulls_SORTBY_NULLS_FIRST:
		order.NullsFirst = true
	case pgquery.SortByNulls_SORTBY_NULLS_LAST:
		order.NullsFirst = false
	}
	p.order = append(p.order, order)
	name = label(by.GetNode())
	if i, number := ordinal(by.GetNode()); number {
		name = fmt.Sprintf("column %d", i)
	}
	if order.Desc {
		name += " desc"
	}
	return final, name, ok
}
