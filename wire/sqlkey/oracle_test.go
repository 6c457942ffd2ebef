package sqlkey

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var (
	oracleN    = flag.Int("oracle.n", 6000, "statements to generate")
	oracleSeed = flag.Uint64("oracle.seed", 1, "what they are generated from")
)

// TestOneShardIsEnough: what a statement gives on the shard of its keys alone is what it gives on all rows together. That is
// the whole promise of the target Keyed, checked against PostgreSQL over generated statements: the schema "whole" holds all
// rows, "part_3" those of the keys 1 and 2, and so on.
func TestOneShardIsEnough(t *testing.T) {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	run := func(sql string) {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run(wholeSchema)
	for set := 1; set < 8; set++ {
		var keys []string
		for k := 1; k <= 3; k++ {
			if set&(1<<k/2) != 0 {
				keys = append(keys, fmt.Sprint(k))
			}
		}
		in := strings.Join(keys, ", ")
		run(strings.NewReplacer("PART", fmt.Sprintf("part_%d", set), "KEYS", in).Replace(`
			create schema PART;
			create table PART.orders as select * from whole.orders where customer_id in (KEYS);
			create table PART.items as select * from whole.items where customer_id in (KEYS);
			create table PART.notes as select * from whole.notes where cust in (KEYS);`))
	}
	run("analyze")

	table := func(name, column string) rib.KeyedTable {
		return rib.KeyedTable{Schema: "whole", Name: name, Columns: []string{column}}
	}
	catalog := NewCatalog(&rib.Ownership{Keyspaces: []rib.Keyspace{{ID: 1, Name: "k", Database: "postgres", Method: "range", Types: []rib.Type{rib.TypeInt},
		Tables: []rib.KeyedTable{table("orders", "customer_id"), table("items", "customer_id"), table("notes", "cust")}}}}, nil, nil)
	planner, env := NewPlanner(PlannerConfig{}), &Env{Database: "postgres", SearchPath: "whole"}

	g := &generator{r: rand.New(rand.NewPCG(*oracleSeed, 0))}
	keyed, refused, failed, rows := 0, 0, 0, 0
	for range *oracleN {
		sql := g.statement()
		plan := planner.Plan(catalog, env, sql)
		if plan.Syntax {
			t.Fatalf("the generator made what is no SQL: %s: %s", sql, plan.Reason)
		}
		if plan.Target != Keyed {
			refused++
			continue
		}
		set := 0
		for i, k := range plan.Keys {
			for n := 1; n <= 3; n++ {
				if strings.HasSuffix(k.Text, fmt.Sprintf("= %d", n)) {
					set |= 1 << n / 2
				}
			}
			if set == 0 {
				t.Fatalf("%s: what key is %d: %+v", sql, i, k)
			}
		}
		want, err := answer(ctx, conn, "whole", sql)
		if err != nil {
			failed++ // an ambiguous name, for one: wherever it runs
			continue
		}
		got, err := answer(ctx, conn, fmt.Sprintf("part_%d", set), sql)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s\n  keys %v\n  on its shard %q, %v\n  on all rows %q", sql, plan.Reason, got, err, want)
		}
		keyed++
		rows += len(want)
	}
	t.Logf("%d statements checked on one shard, %d rows; %d refused, %d errors of PostgreSQL", keyed, rows, refused, failed)
	if keyed < *oracleN/5 || rows < keyed {
		t.Errorf("too few statements to tell: %d of %d, %d rows", keyed, *oracleN, rows)
	}
}

const wholeSchema = `
	create schema whole;
	create table whole.orders (customer_id int, id int, x int);
	create table whole.items (customer_id int, id int, x int);
	create table whole.notes (cust int, id int, x int);
	insert into whole.orders select k, i, nullif((k + i) % 4, 0) from generate_series(1, 3) k, generate_series(1, 3) i;
	insert into whole.items select k, i, nullif((k * i) % 3, 0) from generate_series(1, 3) k, generate_series(2, 4) i;
	insert into whole.items values (1, null, 1), (2, null, null), (3, 9, 2);
	insert into whole.notes select k, i + k, i from generate_series(1, 3) k, generate_series(0, 2) i;`

