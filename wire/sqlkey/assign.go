package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Assignment is a parameter that a statement sets by the function set_config.
type Assignment struct {
	Name  string // lower case
	Value string
	Null  bool // the value is NULL: back to the default
	Local bool // for the transaction alone
	// Of what is no constant the number of the parameter; else 0.
	NameParam, ValueParam, LocalParam int
}

// assignments are the calls of set_config in a statement that makes them all, each once and in order, and that names no table:
// SELECT set_config(...), ... only is whether it does nothing else. None if that cannot be told.
func assignments(n *pgquery.Node, calls int) (list []Assignment, only bool) {
	s := n.GetSelectStmt()
	if calls == 0 || s == nil || s.GetOp() != pgquery.SetOperation_SETOP_NONE || s.GetWithClause() != nil || len(s.GetValuesLists()) > 0 ||
		len(s.GetFromClause()) > 0 || s.GetWhereClause() != nil || s.GetHavingClause() != nil || len(s.GetGroupClause()) > 0 ||
		s.GetLimitCount() != nil || s.GetLimitOffset() != nil || s.GetIntoClause() != nil || len(s.GetDistinctClause()) > 0 || len(s.GetSortClause()) > 0 {
		return nil, false
	}
	only = true
	for _, t := range s.GetTargetList() {
		f := t.GetResTarget().GetVal().GetFuncCall()
		if f == nil || !isSetConfig(f) {
			only = false
			continue
		}
		a, ok := assignment(f.GetArgs())
		if !ok {
			return nil, false
		}
		list = append(list, a)
	}
	if len(list) != calls { // others stand where they may be called often, or never
		return nil, false
	}
	return list, only
}

func isSetConfig(f *pgquery.FuncCall) bool {
	names := f.GetFuncname()
	return len(names) > 0 && names[len(names)-1].GetString_().GetSval() == "set_config" && len(f.GetArgs()) == 3 && f.GetOver() == nil && f.GetAggFilter() == nil
}

func assignment(args []*pgquery.Node) (a Assignment, ok bool) {
	var null bool
	if a.Name, a.NameParam, null, ok = textOf(args[0]); !ok || null {
		return a, false
	}
	a.Name = strings.ToLower(a.Name)
	if a.Value, a.ValueParam, a.Null, ok = textOf(args[1]); !ok {
		return a, false
	}
	if b, isConst := args[2].GetAConst().GetVal().(*pgquery.A_Const_Boolval); isConst {
		a.Local = b.Boolval.GetBoolval()
		return a, true
	}
	var local string
	if local, a.LocalParam, null, ok = textOf(args[2]); !ok || null {
		return a, false
	}
	if a.LocalParam == 0 {
		a.Local, ok = ParseBool(local)
	}
	return a, ok
}

// textOf reads a constant or a parameter, with a cast to text or boolean at most.
func textOf(n *pgquery.Node) (value string, param int, null, ok bool) {
	if t := n.GetTypeCast(); t != nil {
		names := t.GetTypeName().GetNames()
		if len(names) == 0 || !isOneOf(names[len(names)-1].GetString_().GetSval(), "text", "varchar", "bool") || len(t.GetTypeName().GetTypmods()) > 0 {
			return "", 0, false, false
		}
		n = t.GetArg()
	}
	if p := n.GetParamRef(); p != nil && p.GetNumber() > 0 {
		return "", int(p.GetNumber()), false, true
	}
	c := n.GetAConst()
	if c.GetIsnull() {
		return "", 0, true, true
	}
	if v, isText := c.GetVal().(*pgquery.A_Const_Sval); isText {
		return v.Sval.GetSval(), 0, false, true
	}
	return "", 0, false, false
}

// ParseBool reads a boolean as PostgreSQL does.
func ParseBool(s string) (value, ok bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	switch {
	case s == "":
		return false, false
	case s == "1" || s == "on" || strings.HasPrefix("true", s) || strings.HasPrefix("yes", s):
		return true, true
	case s == "0" || s == "off" || s == "of" || strings.HasPrefix("false", s) || strings.HasPrefix("no", s):
		return false, true
	}
	return false, false
}
