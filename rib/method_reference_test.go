package rib_test

import (
	"reflect"
	"strings"
	"testing"

	"rangefinder/rib"
)

// A reference keyspace has a copy on each shard, and nothing else.
func TestReferenceKeyspaces(t *testing.T) {
	of := func(shards ...string) *rib.Keyspace {
		return &rib.Keyspace{Name: "k", Database: "d", Method: rib.MethodReference, Ranges: rib.ReferenceRanges(shards),
			Tables: []rib.KeyedTable{{Schema: "public", Name: "countries"}, {Schema: "public", Name: "rates", Columns: []string{"id"}}}}
	}
	k := of("shard_2", "shard_1", "shard_3")
	if err := k.Validate(); err != nil || !k.Reference() {
		t.Fatalf("%v, %v", err, k.Reference())
	}
	if got, want := k.Shards(), []string{"shard_1", "shard_2", "shard_3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("shards %v, want %v", got, want)
	}
	m, err := rib.MethodByName(k.Method)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.FormatKey(nil, k.Ranges[2].From); got != "copy 3" {
		t.Errorf("the third range begins at %q", got)
	}
	if _, err := m.AppendKey(nil, rib.Value{Type: rib.TypeInt, Int: 1}); err == nil {
		t.Error("a key of a table that has none")
	}
	for want, wrong := range map[string]func(k *rib.Keyspace){
		"one copy on each shard":       func(k *rib.Keyspace) { k.Ranges = rib.ReferenceRanges([]string{"shard_1", "shard_1"}) },
		"reference tables have no key": func(k *rib.Keyspace) { k.Types = []rib.Type{rib.TypeInt} },
		"has no ranges":                func(k *rib.Keyspace) { k.Ranges = nil },
		"has no shard":                 func(k *rib.Keyspace) { k.Ranges[1].Shard = "" },
		"listed twice":                 func(k *rib.Keyspace) { k.Tables[1].Columns = []string{"id", "id"} },
		"4 bytes":                      func(k *rib.Keyspace) { k.Ranges[1].From = rib.Key{1}; k.Ranges[0].To = rib.Key{1} },
	} {
		k := of("shard_1", "shard_2", "shard_3")
		if wrong(k); k.Validate() == nil || !strings.Contains(k.Validate().Error(), want) {
			t.Errorf("%s: %v", want, k.Validate())
		}
	}
}
