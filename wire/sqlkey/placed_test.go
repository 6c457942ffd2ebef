package sqlkey

import (
	"strings"
	"testing"
)

// Where a row is stored says nothing on another shard: rows are not looked for by that on several. What one key's rows have in common does not matter.
func TestPlacesOfRowsAreAShards(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for sql, want := range map[string]Target{
		"DELETE FROM app.orders WHERE ctid = '(0,1)'":                                                                         None,
		"DELETE FROM app.orders o WHERE '(0,1)' = o.ctid AND id = 5":                                                          None,
		"UPDATE app.orders SET note = 'x' WHERE ctid = ANY ($1)":                                                              None,
		"UPDATE app.orders SET note = 'x' WHERE ctid IN ('(0,1)', '(0,2)')":                                                   None,
		"UPDATE app.orders SET customer_id = 5 WHERE ctid = $1":                                                               None,
		"SELECT * FROM app.orders WHERE ctid = '(0,1)'::tid":                                                                  None,
		"SELECT * FROM app.orders WHERE ctid::text = '(0,1)'":                                                                 None,
		"SELECT * FROM app.orders WHERE xmin = '700'":                                                                         None,
		"SELECT * FROM app.orders o WHERE $1 = o.xmax":                                                                        None,
		"UPDATE app.orders SET note = 'x' WHERE id = 5 AND xmin::text = $1":                                                   None,
		"UPDATE app.orders SET note = 'x' WHERE xmin::text::bigint > 700":                                                     None,
		"UPDATE app.orders SET customer_id = 5 WHERE xmin = $1":                                                               None,
		"DELETE FROM app.orders WHERE cmin IN ('0', '1')":                                                                     None,
		"SELECT * FROM app.orders WHERE cmax = ANY ($1)":                                                                      None,
		"SELECT xmin, id FROM app.orders":                                                                                     Many,
		"SELECT * FROM app.orders a JOIN app.orders b ON a.customer_id = b.customer_id WHERE a.xmin = b.xmin":                 Many,
		"UPDATE app.orders SET note = 'x' WHERE customer_id = 7 AND xmin = $1":                                                Keyed,
		"DELETE FROM app.orders WHERE customer_id = 7 AND ctid = '(0,1)'":                                                     Keyed,
		"DELETE FROM app.orders a USING app.orders b WHERE a.customer_id = b.customer_id AND a.id = b.id AND a.ctid < b.ctid": Many,
		"SELECT ctid, id FROM app.orders":                                                                                     Many,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (8, 1), (9, 1) LIMIT 2":                                      Many,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (8, 1), (9, 1) ORDER BY 1 OFFSET 1":                          Many,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (8, 1), (9, 1) ORDER BY 1":                                   Many,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (7, 2) LIMIT 1":                                              Keyed,
		"DELETE FROM app.areas WHERE ctid = '(0,1)'":                                                                          Many,
	} {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != want || want == None && (plan.Err.Code != "0A000" || plan.Err.Hint == "") {
			t.Errorf("%s: %s", sql, tell(plan))
		}
		if strings.Contains(sql, "areas") && plan.Fan.Once == nil {
			t.Errorf("%s: each shard would delete another row: %s", sql, tell(plan))
		}
	}
}

// Nor does a table's number, or a type's: what several shards tell of them is told as names.
func TestNumbersOfTablesAreAShards(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for sql, want := range map[string]Target{
		"SELECT tableoid, id FROM app.orders":                                                                                             None,
		"SELECT count(DISTINCT o.tableoid) FROM app.orders o":                                                                             None,
		"SELECT tableoid::regclass FROM app.orders GROUP BY tableoid":                                                                     None,
		"SELECT id FROM app.orders ORDER BY tableoid, id":                                                                                 None,
		"SELECT id FROM app.orders WHERE tableoid = 16421":                                                                                None,
		"SELECT id FROM app.orders WHERE tableoid = $1":                                                                                   None,
		"SELECT id FROM app.orders WHERE tableoid = '16421'::regclass":                                                                    None,
		"SELECT id FROM app.orders WHERE tableoid IN ('app.orders'::regclass, 16421)":                                                     None,
		"SELECT id FROM app.orders WHERE tableoid > 'app.orders'::regclass":                                                               None,
		"DELETE FROM app.orders RETURNING tableoid":                                                                                       None,
		"SELECT tableoid::regclass::oid FROM app.orders":                                                                                  None,
		"SELECT 'app.orders'::regclass::oid, count(*) FROM app.orders GROUP BY 1":                                                         None,
		"SELECT pg_typeof(id)::oid::int FROM app.orders":                                                                                  None,
		"SELECT tableoid, id FROM app.orders WHERE customer_id = 7":                                                                       Keyed,
		"SELECT tableoid::regclass, count(*) FROM app.orders GROUP BY 1":                                                                  Many,
		"SELECT tableoid::regclass::text, id FROM app.orders":                                                                             Many,
		"SELECT pg_typeof(id), pg_typeof(note)::text FROM app.orders":                                                                     Many,
		"SELECT id FROM app.orders WHERE tableoid = 'app.orders'::regclass":                                                               Many,
		"SELECT id FROM app.orders WHERE 'app.orders'::regclass::oid = tableoid":                                                          Many,
		"SELECT id FROM app.orders WHERE tableoid IN ('app.orders'::regclass, 'app.lines'::regclass)":                                     Many,
		"SELECT c.relname, o.id FROM app.orders o JOIN pg_catalog.pg_class c ON c.oid = o.tableoid":                                       Many,
		"DELETE FROM app.orders a USING app.orders b WHERE a.customer_id = b.customer_id AND a.tableoid = b.tableoid AND a.ctid < b.ctid": Many,
	} {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != want || want == None && (plan.Err.Code != "0A000" || !strings.Contains(plan.Err.Hint, "tableoid::regclass")) {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
}
