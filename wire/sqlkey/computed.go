package sqlkey

import (
	"crypto/md5" // what PostgreSQL's md5() computes
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// Immutable expressions of constants are computed here, so that a key may be written as lower('DE') or 3 + 4. Only those are, of which it is certain that every
// server computes the same, whatever its version, its locale, its encoding and the session's settings: a wrong value would be a wrong route. What is in doubt,
// or would be an error there, is not computed, and is what it was before: an expression that only PostgreSQL can evaluate. The statement runs as it was
// written; the value decides its shard alone.

// maxComputed bounds a computed text, in bytes: no longer one fits into an index.
const maxComputed = 8 << 10

// An exprType is the type that PostgreSQL gives an expression, as far as functions are chosen by it.
type exprType uint8

const (
	kindNone    exprType = iota
	kindLiteral          // a string that has no type yet
	kindInt2
	kindInt4
	kindInt8
	kindNumeric // that is an integer
	kindText
	kindVarchar
	kindUUID
	kindBytea
	kindDate
)

// computed is the value of an expression of constants.
type computed struct {
	kind   exprType
	number int64 // of integers and kindNumeric; of kindDate the days since 1970
	str    string
}

func (k exprType) isInt() bool { return k == kindInt2 || k == kindInt4 || k == kindInt8 }

// isText tells whether PostgreSQL takes it for a text where one is asked for by a function of pg_catalog's. A varchar may be meant for another
// function of that name.
func (k exprType) isText() bool { return k == kindText || k == kindLiteral }

// fits is v as an integer of its kind. ok is false if PostgreSQL would say that it is out of range.
func (v computed) fits() (_ computed, ok bool) {
	switch v.kind {
	case kindInt2:
		ok = math.MinInt16 <= v.number && v.number <= math.MaxInt16
	case kindInt4:
		ok = math.MinInt32 <= v.number && v.number <= math.MaxInt32
	case kindInt8, kindNumeric:
		ok = true
	}
	return v, ok
}

// constant is v as evaluate gives it.
func (v computed) constant() constant {
	c := constant{number: v.number, str: v.str}
	switch v.kind {
	case kindLiteral:
	case kindText, kindVarchar:
		c.family = texts
	case kindUUID:
		c.family = uuids
	case kindBytea:
		c.family = byteas
	case kindDate:
		c.family, c.number, c.str = dates, 0, v.text()
	default:
		c.family = integers
	}
	return c
}

// text is v as PostgreSQL writes it under the setting DateStyle = ISO.
func (v computed) text() string {
	switch {
	case v.kind == kindDate:
		return time.Unix(v.number*secondsOfDay, 0).UTC().Format(time.DateOnly)
	case v.kind.isInt() || v.kind == kindNumeric:
		return strconv.FormatInt(v.number, 10)
	}
	return v.str
}

const secondsOfDay = 24 * 60 * 60

// compute computes an expression of constants. ok is false if it is none, or in doubt.
func compute(n *pgquery.Node, p *path) (v computed, ok bool) {
	switch {
	case n.GetAConst() != nil:
		return computedLiteral(n.GetAConst())
	case n.GetTypeCast() != nil:
		if v, ok = compute(n.GetTypeCast().GetArg(), p); !ok {
			return v, false
		}
		return v.castTo(typeName(n.GetTypeCast().GetTypeName(), p))
	case n.GetAExpr() != nil:
		return computedOperator(n.GetAExpr(), p)
	case n.GetFuncCall() != nil:
		return computedCall(n.GetFuncCall(), p)
	}
	return v, false
}

func computedLiteral(c *pgquery.A_Const) (v computed, ok bool) {
	if c.GetIsnull() {
		return v, false
	}
	switch val := c.GetVal().(type) {
	case *pgquery.A_Const_Ival:
		return computed{kind: kindInt4, number: int64(val.Ival.GetIval())}, true
	case *pgquery.A_Const_Fval:
		number, err := strconv.ParseInt(val.Fval.GetFval(), 10, 64)
		if err != nil {
			return v, false
		}
		if v, ok = (computed{kind: kindInt4, number: number}).fits(); !ok { // a minus may have made it one
			v.kind = kindInt8
		}
		return v, true
	case *pgquery.A_Const_Sval:
		return computed{kind: kindLiteral, str: val.Sval.GetSval()}, true
	}
	return v, false
}

// castTo is v::name, where every server has the same for it.
func (v computed) castTo(name string) (_ computed, ok bool) {
	to := kindNone
	switch name {
	case "int2", "smallint":
		to = kindInt2
	case "int4":
		to = kindInt4
	case "int8":
		to = kindInt8
	case "numeric":
		to = kindNumeric
	case "text":
		to = kindText
	case "varchar":
		to = kindVarchar
	case "uuid":
		to = kindUUID
	case "bytea":
		to = kindBytea
	case "date":
		to = kindDate
	}
	isString := v.kind.isText() || v.kind == kindVarchar
	switch {
	case to == kindNone:
		return v, false
	case to == v.kind:
		return v, true
	case to == kindText || to == kindVarchar:
		if !isString && !v.kind.isInt() { // a date's depends on DateStyle
			return v, false
		}
		return computed{kind: to, str: v.text()}, true
	case (to.isInt() || to == kindNumeric) && (v.kind.isInt() || v.kind == kindNumeric):
		v.kind = to
		return v.fits()
	case to.isInt() && isString:
		read, err := rib.ParseText(rib.TypeBigint, bytesOf(v.str))
		if err != nil {
			return v, false
		}
		return computed{kind: to, number: read.Int}.fits()
	case to == kindUUID && isString:
		if _, err := rib.ParseText(rib.TypeUUID, bytesOf(v.str)); err != nil {
			return v, false
		}
		return computed{kind: to, str: v.str}, true
	case to == kindBytea && v.kind == kindLiteral: // of a text it is the text's own bytes
		if _, err := rib.ParseText(rib.TypeBytea, bytesOf(v.str)); err != nil {
			return v, false
		}
		return computed{kind: to, str: v.str}, true
	case to == kindDate && v.kind == kindLiteral:
		day, err := time.Parse(time.DateOnly, v.str)
		if err != nil || day.Year() < 1 {
			return v, false
		}
		return computed{kind: to, number: day.Unix() / secondsOfDay}, true
	}
	return v, false
}

func computedOperator(e *pgquery.A_Expr, p *path) (v computed, ok bool) {
	op := operator(e.GetName())
	if e.GetKind() != pgquery.A_Expr_Kind_AEXPR_OP || op == "" || len(e.GetName()) == 1 && !p.builtinsFirst || e.GetRexpr() == nil {
		return v, false
	}
	r, ok := compute(e.GetRexpr(), p)
	if !ok {
		return v, false
	}
	if e.GetLexpr() == nil {
		if !r.kind.isInt() || op != "-" && op != "+" {
			return v, false
		}
		if op == "-" {
			return arithmetic("-", computed{kind: r.kind}, r)
		}
		return r, true
	}
	l, ok := compute(e.GetLexpr(), p)
	switch {
	case !ok:
		return v, false
	case op == "||" && l.kind.isText() && r.kind.isText() && len(l.str)+len(r.str) <= maxComputed:
		return computed{kind: kindText, str: l.str + r.str}, true
	case l.kind.isInt() && r.kind.isInt():
		return arithmetic(op, l, r)
	}
	return dated(op, l, r)
}

// arithmetic is l op r of integers, of which the wider one's type is the result's. ok is false where PostgreSQL has an error for it.
func arithmetic(op string, l, r computed) (v computed, ok bool) {
	a, b := l.number, r.number
	v.kind = max(l.kind, r.kind)
	switch op {
	case "+":
		v.number = a + b
		ok = (v.number > a) == (b > 0)
	case "-":
		v.number = a - b
		ok = (v.number < a) == (b > 0)
	case "*":
		if v.number = a * b; a == 0 || b == 0 {
			return v, true
		}
		ok = v.number/b == a && (a != math.MinInt64 || b != -1) && (b != math.MinInt64 || a != -1)
	case "/":
		if ok = b != 0 && (a != math.MinInt64 || b != -1); ok {
			v.number = a / b
		}
	case "%":
		if ok = b != 0; ok {
			v.number = a % b
		}
	}
	if !ok {
		return v, false
	}
	return v.fits()
}

// dated is what an operator makes of dates: another date, or the days between two.
func dated(op string, l, r computed) (v computed, ok bool) {
	days := func(k exprType) bool { return k == kindInt2 || k == kindInt4 } // there is no operator for a bigint
	switch {
	case op == "+" && l.kind == kindDate && days(r.kind), op == "+" && days(l.kind) && r.kind == kindDate:
		return onDay(l.number + r.number)
	case op == "-" && l.kind == kindDate && days(r.kind):
		return onDay(l.number - r.number)
	case op == "-" && l.kind == kindDate && r.kind == kindDate:
		return computed{kind: kindInt4, number: l.number - r.number}, true
	}
	return v, false
}

// onDay is a date of the years that are written with four digits.
func onDay(number int64) (v computed, ok bool) {
	first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).Unix()
	return computed{kind: kindDate, number: number}, first/secondsOfDay <= number && number <= last/secondsOfDay
}

