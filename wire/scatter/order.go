package scatter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"strconv"

	"rangefinder/wire/pg"
)

// Merging goes by PostgreSQL's own order of values, in the form in which a server sends them, for the types in which that order is plain: it
// depends on no collation and no setting. compare is negative, 0 or positive as a comes before b, is its equal, or comes after it. What is
// not of the form that a server gives it is compared byte by byte, so nothing that comes from a shard can do harm.
type compare func(a, b []byte) int

// The types, by their numbers, which are the same on all servers.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidFloat4      = 700
	oidFloat8      = 701
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidRecord      = 2249
	oidRecordArray = 2287
	oidUUID        = 2950
)

// comparer is how values of a type are compared in a format; nil if only PostgreSQL knows their order. asBytes: it is text that is
// compared byte by byte. iso: dates come as in ISO 8601.
func comparer(oid uint32, format int16, asBytes, iso bool) compare {
	isBinary := format == pg.FormatBinary
	switch oid {
	case oidBool:
		return bytes.Compare // 'f' < 't', 0 < 1
	case oidUUID:
		return bytes.Compare // in text as well: digits in lower case, of one length
	case oidInt2, oidInt4, oidInt8:
		if isBinary {
			return byKey(binaryInt)
		}
		return byKey(textInt)
	case oidOID:
		if isBinary {
			return bytes.Compare
		}
		return byKey(textInt)
	case oidFloat4, oidFloat8:
		if isBinary {
			return byKey(binaryFloat)
		}
		return byKey(textFloat)
	case oidNumeric:
		if isBinary {
			return byNumeric(binaryNumeric)
		}
		return byNumeric(textNumeric)
	case oidDate, oidTimestamp, oidTimestamptz:
		switch {
		case isBinary:
			return byKey(binaryInt)
		case iso:
			return compareTimes
		}
	case oidBytea:
		if isBinary {
			return bytes.Compare
		}
		return compareHex
	case oidText, oidVarchar, oidName:
		if asBytes {
			return bytes.Compare
		}
	}
	return nil
}

// byKey compares by numbers that order values; one that has none is compared byte by byte.
func byKey[T cmp.Ordered](key func([]byte) (T, bool)) compare {
	return func(a, b []byte) int {
		x, ok := key(a)
		y, okay := key(b)
		if !ok || !okay {
			return bytes.Compare(a, b)
		}
		return cmp.Compare(x, y)
	}
}

func binaryInt(v []byte) (int64, bool) {
	switch len(v) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(v))), true
	case 4:
		return int64(int32(binary.BigEndian.Uint32(v))), true
	case 8:
		return int64(binary.BigEndian.Uint64(v)), true
	}
	return 0, false
}

func textInt(v []byte) (n int64, ok bool) {
	neg := len(v) > 0 && v[0] == '-'
	if neg {
		v = v[1:]
	}
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 - int64(c-'0') // below zero, where there is one more
	}
	if !neg {
		n = -n
	}
	return n, true
}

// binaryFloat and textFloat give a key whose order is that of PostgreSQL. cmp.Compare puts NaN first, and PostgreSQL last; so the keys are
// the bits of the number, made to be in order.
func binaryFloat(v []byte) (uint64, bool) {
	switch len(v) {
	case 4:
		return floatKey(float64(math.Float32frombits(binary.BigEndian.Uint32(v)))), true
	case 8:
		return floatKey(math.Float64frombits(binary.BigEndian.Uint64(v))), true
	}
	return 0, false
}

func textFloat(v []byte) (uint64, bool) {
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return floatKey(f), true
}

func floatKey(f float64) uint64 {
	switch {
	case math.IsNaN(f):
		return math.MaxUint64
	case f == 0:
		f = 0 // -0
	}
	bits := math.Float64bits(f)
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}

// compareHex compares bytea as text: \x and digits. With bytea_output = 'escape' a backslash is doubled or begins three octal digits.
func compareHex(a, b []byte) int {
	if bytes.HasPrefix(a, []byte(`\x`)) && bytes.HasPrefix(b, []byte(`\x`)) {
		return bytes.Compare(a, b)
	}
	return bytes.Compare(unescape(a), unescape(b))
}

func unescape(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] != '\\':
			out = append(out, v[i])
		case i+3 < len(v) && v[i+1] >= '0' && v[i+1] <= '3':
			out = append(out, (v[i+1]-'0')<<6|(v[i+2]-'0')<<3|(v[i+3]-'0'))
			i += 3
		default:
			out = append(out, '\\')
			i++
		}
	}
	return out
}
