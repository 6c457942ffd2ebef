package sqlkey

import (
	"strings"
	"testing"

	"rangefinder/rib"
)

// TestLeaveTexts: the condition stands where it leaves out all that comes of a key, and in words of PostgreSQL's own functions alone; what has no place for
// it is said to have none.
func TestLeaveTexts(t *testing.T) {
	table := func(name string, columns ...string) rib.KeyedTable {
		return rib.KeyedTable{Schema: "public", Name: name, Columns: columns}
	}
	catalog := NewCatalog(&rib.Ownership{Keyspaces: []rib.Keyspace{
		{ID: 1, Name: "k", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Tables: []rib.KeyedTable{table("orders", "customer_id"), table("Items", "customer_id")}},
	}}, nil, nil)
	const at = `((((pg_catalog.hashint8extended(COLUMN, 0) OPERATOR(pg_catalog.#) '-9223372036854775808'::bigint) OPERATOR(pg_catalog.<) '-9223372036854775807'::bigint)) IS NOT TRUE)`
	key := func(column string) string { return strings.ReplaceAll(at, "COLUMN", column) }
	own := key(`"orders"."customer_id"`)
	for _, c := range []struct{ sql, want, why string }{
		{sql: "SELECT * FROM orders", want: "SELECT * FROM orders WHERE " + own},
		{sql: "SELECT count(*) FROM public.orders o WHERE a = 1 OR b = 2", want: `SELECT count(*) AS rangefinder_1 FROM public.orders o WHERE (a = 1 OR b = 2) AND ` + key(`"o"."customer_id"`)},
		{sql: `SELECT * FROM orders o FULL JOIN "Items" i USING (customer_id)`, want: `SELECT * FROM orders o FULL JOIN "Items" i USING (customer_id) WHERE ` + key(`"o"."customer_id"`) + " AND " + key(`"i"."customer_id"`)},
		{sql: "SELECT x FROM (SELECT customer_id, x FROM orders) s", want: "SELECT x FROM (SELECT customer_id, x FROM orders WHERE " + own + ") s"},
		{sql: "SELECT 1 FROM orders UNION ALL SELECT 2 FROM orders", want: "SELECT 1 FROM orders WHERE " + own + " UNION ALL SELECT 2 FROM orders WHERE " + own},
		{sql: "UPDATE orders SET x = 1 FROM \"Items\" i WHERE i.customer_id = orders.customer_id", want: `UPDATE orders SET x = 1 FROM "Items" i WHERE i.customer_id = orders.customer_id AND ` + own},
		{sql: "DELETE FROM orders AS o RETURNING id", want: "DELETE FROM orders o WHERE " + key(`"o"."customer_id"`) + " RETURNING id"},
		{sql: `INSERT INTO "Items" (customer_id, x) SELECT customer_id, x FROM orders`, want: `INSERT INTO "Items" (customer_id, x) SELECT customer_id, x FROM orders WHERE ` + own},
		{sql: "EXPLAIN SELECT x FROM orders", want: "SELECT x FROM orders WHERE " + own},
		{sql: "DECLARE c CURSOR FOR SELECT x FROM orders", want: "SELECT x FROM orders WHERE " + own},
		{sql: "COPY orders (x, y) TO STDOUT (FORMAT csv)", want: "COPY (SELECT x, y FROM orders WHERE " + own + ") TO STDOUT CSV"},
		{sql: "COPY (SELECT x FROM orders) TO STDOUT", want: "COPY (SELECT x FROM orders WHERE " + own + ") TO STDOUT"},
		{sql: "SELECT * FROM orders o (a, b)", why: "cannot be named"},
		{sql: "SELECT j.x FROM (orders o JOIN \"Items\" i USING (customer_id)) j", why: "cannot be named"},
		{sql: "COPY orders TO STDOUT", why: "does not name its columns"},
		{sql: "COPY (SELECT x FROM orders) TO STDOUT (NULL 0)", why: "another kind"},
		{sql: "COPY (SELECT x FROM orders) TO STDOUT (FORMAT)", why: "another kind"},
		{sql: "SELECT '{leave 1}' FROM orders", why: "a text like"},
	} {
		p, env := NewPlanner(PlannerConfig{}), &Env{Database: "app", User: "app"}
		plan := p.Plan(catalog, env, c.sql)
		if plan.Target != Many {
			t.Errorf("%s: %s", c.sql, tell(plan))
			continue
		}
		leave, err := p.Leave(catalog, env, plan)
		switch {
		case c.why != "":
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s: %v, want that it %s", c.sql, err, c.why)
			}
		case err != nil:
			t.Errorf("%s: %v", c.sql, err)
		default:
			if got := leave.SQL([]Gap{{To: rib.Key{0, 0, 0, 0, 0, 0, 0, 1}}}); got != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.sql, got, c.want)
			}
			if again, _ := p.Leave(catalog, env, p.Plan(catalog, env, c.sql)); again != leave {
				t.Errorf("%s: it is made anew each time", c.sql)
			}
		}
	}
	p, env := NewPlanner(PlannerConfig{}), &Env{Database: "app", User: "app", SearchPath: "public, pg_catalog"}
	if _, err := p.Leave(catalog, env, p.Plan(catalog, env, "SELECT x FROM orders")); err == nil || !strings.Contains(err.Error(), "search path") {
		t.Errorf("with other functions in front of PostgreSQL's own: %v", err)
	}
}
