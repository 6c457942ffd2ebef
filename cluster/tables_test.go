package cluster

import (
	"errors"
	"testing"

	"rangefinder/rib"
)

// Tables are added to a keyspace, and keyspaces dropped, in the log: each once, and what does not fit is refused.
func TestTablesAndDrop(t *testing.T) {
	s := newStory(t)
	before := s.st.now.table()
	with, added, err := (&TablesSpec{Keyspace: "app.orders", Tables: []TableSpec{{"public", "lines", []string{"customer"}}}}).With(before)
	if err != nil || len(added.Tables) != 1 || added.Tables[0].Name != "lines" || len(with.Tables) != len(before.KeyspaceByName("app.orders").Tables)+1 {
		t.Fatalf("%+v %+v %v", with, added, err)
	}
	add := func(request, keyspace, table string, columns ...string) result {
		return s.do(&command{Kind: kindTables, Request: request, Tables: &tablesCommand{keyspace, []TableSpec{{"public", table, columns}}}, By: &signature{Author: "ann"}})
	}
	r := add("r1", "app.orders", "lines", "customer")
	if r.err != nil || r.keyspace == nil || s.st.now.table().Catalog != before.Catalog+1 || len(before.KeyspaceByName("app.orders").Tables) != len(r.keyspace.Tables)-1 {
		t.Fatalf("%+v", r)
	}
	if again := add("r1", "app.orders", "lines", "customer"); again.err != nil || again.changed || again.epoch != r.epoch {
		t.Fatalf("%+v", again)
	}
	for _, one := range []struct {
		result result
		want   error
	}{
		{add("", "app.orders", "lines", "customer"), ErrTableTaken},
		{add("", "app.orders", "more"), ErrInvalid},
		{add("", "nosuch", "more", "customer"), ErrNoKeyspace},
		{s.do(&command{Kind: kindTables, Tables: &tablesCommand{Keyspace: "app.orders"}}), ErrInvalid},
		{s.do(&command{Kind: kindDrop, Tables: &tablesCommand{Keyspace: "nosuch"}}), ErrNoKeyspace},
	} {
		if !errors.Is(one.result.err, one.want) {
			t.Errorf("%v, want %v", one.result.err, one.want)
		}
	}
	m := s.start("app.orders", "100..200", "", "shard_3")
	if m.err != nil {
		t.Fatal(m.err)
	}
	for _, r := range []result{add("", "app.orders", "more", "customer"), s.do(&command{Kind: kindDrop, Tables: &tablesCommand{Keyspace: "app.orders"}})} {
		if !errors.Is(r.err, ErrMoving) {
			t.Errorf("during a move: %v", r.err)
		}
	}
	if r := s.abort(m.move.ID); r.err != nil {
		t.Fatal(r.err)
	}
	if r := s.do(&command{Kind: kindMoveFinish, Move: &moveCommand{ID: m.move.ID}}); r.err != nil {
		t.Fatal(r.err)
	}
	n := len(s.st.now.table().Keyspaces)
	if r := s.do(&command{Kind: kindDrop, Request: "d", Tables: &tablesCommand{Keyspace: "app.orders"}, By: &signature{Reason: "over"}}); r.err != nil || len(s.st.now.table().Keyspaces) != n-1 || s.st.now.table().KeyspaceByName("app.orders") != nil {
		t.Fatalf("%+v", r)
	}
	last := s.st.history.list[len(s.st.history.list)-1]
	if last.Kind != kindDrop || last.Keyspace != "app.orders" || last.Reason != "over" {
		t.Errorf("%+v", last)
	}
	if r := s.do(&command{Kind: kindDrop, Request: "d", Tables: &tablesCommand{Keyspace: "app.orders"}, By: &signature{Reason: "over"}}); r.err != nil || r.changed {
		t.Errorf("again: %+v", r)
	}
}

// Two keyspaces by schema cannot list one schema.
func TestSchemaListedTwice(t *testing.T) {
	spec := func(name, others string, values ...ValueSpec) *rib.Keyspace {
		t.Helper()
		ks, err := (&KeyspaceSpec{Name: name, Database: "app", Method: rib.MethodSchema, Types: []string{"text"}, Values: values, Default: others}).Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{*spec("a", "s1", ValueSpec{"t1", "s1"}, ValueSpec{"t2", "s2"})}}
	if err := listedElsewhere(o, spec("b", "", ValueSpec{"t3", "s1"})); err != nil {
		t.Error(err)
	}
	if err := listedElsewhere(o, spec("b", "", ValueSpec{"t3", "s1"}, ValueSpec{"t2", "s1"})); !errors.Is(err, ErrValueTaken) {
		t.Error(err)
	}
	if err := listedElsewhere(o, spec("b", "s2", ValueSpec{"t3", "s1"})); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
