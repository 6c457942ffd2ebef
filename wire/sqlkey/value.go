package sqlkey

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unsafe"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// issue is why something cannot be routed.
type issue struct {
	code   string // SQLSTATE
	reason string // a clause: "customer_id IN (...) may give several keys"
	hint   string // "" for the caller's own
}

func issuef(format string, args ...any) *issue {
	return &issue{code: pg.CodeFeatureNotSupported, reason: fmt.Sprintf(format, args...)}
}

// family groups the types between which a cast keeps the value.
type family uint8

const (
	unknown family = iota // a string literal or a parameter without a type of its own
	integers
	texts
	uuids
	byteas
	dates
	instants // timestamptz
)

// constant is an expression whose value does not depend on any row: a literal or a parameter, cast or not.
type constant struct {
	family family
	param  int      // > 0: a parameter
	null   bool     //
	number int64    // integers
	str    string   // the others
	cast   rib.Type // of a parameter: what it is cast to; 0 if it is not
	origin *origin  // in a shared plan: where the value will come from
	made   *formula // what is computed of parameters; the other fields are zero then
}

// origin tells how a key is made of a constant of each text that shares a plan.
type origin struct {
	place int     // among the text's constants
	value int     // among those that are compared with key columns, see Plan.bound
	steps []*step // what becomes of it
}

// then returns s with one more step.
func (s *origin) then(st *step) *origin {
	return &origin{place: s.place, steps: append(s.steps[:len(s.steps):len(s.steps)], st)}
}

// bound is such a constant where it is compared with a key column, or inserted into one. If it could not be a key, the text's
// plan would be another one.
type bound struct {
	origin *origin
	typ    rib.Type // of the column
}

// step is a minus sign or a cast.
type step struct {
	cast *keyType // nil: a minus sign
}

// apply takes the step with a value.
func (st *step) apply(c constant) (constant, *issue) {
	if st.cast != nil {
		return c.castTo(st.cast)
	}
	return c.negated()
}

// errNotConstant is returned for expressions that only the server can evaluate.
var errNotConstant = &issue{code: pg.CodeFeatureNotSupported, reason: "only PostgreSQL can evaluate it"}

// evaluate reads a constant expression. It evaluates nothing that could fail or differ on the server: what written reads, and what can be computed of
// constants, and of parameters once they are there.
func evaluate(n *pgquery.Node, p *path) (constant, *issue) {
	c, problem := written(n, p)
	if problem == nil || n.GetAConst() != nil || p.asWritten {
		return c, problem
	}
	e := expression(n, p)
	switch {
	case e == nil:
	case e.reads && p.tree != nil && !p.anyForeign(e):
		return constant{made: p.formulaOf(e)}, nil
	case !e.reads:
		if v, ok := e.compute(nil); ok {
			return v.constant(), nil
		}
	}
	return c, problem
}

// written reads a value as it is written: literals, parameters, signs, and casts that keep the value.
func written(n *pgquery.Node, p *path) (constant, *issue) {
	switch {
	case n.GetAConst() != nil:
		return literal(n.GetAConst())
	case n.GetParamRef() != nil:
		number := n.GetParamRef().GetNumber()
		if number < 0 {
			return blanked(number)
		}
		if number == 0 {
			return constant{}, errNotConstant
		}
		if p.isForeign(int(number)) {
			return constant{}, issuef("parameter $%d is declared as of another type than the key", number)
		}
		return constant{param: int(number)}, nil
	case n.GetTypeCast() != nil:
		return castOf(n.GetTypeCast(), p)
	case n.GetCollateClause() != nil:
		return constant{}, issuef("COLLATE may change what is equal")
	case n.GetAExpr() != nil:
		return signed(n.GetAExpr(), p)
	}
	return constant{}, errNotConstant
}

func literal(c *pgquery.A_Const) (constant, *issue) {
	if c.GetIsnull() {
		return constant{null: true}, nil
	}
	switch v := c.GetVal().(type) {
	case *pgquery.A_Const_Ival:
		return constant{family: integers, number: int64(v.Ival.GetIval())}, nil
	case *pgquery.A_Const_Fval:
		s := v.Fval.GetFval()
		number, err := parseInteger(s)
		switch {
		case err == nil:
			return constant{family: integers, number: number}, nil
		case errors.Is(err, strconv.ErrRange):
			return constant{}, &issue{code: pg.CodeNumericValueOutOfRange, reason: clip(s) + " is beyond bigint"}
		}
		return constant{}, issuef("%s is of type numeric", clip(s))
	case *pgquery.A_Const_Sval:
		return constant{str: v.Sval.GetSval()}, nil
	case *pgquery.A_Const_Boolval:
		return constant{}, issuef("a boolean is no key")
	}
	return constant{}, issuef("a bit string is no key")
}

