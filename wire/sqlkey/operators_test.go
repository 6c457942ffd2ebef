package sqlkey

import "testing"

// What an operator sets that is not PostgreSQL's own, nobody sees: the connection is to be cleaned for others.
func TestOperatorsOfOthers(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	env := &Env{Database: "app", SearchPath: "public", User: "app"}
	for sql, opaque := range map[string]bool{
		"SELECT 1 === 2": true, "SELECT === 2": true, "SELECT 1 OPERATOR(public.+) 2": true, "SELECT 1 === ANY (ARRAY[1])": true, "SELECT 1 === ALL (SELECT 1)": true,
		"SELECT a FROM (VALUES (1)) v (a) ORDER BY a USING <<<<": true, "INSERT INTO plain VALUES (1 === 2)": true,
		"SELECT 1 + 2, 1 != 2, -1, 1 OPERATOR(pg_catalog.+) 2, 1 = ANY (ARRAY[1]), 1 < ALL (SELECT 1)": false, "SELECT 1 BETWEEN 0 AND 2, 1 NOT BETWEEN SYMMETRIC 2 AND 3, 'a' LIKE 'b', 'a' NOT ILIKE 'b', 'a' SIMILAR TO 'b'": false,
		"SELECT 1 IN (1, 2), 1 IS DISTINCT FROM 2, NULLIF(1, 2), (1, 2) = (1, 2), (1, 2) IN (SELECT 1, 2)": false, "SELECT '{}'::jsonb -> 'a' #>> '{b}' ? 'c'": false, "SELECT 1 FROM plain ORDER BY embedding <=> '[1]'": false,
		"SELECT a FROM (VALUES (1)) v (a) ORDER BY a USING >": false,
	} {
		if plan := p.Plan(c, env, sql); plan.Opaque != opaque {
			t.Errorf("%s: opaque %v", sql, plan.Opaque)
		}
	}
}
