package sqlkey

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// corpus returns every statement of the golden files.
func corpus(t testing.TB) (all []string) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n\n") {
			sql, _, _ := strings.Cut(block, "\n----")
			for strings.HasPrefix(sql, "#") || strings.HasPrefix(sql, "@") {
				_, sql, _ = strings.Cut(sql, "\n")
			}
			if sql != "" {
				all = append(all, sql)
			}
		}
	}
	return all
}

// FuzzPlan: whatever the text, there is one plan, always the same, and none that contradicts itself.
func FuzzPlan(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	c, p := testCatalog(f), NewPlanner(PlannerConfig{MaxBytes: 1 << 20})
	f.Fuzz(func(t *testing.T, sql string) {
		for _, env := range []*Env{appEnv, {Database: "legacy"}, {Database: "bare", SearchPath: "app, pg_catalog"}, {Database: "app", Backslashes: true, Encoding: "SJIS"}} {
			plan := p.Plan(c, env, sql)
			checkPlan(t, plan)
			again := p.compile(c.find(env.Database), env, sql)
			again.SQL, again.usage = sql, plan.usage
			if !reflect.DeepEqual(plan, again) {
				t.Errorf("%q: two plans:\n%s\n%s", sql, tell(plan), tell(again))
			}
			if plan.SQL != sql {
				t.Errorf("asked for %q, planned %q", sql, plan.SQL)
			}
		}
		plan := p.Plan(c, appEnv, sql)
		if plan.Target == None || plan.Syntax {
			return
		}
		// No sharded table may be named anywhere in a statement that does not go by its key.
		tree, err := pgquery.Parse(sql)
		if err != nil {
			t.Fatalf("%q was planned and cannot be parsed: %v", sql, err)
		}
		walk(tree, func(n any) bool {
			rv, ok := n.(*pgquery.RangeVar)
			if ok && rv.GetSchemaname() == "app" && (rv.GetRelname() == "orders" || rv.GetRelname() == "users") && plan.Target != Keyed && plan.Target != Many {
				t.Errorf("%q names app.%s: %s", sql, rv.GetRelname(), tell(plan))
			}
			return true
		})
	})
}

// TestEveryTableOfTheCorpusIsSeen: the analysis visits exactly the tables that the tree holds.
func TestEveryTableOfTheCorpusIsSeen(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	path, _ := parsePath(appEnv.SearchPath, appEnv.User)
	checked := 0
	for _, sql := range corpus(t) {
		tree, err := pgquery.Parse(sql)
		if err != nil {
			continue
		}
		for _, s := range tree.GetStmts() {
			n := s.GetStmt()
			comp := &compiler{db: c.find("app"), env: appEnv, path: &path, known: p.known}
			a := comp.analysis()
			a.query(n, place{})
			if a.seen == 0 {
				continue
			}
			checked++
			if want := countTables(n); a.seen != want && a.problem == nil {
				t.Errorf("%s: %d tables seen, %d there", sql, a.seen, want)
			}
		}
	}
	if checked < 150 {
		t.Errorf("only %d statements checked", checked)
	}
}

// FuzzShorten: a text is the same to PostgreSQL with other words in the places of its long strings.
func FuzzShorten(f *testing.F) {
	long := strings.Repeat("x", minShortened)
	for _, sql := range corpus(f) {
		f.Add(sql)
		f.Add(strings.ReplaceAll(sql, "'", "'"+long))
	}
	f.Fuzz(func(t *testing.T, sql string) {
		short, ok := shorten(sql, "'other'")
		if !ok || unreadable(appEnv, sql) != nil || tooDeep(sql) {
			return
		}
		before, err := pgquery.Parse(sql)
		after, err2 := pgquery.Parse(short)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %v\n%q: %v", sql, err, short, err2)
		}
		if err != nil {
			return
		}
		// The trees differ in constants and places alone.
		kinds := func(tree *pgquery.ParseResult) (all []string) {
			walk(tree, func(n any) bool {
				all = append(all, reflect.TypeOf(n).String())
				return true
			})
			return all
		}
		if a, b := kinds(before), kinds(after); !reflect.DeepEqual(a, b) {
			t.Errorf("%q and %q have other trees:\n%v\n%v", sql, short, a, b)
		}
	})
}
