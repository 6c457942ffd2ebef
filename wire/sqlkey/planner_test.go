package sqlkey

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

var appEnv = &Env{Database: "app", SearchPath: "app, public", User: "alice"}

const hot = `select o.*, i.name from app.orders o join app.items i on i.customer_id = o.customer_id where o.customer_id = $1 order by o.id limit 10`

func TestPlanIsCachedByAllThatItStandsOn(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	first := p.Plan(c, appEnv, hot)
	if again := p.PlanBytes(c, &Env{Database: "app", SearchPath: "app, public", User: "alice"}, []byte(hot)); again != first {
		t.Error("the same text in an equal environment was planned twice")
	}
	if again := p.Plan(testCatalog(t), appEnv, hot); again != first {
		t.Error("an equal catalog voided the plan")
	}
	others := []*Env{
		{Database: "bare", SearchPath: "app, public", User: "alice"},
		{Database: "app", SearchPath: "public", User: "alice"},
		{Database: "app", SearchPath: "app, public", User: "bob"},
		{Database: "app", SearchPath: "app, public", User: "alice", Backslashes: true},
		{Database: "app", SearchPath: "app, public", User: "alice", Encoding: "LATIN1"},
	}
	for _, e := range others {
		if p.Plan(c, e, hot) == first {
			t.Errorf("%+v shares a plan with %+v", e, appEnv)
		}
	}
	if p.Plan(c, appEnv, hot+" ") == first {
		t.Error("another text has the same plan")
	}
	moved := NewCatalog(&rib.Ownership{}, map[string]DatabaseRule{"app": {Shard: "s"}}, nil)
	if plan := p.Plan(moved, appEnv, hot); plan.Target != Unsharded || plan.Shard != "s" {
		t.Errorf("planned for a catalog that is not in force: %+v", plan)
	}
	if s := p.Stats(); s.Plans != 8 || s.Misses != 8 || s.Bytes <= 0 {
		t.Errorf("%+v, want 8 plans and 8 misses", s)
	}
}

func TestPlanBytesKeepsNothingOfTheBuffer(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	buf := []byte("select * from app.users where name = 'bob'")
	plan := p.PlanBytes(c, appEnv, buf)
	want := string(buf)
	for i := range buf {
		buf[i] = 'x'
	}
	if plan.SQL != want || plan.Keys[0].Text != "name = 'bob'" {
		t.Errorf("the plan changed with the buffer: %q %q", plan.SQL, plan.Keys[0].Text)
	}
	if p.Plan(c, appEnv, want) != plan {
		t.Error("the cache changed with the buffer")
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	text := []byte(hot)
	p.PlanBytes(c, appEnv, text)
	if n := testing.AllocsPerRun(100, func() { p.PlanBytes(c, appEnv, text) }); n != 0 {
		t.Errorf("PlanBytes: %v allocations a hit", n)
	}
	if n := testing.AllocsPerRun(100, func() { p.Plan(c, appEnv, hot) }); n != 0 {
		t.Errorf("Plan: %v allocations a hit", n)
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	const bound = 1 << 20
	c, p := testCatalog(t), NewPlanner(PlannerConfig{MaxBytes: bound})
	first := p.Plan(c, appEnv, hot)
	for i := range 5000 {
		p.Plan(c, appEnv, fmt.Sprintf("select * from app.orders where customer_id = %d /* %s */", i, strings.Repeat("x", i%500)))
		if i%50 == 0 && p.Plan(c, appEnv, hot) != first {
			t.Fatalf("a statement in use was dropped after %d others", i)
		}
	}
	s := p.Stats()
	if s.Bytes > bound || s.Bytes < bound/2 {
		t.Errorf("%d bytes are kept, the bound is %d", s.Bytes, bound)
	}
	var sum int64
	for i := range p.cache.buckets {
		for j := range p.cache.buckets[i] {
			if e := p.cache.buckets[i][j].Load(); e != nil {
				sum += e.size
			}
		}
	}
	if sum != s.Bytes {
		t.Errorf("%d bytes are there, %d are counted", sum, s.Bytes)
	}
	big := "select '" + strings.Repeat("x", bound/4) + "'"
	p.Plan(c, appEnv, big)
	if after := p.Stats(); after.Bytes > bound || p.Plan(c, appEnv, big).SQL != big {
		t.Errorf("a large text broke the bound: %+v", after)
	}
}

func TestPlannerConcurrently(t *testing.T) {
	p := NewPlanner(PlannerConfig{MaxBytes: 64 << 10})
	catalogs := []*Catalog{testCatalog(t), NewCatalog(&rib.Ownership{}, map[string]DatabaseRule{"app": {Shard: "s"}}, nil)}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1500 {
				key := (i*7 + g) % 300
				sql := fmt.Sprintf("select * from app.orders where customer_id = %d", key)
				which := (i + g) % 2
				plan := p.Plan(catalogs[which], appEnv, sql)
				if plan.SQL != sql {
					t.Errorf("asked for %q, got %q", sql, plan.SQL)
				}
				if which == 0 && (plan.Target != Keyed || plan.Keys[0].Text != fmt.Sprintf("customer_id = %d", key)) || which == 1 && plan.Target != Unsharded {
					t.Errorf("%q: %+v", sql, plan)
				}
			}
		})
	}
	wg.Wait()
}

