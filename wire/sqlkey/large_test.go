package sqlkey

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// longList is a statement with a list of constants of that many bytes.
func longList(bytes int) string {
	var b strings.Builder
	b.WriteString("SELECT id FROM app.orders WHERE customer_id IN (0")
	for i := 1; b.Len() < bytes-8; i++ {
		b.WriteString("," + strconv.Itoa(i))
	}
	return b.String() + ")"
}

// A large text is parsed once for all who have its plan at the same time, although the cache has no room for that. It is gone with the last of them.
func TestLargePlansAreShared(t *testing.T) {
	sql := longList(1 << 17)
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	env := &Env{Database: "app", SearchPath: "public", User: "app"}
	first := p.PlanQuery(c, env, []byte(sql), &Constants{})
	if first.Target != Many || len(first.Keys) == 0 && first.Fan == nil {
		t.Fatalf("target %v: %s", first.Target, first.Reason)
	}
	if p.Plan(c, env, sql) != first || p.PlanQuery(c, env, []byte(sql), &Constants{}) != first || p.Stats().Misses != 1 {
		t.Errorf("it was planned %d times", p.Stats().Misses)
	}
	other := &Env{Database: "app", SearchPath: "app", User: "app"}
	if p.Plan(c, other, sql) == first {
		t.Error("planned under another search path, it is the same plan")
	}
	runtime.KeepAlive(first)
	first = nil
	for range 3 {
		runtime.GC() //revive:disable-line:call-to-gc what nobody has is to be collected
	}
	if p.lent.get(p.cache.hash(sql), &c.id, env, sql) != nil {
		t.Error("nobody has it any more, and it is still there")
	}
}
