package sqlkey

import (
	"testing"

	"rangefinder/rib"
)

// A cast to a domain is one to the type below it, where the catalogs say that it is no more than that.
func TestCastsToDomains(t *testing.T) {
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{
		{ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Tables: []rib.KeyedTable{{Schema: "app", Name: "orders", Columns: []string{"id"}}},
			Ranges: []rib.Range{{Shard: "shard_1"}}},
		{ID: 2, Name: "app.users", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeText}, Tables: []rib.KeyedTable{{Schema: "app", Name: "users", Columns: []string{"name"}}},
			Ranges: []rib.Range{{Shard: "shard_1"}}},
	}}
	c := NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_1"}}, map[string][]Dependent{"app": {
		{Schema: "app", Name: "number", Kind: DependsDomain, OfSchema: "int8"}, {Schema: "app", Name: "small", Kind: DependsDomain, OfSchema: "int2"},
		{Schema: "app", Name: "login", Kind: DependsDomain, OfSchema: "text"},
	}})
	p := NewPlanner(PlannerConfig{})
	for sql, want := range map[string]Target{
		"SELECT * FROM app.orders WHERE id = $1::number":              Keyed,
		"SELECT * FROM app.orders WHERE id = $1::app.number":          Keyed,
		"SELECT * FROM app.orders WHERE id = 7::small":                Keyed,
		"SELECT * FROM app.orders WHERE id = CAST('7' AS number)":     Keyed,
		"SELECT * FROM app.orders WHERE id = $1::other.number":        Many,
		"SELECT * FROM app.orders WHERE id = $1::app.app.number":      Many,
		"SELECT * FROM app.orders WHERE id = $1::unheard":             Many,
		"SELECT * FROM app.orders WHERE id = 'x'::login":              Many,
		"SELECT * FROM app.orders WHERE id = 70000::small":            None, // out of range
		"SELECT * FROM app.users WHERE name = $1::login":              Keyed,
		"SELECT * FROM app.users WHERE name = lower('X'::login)":      Many, // there may be a function for the domain
		"SELECT * FROM app.users WHERE name = $1::login::text":        Keyed,
		"SELECT * FROM app.users WHERE name = $1::number::text":       Many, // 07
		"INSERT INTO app.orders (id) VALUES ($1::number)":             Keyed,
		"INSERT INTO app.orders (id) VALUES ($1::number), (8::small)": Many,
		"INSERT INTO app.orders (id) VALUES ($1::unheard)":            Many, // a server can tell
		"SELECT * FROM app.orders WHERE id = ANY ($1::number[])":      Many,
		"SELECT * FROM app.orders WHERE id IN (7::number, 8)":         Many,
	} {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != want {
			t.Errorf("%s: %s", sql, tell(plan))
		}
		if plan.Target == Keyed {
			if _, err := plan.AppendKey(nil, 0, args{text("7", 0)}, true); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	for _, sql := range []string{"SELECT * FROM app.orders WHERE id = ANY ($1::number[])", "SELECT * FROM app.orders WHERE id IN (7::number, 8)"} {
		if plan := p.Plan(c, appEnv, sql); len(plan.Fan.Within) != 1 {
			t.Errorf("%s goes to all shards: %s", sql, tell(plan))
		}
	}
	plan := p.Plan(c, appEnv, "PREPARE p (number) AS SELECT * FROM app.orders WHERE id = $1")
	if len(plan.Names) != 1 || plan.Names[0].Types[0] != oidInt8 {
		t.Errorf("PREPARE with a domain: %+v", plan.Names)
	}
	if other := NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_1"}}, nil); other.id == c.id {
		t.Error("plans for other domains are taken for the same")
	}
}

// A function that somebody has made may be called on each shard if the catalogs say that it is IMMUTABLE, and every other of its name.
func TestImmutableFunctionsOverShards(t *testing.T) {
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{{ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "app", Name: "orders", Columns: []string{"id"}}}, Ranges: []rib.Range{{Shard: "shard_1"}}}}}
	c := NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_1"}}, map[string][]Dependent{"app": {{Name: "similarity", Kind: DependsFunction}, {Name: "lower", Kind: DependsFunction}}})
	p := NewPlanner(PlannerConfig{})
	for sql, want := range map[string]Intent{
		"SELECT * FROM app.orders WHERE similarity(item, 'pen') > 0.3":               Read,
		"SELECT sum(ext.similarity(item, 'pen')) FROM app.orders":                    Read,
		"SELECT max(similarity(lower(item), 'pen')) FROM app.orders":                 Read,
		"UPDATE app.orders SET qty = 0 WHERE similarity(item, 'pen') > 0.3":          Write,
		"DELETE FROM app.orders WHERE id = similarity(1) RETURNING similarity(item)": Write,
	} {
		if plan := p.Plan(c, appEnv, sql); plan.Target != Many || plan.Intent != want || !plan.Opaque {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
	for _, sql := range []string{"SELECT * FROM app.orders WHERE unheard(item) > 0.3", "SELECT pg_catalog.similarity(item) FROM app.orders", "SELECT setseed(id) FROM app.orders"} {
		if plan := p.Plan(c, appEnv, sql); plan.Target != None || plan.Intent != Write {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
}
