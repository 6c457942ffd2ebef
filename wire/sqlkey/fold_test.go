package sqlkey

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// wholly is a text's plan without anything taken out of it.
func wholly(c *Catalog, p *Planner, sql string) *Plan {
	comp, tree, early := p.read(c.find("app"), appEnv, sql)
	if early != nil {
		return early
	}
	plan := comp.plan(tree)
	plan.place(tree, sql)
	plan.keepsLeave()
	return plan
}

// listed are n items, written as PostgreSQL's deparser writes them.
func listed(n int, item func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = item(i)
	}
	return strings.Join(list, ", ")
}

// TestFoldedPlansAreTheSame: what is planned without its long lists is what is planned with them.
func TestFoldedPlansAreTheSame(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	number := func(i int) string { return strconv.Itoa(i*7 - 20) }
	numbers, texts := listed(1200, number), listed(500, func(i int) string { return fmt.Sprintf("'it''s %d'", i) })
	pairs := listed(400, func(i int) string { return fmt.Sprintf("(%d, 'note %d', NULL)", i, i%7) })
	params := listed(400, func(i int) string { return fmt.Sprintf("($%d, $%d, -%d)", 2*i+1, 2*i+2, i+1) })
	uuids := listed(200, func(i int) string { return fmt.Sprintf("'00000000-0000-0000-0000-%012d'", i) })
	for _, sql := range []string{
		"SELECT id FROM app.orders WHERE customer_id IN (" + numbers + ")",
		"SELECT id FROM app.orders WHERE customer_id IN (" + numbers + ") ORDER BY id, note LIMIT 3 OFFSET 2",
		"SELECT count(*), sum(id) FROM app.orders WHERE customer_id IN (" + numbers + ") GROUP BY note HAVING count(*) > 1",
		"SELECT id IN (" + numbers + ") AS has, count(*) FROM app.orders GROUP BY id IN (" + numbers + ")",
		"SELECT DISTINCT note FROM app.orders WHERE id NOT IN (" + numbers + ")",
		"SELECT o.id FROM app.orders o JOIN app.items i ON i.customer_id = o.customer_id WHERE i.id IN (" + numbers + ") AND o.customer_id = 5",
		"SELECT id FROM app.orders WHERE customer_id = ANY (ARRAY[" + numbers + "])",
		"SELECT id FROM app.orders WHERE customer_id = 4 OR customer_id IN (" + numbers + ")",
		"SELECT name FROM app.users WHERE name IN (" + texts + ")",
		"SELECT id FROM app.devices WHERE id IN (" + uuids + ") FOR UPDATE",
		"SELECT 1 WHERE 5 IN (" + numbers + ")",
		"SELECT * FROM app.world WHERE id IN (" + numbers + ")",
		"UPDATE app.orders SET note = 'x' WHERE customer_id IN (" + numbers + ") RETURNING id",
		"UPDATE app.orders SET customer_id = 5 WHERE id IN (" + numbers + ") RETURNING id IN (" + numbers + ")",
		"DELETE FROM app.orders WHERE customer_id IN (" + numbers + ")",
		"DELETE FROM app.world WHERE id IN (" + numbers + ") AND clock_timestamp() > '2000-01-01'",
		"INSERT INTO app.orders (customer_id, note, id) VALUES " + pairs,
		"INSERT INTO app.orders (note, id, customer_id) VALUES " + params + " ON CONFLICT DO NOTHING RETURNING id IN (" + numbers + ")",
		"INSERT INTO app.orders (customer_id, note, id) VALUES " + pairs + ", (5, now()::text, 3), " + pairs,
		"INSERT INTO app.orders (id, note, x) VALUES " + pairs, // gives no key
		"INSERT INTO app.orders (note, id, customer_id) VALUES (1, 2, NULL), " + pairs,
		"INSERT INTO app.orders VALUES " + pairs,
		"INSERT INTO app.world (id, name, note) VALUES " + pairs + ", (1, clock_timestamp(), 2)",
		"INSERT INTO app.users (name, id) VALUES " + listed(400, func(i int) string { return fmt.Sprintf("('u%d', %d)", i, i) }),
		"WITH w AS (INSERT INTO app.orders (customer_id, note, id) VALUES " + pairs + " RETURNING id) SELECT * FROM w",
		"INSERT INTO elsewhere VALUES " + pairs,
	} {
		plan := p.compileFolded(c.find("app"), appEnv, sql)
		if plan == nil {
			if strings.Contains(sql, "(1, 2, NULL)") || strings.Contains(sql, "Gives no key") {
				continue
			}
			t.Errorf("%s...: nothing was taken out", sql[:100])
			continue
		}
		whole := wholly(c, p, sql)
		if !reflect.DeepEqual(plan, whole) {
			t.Errorf("%s...: folded\n%.2000s\nas a whole\n%.2000s", sql[:100], tell(plan), tell(whole))
		}
		if plan.Target != Many {
			continue
		}
		plan.SQL, whole.SQL = sql, sql
		l, err := p.Leave(c, appEnv, plan)
		comp, tree, _ := p.read(c.find("app"), appEnv, sql)
		comp.leaves = new(leaving)
		again := comp.plan(tree)
		if (err == nil) != (comp.leaves.err == nil && comp.leaves.text != "" && alike(whole.Fan, again.Fan)) {
			t.Errorf("%s...: leaving rows out: %v, as a whole %v", sql[:100], err, comp.leaves.err)
		} else if err == nil && !strings.HasPrefix(comp.leaves.text, l.pieces[0]) {
			t.Errorf("%s...: leaving rows out, it is other words", sql[:100])
		}
	}
}

