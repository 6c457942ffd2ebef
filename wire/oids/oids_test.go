package oids

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// The types of two servers, in the order in which one of them has made them.
var examples = []Type{
	{Schema: "public", Name: "mood"},
	{Schema: "public", Name: "pair", Kind: Composite, Table: 1},
	{Schema: "public", Name: "moods", Kind: Domain},
	{Schema: "app", Name: "mood"},
	{Schema: "public", Name: "span", Kind: Range},
	{Schema: "public", Name: "spans", Kind: Multirange},
	{Schema: "public", Name: "short", Kind: Domain},
}

// numbered gives them numbers from base on. A domain moods is one over arrays of public.mood, a span has bounds of type pair.
func numbered(base uint32) []Type {
	list := make([]Type, len(examples))
	for i, t := range examples {
		t.OID, t.Array = base+3*uint32(i), base+3*uint32(i)+1
		if t.Table != 0 {
			t.Table = base + 3*uint32(i) + 2
		}
		list[i] = t
	}
	list[2].Of, list[4].Of, list[5].Of, list[6].Of = list[0].Array, list[1].OID, list[4].OID, 25
	return list
}

func two() (*Database, *Map) {
	d := Make("a", map[string][]Type{"a": numbered(20000), "b": numbered(30001)})
	return d, d.Map("b")
}

func TestMake(t *testing.T) {
	d, m := two()
	if d.Map("a") != nil || d.Reference() != "a" {
		t.Error("the reference is not what clients see")
	}
	for i := range examples {
		for j := range uint32(2) {
			local, seen := 30001+3*uint32(i)+j, 20000+3*uint32(i)+j
			if got, ok := m.Face(local); !ok || got != seen {
				t.Errorf("%v: %d is seen as %d, want %d", examples[i], local, got, seen)
			}
			if got, ok := m.Local(seen); !ok || got != local {
				t.Errorf("%v: %d is %d on the shard, want %d", examples[i], seen, got, local)
			}
		}
	}
	if m.LocalTable(20005) != 30006 || m.LocalTable(20002) != 0 || m.LocalTable(1259) != 1259 {
		t.Error("tables", m.LocalTable(20005))
	}
	if _, ok := m.Face(20000); ok {
		t.Error("a number of the other shard's is known")
	}
	if oid, ok := m.Local(23); !ok || oid != 23 {
		t.Error("a type of PostgreSQL's own is another")
	}
	for oid, want := range map[uint32]bool{23: false, record: true, anyArray: true, 20000: false, 20001: true, 20003: true, 20006: true, 20012: true, 20018: true, 99999: true} {
		if d.Carries(oid) != want {
			t.Errorf("%d carries: %v", oid, !want)
		}
	}
	for oid, want := range map[uint32]bool{23: false, recordArray: true, 20000: false, 20001: true, 20003: true, 20004: true, 20006: true, 20012: true, 20013: true, 20015: true, 20018: false, 20019: true} {
		if m.ParamCarries(oid) != want {
			t.Errorf("parameters of type %d carry: %v", oid, !want)
		}
	}
}

// What the reference lacks is numbered by its name, alike wherever it is, and in no way that anybody else uses.
func TestWhatTheReferenceLacks(t *testing.T) {
	more := func(base uint32) []Type {
		return append(numbered(base), Type{OID: base + 900, Array: base + 901, Table: base + 902, Schema: "public", Name: "extra", Kind: Composite})
	}
	d := Make("a", map[string][]Type{"a": numbered(20000), "b": more(30000), "c": more(40000)})
	b, okB := d.Map("b").Face(30900)
	c, okC := d.Map("c").Face(40900)
	if !okB || !okC || b != c || b < madeFirst || b >= 1<<31 || !d.Knows(b) || !d.Knows(b+1) {
		t.Fatalf("%d and %d", b, c)
	}
	if array, ok := d.Map("b").Face(30901); !ok || array != b+1 {
		t.Errorf("its array is %d", array)
	}
	if local, ok := d.Map("c").Local(b); !ok || local != 40900 {
		t.Errorf("it is %d on c", local)
	}
	again := Make("a", map[string][]Type{"a": numbered(25000), "c": more(50000)})
	if got, _ := again.Map("c").Face(50900); got != b {
		t.Errorf("another node says %d, not %d", got, b)
	}
	taken := append(numbered(20000), Type{OID: b, Array: 7, Schema: "x", Name: "y"})
	if got, _ := Make("a", map[string][]Type{"a": taken, "b": more(30000)}).Map("b").Face(30900); got == b {
		t.Error("the number is somebody else's")
	}
	if _, ok := d.Map("b").Local(20000); !ok {
		t.Error("the others are lost")
	}
}

