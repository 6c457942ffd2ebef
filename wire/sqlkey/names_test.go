package sqlkey

import (
	"slices"
	"testing"

	"rangefinder/rib"
)

func TestParsePath(t *testing.T) {
	for _, x := range []struct {
		raw      string
		want     []string
		builtins bool
		bad      bool
	}{
		{"", []string{"bob", "public"}, true, false},
		{`"$user", public`, []string{"bob", "public"}, true, false},
		{`$user,PUBLIC`, []string{"bob", "public"}, true, false},
		{` app ,  "My ""Schema""" , x.y `, []string{"app", `My "Schema"`, "x.y"}, true, false},
		{`""`, nil, true, false},
		{`" "`, []string{" "}, true, false},
		{"pg_catalog, app", []string{"pg_catalog", "app"}, true, false},
		{"app, pg_catalog", []string{"app", "pg_catalog"}, false, false},
		{"app,", nil, true, true},
		{",app", nil, true, true},
		{"app public", nil, true, true},
		{`"app`, nil, true, true},
		{`"app"x`, nil, true, true},
	} {
		p, ok := parsePath(x.raw, "bob")
		if ok == x.bad {
			t.Errorf("%q: taken %v", x.raw, ok)
			continue
		}
		if !x.bad && (!slices.Equal(p.schemas, x.want) || p.builtinsFirst != x.builtins) {
			t.Errorf("%q: %q, builtins first %v", x.raw, p.schemas, p.builtinsFirst)
		}
	}
}

func TestCatalogShards(t *testing.T) {
	ks := rib.Keyspace{ID: 1, Name: "k", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "public", Name: "t", Columns: []string{"id"}}}, Ranges: rib.EvenRanges([]string{"c", "b", "b"})}
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{ks}, Shards: []rib.Shard{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	for _, x := range []struct {
		rule           DatabaseRule
		shards         []string
		home, catalogs string
	}{
		{DatabaseRule{}, []string{"b", "c"}, "", "b"},
		{DatabaseRule{Shard: "a"}, []string{"a", "b", "c"}, "a", "b"},
		{DatabaseRule{Shard: "c"}, []string{"b", "c"}, "c", "c"},
	} {
		c := NewCatalog(o, map[string]DatabaseRule{"app": x.rule}, nil)
		if got := c.Shards("app"); !slices.Equal(got, x.shards) || c.Home("app") != x.home || c.CatalogShard("app") != x.catalogs {
			t.Errorf("%+v: %q, home %q, catalogs %q", x.rule, got, c.Home("app"), c.CatalogShard("app"))
		}
		if got := c.Shards("other"); len(got) != 0 || c.Home("other") != "" || c.CatalogShard("other") != "" {
			t.Errorf("an unknown database has shards %q", got)
		}
	}
	alone := NewCatalog(&rib.Ownership{Shards: []rib.Shard{{Name: "a"}}}, nil, nil)
	if got := alone.Shards("any"); !slices.Equal(got, []string{"a"}) || alone.Home("any") != "a" || alone.CatalogShard("any") != "a" {
		t.Errorf("the only shard does not serve every database: %q", got)
	}
	moved := *o
	moved.Epoch.Index++
	moved.Keyspaces = slices.Clone(o.Keyspaces)
	moved.Keyspaces[0].Ranges = rib.EvenRanges([]string{"a"})
	if NewCatalog(o, nil, nil).id != NewCatalog(&moved, nil, nil).id {
		t.Error("a range's new owner voids plans, which do not know owners")
	}
	view := map[string][]Dependent{"app": {{Schema: "public", Name: "v", Kind: DependsView, OfSchema: "public", OfName: "t"}}}
	if NewCatalog(o, nil, nil).id == NewCatalog(o, nil, view).id {
		t.Error("a view was made and plans did not change")
	}
	moved.Keyspaces[0].Tables = nil
	if NewCatalog(o, nil, nil).id == NewCatalog(&moved, nil, nil).id {
		t.Error("a keyspace's tables changed and plans did not")
	}
}