// answer runs a statement in one of the schemas and returns its rows, sorted. What it writes is rolled back.
func answer(ctx context.Context, conn *pgx.Conn, schema, sql string) ([]string, error) {
	results, err := conn.PgConn().Exec(ctx, "begin; set local search_path = "+schema+"; "+sql+"; rollback").ReadAll()
	if err != nil {
		_, rerr := conn.PgConn().Exec(ctx, "rollback").ReadAll()
		if rerr != nil {
			return nil, rerr
		}
		return nil, err
	}
	var rows []string
	for _, r := range results {
		for _, row := range r.Rows {
			var b strings.Builder
			for _, v := range row {
				if v == nil {
					v = []byte("-")
				}
				b.Write(v)
				b.WriteByte(' ')
			}
			rows = append(rows, b.String())
		}
	}
	slices.Sort(rows)
	return rows, nil
}

// generator makes statements over the three tables, with joins, subqueries and conditions of which some give keys.
type generator struct {
	r    *rand.Rand
	next int // of aliases
}

// source is a FROM item that a statement can name.
type source struct {
	alias, key string // key: its key column; "" if it has none
}

func (g *generator) oneOf(choices ...string) string { return choices[g.r.IntN(len(choices))] }

func (g *generator) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *generator) alias() string {
	g.next++
	return fmt.Sprintf("t%d", g.next)
}

func (g *generator) statement() string {
	g.next = 0
	switch {
	case g.chance(8):
		return g.update()
	case g.chance(8):
		return g.delete()
	case g.chance(8):
		return g.selects(nil, 2) + g.oneOf(" union ", " union all ", " except ", " intersect all ") + g.selects(nil, 2)
	case g.chance(8):
		return "with w as (" + g.selects(nil, 2) + ") " + g.oneOf("select * from w", "select w.*, u.id from w left join orders u on u.id = w.id and u.customer_id = "+g.constant()+" where u.customer_id = "+g.constant())
	}
	return g.selects(nil, 3)
}

// selects makes a query whose columns are id and x, so that queries can be combined.
func (g *generator) selects(outer []source, depth int) string {
	from, sources := g.from(outer, depth)
	where := g.where(sources, outer, depth)
	s := sources[g.r.IntN(len(sources))]
	switch {
	case g.chance(15):
		return fmt.Sprintf("select count(*) as id, sum(%s.x) as x from %s%s", s.alias, from, where)
	case g.chance(10):
		return fmt.Sprintf("select %s.id, max(%s.x) as x from %s%s group by %s.id having count(*) > 0", s.alias, s.alias, from, where, s.alias)
	case g.chance(10) && depth > 0:
		return fmt.Sprintf("select %s.id, (select sum(q.x) from (%s) q)::int as x from %s%s", s.alias, g.selects(append(outer, sources...), depth-1), from, where)
	}
	other := sources[g.r.IntN(len(sources))]
	return fmt.Sprintf("select %s.id, %s.x from %s%s", s.alias, other.alias, from, where)
}

func (g *generator) table() (string, source) {
	a := g.alias()
	switch g.r.IntN(3) {
	case 0:
		return "orders " + a, source{a, "customer_id"}
	case 1:
		return "items " + a, source{a, "customer_id"}
	}
	return "notes " + a, source{a, "cust"}
}

func (g *generator) item(outer []source, depth int) (string, source) {
	if depth > 0 && g.chance(12) {
		a := g.alias()
		return "(" + g.selects(outer, depth-1) + ") " + a, source{a, ""}
	}
	return g.table()
}

func (g *generator) from(outer []source, depth int) (string, []source) {
	text, first := g.item(outer, depth)
	sources := []source{first}
	for range g.r.IntN(3) {
		next, s := g.item(outer, depth)
		if depth > 0 && g.chance(8) {
			a := g.alias()
			next, s = "lateral ("+g.selects(append(slices.Clone(outer), sources...), depth-1)+") "+a, source{a, ""}
		} else if g.chance(12) {
			more, m := g.table()
			next = "(" + next + " " + g.oneOf("join", "left join", "right join", "full join") + " " + more + g.on([]source{s}, m) + ")"
			text, sources = text+" "+g.oneOf("join", "left join", "right join", "full join")+" "+next+g.on(sources, m), append(sources, s, m)
			continue
		}
		switch {
		case g.chance(15):
			text += ", " + next
		case g.chance(8):
			text += " " + g.oneOf("join", "left join", "right join", "full join") + " " + next + " using (customer_id)"
		case g.chance(8):
			text += " natural " + g.oneOf("join", "left join", "right join", "full join") + " " + next
		default:
			text += " " + g.oneOf("join", "join", "left join", "left join", "left join", "right join", "full join") + " " + next + g.on(sources, s)
		}
		sources = append(sources, s)
	}
	return text, sources
}

