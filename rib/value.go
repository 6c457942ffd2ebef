package rib

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Type is the type of one column of a key. The zero Type is none.
type Type uint8

// The key types; varchar counts as text. The numbers are in the ledger's encoding.
const (
	TypeBigint Type = iota + 1
	TypeInt
	TypeText
	TypeUUID
	TypeSmallint
	TypeBytea
	TypeDate
	TypeTimestamptz
)

// TypeNames lists the types as users write them, for messages.
const TypeNames = "bigint, int, smallint, text, varchar, uuid, bytea, date and timestamptz"

// ParseType is the Type that PostgreSQL calls name (format_type's spelling and the usual short ones); else ErrKeyType.
func ParseType(name string) (Type, error) {
	switch name {
	case "bigint", "int8":
		return TypeBigint, nil
	case "int", "integer", "int4":
		return TypeInt, nil
	case "smallint", "int2":
		return TypeSmallint, nil
	case "text", "varchar", "character varying":
		return TypeText, nil
	case "uuid":
		return TypeUUID, nil
	case "bytea":
		return TypeBytea, nil
	case "date":
		return TypeDate, nil
	case "timestamptz", "timestamp with time zone":
		return TypeTimestamptz, nil
	}
	return 0, fmt.Errorf("%w %q: the types are %s", ErrKeyType, name, TypeNames)
}

