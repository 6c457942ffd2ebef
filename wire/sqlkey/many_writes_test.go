package sqlkey

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestWritesOnAllShards: after a statement that several shards carry out, they have together what one server with all rows has, and
// their rows of RETURNING and command tags are together its.
func TestWritesOnAllShards(t *testing.T) {
	m := newManyOracle(t)
	for _, sql := range writesByHand {
		if kind := m.checkWrite(t, sql); kind != "many" {
			t.Errorf("%s: %s: %s", sql, kind, tell(m.planner.Plan(m.catalog, m.env, sql)))
		}
	}
	g := &manyGenerator{generator{r: rand.New(rand.NewPCG(*oracleSeed, 8))}}
	kinds := map[string]int{}
	for range *oracleN / 10 {
		kinds[m.checkWrite(t, g.write())]++
	}
	t.Logf("%v, shards %v", kinds, m.asked)
	if kinds["many"] < *oracleN/30 {
		t.Errorf("too few statements to tell: %v", kinds)
	}
}

var writesByHand = []string{
	"update orders set x = x + 1",
	"update orders set x = 7 where id = 2 returning customer_id, id, x",
	"update orders set x = 7 where customer_id in (1, 9) returning *",
	"update orders o set x = i.x from items i where i.customer_id = o.customer_id and i.id = o.id and i.id = 3 returning o.customer_id, o.x",
	"update orders o set x = (select max(x) from items i where i.customer_id = o.customer_id)",
	"update orders set x = null where customer_id in (select customer_id from items where x = 1)",
	"delete from orders",
	"delete from orders where x > 1 returning customer_id",
	"delete from orders where customer_id between 3 and 4",
	"delete from orders o using items i where i.customer_id = o.customer_id and i.x = 1 returning o.customer_id, o.id",
	"delete from items where not exists (select 1 from notes where cust = items.customer_id)",
	"insert into items (customer_id, id, x) values (1, 10, 5), (5, 11, null), (9, 12, 7), (1, 13, 1 + 1)",
	"insert into items (id, customer_id) values (10, 1), (11, 9) returning customer_id, id, x",
	"insert into orders (customer_id, id, x) values (1, 1, 50), (9, 9, 51), (5, 1, 52) on conflict (customer_id, id) do update set x = excluded.x + orders.x returning customer_id, x",
	"insert into orders as o (customer_id, id) values (1, 1), (9, 9) on conflict do nothing returning o.customer_id",
	"insert into items (customer_id, x) values (3, default), (4, (select 1)), (3, length('it''s ), (\"')), (8, 2)",
	"with c as (select 3 as v) insert into items (customer_id, x) values (3, (select v from c)), (9, 4)",
	"insert into items (customer_id, id, x) select customer_id, id, x from orders where x = 1",
	"insert into notes (cust, id) select o.customer_id, count(*) from orders o join items i on i.customer_id = o.customer_id group by o.customer_id returning cust, id",
	"insert into notes (x, cust) select distinct o.x, i.customer_id from orders o join items i using (customer_id)",
	"insert into orders (customer_id, id, x) select customer_id, id, x from items where id is not null order by id on conflict (customer_id, id) do update set x = 99",
}

// write makes one of the generator's.
func (g *manyGenerator) write() string {
	g.next = 0
	switch g.r.IntN(4) {
	case 0:
		from, sources := g.joined()
		s := sources[g.r.IntN(len(sources))]
		return fmt.Sprintf("insert into items (customer_id, id, x) select %s.%s, %s.id, %s.x%s where %s", s.alias, s.key, s.alias, sources[0].alias, from, g.condition(sources))
	case 1:
		var rows []string
		for i := range 1 + g.r.IntN(5) {
			rows = append(rows, fmt.Sprintf("(%d, %d, %d)", 1+g.r.IntN(9), 100+i, g.r.IntN(5)))
		}
		return "insert into " + g.oneOf("items", "orders") + " (customer_id, id, x) values " + strings.Join(rows, ", ") + g.oneOf("", " returning id, customer_id")
	}
	text, s := g.table()
	sources := []source{s}
	more := ""
	if g.chance(50) {
		other, o := g.table()
		more = other
		sources = append(sources, o)
	}
	where := " where " + g.condition(sources)
	if more != "" {
		where += fmt.Sprintf(" and %s.%s = %s.%s", s.alias, s.key, sources[1].alias, sources[1].key)
	}
	if g.chance(50) {
		if more != "" {
			more = " from " + more
		}
		return fmt.Sprintf("update %s set x = %d%s%s returning %s.id", text, g.r.IntN(9), more, where, s.alias)
	}
	if more != "" {
		more = " using " + more
	}
	return fmt.Sprintf("delete from %s%s%s returning %s.id, %s.x", text, more, where, s.alias, s.alias)
}

// left is what a write leaves in a schema, what it returns, and how many rows it counts.
type left struct {
	rows     []string
	returned []string
	count    int64
}

