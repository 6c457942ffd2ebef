package sqlkey

import (
	"runtime"
	"strconv"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
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

// BenchmarkLarge is the planning of statements of a megabyte, beside what PostgreSQL's own parser needs for them (in C alone, without a tree in Go).
func BenchmarkLarge(b *testing.B) {
	var rows, params, or strings.Builder
	rows.WriteString("INSERT INTO app.orders (customer_id, note, id) VALUES (0, 'x', 1)")
	for i := 1; rows.Len() < 1<<20-32; i++ {
		rows.WriteString(", (" + strconv.Itoa(i) + ", 'note', 7)")
	}
	params.WriteString("INSERT INTO app.orders (customer_id, note) VALUES ($1, $2)")
	for i := 3; i < 1<<16-2; i += 2 {
		params.WriteString(", ($" + strconv.Itoa(i) + ", $" + strconv.Itoa(i+1) + ")")
	}
	or.WriteString("SELECT id FROM app.orders WHERE customer_id = 0")
	for i := 1; i < 10_000; i++ {
		or.WriteString(" OR customer_id = " + strconv.Itoa(i))
	}
	c, env := testCatalog(b), &Env{Database: "app", SearchPath: "public", User: "app"}
	for _, x := range []struct{ name, sql string }{
		{"IN list", longList(1 << 20)}, {"ORDER BY LIMIT", longList(1<<20-32) + " ORDER BY id LIMIT 10 OFFSET 5"},
		{"rows", rows.String()}, {"rows of parameters", params.String()}, {"OR of 10,000", or.String()},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.SetBytes(int64(len(x.sql)))
			b.ReportAllocs()
			for b.Loop() {
				if plan := NewPlanner(PlannerConfig{}).Plan(c, env, x.sql); plan.Target != Many {
					b.Fatal(plan.Reason)
				}
			}
		})
		b.Run(x.name+"/PostgreSQL", func(b *testing.B) {
			b.SetBytes(int64(len(x.sql)))
			for b.Loop() {
				if _, err := pgquery.FingerprintToUInt64(x.sql); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
