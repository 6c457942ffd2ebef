package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// columnsOf are the columns that an item of FROM is known to have, in order. ok is false if there may be others, or if it is another order.
func (a *analysis) columnsOf(n *pgquery.Node, at *ctes) (names []string, ok bool) {
	var alias *pgquery.Alias
	switch {
	case n.GetRangeVar() != nil:
		rv := n.GetRangeVar()
		alias = rv.GetAlias()
		if rv.GetSchemaname() == "" && at.has(rv.GetRelname()) {
			if q := at.find(rv.GetRelname()); q != nil {
				names, ok = a.outputs(q.query.GetSelectStmt(), q.at.ctes)
			}
		} else if t, kind := a.resolve(rv); kind == keyedTable || kind == copiedTable {
			names, ok = t.all, len(t.all) > 0
		}
	case n.GetRangeSubselect() != nil:
		alias = n.GetRangeSubselect().GetAlias()
		names, ok = a.outputs(n.GetRangeSubselect().GetSubquery().GetSelectStmt(), at)
	case n.GetJoinExpr() != nil:
		alias = n.GetJoinExpr().GetAlias()
		l, _ := a.columnsOf(n.GetJoinExpr().GetLarg(), at)
		r, _ := a.columnsOf(n.GetJoinExpr().GetRarg(), at)
		names = slices.Concat(l, r)
	}
	given := alias.GetColnames()
	if len(given) == 0 {
		return names, ok
	}
	if !ok || len(given) > len(names) {
		return nil, false
	}
	names = slices.Clone(names)
	for i, g := range given {
		names[i] = g.GetString_().GetSval()
	}
	return names, true
}

// outputs are the columns that a query is known to give, as columnsOf has them.
func (a *analysis) outputs(s *pgquery.SelectStmt, at *ctes) (names []string, ok bool) {
	for s.GetLarg() != nil { // it names those of a set operation
		s = s.GetLarg()
	}
	if s == nil || s.GetWithClause() != nil || len(s.GetValuesLists()) > 0 {
		return nil, false
	}
	ok = true
	for _, t := range s.GetTargetList() {
		val := t.GetResTarget().GetVal()
		if !isStar(val) {
			names = append(names, targetLabel(t))
			continue
		}
		if len(val.GetColumnRef().GetFields()) > 1 || len(s.GetFromClause()) != 1 {
			ok = false
			continue
		}
		all, whole := a.columnsOf(s.GetFromClause()[0], at)
		names, ok = append(names, all...), ok && whole
	}
	return names, ok
}
