package cluster

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"rangefinder/rib"
)

func listSpec(name, table, others string, values ...ValueSpec) KeyspaceSpec {
	return KeyspaceSpec{Name: name, Database: "app", Method: "list", Types: []string{"text"}, Default: others, Values: values,
		Tables: []TableSpec{{Schema: "public", Name: table, Columns: []string{"country"}}}}
}

// ownerOf is the shard that a keyspace gives a text.
func ownerOf(t *testing.T, ks *rib.Keyspace, text string) string {
	t.Helper()
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		t.Fatal(err)
	}
	key, err := m.AppendKey(nil, rib.Value{Type: rib.TypeText, Bytes: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return ks.Ranges[ks.Owner(key)].Shard
}

func TestListsAreMadeAndGrow(t *testing.T) {
	m := newMachine(t, "a", "b")
	made := m.must(m.create(listSpec("k", "orders", "", ValueSpec{"de", "a"}, ValueSpec{"'it''s, so'", "b"})))
	before := m.st.now.table()
	if ownerOf(t, made.keyspace, "de") != "a" || ownerOf(t, made.keyspace, "it's, so") != "b" || ownerOf(t, made.keyspace, "fr") != "" {
		t.Fatalf("%+v", made.keyspace.Ranges)
	}
	add := func(request string, values ...valueAndKey) result {
		return m.do(&command{Kind: kindValues, Request: request, Values: &valuesCommand{Keyspace: "k", Values: values}})
	}
	fr, us := valueAndKey{[]byte("fr\x00"), "b"}, valueAndKey{[]byte("us\x00"), "a"}
	first := m.must(add("r1", fr, us))
	if ownerOf(t, first.keyspace, "fr") != "b" || ownerOf(t, first.keyspace, "us") != "a" || ownerOf(t, first.keyspace, "de") != "a" || ownerOf(t, first.keyspace, "uk") != "" {
		t.Errorf("%+v", first.keyspace.Ranges)
	}
	if first.epoch == made.epoch || first.keyspace.ID != made.keyspace.ID || len(before.Keyspaces[0].Ranges) != 5 {
		t.Errorf("epoch %v, id %d; the table of before has %d ranges", first.epoch, first.keyspace.ID, len(before.Keyspaces[0].Ranges))
	}
	for _, r := range first.keyspace.Ranges {
		if want := map[bool]rib.Epoch{true: first.epoch, false: made.epoch}[string(r.From) == "fr\x00" || string(r.From) == "us\x00"]; r.Epoch != want {
			t.Errorf("range %q has epoch %v, want %v", r.From, r.Epoch, want)
		}
	}
	own := m.st.now.table()
	if again := m.must(add("r1", fr, us)); again.epoch != first.epoch || again.keyspace.ID != first.keyspace.ID || m.st.now.table() != own {
		t.Errorf("the same request again: %+v", again)
	}
	for name, c := range map[string]struct {
		r      result
		reason error
		text   string
	}{
		"listed":   {add("r2", valueAndKey{[]byte("nl\x00"), "a"}, fr), ErrValueTaken, "value fr belongs to shard b already"},
		"twice":    {add("r3", valueAndKey{[]byte("nl\x00"), "a"}, valueAndKey{[]byte("nl\x00"), "b"}), ErrValueTaken, "value nl belongs to shard a already"},
		"unknown":  {add("r4", valueAndKey{[]byte("nl\x00"), "c"}), ErrUnknownShard, "shard c"},
		"no key":   {add("r5", valueAndKey{[]byte("nl"), "a"}), ErrInvalid, "a text without its end"},
		"no list":  {m.do(&command{Kind: kindValues, Values: &valuesCommand{Keyspace: "nope"}}), ErrNoKeyspace, "no keyspace named nope"},
		"conflict": {m.do(&command{Kind: kindValues, Request: "r1", Values: &valuesCommand{Keyspace: "k", Values: []valueAndKey{us}}}), ErrRequestReused, "r1"},
	} {
		if !errors.Is(c.r.err, c.reason) || !strings.Contains(c.r.err.Error(), c.text) {
			t.Errorf("%s: %v", name, c.r.err)
		}
	}
	if m.st.now.table() != own {
		t.Error("what was refused has changed the table")
	}
	m.must(m.create(listSpec("rest", "rest", "b", ValueSpec{"de", "a"})))
	nl := func(shard string) result {
		return m.do(&command{Kind: kindValues, Request: "rest " + shard, Values: &valuesCommand{Keyspace: "rest", Values: []valueAndKey{{[]byte("nl\x00"), shard}}}})
	}
	if r := nl("a"); !errors.Is(r.err, ErrValueTaken) || !strings.Contains(r.err.Error(), "belongs to the default shard b already") {
		t.Errorf("a value that would leave the default shard: %v", r.err)
	}
	if r := m.must(nl("b")); ownerOf(t, r.keyspace, "nl") != "b" {
		t.Errorf("%+v", r.keyspace.Ranges)
	}
	m.must(m.create(hashSpec("hashed", "other", "a", "b")))
	if r := m.do(&command{Kind: kindValues, Values: &valuesCommand{Keyspace: "hashed"}}); !errors.Is(r.err, ErrInvalid) || !strings.Contains(r.err.Error(), "shards by hash") {
		t.Errorf("values for a hash: %v", r.err)
	}
	b, err := m.st.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeState(b)
	if err != nil || !reflect.DeepEqual(back.now.table(), m.st.now.table()) {
		t.Errorf("a snapshot gives back %+v, %v", back.now.table(), err)
	}
}

func TestListSpecifications(t *testing.T) {
	change := func(f func(*KeyspaceSpec)) KeyspaceSpec {
		s := listSpec("k", "t", "b", ValueSpec{"de", "a"})
		f(&s)
		return s
	}
	for _, c := range []struct {
		spec KeyspaceSpec
		want string
	}{
		{change(func(s *KeyspaceSpec) { s.Values, s.Default = nil, "" }), "who owns the keys is missing"},
		{change(func(s *KeyspaceSpec) { s.Shards = []string{"a"} }), "method list takes values and a default"},
		{change(func(s *KeyspaceSpec) { s.Ranges = []RangeSpec{{"..", "a"}} }), "method list takes values and a default"},
		{change(func(s *KeyspaceSpec) { s.Method = "range" }), "values and a default are for the methods list and schema, not for method range"},
		{change(func(s *KeyspaceSpec) { s.Values = append(s.Values, ValueSpec{"de", "b"}) }), "value de belongs to shard a already"},
		{change(func(s *KeyspaceSpec) { s.Values[0].Shard = "" }), `the shard of value "de" is missing`},
		{change(func(s *KeyspaceSpec) { s.Values[0].Value = "" }), "write '' for the empty text"},
		{change(func(s *KeyspaceSpec) { s.Types = []string{"int"} }), `value "de": invalid range bound`},
		{change(func(s *KeyspaceSpec) { s.Values = make([]ValueSpec, MaxRanges+1) }), "more than 10000 values"},
	} {
		if _, err := c.spec.Keyspace(); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrValueTaken) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
	for _, s := range []KeyspaceSpec{change(func(s *KeyspaceSpec) { s.Values = nil }), change(func(s *KeyspaceSpec) { s.Values[0].Value = "''" })} {
		if ks, err := s.Keyspace(); err != nil || ownerOf(t, ks, "elsewhere") != "b" {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestCheckOfLists(t *testing.T) {
	f := newFarm(t)
	f.everywhere(t, "CREATE TABLE orders (country text, n int)")
	f.exec(t, "shard_1", "INSERT INTO orders VALUES ('de', 1), ('de', 2)")
	f.exec(t, "shard_2", "INSERT INTO orders VALUES ('fr', 1), ('xx', 1), ('yy', 1), (NULL, 1)")
	spec := listSpec("app.orders", "orders", "", ValueSpec{"de", "shard_1"}, ValueSpec{"fr", "shard_2"})
	err := f.check(t, spec)
	for _, want := range []string{"on shard_2", "2 rows have a value in the key that is not listed", "1 row has NULL in the key"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	spec.Default = "shard_3"
	if err := f.check(t, spec); err == nil || !strings.Contains(err.Error(), "2 of its rows would belong to another shard (2 to shard_3)") {
		t.Errorf("rows of the default: %v", err)
	}
	f.exec(t, "shard_2", "DELETE FROM orders WHERE country <> 'fr' OR country IS NULL")
	f.exec(t, "shard_3", "INSERT INTO orders VALUES ('xx', 1), ('yy', 1)")
	if err := f.check(t, spec); err != nil {
		t.Errorf("all rows are where they belong: %v", err)
	}
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	owned := &rib.Ownership{Keyspaces: []rib.Keyspace{*ks}}
	add := ValuesSpec{Keyspace: ks.Name, Values: []ValueSpec{{"xx", "shard_3"}, {"zz", "shard_1"}}}
	if _, err := add.With(owned); !errors.Is(err, ErrValueTaken) || !strings.Contains(err.Error(), "value zz belongs to the default shard shard_3 already") {
		t.Errorf("a value that would leave the default shard: %v", err)
	}
	add.Values[1].Shard = "shard_3"
	with, err := add.With(owned)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckKeyspace(t.Context(), with, f.primary); err != nil {
		t.Errorf("values that stay where they are: %v", err)
	}
}
