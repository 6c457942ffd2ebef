package rib_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// TestABoundAtTheLowestKey: a keyspace that has one, of an earlier version, can get rid of it.
func TestABoundAtTheLowestKey(t *testing.T) {
	m := method(t, "range")
	lowest, err := m.ParseBound([]rib.Type{rib.TypeBigint}, "-9223372036854775808")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ranges   []rib.Range
		in, want string
	}{
		{[]rib.Range{{To: lowest, Shard: "a"}, {From: lowest, Shard: "b"}}, "..-9223372036854775808", "..-9223372036854775808"},
		{[]rib.Range{{To: lowest, Shard: "a"}, {From: lowest, Shard: "b"}}, "-9223372036854775808..7", "-9223372036854775808..7"},
		{[]rib.Range{{To: lowest, Shard: "a"}, {From: lowest, Shard: "b"}}, "..7", "..7"},
		{[]rib.Range{{Shard: "a"}}, "-9223372036854775808..7", "..7"},
		{[]rib.Range{{Shard: "a"}}, "..-9223372036854775808", ""},
	} {
		ks := rib.Keyspace{Method: "range", Types: []rib.Type{rib.TypeBigint}, Ranges: c.ranges}
		from, to, err := ks.ParseInterval(c.in)
		if got := ks.FormatInterval(from, to); (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%q with %d ranges: %s, %v", c.in, len(c.ranges), got, err)
		}
	}
}

func TestBoundsAreBounded(t *testing.T) {
	m, err := rib.MethodByName("range")
	if err != nil {
		t.Fatal(err)
	}
	text := []rib.Type{rib.TypeText}
	most := strings.Repeat("x", rib.MaxBoundText)
	if _, _, err := rib.ParseInterval(m, text, "a.."+most); err != nil {
		t.Errorf("%.100v", err)
	}
	for _, s := range []string{"a..x" + most, most + "x..", most + most + most} {
		if _, _, err := rib.ParseInterval(m, text, s); !errors.Is(err, rib.ErrBound) || len(err.Error()) > 200 || !strings.Contains(err.Error(), "are the most") {
			t.Errorf("%d bytes: %.300v", len(s), err)
		}
	}
	if _, err := m.ParseBound(text, most+"x"); !errors.Is(err, rib.ErrBound) {
		t.Errorf("%.300v", err)
	}
	h, err := rib.MethodByName("hash")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ParseBound(text, most+"x"); !errors.Is(err, rib.ErrBound) || len(err.Error()) > 200 {
		t.Errorf("%.300v", err)
	}
}

