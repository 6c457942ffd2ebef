package sqlkey

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// A formula is a key that is made of parameters: lower($1), $1 + 1. It is computed, as expressions of constants are, each time that the statement is executed.
// What comes of it may be in doubt for one value and not for the next: a letter beyond ASCII, a sum that is out of range. So a statement that may run on
// all shards has it as one of the conditions that say which (see Fan.Within), and goes to all if it cannot be computed.
//
// What is computed depends on the parameters' types. Those that the client declares are known then. One that is left open has the type that PostgreSQL
// finds for it where it meets it first; so it must stand nowhere in the statement but where that is certain.
type formula struct {
	expr  *expr
	terms []term
}

// term is a parameter in a formula.
type term struct {
	param int
	typ   exprType // its type if it is left open; kindNone: that is not known
}

// computing is what an expression's parameters are.
type computing struct {
	of   *formula
	args Args
}

// formulaOf makes the formula of an expression.
func (p *path) formulaOf(e *expr) *formula {
	if p.uses == nil {
		p.uses = p.usesIn(p.tree)
	}
	f, text := &formula{expr: e}, e.String()
	e.types(func(param int, typ exprType, cast bool) {
		t := term{param: param, typ: typ}
		for _, other := range p.uses[param] {
			if !other.allows(text, t, cast) {
				t.typ = kindNone
				break
			}
		}
		f.terms = append(f.terms, t)
	})
	for _, t := range f.terms { // one that is there twice has one type
		for i := range f.terms {
			if o := &f.terms[i]; o.param == t.param && o.typ != t.typ {
				o.typ = kindNone
			}
		}
	}
	return f
}

// anyForeign tells whether an expression has such a parameter.
func (p *path) anyForeign(e *expr) (is bool) {
	e.types(func(param int, _ exprType, _ bool) { is = is || p.isForeign(param) })
	return is
}

// uses are the places where a statement has each of its parameters: the largest expressions that can be computed, each once; nil stands for a place in
// none, and for all of them where there are too many.
type uses map[int][]*use

// maxUses bounds what is looked through for each key that is computed: there may be one in each of a thousand rows.
const maxUses = 64

func (all uses) add(param int, u *use) {
	list := all[param]
	switch {
	case len(list) == 1 && list[0] == nil:
	case u == nil || len(list) == maxUses:
		all[param] = []*use{nil}
	case !slices.ContainsFunc(list, func(o *use) bool { return o.text == u.text }):
		all[param] = append(list, u)
	}
}

// use is one of them.
type use struct {
	text string
	expr *expr
}

// usesIn finds them.
func (p *path) usesIn(tree proto.Message) uses {
	all := make(uses)
	walk(tree, func(n any) bool {
		node, ok := n.(*pgquery.Node)
		if !ok {
			return true
		}
		if number := int(node.GetParamRef().GetNumber()); number > 0 {
			all.add(number, nil)
			return false
		}
		if node.GetTypeCast() == nil && node.GetAExpr() == nil && node.GetFuncCall() == nil && node.GetCoalesceExpr() == nil {
			return true
		}
		e := expression(node, p)
		if e == nil || !e.reads {
			return e == nil
		}
		u := &use{e.String(), e}
		e.types(func(param int, _ exprType, _ bool) { all.add(param, u) })
		return false
	})
	return all
}

// allows tells whether the parameter t has the type there that it has in an expression, text: where that is the same one, or it is always cast to that type.
func (u *use) allows(text string, t term, cast bool) bool {
	switch {
	case u == nil:
		return false
	case u.text == text:
		return true
	case !cast:
		return false
	}
	same := true
	u.expr.types(func(param int, typ exprType, cast bool) { same = same && (param != t.param || cast && typ == t.typ) })
	return same
}