// parseInteger reads an integer as PostgreSQL writes one: to Go 017 would be octal.
func parseInteger(s string) (int64, error) {
	if digits := strings.TrimLeft(s, "+-"); len(digits) > 1 && digits[0] == '0' && (digits[1] == '_' || '0' <= digits[1] && digits[1] <= '9') {
		return strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	}
	return strconv.ParseInt(s, 0, 64)
}

// signed is a sign before a constant integer that the parser has not folded, as in -42::bigint.
func signed(e *pgquery.A_Expr, p *path) (constant, *issue) {
	op := operator(e.GetName())
	if e.GetKind() != pgquery.A_Expr_Kind_AEXPR_OP || e.GetLexpr() != nil || op != "-" && op != "+" {
		return constant{}, errNotConstant
	}
	c, problem := written(e.GetRexpr(), p)
	if problem != nil {
		return c, problem
	}
	if c.family != integers || c.param > 0 || c.null {
		return c, errNotConstant
	}
	if op == "-" {
		return c.negated()
	}
	return c, nil
}

// negated is an integer with a minus before it.
func (c constant) negated() (constant, *issue) {
	if c.origin != nil {
		c.origin = c.origin.then(&step{})
		return c, nil
	}
	if c.number == math.MinInt64 {
		return c, &issue{code: pg.CodeNumericValueOutOfRange, reason: "9223372036854775808 is beyond bigint"}
	}
	c.number = -c.number
	return c, nil
}

// operator is the name of an operator of pg_catalog, "" of any other.
func operator(names []*pgquery.Node) string {
	switch len(names) {
	case 1:
		return names[0].GetString_().GetSval()
	case 2:
		if names[0].GetString_().GetSval() == "pg_catalog" {
			return names[1].GetString_().GetSval()
		}
	}
	return ""
}

// keyType is a type whose casts keep a key's value.
type keyType struct {
	name      string
	family    family
	low, high int64    // integers
	as        rib.Type // how a parameter's text is read
}

// keyTypeOf finds a keyType by the name that the parser leaves.
func keyTypeOf(name string) *keyType {
	switch name {
	case "int2", "smallint":
		return &keyType{name, integers, math.MinInt16, math.MaxInt16, rib.TypeSmallint}
	case "int4":
		return &keyType{name, integers, math.MinInt32, math.MaxInt32, rib.TypeInt}
	case "int8":
		return &keyType{name, integers, math.MinInt64, math.MaxInt64, rib.TypeBigint}
	case "text", "varchar":
		return &keyType{name, texts, 0, 0, rib.TypeText}
	case "uuid":
		return &keyType{name, uuids, 0, 0, rib.TypeUUID}
	case "bytea":
		return &keyType{name, byteas, 0, 0, rib.TypeBytea}
	case "date":
		return &keyType{name, dates, 0, 0, rib.TypeDate}
	case "timestamptz":
		return &keyType{name, instants, 0, 0, rib.TypeTimestamptz}
	}
	return nil
}

func castOf(cast *pgquery.TypeCast, p *path) (constant, *issue) {
	c, problem := written(cast.GetArg(), p)
	if problem != nil {
		return c, problem
	}
	name := baseTypeName(cast.GetTypeName(), p)
	t := keyTypeOf(name)
	if t == nil {
		return c, issuef("a cast to %s may change the value", name)
	}
	return c.castTo(t)
}

func (c constant) castTo(t *keyType) (constant, *issue) {
	if c.null {
		return c, nil
	}
	if c.family != unknown && c.family != t.family || c.made != nil {
		return c, issuef("a cast to %s may change the value", t.name)
	}
	if c.param > 0 {
		if c.cast == 0 {
			c.cast = t.as
		}
		c.family = t.family
		return c, nil
	}
	if c.origin != nil {
		c.origin, c.family = c.origin.then(&step{t}), t.family
		return c, nil
	}
	if t.family == integers {
		if c.family == unknown {
			v, err := rib.ParseText(rib.TypeBigint, bytesOf(c.str))
			if err != nil {
				return c, parseIssue(err)
			}
			c.number = v.Int
		}
		if c.number < t.low || c.number > t.high {
			return c, &issue{code: pg.CodeNumericValueOutOfRange, reason: fmt.Sprintf("%d is out of range for type %s", c.number, t.name)}
		}
	}
	c.family = t.family
	return c, nil
}

// baseTypeName is typeName, but of a domain that is known the name of the type below it: a value of that is a value of the domain, or an error.
func baseTypeName(t *pgquery.TypeName, p *path) string {
	name := typeName(t, p)
	names := stringsOf(t.GetNames())
	if len(names) == 0 || len(t.GetTypmods()) > 0 || len(t.GetArrayBounds()) > 0 || t.GetSetof() || t.GetPctType() {
		return name
	}
	d, known := p.domains[names[len(names)-1]]
	if !known || len(names) > 2 || len(names) == 2 && names[0] != d.schema {
		return name
	}
	return d.base
}