// TestDeepStatements sends what would overflow the C stack of the parser, or exhaust it, through the planner.
func TestDeepStatements(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	repeat := func(head, middle, tail string, n int) string { return head + strings.Repeat(middle, n) + tail }
	deep := map[string]string{
		"plus":      repeat("select 1", "+1", "", 200_000),
		"cast":      repeat("select 1", "::int", "", 100_000),
		"union":     repeat("select 1", " union all select 1", "", 40_000),
		"join":      repeat("select 1 from t", " cross join t", "", 60_000),
		"is null":   repeat("select 1", " is null", "", 100_000),
		"between":   repeat("select x", " between 1 and 2 is null", "", 40_000),
		"betweens":  "select x" + strings.Repeat(" between 1 and 2"+strings.Repeat(" is null", 100), 1000),
		"collate":   repeat("select a", ` collate "C"`, "", 60_000),
		"time zone": repeat("select a", " at time zone b", "", 60_000),
		"not":       repeat("select ", "not ", "true", 100_000),
		"minus":     repeat("select ", "- ", "1", 100_000),
		"minuses":   repeat("select ", "+-", "1", 100_000),
		"pluses":    repeat("select ", "+", "1", 500_000),
		"function":  repeat("select ", "f(", "1", 50_000) + strings.Repeat(")", 50_000),
		"subquery":  repeat("", "select (", "select 1", 20_000) + strings.Repeat(")", 20_000),
		"case":      repeat("select ", "case when ", "true", 40_000) + strings.Repeat(" then 1 end", 40_000),
		"array":     repeat("select ", "array[", "1", 50_000) + strings.Repeat("]", 50_000),
		"in a list": "select 1, " + repeat("1", "+1", "", 100_000) + ", 2",
		"arrow":     repeat("select a", "->'b'", "", 100_000),
	}
	for name, sql := range deep {
		plan := p.Plan(c, appEnv, sql)
		switch {
		case plan.Target == None && plan.Err.Code == pg.CodeStatementTooComplex && plan.Err.Hint != "":
		case plan.Syntax && strings.Contains(plan.Reason, "memory exhausted"): // the grammar's own bound
		default:
			t.Errorf("%s: %s", name, tell(plan))
		}
		if plan := p.Plan(c, &Env{Database: "legacy"}, sql); plan.Target != Unsharded && !plan.Syntax {
			t.Errorf("%s, to a database with one shard: %s", name, tell(plan))
		}
	}
	parens := repeat("select ", "(", "1", 10_000) + strings.Repeat(")", 10_000)
	if plan := p.Plan(c, appEnv, parens); plan.Target == Keyed || plan.Statements != 1 {
		t.Errorf("10,000 parentheses: %s", tell(plan))
	}
}

// TestWideStatements are large and harmless: they must not be taken for deep ones.
func TestWideStatements(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	repeat := func(head, middle, tail string, n int) string { return head + strings.Repeat(middle, n) + tail }
	for name, sql := range map[string]string{
		"list":   repeat("select * from app.orders where customer_id = 42 and id in (1", ",1", ")", 100_000),
		"rows":   repeat("insert into app.orders (customer_id, x) values (42, 'x')", ", (42, now() - interval '1 day')", "", 5_000),
		"and":    repeat("select * from app.orders where customer_id = 42", " and a + b = 1", "", 10_000),
		"or":     repeat("select * from app.orders where customer_id = 42 and (a = 1", " or a = 1 and b between 1 and 2", ")", 3_000),
		"case":   repeat("select case a", " when 1 then b + 1", " end from app.orders where customer_id = 42", 5_000),
		"texts":  "select * from app.orders where customer_id = 42 and a = '" + strings.Repeat("+1 union ", 50_000) + "'",
		"quotes": "select * from app.orders where customer_id = 42 -- " + strings.Repeat("1+1 union ", 20_000) + "\n /* " + strings.Repeat("join ", 20_000) + " */",
		"both":   repeat("select ", "f(", "1", 1_500) + strings.Repeat(",1", 50_000) + strings.Repeat(")", 1_500) + " from app.orders where customer_id = 42",
		"many":   strings.Repeat("update app.orders set x = x + 1 where customer_id = 42;", 2_000),
	} {
		if plan := p.Plan(c, appEnv, sql); plan.Target != Keyed {
			t.Errorf("%s: %.300s", name, tell(plan))
		}
	}
}

