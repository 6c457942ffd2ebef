package sqlkey

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// ownPlan makes of a plan and its constants what the text's own plan must be.
func ownPlan(t testing.TB, plan *Plan, k *Constants, sql string) *Plan {
	t.Helper()
	own := *plan
	if own.usage = nil; !plan.shared {
		return &own
	}
	own.SQL, own.Keys, own.shared, own.bound = sql, nil, false, nil
	var texts []string
	for i := range plan.Keys {
		ref := plan.Keys[i]
		key, err := plan.AppendKey(nil, i, k, true)
		if err != nil {
			t.Fatalf("%q: %v", sql, err)
		}
		if slices.ContainsFunc(own.Keys, func(k KeyRef) bool { return string(k.Literal) == string(key) }) {
			continue
		}
		_, err = plan.AppendKey(nil, i, k, false)
		ref.Literal, ref.Text, ref.Parts, ref.origin, ref.nonASCII = key, plan.KeyText(i, k), nil, nil, err != nil
		texts = append(texts, ref.Text)
		own.Keys = append(own.Keys, ref)
	}
	if plan.Target == Keyed {
		own.Reason = "keyspace " + plan.KeyspaceName + " by " + strings.Join(texts, "; ")
	}
	return &own
}

// checkShared holds the plan by normal form against the text's own. It reports whether texts share it.
func checkShared(t testing.TB, p *Planner, c *Catalog, env *Env, sql string) bool {
	t.Helper()
	var k Constants
	plan := p.PlanQuery(c, env, []byte(sql), &k)
	want := p.compile(c.find(env.Database), env, sql)
	want.SQL = sql
	got := ownPlan(t, plan, &k, sql)
	if plan.shared && plan.Apart { // if its keys belong to one shard
		if want.Fan != nil && want.Fan.Split != nil {
			together := *want.Fan.together
			together.SQL, together.Statements = want.SQL, want.Statements
			want = &together
		}
		got.Apart, want.Apart = false, false
	}
	if got.Target == Keyed && (len(got.Keys) > 4 || got.Statements > 1) { // told in short
		got.Reason, want.Reason = "", ""
	}
	if plan.shared && want.Statements > 1 { // then a key may be there twice
		keys := want.Keys
		want.Keys = nil
		for _, k := range keys {
			if !slices.ContainsFunc(want.Keys, func(o KeyRef) bool { return string(o.Literal) == string(k.Literal) }) {
				want.Keys = append(want.Keys, k)
			}
		}
	}
	if plan.shared && want.Err != nil && want.Err.Code == pg.CodeStatementTooComplex {
		return true // it is no more complex than the text whose plan it shares
	}
	for i := range got.Keys { // of several columns: nobody reads a part's name
		if i < len(want.Keys) && len(got.Keys[i].Text) > 0 && want.Keys[i].column == "" {
			got.Keys[i].column = ""
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q: two plans:\n%s\n%s\n%+v\n%+v", sql, tell(got), tell(want), got, want)
	}
	return plan.shared
}

// TestSharedPlansOfTheCorpus plans every statement of the golden files by its normal form and by itself, and so with other
// constants, in both orders: whichever text comes first makes the plan.
func TestSharedPlansOfTheCorpus(t *testing.T) {
	c := testCatalog(t)
	r := rand.New(rand.NewPCG(1, 2))
	keyed, others, queries := 0, 0, 0
	for _, env := range []*Env{appEnv, {Database: "legacy"}, {Database: "bare", SearchPath: "app, pg_catalog"}, {Database: "app", SearchPath: "app", Encoding: "LATIN1"}, {Database: "app", SearchPath: "app", Backslashes: true}} {
		p, tries := NewPlanner(PlannerConfig{}), 2
		if env == appEnv {
			tries = 10
		}
		for _, sql := range wideCorpus(t) {
			queries++
			var n, m normal
			if !n.of(sql, env) || len(n.constants) == 0 {
				checkShared(t, p, c, env, sql)
				continue
			}
			texts := []string{sql}
			for range tries {
				if other := replaced(r, sql, &n); m.of(other, env) {
					texts = append(texts, other)
				}
			}
			r.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
			shared := 0
			checkTrees(t, sql, texts...)
			for _, text := range texts {
				if checkShared(t, p, c, env, text) {
					shared++
				}
			}
			if shared > 0 && n.of(sql, env) && p.compile(c.find(env.Database), env, sql).Target == Keyed {
				keyed++
			} else if shared > 0 {
				others++
			}
		}
	}
	t.Logf("%d statements: %d keyed and %d others were shared", queries, keyed, others)
	if keyed < 300 || others < 100 {
		t.Errorf("of %d statements only %d keyed and %d others were shared", queries, keyed, others)
	}
}

func TestConstantsShareAPlan(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	var k Constants
	first := p.PlanQuery(c, appEnv, []byte("select * from orders where customer_id = 1 and x = 'a'"), &k)
	buf := []byte("select * from orders where customer_id = 2 and x = 'b'")
	plan := p.PlanQuery(c, appEnv, buf, &k)
	if plan != first || plan.SQL != "" || plan.Keys[0].Text != "customer_id = ..." {
		t.Fatalf("not shared: %+v", plan)
	}
	for i := range buf {
		buf[i] = 'x'
	}
	key, err := plan.AppendKey(rib.Key("before"), 0, &k, true)
	want := p.Plan(c, appEnv, "select * from orders where customer_id = 2")
	if err != nil || string(key) != "before"+string(want.Keys[0].Literal) || plan.KeyText(0, &k) != "customer_id = 2" {
		t.Errorf("key %x of %s, want %x: %v", key, plan.KeyText(0, &k), want.Keys[0].Literal, err)
	}
	if s := p.Stats(); s.Misses != 2 || s.Plans != 2 {
		t.Errorf("%+v", s)
	}
	// What differs in more than constants does not share it.
	for _, sql := range []string{
		"select * from orders where customer_id = 1 and x = 2", "select * from orders where customer_id = '1' and x = 'a'",
		"select * from orders where customer_id = -1 and x = 'a'", "select * from orders where customer_id = 3000000000 and x = 'a'",
		"select * from orders where customer_id = 1.0 and x = 'a'", "select * from orders where customer_id  = 1 and x = 'a'",
		"select * from orders where customer_id = 1 and x = E'a'", "select * from orders where customer_id = 1 and y = 'a'",
		"select * from orders where customer_id = $1 and x = 'a'",
	} {
		if p.PlanQuery(c, appEnv, []byte(sql), &k) == first {
			t.Errorf("%s shares the plan", sql)
		}
		checkShared(t, p, c, appEnv, sql)
	}
	// Nor what stands in another environment.
	for _, e := range []*Env{{Database: "bare", SearchPath: "app, public", User: "alice"}, {Database: "app", SearchPath: "public", User: "alice"}, {Database: "app", SearchPath: "app, public", User: "alice", Backslashes: true}} {
		if p.PlanQuery(c, e, []byte("select * from orders where customer_id = 1 and x = 'a'"), &k) == first {
			t.Errorf("%+v shares the plan", e)
		}
	}
	if p.Plan(c, appEnv, "select * from orders where customer_id = \x00i and x = \x00s").Target != None {
		t.Error("a text that looks like a normal form was planned")
	}
}

func TestASharedPlanWithoutItsConstantsIsAnError(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	var k, other Constants
	plan := p.PlanQuery(c, appEnv, []byte("select * from orders where customer_id = 1"), &k)
	p.PlanQuery(c, appEnv, []byte("select * from users where name = 'x'"), &other)
	for _, args := range []Args{nil, &Constants{}, &other} {
		if key, err := plan.AppendKey(nil, 0, args, true); err == nil || len(key) > 0 {
			t.Errorf("%T: key %x", args, key)
		}
		if text := plan.KeyText(0, args); text != "customer_id = ..." {
			t.Errorf("%T: %s", args, text)
		}
	}
	p.PlanQuery(c, appEnv, []byte("begin"), &k)
	if _, err := plan.AppendKey(nil, 0, &k, true); err == nil {
		t.Error("constants outlived their statement")
	}
}

// TestAConstantThatIsNoKeyHasItsOwnPlan: it is told as without sharing, and others of its normal form still share a plan.
func TestAConstantThatIsNoKeyHasItsOwnPlan(t *testing.T) {
	c := testCatalog(t)
	for _, pair := range [][2]string{
		{"select * from orders where customer_id = '1'", "select * from orders where customer_id = 'x'"},
		{"select * from days where day = 2147483648::int", "select * from days where day = 2147483649::int"},
		{"select * from devices where id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "select * from devices where id = 'a0eebc99'"},
		{"insert into orders (customer_id) values ('1'), ('2')", "insert into orders (customer_id) values ('1'), ('x')"},
		{"select * from users where name = 'x'", "select * from users where name = '" + strings.Repeat("x", 2000) + "'"},
		// An outer join is an inner one only if the condition on its other side counts.
		{"select * from orders o left join items i on i.customer_id = o.customer_id where i.customer_id = '1'", "select * from orders o left join items i on i.customer_id = o.customer_id where i.customer_id = 'x'"},
	} {
		for first := range 2 {
			p := NewPlanner(PlannerConfig{})
			for i := range 4 {
				checkShared(t, p, c, appEnv, pair[(first+i)%2])
			}
		}
	}
}

// TestWhatConstantsDecideIsNotShared: statements whose plan says what a constant does.
func TestWhatConstantsDecideIsNotShared(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for _, sql := range []string{
		"set work_mem = 1", "set search_path = 'a'", "set time zone 1", "set local statement_timeout = 5", "set transaction isolation level serializable; select 1",
		"select set_config('search_path', 'app', false)", "select set_config('work_mem', '1', true)", "select pg_catalog.set_config('role', 'x', false)",
		"select 1; select set_config('a.b', 'x', true)", "select * from orders where customer_id = 1 and set_config('a.b', 'x', true) = 'x'",
		"begin; select 1; commit", "select pg_advisory_lock(1)", "explain (analyze 0) select 1", "do 'begin end'", "comment on table x is 'y'",
		"copy x from '/a'", "copy (select 1) to stdout", "prepare p as select 1", "execute p(1)", "fetch 5 from c", "create table x as select 1",
		"select x::float(10)", "select x::interval(3) from y", "listen a; select 1", "notify a, 'b'", "select * into temp x from y where a = 1",
		"select * from orders where customer_id in (1, 2)", "alter sequence s increment 5", "alter table x alter y set default 5", "vacuum (parallel 1) x",
	} {
		shared := checkShared(t, p, c, appEnv, sql)
		if shared && sql != "select x::interval(3) from y" { // a modifier is a constant like others, and says nothing of the plan
			t.Errorf("%s: shared", sql)
		}
		checkShared(t, p, c, appEnv, sql)
	}
	for _, sql := range []string{"select x::float(10), 1 from y", "select x::float(50), 1 from y", "select x::float(99), 1 from y"} {
		checkShared(t, p, c, appEnv, sql)
	}
}

func TestSharedHitAllocatesNothing(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for _, sql := range []string{
		point, "select * from orders where customer_id = -42", "select * from orders where customer_id = - - 42 and x = -1.5",
		"select * from orders where customer_id = -9223372036854775807", "select * from orders where customer_id = -42::bigint and x = 1.5", "select * from orders where customer_id = '42'::int8",
		"select * from users where name = 'O''Brien'", "select * from devices where id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
		"insert into stock (tenant, sku, n) values (1, 'a', 5), (2, 'b', 6)",
	} {
		text := []byte(sql)
		var k Constants
		key := make(rib.Key, 0, 64)
		run := func() {
			plan := p.PlanQuery(c, appEnv, text, &k)
			if !plan.shared {
				t.Fatalf("%s: not shared", sql)
			}
			for i := range plan.Keys {
				var err error
				if key, err = plan.AppendKey(key[:0], i, &k, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		run()
		if n := testing.AllocsPerRun(200, run); n >= 1 {
			t.Errorf("%s: %v allocations a hit", sql, n)
		}
	}
}

func TestSharedPlansAreBounded(t *testing.T) {
	const bound = 1 << 20
	c, p := testCatalog(t), NewPlanner(PlannerConfig{MaxBytes: bound})
	var k Constants
	for i := range 5000 {
		p.PlanQuery(c, appEnv, fmt.Appendf(nil, "select a%d from app.orders where customer_id = %d", i, i), &k)
		p.PlanQuery(c, appEnv, fmt.Appendf(nil, "select a from app.orders where customer_id = %d", i), &k)
	}
	if s := p.Stats(); s.Bytes > bound || s.Bytes < bound/2 || s.Misses != 5001 {
		t.Errorf("%+v", s)
	}
}

func TestSharedPlansConcurrently(t *testing.T) {
	p := NewPlanner(PlannerConfig{MaxBytes: 64 << 10})
	c := testCatalog(t)
	hash, err := rib.MethodByName("hash")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var k Constants
			for i := range 1500 {
				id := int64(i*7 + g)
				sql := fmt.Sprintf("select a%d from app.orders where customer_id = %d", i%50, id)
				plan := p.PlanQuery(c, appEnv, []byte(sql), &k)
				key, err := plan.AppendKey(nil, 0, &k, true)
				want, _ := hash.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: id})
				if err != nil || string(key) != string(want) {
					t.Errorf("%s: key %x, want %x: %v", sql, key, want, err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPlanMissNormal makes both plans of a text: its own and the shared one.
func BenchmarkPlanMissNormal(b *testing.B) {
	c, p := testCatalog(b), NewPlanner(PlannerConfig{})
	db := c.find("app")
	var n normal
	if !n.of(point, appEnv) {
		b.Fatal("doubt")
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, shared, _ := p.compileNormal(db, appEnv, point, &n); shared == nil {
			b.Fatal("not shared")
		}
	}
}

const point = `SELECT abalance FROM app.orders WHERE customer_id = 1234567;`

// BenchmarkPlanHitNormal is pgbench's query with another constant each time, and its key.
func BenchmarkPlanHitNormal(b *testing.B) {
	for name, format := range map[string]string{
		"point":  `SELECT abalance FROM app.orders WHERE customer_id = %d;`,
		"join":   `select o.*, i.name from app.orders o join app.items i on i.customer_id = o.customer_id where o.customer_id = %d order by o.id limit 10`,
		"insert": `INSERT INTO app.orders (customer_id, bid, delta, note, mtime) VALUES (%d, 7, -4711, 'nothing in particular', CURRENT_TIMESTAMP);`,
	} {
		b.Run(name, func(b *testing.B) {
			c, p := testCatalog(b), NewPlanner(PlannerConfig{})
			var texts [64][]byte
			for i := range texts {
				texts[i] = fmt.Appendf(nil, format, 1_000_000+i*7919)
			}
			var k Constants
			var key rib.Key
			p.PlanQuery(c, appEnv, texts[0], &k)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				plan := p.PlanQuery(c, appEnv, texts[i%len(texts)], &k)
				var err error
				if key, err = plan.AppendKey(key[:0], 0, &k, true); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
