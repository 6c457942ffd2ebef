package rib

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rangeMethod keeps the order of the type: integers, dates and times by value, text in C order, uuid and bytea by bytes.
//
// Integers take eight bytes whichever their type, so that widening an int column to bigint changes no bound. A text ends
// with a NUL, which it cannot hold itself, so "a" sorts before "ab" also when another column follows; a bytea, which can, is stuffed.
type rangeMethod struct{}

func (*rangeMethod) Name() string { return "range" }

// Join has nothing to do: the key is the encodings one after another.
func (*rangeMethod) Join(dst Key, _ int) Key { return dst }

func (*rangeMethod) AppendKey(dst Key, v Value) (Key, error) {
	if err := v.Type.Fits(v.Int); err != nil {
		return dst, err
	}
	switch v.Type {
	case TypeBigint, TypeInt, TypeSmallint, TypeDate, TypeTimestamptz:
		return binary.BigEndian.AppendUint64(dst, uint64(v.Int)^signBit), nil
	case TypeText:
		if bytes.IndexByte(v.Bytes, 0) >= 0 {
			return dst, fmt.Errorf("%w: text that holds a NUL byte", ErrKeySyntax)
		}
		return append(append(dst, v.Bytes...), 0), nil
	case TypeUUID:
		u, err := v.UUID()
		if err != nil {
			return dst, err
		}
		return append(dst, u[:]...), nil
	case TypeBytea:
		return v.appendStuffed(dst)
	}
	return dst, fmt.Errorf("%w %s", ErrKeyType, v.Type)
}

// decode is AppendKey's inverse, for as many columns as k holds.
func (*rangeMethod) decode(types []Type, k Key) (values []Value, err error) {
	for rest := k; len(rest) > 0; {
		if len(values) == len(types) {
			return nil, fmt.Errorf("%w %x: more than %d columns", ErrBound, []byte(k), len(types))
		}
		v, size := Value{Type: types[len(values)]}, 0
		switch v.Type {
		case TypeBigint, TypeInt, TypeSmallint, TypeDate, TypeTimestamptz:
			if size = 8; len(rest) >= size {
				v.Int = int64(binary.BigEndian.Uint64(rest) ^ signBit)
			}
			if err := v.Type.Fits(v.Int); err != nil {
				return nil, fmt.Errorf("%w %x: %w", ErrBound, []byte(k), err)
			}
		case TypeBytea:
			if v.Bytes, size = stuffed(rest); size == 0 {
				return nil, fmt.Errorf("%w %x: a bytea without its end", ErrBound, []byte(k))
			}
		case TypeText:
			end := bytes.IndexByte(rest, 0)
			if end < 0 {
				return nil, fmt.Errorf("%w %x: a text without its end", ErrBound, []byte(k))
			}
			v.Bytes, size = rest[:end], end+1
		case TypeUUID:
			if size = 16; len(rest) >= size {
				v.Bytes = rest[:size]
			}
		default:
			return nil, fmt.Errorf("%w %s", ErrKeyType, v.Type)
		}
		if len(rest) < size {
			return nil, fmt.Errorf("%w %x: %d bytes missing", ErrBound, []byte(k), size-len(rest))
		}
		values, rest = append(values, v), rest[size:]
	}
	return values, nil
}

func (m *rangeMethod) CheckBound(types []Type, k Key) error {
	_, err := m.decode(types, k)
	return err
}

func (m *rangeMethod) Predicate(columns []string, types []Type, from, to Key) string {
	exprs := m.exprs(columns, types)
	terms := comparison(exprs, ">=", literals(m.decode(types, from)))
	return conjunction(columns, append(terms, comparison(exprs, "<", literals(m.decode(types, to)))...), false)
}

// exprs are the columns as they are compared: texts in C order.
func (*rangeMethod) exprs(columns []string, types []Type) []string {
	exprs := slices.Clone(columns)
	for i := range exprs {
		if types[i] == TypeText {
			exprs[i] = "(" + exprs[i] + ` COLLATE pg_catalog."C")`
		}
	}
	return exprs
}

