package sqlkey

import (
	"testing"

	"rangefinder/rib"
)

// TestLeadOfCopies: who locks rows of a reference table and who writes them begins on the same shard, whatever else the statement is.
func TestLeadOfCopies(t *testing.T) {
	for _, home := range []string{"shard_2", "shard_9"} {
		c := NewCatalog(&rib.Ownership{
			Keyspaces: []rib.Keyspace{{ID: 1, Name: "k", Database: "app", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "public", Name: "countries"}},
				Ranges: rib.ReferenceRanges([]string{"shard_1", "shard_2", "shard_3"})}},
		}, map[string]DatabaseRule{"app": {Shard: home}}, nil)
		want := map[string]string{"shard_2": "shard_2", "shard_9": "shard_1"}[home]
		p, env := NewPlanner(PlannerConfig{}), &Env{Database: "app", User: "app"}
		for _, sql := range []string{"SELECT * FROM countries FOR UPDATE", "SELECT * FROM countries c, countries d FOR SHARE"} {
			if plan := p.Plan(c, env, sql); plan.Target != Unsharded || plan.Shard != want {
				t.Errorf("%s: %s", sql, tell(plan))
			}
		}
		for _, sql := range []string{"UPDATE countries SET name = 'x'", "DELETE FROM countries WHERE random() > 2", "COPY countries FROM STDIN"} {
			plan := p.Plan(c, env, sql)
			if plan.Target != Many || !plan.Fan.Alike() || plan.Fan.Lead != want || plan.Fan.Once != nil && plan.Fan.Once.On != want {
				t.Errorf("%s: %s", sql, tell(plan))
			}
		}
		for _, sql := range []string{"TRUNCATE countries", "ALTER TABLE countries ADD COLUMN n int"} {
			if plan := p.Plan(c, env, sql); plan.Target != Many || plan.Fan.Alike() {
				t.Errorf("%s: %s", sql, tell(plan))
			}
		}
	}
}

// A table whose columns the catalogs have not told yet, as it was made past the nodes or through another one a moment ago, may have defaults that each server computes
// for itself: rows for it are made once.
func TestInsertIntoCopiesThatAreNotKnownYet(t *testing.T) {
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{{ID: 1, Name: "k", Database: "app", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "public", Name: "countries"}},
		Ranges: rib.ReferenceRanges([]string{"shard_1", "shard_2"})}}}
	known := Dependent{Schema: "public", Name: "countries", Kind: DependsColumns, OfName: `["code", "name"]`}
	for _, x := range []struct {
		list []Dependent
		once bool
	}{{nil, true}, {[]Dependent{known}, false}} {
		c := NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_1"}}, map[string][]Dependent{"app": x.list})
		for _, sql := range []string{"INSERT INTO countries (code) VALUES ('de')", "INSERT INTO countries VALUES ('de') RETURNING code", "INSERT INTO countries SELECT 'de'"} {
			if plan := NewPlanner(PlannerConfig{}).Plan(c, &Env{Database: "app", User: "app"}, sql); plan.Target != Many || (plan.Fan.Once != nil) != x.once {
				t.Errorf("%s: %s", sql, tell(plan))
			}
		}
	}
}
