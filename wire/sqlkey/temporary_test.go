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
	env.SearchPath = "pg_temp, public" // what is made without a schema is the session's own
	for _, sql := range []string{
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE TYPE t AS ENUM ('a')", "CREATE TYPE t AS (a int)", "CREATE DOMAIN d AS int", "CREATE SEQUENCE s", "CREATE TABLE z (a int)", "CREATE VIEW v AS SELECT 1",
		"CREATE TABLE z AS SELECT 1", "SELECT 1 AS a INTO z", "CREATE TABLE z AS EXECUTE p",
	} {
		if plan := p.Plan(c, env, sql); plan.Target == Many || plan.Target == None || plan.Session != SessPin || plan.Remains != RemainTemp {
			t.Errorf("%s: target %v, session %v: %s %v", sql, plan.Target, plan.Session, plan.Reason, plan.Err)
		}
	}
	for _, sql := range []string{"CREATE TABLE public.z (a int)", "CREATE SCHEMA z", "ALTER TYPE t ADD VALUE 'b'", "CREATE TABLE z (a int) ON COMMIT DROP", "DROP TABLE z"} {
		if plan := p.Plan(c, env, sql); plan.Session == SessPin {
			t.Errorf("%s: tied by %s", sql, plan.WhyPin)
		}
	}
	if plan := p.Plan(c, env, "CREATE TABLE orders (a int)"); plan.Target != None {
		t.Errorf("it hides the sharded table: target %v", plan.Target)
	}
	env.SearchPath = "missing, pg_temp" // the session's own as well, if there is no such schema
	for _, sql := range []string{"CREATE TABLE z (a int)", "CREATE VIEW v AS SELECT 1", "CREATE TABLE z AS SELECT 1", "SELECT 1 AS a INTO z", "CREATE TABLE z AS EXECUTE p"} {
		if plan := p.Plan(c, env, sql); plan.Target == Many || plan.Target == None || plan.Session != SessPin || plan.Remains != RemainTemp || !plan.Frees || !plan.Opaque {
			t.Errorf("%s: target %v, session %v, is the server asked: %v, is it cleaned: %v", sql, plan.Target, plan.Session, plan.Frees, plan.Opaque)
		}
	}
	for _, sql := range []string{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE TYPE t AS ENUM ('a')"} {
		if plan := p.Plan(c, env, sql); plan.Target != Many || plan.Session == SessPin || !plan.Opaque {
			t.Errorf("%s: target %v, session %v, is each server cleaned: %v", sql, plan.Target, plan.Session, plan.Opaque)
		}
	}
	if plan := p.Plan(c, env, "CREATE TABLE orders (a int)"); plan.Target != None {
		t.Errorf("it may hide the sharded table: target %v", plan.Target)
	}
	for _, sql := range []string{"SELECT 1", "INSERT INTO z VALUES (1)", "DROP TABLE z"} {
		if plan := p.Plan(c, env, sql); plan.Session == SessPin || plan.Opaque {
			t.Errorf("%s: it makes nothing: session %v, %v", sql, plan.Session, plan.Opaque)
		}
	}
	env.SearchPath = "public, pg_temp" // which is there, so nothing is
	for _, sql := range []string{"CREATE TABLE z (a int)", "CREATE VIEW v AS SELECT 1", "CREATE TABLE orders (customer_id bigint, id bigint)"} {
		if plan := p.Plan(c, env, sql); plan.Session == SessPin {
			t.Errorf("%s: tied by %s", sql, plan.WhyPin)
		}
	}
}
