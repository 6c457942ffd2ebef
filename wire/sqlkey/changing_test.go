package sqlkey

import "testing"

// TestChangesTogether: a statement that changes rows in WITH as well goes to the shards that its conditions leave only where all of its parts leave
// the same ones, whatever is told of them to people.
func TestChangesTogether(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for _, x := range []struct {
		first, second string
		same          bool
	}{
		{"customer_id in (1, 2)", "customer_id in (1, 2)", true},
		{"customer_id in (1, 2, 3, 4, 5, 6)", "customer_id in (1, 2, 3, 4, 5, 6)", true},
		{"customer_id in (1, 2, 3, 4, 5, 6)", "customer_id in (1, 2, 3, 4, 7, 8)", false},
		{"customer_id = any ('{1,2}')", "customer_id = any ('{1,2}')", true},
		{"customer_id = any ('{11111111,22222222,33333333,44444444,55555555,66666666,77777777}')", "customer_id = any ('{11111111,22222222,33333333,44444444,55555555,66666666,88888888}')", false},
		{"customer_id = any ($1)", "customer_id = any ($1)", true},
		{"customer_id = any ($1)", "customer_id = any ($2)", false},
		{"customer_id = any ($1)", "customer_id = any ($1::int[])", false},
		{"customer_id in ($1, $2)", "customer_id in ($1, $2)", true},
		{"customer_id in ($1, $2)", "customer_id in ($1, $3)", false},
		{"customer_id in (1, 2)", "id = 1", false},
	} {
		sql := "with gone as (delete from orders where " + x.first + " returning id) update items set x = 1 where " + x.second
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != Many || len(plan.Fan.Within) > 0 != x.same {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
	a, b := "name in ('"+long("a", 'x')+"', 'b')", "name in ('"+long("a", 'y')+"', 'b')"
	plan := p.Plan(c, appEnv, "with gone as (delete from users where "+a+" returning name) update users set x = 1 where "+b)
	if plan.Target != Many || len(plan.Fan.Within) > 0 {
		t.Error(tell(plan))
	}
	for sql, same := range map[string]bool{
		"with gone as (delete from days where day between 3 and 9) update days set x = 1 where day between 3 and 9":  true,
		"with gone as (delete from days where day between 3 and 9) update days set x = 1 where day between 3 and 10": false,
		"with gone as (delete from days where day > 3) update days set x = 1 where day >= 3":                         false,
		"with gone as (delete from days where day > 3) update days set x = 1 where day > 3":                          true,
	} {
		if plan := p.Plan(c, appEnv, sql); plan.Target != Many || len(plan.Fan.Within) > 0 != same {
			t.Errorf("%s: %s", sql, tell(plan))
		}
	}
}

// long is a text that is cut where people are told of it, before its end.
func long(begin string, end byte) string {
	b := make([]byte, 80)
	for i := range b {
		b[i] = begin[0]
	}
	b[len(b)-1] = end
	return string(b)
}
