package pg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// bindBody encodes a Bind by another implementation, and cuts the header off.
func bindBody(t testing.TB, m *pgproto3.Bind) []byte {
	t.Helper()
	out, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return out[HeaderSize:]
}

func TestBindDecode(t *testing.T) {
	body := bindBody(t, &pgproto3.Bind{
		DestinationPortal: "p", PreparedStatement: "stmt", ParameterFormatCodes: []int16{0, 1, 0},
		Parameters: [][]byte{[]byte("42"), {0, 0, 0, 7}, nil}, ResultFormatCodes: []int16{1, 0},
	})
	var b Bind
	if err := b.Decode(body); err != nil {
		t.Fatal(err)
	}
	if string(b.Portal) != "p" || string(b.Statement) != "stmt" || b.NumParams() != 3 {
		t.Fatalf("portal %q, statement %q, %d parameters", b.Portal, b.Statement, b.NumParams())
	}
	want := []string{`"42" 0 false`, `"\x00\x00\x00\a" 1 false`, `"" 0 true`}
	for i, w := range want {
		val, format, null := b.Param(i)
		if got := fmt.Sprintf("%q %d %v", val, format, null); got != w {
			t.Errorf("parameter %d is %s, want %s", i, got, w)
		}
	}
}

func TestBindFormats(t *testing.T) {
	for _, c := range []struct {
		formats []int16
		want    [2]int16
	}{{nil, [2]int16{0, 0}}, {[]int16{1}, [2]int16{1, 1}}, {[]int16{1, 0}, [2]int16{1, 0}}} {
		var b Bind
		if err := b.Decode(bindBody(t, &pgproto3.Bind{ParameterFormatCodes: c.formats, Parameters: [][]byte{{1}, {}}})); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			if _, format, _ := b.Param(i); format != want {
				t.Errorf("formats %v: parameter %d has format %d, want %d", c.formats, i, format, want)
			}
		}
		if val, _, null := b.Param(1); val == nil || len(val) != 0 || null {
			t.Errorf("an empty value came out as %v, null %v", val, null)
		}
	}
}

func TestBindRefuses(t *testing.T) {
	param := func(length uint32, value ...byte) []byte { // one parameter of that length
		return append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0, 0, 1}, length), value...)
	}
	for _, c := range []struct {
		name, message string
		body          []byte
	}{
		{"nothing", "invalid string in message", nil},
		{"portal without NUL", "invalid string in message", []byte("p")},
		{"statement without NUL", "invalid string in message", []byte("p\x00s")},
		{"no format count", "insufficient data left in message", []byte{0, 0}},
		{"formats claimed", "insufficient data left in message", []byte{0, 0, 0xff, 0xff}},
		{"no parameter count", "insufficient data left in message", []byte{0, 0, 0, 0}},
		{"parameters claimed", "insufficient data left in message", []byte{0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}},
		{"length -2", "insufficient data left in message", append(param(0xfffffffe), 0, 0)},
		{"least length", "insufficient data left in message", append(param(0x80000000), 0, 0)},
		{"length beyond the end", "insufficient data left in message", append(param(100, 'x'), 0, 0)},
		{"largest length", "insufficient data left in message", append(param(0x7fffffff, 'x'), 0, 0)},
		{"no result count", "insufficient data left in message", param(1, 'x')},
		{"results claimed", "insufficient data left in message", append(param(1, 'x'), 0, 1)},
		{"a byte too many", "invalid message format", append(param(1, 'x'), 0, 0, 0)},
		{"two formats for one parameter", "bind message has 2 parameter formats but 1 parameters", []byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := Bind{}
			err := b.Decode(c.body)
			if e := wantCode(t, err, "08P01"); e.Message != c.message {
				t.Fatalf("message %q, want %q", e.Message, c.message)
			}
			if b.NumParams() != 0 || b.Statement != nil {
				t.Fatal("something of the refused message stayed")
			}
		})
	}
}