// write runs a statement in a schema, and rolls it back.
func (m *manyOracle) write(schema, sql string, l *left) error {
	results, err := m.conn.PgConn().Exec(m.ctx, "begin; set local search_path = "+schema+"; "+sql+
		"; select 'o', customer_id, id, x from orders; select 'i', * from items; select 'n', * from notes; rollback").ReadAll()
	if err != nil {
		_, _ = m.conn.PgConn().Exec(m.ctx, "rollback").ReadAll()
		return err
	}
	l.returned = append(l.returned, rowTexts(results[2])...)
	l.count += results[2].CommandTag.RowsAffected()
	for _, r := range results[3:6] {
		l.rows = append(l.rows, rowTexts(r)...)
	}
	return nil
}

func rowTexts(r *pgconn.Result) (list []string) {
	for _, row := range r.Rows {
		list = append(list, fmt.Sprintf("%q", row))
	}
	return list
}

func (m *manyOracle) checkWrite(t *testing.T, sql string) string {
	t.Helper()
	plan := m.planner.Plan(m.catalog, m.env, sql)
	switch {
	case plan.Syntax:
		t.Fatalf("what is no SQL: %s: %s", sql, plan.Reason)
	case plan.Target == None:
		return "refused"
	case plan.Target != Many:
		return "one"
	case !plan.Fan.Writes:
		t.Errorf("%s: it writes: %s", sql, tell(plan))
	}
	var want, got left
	if err := m.write("whole", sql, &want); err != nil {
		return "failed"
	}
	asked := m.shards(t, plan)
	for shard := 1; shard <= 3; shard++ {
		text := sql
		switch {
		case !slices.Contains(asked, shard):
			text = "select where false"
		case plan.Fan.Split != nil:
			var params []int
			if text, params = plan.Fan.Split.Part(m.rowsOf(t, plan, shard)); len(params) > 0 {
				t.Errorf("%s: parameters out of nowhere: %s", sql, text)
			}
		case plan.Fan.SQL != "":
			text = plan.Fan.SQL
		}
		if err := m.write(fmt.Sprintf("shard_%d", shard), text, &got); err != nil {
			t.Errorf("%s\n  on shard_%d, %s: %v\n%s", sql, shard, text, err, tell(plan))
			return "wrong"
		}
	}
	for _, l := range []*left{&want, &got} {
		slices.Sort(l.rows)
		slices.Sort(l.returned)
	}
	if !slices.Equal(got.rows, want.rows) || !slices.Equal(got.returned, want.returned) || got.count != want.count {
		t.Errorf("%s\n  shards: %d %q\n  whole:  %d %q\n  the tables differ: %v\n%s", sql, got.count, got.returned, want.count, want.returned, !slices.Equal(got.rows, want.rows), tell(plan))
		return "wrong"
	}
	return "many"
}

// rowsOf are the rows of an INSERT that belong to a shard.
func (m *manyOracle) rowsOf(t *testing.T, plan *Plan, shard int) (rows []int) {
	for i := range plan.Fan.Split.Rows {
		s := threeShards{ends: m.ends(t)}
		s.Begin()
		k, err := plan.appendRef(nil, &plan.Fan.Split.Rows[i], nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if _ = s.Key(k); slices.Contains(s.found(), shard) {
			rows = append(rows, i)
		}
	}
	return rows
}

// TestPartsOfParameters: each shard's statement has the parameters that it needs, numbered from 1.
func TestPartsOfParameters(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	plan := p.Plan(c, appEnv, "insert into orders (customer_id, x, y) values ($1, $2, 'a'), ($3, '$9', $2 || $5) on conflict (customer_id) do update set x = $4 returning $1::int")
	if plan.Target != Many || plan.Fan.Split == nil {
		t.Fatal(tell(plan))
	}
	for _, x := range []struct {
		rows   []int
		sql    string
		params []int
	}{
		{[]int{0}, "INSERT INTO orders (customer_id, x, y) VALUES ($1, $2, 'a') ON CONFLICT (customer_id) DO UPDATE SET x = $3 RETURNING $1::int", []int{1, 2, 4}},
		{[]int{1}, "INSERT INTO orders (customer_id, x, y) VALUES ($1, '$9', $2 || $3) ON CONFLICT (customer_id) DO UPDATE SET x = $4 RETURNING $5::int", []int{3, 2, 5, 4, 1}},
		{[]int{1, 0}, "INSERT INTO orders (customer_id, x, y) VALUES ($1, '$9', $2 || $3), ($4, $2, 'a') ON CONFLICT (customer_id) DO UPDATE SET x = $5 RETURNING $4::int", []int{3, 2, 5, 1, 4}},
	} {
		if sql, params := plan.Fan.Split.Part(x.rows); sql != x.sql || !slices.Equal(params, x.params) {
			t.Errorf("%v: %s %v", x.rows, sql, params)
		}
	}
	var h heard
	if _, err := plan.Shards(&h, nil, args{{val: []byte("1")}, {}, {null: true}}, true); err == nil {
		t.Error("a row without a key belongs to no shard")
	}
}
