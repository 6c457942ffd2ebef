package cluster

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"rangefinder/rib"
)

func rangeSpec(ranges ...RangeSpec) KeyspaceSpec {
	return KeyspaceSpec{Name: "app.events", Database: "app", Method: "range", Types: []string{"bigint"},
		Tables: []TableSpec{{Schema: "public", Name: "events", Columns: []string{"id"}}}, Ranges: ranges}
}

func TestSpecMakesRanges(t *testing.T) {
	describe := func(spec KeyspaceSpec) string {
		t.Helper()
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		m, _ := rib.MethodByName(ks.Method)
		var parts []string
		for _, r := range ks.Ranges {
			parts = append(parts, rib.FormatInterval(m, ks.Types, r.From, r.To)+" "+r.Shard)
		}
		return strings.Join(parts, ", ")
	}
	splits := rangeSpec()
	splits.Shards, splits.Splits = []string{"a", "b", "a"}, []string{"-5", "10"}
	one := rangeSpec()
	one.Shards = []string{"a"}
	explicitHash := hashSpec("app.orders", "orders")
	explicitHash.Ranges = []RangeSpec{{"..0x8000000000000000", "a"}, {"0x8000000000000000..", "b"}}
	for _, c := range []struct {
		spec KeyspaceSpec
		want string
	}{
		{rangeSpec(RangeSpec{"2000..", "c"}, RangeSpec{"..1000", "a"}, RangeSpec{"1000-2000", "b"}), "..1000 a, 1000..2000 b, 2000.. c"},
		{splits, "..-5 a, -5..10 b, 10.. a"},
		{one, ".. a"},
		{hashSpec("app.orders", "orders", "a", "b"), "..0x8000000000000000 a, 0x8000000000000000.. b"},
		{explicitHash, "..0x8000000000000000 a, 0x8000000000000000.. b"},
	} {
		if got := describe(c.spec); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestSpecSaysWhatToFix: every mistake is refused with a text that names it.
func TestSpecSaysWhatToFix(t *testing.T) {
	change := func(f func(*KeyspaceSpec)) KeyspaceSpec {
		s := hashSpec("app.orders", "orders", "shard_1", "shard_2")
		f(&s)
		return s
	}
	for _, c := range []struct {
		spec KeyspaceSpec
		want string
	}{
		{rangeSpec(RangeSpec{"..1500", "a"}, RangeSpec{"1000..", "b"}), `ranges "..1500" (a) and "1000.." (b) overlap`},
		{rangeSpec(RangeSpec{"..", "a"}, RangeSpec{"1000..", "b"}), `ranges ".." (a) and "1000.." (b) overlap`},
		{rangeSpec(RangeSpec{"..1000", "a"}, RangeSpec{"..1000", "b"}), "overlap"},
		{rangeSpec(RangeSpec{"..1000", "a"}, RangeSpec{"2000..", "b"}), `no range holds the keys from 1000 to 2000, between "..1000" and "2000.."`},
		{rangeSpec(RangeSpec{"5..", "a"}), "no range holds the keys before 5"},
		{rangeSpec(RangeSpec{"..5", "a"}), "no range holds the keys from 5 on"},
		{rangeSpec(RangeSpec{"9..5", "a"}), "ends at or before its start"},
		{rangeSpec(RangeSpec{"x..5", "a"}), `range "x..5"`},
		{rangeSpec(), "who owns the keys is missing"},
		{change(func(s *KeyspaceSpec) { s.Method = "range" }), "give splits (1 of them"},
		{change(func(s *KeyspaceSpec) { s.Method, s.Splits = "range", []string{"1", "2"} }), "2 shards need 1 splits"},
		{change(func(s *KeyspaceSpec) {
			s.Method, s.Splits = "range", []string{"7", "7"}
			s.Shards = append(s.Shards, "c")
		}), "splits must rise"},
		{change(func(s *KeyspaceSpec) { s.Method, s.Splits = "range", []string{"seven"} }), `split "seven"`},
		{change(func(s *KeyspaceSpec) { s.Method, s.Splits = "range", []string{""} }), "a split is empty"},
		{change(func(s *KeyspaceSpec) { s.Method = "murmur" }), "the methods are hash, range, list, reference and schema"},
		{change(func(s *KeyspaceSpec) { s.Types = []string{"money"} }), "the types are bigint, int, smallint, text, varchar, uuid, bytea, date and timestamptz"},
		{change(func(s *KeyspaceSpec) { s.Types = nil; s.Tables[0].Columns = nil }), "types is empty"},
		{change(func(s *KeyspaceSpec) { s.Types = []string{"int", "int"} }), "must match one to one"},
		{change(func(s *KeyspaceSpec) { s.Name = "" }), "name is missing"},
		{change(func(s *KeyspaceSpec) { s.Name = "a\x00b" }), "cannot be printed"},
		{change(func(s *KeyspaceSpec) { s.Name = strings.Repeat("n", 200) }), "longer than 128 bytes"},
		{change(func(s *KeyspaceSpec) { s.Database = "" }), "the database is missing"},
		{change(func(s *KeyspaceSpec) { s.Tables = nil }), "tables is empty"},
		{change(func(s *KeyspaceSpec) { s.Tables = append(s.Tables, s.Tables[0]) }), "table public.orders is named twice"},
		{change(func(s *KeyspaceSpec) { s.Shards = []string{"a", "a"} }), "shard a is named twice"},
		{change(func(s *KeyspaceSpec) { s.Shards = []string{""} }), "shard's name is missing"},
		{change(func(s *KeyspaceSpec) { s.Ranges = []RangeSpec{{"..", "a"}} }), "not both"},
		{change(func(s *KeyspaceSpec) { s.RequestID = strings.Repeat("r", 200) }), "request_id is longer"},
		{change(func(s *KeyspaceSpec) { s.Shards, s.Ranges = nil, make([]RangeSpec, MaxRanges+1) }), "more than 10000 ranges"},
	} {
		_, err := c.spec.Keyspace()
		var rejected *RejectedError
		if !errors.As(err, &rejected) || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
}

func TestSpecIsTheAPIsBody(t *testing.T) {
	body := `{"name":"app.orders","database":"app","method":"hash","types":["bigint"],
		"tables":[{"schema":"public","name":"orders","columns":["customer_id"]}],"shards":["shard_1","shard_2"],"request_id":"r"}`
	var spec KeyspaceSpec
	if err := json.Unmarshal([]byte(body), &spec); err != nil {
		t.Fatal(err)
	}
	ks, err := spec.Keyspace()
	if err != nil || len(ks.Ranges) != 2 || ks.Tables[0].Columns[0] != "customer_id" || spec.RequestID != "r" {
		t.Fatalf("%+v, %v", ks, err)
	}
}
