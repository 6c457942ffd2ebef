package rib

import (
	"errors"
	"fmt"
)

// The ways a key, a bound or an ownership can be wrong. Errors of this package wrap one of them and say what to fix; the
// wire maps them to SQLSTATEs once, at the client's edge.
var (
	// ErrKeyType: a type that cannot be a key, or a value of another type than the key's column.
	ErrKeyType = errors.New("unsupported key type")
	// ErrKeyRange: a number that the key's type cannot hold (PostgreSQL: 22003).
	ErrKeyRange = errors.New("key out of range")
	// ErrKeySyntax: bytes that are not a value of the key's type (PostgreSQL: 22P02 for text, 22P03 for binary).
	ErrKeySyntax = errors.New("invalid key value")
	// ErrKeyShort: an ErrKeySyntax: fewer bytes than the type has in binary (PostgreSQL: 08P01).
	ErrKeyShort = fmt.Errorf("%w of too few bytes", ErrKeySyntax)
	// ErrKeyEncoding: an ErrKeySyntax: bytes that are no text in UTF-8, or a NUL byte (PostgreSQL: 22021).
	ErrKeyEncoding = fmt.Errorf("%w of bytes that are no text", ErrKeySyntax)
	// ErrKeyTime: a date or a time that no calendar has, or that the type cannot hold (PostgreSQL: 22008).
	ErrKeyTime = errors.New("date or time out of range")
	// ErrKeyHex: bytes in hexadecimal that are not written so (PostgreSQL: 22023).
	ErrKeyHex = errors.New("invalid hexadecimal key value")
	// ErrKeyUnclear: a text that may be a value of the type, but which one depends on settings or is not told here.
	ErrKeyUnclear = errors.New("unclear key value")
	// ErrMethod: a sharding method that this version does not know.
	ErrMethod = errors.New("unknown sharding method")
	// ErrBound: a range's bound that its keyspace's method and types cannot produce.
	ErrBound = errors.New("invalid range bound")
	// ErrKeyspace: a keyspace that does not hold together: gaps, overlaps, missing names.
	ErrKeyspace = errors.New("invalid keyspace")
)
