package sqlkey

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// merge analyses MERGE: a join of its source with its target. If rows are inserted, each row of the source matters, so it is an outer one.
func (a *analysis) merge(s *pgquery.MergeStmt, at place) {
	at = a.with(s.GetWithClause(), at, s)
	t, kind := a.resolve(s.GetRelation())
	switch kind {
	case copiedTable:
		a.changed = append(a.changed, t)
	case keyedTable:
		a.storesKeys(t)
	}
	join := &pgquery.JoinExpr{Jointype: pgquery.JoinType_JOIN_INNER, Larg: s.GetSourceRelation(),
		Rarg: &pgquery.Node{Node: &pgquery.Node_RangeVar{RangeVar: s.GetRelation()}}, Quals: s.GetJoinCondition()}
	for _, n := range s.GetMergeWhenClauses() {
		switch w := n.GetMergeWhenClause(); {
		case w.GetMatchKind() == pgquery.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_SOURCE:
			a.refuse(t, issuef("MERGE with WHEN NOT MATCHED BY SOURCE is not routed"))
		case w.GetCommandType() == pgquery.CmdType_CMD_INSERT:
			join.Jointype = pgquery.JoinType_JOIN_LEFT
		}
	}
	inside := a.level(s, nil, []*pgquery.Node{{Node: &pgquery.Node_JoinExpr{JoinExpr: join}}}, nil, at)
	for _, n := range s.GetMergeWhenClauses() {
		w := n.GetMergeWhenClause()
		a.subqueries(inside, w.GetCondition())
		a.subqueries(inside, w.GetTargetList()...)
		a.subqueries(inside, w.GetValues()...)
		switch {
		case w.GetCommandType() == pgquery.CmdType_CMD_INSERT && kind == keyedTable:
			a.mergeInsert(t, w, inside)
		case w.GetCommandType() == pgquery.CmdType_CMD_INSERT && kind == copiedTable && len(t.columns) > 0:
			a.owns("MERGE inserts into a reference table that has defaults of its own")
		case w.GetCommandType() == pgquery.CmdType_CMD_UPDATE && kind == keyedTable:
			a.refuseKeyChange(t, w.GetTargetList(), "MERGE sets")
		case w.GetCommandType() == pgquery.CmdType_CMD_UPDATE && kind == copiedTable:
			a.updateWhole(t, w.GetTargetList())
		}
	}
	a.subqueries(inside, s.GetReturningList()...)
}

// mergeInsert finds the key of the rows that MERGE inserts.
func (a *analysis) mergeInsert(t *table, w *pgquery.MergeWhenClause, inside place) {
	if w.GetOverride() == pgquery.OverridingKind_OVERRIDING_USER_VALUE {
		a.refuse(t, userValue(quoteName(t.columns[0])))
		return
	}
	r := row{table: t, keys: make([]*binding, len(t.columns))}
	for i, name := range t.columns {
		var val *pgquery.Node
		for j, n := range w.GetTargetList() {
			if n.GetResTarget().GetName() == name && j < len(w.GetValues()) {
				val = w.GetValues()[j]
			}
		}
		if val == nil {
			a.refuse(t, &issue{pg.CodeFeatureNotSupported, "MERGE inserts rows without " + quoteName(name), "Name " + quoteName(name) + " among the columns that it inserts."})
			return
		}
		if c, ok := inside.scope.column(val, a.env.Database); ok {
			if !c.ref.optional && c.typ() == t.keyspace.types[i] {
				r.keys[i] = inside.facts.value(c)
			}
			if r.keys[i] == nil {
				r.issue = &issue{pg.CodeFeatureNotSupported, "MERGE inserts rows whose " + quoteName(name) + " is a column of which no value is known", ""}
			}
			continue
		}
		if r.keys[i] = a.insertValue(t, i, inside.scope.constant(val)); r.keys[i] == nil {
			return
		}
	}
	a.rows = append(a.rows, r)
}

// constant is the expression that a column of a subquery of one row of constants stands for, else n itself.
func (s *scope) constant(n *pgquery.Node) *pgquery.Node {
	fields := n.GetColumnRef().GetFields()
	if len(fields) != 2 {
		return n
	}
	for level := s; level != nil; level = level.parent {
		if r, here := level.named(func(r *ref) bool { return r.alias == fields[0].GetString_().GetSval() }); here {
			if r != nil && !r.optional { // else it may be NULL
				if val := r.row[fields[1].GetString_().GetSval()]; val != nil {
					return val
				}
			}
			break
		}
	}
	return n
}

// rowOf are the columns of a subquery that is one row of expressions without a table; nil: it is none.
func rowOf(s *pgquery.SelectStmt, alias *pgquery.Alias) map[string]*pgquery.Node {
	if s == nil || s.GetOp() != pgquery.SetOperation_SETOP_NONE || s.GetWithClause() != nil || len(s.GetFromClause()) > 0 || s.GetWhereClause() != nil ||
		s.GetHavingClause() != nil || len(s.GetGroupClause()) > 0 || s.GetLimitCount() != nil || s.GetLimitOffset() != nil || len(s.GetValuesLists()) > 1 {
		return nil
	}
	row := make(map[string]*pgquery.Node)
	add := func(i int, name string, val *pgquery.Node) {
		if given := alias.GetColnames(); i < len(given) {
			name = given[i].GetString_().GetSval()
		}
		if _, twice := row[name]; twice {
			val = nil
		}
		row[name] = val
	}
	if lists := s.GetValuesLists(); len(lists) == 1 {
		for i, val := range lists[0].GetList().GetItems() {
			add(i, "column"+itoa(i+1), val)
		}
		return row
	}
	for i, t := range s.GetTargetList() {
		if isStar(t.GetResTarget().GetVal()) {
			return nil
		}
		add(i, targetLabel(t), t.GetResTarget().GetVal())
	}
	return row
}