// on makes a join's condition, mostly one that PostgreSQL can use for every kind of join.
func (g *generator) on(left []source, right source) string {
	l := left[g.r.IntN(len(left))]
	var terms []string
	if l.key != "" && right.key != "" && g.chance(75) {
		terms = append(terms, fmt.Sprintf("%s.%s = %s.%s", l.alias, l.key, right.alias, right.key))
	}
	if len(terms) == 0 || g.chance(25) {
		terms = append(terms, fmt.Sprintf("%s.id = %s.id", l.alias, right.alias))
	}
	if right.key != "" && g.chance(12) {
		terms = append(terms, right.alias+"."+right.key+" = "+g.constant())
	}
	if l.key != "" && g.chance(12) {
		terms = append(terms, l.alias+"."+l.key+" = "+g.constant())
	}
	return " on " + strings.Join(terms, " and ")
}

// constant is mostly the same key, or little would be about one shard.
func (g *generator) constant() string { return g.oneOf("1", "1", "1", "1", "2", "3") }

func (g *generator) where(sources, outer []source, depth int) string {
	var terms []string
	for _, s := range sources {
		if s.key == "" {
			continue
		}
		switch {
		case g.chance(45):
			terms = append(terms, s.alias+"."+s.key+" = "+g.constant())
		case g.chance(10):
			terms = append(terms, s.key+" = "+g.constant())
		case g.chance(10):
			o := sources[g.r.IntN(len(sources))]
			if o.key != "" {
				terms = append(terms, fmt.Sprintf("%s.%s = %s.%s", s.alias, s.key, o.alias, o.key))
			}
		}
		if len(outer) > 0 && g.chance(50) {
			o := outer[g.r.IntN(len(outer))]
			if o.key != "" {
				terms = append(terms, fmt.Sprintf("%s.%s = %s.%s", o.alias, o.key, s.alias, s.key))
			}
		}
	}
	s := sources[g.r.IntN(len(sources))]
	switch g.r.IntN(12) {
	case 0:
		terms = append(terms, s.alias+".x is null")
	case 1:
		terms = append(terms, s.alias+".id > 1")
	case 2:
		terms = append(terms, fmt.Sprintf("(%s.id = 2 or %s.x = 1)", s.alias, s.alias))
	case 3, 4:
		if depth > 0 {
			terms = append(terms, g.oneOf("", "not ")+"exists ("+g.selects(append(slices.Clone(outer), sources...), depth-1)+")")
		}
	case 5:
		if depth > 0 {
			terms = append(terms, s.alias+".id "+g.oneOf("in", "not in")+" (select q.id from ("+g.selects(outer, depth-1)+") q)")
		}
	}
	if len(terms) == 0 {
		return ""
	}
	g.r.Shuffle(len(terms), func(i, j int) { terms[i], terms[j] = terms[j], terms[i] })
	return " where " + strings.Join(terms, " and ")
}

func (g *generator) update() string {
	text, s := g.table()
	sources := []source{s}
	from := ""
	if g.chance(60) {
		var more []source
		from, more = g.from(nil, 1)
		from, sources = " from "+from, append(sources, more...)
	}
	// Which of several matching rows is taken is not defined: only what was updated is compared.
	return fmt.Sprintf("update %s set x = 7%s%s returning %s.id, %s.x", text, from, g.where(sources, nil, 1), s.alias, s.alias)
}

func (g *generator) delete() string {
	text, s := g.table()
	sources := []source{s}
	from := ""
	if g.chance(60) {
		var more []source
		from, more = g.from(nil, 1)
		from, sources = " using "+from, append(sources, more...)
	}
	return fmt.Sprintf("delete from %s%s%s returning %s.id, %s.x", text, from, g.where(sources, nil, 1), s.alias, s.alias)
}