// What is written otherwise than usual is taken out with the same meaning, or stays.
func TestFoldDoubts(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	many := listed(1200, strconv.Itoa)
	for _, x := range []struct {
		sql   string
		taken bool
	}{
		{"select id from app.orders where customer_id in (\n" + strings.ReplaceAll(many, ", ", " ,\n\t") + " )", true},
		{"select id from app.orders where customer_id IN(" + many + ", null, '7', '8'::int8)", true},
		{"select id from app.orders where customer_id in (" + many + ", 1.5)", true}, // which makes it no condition on the key
		{"select id from app.orders where customer_id in (" + many + ", /* 5 */ 5)", false},
		{"select id from app.orders where customer_id in (" + many + ", 5 + 5)", false},
		{"select id from app.orders where customer_id in (" + many + ", 5::bigint)", true}, // and is then read as a whole
		{"select id from app.orders where customer_id in (" + many + ", -5::int8)", false},
		{"select id from app.orders where customer_id in (" + many + ", 0x1f)", false},
		{"select id from app.orders where customer_id in (" + many + ", 'a'\n'b')", false},
		{"select id from app.orders where customer_id in (" + many + ", 'now')", false},
		{"select id from app.orders where customer_id in (select " + many + ")", false},
		{"select id from app.orders where (1, customer_id) in (" + listed(700, func(i int) string { return fmt.Sprintf("(1, %d)", i) }) + ")", false},
		{"select id from app.orders o join (values " + listed(700, func(i int) string { return fmt.Sprintf("(%d, 1)", i) }) + ") v (a, b) on v.a = o.id where customer_id = 1", true},
		{"select id from app.orders where customer_id in (" + many + ") and note = 'rangefinder_fold_1'", false},
		{"select 'x' in (" + many + ") from app.orders where customer_id = 1; select 1", true},
		{"insert into app.orders (customer_id, id) values " + listed(400, func(i int) string { return fmt.Sprintf("(%d, %d)", i, i) }) + ", (1, default)", true},
		{"insert into app.orders (customer_id, id) values " + listed(400, func(i int) string { return fmt.Sprintf("(%d, %d)", i, i) }) + ", (1, 2, 3)", true},
	} {
		if f := foldLists(x.sql); (f != nil) != x.taken {
			t.Errorf("%.60s...%s: taken out: %v", x.sql, x.sql[len(x.sql)-20:], f != nil)
		}
		plan, whole := p.compile(c.find("app"), appEnv, x.sql), wholly(c, p, x.sql)
		if plan.Target != whole.Target || !reflect.DeepEqual(plan.Err, whole.Err) || !reflect.DeepEqual(plan.Keys, whole.Keys) || plan.NumParams != whole.NumParams ||
			plan.Fan != nil && (!reflect.DeepEqual(plan.Fan.Within, whole.Fan.Within) || plan.Fan.Split != nil && !reflect.DeepEqual(plan.Fan.Split.Rows, whole.Fan.Split.Rows)) {
			t.Errorf("%.60s...%s: folded\n%.2000s\nas a whole\n%.2000s", x.sql, x.sql[len(x.sql)-20:], tell(plan), tell(whole))
		}
	}
}