func TestBindForgetsManyParameters(t *testing.T) {
	var b Bind
	if err := b.Decode(bindBody(t, &pgproto3.Bind{Parameters: make([][]byte, 65535)})); err != nil {
		t.Fatal(err)
	}
	if n := b.NumParams(); n != 65535 {
		t.Fatalf("%d parameters", n)
	}
	if err := b.Decode(bindBody(t, &pgproto3.Bind{Parameters: make([][]byte, 2)})); err != nil {
		t.Fatal(err)
	}
	if n := cap(b.offsets); n > keepParams {
		t.Fatalf("room for %d parameters is kept", n)
	}
}

func TestAppendBindRenamed(t *testing.T) {
	m := pgproto3.Bind{
		DestinationPortal: "portal", PreparedStatement: "old", ParameterFormatCodes: []int16{1},
		Parameters: [][]byte{[]byte("a\x00b"), nil, {}}, ResultFormatCodes: []int16{0, 1, 1},
	}
	var b Bind
	if err := b.Decode(bindBody(t, &m)); err != nil {
		t.Fatal(err)
	}
	m.PreparedStatement = "a rather longer name"
	want, err := m.Encode([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if got := AppendBindRenamed([]byte("before"), &b, m.PreparedStatement); !bytes.Equal(got, want) {
		t.Fatalf("got\n%x, want\n%x", got, want)
	}
}

// FuzzBind: decoding never panics; what decodes can be read in full, and encodes again to the same bytes under its own
// name and to the same message under another.
func FuzzBind(f *testing.F) {
	for _, m := range []*pgproto3.Bind{
		{},
		{DestinationPortal: "p", PreparedStatement: "s", Parameters: [][]byte{[]byte("1"), nil}},
		{ParameterFormatCodes: []int16{1, 0}, Parameters: [][]byte{{0, 0, 0, 1}, {}}, ResultFormatCodes: []int16{1}},
	} {
		f.Add(bindBody(f, m))
	}
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0})
	f.Add([]byte{0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		var b Bind
		if err := b.Decode(body); err != nil {
			wantCode(t, err, "08P01")
			return
		}
		type param struct {
			val    string
			format int16
			null   bool
		}
		read := func(b *Bind) (all []param) {
			for i := range b.NumParams() {
				val, format, null := b.Param(i)
				all = append(all, param{string(val), format, null})
			}
			return all
		}
		same := AppendBindRenamed(nil, &b, string(b.Statement))
		if !bytes.Equal(same[HeaderSize:], body) {
			t.Fatalf("encoded again:\n%x, was\n%x", same[HeaderSize:], body)
		}
		other := AppendBindRenamed(nil, &b, "rf_17")
		if typ, n, err := Next(other, len(other)); typ != 'B' || n != len(other) || err != nil {
			t.Fatalf("renamed frame: %q, %d of %d bytes, %v", typ, n, len(other), err)
		}
		var c Bind
		if err := c.Decode(other[HeaderSize:]); err != nil {
			t.Fatalf("renamed: %v", err)
		}
		if string(c.Statement) != "rf_17" || !bytes.Equal(c.Portal, b.Portal) || fmt.Sprint(read(&c)) != fmt.Sprint(read(&b)) {
			t.Fatal("renamed, it is another message")
		}
	})
}

func TestBindDecodeAllocatesNothing(t *testing.T) {
	body := bindBody(t, &pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte("42"), []byte(strings.Repeat("x", 100)), nil}})
	var b Bind
	if err := b.Decode(body); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		_ = b.Decode(body)
		_, _, _ = b.Param(1)
		dst = AppendBindRenamed(dst[:0], &b, "rf_1")
	}); n != 0 {
		t.Fatalf("decoding and renaming allocates %v times", n)
	}
}

func BenchmarkBindDecode(b *testing.B) {
	body := bindBody(b, &pgproto3.Bind{PreparedStatement: "s", Parameters: [][]byte{[]byte("42"), []byte("hello"), nil}})
	var m Bind
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}
