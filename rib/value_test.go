package rib_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"rangefinder/rib"
)

// Known answers of a PostgreSQL 15 server, so that a wrong hash is found without one.
func TestHashKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		typ   rib.Type
		value string
		want  int64 // as psql shows it
	}{
		{rib.TypeBigint, "0", 4154612158245552303},
		{rib.TypeBigint, "1", -3670598878359251130},
		{rib.TypeBigint, "-1", -1888257769727981238},
		{rib.TypeBigint, "42", 8010225493015854792},
		{rib.TypeBigint, "4294967296", -3670598878359251130},
		{rib.TypeBigint, "-9223372036854775808", -9109110466470504941},
		{rib.TypeBigint, "9223372036854775807", 1977219185673256887},
		{rib.TypeInt, "0", 4154612158245552303},
		{rib.TypeInt, "-1", -1888257769727981238},
		{rib.TypeInt, "-2147483648", 1977219185673256887},
		{rib.TypeInt, "2147483647", -9109110466470504941},
		{rib.TypeSmallint, "5", -9138765687874534020},
		{rib.TypeBytea, `\x01`, 8883389298246135586},
		{rib.TypeDate, "infinity", -9109110466470504941},
		{rib.TypeText, "", -6939563903564495251},
		{rib.TypeText, "a", 3591986179850072241},
		{rib.TypeText, "hello", 3449563369152288809},
		{rib.TypeText, "hello world", 6947366892317592103},
		{rib.TypeText, "hello, world", 3460972653678271855},
		{rib.TypeText, "hello, worlds", 221175991866272515},
		{rib.TypeText, "Größe", -5653691560489025899},
		{rib.TypeText, "The quick brown fox jumps over the lazy dog", 2182139051089226439},
		{rib.TypeUUID, "00000000-0000-0000-0000-000000000000", -6859010066814654381},
		{rib.TypeUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 7543054272012930821},
		{rib.TypeUUID, "ffffffff-ffff-ffff-ffff-ffffffffffff", 293445543803463785},
	} {
		k := keyOf(t, method(t, "hash"), []rib.Type{c.typ}, c.value)
		if got := int64(binary.BigEndian.Uint64(k)); got != c.want || len(k) != 8 {
			t.Errorf("%s %q hashes to %d, the server says %d", c.typ, c.value, got, c.want)
		}
	}
}

func TestParseBinary(t *testing.T) {
	for _, c := range []struct {
		typ  rib.Type
		in   string
		want int64
		err  error
	}{
		{rib.TypeBigint, "\xff\xfe", -2, nil},
		{rib.TypeBigint, "\x80\x00\x00\x00", -2147483648, nil},
		{rib.TypeBigint, "\x80\x00\x00\x00\x00\x00\x00\x00", -9223372036854775808, nil},
		{rib.TypeInt, "\x00\x00\x00\x00\x7f\xff\xff\xff", 2147483647, nil},
		{rib.TypeInt, "\x00\x00\x00\x00\x80\x00\x00\x00", 0, rib.ErrKeyRange},
		{rib.TypeInt, "\x01", 0, rib.ErrKeyShort},
		{rib.TypeInt, "", 0, rib.ErrKeyShort},
		{rib.TypeInt, "\x01\x01\x01\x01\x01", 0, rib.ErrKeySyntax},
		{rib.TypeUUID, "0123456789abcde", 0, rib.ErrKeyShort},
		{rib.TypeText, "a\x00b", 0, rib.ErrKeyEncoding},
		{rib.TypeText, "a\xff", 0, rib.ErrKeyEncoding},
		{rib.Type(99), "a", 0, rib.ErrKeyType},
	} {
		v, err := rib.ParseBinary(c.typ, []byte(c.in))
		if v.Int != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s %q is read as %d, %v; want %d, %v", c.typ, c.in, v.Int, err, c.want, c.err)
		}
	}
	v, err := rib.ParseBinary(rib.TypeUUID, []byte("0123456789abcdef"))
	if err != nil || string(v.Bytes) != "0123456789abcdef" {
		t.Errorf("a uuid is read as %x, %v", v.Bytes, err)
	}
	v, err = rib.ParseText(rib.TypeUUID, []byte("{30313233-34353637-38396162-63646566}"))
	check(t, err)
	if u, err := v.UUID(); err != nil || string(u[:]) != "0123456789abcdef" {
		t.Errorf("a uuid is read as %x, %v", u, err)
	}
	for _, name := range []string{"hash", "range"} {
		if _, err := method(t, name).AppendKey(nil, rib.Value{Type: rib.TypeUUID, Bytes: []byte("short")}); !errors.Is(err, rib.ErrKeySyntax) {
			t.Errorf("%s takes a uuid of 5 bytes: %v", name, err)
		}
	}
}

// A stranger's megabyte does not come back in the error's text.
func TestErrorsAreShort(t *testing.T) {
	_, err := rib.ParseText(rib.TypeUUID, []byte(strings.Repeat("x", 1<<20)))
	if !errors.Is(err, rib.ErrKeySyntax) || len(err.Error()) > 300 {
		t.Errorf("%d bytes of error: %.80v", len(err.Error()), err)
	}
}

// Reading a value and making its key allocates nothing: it happens for every statement.
func TestKeysDoNotAllocate(t *testing.T) {
	values := map[rib.Type][2][]byte{
		rib.TypeBigint: {[]byte("-42"), {0, 0, 0, 0, 0, 0, 0, 1}},
		rib.TypeInt:    {[]byte(" 42 "), {0, 0, 0, 1}},
		rib.TypeText:   {[]byte("Größe"), []byte("hello")},
		rib.TypeUUID:   {[]byte("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"), []byte("0123456789abcdef")},
	}
	buffer := make(rib.Key, 0, 64)
	for _, name := range []string{"hash", "range"} {
		m := method(t, name)
		for typ, in := range values {
			if n := testing.AllocsPerRun(100, func() {
				v, err := rib.ParseText(typ, in[0])
				check(t, err)
				k, err := m.AppendKey(buffer, v)
				check(t, err)
				v, err = rib.ParseBinary(typ, in[1])
				check(t, err)
				_, err = m.AppendKey(k, v)
				check(t, err)
			}); n != 0 {
				t.Errorf("%s %s: %v allocations", name, typ, n)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range oddInputs {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, typ := range keyTypes {
			for _, parse := range []func(rib.Type, []byte) (rib.Value, error){rib.ParseText, rib.ParseBinary} {
				v, err := parse(typ.key, in)
				if err != nil {
					continue
				}
				for _, name := range []string{"hash", "range"} {
					m, types := method(t, name), []rib.Type{typ.key}
					k, err := m.AppendKey(nil, v)
					check(t, err)
					back, err := m.ParseBound(types, m.FormatKey(types, k))
					if err != nil || back.Compare(k) != 0 {
						t.Fatalf("%s %s %q: key %x is written %s and read %x, %v", name, typ.sql, in, []byte(k), m.FormatKey(types, k), []byte(back), err)
					}
				}
			}
		}
	})
}
