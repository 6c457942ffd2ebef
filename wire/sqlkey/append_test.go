package sqlkey

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// arg is one parameter; args are all of a Bind's.
type arg struct {
	val    []byte
	format int16
	oid    uint32
	null   bool
}

type args []arg

func (a args) Arg(i int) ([]byte, int16, uint32, bool, bool) {
	if i < 1 || i > len(a) {
		return nil, 0, 0, false, false
	}
	return a[i-1].val, a[i-1].format, a[i-1].oid, a[i-1].null, true
}

func text(s string, oid uint32) arg { return arg{val: []byte(s), oid: oid} }

func be(n, v int64) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(v))
	return b[8-n:]
}

func TestAppendKeyByParameterType(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	const (
		bigint = "select * from app.orders where customer_id = $1"
		cast   = "select * from app.orders where customer_id = $1::bigint"
		small  = "select * from app.days where day = $1"
		name   = "select * from app.users where name = $1"
		device = "select * from app.devices where id = $1"
		dcast  = "select * from app.devices where id = $1::uuid"
		visit  = "select * from app.visits where visited = $1"
		vcast  = "select * from app.visits where visited = $1::date"
		beat   = "select * from app.beats where at = $1"
		blob   = "select * from app.blobs where digest = $1"
		cell   = "select * from app.cells where cell = $1"
	)
	uuid := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	raw := []byte("\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11")
	for _, x := range []struct {
		sql     string
		arg     arg
		same    string // a statement with the same key as a constant; "" if an error is due
		code    string
		message string
	}{
		{bigint, text("42", 0), "select * from app.orders where customer_id = 42", "", ""},
		{bigint, text(" 42 ", 705), "select * from app.orders where customer_id = 42", "", ""},
		{bigint, text("-42", 20), "select * from app.orders where customer_id = -42", "", ""},
		{bigint, text("42", 21), "select * from app.orders where customer_id = 42", "", ""},
		{bigint, text("42", 23), "select * from app.orders where customer_id = 42", "", ""},
		{bigint, arg{be(8, 42), 1, 20, false}, "select * from app.orders where customer_id = 42", "", ""},
		{bigint, arg{be(8, -42), 1, 0, false}, "select * from app.orders where customer_id = -42", "", ""},
		{bigint, arg{be(4, -42), 1, 23, false}, "select * from app.orders where customer_id = -42", "", ""},
		{bigint, arg{be(2, -42), 1, 21, false}, "select * from app.orders where customer_id = -42", "", ""},
		{cast, text("42", 25), "select * from app.orders where customer_id = 42", "", ""},
		{cast, arg{[]byte("42"), 1, 25, false}, "select * from app.orders where customer_id = 42", "", ""},
		{cast, text("42", 1043), "select * from app.orders where customer_id = 42", "", ""},
		{small, text("42", 20), "select * from app.days where day = 42", "", ""},
		{name, text("zoë", 0), "select * from app.users where name = 'zoë'", "", ""},
		{name, text("bob", 1043), "select * from app.users where name = 'bob'", "", ""},
		{name, arg{[]byte("bob"), 1, 25, false}, "select * from app.users where name = 'bob'", "", ""},
		{device, text(uuid, 0), "select * from app.devices where id = '" + uuid + "'", "", ""},
		{device, text(strings.ToUpper(uuid), 2950), "select * from app.devices where id = '" + uuid + "'", "", ""},
		{device, arg{raw, 1, 2950, false}, "select * from app.devices where id = '" + uuid + "'", "", ""},
		{dcast, text(uuid, 1043), "select * from app.devices where id = '" + uuid + "'", "", ""},

		{visit, text("2024-12-31", 0), "select * from app.visits where visited = '2024-12-31'", "", ""},
		{visit, text("2024-12-31 +01", 1082), "select * from app.visits where visited = '2024-12-31'", "", ""},
		{visit, arg{be(4, 9131), 1, 1082, false}, "select * from app.visits where visited = '2024-12-31'", "", ""},
		{visit, arg{be(4, math.MaxInt32), 1, 0, false}, "select * from app.visits where visited = 'infinity'", "", ""},
		{vcast, text("0001-01-01 BC", 25), "select * from app.visits where visited = '0001-01-01 BC'", "", ""},
		{beat, text("2024-12-31 23:00:00-02", 1184), "select * from app.beats where at = '2025-01-01T01:00:00Z'", "", ""},
		{beat, arg{be(8, 1e6), 1, 1184, false}, "select * from app.beats where at = '2000-01-01 00:00:01+00'", "", ""},
		{beat, arg{be(8, math.MinInt64), 1, 0, false}, "select * from app.beats where at = '-infinity'", "", ""},
		{blob, text(`\x00FF`, 0), `select * from app.blobs where digest = '\x00ff'`, "", ""},
		{blob, text(`\000a`, 17), `select * from app.blobs where digest = '\x0061'`, "", ""},
		{blob, arg{[]byte("\x00\xff"), 1, 17, false}, `select * from app.blobs where digest = '\x00ff'`, "", ""},
		{blob, arg{[]byte(`\x00`), 1, 0, false}, `select * from app.blobs where digest = '\x5c783030'`, "", ""},
		{cell, text("-5", 21), "select * from app.cells where cell = -5", "", ""},
		{cell, arg{be(2, -5), 1, 21, false}, "select * from app.cells where cell = -5", "", ""},
		{cell, arg{be(8, -5), 1, 20, false}, "select * from app.cells where cell = -5", "", ""},

		{visit, text("31.12.2024", 0), "", pg.CodeFeatureNotSupported, "may mean several things"},
		{visit, text("2023-02-29", 1082), "", pg.CodeDatetimeFieldOverflow, "2023-02-29"},
		{visit, arg{be(4, math.MinInt32+1), 1, 1082, false}, "", pg.CodeDatetimeFieldOverflow, "beyond type date"},
		{visit, arg{be(8, 1), 1, 1082, false}, "", pg.CodeInvalidBinaryRepresentation, "8 bytes for type date"},
		{visit, arg{be(8, 1), 1, 1184, false}, "", pg.CodeFeatureNotSupported, "OID 1184"},
		{visit, text("2024-12-31", 25), "", pg.CodeFeatureNotSupported, "OID 25"},
		{beat, text("2024-12-31 23:00:00", 1184), "", pg.CodeFeatureNotSupported, "may mean several things"},
		{beat, text("2024-12-31", 1082), "", pg.CodeFeatureNotSupported, "OID 1082"},
		{beat, arg{be(8, 1), 1, 1114, false}, "", pg.CodeFeatureNotSupported, "OID 1114"},
		{beat, arg{be(8, math.MaxInt64-1), 1, 0, false}, "", pg.CodeDatetimeFieldOverflow, "beyond type timestamptz"},
		{blob, text(`\xABC`, 0), "", pg.CodeInvalidParameterValue, "odd number"},
		{blob, text(`\9`, 0), "", pg.CodeInvalidTextRepresentation, "bytea"},
		{blob, text("zoë", 0), "", pg.CodeFeatureNotSupported, "beyond ASCII"},
		{cell, text("40000", 0), "", pg.CodeNumericValueOutOfRange, "does not fit type smallint"},
		{cell, arg{be(4, 40000), 1, 23, false}, "", pg.CodeNumericValueOutOfRange, "does not fit type smallint"},

		{bigint, arg{null: true}, "", pg.CodeNullValueNotAllowed, "the sharding key is NULL: parameter $1"},
		{bigint, text("42", 25), "", pg.CodeFeatureNotSupported, "parameter $1 of type OID 25 cannot be routed by"},
		{bigint, text("42", 1700), "", pg.CodeFeatureNotSupported, "parameter $1 of type OID 1700 cannot be routed by"},
		{bigint, text("42", 701), "", pg.CodeFeatureNotSupported, "OID 701"},
		{bigint, text("9223372036854775808", 0), "", pg.CodeNumericValueOutOfRange, "does not fit type bigint"},
		{bigint, text("4.2", 0), "", pg.CodeInvalidTextRepresentation, `invalid input syntax for type bigint: "4.2"`},
		{bigint, text("", 0), "", pg.CodeInvalidTextRepresentation, `invalid input syntax`},
		{bigint, arg{[]byte{1, 2, 3}, 1, 0, false}, "", pg.CodeProtocolViolation, "3 bytes"},
		{bigint, arg{[]byte("42"), 7, 0, false}, "", pg.CodeProtocolViolation, "format 7"},
		{small, text("3000000000", 20), "", pg.CodeNumericValueOutOfRange, "does not fit type int"},
		{small, arg{be(8, 3000000000), 1, 20, false}, "", pg.CodeNumericValueOutOfRange, "does not fit type int"},
		{name, text("bob", 1042), "", pg.CodeFeatureNotSupported, "OID 1042"},
		{name, text("bob", 19), "", pg.CodeFeatureNotSupported, "OID 19"},
		{name, text("42", 20), "", pg.CodeFeatureNotSupported, "OID 20"},
		{name, text("a\xff", 0), "", pg.CodeCharacterNotInRepertoire, "not UTF-8"},
		{device, text("nonsense", 0), "", pg.CodeInvalidTextRepresentation, "uuid"},
		{device, text(uuid, 25), "", pg.CodeFeatureNotSupported, "OID 25"},
		{device, arg{raw[:15], 1, 0, false}, "", pg.CodeProtocolViolation, "15 bytes"},
	} {
		plan := p.Plan(c, appEnv, x.sql)
		prefix := rib.Key("before")
		got, err := plan.AppendKey(prefix, 0, args{x.arg}, true)
		if x.same == "" {
			e, ok := err.(*pg.Error)
			if !ok || e.Code != x.code || !strings.Contains(e.Message, x.message) || e.Detail == "" || string(got) != "before" {
				t.Errorf("%s with %q of %d: %q, %v", x.sql, x.arg.val, x.arg.oid, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s with %q of %d: %v", x.sql, x.arg.val, x.arg.oid, err)
			continue
		}
		constant := p.Plan(c, appEnv, x.same)
		want, err := constant.AppendKey(rib.Key("before"), 0, nil, true)
		if err != nil || string(got) != string(want) || len(got) <= len(prefix) {
			t.Errorf("%s with %q of %d: key %x, of the constant %x, %v", x.sql, x.arg.val, x.arg.oid, got, want, err)
		}
	}
}

func TestAppendKeyNeedsItsParameter(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	plan := p.Plan(c, appEnv, "select * from app.orders where customer_id = $2 and x = $1")
	for _, a := range []Args{nil, args{}, args{text("1", 0)}} {
		if _, err := plan.AppendKey(nil, 0, a, true); err == nil || err.(*pg.Error).Code != pg.CodeUndefinedParameter {
			t.Errorf("%v: %v", a, err)
		}
	}
}

// TestHashOfSeveralColumnsIsOnePosition: of constants, of parameters, and of both, also where texts share the plan.
func TestHashOfSeveralColumnsIsOnePosition(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	want := int64(2930601205835633658) // PostgreSQL 15: select hash_record_extended(row(3::int, 'a'::text), 0)
	for sql, a := range map[string]Args{
		"select * from app.tiles where zoom = 3 and name = 'a'":   nil,
		"select * from app.tiles where zoom = $1 and name = 'a'":  args{text("3", 0)},
		"select * from app.tiles where name = $1 and zoom = $2":   args{text("a", 0), arg{be(4, 3), 1, 23, false}},
		"insert into app.tiles (name, zoom) values ($1, 3)":       args{text("a", 0)},
		"select * from app.tiles where (zoom, name) = (3, $1) --": args{text("a", 1043)},
	} {
		key, err := p.Plan(c, appEnv, sql).AppendKey(rib.Key("before"), 0, a, true)
		if err != nil || string(key) != "before"+string(be(8, want)) {
			t.Errorf("%s: %x, %v", sql, key, err)
		}
	}
	var k Constants
	p = NewPlanner(PlannerConfig{})
	for range 2 { // the second text takes the first one's plan
		plan := p.PlanQuery(c, appEnv, []byte("select * from app.tiles where zoom = 3 and name = 'a'"), &k)
		if key, err := plan.AppendKey(nil, 0, &k, true); err != nil || string(key) != string(be(8, want)) || !plan.shared {
			t.Errorf("%x, %v, shared %v", key, err, plan.shared)
		}
	}
}

func TestAppendKeyOfTextInOtherEncodings(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	param := p.Plan(c, appEnv, "select * from app.users where name = $1")
	if _, err := param.AppendKey(nil, 0, args{text("bob", 0)}, false); err != nil {
		t.Errorf("ASCII is the same in every encoding: %v", err)
	}
	if _, err := param.AppendKey(nil, 0, args{text("zoë", 0)}, false); err == nil || !strings.Contains(err.Error(), "UTF8") {
		t.Errorf("zoë in LATIN1: %v", err)
	}
	constant := p.Plan(c, appEnv, "select * from app.users where name = 'zoë'")
	if _, err := constant.AppendKey(nil, 0, nil, true); err != nil {
		t.Error(err)
	}
	if _, err := constant.AppendKey(nil, 0, nil, false); err == nil {
		t.Error("a constant beyond ASCII was taken in another encoding")
	}
}

func TestAppendKeyOfSeveralColumns(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	want, err := p.Plan(c, appEnv, "select * from app.stock where tenant = 1 and sku = 'x'").AppendKey(nil, 0, nil, true)
	if err != nil || len(want) == 0 {
		t.Fatal(err)
	}
	for sql, a := range map[string]args{
		"select * from app.stock where sku = $1 and tenant = $2":         {text("x", 0), text("1", 20)},
		"select * from app.stock where sku = 'x' and tenant = $1":        {text("1", 0)},
		"select * from app.stock where (tenant, sku) = ($2::int, $1)":    {text("x", 25), arg{be(4, 1), 1, 23, false}},
		"insert into app.stock (x, sku, tenant) values ('', $2, $1)":     {text("1", 0), text("x", 0)},
		"delete from app.stock s where s.sku = 'x' and 1 = s.tenant":     nil,
		"update app.stock set x = 1 where sku = 'x' and tenant = $1 + x": {text("1", 0)},
	} {
		plan := p.Plan(c, appEnv, sql)
		if strings.Contains(sql, "+ x") {
			if plan.Target != Many || plan.Fan.Within != nil { // all shards: the key is not known
				t.Errorf("%s: %s", sql, tell(plan))
			}
			continue
		}
		got, err := plan.AppendKey(nil, 0, a, true)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %x, want %x, %v", sql, got, want, err)
		}
	}
	plan := p.Plan(c, appEnv, "select * from app.stock where sku = $1 and tenant = $2")
	got, err := plan.AppendKey(rib.Key("before"), 0, args{text("x", 0), {null: true}}, true)
	if err == nil || string(got) != "before" {
		t.Errorf("half a key was kept: %q, %v", got, err)
	}
}

func TestAppendKeyAllocatesNothing(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	dst := make(rib.Key, 0, 64)
	for sql, a := range map[string]Args{
		"select * from app.orders where customer_id = 42":                args(nil),
		"select * from app.orders where customer_id = $1":                args{text("42", 0)},
		"update app.orders set x = 1 where customer_id = $1::int":        args{{be(4, 42), 1, 23, false}},
		"select * from app.users where name = $1":                        args{text("somebody", 25)},
		"select * from app.devices where id = $1":                        args{text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 2950)},
		"select * from app.stock where tenant = $1 and sku = $2 limit 1": args{text("42", 0), text("x", 0)},
		"select * from app.tiles where zoom = $1 and name = $2":          args{text("42", 0), text("x", 0)},
		"select * from app.visits where visited = $1":                    args{text("2024-12-31", 0)},
		"select * from app.beats where at = $1":                          args{text("2024-12-31 23:59:59.25+01:30", 0)},
		"select * from app.blobs where digest = $1":                      args{text(`\x00ff`, 0)},
		"select * from app.cells where cell = $1":                        args{{be(2, 42), 1, 21, false}},
	} {
		plan := p.Plan(c, appEnv, sql)
		if n := testing.AllocsPerRun(100, func() {
			var err error
			if dst, err = plan.AppendKey(dst[:0], 0, a, true); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", sql, n)
		}
	}
}

// TestLiteralAndParameterGiveTheSameKey: however a value is written or sent, it is one key.
func TestLiteralAndParameterGiveTheSameKey(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	key := func(rt *rapid.T, sql string, a Args) string {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != Keyed {
			rt.Fatalf("%s: %s", sql, tell(plan))
		}
		k, err := plan.AppendKey(nil, 0, a, true)
		if err != nil {
			rt.Fatalf("%s: %v", sql, err)
		}
		return string(k)
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64().Draw(rt, "n")
		const where = "select * from app.orders where customer_id = "
		want := key(rt, where+fmt.Sprint(n), nil)
		for _, spelled := range []string{"'%d'", "(%d)", "'%d'::bigint", "cast('%d' as int8)", "'  %d '"} {
			if got := key(rt, where+fmt.Sprintf(spelled, n), nil); got != want {
				rt.Fatalf("%s of %d: %x, not %x", spelled, n, got, want)
			}
		}
		if got := key(rt, fmt.Sprintf("insert into app.orders (id, customer_id) values (1, %d)", n), nil); got != want {
			rt.Fatalf("INSERT of %d: %x, not %x", n, got, want)
		}
		sent := []arg{text(fmt.Sprint(n), 0), text(fmt.Sprint(n), 20), {be(8, n), 1, 20, false}, {be(8, n), 1, 0, false}}
		if n == int64(int32(n)) {
			sent = append(sent, arg{be(4, n), 1, 23, false}, text(fmt.Sprint(n), 23))
		}
		for _, a := range sent {
			if got := key(rt, where+"$1", args{a}); got != want {
				rt.Fatalf("%d as %+v: %x, not %x", n, a, got, want)
			}
		}
		s := rapid.StringOfN(rapid.RuneFrom([]rune("abc'\\\"$ éß漢\n%_?")), 0, 20, -1).Draw(rt, "s")
		literal := rib.QuoteLiteral(s)
		want = key(rt, "select * from app.users where name = "+literal, nil)
		for _, spelled := range []string{literal + "::text", "cast(" + literal + " as varchar)", "U&'" + unicodeEscaped(s) + "'"} {
			if got := key(rt, "select * from app.users where name = "+spelled, nil); got != want {
				rt.Fatalf("%s: %x, not %x", spelled, got, want)
			}
		}
		for _, a := range []arg{text(s, 0), text(s, 25), {[]byte(s), 1, 1043, false}} {
			if got := key(rt, "select * from app.users where name = $1", args{a}); got != want {
				rt.Fatalf("%q as %+v: %x, not %x", s, a, got, want)
			}
		}
	})
}