func computedCall(f *pgquery.FuncCall, p *path) (v computed, ok bool) {
	names := f.GetFuncname()
	switch {
	case len(names) == 1 && p.builtinsFirst:
	case len(names) == 2 && names[0].GetString_().GetSval() == "pg_catalog":
	default:
		return v, false
	}
	if len(f.GetAggOrder()) > 0 || f.GetAggFilter() != nil || f.GetOver() != nil || f.GetAggWithinGroup() || f.GetAggStar() || f.GetAggDistinct() || f.GetFuncVariadic() {
		return v, false
	}
	name := names[len(names)-1].GetString_().GetSval()
	if len(f.GetArgs()) > 3 || !isOneOf(name, "lower", "upper", "md5", "abs", "mod", "make_date", "decode") {
		return v, false
	}
	args := make([]computed, len(f.GetArgs()))
	for i, n := range f.GetArgs() {
		if args[i], ok = compute(n, p); !ok {
			return v, false
		}
	}
	switch len(args) {
	case 1:
		return computedOfOne(name, args[0])
	case 2:
		switch l, r := args[0], args[1]; {
		case name == "mod" && l.kind == r.kind && l.kind.isInt():
			return arithmetic("%", l, r)
		case name == "decode" && l.kind.isText() && r.kind.isText() && LowerASCII(r.str) == "hex":
			if _, err := hex.DecodeString(l.str); err != nil { // PostgreSQL allows for white space
				return v, false
			}
			return computed{kind: kindBytea, str: `\x` + l.str}, true
		}
	case 3:
		return madeDate(name, args)
	}
	return v, false
}

