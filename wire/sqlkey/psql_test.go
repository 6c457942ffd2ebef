package sqlkey

import (
	"os"
	"strings"
	"testing"
)

// TestPsqlCatalogQueries plans what psql 15 sends for \d, \dt, \l, \df and others, as `psql -E` shows it.
func TestPsqlCatalogQueries(t *testing.T) {
	text, err := os.ReadFile("testdata/psql15.sql")
	if err != nil {
		t.Fatal(err)
	}
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	total, command := 0, ""
	for _, block := range strings.Split(string(text), "----\n") {
		sql, next, _ := strings.Cut(block, "### ")
		if command != "" && strings.TrimSpace(sql) != "" {
			total++
			for _, env := range []*Env{appEnv, {Database: "bare"}} {
				plan := p.Plan(c, env, sql)
				if plan.Target != Any || !plan.Catalogs && !strings.Contains(sql, "pg_catalog.") {
					t.Errorf("%s: %s\n%s", command, tell(plan), sql)
				}
				// Sizes are asked of a function that PostgreSQL calls volatile.
				if plan.Intent != Read && !strings.Contains(sql, "_size(") {
					t.Errorf("%s: %s\n%s", command, tell(plan), sql)
				}
			}
			if plan := p.Plan(c, &Env{Database: "legacy"}, sql); plan.Target != Unsharded && !plan.Catalogs {
				t.Errorf("%s on a database with one shard: %s", command, tell(plan))
			}
		}
		if next != "" {
			for _, line := range strings.Split(next, "\n") {
				command = strings.TrimPrefix(line, "### ")
				if command != "" {
					break
				}
			}
		}
	}
	if total < 35 {
		t.Errorf("only %d statements", total)
	}
}
