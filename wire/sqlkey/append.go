package sqlkey

import (
	"errors"
	"fmt"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Args are a Bind's parameters with the types that Parse gave them.
type Args interface {
	// Arg returns parameter i, from 1: its bytes, its format (0 text, 1 binary), the type's OID (0 if left open). ok is
	// false if there is no such parameter. The bytes need to hold only until the next call.
	Arg(i int) (val []byte, format int16, oid uint32, null, ok bool)
}

// The types of parameters whose values mean the same to us as to the server.
const (
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidUnknown     = 705
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamptz = 1184
	oidUUID        = 2950
)

// AppendKey appends the key of p.Keys[i] to dst. args may be nil for a key that is a constant, and are the Constants that
// PlanQuery filled for a plan that it returned. clientUTF8 tells whether the
// session's client_encoding is UTF8. Errors are *pg.Error: NULL, a type that cannot be compared safely, a value out of the
// key's range.
func (p *Plan) AppendKey(dst rib.Key, i int, args Args, clientUTF8 bool) (rib.Key, error) {
	if p.shared {
		return p.appendShared(dst, i, args, clientUTF8)
	}
	return p.appendRef(dst, &p.Keys[i], args, clientUTF8)
}

// appendRef appends the key that k means, of a plan that is not shared.
func (p *Plan) appendRef(dst rib.Key, k *KeyRef, args Args, clientUTF8 bool) (rib.Key, error) {
	if k.Session {
		return dst, errSessionKey
	}
	if k.nonASCII && !clientUTF8 {
		return dst, encodingError(k.Text)
	}
	if k.Literal != nil {
		return append(dst, k.Literal...), nil
	}
	if k.Parts == nil {
		return p.appendPart(dst, k, args, clientUTF8)
	}
	start := len(dst)
	for j := range k.Parts {
		part := &k.Parts[j]
		if part.Literal != nil {
			dst = append(dst, part.Literal...)
			continue
		}
		var err error
		if dst, err = p.appendPart(dst, part, args, clientUTF8); err != nil {
			return dst[:start], err
		}
	}
	return p.method.Join(dst, start), nil
}

func (p *Plan) appendPart(dst rib.Key, k *KeyRef, args Args, clientUTF8 bool) (rib.Key, error) {
	if k.made != nil {
		return k.compute(p.method, dst, args, clientUTF8)
	}
	if args == nil {
		return dst, k.failed(pg.CodeUndefinedParameter, "there is no parameter $%d", k.Param)
	}
	val, format, oid, null, ok := args.Arg(k.Param)
	switch {
	case !ok:
		return dst, k.failed(pg.CodeUndefinedParameter, "there is no parameter $%d", k.Param)
	case null:
		return dst, pg.Errorf(pg.CodeNullValueNotAllowed, "the sharding key is NULL: parameter $%d", k.Param).
			WithDetail(fmt.Sprintf("%s: with NULL no row matches on any shard, and a row to insert belongs to none.", k.Text)).
			WithHint("Give the parameter a value; rows whose key is NULL belong to no shard.")
	case format != 0 && format != 1:
		return dst, k.failed(pg.CodeProtocolViolation, "parameter $%d has format %d", k.Param, format)
	}
	return p.appendValue(dst, k, val, format, oid, clientUTF8)
}

// appendValue appends the key, or the part of one, that k is with that value of its parameter.
func (p *Plan) appendValue(dst rib.Key, k *KeyRef, val []byte, format int16, oid uint32, clientUTF8 bool) (rib.Key, error) {
	return k.appendBy(p.method, dst, val, format, oid, clientUTF8)
}

func (k *KeyRef) appendBy(m rib.Method, dst rib.Key, val []byte, format int16, oid uint32, clientUTF8 bool) (rib.Key, error) {
	typ, ok := k.reads(oid)
	if !ok {
		return dst, pg.Errorf(pg.CodeFeatureNotSupported, "parameter $%d of type OID %d cannot be routed by", k.Param, oid).
			WithDetail(fmt.Sprintf("%s: the key column is of type %s.", k.Text, k.Type)).
			WithHint("Send the parameter as " + k.Type.String() + ", or leave its type open.")
	}
	var v rib.Value
	var err error
	if format == 1 && oid != oidText && oid != oidVarchar {
		v, err = rib.ParseBinary(typ, val)
	} else { // a text's binary format is its bytes
		v, err = rib.ParseText(typ, val)
	}
	if err == nil && familyOf(k.Type) == texts && !clientUTF8 && !ascii(val) {
		return dst, encodingError(k.Text)
	}
	start := len(dst)
	if err == nil {
		v.Type = k.Type
		dst, err = m.AppendKey(dst, v)
	}
	if err != nil {
		return dst[:start], k.value(err, format)
	}
	return dst, nil
}

// AppendPlain appends the value of which p.Keys[i] is a hash, as the method range writes it: a hash does not tell. Of what stands in the statement as a constant
// it is not known, unless the plan is shared. known is false, and nothing is appended, also for keys of other methods, which say it themselves.
func (p *Plan) AppendPlain(dst rib.Key, i int, args Args, clientUTF8 bool) (key rib.Key, known bool) {
	ref := &p.Keys[i]
	plain, err := rib.MethodByName("range")
	if err != nil || args == nil || p.method == nil || p.method.Name() != "hash" || ref.Session || ref.Literal != nil {
		return dst, false
	}
	start := len(dst)
	constants, _ := args.(*Constants)
	one := func(k *KeyRef) bool {
		if p.shared {
			if constants == nil || constants.plan != p || k.Literal != nil {
				return false
			}
			dst, err = constants.appendKey(dst, k, plain)
			return err == nil
		}
		if k.made != nil {
			dst, err = k.compute(plain, dst, args, clientUTF8)
			return err == nil
		}
		val, format, oid, null, ok := args.Arg(k.Param)
		if !ok || null || k.Literal != nil || format != 0 && format != 1 {
			return false
		}
		dst, err = k.appendBy(plain, dst, val, format, oid, clientUTF8)
		return err == nil
	}
	known = true
	ref.eachPart(func(k *KeyRef) { known = known && one(k) })
	if !known {
		return dst[:start], false
	}
	return dst, true
}

// reads tells as what a parameter of type oid is to be read so that the server compares the same value.
func (k *KeyRef) reads(oid uint32) (rib.Type, bool) {
	switch oid {
	case 0, oidUnknown:
		if k.cast != 0 {
			return k.cast, true
		}
		return k.Type, true
	case oidInt8:
		return rib.TypeBigint, familyOf(k.Type) == integers
	case oidInt4:
		return rib.TypeInt, familyOf(k.Type) == integers
	case oidInt2:
		return rib.TypeSmallint, familyOf(k.Type) == integers
	case oidUUID:
		return rib.TypeUUID, k.Type == rib.TypeUUID
	case oidBytea:
		return rib.TypeBytea, k.Type == rib.TypeBytea
	case oidDate: // compared with a timestamptz it would begin when the day does in the session's time zone
		return rib.TypeDate, k.Type == rib.TypeDate
	case oidTimestamptz:
		return rib.TypeTimestamptz, k.Type == rib.TypeTimestamptz
	case oidText, oidVarchar:
		// With a cast the server reads the text by the type's input function, as we do.
		return orType(k.cast, k.Type), k.Type == rib.TypeText || k.cast != 0
	}
	return 0, false
}

func orType(a, b rib.Type) rib.Type {
	if a != 0 {
		return a
	}
	return b
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// value maps what rib says of a parameter's value.
func (k *KeyRef) value(err error, format int16) error {
	switch {
	case errors.Is(err, rib.ErrKeyShort), errors.Is(err, rib.ErrKeyEncoding):
		return k.failed(CodeOf(err), "%v", err)
	case errors.Is(err, rib.ErrKeySyntax) && format == 1:
		return k.failed(pg.CodeInvalidBinaryRepresentation, "%v", err)
	case errors.Is(err, rib.ErrKeyUnclear):
		return k.failed(CodeOf(err), "%v", err).WithHint(unclearHint)
	}
	return k.failed(CodeOf(err), "%v", err).WithHint("Give the parameter a value of type " + k.Type.String() + ".")
}

func (k *KeyRef) failed(code, format string, args ...any) *pg.Error {
	return pg.Errorf(code, format, args...).WithDetail("The statement's sharding key is " + k.Text + ".")
}

func encodingError(condition string) error {
	return pg.NewError(pg.CodeFeatureNotSupported, "a sharding key beyond ASCII needs client_encoding UTF8").
		WithDetail("The statement's sharding key is " + condition + ".").
		WithHint("SET client_encoding = 'UTF8'.")
}
