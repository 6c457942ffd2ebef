package sqlkey

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// treeVersion is what the parser writes on its trees, without which it does not take them back.
var treeVersion = sync.OnceValue(func() int32 {
	tree, err := pgquery.Parse("SELECT 1")
	if err != nil {
		return 0
	}
	return tree.GetVersion()
})

var (
	errNoInsert = errors.New("it is no INSERT")
	errNoCopy   = errors.New("it is no COPY of a table with columns")
)

// deparse writes a statement. Texts are made by PostgreSQL's own grammar alone: of a tree, and never of pieces of text.
func deparse(n *pgquery.Node) (string, error) {
	if s := n.GetCopyStmt(); s != nil && !writable(s.GetOptions()) {
		return "", errOptions
	}
	text, err := pgquery.Deparse(&pgquery.ParseResult{Version: treeVersion(), Stmts: []*pgquery.RawStmt{{Stmt: n}}})
	if err != nil {
		return "", err
	}
	if tooDeep(text) {
		return "", errTooDeep
	}
	if _, err := pgquery.Parse(text); err != nil { // what cannot be read back is nothing to send
		return "", fmt.Errorf("%s: %w", text, err)
	}
	return text, nil
}

// deparseFinal writes a statement that has marks in it: as names, which are quoted.
func deparseFinal(n *pgquery.Node) (string, error) {
	text, err := deparse(n)
	if err == nil {
		text, err = withoutBraces(text)
	}
	if err != nil {
		return "", err
	}
	for _, mark := range []string{FinalRows, FinalColumns} {
		text = strings.ReplaceAll(text, `"`+mark+`"`, mark)
	}
	for _, mark := range []string{FinalType, FinalHidden} {
		var b strings.Builder
		for {
			before, after, ok := strings.Cut(text, `"`+mark)
			b.WriteString(before)
			if !ok {
				break
			}
			number, rest, _ := strings.Cut(after, `}"`)
			b.WriteString(mark + number + "}")
			text = rest
		}
		text = b.String()
	}
	return text, nil
}

