package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// label is the name that PostgreSQL gives a column whose target has none.
func label(n *pgquery.Node) string {
	if name, strength := figure(n); strength > 0 {
		return name
	}
	return "?column?"
}

// targetLabel is the name of a target's column.
func targetLabel(n *pgquery.Node) string {
	if name := n.GetResTarget().GetName(); name != "" {
		return name
	}
	return label(n.GetResTarget().GetVal())
}

// figure does what FigureColnameInternal does: a name, and how good it is, from 0 (none) to 2.
func figure(n *pgquery.Node) (name string, strength int) {
	switch x := n.GetNode().(type) {
	case *pgquery.Node_ColumnRef:
		if name := lastName(n); name != "" {
			return name, 2
		}
	case *pgquery.Node_AIndirection:
		list := x.AIndirection.GetIndirection()
		for i := len(list) - 1; i >= 0; i-- {
			if s := list[i].GetString_(); s != nil {
				return s.GetSval(), 2
			}
		}
		return figure(x.AIndirection.GetArg())
	case *pgquery.Node_FuncCall:
		if names := x.FuncCall.GetFuncname(); len(names) > 0 {
			return names[len(names)-1].GetString_().GetSval(), 2
		}
	case *pgquery.Node_AExpr:
		if x.AExpr.GetKind() == pgquery.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pgquery.Node_TypeCast:
		if name, strength = figure(x.TypeCast.GetArg()); strength <= 1 {
			if names := x.TypeCast.GetTypeName().GetNames(); len(names) > 0 {
				return names[len(names)-1].GetString_().GetSval(), 1
			}
		}
		return name, strength
	case *pgquery.Node_CollateClause:
		return figure(x.CollateClause.GetArg())
	case *pgquery.Node_GroupingFunc:
		return "grouping", 2
	case *pgquery.Node_SubLink:
		switch x.SubLink.GetSubLinkType() {
		case pgquery.SubLinkType_EXISTS_SUBLINK:
			return "exists", 2
		case pgquery.SubLinkType_ARRAY_SUBLINK:
			return "array", 2
		case pgquery.SubLinkType_EXPR_SUBLINK:
			s := x.SubLink.GetSubselect().GetSelectStmt()
			for s.GetLarg() != nil {
				s = s.GetLarg()
			}
			if list := s.GetTargetList(); len(list) > 0 {
				if name := list[0].GetResTarget().GetName(); name != "" {
					return name, 2
				}
				return figure(list[0].GetResTarget().GetVal())
			}
			if len(s.GetValuesLists()) > 0 {
				return "column1", 2
			}
		}
	case *pgquery.Node_CaseExpr:
		if name, strength = figure(x.CaseExpr.GetDefresult()); strength <= 1 {
			return "case", 1
		}
		return name, strength
	case *pgquery.Node_AArrayExpr:
		return "array", 2
	case *pgquery.Node_RowExpr:
		return "row", 2
	case *pgquery.Node_CoalesceExpr:
		return "coalesce", 2
	case *pgquery.Node_MinMaxExpr:
		if x.MinMaxExpr.GetOp() == pgquery.MinMaxOp_IS_LEAST {
			return "least", 2
		}
		return "greatest", 2
	case *pgquery.Node_SqlvalueFunction:
		return strings.ToLower(valueFunction(x.SqlvalueFunction.GetOp())), 2
	case *pgquery.Node_XmlExpr:
		if name := strings.TrimPrefix(x.XmlExpr.GetOp().String(), "IS_"); name != "DOCUMENT" {
			return strings.ToLower(name), 2
		}
	case *pgquery.Node_XmlSerialize:
		return "xmlserialize", 2
	case *pgquery.Node_JsonObjectConstructor:
		return "json_object", 2
	case *pgquery.Node_JsonArrayConstructor, *pgquery.Node_JsonArrayQueryConstructor:
		return "json_array", 2
	case *pgquery.Node_JsonObjectAgg:
		return "json_objectagg", 2
	case *pgquery.Node_JsonArrayAgg:
		return "json_arrayagg", 2
	}
	return "", 0
}