// String is the type's name as ParseType takes it and as users write it.
func (t Type) String() string {
	switch t {
	case TypeBigint:
		return "bigint"
	case TypeInt:
		return "int"
	case TypeText:
		return "text"
	case TypeUUID:
		return "uuid"
	case TypeSmallint:
		return "smallint"
	case TypeBytea:
		return "bytea"
	case TypeDate:
		return "date"
	case TypeTimestamptz:
		return "timestamptz"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// SQL is the type's name in SQL, which means the same in every search_path.
func (t Type) SQL() string {
	switch t {
	case TypeBigint, TypeInt, TypeSmallint: // words of the grammar
		return t.String()
	}
	return "pg_catalog." + t.String()
}

// Fits tells whether a type of integers, dates or times can hold n, as Value.Int has it: ErrKeyRange or ErrKeyTime.
func (t Type) Fits(n int64) error {
	switch {
	case t == TypeSmallint && n != int64(int16(n)), t == TypeInt && n != int64(int32(n)):
		return fmt.Errorf("%w: %d does not fit type %s", ErrKeyRange, n, t)
	case t == TypeDate && !validDate(n):
		return fmt.Errorf("%w: day %d is beyond type date", ErrKeyTime, n)
	case t == TypeTimestamptz && !validInstant(n):
		return fmt.Errorf("%w: microsecond %d is beyond type timestamptz", ErrKeyTime, n)
	}
	return nil
}

// MarshalText makes a Type its name in JSON.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is MarshalText's inverse.
func (t *Type) UnmarshalText(b []byte) (err error) {
	*t, err = ParseType(string(b))
	return err
}

// Value is one column's value of a key. It never allocates, Bytes stays the caller's, and it is no larger than what can be
// passed in registers, since it is made for every statement.
type Value struct {
	Type Type
	// Int is an integer type's number, the days of a date since 2000-01-01, or the microseconds of a timestamptz since that day began
	// in UTC; the extremes of int32 and int64 are the infinities of these two. Of a TypeBytea it is 1 if Bytes are its text form.
	Int int64
	// Bytes of a TypeText are UTF-8 without NUL. Of a TypeUUID they are the 16 bytes, or the text form as ParseText leaves it (see
	// UUID). Of a TypeBytea see Int.
	Bytes []byte
}

// least tells whether a value, as it is in a key of the range method, is the first one of its type.
func (v Value) least() bool {
	switch v.Type {
	case TypeBigint, TypeTimestamptz:
		return v.Int == math.MinInt64
	case TypeInt, TypeDate:
		return v.Int == math.MinInt32
	case TypeSmallint:
		return v.Int == math.MinInt16
	}
	if v.Type == TypeUUID {
		return bytes.Count(v.Bytes, []byte{0}) == len(v.Bytes)
	}
	return len(v.Bytes) == 0 // of texts and bytea
}

// UUID is the 16 bytes of a TypeUUID, in whichever form the value holds them. ErrKeySyntax: it holds none.
func (v Value) UUID() ([16]byte, error) {
	if len(v.Bytes) == 16 { // shorter than any text form
		return [16]byte(v.Bytes), nil
	}
	return parseUUID(v.Bytes)
}

// ParseText reads a value as PostgreSQL's input function of that type does, so that what PostgreSQL takes for the same
// value has the same key. Dates and times are read only where their meaning depends on no setting; else ErrKeyUnclear. Further errors:
// ErrKeyType, ErrKeyRange, ErrKeyTime, ErrKeyHex, ErrKeySyntax.
func ParseText(t Type, s []byte) (Value, error) {
	switch t {
	case TypeBigint:
		return parseInt(t, s, math.MinInt64)
	case TypeInt:
		return parseInt(t, s, math.MinInt32)
	case TypeSmallint:
		return parseInt(t, s, math.MinInt16)
	case TypeText:
		return textValue(s)
	case TypeUUID:
		if _, err := parseUUID(s); err != nil {
			return Value{}, err
		}
		return Value{Type: t, Bytes: s}, nil
	case TypeBytea:
		if err := checkBytea(s); err != nil {
			return Value{}, err
		}
		return Value{Type: t, Int: 1, Bytes: s}, nil
	case TypeDate:
		return parseDate(s)
	case TypeTimestamptz:
		return parseInstant(s)
	}
	return Value{}, fmt.Errorf("%w %s", ErrKeyType, t)
}

// ParseBinary reads a value in PostgreSQL's binary format: 2, 4 or 8 bytes big-endian for the integer types (a driver may
// send a narrower or a wider one than the column's), the bytes of a text or a bytea, 16 bytes of a uuid, 4 of a date, 8 of a
// timestamptz.
func ParseBinary(t Type, b []byte) (Value, error) {
	switch t {
	case TypeBigint, TypeInt, TypeSmallint:
		switch len(b) {
		case 2:
			return numberValue(t, int64(int16(binary.BigEndian.Uint16(b))))
		case 4:
			return numberValue(t, int64(int32(binary.BigEndian.Uint32(b))))
		case 8:
			return numberValue(t, int64(binary.BigEndian.Uint64(b)))
		}
		why := ErrKeySyntax
		if len(b) < map[Type]int{TypeBigint: 8, TypeInt: 4, TypeSmallint: 2}[t] {
			why = ErrKeyShort
		}
		return Value{}, fmt.Errorf("%w: %d bytes for type %s in binary format; 2, 4 or 8 are valid", why, len(b), t)
	case TypeText:
		return textValue(b)
	case TypeUUID:
		return Value{Type: t, Bytes: b}, exactly(t, b, 16)
	case TypeBytea:
		return Value{Type: t, Bytes: b}, nil
	case TypeDate:
		if err := exactly(t, b, 4); err != nil {
			return Value{}, err
		}
		return numberValue(t, int64(int32(binary.BigEndian.Uint32(b))))
	case TypeTimestamptz:
		if err := exactly(t, b, 8); err != nil {
			return Value{}, err
		}
		return numberValue(t, int64(binary.BigEndian.Uint64(b)))
	}
	return Value{}, fmt.Errorf("%w %s", ErrKeyType, t)
}

func exactly(t Type, b []byte, size int) error {
	why := ErrKeySyntax
	if len(b) < size {
		why = ErrKeyShort
	}
	if len(b) != size {
		return fmt.Errorf("%w: %d bytes for type %s in binary format; %d are valid", why, len(b), t, size)
	}
	return nil
}

// numberValue is n if the type can hold it.
func numberValue(t Type, n int64) (Value, error) {
	if err := t.Fits(n); err != nil {
		return Value{}, err
	}
	return Value{Type: t, Int: n}, nil
}

// textValue refuses what PostgreSQL refuses in a UTF-8 database. The key's end marker is the NUL that a text cannot hold.
func textValue(b []byte) (Value, error) {
	if !utf8.Valid(b) {
		return Value{}, fmt.Errorf("%w: text that is not UTF-8", ErrKeyEncoding)
	}
	for _, c := range b {
		if c == 0 {
			return Value{}, fmt.Errorf("%w: text that holds a NUL byte", ErrKeyEncoding)
		}
	}
	return Value{Type: TypeText, Bytes: b}, nil
}

// isSpace is C's isspace in the C locale, which PostgreSQL's integer input skips.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// parseInt is PostgreSQL 15's pg_strtoint32 and int8in: white space around, one sign, decimal digits. low is the type's
// lowest number.
func parseInt(t Type, s []byte, low int64) (Value, error) {
	b := trimSpace(s)
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 {
		return Value{}, syntaxError(t, s)
	}
	// Accumulate below zero: the lowest number has no positive counterpart.
	n := int64(0)
	for _, c := range b {
		d := c - '0'
		if d > 9 {
			return Value{}, syntaxError(t, s)
		}
		if n < (low+int64(d))/10 {
			return Value{}, fmt.Errorf("%w: %q does not fit type %s", ErrKeyRange, clip(s), t)
		}
		n = n*10 - int64(d)
	}
	if !negative {
		if n == low {
			return Value{}, fmt.Errorf("%w: %q does not fit type %s", ErrKeyRange, clip(s), t)
		}
		n = -n
	}
	return Value{Type: t, Int: n}, nil
}

// parseUUID is PostgreSQL's string_to_uuid: 32 hex digits in either case, a hyphen allowed after every fourth, braces.
func parseUUID(s []byte) (u [16]byte, err error) {
	b := s
	if len(b) > 0 && b[0] == '{' {
		if b[len(b)-1] != '}' {
			return u, syntaxError(TypeUUID, s)
		}
		b = b[1 : len(b)-1]
	}
	for i := range 16 {
		if len(b) < 2 {
			return u, syntaxError(TypeUUID, s)
		}
		high, ok1 := HexDigit(b[0])
		low, ok2 := HexDigit(b[1])
		if !ok1 || !ok2 {
			return u, syntaxError(TypeUUID, s)
		}
		u[i] = high<<4 | low
		b = b[2:]
		if len(b) > 0 && b[0] == '-' && i%2 == 1 && i < 15 {
			b = b[1:]
		}
	}
	if len(b) > 0 {
		return u, syntaxError(TypeUUID, s)
	}
	return u, nil
}

// HexDigit is the value of a hexadecimal digit of either case; false: it is none.
func HexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func syntaxError(t Type, s []byte) error {
	return fmt.Errorf("%w: invalid input syntax for type %s: %q", ErrKeySyntax, t, clip(s))
}

// clip keeps a stranger's bytes from filling a log line.
func clip(s []byte) []byte {
	if len(s) > 64 {
		return append(s[:61:61], "..."...)
	}
	return s
}