func TestParseInterval(t *testing.T) {
	bigint, text, uuid := []rib.Type{rib.TypeBigint}, []rib.Type{rib.TypeText}, []rib.Type{rib.TypeUUID}
	for _, c := range []struct {
		method string
		types  []rib.Type
		in     string
		want   string // as FormatInterval writes it; or part of the error
		ok     bool
	}{
		{"range", bigint, "1000-2000", "1000..2000", true},
		{"range", bigint, "1000..2000", "1000..2000", true},
		{"range", bigint, "..1000", "..1000", true},
		{"range", bigint, "1000..", "1000..", true},
		{"range", bigint, "..", "..", true},
		{"range", bigint, "-5..10", "-5..10", true},
		{"range", bigint, "-20..-10", "-20..-10", true},
		{"range", bigint, " 7 .. 9 ", "7..9", true},
		{"range", bigint, "-5", "an interval is FROM..TO", false},
		{"range", bigint, "5", "an interval is FROM..TO", false},
		{"range", bigint, "1-2-3", "an interval is FROM..TO", false},
		{"range", bigint, "", "an interval is FROM..TO", false},
		{"range", bigint, "2000-1000", "it holds no key", false},
		{"range", bigint, "7..7", "it holds no key", false},
		{"range", bigint, "a..b", "invalid input syntax for type bigint", false},
		{"range", bigint, "1..99999999999999999999", "does not fit type bigint", false},
		{"range", bigint, "1,2..3", "invalid input syntax", false},
		{"range", text, "a-m", "a..m", true},
		{"range", text, "a b..m", "'a b'..m", true},
		{"range", text, "'it''s'..'..'", "", false}, // '..' sorts before 'it''s'
		{"range", text, "'..'..'it''s'", "'..'..'it''s'", true},
		{"range", text, "''..m", "..m", true},
		{"range", text, "'a..m", "an interval is FROM..TO", false},
		{"range", text, "x..'a'b", "text after a closing quote", false},
		{"range", uuid, "40000000-0000-0000-0000-000000000000..", "40000000-0000-0000-0000-000000000000..", true},
		{"range", uuid, "40000000000000000000000000000000-80000000000000000000000000000000", "40000000-0000-0000-0000-000000000000..80000000-0000-0000-0000-000000000000", true},
		{"hash", bigint, "0x4000000000000000..0x8000000000000000", "0x4000000000000000..0x8000000000000000", true},
		{"hash", bigint, " 0x4000000000000000 - 0xABCDEF0000000000 ", "0x4000000000000000..0xabcdef0000000000", true},
		{"hash", bigint, "0x0000000000000000..", "..", true},
		{"hash", bigint, "..0x0000000000000000", "there is none below 0x0000000000000000", false},
		{"hash", bigint, "..0x0000000000000001", "..0x0000000000000001", true},
		{"range", bigint, "..-9223372036854775808", "there is none below -9223372036854775808", false},
		{"range", bigint, "-9223372036854775808..7", "..7", true},
		{"range", bigint, "..-9223372036854775807", "..-9223372036854775807", true},
		{"range", []rib.Type{rib.TypeInt}, "..-2147483648", "there is none below", false},
		{"range", []rib.Type{rib.TypeSmallint}, "..-32768", "there is none below", false},
		{"range", []rib.Type{rib.TypeSmallint}, "..-32767", "..-32767", true},
		{"range", []rib.Type{rib.TypeTimestamptz}, "..-infinity", "there is none below", false},
		{"range", []rib.Type{rib.TypeDate}, "-infinity..infinity", "..infinity", true},
		{"range", text, "..''", "there is none below", false},
		{"range", []rib.Type{rib.TypeBytea}, `..'\x'`, "there is none below", false},
		{"range", []rib.Type{rib.TypeBytea}, `..\x00`, `..\x00`, true},
		{"range", uuid, "..00000000-0000-0000-0000-000000000000", "there is none below", false},
		{"range", uuid, "..00000000-0000-0000-0000-000000000001", "..00000000-0000-0000-0000-000000000001", true},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "..''", "there is none below", false},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "..'',5", "..'',5", true},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "..'',-2147483648", "there is none below", false},
		{"hash", text, "1000-2000", "of positions, not of keys", false},
		{"hash", text, "1000..", "of positions, not of keys", false},
		{"hash", bigint, "4611686018427387904..", "0x and 16 digits", false},
		{"hash", bigint, "0x40..0x80", "0x and 16 digits", false},
		{"hash", bigint, "0..", "0x and 16 digits", false},
		{"hash", bigint, "4000000000000000..", "0x and 16 digits", false},
		{"hash", bigint, "0x4_00000000000000..", "0x and 16 digits", false},
		{"hash", bigint, "0x+400000000000000..", "0x and 16 digits", false},
		{"hash", bigint, "0x40000000000000000..", "0x and 16 digits", false},
		{"hash", bigint, "0x8000000000000000..0x4000000000000000", "it holds no key", false},
		{"hash", text, "..0xffffffffffffffff", "..0xffffffffffffffff", true},
		{"hash", text, "-1..", "0x and 16 digits", false},
		{"hash", text, "1..18446744073709551616", "0x and 16 digits", false},
		{"hash", text, "1,2..", "0x and 16 digits", false},
		{"range", []rib.Type{rib.TypeBigint, rib.TypeText}, "1,b..2", "1,b..2", true},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "'a,b',1..c,2", "'a,b',1..c,2", true},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "a,1,2..b", "3 values for a key of 2 columns", false},
		{"hash", []rib.Type{rib.TypeText, rib.TypeInt}, "0x0000000000000001..0x0000000000000002", "0x0000000000000001..0x0000000000000002", true},
	} {
		m := method(t, c.method)
		from, to, err := rib.ParseInterval(m, c.types, c.in)
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, rib.ErrBound) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %q: error %v, want %q", c.method, c.in, err, c.want)
		} else if got := rib.FormatInterval(m, c.types, from, to); err == nil && got != c.want {
			t.Errorf("%s %q is read as %s, want %s", c.method, c.in, got, c.want)
		}
	}
}

// integers makes a valid keyspace of the range method with these inner bounds.
func integers(t *testing.T, bounds ...string) *rib.Keyspace {
	k := &rib.Keyspace{
		ID: 1, Name: "app.orders", Database: "app", Method: "range", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}},
		Ranges: []rib.Range{{Shard: "shard_1"}},
	}
	for i, b := range bounds {
		bound, err := method(t, "range").ParseBound(k.Types, b)
		check(t, err)
		k.Ranges[i].To = bound
		k.Ranges = append(k.Ranges, rib.Range{From: bound, Shard: fmt.Sprintf("shard_%d", i%3+1)})
	}
	return k
}