// types tells of each parameter in an expression which type PostgreSQL gives it if it is left open, by what stands around it; kindNone: that is not known here.
// cast: a cast says so. It returns the type of the expression itself, as far as it is known then.
func (e *expr) types(tell func(param int, typ exprType, cast bool)) exprType {
	if e.op == "" {
		return e.value.kind
	}
	if e.op == opParam {
		tell(e.param, kindNone, false)
		return kindNone
	}
	var room [3]exprType
	kinds := room[:0]
	for _, arg := range e.args {
		if arg.op == opParam {
			kinds = append(kinds, kindLiteral)
		} else {
			kinds = append(kinds, arg.types(tell))
		}
	}
	wanted, kind := e.wants(kinds)
	for _, arg := range e.args {
		if arg.op == opParam {
			tell(arg.param, wanted, e.op == opCast)
		}
	}
	return kind
}

// wants is the type that the operation has arguments of which it is open, and that of its result, if its arguments are of these types.
func (e *expr) wants(kinds []exprType) (arg, result exprType) {
	switch e.op {
	case opCast:
		return e.typ, e.typ
	case opCoalesce:
		common, ok := kindLiteral, true
		for _, k := range kinds {
			if k == kindNone {
				return kindNone, kindNone
			}
			if common, ok = common.inCommon(k); !ok {
				return kindNone, kindNone
			}
		}
		if common == kindLiteral {
			common = kindText
		}
		return common, common
	case "lower", "upper", "md5", "decode", "||":
		for _, k := range kinds {
			if !k.isString() {
				return kindNone, kindNone
			}
		}
		return kindText, e.kindOf(kindText, kindText)
	}
	if len(kinds) != 2 {
		return kindNone, e.kindOf(kinds[0], kindNone)
	}
	result = e.kindOf(kinds[0], kinds[1])
	if result.isInt() && (kinds[0] == kindLiteral || kinds[1] == kindLiteral) {
		arg = result
	}
	return arg, result
}

// parameter is the value of a parameter.
func (a *computing) parameter(number int) (v computed, ok bool) {
	if a == nil || a.args == nil {
		return v, false
	}
	val, format, oid, null, ok := a.args.Arg(number)
	typ, _ := a.of.typed(number, oid)
	switch {
	case !ok, typ == kindNone, len(val) > maxComputed, format != 0 && format != 1:
		return v, false
	case null:
		return computed{kind: typ, null: true}, true
	case format == 0 || typ.isString():
		return computed{kind: kindLiteral, str: string(val)}.castTo(typ)
	}
	return fromBinary(typ, val)
}

// typed is the type of a parameter that is declared with the type oid; kindNone if it is not known, or none that is computed with.
func (f *formula) typed(number int, oid uint32) (typ exprType, open bool) {
	if oid != 0 && oid != oidUnknown {
		return exprTypeOf(oid), false
	}
	for _, t := range f.terms {
		if t.param == number {
			return t.typ, true
		}
	}
	return kindNone, true
}

func exprTypeOf(oid uint32) exprType {
	switch oid {
	case oidInt2:
		return kindInt2
	case oidInt4:
		return kindInt4
	case oidInt8:
		return kindInt8
	case oidText:
		return kindText
	case oidVarchar:
		return kindVarchar
	case oidUUID:
		return kindUUID
	case oidBytea:
		return kindBytea
	case oidDate:
		return kindDate
	}
	return kindNone
}

// fromBinary reads a value in binary format.
func fromBinary(typ exprType, val []byte) (v computed, ok bool) {
	const until2000 = 10957 // days since 1970
	size := map[exprType]int{kindInt2: 2, kindInt4: 4, kindInt8: 8, kindDate: 4, kindUUID: 16}[typ]
	if size != 0 && len(val) != size {
		return v, false
	}
	switch v = (computed{kind: typ}); typ {
	case kindInt2:
		v.number = int64(int16(binary.BigEndian.Uint16(val)))
	case kindInt4:
		v.number = int64(int32(binary.BigEndian.Uint32(val)))
	case kindInt8:
		v.number = int64(binary.BigEndian.Uint64(val))
	case kindDate:
		return onDay(int64(int32(binary.BigEndian.Uint32(val))) + until2000)
	case kindUUID:
		v.str = hex.EncodeToString(val)
	case kindBytea:
		v.str = `\x` + hex.EncodeToString(val)
	default:
		return v, false
	}
	return v, true
}

