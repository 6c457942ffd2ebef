package sqlkey

import (
	"fmt"
	"testing"
)

// TestHintsKeepTheCache: texts that differ in constants share a plan also if they have a hint, unless it is to agree with these.
func TestHintsKeepTheCache(t *testing.T) {
	c := testCatalog(t)
	for format, shared := range map[string]bool{
		"/* rangefinder: shard=shard_2 */ select * from app.orders where x = %d":           true,
		"select * from app.orders where x = %d /* rangefinder: key=42 */":                  true,
		"/* rangefinder: shard=shard_2 */ select * from app.orders where customer_id = %d": true,
		"/* rangefinder: key=42 */ select * from app.orders where customer_id = %d":        false,
	} {
		p := NewPlanner(PlannerConfig{})
		var k Constants
		for i := range 20 {
			sql := fmt.Sprintf(format, 42+i)
			plan := p.PlanQuery(c, appEnv, []byte(sql), &k)
			if plan.shared != shared {
				t.Fatalf("%s: shared %v", sql, plan.shared)
			}
			checkShared(t, p, c, appEnv, sql)
			for j := range plan.Keys {
				if _, err := plan.AppendKey(nil, j, &k, true); shared && err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
		}
		if misses := p.Stats().Misses; shared && misses != 1 {
			t.Errorf("%s: planned %d times", format, misses)
		}
	}
}