// Of what has not been read nothing is known.
func TestUnread(t *testing.T) {
	for name, d := range map[string]*Database{
		"the shard":     Make("a", map[string][]Type{"a": numbered(20000), "b": nil}),
		"the reference": Make("a", map[string][]Type{"a": nil, "b": numbered(20000)}),
	} {
		m := d.Map("b")
		body := row(column{"x", 20002, 20000, 0}, column{"y", 0, 23, 0})
		if m.UnknownColumn(body, nil) != 20000 || m.UnknownColumn(body, []uint32{20000}) != 0 {
			t.Errorf("%s: an unknown type is not told", name)
		}
		m.Columns(body, nil)
		if want := row(column{"x", 0, Unknown, 0}, column{"y", 0, 23, 0}); string(body) != string(want) {
			t.Errorf("%s: % x", name, body)
		}
		if _, ok := m.Local(20000); ok {
			t.Errorf("%s: a type is taken for another", name)
		}
		if err := m.Param(recordArray, array(20000, nil)); err == nil {
			t.Errorf("%s: a value goes through", name)
		}
	}
	if d := Make("a", map[string][]Type{"a": {}, "b": {}}); d.Map("elsewhere").UnknownColumn(row(column{"x", 0, 20000, 0}), nil) == 0 {
		t.Error("a shard that nobody speaks of is known")
	}
}

type column struct {
	name       string
	table, oid uint32
	format     uint16
}

// row is the body of a RowDescription.
func row(list ...column) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(list)))
	for _, c := range list {
		b = append(append(b, c.name...), 0)
		b = binary.BigEndian.AppendUint32(b, c.table)
		attribute := uint16(3)
		if c.table == 0 {
			attribute = 0
		}
		b = binary.BigEndian.AppendUint16(b, attribute)
		b = binary.BigEndian.AppendUint32(b, c.oid)
		b = append(b, 0, 4, 0xff, 0xff, 0xff, 0xff)
		b = binary.BigEndian.AppendUint16(b, c.format)
	}
	return b
}

func TestColumns(t *testing.T) {
	_, m := two()
	body := row(column{"id", 30006, 23, 1}, column{"mood", 30006, 30001, 1}, column{"all", 30006, 30002, 1}, column{"text", 30006, 30002, 0},
		column{"r", 0, record, 1}, column{"gone", 77777, 25, 0}, column{"sys", 1259, 26, 1})
	list := m.Columns(body, nil)
	want := row(column{"id", 20005, 23, 1}, column{"mood", 20005, 20000, 1}, column{"all", 20005, 20001, 1}, column{"text", 20005, 20001, 0},
		column{"r", 0, record, 1}, column{"gone", 0, 25, 0}, column{"sys", 1259, 26, 1})
	if string(body) != string(want) {
		t.Errorf("% x", body)
	}
	if len(list) != 2 || list[0] != (Column{2, 30002}) || list[1] != (Column{4, record}) {
		t.Errorf("%v", list)
	}
	params := []byte{0, 3, 0, 0, 0, 23, 0, 0, 0x75, 0x31, 0, 0, 0x75, 0x32}
	if m.UnknownParam(params, nil) != 0 {
		t.Error("unknown")
	}
	if m.Params(params); binary.BigEndian.Uint32(params[6:]) != 20000 || binary.BigEndian.Uint32(params[10:]) != 20001 || binary.BigEndian.Uint32(params[2:]) != 23 {
		t.Errorf("% x", params)
	}
	if !Made(params) || Made(params[:6]) {
		t.Error("Made")
	}
}

func sized(v []byte) []byte {
	if v == nil {
		return []byte{0xff, 0xff, 0xff, 0xff}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(v))), v...)
}

// array is one of elements of a type.
func array(oid uint32, elements [][]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(min(len(elements), 1)))
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, oid)
	if len(elements) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(elements)))
		b = binary.BigEndian.AppendUint32(b, 1)
	}
	for _, e := range elements {
		b = append(b, sized(e)...)
	}
	return b
}

// twice is a value in two servers' numbers.
type twice [2][]byte

