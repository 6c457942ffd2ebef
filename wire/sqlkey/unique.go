package sqlkey

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// Calls of rangefinder.unique_id() are the node's: before anything is planned, or sent, each is replaced by a number. So it may be a sharding
// key. As it is a number for as long as the statement runs, it may stand only where PostgreSQL would call a function once.

// Span is a part of a text, in bytes, and what takes its place: Text, and then a number unless it is Plain.
type Span struct {
	Start, End int
	Text       string
	Plain      bool
}

// uniqueIDs finds the calls in a text, and the INSERTs that leave a column to them. The plan is not nil if there are any: it says where they are, or
// why they cannot be there.
func (c *compiler) uniqueIDs(tree *pgquery.ParseResult, sql string) *Plan {
	if len(c.db.ids) == 0 && !strings.Contains(LowerASCII(sql), "unique_id") {
		return nil
	}
	u := &uniqueCalls{at: make(map[int]bool)}
	walk(tree, func(n any) bool {
		switch n.(type) {
		case *pgquery.CreateStmt, *pgquery.AlterTableStmt: // a column's default: see uniqueDefaults
			return false
		}
		if f, ok := n.(*pgquery.FuncCall); ok && isUnique(f) {
			u.at[int(f.GetLocation())] = false
			u.arguments = u.arguments || len(f.GetArgs()) > 0 || f.GetAggStar() || f.GetAggFilter() != nil || f.GetOver() != nil
		}
		return true
	})
	left := c.uniqueDefaults(tree, sql)
	if len(u.at)+len(left) == 0 {
		return nil
	}
	for _, s := range tree.GetStmts() {
		u.statement(s.GetStmt())
	}
	refuse := func(code, message, hint string) *Plan {
		return &Plan{Statements: len(tree.GetStmts()), Target: None, Intent: Write, WhyWrite: "not routed", Reason: message, Err: pg.NewError(code, message).WithHint(hint)}
	}
	if u.arguments {
		return refuse(pg.CodeUndefinedFunction, "function rangefinder.unique_id takes no arguments", "Write rangefinder.unique_id().")
	}
	for _, once := range u.at {
		if !once {
			return refuse(pg.CodeFeatureNotSupported, "rangefinder.unique_id() cannot stand here: the node replaces it by one number, and it might be called for several rows",
				"It can stand in the VALUES of an INSERT, and in a SELECT without FROM: SELECT rangefinder.unique_id(), and send the number.")
		}
	}
	p := &Plan{Statements: len(tree.GetStmts()), Target: Any, Intent: Write, WhyWrite: "rangefinder.unique_id()", Reason: "the node replaces rangefinder.unique_id() first"}
	scan, err := pgquery.Scan(sql)
	if err == nil {
		p.Unique = u.spans(scan.GetTokens())
	}
	if len(p.Unique) != len(u.at) {
		return refuse(pg.CodeFeatureNotSupported, "a call of rangefinder.unique_id() cannot be found in the text", "Write it as rangefinder.unique_id().")
	}
	p.Unique = append(p.Unique, left...)
	slices.SortStableFunc(p.Unique, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	return p
}

func isUnique(f *pgquery.FuncCall) bool {
	names := f.GetFuncname()
	return len(names) == 2 && names[0].GetString_().GetSval() == "rangefinder" && names[1].GetString_().GetSval() == "unique_id"
}

// uniqueCalls are the calls in a text.
type uniqueCalls struct {
	at        map[int]bool // by where they stand; true: PostgreSQL would evaluate it once
	arguments bool
}

// statement marks the calls that are evaluated once.
func (u *uniqueCalls) statement(n *pgquery.Node) {
	switch {
	case n.GetExplainStmt() != nil:
		u.statement(n.GetExplainStmt().GetQuery())
	case n.GetSelectStmt() != nil:
		u.rows(n.GetSelectStmt())
	case n.GetInsertStmt() != nil:
		u.rows(n.GetInsertStmt().GetSelectStmt().GetSelectStmt())
	}
}

// rows marks those in rows that are written out.
func (u *uniqueCalls) rows(s *pgquery.SelectStmt) {
	if s == nil || len(s.GetFromClause()) > 0 || s.GetOp() != pgquery.SetOperation_SETOP_NONE {
		return
	}
	for _, n := range s.GetValuesLists() {
		u.once(n.GetList().GetItems())
	}
	u.once(s.GetTargetList())
}

func (u *uniqueCalls) once(exprs []*pgquery.Node) {
	walkList(exprs, func(n any) bool {
		switch n := n.(type) {
		case *pgquery.SelectStmt:
			return false
		case *pgquery.FuncCall:
			if isUnique(n) {
				u.at[int(n.GetLocation())] = true
			}
			if names := n.GetFuncname(); names[len(names)-1].GetString_().GetSval() == "generate_series" { // a row each
				return false
			}
		}
		return true
	})
}

// spans are the calls' places, in their order: from the first name to the parenthesis that closes.
func (u *uniqueCalls) spans(tokens []*pgquery.ScanToken) (list []Span) {
	open := -1
	for _, t := range tokens {
		if _, ok := u.at[int(t.GetStart())]; ok && open < 0 {
			open = int(t.GetStart())
		}
		if open >= 0 && t.GetToken() == pgquery.Token_ASCII_41 {
			list = append(list, Span{Start: open, End: int(t.GetEnd())})
			open = -1
		}
	}
	return list
}

// WithUnique is the text with the calls replaced by numbers, which next makes, as bigint.
func (p *Plan) WithUnique(sql string, next func() (int64, error)) (string, error) {
	var b strings.Builder
	end := 0
	for _, s := range p.Unique {
		b.WriteString(sql[end:s.Start])
		b.WriteString(s.Text)
		end = s.End
		if s.Plain {
			continue
		}
		id, err := next()
		if err != nil {
			return "", err
		}
		b.WriteString("(" + strconv.FormatInt(id, 10) + "::bigint)")
	}
	b.WriteString(sql[end:])
	return b.String(), nil
}