func TestLongStatements(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{MaxStatement: 1000})
	long := "insert into x values (" + strings.Repeat("1, ", 500) + "1)"
	plan := p.Plan(c, appEnv, long)
	if plan.Target != None || plan.Err.Code != pg.CodeProgramLimitExceeded || plan.Err.Hint == "" {
		t.Errorf("with a keyspace: %s", tell(plan))
	}
	plan = p.Plan(c, &Env{Database: "legacy"}, long)
	if plan.Target != Unsharded || plan.Shard != "shard_9" || plan.Intent != Write || plan.Session != SessPin {
		t.Errorf("without a keyspace: %s", tell(plan))
	}
	if plan := p.Plan(c, appEnv, "select 1\x00; drop table x"); plan.Target != None {
		t.Errorf("NUL: %s", tell(plan))
	}
	if plan := p.Plan(c, appEnv, "select '\xff'"); plan.Target != None || plan.Err.Code != pg.CodeCharacterNotInRepertoire {
		t.Errorf("not UTF-8: %s", tell(plan))
	}
}

// A text that is too long for its long strings alone is planned as if they were short, unless they decide something.
func TestLongStrings(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{MaxStatement: 1000})
	long := strings.Repeat("it''s 1, ", 300)
	for _, x := range []struct {
		sql    string
		target Target
		key    string
	}{
		{"insert into app.orders (customer_id, x) values (42, '" + long + "')", Keyed, "customer_id = 42"},
		{"insert into app.orders (x, customer_id) values (E'\\' " + long + "\\\\', 42)", Keyed, "customer_id = 42"},
		{"update app.orders set x = '\\x" + strings.Repeat("00ff", 400) + "'::bytea, y = e'" + long + "' where customer_id = 42 -- it's", Keyed, "customer_id = 42"},
		{"select * from app.orders where customer_id = 42 and x in ('" + long + "', '" + long + "') /* it's */", Keyed, "customer_id = 42"},
		{"select * from app.orders where customer_id = $1 and x = '" + long + "'", Keyed, "customer_id = $1"},
		{"select * from app.users where name = 'bob' and x = '" + long + "'", Keyed, "name = 'bob'"},
		{`select "it's" from app.users where name = 'bob' and x = '` + long + "'", Keyed, "name = 'bob'"},
		{"insert into elsewhere values ('" + long + "')", Unsharded, ""},
		{"select '" + long + "'", Any, ""},
		{"select '" + long + "' from app.orders", Many, ""},
		{"select * from app.users where name = '" + long + "'", None, ""},
		{"select * from app.users where name = 'bob' || '" + long + "'", Many, ""},
		{"select '" + long + "' from app.orders order by 1 offset 3", None, ""}, // what shards are asked holds it
		{"insert into app.users (name) values (E'" + long + "')", None, ""},
		{"select set_config('search_path', '" + long + "', false)", None, ""},
		{"do '" + long + " delete from orders'", None, ""},
		{"set search_path = '" + long + "'", None, ""},
		{"select * from app.orders where customer_id = 42 and x = $$" + long + "$$", None, ""},
		{"select * from app.orders where customer_id = 42 and x = U&'" + long + "'", None, ""},
		{"select * from app.orders where customer_id = 42 and x = E'\\'\n'" + long + "'", None, ""}, // one string
		{"select * from app.orders where customer_id = 42 and x = '" + long, None, ""},
	} {
		plan := p.Plan(c, appEnv, x.sql)
		key := ""
		if len(plan.Keys) > 0 {
			key = plan.Keys[0].Text
		}
		if plan.Target != x.target || key != x.key || plan.SQL != x.sql {
			t.Errorf("%.200s:\n%.600s", x.sql, tell(plan))
		}
		var values Constants
		if other := p.PlanQuery(c, appEnv, []byte(x.sql), &values); other.Target != x.target {
			t.Errorf("as a query: %.200s:\n%.600s", x.sql, tell(other))
		}
	}
}

func BenchmarkPlanHit(b *testing.B) {
	c, p := testCatalog(b), NewPlanner(PlannerConfig{})
	for i := range 1000 {
		p.Plan(c, appEnv, fmt.Sprintf("select %d", i))
	}
	text := []byte(hot)
	p.PlanBytes(c, appEnv, text)
	b.ReportAllocs()
	for b.Loop() {
		p.PlanBytes(c, appEnv, text)
	}
}

func BenchmarkPlanHitParallel(b *testing.B) {
	c, p := testCatalog(b), NewPlanner(PlannerConfig{})
	text := []byte(hot)
	p.PlanBytes(c, appEnv, text)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.PlanBytes(c, appEnv, text)
		}
	})
}

func BenchmarkPlanMiss(b *testing.B) {
	for name, sql := range map[string]string{"join": hot, "point": "select * from app.orders where customer_id = $1"} {
		b.Run(name, func(b *testing.B) {
			c, p := testCatalog(b), NewPlanner(PlannerConfig{})
			db := c.find("app")
			b.ReportAllocs()
			for b.Loop() {
				p.compile(db, appEnv, sql)
			}
		})
	}
}