// gen draws a type, by its number on both servers, and a value of it on both.
func gen(t *rapid.T, depth int) (oids [2]uint32, v twice) {
	bases := [2]uint32{20000, 30001}
	number := func(i int, array uint32) [2]uint32 {
		return [2]uint32{bases[0] + 3*uint32(i) + array, bases[1] + 3*uint32(i) + array}
	}
	same := func(b []byte) twice { return twice{append([]byte{}, b...), append([]byte{}, b...)} }
	kind := rapid.IntRange(0, 7).Draw(t, "kind")
	if depth == 0 {
		kind %= 2
	}
	switch kind {
	case 0:
		return [2]uint32{25, 25}, same(rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "text"))
	case 1:
		return number(rapid.SampledFrom([]int{0, 3}).Draw(t, "enum"), 0), same([]byte("happy"))
	case 2: // an array
		i := rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6}).Draw(t, "elements")
		var elements [2][][]byte
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			if rapid.Bool().Draw(t, "null") {
				elements[0], elements[1] = append(elements[0], nil), append(elements[1], nil)
				continue
			}
			e := genOf(t, i, depth-1)
			elements[0], elements[1] = append(elements[0], e[0]), append(elements[1], e[1])
		}
		n := number(i, 0)
		return number(i, 1), twice{array(n[0], elements[0]), array(n[1], elements[1])}
	}
	i := kind - 2
	if kind == 7 {
		i = 6
	}
	return number(i, 0), genOf(t, i, depth-1)
}

// genOf draws a value of examples[i].
func genOf(t *rapid.T, i, depth int) (v twice) {
	switch i {
	case 1: // a composite, of whatever
		n := rapid.IntRange(0, 3).Draw(t, "fields")
		for s := range v {
			v[s] = binary.BigEndian.AppendUint32(nil, uint32(n))
		}
		for range n {
			oids, f := gen(t, max(depth, 0))
			null := rapid.Bool().Draw(t, "null")
			for s := range v {
				if null {
					f[s] = nil
				}
				v[s] = append(binary.BigEndian.AppendUint32(v[s], oids[s]), sized(f[s])...)
			}
		}
		return v
	case 2: // a domain over public.mood[]
		return twice{array(20000, [][]byte{[]byte("sad")}), array(30001, [][]byte{[]byte("sad")})}
	case 4: // a range of pairs
		flags := rapid.SampledFrom([]byte{0, 1, 2, 6, 8, 16, 24}).Draw(t, "flags")
		v = twice{{flags}, {flags}}
		for _, missing := range []byte{1 | 8, 1 | 16} {
			if flags&missing == 0 {
				bound := genOf(t, 1, depth-1)
				for s := range v {
					v[s] = append(v[s], sized(bound[s])...)
				}
			}
		}
		return v
	case 5:
		n := rapid.IntRange(0, 2).Draw(t, "ranges")
		for s := range v {
			v[s] = binary.BigEndian.AppendUint32(nil, uint32(n))
		}
		for range n {
			one := genOf(t, 4, depth-1)
			for s := range v {
				v[s] = append(v[s], sized(one[s])...)
			}
		}
		return v
	}
	return twice{[]byte("plain"), []byte("plain")}
}

func TestValues(t *testing.T) {
	_, m := two()
	rapid.Check(t, func(t *rapid.T) {
		oids, v := gen(t, 3)
		other, w := gen(t, 1)
		body := binary.BigEndian.AppendUint16(nil, 3)
		want := append([]byte{}, body...)
		for _, f := range [][2][]byte{{w[1], w[0]}, {nil, nil}, {v[1], v[0]}} {
			body, want = append(body, sized(f[0])...), append(want, sized(f[1])...)
		}
		desc := row(column{"w", 0, other[1], 1}, column{"n", 0, 30002, 1}, column{"v", 0, oids[1], 1})
		if err := m.Row(body, m.Columns(desc, nil)); err != nil {
			t.Fatal(err)
		}
		if string(body) != string(want) {
			t.Fatalf("type %d:\n% x\nwant\n% x", oids[1], body, want)
		}
		up := append([]byte{}, v[0]...)
		if err := m.Param(oids[0], up); err != nil {
			t.Fatal(err)
		}
		if string(up) != string(v[1]) {
			t.Fatalf("type %d:\n% x\nwant\n% x", oids[0], up, v[1])
		}
	})
}

