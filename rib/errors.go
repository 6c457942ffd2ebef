package rib

import "errors"

// The ways a key, a bound or an ownership can be wrong. Errors of this package wrap one of them and say what to fix; the
// wire maps them to SQLSTATEs once, at the client's edge.
var (
	// ErrKeyType: a type that cannot be a key, or a value of another type than the key's column.
	ErrKeyType = errors.New("unsupported key type")
	// ErrKeyRange: a number that the key's type cannot hold (PostgreSQL: 22003).
	ErrKeyRange = errors.New("key out of range")
	// ErrKeySyntax: bytes that are not a value of the key's type (PostgreSQL: 22P02 for text, 22P03 for binary).
	ErrKeySyntax = errors.New("invalid key value")
	// ErrMethod: a sharding method that this version does not know.
	ErrMethod = errors.New("unknown sharding method")
	// ErrBound: a range's bound that its keyspace's method and types cannot produce.
	ErrBound = errors.New("invalid range bound")
	// ErrKeyspace: a keyspace that does not hold together: gaps, overlaps, missing names.
	ErrKeyspace = errors.New("invalid keyspace")
)
