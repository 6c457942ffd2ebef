package cluster

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"rangefinder/rib"
)

func referenceSpec(tables ...string) KeyspaceSpec {
	s := KeyspaceSpec{Name: "app." + tables[0], Database: "app", Method: rib.MethodReference, Shards: []string{"shard_1", "shard_2", "shard_3"}}
	for _, t := range tables {
		s.Tables = append(s.Tables, TableSpec{Schema: "public", Name: t})
	}
	return s
}

// What is to be whole on every shard must be there, alike and with the same rows.
func TestCheckReference(t *testing.T) {
	f := newFarm(t)
	f.everywhere(t, "CREATE TABLE countries (code text PRIMARY KEY, name varchar(20) DEFAULT 'none', at timestamptz, price numeric DEFAULT 1 + 1)")
	f.everywhere(t, "INSERT INTO countries VALUES ('de', 'Germany', '2024-01-01 12:00+01', 1.5), ('fr', 'France', NULL, NULL)")
	if err := f.check(t, referenceSpec("countries")); err != nil {
		t.Fatalf("all alike: %v", err)
	}
	// The rows count, not where they lie, nor what the servers' settings make of them.
	f.exec(t, "shard_2", "DELETE FROM countries", "INSERT INTO countries VALUES ('fr', 'France', NULL, NULL), ('de', 'Germany', '2024-01-01 12:00+01', 1.5)",
		"ALTER DATABASE app SET timezone = 'Asia/Tokyo'", "ALTER DATABASE app SET datestyle = 'German'")
	if err := f.check(t, referenceSpec("countries")); err != nil {
		t.Fatalf("in another order: %v", err)
	}
	f.exec(t, "shard_3", "UPDATE countries SET price = 1.50 WHERE code = 'de'")
	obstacle(t, f.check(t, referenceSpec("countries")), "its rows differ from those on shard_1")
	f.exec(t, "shard_3", "DELETE FROM countries WHERE code = 'de'")
	obstacle(t, f.check(t, referenceSpec("countries")), "it has 1 rows, and on shard_1 it has 2")
	f.exec(t, "shard_3", "DROP TABLE countries", "CREATE TABLE countries (code text PRIMARY KEY, name varchar(30))")
	obstacle(t, f.check(t, referenceSpec("countries")), "there it has name character varying(20) DEFAULT 'none'::character varying, here name character varying(30)")
	f.exec(t, "shard_3", "DROP TABLE countries")
	obstacle(t, f.check(t, referenceSpec("countries")), "it does not exist")

	// Defaults that a server computes for itself.
	f.everywhere(t, `CREATE TABLE made (a serial, b bigint GENERATED ALWAYS AS IDENTITY, c timestamptz DEFAULT now(), d date DEFAULT CURRENT_DATE,
		e text DEFAULT lower('X') || 'y', f uuid DEFAULT gen_random_uuid(), "G" text DEFAULT to_char(1, '9'), h int GENERATED ALWAYS AS (a + 1) STORED, i text)`)
	spec := referenceSpec("made")
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckKeyspace(t.Context(), ks, f.primary); err != nil {
		t.Fatal(err)
	}
	if got, want := ks.Tables[0].Columns, []string{"a", "b", "c", "d", "f", "G"}; !reflect.DeepEqual(got, want) {
		t.Errorf("columns that must be given: %v, want %v", got, want)
	}
}

func obstacle(t *testing.T, err error, want string) {
	t.Helper()
	var found *CheckError
	if !errors.As(err, &found) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// The ledger takes reference keyspaces, by a command that older nodes know that they do not know.
func TestReferenceSpec(t *testing.T) {
	spec := referenceSpec("countries", "rates")
	spec.Tables[1].Columns = []string{"id"}
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	if kind := keyspaceKind(ks); kind != kindKeyspace3 {
		t.Errorf("kind %s", kind)
	}
	b, err := encodeKeyspace(ks)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeKeyspace(bytes.Clone(b))
	if err != nil || !reflect.DeepEqual(back, ks) {
		t.Errorf("%v: %+v, want %+v", err, back, ks)
	}
	for want, wrong := range map[string]func(*KeyspaceSpec){
		"named twice":                  func(s *KeyspaceSpec) { s.Shards[1] = "shard_1" },
		"who owns the keys":            func(s *KeyspaceSpec) { s.Shards = nil },
		"takes shards":                 func(s *KeyspaceSpec) { s.Default = "shard_1" },
		"reference tables have no key": func(s *KeyspaceSpec) { s.Types = []string{"int"} },
	} {
		s := referenceSpec("countries")
		wrong(&s)
		if _, err := s.Keyspace(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
