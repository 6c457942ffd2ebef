package sqlkey

import (
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Args are a Bind's parameters with the types that Parse gave them.
type Args interface {
	// Arg returns parameter i, from 1: its bytes, its format (0 text, 1 binary), the type's OID (0 if left open). ok is
	// false if there is no such parameter. The bytes need to hold only until the next call.
	Arg(i int) (val []byte, format int16, oid uint32, null, ok bool)
}

// AppendKey appends the key of p.Keys[i] to dst. clientUTF8 tells whether the session's client_encoding is UTF8. Errors are
// *pg.Error: NULL, a type that cannot be compared safely, a value out of the key's range.
func (p *Plan) AppendKey(dst rib.Key, i int, args Args, clientUTF8 bool) (rib.Key, error) {
	return dst, pg.NewError(pg.CodeFeatureNotSupported, "not planned yet")
}