// withoutBraces writes the opening braces in a text's constants by their number, so that none is taken for the beginning of a mark.
func withoutBraces(text string) (string, error) {
	if !strings.Contains(text, "{") {
		return text, nil
	}
	scan, err := pgquery.Scan(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	at := 0
	for _, t := range scan.GetTokens() {
		word := text[t.GetStart():t.GetEnd()]
		if t.GetToken() != pgquery.Token_SCONST || !strings.Contains(word, "{") {
			continue
		}
		switch word[0] {
		case '\'':
			word = "E" + strings.ReplaceAll(word, `\`, `\\`)
		case 'E', 'e':
		default:
			return "", fmt.Errorf("a constant of an unknown form: %s", clip(word))
		}
		b.WriteString(text[at:t.GetStart()])
		b.WriteString(strings.ReplaceAll(word, "{", `\x7b`))
		at = int(t.GetEnd())
	}
	return b.String() + text[at:], nil
}

// holdsMark tells whether a statement has what would be taken for one of Final's marks.
func holdsMark(sql string) bool {
	return strings.Contains(sql, FinalRows) || strings.Contains(sql, FinalColumns) || strings.Contains(sql, FinalType) || strings.Contains(sql, rowMark) || strings.Contains(sql, FinalHidden)
}

func selectNode(s *pgquery.SelectStmt) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: s}}
}

// cloned is a copy of a tree in which nothing tells where it stood in the text, so that what is alike is equal.
func cloned[M proto.Message](m M) M {
	c := proto.Clone(m).(M)
	walk(c, func(n any) bool {
		if f := reflect.ValueOf(n).Elem().FieldByName("Location"); f.IsValid() && f.CanSet() && f.CanInt() {
			f.SetInt(0)
		}
		return true
	})
	return c
}

func columnRef(names ...string) *pgquery.Node {
	fields := make([]*pgquery.Node, len(names))
	for i, name := range names {
		fields[i] = pgquery.MakeStrNode(name)
	}
	return pgquery.MakeColumnRefNode(fields, 0)
}

func target(name string, val *pgquery.Node) *pgquery.Node {
	return pgquery.MakeResTargetNodeWithNameAndVal(name, val, 0)
}

func call(name string, args ...*pgquery.Node) *pgquery.Node {
	return pgquery.MakeFuncCallNode([]*pgquery.Node{pgquery.MakeStrNode(name)}, args, 0)
}

func operation(op string, l, r *pgquery.Node) *pgquery.Node {
	return pgquery.MakeAExprNode(pgquery.A_Expr_Kind_AEXPR_OP, []*pgquery.Node{pgquery.MakeStrNode(op)}, l, r, 0)
}

func castNode(n *pgquery.Node, typ ...string) *pgquery.Node {
	names := make([]*pgquery.Node, len(typ))
	for i, t := range typ {
		names[i] = pgquery.MakeStrNode(t)
	}
	return &pgquery.Node{Node: &pgquery.Node_TypeCast{TypeCast: &pgquery.TypeCast{Arg: n, TypeName: &pgquery.TypeName{Names: names, Typemod: -1}}}}
}

func boolNode(b bool) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_AConst{AConst: &pgquery.A_Const{Val: &pgquery.A_Const_Boolval{Boolval: &pgquery.Boolean{Boolval: b}}}}}
}

// numberNode is a constant, of type bigint where integers end.
func numberNode(n uint64) *pgquery.Node {
	if n <= math.MaxInt32 {
		return pgquery.MakeAConstIntNode(int64(n), 0)
	}
	return &pgquery.Node{Node: &pgquery.Node_AConst{AConst: &pgquery.A_Const{Val: &pgquery.A_Const_Fval{Fval: &pgquery.Float{Fval: strconv.FormatUint(n, 10)}}}}}
}

// greatest and least functions are a node of their own.
func least(args ...*pgquery.Node) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_MinMaxExpr{MinMaxExpr: &pgquery.MinMaxExpr{Op: pgquery.MinMaxOp_IS_LEAST, Args: args}}}
}

func coalesce(args ...*pgquery.Node) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_CoalesceExpr{CoalesceExpr: &pgquery.CoalesceExpr{Args: args}}}
}

func nullIf(a, b *pgquery.Node) *pgquery.Node {
	return pgquery.MakeAExprNode(pgquery.A_Expr_Kind_AEXPR_NULLIF, []*pgquery.Node{pgquery.MakeStrNode("=")}, a, b, 0)
}

// finalOver is a query over the gathered rows that has neither targets nor anything else yet.
func finalOver() *pgquery.SelectStmt {
	return &pgquery.SelectStmt{
		FromClause:  []*pgquery.Node{rowsNode()},
		Op:          pgquery.SetOperation_SETOP_NONE,
		LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT,
	}
}

func rowsNode() *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_RangeVar{RangeVar: &pgquery.RangeVar{Relname: FinalRows, Inh: true, Relpersistence: "p"}}}
}

// rowsOf is a query as the relation called rows.
func rowsOf(s *pgquery.SelectStmt) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_RangeSubselect{RangeSubselect: &pgquery.RangeSubselect{
		Subquery: selectNode(s), Alias: &pgquery.Alias{Aliasname: "rows"},
	}}}
}

func isStar(n *pgquery.Node) bool {
	fields := n.GetColumnRef().GetFields()
	return len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil
}

// bareName is the name of a column reference that is nothing but a name; "" of all others.
func bareName(n *pgquery.Node) string {
	if fields := n.GetColumnRef().GetFields(); len(fields) == 1 {
		return fields[0].GetString_().GetSval()
	}
	return ""
}

// lastName is the name of the column that a reference means; "" if it is none.
func lastName(n *pgquery.Node) string {
	fields := n.GetColumnRef().GetFields()
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1].GetString_().GetSval()
}

// ordinal is the number of a target that ORDER BY or GROUP BY names by a constant.
func ordinal(n *pgquery.Node) (int, bool) {
	v, ok := n.GetAConst().GetVal().(*pgquery.A_Const_Ival)
	if !ok || n.GetAConst().GetIsnull() {
		return 0, false
	}
	return int(v.Ival.GetIval()), true
}

// surface is a copy of a message that shares what it holds.
func surface[M proto.Message](m M) M {
	c := m.ProtoReflect().New()
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		c.Set(f, v)
		return true
	})
	return c.Interface().(M)
}
