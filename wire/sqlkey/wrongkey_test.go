package sqlkey

import (
	"strings"
	"testing"

	"rangefinder/rib"
)

// What the catalogs tell of tables that were made past the nodes, behind a keyspace that was planned: rows are not written where PostgreSQL may store another
// key than it is given, and what each server would compute for itself one does.
func TestColumnsThatTheCatalogsTellOf(t *testing.T) {
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{
		{ID: 1, Name: "app.users", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeText}, Tables: []rib.KeyedTable{{Schema: "app", Name: "users", Columns: []string{"name"}}},
			Ranges: []rib.Range{{Shard: "shard_1"}}},
		{ID: 2, Name: "app.fees", Database: "app", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "app", Name: "fees"}}, Ranges: []rib.Range{{Shard: "shard_1"}}},
	}}
	c := NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_1"}}, map[string][]Dependent{"app": {
		{Schema: "app", Name: "users", Kind: DependsKey, OfSchema: "character varying(10)", OfName: "name"},
		{Schema: "app", Name: "fees", Kind: DependsOwn, OfName: "at"},
		{Schema: "app", Name: "fees", Kind: DependsColumns, OfName: `["id", "at"]`},
	}})
	p := NewPlanner(PlannerConfig{})
	for sql, refused := range map[string]bool{
		"INSERT INTO app.users (name) VALUES ('a')":                                               true,
		"INSERT INTO app.users (name) VALUES ('a'), ('b')":                                        true,
		"INSERT INTO app.users VALUES ('a')":                                                      true,
		"INSERT INTO app.users (name) SELECT name FROM app.users":                                 true,
		"UPDATE app.users SET note = 'x' WHERE name = 'a'":                                        true,
		"UPDATE app.users SET note = 'x'":                                                         true,
		"UPDATE app.users SET name = 'b' WHERE name = 'a'":                                        true,
		"COPY app.users FROM STDIN":                                                               true,
		"COPY app.users (name) FROM STDIN":                                                        true,
		"WITH x AS (INSERT INTO app.users (name) VALUES ('a') RETURNING name) SELECT name FROM x": true,
		"MERGE INTO app.users u USING (SELECT 'a' AS n) s ON u.name = s.n WHEN NOT MATCHED THEN INSERT (name) VALUES (s.n)": true,
		"COPY app.users TO STDOUT":                      false,
		"SELECT * FROM app.users":                       false,
		"SELECT * FROM app.users WHERE name = 'a'":      false,
		"DELETE FROM app.users WHERE name = 'a'":        false,
		"INSERT INTO app.fees (id) VALUES (1)":          false,
		"INSERT INTO app.fees (id, at) VALUES (1, '2')": false,
	} {
		plan := p.Plan(c, appEnv, sql)
		if got := plan.Target == None && strings.Contains(plan.Err.Detail, "character varying(10)") && plan.Err.Hint != ""; got != refused || !refused && plan.Target == None {
			t.Errorf("%s: %s", sql, tell(plan))
		}
		if strings.Contains(sql, "fees") && (plan.Fan.Once != nil) != !strings.Contains(sql, "at)") {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
}
