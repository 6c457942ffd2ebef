package sqlkey

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestLeaveByHand: shards of which each has the rows of all leave out what they do not own, and what they give together is what the statement gives on
// all rows. None of the statements is refused.
func TestLeaveByHand(t *testing.T) {
	m := newManyOracle(t)
	m.leaving = true
	for _, sql := range byHand {
		if kind := m.check(t, sql); kind != "many" {
			t.Errorf("%s: %s: %s", sql, kind, tell(m.planner.Plan(m.catalog, m.env, sql)))
		}
	}
}

// TestLeave is the same for generated statements.
func TestLeave(t *testing.T) {
	m := newManyOracle(t)
	m.leaving = true
	g := &manyGenerator{generator{r: rand.New(rand.NewPCG(*oracleSeed, 8))}}
	kinds := map[string]int{}
	for range *oracleN / 4 {
		sql := g.statement()
		if g.chance(40) {
			for sql = g.generator.statement(); !strings.HasPrefix(sql, "select") && !strings.HasPrefix(sql, "with"); {
				sql = g.generator.statement()
			}
		}
		plan := m.planner.Plan(m.catalog, m.env, sql)
		if plan.Target == Many {
			if _, err := m.planner.Leave(m.catalog, m.env, plan); err != nil {
				if kinds["not written"]++; kinds["not written"] < 10 {
					t.Logf("%s: %v", sql, err)
				}
				continue
			}
		}
		kinds[m.check(t, sql)]++
	}
	t.Logf("%v", kinds)
	if kinds["many"] < *oracleN/16 || kinds["not written"]*50 > kinds["many"] {
		t.Errorf("too few statements to tell, or too many that cannot be written: %v", kinds)
	}
}
