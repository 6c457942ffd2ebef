package sqlkey

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// used plans a text as a Query, and counts it.
func used(t testing.TB, p *Planner, sql string, session uint64, now, took time.Duration) {
	t.Helper()
	var k Constants
	p.PlanQuery(testCatalog(t), appEnv, []byte(sql), &k).Used(session, now, took, 1, 2, false)
}

// Statements are counted together if they differ in their constants alone, whoever runs them and however their plans are kept.
func TestUsages(t *testing.T) {
	p := NewPlanner(PlannerConfig{})
	for i := range 20 {
		used(t, p, fmt.Sprintf("SELECT *\n  FROM orders WHERE customer_id = %d", i), uint64(i), 0, time.Duration(i)*time.Millisecond)
	}
	c := testCatalog(t)
	p.Plan(c, appEnv, "SELECT * FROM orders WHERE customer_id = $1 AND note = 'secret'").Used(1, 0, time.Millisecond, 1, 0, false)
	p.Plan(c, appEnv, "SELECT * FROM orders WHERE customer_id = $1 AND note = 'other'").Used(2, 0, time.Millisecond, 1, 0, true)
	p.Plan(c, appEnv, "SET application_name = 'secret'").Used(1, 0, time.Millisecond, 1, 0, false)
	p.Plan(c, appEnv, "ALTER ROLE app PASSWORD E'secret'").Used(1, 0, time.Millisecond, 1, 0, false)
	p.Plan(c, appEnv, "SELEC 'secret'").Used(1, 0, 0, 1, 0, true)
	p.Plan(c, appEnv, "SELECT 1 /* never run */")

	list := p.Usages()
	slices.SortFunc(list, func(a, b Usage) int { return strings.Compare(a.Form, b.Form) })
	var got []string
	for _, u := range list {
		got = append(got, fmt.Sprintf("%s|%d|%d|%d|%d|%v|%v|%s", u.Database, u.Calls, u.Errors, u.Shards, u.Rows, u.Total, u.Max, u.Form))
	}
	want := []string{
		"app|0|1|0|0|0s|0s|(a text that PostgreSQL's parser does not take)",
		"app|1|0|1|0|1ms|1ms|ALTER ROLE app PASSWORD $1",
		"app|20|0|20|40|190ms|19ms|SELECT * FROM orders WHERE customer_id = ?",
		"app|1|1|1|0|1ms|1ms|SELECT * FROM orders WHERE customer_id = $1 AND note = $2",
		"app|1|0|1|0|1ms|1ms|SET application_name = ?",
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	sum := p.Usage()
	p.ResetUsages()
	if left := p.Usages(); len(left) != 0 {
		t.Fatalf("after a reset there is %+v", left)
	}
	if again := p.Usage(); again != sum || sum.Calls != 23 {
		t.Fatalf("the sum is %+v, and %+v after a reset", sum, again)
	}
	used(t, p, "SELECT * FROM orders WHERE customer_id = 7", 3, 0, time.Second)
	if list = p.Usages(); len(list) != 1 || list[0].Calls != 1 || list[0].Total != time.Second {
		t.Fatalf("counted again: %+v", list)
	}
}

// However many kinds of statements there are, what is kept is bounded; those in use stay, and one that comes back is there again.
func TestUsagesAreBounded(t *testing.T) {
	p := NewPlanner(PlannerConfig{})
	c := testCatalog(t)
	long := "SELECT * FROM orders WHERE customer_id = $1 -- " + strings.Repeat("ä", 2000)
	hot := p.Plan(c, appEnv, "SELECT * FROM orders WHERE customer_id = $1")
	cold := p.Plan(c, appEnv, long)
	cold.Used(0, 0, time.Second, 1, 0, false)
	total := uint64(1)
	for i := range 3 * maxUsages {
		now := time.Duration(i) * time.Second
		hot.Used(uint64(i), now, time.Second, 1, 0, false)
		p.usages.of("app", fmt.Sprint(i), func() string { return fmt.Sprint(i) }).last.Store(int64(now / time.Second))
		total++
	}
	if n := len(p.usages.list); n != maxUsages {
		t.Fatalf("%d are kept, %d should be", n, maxUsages)
	}
	find := func(part string) *Usage {
		for _, u := range p.Usages() {
			if strings.Contains(u.Form, part) {
				return &u
			}
		}
		return nil
	}
	if u := find("customer_id = $1"); u == nil || u.Calls != 3*maxUsages {
		t.Fatalf("the one in use has %+v", u)
	}
	if find("ä") != nil {
		t.Fatal("the one that was used first is still there")
	}
	cold.Used(0, 4*maxUsages*time.Second, time.Second, 1, 0, false)
	total++
	if u := find("ä"); u == nil || u.Calls != 1 || len(u.Form) > maxShown+3 {
		t.Fatalf("back again it has %+v", u)
	}
	if sum := p.Usage(); sum.Calls != total {
		t.Fatalf("the sum is %d of %d", sum.Calls, total)
	}
}

// Counting allocates nothing, and sessions on several processors count all.
func TestUsedBySeveral(t *testing.T) {
	p := NewPlanner(PlannerConfig{})
	plan := p.Plan(testCatalog(t), appEnv, "SELECT * FROM orders WHERE customer_id = $1")
	var wg sync.WaitGroup
	for session := range uint64(16) {
		wg.Go(func() {
			for i := range 1000 {
				plan.Used(session, time.Duration(i)*time.Millisecond, time.Duration(i), 1, 1, false)
			}
		})
	}
	wg.Wait()
	if u := p.Usages(); len(u) != 1 || u[0].Calls != 16_000 || u[0].Rows != 16_000 || u[0].Max != 999 {
		t.Fatalf("%+v", u)
	}
	if n := testing.AllocsPerRun(100, func() { plan.Used(1, time.Hour, time.Second, 1, 1, false) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkUsed(b *testing.B) {
	plan := NewPlanner(PlannerConfig{}).Plan(testCatalog(b), appEnv, "SELECT * FROM orders WHERE customer_id = $1")
	for b.Loop() {
		plan.Used(1, time.Second, time.Microsecond, 1, 1, false)
	}
}
