package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// An expr is an expression that can be computed here: of constants when it is planned, of parameters once they are there. What is none, or may be another
// one's than PostgreSQL's own, has none.
type expr struct {
	op    string   // an operator, the name of a function, or one of those below; "": a constant
	args  []*expr  //
	value computed // a constant's
	param int      // opParam: its number
	typ   exprType // opCast: what it is cast to
	size  int      // how many there are, this one and those below it
	reads bool     // it, or one below, is a parameter
}

// The operations of an expr that have no name in SQL, or none of a function.
const (
	opParam    = "$"
	opCast     = "::"
	opCoalesce = "coalesce"
)

// maxComputedTerms bounds an expression of parameters: it is computed each time that it is executed.
const maxComputedTerms = 32

// expression reads an expression. It returns nil if it cannot be computed.
func expression(n *pgquery.Node, p *path) *expr {
	switch {
	case n.GetAConst() != nil:
		if v, ok := computedLiteral(n.GetAConst()); ok {
			return &expr{value: v, size: 1}
		}
	case n.GetParamRef().GetNumber() > 0: // of those below zero see blanked
		return &expr{op: opParam, param: int(n.GetParamRef().GetNumber()), size: 1, reads: true}
	case n.GetTypeCast() != nil:
		to := computedType(typeName(n.GetTypeCast().GetTypeName(), p))
		if e := operationOf(opCast, p, n.GetTypeCast().GetArg()); e != nil && to != kindNone {
			e.typ = to
			return e
		}
	case n.GetAExpr() != nil:
		return operatorOf(n.GetAExpr(), p)
	case n.GetFuncCall() != nil:
		return callOf(n.GetFuncCall(), p)
	case n.GetCoalesceExpr() != nil:
		return operationOf(opCoalesce, p, n.GetCoalesceExpr().GetArgs()...)
	}
	return nil
}

func operationOf(op string, p *path, args ...*pgquery.Node) *expr {
	e := &expr{op: op, size: 1, args: make([]*expr, len(args))}
	for i, n := range args {
		arg := expression(n, p)
		if arg == nil {
			return nil
		}
		e.args[i], e.size, e.reads = arg, e.size+arg.size, e.reads || arg.reads
	}
	if e.reads && e.size > maxComputedTerms {
		return nil
	}
	return e
}

func operatorOf(e *pgquery.A_Expr, p *path) *expr {
	op := operator(e.GetName())
	if e.GetKind() != pgquery.A_Expr_Kind_AEXPR_OP || len(e.GetName()) == 1 && !p.builtinsFirst || e.GetRexpr() == nil {
		return nil
	}
	switch {
	case e.GetLexpr() == nil && isOneOf(op, "+", "-"):
		return operationOf(op, p, e.GetRexpr())
	case e.GetLexpr() != nil && isOneOf(op, "+", "-", "*", "/", "%", "||"):
		return operationOf(op, p, e.GetLexpr(), e.GetRexpr())
	}
	return nil
}

func callOf(f *pgquery.FuncCall, p *path) *expr {
	names := f.GetFuncname()
	switch {
	case len(names) == 1 && p.builtinsFirst:
	case len(names) == 2 && names[0].GetString_().GetSval() == "pg_catalog":
	default:
		return nil
	}
	if len(f.GetAggOrder()) > 0 || f.GetAggFilter() != nil || f.GetOver() != nil || f.GetAggWithinGroup() || f.GetAggStar() || f.GetAggDistinct() || f.GetFuncVariadic() {
		return nil
	}
	args := 0
	name := names[len(names)-1].GetString_().GetSval()
	switch name {
	case "lower", "upper", "md5", "abs":
		args = 1
	case "mod", "decode":
		args = 2
	case "make_date":
		args = 3
	}
	if len(f.GetArgs()) != args || args == 0 {
		return nil
	}
	return operationOf(name, p, f.GetArgs()...)
}

