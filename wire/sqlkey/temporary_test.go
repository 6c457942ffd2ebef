package sqlkey

import "testing"

// What a session makes for itself is on its own connection, and concerns no other shard.
func TestTemporaryDefinitions(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	env := &Env{Database: "app", SearchPath: "public", User: "app"}
	for _, sql := range []string{
		"CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE TYPE pg_temp.t AS ENUM ('a')", "DROP FUNCTION pg_temp.f()",
	} {
		if plan := p.Plan(c, env, sql); plan.Target == Many || plan.Session != SessPin {
			t.Errorf("%s: target %v, session %v: %s", sql, plan.Target, plan.Session, plan.Reason)
		}
	}
}