// FuzzFold: what is taken out of a text are the items that PostgreSQL's parser finds there, and what our lexer makes of them is what the planner makes of
// the parser's.
func FuzzFold(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	r := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"1", "-2", "- 3", "'x'", "'it''s'", "null", "TRUE", "$3", "4::int8", "'2024-01-01'::date", "1.5", "2147483648", "default", "f(1)", "'a' 'b'", "E'\\n'", "/* c */ 1", "--1\n2"}
	for range 200 {
		item := func(int) string { return kinds[r.IntN(len(kinds))] }
		f.Add("select x in (" + listed(1+r.IntN(6), item) + ") , array [" + listed(1+r.IntN(4), item) + "] from t")
		f.Add("insert into t (a, b) values " + listed(1+r.IntN(6), func(int) string { return "(" + listed(1+r.IntN(2), item) + ")" }) + " returning 1")
	}
	f.Fuzz(func(t *testing.T, sql string) {
		folded := foldFrom(sql, 1)
		if folded == nil || unreadable(appEnv, sql) != nil || tooDeep(sql) || tooDeep(folded.text) {
			return
		}
		tree, err := pgquery.Parse(folded.text)
		if err != nil || !folded.placed(tree) {
			return
		}
		want, err := pgquery.Parse(sql)
		if err != nil {
			t.Fatalf("%q: %v, but not %q", sql, err, folded.text)
		}
		expand(t, folded, tree)
		if !proto.Equal(cloned(tree), cloned(want)) {
			t.Errorf("%q: with the lists put back %q is another statement", sql, folded.text)
		}
	})
}

// expand puts the lists back into a parse tree, item by item.
func expand(t *testing.T, f *fold, tree *pgquery.ParseResult) {
	path := &path{builtinsFirst: true}
	node := func(it foldItem) *pgquery.Node {
		text := f.sql[it.at.start:it.end]
		one, err := pgquery.Parse("select " + text)
		if err != nil {
			t.Fatalf("%q, an item of %q: %v", text, f.sql, err)
		}
		n := one.GetStmts()[0].GetStmt().GetSelectStmt().GetTargetList()[0].GetResTarget().GetVal()
		a, problem := evaluate(n, path)
		b, also := f.constant(&it, path)
		if (problem == nil) != (also == nil) && !f.doubt || problem == nil && also == nil && !reflect.DeepEqual(a, b) {
			t.Errorf("%q: the parser %+v (%v), the lexer %+v (%v)", text, a, problem, b, also)
		}
		f.doubt = false
		return n
	}
	list := func(items []*pgquery.Node) []*pgquery.Node {
		if len(items) != 2 || f.of(items[1]) == nil {
			return items
		}
		l := f.of(items[1])
		items = items[:1]
		for i := l.start; i < l.end; i = endOfSpace(f.sql, min(endOfSpace(f.sql, i)+1, len(f.sql))) {
			it, ok := f.item(i)
			if !ok {
				t.Fatalf("%q: no item at %d", f.sql, i)
			}
			items = append(items, node(it))
			i = it.end
		}
		if len(items) != l.count+1 {
			t.Errorf("%q: %d items, %d were said to be there", f.sql, len(items)-1, l.count)
		}
		return items
	}
	walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *pgquery.A_Expr:
			if l := n.GetRexpr().GetList(); l != nil {
				l.Items = list(l.Items)
			}
		case *pgquery.A_ArrayExpr:
			n.Elements = list(n.Elements)
		case *pgquery.InsertStmt:
			s := n.GetSelectStmt().GetSelectStmt()
			var rows []*pgquery.Node
			for _, row := range s.GetValuesLists() {
				l := f.rowsOf(row)
				if l == nil {
					rows = append(rows, row)
					continue
				}
				f.eachRow(l, func(items []foldItem, _, _ int) {
					var list []*pgquery.Node
					for _, it := range items {
						list = append(list, node(it))
					}
					rows = append(rows, pgquery.MakeListNode(list))
				})
			}
			if s != nil {
				s.ValuesLists = rows
			}
		}
		return true
	})
}
