package rib

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Method turns the values of a key's columns into order-preserving bytes, and knows how to say the same in SQL. A key of
// several columns is made of their encodings one after another: call AppendKey once a column, in the keyspace's order, and then Join.
//
// Bounds are keys too. Those of the range method may stop after any column: a bound of the first column alone lies before all keys
// that begin with that column's value.
type Method interface {
	// Name is what users and the ledger call it.
	Name() string
	// AppendKey appends the encoding of one column's value to dst. Encodings are self-delimiting: none is a prefix of another of its type.
	// It allocates only what dst lacks.
	AppendKey(dst Key, v Value) (Key, error)
	// Join makes a key of the encodings of all columns, which dst holds from start on, in their place. One column's is its key already.
	Join(dst Key, start int) Key
	// Predicate is the SQL condition that is true for the rows of [from, to) and no other; empty means open. Columns are
	// SQL expressions as they shall stand in it (QuoteIdent makes one of a name), one a type. Rows with a NULL in the key
	// have no position: the condition is never true for them. Only immutable built-in functions and operators are used,
	// so that it can be a publication's row filter, and all are qualified, so that it means the same in every search_path.
	Predicate(columns []string, types []Type, from, to Key) string
	// ParseBound reads one bound as FormatKey writes it; "" is the open end. Columns are separated by commas.
	ParseBound(types []Type, s string) (Key, error)
	// FormatKey writes a key or a bound for people; ParseBound reads it back. An open end is "".
	FormatKey(types []Type, k Key) string
	// CheckBound tells whether k is the encoding of some or all of the columns. The empty key is.
	CheckBound(types []Type, k Key) error
}

// MethodByName is the method that a keyspace names: "hash", "range", "list", "reference" or "schema". Else ErrMethod.
func MethodByName(name string) (Method, error) {
	switch name {
	case "hash":
		return &hashMethod{}, nil
	case "range":
		return &rangeMethod{}, nil
	case "list":
		return &listMethod{}, nil
	case MethodReference:
		return &referenceMethod{}, nil
	case MethodSchema:
		return &schemaMethod{}, nil
	}
	return nil, fmt.Errorf("%w %q: the methods are hash, range, list, reference and schema", ErrMethod, name)
}

// SchemaSQL makes the schema that nodes keep their own objects in, unless it is there, and lets one transaction at a time do so: who made it while
// another one does would fail with a duplicate key.
const SchemaSQL = `
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('rangefinder', 0));
CREATE SCHEMA IF NOT EXISTS rangefinder;`

// QuoteIdent makes a name an SQL identifier.
func QuoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// QuoteIdents makes each of some names an SQL identifier.
func QuoteIdents(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = QuoteIdent(name)
	}
	return quoted
}

