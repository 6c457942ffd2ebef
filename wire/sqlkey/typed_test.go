package sqlkey

import "testing"

// A parameter that is declared with another type than the key's tells no key, as a constant of that type does not: what may run on all shards does.
func TestParametersOfOtherTypes(t *testing.T) {
	const numeric, float8, timestamp = 1700, 701, 1114
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for _, one := range []struct {
		sql    string
		types  []uint32
		target Target
	}{
		{"SELECT * FROM app.orders WHERE customer_id = $1", nil, Keyed},
		{"SELECT * FROM app.orders WHERE customer_id = $1", []uint32{oidInt4}, Keyed},
		{"SELECT * FROM app.orders WHERE customer_id = $1", []uint32{0}, Keyed},
		{"SELECT * FROM app.orders WHERE customer_id = $1", []uint32{numeric}, Many},
		{"SELECT * FROM app.orders WHERE customer_id = $1", []uint32{float8}, Many},
		{"SELECT * FROM app.orders WHERE customer_id = $1", []uint32{oidText}, Many}, // PostgreSQL says what is wrong
		{"SELECT * FROM app.orders WHERE customer_id = $1 AND id = $2", []uint32{oidInt8, numeric}, Keyed},
		{"SELECT * FROM app.orders WHERE customer_id = $1 AND customer_id = $2", []uint32{oidInt8, numeric}, Keyed}, // the other one is enough
		{"SELECT * FROM app.orders WHERE customer_id = $1::bigint", []uint32{numeric}, Many},
		{"SELECT * FROM app.orders o JOIN app.items i USING (customer_id) WHERE i.customer_id = $2", []uint32{0, numeric}, Many},
		{"SELECT * FROM app.tiles WHERE zoom = $1 AND name = $2", []uint32{numeric, oidText}, Many},
		{"SELECT * FROM app.beats WHERE at = $1", []uint32{timestamp}, Many},
		{"SELECT * FROM app.beats WHERE at = $1", []uint32{oidDate}, Many},
		{"SELECT * FROM app.visits WHERE visited = $1", []uint32{timestamp}, Many},
		{"UPDATE app.orders SET note = 'x' WHERE customer_id = $1", []uint32{numeric}, Many},
		{"DELETE FROM app.orders WHERE customer_id = $1", []uint32{numeric}, Many},
		{"INSERT INTO app.orders (customer_id, id) VALUES ($1, 1)", []uint32{numeric}, Many}, // a server makes the row
		{"INSERT INTO app.orders (customer_id, id) VALUES ($1, 1), ($2, 2)", []uint32{numeric, numeric}, Many},
		{"INSERT INTO app.orders (customer_id, id) VALUES ($1, 1), ($2, 2), (9, 3)", []uint32{0, numeric}, Many},
		{"INSERT INTO app.tiles (zoom, name, n) VALUES (1, 'a', 1), ($1, $2, 2)", []uint32{numeric, oidText}, Many},
		{"SELECT * FROM app.orders o JOIN app.users u ON u.name = o.note WHERE o.customer_id = $1 AND u.name = 'a'", []uint32{numeric}, None},
	} {
		plan := p.PlanTyped(c, appEnv, one.sql, one.types)
		if len(one.types) == 2 && one.target == Keyed && len(plan.Keys) != 1 {
			t.Errorf("%s with %v has %d keys", one.sql, one.types, len(plan.Keys))
		}
		if plan.Target != one.target || plan.Target == Many && len(plan.Fan.Within) > 0 {
			t.Errorf("%s with %v: %s", one.sql, one.types, tell(plan))
		}
		if plan.Fan != nil && plan.Fan.Split != nil {
			t.Errorf("%s with %v: the rows are dealt by keys that cannot be told", one.sql, one.types)
		}
		if again := p.PlanTyped(c, appEnv, one.sql, one.types); again != plan {
			t.Errorf("%s with %v is planned twice", one.sql, one.types)
		}
		if plan.Target == Many && plan.Fan.Deal == nil {
			if _, err := p.Leave(c, appEnv, plan); err != nil {
				t.Errorf("%s with %v: what shards are to leave out cannot be told: %v", one.sql, one.types, err)
			}
		}
	}
}
