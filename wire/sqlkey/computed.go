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
	null   bool // the other fields but kind are zero then
}

func (k exprType) isInt() bool { return k == kindInt2 || k == kindInt4 || k == kindInt8 }

// isText tells whether PostgreSQL takes it for a text where one is asked for by a function of pg_catalog's. A varchar may be meant for another
// function of that name.
func (k exprType) isText() bool { return k == kindText || k == kindLiteral }

func (k exprType) isString() bool { return k.isText() || k == kindVarchar }

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
	c := constant{number: v.number, str: v.str, null: v.null}
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

// computedType is the type of that name; kindNone is one in which nothing is computed.
func computedType(name string) exprType {
	switch name {
	case "int2", "smallint":
		return kindInt2
	case "int4":
		return kindInt4
	case "int8":
		return kindInt8
	case "numeric":
		return kindNumeric
	case "text":
		return kindText
	case "varchar":
		return kindVarchar
	case "uuid":
		return kindUUID
	case "bytea":
		return kindBytea
	case "date":
		return kindDate
	}
	return kindNone
}

// castTo is v as another type, where every server has the same for it.
func (v computed) castTo(to exprType) (_ computed, ok bool) {
	if v.null {
		return computed{kind: to, null: true}, true
	}
	isString := v.kind.isString()
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

// computedOfTwo is what an operator makes of two values.
func computedOfTwo(op string, l, r computed) (v computed, ok bool) {
	if l, r = typedAlike(l, r); l.kind.isInt() && r.kind.isInt() {
		return arithmetic(op, l, r)
	}
	return dated(op, l, r)
}

// typedAlike gives a string without a type the integer type of the other operand, as PostgreSQL does.
func typedAlike(l, r computed) (computed, computed) {
	if l.kind == kindLiteral && r.kind.isInt() {
		if v, ok := l.castTo(r.kind); ok {
			l = v
		}
	}
	if r.kind == kindLiteral && l.kind.isInt() {
		if v, ok := r.castTo(l.kind); ok {
			r = v
		}
	}
	return l, r
}

// joined is l || r.
func joined(l, r computed) (v computed, ok bool) {
	if !l.kind.isString() || !r.kind.isString() || len(l.str)+len(r.str) > maxComputed {
		return v, false
	}
	return computed{kind: kindText, str: l.str + r.str}, true
}

// decoded is decode(text, 'hex').
func decoded(text, format computed) (v computed, ok bool) {
	if !text.kind.isText() || !format.kind.isText() || LowerASCII(format.str) != "hex" {
		return v, false
	}
	if _, err := hex.DecodeString(text.str); err != nil { // PostgreSQL allows for white space
		return v, false
	}
	return computed{kind: kindBytea, str: `\x` + text.str}, true
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

// computedOfOne is what a function, or a sign, makes of one value.
func computedOfOne(name string, arg computed) (v computed, ok bool) {
	switch {
	case name == "+" && arg.kind.isInt():
		return arg, true
	case name == "-" && arg.kind.isInt():
		return arithmetic("-", computed{kind: arg.kind}, arg)
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
