package sqlkey

import (
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// countReflected counts the nodes of a tree by protobuf's own reflection: the reference that walk is held against.
func countReflected(m protoreflect.Message, counts map[string]int) {
	counts[string(m.Descriptor().Name())]++
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				countReflected(v.List().Get(i).Message(), counts)
			}
		case fd.Kind() == protoreflect.MessageKind:
			countReflected(v.Message(), counts)
		}
		return true
	})
}

func TestWalkMissesNothing(t *testing.T) {
	for _, sql := range []string{
		`select sum(x) over (partition by f(a) order by g(b) rows between h(1) preceding and current row) from t
		   tablesample system (k(3)) repeatable (l(4)) where exists (select 1 from u where u.a = $3) order by m(1) limit n(2)`,
		`insert into a (x) values (f($1)) on conflict (g(x)) where h(x) do update set x = (select 1 from b) returning i(x)`,
		`create table t (a int default f(1), check (g(a) > 0), exclude using gist (h(a) with =))`,
		`with recursive a as (select 1 from b union all select 2 from a) search depth first by x set y select * from a, lateral (select * from c) d`,
		`merge into t using s on f(t.a) = s.a when matched and g(1) then update set x = h(2) when not matched then insert values (i(3))`,
		`select * from json_table(f('{}'), '$' columns (a int path '$.a' default g(1) on empty)), xmltable('/r' passing h('<r/>') columns a int default i(3))`,
	} {
		tree, err := pgquery.Parse(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		want, got := map[string]int{}, map[string]int{}
		countReflected(tree.ProtoReflect(), want)
		walk(tree, func(n any) bool {
			got[string(n.(proto.Message).ProtoReflect().Descriptor().Name())]++
			return true
		})
		for name, n := range want {
			if got[name] != n {
				t.Errorf("%s: %d %s walked, %d there", sql, got[name], name, n)
			}
		}
		if want["FuncCall"] < 2 && want["RangeVar"] < 2 {
			t.Errorf("%s: a poor example: %v", sql, want)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	tree, err := pgquery.Parse(`select a, b from app.orders o where o.customer_id = $1 and status = 'open' order by a limit 10`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		walk(tree, func(any) bool { n++; return true })
	}
}