// errNotComputed is why a formula has no value.
func (k *KeyRef) errNotComputed(args Args) *pg.Error {
	hint := "Compute the key in the application, and send it as a parameter of type " + k.Type.String() + "."
	for _, t := range k.made.terms {
		if args == nil {
			break
		}
		if _, _, oid, _, _ := args.Arg(t.param); t.typ == kindNone && (oid == 0 || oid == oidUnknown) {
			hint = fmt.Sprintf("Declare the type of $%d, or cast it to the same type wherever it stands; or compute the key in the application.", t.param)
		}
	}
	return k.failed(pg.CodeFeatureNotSupported, "the sharding key cannot be computed from these parameters").WithHint(hint)
}

// compute appends the key, or the part of one, that k is made of.
func (k *KeyRef) compute(m rib.Method, dst rib.Key, args Args, clientUTF8 bool) (rib.Key, error) {
	v, ok := k.made.value(args)
	if !ok {
		return dst, k.errNotComputed(args)
	}
	if v.null {
		return dst, pg.NewError(pg.CodeNullValueNotAllowed, "the sharding key is NULL").
			WithDetail(k.Text + ": with NULL no row matches on any shard, and a row to insert belongs to none.").
			WithHint("Give the parameters values; rows whose key is NULL belong to no shard.")
	}
	c := v.constant()
	if c.family != familyOf(k.Type) {
		return dst, k.errNotComputed(args)
	}
	if c.beyondASCII(k.Type) && !clientUTF8 {
		return dst, encodingError(k.Text)
	}
	start := len(dst)
	key, err := c.value(k.Type)
	if err == nil {
		dst, err = m.AppendKey(dst, key)
	}
	if err != nil {
		return dst[:start], k.failed(CodeOf(err), "%v", err)
	}
	return dst, nil
}

// value is what a formula gives. The types that are found for open parameters go by the others being open as well, or declared as they would be found.
func (f *formula) value(args Args) (v computed, ok bool) {
	if args == nil {
		return v, false
	}
	open, other := false, false
	for _, t := range f.terms {
		_, _, oid, _, ok := args.Arg(t.param)
		if !ok {
			return v, false
		}
		typ, isOpen := f.typed(t.param, oid)
		open, other = open || isOpen, other || typ != t.typ
	}
	if open && other {
		return v, false
	}
	return f.expr.compute(&computing{f, args})
}

// isMade tells whether it has to be computed.
func (k *KeyRef) isMade() (made bool) {
	k.eachPart(func(part *KeyRef) { made = made || part.made != nil })
	return made
}

// eachParam calls f for the parameters of which k is made, from 1.
func (k *KeyRef) eachParam(f func(param int)) {
	if k.Param > 0 {
		f(k.Param)
	}
	if k.made != nil {
		for _, t := range k.made.terms {
			f(t.param)
		}
	}
}

// declared is the OID of the type of a parameter that is left open; 0 if it is not known.
func (f *formula) declared(param int) uint32 {
	typ, _ := f.typed(param, 0)
	for _, oid := range []uint32{oidInt2, oidInt4, oidInt8, oidText, oidVarchar, oidUUID, oidBytea, oidDate} {
		if typ != kindNone && exprTypeOf(oid) == typ {
			return oid
		}
	}
	return 0
}

// formula is the text of what a key is computed of; "" if it is of nothing.
func (k *KeyRef) formula() string {
	if k.made == nil {
		return ""
	}
	return k.made.expr.String()
}

func (f *formula) bytes() int { return 64 + 128*f.expr.size + 16*len(f.terms) }