// typeName is a type's name if it is one of pg_catalog's, without modifier and dimensions; else something for people that
// is no type's name.
func typeName(t *pgquery.TypeName, p *path) string {
	var names []string
	for _, n := range t.GetNames() {
		names = append(names, n.GetString_().GetSval())
	}
	if len(names) == 0 {
		return "another type"
	}
	name := names[len(names)-1]
	switch {
	case len(t.GetTypmods()) > 0:
		return name + "(...)"
	case len(t.GetArrayBounds()) > 0:
		return name + "[]"
	case t.GetSetof() || t.GetPctType():
		return strings.Join(names, ".") + "%TYPE"
	case len(names) == 2 && names[0] == "pg_catalog":
		return name
	case len(names) > 1 || !p.builtinsFirst:
		return strings.Join(names, ".") + " (not pg_catalog's)"
	}
	return name
}

// parseIssue maps rib's errors.
func parseIssue(err error) *issue {
	i := &issue{code: CodeOf(err), reason: err.Error()}
	if errors.Is(err, rib.ErrKeyUnclear) {
		i.hint = unclearHint
	}
	return i
}

// CodeOf is the SQLSTATE that PostgreSQL has for what rib says of a value, in text form where that matters.
func CodeOf(err error) string {
	switch {
	case errors.Is(err, rib.ErrKeyRange):
		return pg.CodeNumericValueOutOfRange
	case errors.Is(err, rib.ErrKeyShort):
		return pg.CodeProtocolViolation
	case errors.Is(err, rib.ErrKeyEncoding):
		return pg.CodeCharacterNotInRepertoire
	case errors.Is(err, rib.ErrKeySyntax):
		return pg.CodeInvalidTextRepresentation
	case errors.Is(err, rib.ErrKeyTime):
		return pg.CodeDatetimeFieldOverflow
	case errors.Is(err, rib.ErrKeyHex):
		return pg.CodeInvalidParameterValue
	}
	return pg.CodeFeatureNotSupported
}

// unclearHint helps where a text means what the session's settings make of it.
const unclearHint = "Write it so that it means the same under all settings, or send it as a parameter in binary format."

// key binds a column of type t to c: a KeyRef without its text. Equality must mean the same here and on the server, so only
// values of the column's own family are taken.
func (c constant) key(t rib.Type, m rib.Method) (KeyRef, *issue) {
	ref := KeyRef{Type: t, cast: c.cast, origin: c.origin}
	switch {
	case c.null:
		return ref, &issue{code: pg.CodeNullValueNotAllowed, reason: "NULL is no key"}
	case c.made != nil:
		ref.made = c.made
		return ref, nil
	case c.family != unknown && c.family != familyOf(t):
		return ref, issuef("a value of another type is compared with a key of type %s", t)
	case c.param > 0:
		ref.Param = c.param
		return ref, nil
	case c.origin != nil:
		return ref, nil
	}
	v, err := c.value(t)
	if err == nil {
		ref.Literal, err = m.AppendKey(nil, v)
	}
	if err != nil {
		return ref, parseIssue(err)
	}
	ref.nonASCII = c.beyondASCII(t)
	return ref, nil
}

// value is a literal's value as a key of type t. It refers to c.str.
func (c constant) value(t rib.Type) (rib.Value, error) {
	if c.family != integers {
		return rib.ParseText(t, bytesOf(c.str))
	}
	return rib.Value{Type: t, Int: c.number}, t.Fits(c.number)
}

// beyondASCII tells whether the key's bytes depend on the client's encoding.
func (c constant) beyondASCII(t rib.Type) bool { return t == rib.TypeText && !IsASCII(c.str) }

// bytesOf is s without a copy: it must not be written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func familyOf(t rib.Type) family {
	switch t {
	case rib.TypeBigint, rib.TypeInt, rib.TypeSmallint:
		return integers
	case rib.TypeText:
		return texts
	case rib.TypeUUID:
		return uuids
	case rib.TypeBytea:
		return byteas
	case rib.TypeDate:
		return dates
	case rib.TypeTimestamptz:
		return instants
	}
	return unknown
}

// String is the constant as a statement would hold it, short.
func (c constant) String() string {
	switch {
	case c.null:
		return "NULL"
	case c.origin != nil:
		return "..."
	case c.param > 0:
		return "$" + strconv.Itoa(c.param)
	case c.made != nil:
		return clip(c.made.expr.String())
	case c.family == integers:
		return strconv.FormatInt(c.number, 10)
	}
	return rib.QuoteLiteral(clip(c.str))
}

// IsASCII reports whether a text is the same in all encodings of servers and clients.
func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// clip keeps a stranger's text from filling a message, whole characters only.
func clip(s string) string {
	if len(s) <= maxClipped {
		return s
	}
	return strings.ToValidUTF8(s[:maxClipped], "") + "..."
}

// maxClipped is how much of a stranger's text a message holds, in bytes.
const maxClipped = 60
