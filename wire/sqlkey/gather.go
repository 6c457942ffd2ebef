package sqlkey

import (
	"slices"
	"strconv"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

func itoa(n int) string { return strconv.Itoa(n) }

// gather takes a query apart: into the columns that each shard is asked for, and a query over them.
type gather struct {
	fanned  *fanned
	columns []*pgquery.Node // that shards are asked for
	groups  []*pgquery.Node // the expressions of GROUP BY
	partial bool            // aggregates are made of those that the shards make
	star    bool            // the shards' rows begin with columns of which nobody knows how many they are
	loose   []int           // partial: columns that are neither a group's nor an aggregate's
	unmade  []*pgquery.Node // partial: aggregates of the query that nobody makes
	odd     *issue
}

// index is the number of the column that has an expression's value.
func (g *gather) index(n *pgquery.Node) int {
	for i, c := range g.columns {
		if proto.Equal(c, n) {
			return i
		}
	}
	g.columns = append(g.columns, n)
	return len(g.columns) - 1
}

// name is a column's in the query over the rows. What COLLATE has said of it goes before what others are collated by, also where it meets them there.
func (g *gather) name(i int) *pgquery.Node {
	n := columnRef("rows", "c"+itoa(i+1))
	if g.star {
		n = columnRef("rows", FinalHidden+itoa(i+1)+"}")
	}
	return collated(n, collationWithin(g.columns[i]))
}

// collationWithin is the COLLATE that decides how a text is collated; nil if none does, or if it is not known for a text.
func collationWithin(n *pgquery.Node) *pgquery.CollateClause {
	var args []*pgquery.Node
	switch {
	case n.GetCollateClause() != nil:
		return n.GetCollateClause()
	case n.GetFuncCall() != nil:
		if isOneOf(funcName(n.GetFuncCall()), "min", "max", "lower", "upper", "initcap", "btrim", "ltrim", "rtrim", "replace", "translate", "substr", "substring", "left", "right",
			"lpad", "rpad", "reverse", "repeat", "split_part") {
			args = n.GetFuncCall().GetArgs()
		}
	case n.GetCoalesceExpr() != nil:
		args = n.GetCoalesceExpr().GetArgs()
	case n.GetMinMaxExpr() != nil:
		args = n.GetMinMaxExpr().GetArgs()
	case n.GetAExpr() != nil && operator(n.GetAExpr().GetName()) == "||":
		args = []*pgquery.Node{n.GetAExpr().GetLexpr(), n.GetAExpr().GetRexpr()}
	}
	for _, arg := range args {
		if c := collationWithin(arg); c != nil {
			return c
		}
	}
	return nil
}

func (g *gather) column(n *pgquery.Node) *pgquery.Node { return g.name(g.index(n)) }

// take replaces, in the expressions, what rows are needed for by names of columns.
func (g *gather) take(nodes ...*pgquery.Node) {
	for _, n := range nodes {
		walk(n, g.visit)
	}
}

func (g *gather) visit(x any) bool {
	n, ok := x.(*pgquery.Node)
	if !ok {
		return true
	}
	for _, e := range g.groups {
		if proto.Equal(e, n) {
			n.Node = g.column(proto.Clone(n).(*pgquery.Node)).Node
			return false
		}
	}
	switch {
	case n.GetFuncCall() != nil && g.partial && isAggregate(n.GetFuncCall()):
		n.Node = g.combined(n.GetFuncCall()).Node
		return false
	case n.GetColumnRef() != nil:
		if isStar(n) || g.wholeRow(n) {
			g.odd = issuef("a whole row is taken as one value, which cannot be gathered from several shards")
			return false
		}
	case n.GetSubLink() != nil:
	case n.GetRowExpr() != nil, n.GetNode() == nil:
		return true
	default:
		return true
	}
	i := g.index(proto.Clone(n).(*pgquery.Node))
	if g.partial && !slices.Contains(g.loose, i) {
		g.loose = append(g.loose, i)
	}
	n.Node = g.name(i).Node
	if g.partial && len(g.fanned.groupBy) == 0 { // one row of each shard, and all have the same there
		n.Node = &pgquery.Node_AIndirection{AIndirection: &pgquery.A_Indirection{
			Arg: call("array_agg", g.name(i)), Indirection: []*pgquery.Node{{Node: &pgquery.Node_AIndices{AIndices: &pgquery.A_Indices{Uidx: pgquery.MakeAConstIntNode(1, 0)}}}},
		}}
	}
	return false
}

// wholeRow tells whether a reference means an item of FROM as a whole.
func (g *gather) wholeRow(n *pgquery.Node) bool {
	name := bareName(n)
	return name != "" && slices.ContainsFunc(g.fanned.a.spread.inside.scope.refs, func(r *ref) bool { return r.alias == name && !r.value })
}

// gathered makes f one whose rows PostgreSQL puts together: with partial each shard aggregates its rows.
func (f *fanned) gathered(sh *levelShape, partial bool) *issue {
	s := f.shard
	if len(s.GetLockingClause()) > 0 {
		return issuef("it locks rows, and its result is made of the rows of several shards")
	}
	g := &gather{fanned: f, partial: partial, star: len(sh.stars) > 0}
	if g.star && (sh.grouped || !consecutive(sh.stars)) {
		return issuef("* stands among expressions that are made of the rows of several shards")
	}
	final := cloned(s)
	final.FromClause, final.WhereClause, final.WithClause = []*pgquery.Node{rowsNode()}, nil, nil
	if problem := f.groups(g, final); problem != nil {
		return problem
	}
	outputs := make(map[string]bool)
	for _, t := range s.GetTargetList() {
		if !isStar(t.GetResTarget().GetVal()) {
			outputs[targetLabel(t)] = true
		}
	}
	keep := func(n *pgquery.Node) bool { // it names a column of the result
		_, number := ordinal(n)
		return number || bareName(n) != "" && outputs[bareName(n)]
	}
	var targets []*pgquery.Node
	for i, t := range final.GetTargetList() {
		switch {
		case len(sh.stars) > 0 && i == sh.stars[0]:
			t.GetResTarget().Name, t.GetResTarget().Val = "", columnRef(FinalColumns)
		case isStar(t.GetResTarget().GetVal()):
			continue
		default:
			t.GetResTarget().Name = targetLabel(t)
			g.take(t.GetResTarget().GetVal())
		}
		targets = append(targets, t)
	}
	final.TargetList = targets
	g.take(final.GetHavingClause())
	g.take(final.GetWindowClause()...)
	for _, list := range [][]*pgquery.Node{final.GetSortClause(), final.GetDistinctClause()} {
		for _, n := range list {
			if e := orderedBy(n); !keep(e) {
				g.take(e)
			}
		}
	}
	if g.odd != nil {
		return g.odd
	}
	if len(g.columns) == 0 {
		g.columns = append(g.columns, pgquery.MakeAConstIntNode(1, 0))
	}
	s.DistinctClause, s.HavingClause, s.WindowClause, s.SortClause, s.LimitOffset, s.LimitCount = nil, nil, nil, nil, nil, nil
	s.LimitOption = pgquery.LimitOption_LIMIT_OPTION_DEFAULT
	s.GroupClause = nil
	if partial {
		s.GroupClause = f.groupBy
		s.HavingClause = g.checks()
		for _, i := range g.loose { // what depends on the groups: else the shard says that it must be in GROUP BY
			if len(f.groupBy) > 0 {
				final.GroupClause = append(final.GroupClause, g.name(i))
			}
		}
	}
	targets = nil
	for _, i := range sh.stars {
		targets = append(targets, s.GetTargetList()[i])
	}
	for i, c := range g.columns {
		targets = append(targets, target("rangefinder_"+itoa(i+1), c))
	}
	s.TargetList = targets
	if g.star {
		f.hidden = len(g.columns)
	}
	f.changed, f.final = true, final
	f.how = "their rows are gathered and put together by PostgreSQL"
	if partial {
		f.how = "each aggregates its rows, and PostgreSQL puts these together"
	}
	return nil
}

// orderedBy is what an item of ORDER BY orders by, and that of DISTINCT ON itself.
func orderedBy(n *pgquery.Node) *pgquery.Node {
	if s := n.GetSortBy(); s != nil {
		return s.GetNode()
	}
	return n
}

// groups makes GROUP BY's expressions columns, for the shards and for the query over their rows.
func (f *fanned) groups(g *gather, final *pgquery.SelectStmt) *issue {
	for i, n := range f.shard.GetGroupClause() {
		if n.GetGroupingSet() != nil {
			if problem := f.inSets(g, final.GetGroupClause()[i]); problem != nil {
				return problem
			}
			continue
		}
		target, guard, problem := f.groupTarget(n)
		if problem != nil {
			return problem
		}
		if guard {
			f.guard(bareName(n))
		}
		e := cloned(n)
		if target != nil {
			e = cloned(target)
		}
		at := g.index(cloned(e))
		final.GroupClause[i] = g.name(at)
		if target.GetAConst() != nil { // which GROUP BY would take for a column's number, if for anything. Elsewhere it stays a constant, whose type may be open
			f.groupBy = append(f.groupBy, pgquery.MakeAConstIntNode(int64(at+1), 0))
			continue
		}
		f.groupBy = append(f.groupBy, e)
		if !slices.ContainsFunc(g.groups, func(o *pgquery.Node) bool { return proto.Equal(o, e) }) {
			g.groups = append(g.groups, e)
		}
	}
	return nil
}

// inSets does the same with what is in GROUPING SETS and their like. A target is named by its number there: no column of the rows is.
func (f *fanned) inSets(g *gather, n *pgquery.Node) *issue {
	inside := n.GetGroupingSet().GetContent()
	if row := n.GetRowExpr(); row != nil && row.GetRowFormat() == pgquery.CoercionForm_COERCE_IMPLICIT_CAST {
		inside = row.GetArgs()
	}
	for _, e := range inside {
		if problem := f.inSets(g, e); problem != nil {
			return problem
		}
	}
	if len(inside) > 0 || n.GetGroupingSet() != nil {
		return nil
	}
	target, guard, problem := f.groupTarget(n)
	if problem != nil {
		return problem
	}
	if !guard {
		g.take(n)
		return nil
	}
	f.guard(bareName(n))
	at := slices.IndexFunc(f.shard.GetTargetList(), func(t *pgquery.Node) bool { return t.GetResTarget().GetVal() == target })
	n.Node = pgquery.MakeAConstIntNode(int64(at+1), 0).Node
	return nil
}

// groupTarget is the target that an item of GROUP BY means: a number or a name may mean one. nil: it stands for itself. guard: that it means
// the target is not certain, for a column of that name would come first.
func (f *fanned) groupTarget(n *pgquery.Node) (val *pgquery.Node, guard bool, problem *issue) {
	targets := f.shard.GetTargetList()
	if i, ok := ordinal(n); ok {
		for j, t := range targets {
			if isStar(t.GetResTarget().GetVal()) {
				return nil, false, issuef("GROUP BY counts columns of *")
			}
			if j+1 == i {
				return t.GetResTarget().GetVal(), false, nil
			}
		}
		return nil, false, nil // PostgreSQL says that there is none
	}
	name := bareName(n)
	if name == "" || f.names(name) {
		return nil, false, nil
	}
	for _, t := range targets {
		switch e := t.GetResTarget().GetVal(); {
		case targetLabel(t) != name || isStar(e):
		case val == nil:
			val = e
		case !proto.Equal(val, e): // which PostgreSQL refuses (42702), unless there is a column of that name
			return nil, false, issuef("GROUP BY %s may mean several outputs", quoteName(name))
		}
	}
	return val, val != nil, nil
}

// names tells whether an item of FROM certainly has a column of that name: because it is a key, is known, or is spoken of where nothing else can be
// meant.
func (f *fanned) names(name string) bool {
	if _, ok := f.a.spread.inside.scope.column(columnRef(name), f.a.env.Database); ok {
		return true
	}
	for _, n := range f.client.GetFromClause() {
		if list, _ := f.a.columnsOf(n, f.a.spread.inside.ctes); slices.Contains(list, name) {
			return true
		}
	}
	found := false
	visit := func(n any) bool {
		x, ok := n.(*pgquery.Node)
		if ok && x.GetColumnRef() != nil && lastName(x) == name {
			found = true
		}
		_, query := n.(*pgquery.SelectStmt)
		return !query
	}
	s := f.client
	for _, t := range s.GetTargetList() {
		walk(t.GetResTarget().GetVal(), visit)
	}
	walk(s.GetWhereClause(), visit)
	walk(s.GetHavingClause(), visit)
	walkList(s.GetWindowClause(), visit)
	for _, n := range slices.Concat(s.GetGroupClause(), s.GetDistinctClause(), s.GetSortClause()) {
		if e := orderedBy(n); bareName(e) == "" && e.GetGroupingSet() == nil { // else it may be a target
			walk(e, visit)
		}
	}
	return found
}

// guard makes the shards' statement fail if a column of that name exists after all: PostgreSQL calls the name ambiguous then.
func (f *fanned) guard(name string) {
	if slices.Contains(f.guards, name) {
		return
	}
	f.guards = append(f.guards, name)
	one := &pgquery.SelectStmt{
		TargetList:  []*pgquery.Node{target(name, pgquery.MakeAConstIntNode(1, 0))},
		Op:          pgquery.SetOperation_SETOP_NONE,
		LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT,
	}
	item := rowsOf(one)
	item.GetRangeSubselect().Alias.Aliasname = "rangefinder_" + itoa(len(f.guards))
	f.shard.FromClause = append(f.shard.FromClause, item)
	term := &pgquery.Node{Node: &pgquery.Node_NullTest{NullTest: &pgquery.NullTest{Arg: columnRef(name), Nulltesttype: pgquery.NullTestType_IS_NOT_NULL}}}
	switch w := f.shard.GetWhereClause(); {
	case w.GetBoolExpr().GetBoolop() == pgquery.BoolExprType_AND_EXPR: // as the parser would read it
		term = pgquery.MakeBoolExprNode(pgquery.BoolExprType_AND_EXPR, append(slices.Clone(w.GetBoolExpr().GetArgs()), term), 0)
	case w != nil:
		term = pgquery.MakeBoolExprNode(pgquery.BoolExprType_AND_EXPR, []*pgquery.Node{w, term}, 0)
	}
	f.shard.WhereClause = term
}

func consecutive(list []int) bool {
	for i := 1; i < len(list); i++ {
		if list[i] != list[i-1]+1 {
			return false
		}
	}
	return true
}
