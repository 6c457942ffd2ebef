package sqlkey

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// sought is a query of which only the rows matter whose columns are equal to some expressions: "a IN (SELECT b ...)".
type sought struct {
	in    *pgquery.SelectStmt
	equal []*pgquery.Node // by target
}

// membership is what a subquery is searched for; nil if it is not searched, or if rows decide together what it has: then others than
// those that are looked for matter too.
func membership(l *pgquery.SubLink) *sought {
	s := l.GetSubselect().GetSelectStmt()
	switch {
	case l.GetSubLinkType() != pgquery.SubLinkType_ANY_SUBLINK || len(l.GetOperName()) > 0 && operator(l.GetOperName()) != "=",
		s == nil, s.GetOp() != pgquery.SetOperation_SETOP_NONE, s.GetLimitCount() != nil, s.GetLimitOffset() != nil, len(s.GetValuesLists()) > 0,
		len(s.GetDistinctClause()) > 0 && s.GetDistinctClause()[0].GetNode() != nil:
		return nil
	}
	for _, n := range s.GetGroupClause() {
		if n.GetGroupingSet() != nil {
			return nil
		}
	}
	m := &sought{in: s, equal: []*pgquery.Node{l.GetTestexpr()}}
	if row := l.GetTestexpr().GetRowExpr(); row != nil {
		m.equal = row.GetArgs()
	}
	if len(m.equal) != len(s.GetTargetList()) {
		return nil
	}
	for _, t := range s.GetTargetList() {
		if isStar(t.GetResTarget().GetVal()) {
			return nil
		}
	}
	return m
}

// paired adds what is equal to the facts of the level that is searched. A key that may be NULL for want of its row is left out: with NOT,
// NULL matters, on either side.
func (a *analysis) paired(m *sought, list []fact, s *scope, at place) []fact {
	if at.scope == nil {
		return list
	}
	for i, t := range m.in.GetTargetList() {
		inner, ok := s.column(t.GetResTarget().GetVal(), a.env.Database)
		outer, also := at.scope.column(m.equal[i], a.env.Database)
		if ok && also && !inner.ref.optional && !outer.ref.optional && inner.typ() == outer.typ() {
			list = append(list, fact{a: inner, b: outer})
		}
	}
	return list
}