// compute computes an expression. ok is false if it is in doubt what it is, or would be an error.
func (e *expr) compute(a *computing) (v computed, ok bool) {
	switch e.op {
	case "":
		return e.value, true
	case opParam:
		return a.parameter(e.param)
	case opCoalesce:
		return e.coalesced(a)
	}
	var args [3]computed
	null := false
	for i, arg := range e.args {
		if args[i], ok = arg.compute(a); !ok {
			return v, false
		}
		null = null || args[i].null
	}
	switch l, r := args[0], args[1]; {
	case e.op == opCast:
		return l.castTo(e.typ)
	case null: // as all of these make of it
		return computed{kind: e.kindOf(l.kind, r.kind), null: true}, true
	case len(e.args) == 1:
		return computedOfOne(e.op, l)
	case len(e.args) == 3:
		return madeDate(e.op, args[:])
	case e.op == "mod":
		if l, r = typedAlike(l, r); l.kind != r.kind || !l.kind.isInt() {
			return v, false
		}
		return arithmetic("%", l, r)
	case e.op == "decode":
		return decoded(l, r)
	case e.op == "||":
		return joined(l, r)
	default:
		return computedOfTwo(e.op, l, r)
	}
}

// kindOf is the type of what the operation makes of one or two values, if it takes such.
func (e *expr) kindOf(l, r exprType) exprType {
	switch e.op {
	case "lower", "upper", "md5", "||":
		return kindText
	case "decode":
		return kindBytea
	case "make_date":
		return kindDate
	}
	switch {
	case len(e.args) == 1 && l.isInt():
		return l
	case len(e.args) == 2 && l.isInt() && (r.isInt() || r == kindLiteral), len(e.args) == 2 && l == kindLiteral && r.isInt():
		return max(l, r)
	case len(e.args) == 2 && (l == kindDate || r == kindDate):
		if l == r {
			return kindInt4
		}
		return kindDate
	}
	return kindNone
}

// coalesced is the first of the arguments that is not NULL, as the type that they have in common. What is wrong with the others is an error all the same, at times.
func (e *expr) coalesced(a *computing) (v computed, ok bool) {
	var room [4]computed
	args := room[:0]
	kind := kindLiteral
	for _, arg := range e.args {
		if v, ok = arg.compute(a); !ok {
			return v, false
		}
		if args = append(args, v); v.kind == kindNone {
			return v, false
		}
		if kind, ok = kind.inCommon(v.kind); !ok {
			return v, false
		}
	}
	if kind == kindLiteral {
		kind = kindText
	}
	found := computed{kind: kind, null: true}
	for i := len(args) - 1; i >= 0; i-- {
		if v, ok = args[i].castTo(kind); !ok {
			return v, false
		}
		if !v.null {
			found = v
		}
	}
	return found, true
}

// inCommon is the type that PostgreSQL chooses for expressions of which one must do for the other.
func (k exprType) inCommon(o exprType) (_ exprType, ok bool) {
	switch {
	case k == o, o == kindLiteral:
		return k, true
	case k == kindLiteral:
		return o, true
	case k.isInt() && o.isInt():
		return max(k, o), true
	}
	return k, false
}

// String is the expression as SQL writes it: equal texts are equal expressions.
func (e *expr) String() string {
	switch {
	case e.op == "" && e.value.kind == kindLiteral:
		return rib.QuoteLiteral(e.value.str)
	case e.op == "":
		return e.value.text()
	case e.op == opParam:
		return "$" + itoa(e.param)
	case e.op == opCast:
		return e.args[0].inside() + "::" + exprTypeNames[e.typ]
	case e.isCall():
		texts := make([]string, len(e.args))
		for i, arg := range e.args {
			texts[i] = arg.String()
		}
		return e.op + "(" + strings.Join(texts, ", ") + ")"
	case len(e.args) == 1:
		return e.op + " " + e.args[0].inside()
	}
	return e.args[0].inside() + " " + e.op + " " + e.args[1].inside()
}

// inside is the same where it stands beside an operator.
func (e *expr) inside() string {
	if e.op == "" || e.op == opParam || e.isCall() {
		return e.String()
	}
	return "(" + e.String() + ")"
}

func (e *expr) isCall() bool { return e.op != "" && 'a' <= e.op[0] && e.op[0] <= 'z' }

var exprTypeNames = [...]string{
	kindNone: "", kindLiteral: "unknown", kindInt2: "int2", kindInt4: "int4", kindInt8: "int8", kindNumeric: "numeric", kindText: "text",
	kindVarchar: "varchar", kindUUID: "uuid", kindBytea: "bytea", kindDate: "date",
}
