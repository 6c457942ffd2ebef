package sqlkey

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestAllShardsTogether: what several shards are asked, merged as Fan says or put together by Final, is what the statement gives on
// all rows. That is the promise of the target Many, checked against PostgreSQL over generated statements: the schema "whole" holds
// all rows, and shard_1, shard_2, shard_3 those of a third of the keys each.
func TestAllShardsTogether(t *testing.T) {
	m := newManyOracle(t)
	g := &manyGenerator{generator{r: rand.New(rand.NewPCG(*oracleSeed, 7))}}
	kinds := map[string]int{}
	for range *oracleN / 2 {
		sql := g.statement()
		if g.chance(40) { // and those of the other test: with subqueries of all kinds
			for sql = g.generator.statement(); !strings.HasPrefix(sql, "select") && !strings.HasPrefix(sql, "with"); {
				sql = g.generator.statement()
			}
		}
		kinds[m.check(t, sql)]++
	}
	t.Logf("%v, shards %v", kinds, m.asked)
	if kinds["many"] < *oracleN/8 {
		t.Errorf("too few statements to tell: %v", kinds)
	}
}

// TestManyByHand checks statements of each kind in the same way, and that none of them is refused.
func TestManyByHand(t *testing.T) {
	m := newManyOracle(t)
	for _, sql := range slices.Concat(byHand, renaming) {
		if kind := m.check(t, sql); kind != "many" {
			t.Errorf("%s: %s: %s", sql, kind, tell(m.planner.Plan(m.catalog, m.env, sql)))
		}
	}
}

// TestSeveralOutputsOfOneName: what GROUP BY means by a name that several outputs have is not guessed, where PostgreSQL calls it ambiguous.
func TestSeveralOutputsOfOneName(t *testing.T) {
	m := newManyOracle(t)
	for sql, ambiguous := range map[string]bool{
		"select x + 1 as y, x + 2 as y, count(*) from orders group by y":                          true,
		"select x + 1 as y, x + 2 as y, count(*) from orders group by rollup (y)":                 true,
		"select x + 1 as y, x + 1 as y, count(*) from orders group by y order by 1":               false,
		"select x as id, id as id, count(*) from orders group by id, x order by 1, 2":             false, // a column comes first
		"select x + 1 as y, x + 2 as y, count(*) from orders group by x + 1, x + 2 order by 1, 2": false,
	} {
		if !ambiguous {
			if kind := m.check(t, sql); kind != "many" {
				t.Errorf("%s: %s: %s", sql, kind, tell(m.planner.Plan(m.catalog, m.env, sql)))
			}
			continue
		}
		if _, err := m.ask("whole", sql); err == nil || !strings.Contains(err.Error(), "42702") {
			t.Errorf("%s: PostgreSQL says %v", sql, err)
		}
		if told := tell(m.planner.Plan(m.catalog, m.env, sql)); !strings.Contains(told, "several outputs") {
			t.Errorf("%s: %s", sql, told)
		}
	}
}

type manyOracle struct {
	ctx     context.Context
	conn    *pgx.Conn
	catalog *Catalog
	planner *Planner
	env     *Env
	asked   [4]int // how many statements needed no shard, one, two, three
	leaving bool   // each shard has all rows, and is to leave out those that it does not own
}