func computedOfOne(name string, arg computed) (v computed, ok bool) {
	switch {
	case name == "abs" && arg.kind.isInt():
		if arg.number < 0 {
			return arithmetic("-", computed{kind: arg.kind}, arg)
		}
		return arg, true
	case !arg.kind.isText() || !IsASCII(arg.str) || len(arg.str) > maxComputed:
		return v, false
	case name == "md5":
		sum := md5.Sum(bytesOf(arg.str))
		return computed{kind: kindText, str: hex.EncodeToString(sum[:])}, true
	// There are locales in which the small letter of I is none of ASCII's, and the capital one of i.
	case name == "lower" && !strings.Contains(arg.str, "I"):
		return computed{kind: kindText, str: strings.ToLower(arg.str)}, true
	case name == "upper" && !strings.Contains(arg.str, "i"):
		return computed{kind: kindText, str: strings.ToUpper(arg.str)}, true
	}
	return v, false
}

func madeDate(name string, args []computed) (v computed, ok bool) {
	if name != "make_date" {
		return v, false
	}
	for _, a := range args {
		if a.kind != kindInt2 && a.kind != kindInt4 {
			return v, false
		}
	}
	y, m, d := args[0].number, args[1].number, args[2].number
	if y < 1 || y > 9999 || m < 1 || m > 12 || d < 1 || d > 31 {
		return v, false
	}
	day := time.Date(int(y), time.Month(m), int(d), 0, 0, 0, 0, time.UTC)
	if day.Day() != int(d) {
		return v, false
	}
	return onDay(day.Unix() / secondsOfDay)
}
