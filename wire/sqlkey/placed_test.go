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
		"DELETE FROM app.orders WHERE customer_id = 7 AND ctid = '(0,1)'":                                                     Keyed,
		"DELETE FROM app.orders a USING app.orders b WHERE a.customer_id = b.customer_id AND a.id = b.id AND a.ctid < b.ctid": Many,
		"SELECT ctid, id FROM app.orders":                                                                                     Many,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (8, 1), (9, 1) LIMIT 2":                                      None,
		"INSERT INTO app.orders (customer_id, id) VALUES (7, 1), (8, 1), (9, 1) ORDER BY 1 OFFSET 1":                          None,
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