// QuoteLiteral makes a string an SQL literal, whatever standard_conforming_strings is.
func QuoteLiteral(s string) string {
	q := `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
	if strings.Contains(s, `\`) {
		return `E` + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// hashMethod spreads keys by PostgreSQL's hash, as an eight-byte position. That of several columns is PostgreSQL's hash of a row: so each
// column alone spreads the keys.
type hashMethod struct{}

func (*hashMethod) Name() string { return "hash" }

func (*hashMethod) Join(dst Key, start int) Key {
	if len(dst)-start <= 8 {
		return dst
	}
	position := uint64(0)
	for rest := dst[start:]; len(rest) >= 8; rest = rest[8:] {
		position = position*31 + binary.BigEndian.Uint64(rest) // as hash_record_extended does
	}
	return binary.BigEndian.AppendUint64(dst[:start], position)
}

func (*hashMethod) AppendKey(dst Key, v Value) (Key, error) {
	if err := v.Type.Fits(v.Int); err != nil {
		return dst, err
	}
	var position uint64
	switch v.Type {
	case TypeBigint, TypeTimestamptz:
		position = HashBigint(v.Int)
	case TypeInt, TypeSmallint, TypeDate:
		position = HashInt(int32(v.Int))
	case TypeText:
		position = HashBytes(v.Bytes)
	case TypeUUID:
		u, err := v.UUID()
		if err != nil {
			return dst, err
		}
		position = HashBytes(u[:])
	case TypeBytea:
		var err error
		if position, err = v.hashBytea(dst); err != nil {
			return dst, err
		}
	default:
		return dst, fmt.Errorf("%w %s", ErrKeyType, v.Type)
	}
	return binary.BigEndian.AppendUint64(dst, position), nil
}

// signBit turns unsigned order into bigint's order, which is all that SQL has, and back.
const signBit = 1 << 63

func (*hashMethod) Predicate(columns []string, types []Type, from, to Key) string {
	call := "pg_catalog.hash_record_extended(ROW(" + strings.Join(columns, ", ") + "), 0)"
	if len(columns) == 1 {
		call = hashCall(types[0], columns[0])
	}
	hashed := []string{"(" + call + " OPERATOR(pg_catalog.#) '-9223372036854775808'::bigint)"}
	literals := func(k Key) []string {
		if len(k) == 0 {
			return nil
		}
		var p [8]byte // a bound may be shorter than a position: the rest is zeros
		copy(p[:], k)
		return []string{"'" + strconv.FormatInt(int64(binary.BigEndian.Uint64(p[:])^signBit), 10) + "'::bigint"}
	}
	terms := append(comparison(hashed, ">=", literals(from)), comparison(hashed, "<", literals(to))...)
	return conjunction(columns, terms, slices.ContainsFunc(types, hashedAsRow))
}

// hashedAsRow tells whether the type's hash is asked for by way of a row, which has one also if the value is NULL.
func hashedAsRow(t Type) bool { return t == TypeBytea || t == TypeDate || t == TypeTimestamptz }

// hashCall is the SQL call that computes a column's position. PostgreSQL 15 has no function for the last types that SQL could call with
// them; of a row it calls those of the columns, and one column's hash is the row's.
func hashCall(t Type, column string) string {
	switch t {
	case TypeBigint:
		return "pg_catalog.hashint8extended(" + column + ", 0)"
	case TypeInt:
		return "pg_catalog.hashint4extended(" + column + ", 0)"
	case TypeSmallint:
		return "pg_catalog.hashint2extended(" + column + ", 0)"
	case TypeText:
		return "pg_catalog.hashtextextended(" + column + ", 0)"
	case TypeUUID:
		return "pg_catalog.uuid_hash_extended(" + column + ", 0)"
	}
	return "pg_catalog.hash_record_extended(ROW(" + column + "), 0)"
}

// positionDigits is how many digits people write of a position.
const positionDigits = 16

func (*hashMethod) ParseBound(_ []Type, s string) (Key, error) {
	if s == "" {
		return nil, nil
	}
	if err := checkLength(s, MaxBoundText); err != nil {
		return nil, err
	}
	// Whoever writes 1000 means a key, and whoever writes 0x8 may mean half of all: neither is guessed.
	digits, ok := strings.CutPrefix(strings.TrimSpace(s), "0x")
	p, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil || len(digits) != positionDigits {
		return nil, fmt.Errorf("%w %q: ranges of the hash method are of positions, not of keys, and a position is written as 0x and %d digits, from 0x0000000000000000 to 0xffffffffffffffff", ErrBound, s, positionDigits)
	}
	return binary.BigEndian.AppendUint64(nil, p), nil
}

func (m *hashMethod) FormatKey(types []Type, k Key) string {
	switch {
	case m.CheckBound(types, k) != nil:
		return fmt.Sprintf("invalid(%x)", []byte(k))
	case len(k) == 0:
		return ""
	}
	return fmt.Sprintf("0x%016x", binary.BigEndian.Uint64(k))
}

func (*hashMethod) CheckBound(_ []Type, k Key) error {
	if len(k) != 0 && len(k) != 8 {
		return fmt.Errorf("%w %x: a position is 8 bytes", ErrBound, []byte(k))
	}
	return nil
}

// comparison compares a tuple of expressions with one of literals, which may be shorter, or none: then there is nothing to compare.
func comparison(exprs []string, op string, literals []string) []string {
	op = " OPERATOR(pg_catalog." + op + ") "
	switch n := len(literals); {
	case n == 0:
		return nil
	case n > len(exprs): // no row: a bound that means nothing must not select all
		return []string{exprs[0] + op + "NULL"}
	case n == 1:
		return []string{exprs[0] + op + literals[0]}
	default:
		return []string{"(" + strings.Join(exprs[:n], ", ") + ")" + op + "(" + strings.Join(literals, ", ") + ")"}
	}
}

// conjunction is true where all terms are and no column is NULL. nulls: a term may be true although a column is.
func conjunction(columns, terms []string, nulls bool) string {
	// One column's comparison is never true for NULL. A comparison of rows may be decided before it meets the NULL.
	if nulls || len(columns) > 1 || len(terms) == 0 {
		for _, c := range columns {
			terms = append(terms, c+" IS NOT NULL")
		}
	}
	return "(" + strings.Join(terms, " AND ") + ")"
}