// literals writes values in SQL; of a key that means nothing NULL, which must not select all rows.
func literals(values []Value, err error) (l []string) {
	if err != nil {
		return []string{"NULL"}
	}
	for _, v := range values {
		switch v.Type {
		case TypeBigint, TypeInt, TypeSmallint: // of one type with bounds, whichever the column's
			l = append(l, "'"+v.format()+"'::bigint")
		default:
			l = append(l, QuoteLiteral(v.format())+"::"+v.Type.SQL())
		}
	}
	return l
}

func (m *rangeMethod) ParseBound(types []Type, s string) (Key, error) {
	if s == "" {
		return nil, nil
	}
	if err := checkLength(s, MaxBoundText); err != nil {
		return nil, err
	}
	parts, err := splitColumns(types, s)
	if err != nil {
		return nil, err
	}
	if len(parts) > len(types) {
		return nil, fmt.Errorf("%w %q: %d values for a key of %d columns", ErrBound, s, len(parts), len(types))
	}
	k, err := appendTexts(m, types, parts)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrBound, s, err)
	}
	return k, nil
}

// appendTexts makes the method's key of the texts of columns, before Join.
func appendTexts(m Method, types []Type, parts [][]byte) (k Key, err error) {
	for i, part := range parts {
		v, err := ParseText(types[i], part)
		if err == nil {
			k, err = m.AppendKey(k, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return k, nil
}

// ParseKey reads the value of a key, of all its columns, as ParseBound of the range method does, and makes the method's key of it.
func ParseKey(m Method, types []Type, s string) (Key, error) {
	parts, err := splitColumns(types, s)
	if err != nil {
		return nil, err
	}
	if len(parts) != len(types) {
		return nil, fmt.Errorf("%w %q: %d values for a key of %d columns", ErrBound, s, len(parts), len(types))
	}
	k, err := appendTexts(m, types, parts)
	if err != nil {
		return nil, err
	}
	return m.Join(k, 0), nil
}

// splitColumns splits a bound at its commas and takes off the quotes that a text may stand in. A text alone needs
// quotes only where it begins with one or is empty.
func splitColumns(types []Type, s string) (parts [][]byte, err error) {
	for rest := s; ; {
		var part []byte
		if strings.HasPrefix(rest, "'") {
			i := 1
			for ; ; i++ {
				if i == len(rest) {
					return nil, fmt.Errorf("%w %q: a quote is not closed", ErrBound, s)
				}
				if rest[i] == '\'' {
					if !strings.HasPrefix(rest[i+1:], "'") {
						break
					}
					i++ // a quote that is doubled is one of the text
				}
				part = append(part, rest[i])
			}
			if rest = rest[i+1:]; rest != "" && rest[0] != ',' {
				return nil, fmt.Errorf("%w %q: text after a closing quote", ErrBound, s)
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 || len(types) == 1 {
				end = len(rest)
			}
			part, rest = []byte(rest[:end]), rest[end:]
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, nil
		}
		rest = rest[1:]
	}
}

func (m *rangeMethod) FormatKey(types []Type, k Key) string {
	values, err := m.decode(types, k)
	if err != nil {
		return fmt.Sprintf("invalid(%x)", []byte(k))
	}
	parts := make([]string, len(values))
	for i, v := range values {
		if parts[i] = v.format(); v.Type == TypeText && !plain(parts[i]) {
			parts[i] = "'" + strings.ReplaceAll(parts[i], "'", "''") + "'"
		}
	}
	return strings.Join(parts, ",")
}

// format writes a value for people, as ParseText reads it.
func (v Value) format() string {
	switch v.Type {
	case TypeText:
		return string(v.Bytes)
	case TypeUUID:
		return formatUUID(v.Bytes)
	case TypeBytea:
		return formatBytea(v.Bytes)
	case TypeDate:
		return formatDate(v.Int)
	case TypeTimestamptz:
		return formatInstant(v.Int)
	}
	return strconv.FormatInt(v.Int, 10)
}

// plain tells whether a text can stand in a bound without quotes and be read by anyone.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '@' && c != ':' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}

func formatUUID(u []byte) string {
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