func TestValidate(t *testing.T) {
	if err := integers(t, "1000", "2000").Validate(); err != nil {
		t.Fatal(err)
	}
	bound := func(s string) rib.Key { return keyOf(t, method(t, "range"), []rib.Type{rib.TypeBigint}, s) }
	for _, c := range []struct {
		change func(*rib.Keyspace)
		want   string
	}{
		{func(k *rib.Keyspace) { k.Name = "" }, "no name"},
		{func(k *rib.Keyspace) { k.Method = "murmur" }, `unknown sharding method "murmur"`},
		{func(k *rib.Keyspace) { k.Types = nil }, "its key has 0 columns"},
		{func(k *rib.Keyspace) { k.Types[0] = 77 }, "unsupported key type"},
		{func(k *rib.Keyspace) { k.Tables[0].Name = "" }, "a table wants a schema and a name"},
		{func(k *rib.Keyspace) { k.Tables = append(k.Tables, k.Tables[0]) }, "table public.orders is listed twice"},
		{func(k *rib.Keyspace) { k.Tables[0].Columns = nil }, "has 0 key columns, the key has 1"},
		{func(k *rib.Keyspace) { k.Tables[0].Columns = []string{""} }, "column 1 of table public.orders has no name"},
		{func(k *rib.Keyspace) { k.Ranges = nil }, "no ranges"},
		{func(k *rib.Keyspace) { k.Ranges[1].Shard = "" }, "range [1000..2000) of  has no shard"},
		{func(k *rib.Keyspace) { k.Ranges[0].From = bound("5") }, "first range [5..1000) of shard_1 leaves a gap before it"},
		{func(k *rib.Keyspace) { k.Ranges[2].To = bound("5000") }, "last range [2000..5000) of shard_2 leaves a gap behind it"},
		{func(k *rib.Keyspace) { k.Ranges[1].From = bound("900") }, "ranges [..1000) of shard_1 and [900..2000) of shard_1 overlap"},
		{func(k *rib.Keyspace) { k.Ranges[1].From = bound("1100") }, "ranges [..1000) of shard_1 and [1100..2000) of shard_1 leave a gap"},
		{func(k *rib.Keyspace) { k.Ranges[1].To = nil }, "ranges [1000..) of shard_1 and [2000..) of shard_2 overlap"},
		{func(k *rib.Keyspace) { slices.Reverse(k.Ranges) }, "leaves a gap"},
		{func(k *rib.Keyspace) {
			k.Ranges[0].To, k.Ranges[1].From = bound("2000"), bound("2000")
		}, "range [2000..2000) of shard_1 holds no key"},
		{func(k *rib.Keyspace) {
			k.Ranges[0].To, k.Ranges[1].From = rib.Key("abc"), rib.Key("abc")
		}, "invalid range bound 616263"},
	} {
		k := integers(t, "1000", "2000")
		c.change(k)
		if err := k.Validate(); err == nil || !errors.Is(err, rib.ErrKeyspace) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

// An even split covers every position once, and no share is larger than another by more than rounding.
func TestEvenRanges(t *testing.T) {
	for n := 1; n <= 1000; n += n/3 + 1 {
		var shards []string
		for i := range n {
			shards = append(shards, fmt.Sprintf("shard_%d", i))
		}
		k := integers(t)
		k.Method, k.Ranges = "hash", rib.EvenRanges(shards)
		if err := k.Validate(); err != nil || len(k.Ranges) != n {
			t.Fatalf("%d ranges for %d shards: %v", len(k.Ranges), n, err)
		}
	}
	got := rib.EvenRanges([]string{"a", "b", "c"})
	if a, b := fmt.Sprintf("%x", []byte(got[1].From)), fmt.Sprintf("%x", []byte(got[2].From)); a != "5555555555555555" || b != "aaaaaaaaaaaaaaaa" {
		t.Errorf("thirds begin at %s and %s", a, b)
	}
}

// The owner is the range that holds the key, by the definition of a range.
func TestOwner(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		bounds := rapid.SliceOfNDistinct(rapid.Int64Range(-50, 50), 0, 20, rapid.ID).Draw(r, "bounds")
		slices.Sort(bounds)
		var text []string
		for _, b := range bounds {
			text = append(text, fmt.Sprint(b))
		}
		k := integers(t, text...)
		key := keyOf(t, method(t, "range"), k.Types, fmt.Sprint(rapid.Int64Range(-60, 60).Draw(r, "key")))
		owner := k.Ranges[k.Owner(key)]
		if key.Compare(owner.From) < 0 || len(owner.To) > 0 && key.Compare(owner.To) >= 0 {
			r.Fatalf("%x is not in [%x, %x)", key, owner.From, owner.To)
		}
	})
}