// unicodeEscaped writes every character of s as U&'...' takes it.
func unicodeEscaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\+%06x`, r)
	}
	return b.String()
}

func BenchmarkAppendKey(b *testing.B) {
	c, p := testCatalog(b), NewPlanner(PlannerConfig{})
	plan := p.Plan(c, appEnv, "select * from app.orders where customer_id = $1")
	var a Args = args{{be(8, 42), 1, 20, false}}
	dst := make(rib.Key, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = plan.AppendKey(dst[:0], 0, a, true); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAppendPlain: what a key is a hash of is known of parameters and of constants in plans that texts share, however it is written, and of nothing else.
func TestAppendPlain(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	method, err := rib.MethodByName("range")
	if err != nil {
		t.Fatal(err)
	}
	uuid := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	bigint, name := []rib.Type{rib.TypeBigint}, []rib.Type{rib.TypeText}
	for _, x := range []struct {
		sql   string
		args  Args // nil: it is sent as a Query
		types []rib.Type
		want  string // "": it is not known
	}{
		{"select * from app.orders where customer_id = $1", args{text("42", 0)}, bigint, "42"},
		{"select * from app.orders where customer_id = $1", args{arg{be(8, -42), 1, 20, false}}, bigint, "-42"},
		{"select * from app.orders where customer_id = $1", args{arg{be(4, 42), 1, 23, false}}, bigint, "42"},
		{"select * from app.orders where customer_id = $1", args{arg{null: true}}, bigint, ""},
		{"select * from app.orders where customer_id = $1", args{}, bigint, ""},
		{"select * from app.orders where customer_id = $1", args{text("x", 0)}, bigint, ""},
		{"select * from app.orders where customer_id = 42", nil, bigint, "42"},
		{"select * from app.orders where customer_id = 43", args{}, bigint, ""},
		{"select * from app.users where name = $1", args{text("zoë", 0)}, name, "'zoë'"},
		{"select * from app.users where name = 'zoë'", nil, name, "'zoë'"},
		{"select * from app.devices where id = $1", args{text(uuid, 2950)}, []rib.Type{rib.TypeUUID}, uuid},
		{"select * from app.tiles where zoom = $1 and name = $2", args{text("7", 0), text("b", 0)}, []rib.Type{rib.TypeInt, rib.TypeText}, "7,b"},
		{"select * from app.tiles where zoom = 7 and name = 'b'", nil, []rib.Type{rib.TypeInt, rib.TypeText}, "7,b"},
		{"select * from app.tiles where zoom = 7 and name = $1", args{text("b", 0)}, []rib.Type{rib.TypeInt, rib.TypeText}, ""},
		{"select * from app.days where day = $1", args{text("7", 0)}, []rib.Type{rib.TypeInt}, ""}, // which says it itself
	} {
		var plan *Plan
		a := x.args
		if a == nil {
			k := &Constants{}
			plan = p.PlanQuery(c, appEnv, []byte(x.sql), k)
			a = k
		} else {
			plan = p.Plan(c, appEnv, x.sql)
		}
		if plan.Target != Keyed {
			t.Fatalf("%s: %s", x.sql, plan.Reason)
		}
		before := rib.Key("before")
		both, known := plan.AppendPlain(before, 0, a, true)
		if known != (x.want != "") || !strings.HasPrefix(string(both), "before") || !known && len(both) != len(before) {
			t.Errorf("%s: %q, known %v", x.sql, both, known)
			continue
		}
		if got := method.FormatKey(x.types, both[len(before):]); known && got != x.want {
			t.Errorf("%s: %s, want %s", x.sql, got, x.want)
		}
	}
}
