package sqlkey

import (
	"fmt"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// conditions returns the equalities among the terms of a condition that must be true as a whole.
func (a *analysis) conditions(n *pgquery.Node, s *scope) []fact {
	if n == nil {
		return nil
	}
	if b := n.GetBoolExpr(); b != nil && b.GetBoolop() == pgquery.BoolExprType_AND_EXPR {
		var list []fact
		for _, arg := range b.GetArgs() {
			list = append(list, a.conditions(arg, s)...)
		}
		return list
	}
	e := n.GetAExpr()
	if e.GetKind() == pgquery.A_Expr_Kind_AEXPR_IN && operator(e.GetName()) == "=" && len(e.GetRexpr().GetList().GetItems()) == 1 {
		return a.equals(e.GetLexpr(), e.GetRexpr().GetList().GetItems()[0], s)
	}
	if list := a.rowIn(e, s); list != nil {
		return list
	}
	if e == nil || e.GetKind() != pgquery.A_Expr_Kind_AEXPR_OP || operator(e.GetName()) != "=" || e.GetLexpr() == nil {
		a.note(n, s)
		if a.facts++; a.facts <= maxFacts {
			if c, set := a.setOf(n, s); set != nil {
				return []fact{{a: c, set: set}}
			}
		}
		return nil
	}
	return a.equals(e.GetLexpr(), e.GetRexpr(), s)
}

// equals returns the facts that l = r states, each of which may be a row.
func (a *analysis) equals(l, r *pgquery.Node, s *scope) (list []fact) {
	lr, rr := l.GetRowExpr().GetArgs(), r.GetRowExpr().GetArgs()
	if len(lr) == 0 || len(lr) != len(rr) {
		return a.equality(l, r, s)
	}
	for i := range lr {
		list = append(list, a.equality(lr[i], rr[i], s)...)
	}
	return list
}

// equality returns the fact that l = r states of a key column, if it does.
func (a *analysis) equality(l, r *pgquery.Node, s *scope) []fact {
	if a.facts++; a.facts > maxFacts {
		return nil
	}
	l, r = s.constant(l), s.constant(r)
	lc, lok := s.column(l, a.env.Database)
	rc, rok := s.column(r, a.env.Database)
	switch {
	case lok && rok:
		if lc.typ() == rc.typ() {
			return []fact{{a: lc, b: rc}}
		}
		return nil
	case rok:
		lc, r = rc, l
	case !lok:
		a.mention("%s is part of an expression, not compared by itself", s, l, r)
		return nil
	}
	if v := a.bind(lc, r); v != nil {
		return []fact{{a: lc, value: v}}
	}
	return nil
}

func (c column) typ() rib.Type { return c.ref.table.keyspace.types[c.i] }

// bind makes the constant that a key column is compared with, or notes why it is none.
func (a *analysis) bind(c column, n *pgquery.Node) *binding {
	t := c.ref.table
	name := quoteName(t.columns[c.i])
	v, problem := evaluate(n, a.path)
	var key KeyRef
	if problem == nil {
		key, problem = v.key(t.keyspace.types[c.i], t.keyspace.method)
	}
	if problem == nil {
		if v.origin != nil {
			a.bound = append(a.bound, bound{v.origin, key.Type})
		}
		key.column, key.Text = t.columns[c.i], name+" = "+v.String()
		return &binding{key}
	}
	if c.ref.issue == nil {
		i := *problem
		switch {
		case problem == errNotConstant && n.GetColumnRef() != nil:
			i.reason = name + " is compared with a column of which no value is known"
		case problem == errNotConstant && n.GetSubLink() != nil:
			i.reason = name + " is compared with a subquery"
		case problem == errNotConstant:
			i.reason = name + " is compared with an expression that only PostgreSQL can evaluate"
		case v.null:
			i.reason = fmt.Sprintf("%s = NULL is never true: no row matches on any shard", name)
			i.hint = "Use a value that is not NULL; rows whose key is NULL belong to no shard."
		default:
			i.reason = fmt.Sprintf("%s = ...: %s", name, problem.reason)
		}
		c.ref.issue = &i
	}
	return nil
}

// note records, for every key column that a term mentions which is no equality, why the term gives no key.
func (a *analysis) note(n *pgquery.Node, s *scope) {
	a.mention(describe(n), s, n)
}

// mention records what, in which %s is the column, for every key column in the expressions.
func (a *analysis) mention(what string, s *scope, exprs ...*pgquery.Node) {
	visit := func(x any) bool {
		switch x := x.(type) {
		case *pgquery.SelectStmt:
			return false
		case *pgquery.Node:
			if x.GetColumnRef() == nil {
				return true
			}
			if c, ok := s.column(x, a.env.Database); ok && c.ref.issue == nil {
				c.ref.issue = issuef("%s", fmt.Sprintf(what, quoteName(c.ref.table.columns[c.i])))
			}
		}
		return true
	}
	walkList(exprs, visit)
}

// describe says why a term gives no key. %s is the column.
func describe(n *pgquery.Node) string {
	if b := n.GetBoolExpr(); b != nil {
		if b.GetBoolop() == pgquery.BoolExprType_OR_EXPR {
			return "%s is compared under OR, which may give several keys"
		}
		return "%s is compared under NOT, which gives no key"
	}
	if n.GetNullTest() != nil {
		return "%s IS [NOT] NULL gives no key"
	}
	if n.GetSubLink() != nil {
		return "%s is compared with a subquery"
	}
	e := n.GetAExpr()
	switch e.GetKind() {
	case pgquery.A_Expr_Kind_AEXPR_IN:
		if operator(e.GetName()) == "<>" {
			return "%s NOT IN (...) gives no key"
		}
		return "%s IN (...) may give several keys"
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY:
		return "%s = ANY (...) may give several keys"
	case pgquery.A_Expr_Kind_AEXPR_OP_ALL:
		return "%s is compared with ALL (...), which gives no key"
	case pgquery.A_Expr_Kind_AEXPR_BETWEEN, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pgquery.A_Expr_Kind_AEXPR_BETWEEN_SYM, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		return "%s BETWEEN gives a range, not one key"
	case pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return "%s IS [NOT] DISTINCT FROM gives no key"
	case pgquery.A_Expr_Kind_AEXPR_OP:
		if op := operator(e.GetName()); op != "" && op != "=" {
			return "%s is compared by " + escapePercent(op) + ", not by ="
		}
	}
	return "%s is not compared by a plain ="
}

func escapePercent(op string) string {
	out := ""
	for _, r := range op {
		if r == '%' {
			out += "%"
		}
		out += string(r)
	}
	return out
}