func newManyOracle(t *testing.T) *manyOracle {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	run := func(sql string) {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run(manySchema)
	for shard := 1; shard <= 3; shard++ {
		run(strings.NewReplacer("PART", fmt.Sprintf("shard_%d", shard), "REST", strconv.Itoa(shard-1)).Replace(`
			create schema PART;
			create table PART.orders (like whole.orders including all); insert into PART.orders select * from whole.orders where (customer_id - 1) / 3 = REST;
			create table PART.items (like whole.items including all); insert into PART.items select * from whole.items where (customer_id - 1) / 3 = REST;
			create table PART.notes (like whole.notes including all); insert into PART.notes select * from whole.notes where (cust - 1) / 3 = REST;`))
	}
	run("analyze")
	table := func(name, column string) rib.KeyedTable {
		return rib.KeyedTable{Schema: "whole", Name: name, Columns: []string{column}}
	}
	catalog := NewCatalog(&rib.Ownership{Keyspaces: []rib.Keyspace{{ID: 1, Name: "k", Database: "postgres", Method: "range", Types: []rib.Type{rib.TypeInt},
		Tables: []rib.KeyedTable{table("orders", "customer_id"), table("items", "customer_id"), table("notes", "cust")}}}}, map[string]DatabaseRule{"postgres": {}}, map[string][]Dependent{
		"postgres": { // of notes the columns are not known
			{Schema: "whole", Name: "orders", Kind: DependsColumns, OfName: `["customer_id","id","x","big","price","f","r","name","flag","at","gap"]`},
			{Schema: "whole", Name: "items", Kind: DependsColumns, OfName: `["customer_id","id","x"]`},
		}})
	return &manyOracle{ctx, conn, catalog, NewPlanner(PlannerConfig{}), &Env{Database: "postgres", SearchPath: "whole"}, [4]int{}, false}
}

const manySchema = `
	create schema whole;
	create table whole.orders (customer_id int, id int, x int, big bigint, price numeric(10,2), f float8, r real, name text, flag bool, at timestamp, gap interval, primary key (customer_id, id));
	create table whole.items (customer_id int, id int, x int);
	create table whole.notes (cust int, id int, x int);
	insert into whole.orders select k, i, nullif((k + i) % 4, 0), (k * 7919 + i) % 13, ((k * 31 + i * 17) % 100)::numeric / 4, k * 0.25 + i, i / 3.0,
		chr(97 + (k * i) % 5) || case when k % 2 = 0 then 'Z' else '' end, (k + i) % 3 = 0, timestamp '2024-01-01' + make_interval(hours => k * i), make_interval(mins => k + i)
		from generate_series(1, 9) k, generate_series(1, 4) i;
	insert into whole.items select k, i, nullif((k * i) % 3, 0) from generate_series(1, 8) k, generate_series(2, 4) i;
	insert into whole.items values (1, null, 1), (2, null, null), (3, 9, 2);
	insert into whole.notes select k, i + k, i from generate_series(2, 9) k, generate_series(0, 2) i;`

// rowsOfText are a statement's rows in text form; nil is NULL.
type manyRows struct {
	names []string
	types []uint32
	rows  [][][]byte
}

// ask runs a statement in a schema, and rolls it back.
func (m *manyOracle) ask(schema, sql string) (*manyRows, error) {
	conn := m.conn.PgConn()
	if _, err := conn.Exec(m.ctx, "begin; set local search_path = "+schema).ReadAll(); err != nil {
		return nil, err
	}
	defer func() { _, _ = conn.Exec(m.ctx, "rollback").ReadAll() }()
	about, err := conn.Prepare(m.ctx, "", sql, nil)
	if err != nil {
		return nil, err
	}
	r := conn.ExecPrepared(m.ctx, "", nil, nil, nil).Read()
	out := &manyRows{rows: r.Rows}
	for _, f := range about.Fields {
		out.names, out.types = append(out.names, f.Name), append(out.types, f.DataTypeOID)
	}
	return out, r.Err
}

// typeNames are the names of types.
func (m *manyOracle) typeNames(t *testing.T, oids []uint32) []string {
	names := make([]string, len(oids))
	for i, oid := range oids {
		if err := m.conn.QueryRow(m.ctx, "select format_type($1, null)", oid).Scan(&names[i]); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

var ordered = regexp.MustCompile(`(?i) order by [^()]*$`)

// check compares, and says what became of the statement: "many", "refused", "failed", "one".
func (m *manyOracle) check(t *testing.T, sql string) string {
	t.Helper()
	plan := m.planner.Plan(m.catalog, m.env, sql)
	switch {
	case plan.Syntax:
		t.Fatalf("the generator made what is no SQL: %s: %s", sql, plan.Reason)
	case plan.Target == None:
		return "refused"
	case plan.Target != Many:
		return "one"
	}
	want, err := m.ask("whole", sql)
	if err != nil {
		return "failed" // an ambiguous name, for one: wherever it runs
	}
	got, gathered, final, err := m.together(t, plan, sql)
	switch {
	case err != nil:
		t.Errorf("%s\n  %v\n%s", sql, err, tell(plan))
		return "wrong"
	case !slices.Equal(got.names, want.names) || !slices.Equal(got.types, want.types):
		t.Errorf("%s\n  columns %q %v, want %q %v\n%s", sql, got.names, got.types, want.names, want.types, tell(plan))
		return "wrong"
	}
	// Ties come in any order, and a limit takes any of them: with one, the order is all that is compared.
	isOrdered := ordered.MatchString(sql)
	a, b := lines(got, !isOrdered), lines(want, !isOrdered)
	if !slices.Equal(a, b) {
		t.Errorf("%s\n  shards %q\n  whole  %q\n%s (final: %v)", sql, a, b, tell(plan), final)
		return "wrong"
	}
	if plan.Fan.Final != "" && plan.Fan.Order != nil && !final { // Final alone must do as well
		if got, err = m.finish(t, plan, gathered); err != nil || !slices.Equal(lines(got, !isOrdered), b) {
			t.Errorf("%s\n  by Final %v\n  whole  %q\n%s", sql, err, b, tell(plan))
			return "wrong"
		}
	}
	return "many"
}

// lines are rows for comparison. Real numbers are rounded: sums of them depend on their order.
func lines(m *manyRows, sorted bool) []string {
	var out []string
	for _, row := range m.rows {
		var b strings.Builder
		for i, v := range row {
			text := string(v)
			if v == nil {
				text = "-"
			}
			if m.types[i] == 700 || m.types[i] == 701 {
				if f, err := strconv.ParseFloat(text, 64); err == nil {
					text = strconv.FormatFloat(math.Round(f*1e4)/1e4, 'g', 8, 64)
				}
			}
			b.WriteString(text + " ")
		}
		out = append(out, b.String())
	}
	if sorted {
		slices.Sort(out)
	}
	return out
}

// threeShards are those of the keys 1 to 3, 4 to 6, and 7 to 9.
type threeShards struct {
	ends [2]rib.Key
	sets [][3]bool
}

func (s *threeShards) Begin() { s.sets = append(s.sets, [3]bool{}) }

func (s *threeShards) Key(k rib.Key) error { return s.Range(k, append(slices.Clone(k), 0)) }

func (s *threeShards) Range(from, to rib.Key) error {
	for i := range 3 {
		after := i > 0 && len(to) > 0 && to.Compare(s.ends[i-1]) <= 0
		before := i < 2 && from.Compare(s.ends[i]) >= 0
		s.sets[len(s.sets)-1][i] = s.sets[len(s.sets)-1][i] || !after && !before
	}
	return nil
}

func (s *threeShards) found() (list []int) {
	for i := range 3 {
		if !slices.ContainsFunc(s.sets, func(set [3]bool) bool { return !set[i] }) {
			list = append(list, i+1)
		}
	}
	return list
}

// ends are where the second and the third shard begin.
func (m *manyOracle) ends(t *testing.T) (ends [2]rib.Key) {
	method, err := rib.MethodByName("range")
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []int64{4, 7} {
		if ends[i], err = method.AppendKey(nil, rib.Value{Type: rib.TypeInt, Int: k}); err != nil {
			t.Fatal(err)
		}
	}
	return ends
}

// others are the keys that a shard does not own.
func (m *manyOracle) others(t *testing.T, shard int) (gaps []Gap) {
	ends := m.ends(t)
	if shard > 1 {
		gaps = append(gaps, Gap{To: ends[shard-2]})
	}
	if shard < 3 {
		gaps = append(gaps, Gap{From: ends[shard-1]})
	}
	return gaps
}

// shards are those that the plan needs, or one if it needs none.
func (m *manyOracle) shards(t *testing.T, plan *Plan) []int {
	s := threeShards{ends: m.ends(t)}
	if _, err := plan.Shards(&s, nil, nil, true); err != nil {
		t.Fatal(err)
	}
	m.asked[len(s.found())]++
	if list := s.found(); len(list) > 0 {
		return list
	}
	return []int{2}
}

// together does by hand what the package scatter does.
func (m *manyOracle) together(t *testing.T, plan *Plan, sql string) (out, gathered *manyRows, final bool, err error) {
	f := plan.Fan
	text := f.SQL
	if text == "" {
		text = sql
	}
	gathered = &manyRows{}
	for _, shard := range m.shards(t, plan) {
		schema := fmt.Sprintf("shard_%d", shard)
		if m.leaving {
			leave, err := m.planner.Leave(m.catalog, m.env, plan)
			if err != nil {
				return nil, nil, false, err
			}
			schema, text = "whole", leave.SQL(m.others(t, shard))
		}
		part, err := m.ask(schema, text)
		if err != nil {
			return nil, nil, false, fmt.Errorf("shard_%d: %s: %w", shard, text, err)
		}
		gathered.names, gathered.types = part.names, part.types
		gathered.rows = append(gathered.rows, part.rows...)
	}
	mergeable := len(f.Order) > 0 || f.Final == ""
	for _, o := range f.Order {
		if c := m.orderColumn(f, gathered, o); !slices.Contains([]uint32{20, 21, 23, 1114}, gathered.types[c]) && !o.Bytes {
			mergeable = false
		}
	}
	if !mergeable {
		out, err = m.finish(t, plan, gathered)
		return out, gathered, true, err
	}
	merged := *gathered
	merged.rows = slices.Clone(gathered.rows)
	slices.SortStableFunc(merged.rows, func(a, b [][]byte) int {
		for _, o := range f.Order {
			c := m.orderColumn(f, gathered, o)
			if n := compareValues(a[c], b[c], gathered.types[c], o); n != 0 {
				return n
			}
		}
		return 0
	})
	if f.Offset.Set {
		merged.rows = merged.rows[min(int(f.Offset.Value), len(merged.rows)):]
	}
	if f.Limit.Set {
		merged.rows = merged.rows[:min(int(f.Limit.Value), len(merged.rows))]
	}
	return visible(f, &merged), gathered, false, nil
}

func visible(f *Fan, m *manyRows) *manyRows {
	n := len(m.names) - f.Hidden
	out := &manyRows{names: m.names[:n], types: m.types[:n]}
	for _, row := range m.rows {
		out.rows = append(out.rows, row[:n])
	}
	return out
}

func (m *manyOracle) orderColumn(f *Fan, rows *manyRows, o FanOrder) int {
	if o.Hidden {
		return len(rows.names) - f.Hidden + o.Column
	}
	return o.Column
}

func compareValues(a, b []byte, typ uint32, o FanOrder) int {
	n := 0
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil || b == nil:
		if (a == nil) == o.NullsFirst {
			return -1
		}
		return 1
	case typ == 20 || typ == 21 || typ == 23:
		x, _ := strconv.ParseInt(string(a), 10, 64)
		y, _ := strconv.ParseInt(string(b), 10, 64)
		n = cmp.Compare(x, y)
	default:
		n = strings.Compare(string(a), string(b))
	}
	if o.Desc {
		return -n
	}
	return n
}

// finish runs Final over rows.
func (m *manyOracle) finish(t *testing.T, plan *Plan, rows *manyRows) (*manyRows, error) {
	f := plan.Fan
	types := m.typeNames(t, rows.types)
	var columns, picks []string
	for i, name := range rows.names {
		columns = append(columns, fmt.Sprintf("c%d", i+1))
		if i < len(rows.names)-f.Hidden {
			picks = append(picks, fmt.Sprintf("rows.c%d as %s", i+1, pgx.Identifier{name}.Sanitize()))
		}
	}
	var values []string
	for _, row := range append([][][]byte{make([][]byte, len(types))}, rows.rows...) {
		var list []string
		for i, v := range row {
			if v == nil {
				list = append(list, "null::"+types[i])
				continue
			}
			list = append(list, rib.QuoteLiteral(string(v))+"::"+types[i])
		}
		values = append(values, "("+strings.Join(list, ", ")+")")
	}
	text := f.Final
	text = strings.ReplaceAll(text, FinalColumns, strings.Join(picks, ", "))
	for i := range rows.names {
		text = strings.ReplaceAll(text, fmt.Sprintf("%s%d}", FinalType, i+1), types[i])
		if i < f.Hidden {
			text = strings.ReplaceAll(text, fmt.Sprintf("%s%d}", FinalHidden, i+1), fmt.Sprintf("c%d", len(rows.names)-f.Hidden+i+1))
		}
	}
	relation := "(select * from (values " + strings.Join(values, ", ") + ") v offset 1) as rows(" + strings.Join(columns, ", ") + ")"
	text = strings.ReplaceAll(text, FinalRows, relation)
	out, err := m.ask("whole", text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return out, nil
}