func TestStrangeValues(t *testing.T) {
	d, m := two()
	if err := m.Param(20001, array(66666, nil)); err == nil || err.Error() != "there is no type with OID 66666" {
		t.Error(err)
	}
	deep := []byte{0, 0, 0, 0}
	for range maxDepth + 1 {
		deep = append(append([]byte{0, 0, 0, 1}, 0, 0, 0x4e, 0x23), sized(deep)...)
	}
	if err := m.Param(20003, deep); err != errMalformed {
		t.Errorf("a value of depth %d: %v", maxDepth+1, err)
	}
	for _, v := range [][]byte{nil, {0}, {0, 0, 0, 1}, {0, 0, 0, 1, 0, 0, 0, 25}, {0, 0, 0, 0, 9}, {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 25, 0, 0, 0, 0}} {
		if err := m.Param(20003, v); err != errMalformed {
			t.Errorf("% x: %v", v, err)
		}
	}
	// A row with a type that nobody knows is told as that.
	body := append([]byte{0, 1}, sized(append([]byte{0, 0, 0, 1, 0, 1, 0, 0}, sized([]byte("x"))...))...)
	if err := m.Row(body, []Column{{0, record}}); err != nil || binary.BigEndian.Uint32(body[10:]) != Unknown {
		t.Errorf("%v % x", err, body)
	}
	if err := m.Row([]byte{0, 1, 0, 0, 0, 9, 1}, []Column{{0, record}}); err == nil {
		t.Error("a row that is cut off")
	}
	if !d.CarriesAny(row(column{"x", 0, Unknown, 0})) || d.CarriesAny(row(column{"x", 0, 25, 0})) {
		t.Error("CarriesAny")
	}
}

// FuzzValue has a stranger send values: they keep their length, and what is taken comes back as it was.
func FuzzValue(f *testing.F) {
	f.Add(uint32(20001), array(20000, [][]byte{[]byte("sad"), nil}))
	f.Add(uint32(20012), append([]byte{2}, sized(append([]byte{0, 0, 0, 1, 0, 0, 0x4e, 0x21}, sized(array(20000, nil))...))...))
	f.Add(uint32(record), []byte{0xff, 0xff, 0xff, 0xff})
	_, m := two()
	f.Fuzz(func(t *testing.T, oid uint32, v []byte) {
		was := string(v)
		local, known := m.Local(oid)
		if err := m.Param(oid, v); err != nil || !known {
			return
		}
		body := append([]byte{0, 1}, sized(append([]byte{}, v...))...)
		if err := m.Row(body, []Column{{0, local}}); err != nil || string(body[6:]) != was {
			t.Errorf("type %d: %v\n% x\n% x\n% x", oid, err, was, v, body)
		}
	})
}

// FuzzColumns has a server send descriptions.
func FuzzColumns(f *testing.F) {
	f.Add(row(column{"id", 30006, 23, 1}, column{"all", 30006, 30002, 1}))
	f.Add([]byte{0xff, 0xff, 1})
	d, m := two()
	f.Fuzz(func(t *testing.T, body []byte) {
		copied := append([]byte{}, body...)
		_ = m.UnknownColumn(body, nil)
		_ = m.UnknownParam(body, nil)
		m.Columns(body, nil)
		m.Params(copied)
		_ = d.CarriesAny(body)
		for f := fieldsOf(body); f.more(); {
			if !d.Knows(f.oid()) {
				t.Errorf("a client is told of type %d, which nobody knows", f.oid())
			}
		}
		if len(body) != len(copied) {
			t.Error("another length")
		}
	})
}

// What a description costs on a shard that is not the reference.
func BenchmarkColumns(b *testing.B) {
	_, m := two()
	for name, body := range map[string][]byte{
		"plain":  row(column{"id", 0, 23, 1}, column{"a", 0, 25, 0}, column{"b", 0, 25, 0}, column{"c", 0, 1184, 0}, column{"d", 0, 1700, 0}),
		"table":  row(column{"id", 30006, 23, 1}, column{"a", 30006, 25, 0}, column{"b", 30006, 25, 0}, column{"c", 30006, 1184, 0}, column{"d", 30006, 1700, 0}),
		"enum":   row(column{"id", 30006, 23, 1}, column{"mood", 30006, 30001, 1}, column{"b", 30006, 25, 0}, column{"c", 30006, 1184, 0}, column{"d", 30006, 1700, 0}),
		"binary": row(column{"id", 30006, 23, 1}, column{"all", 30006, 30002, 1}, column{"b", 30006, 25, 0}, column{"c", 30006, 1184, 0}, column{"d", 30006, 1700, 0}),
	} {
		b.Run(name, func(b *testing.B) {
			frame := make([]byte, len(body))
			var list []Column
			b.ReportAllocs()
			for b.Loop() {
				copy(frame, body)
				if m.UnknownColumn(frame, nil) != 0 {
					b.Fatal("unknown")
				}
				list = m.Columns(frame, list[:0])
			}
		})
	}
}
