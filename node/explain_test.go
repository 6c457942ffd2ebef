package node

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestExplainRouteOnRealPostgreSQL: EXPLAIN (ROUTE) tells by any protocol where statements go, and reference tables are made and read.
func TestExplainRouteOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "CREATE TABLE calls (customer_id bigint NOT NULL, id int, item text)", "GRANT ALL ON calls TO app", "GRANT SELECT ON calls TO probe",
		"CREATE TABLE countries (code text PRIMARY KEY, name text, at timestamptz DEFAULT now())", "GRANT ALL ON countries TO app", "GRANT SELECT ON countries TO probe")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.calls", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3")
	reference := []string{"keyspace", "create", "app.countries", "--reference", "--shards", "shard_1,shard_2,shard_3"}
	if err := c.servers[1].ExecIn(t.Context(), "app", "INSERT INTO countries (code) VALUES ('xx')"); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := n.admin(reference...); code == 0 || !strings.Contains(errs, "it has 1 rows, and on shard_1 it has 0") {
		t.Errorf("exit %d: %s", code, errs)
	}
	c.everywhere(t, "DELETE FROM countries", "INSERT INTO countries VALUES ('de', 'Germany', '2024-01-01')")
	if out := n.mustAdmin(t, reference...); !strings.Contains(out, "whole on shard_1, shard_2, shard_3") {
		t.Error(out)
	}
	ks := n.sees(t, "app.countries")
	if got := ks.Tables[0].Columns; !slices.Equal(got, []string{"at"}) {
		t.Errorf("columns that must be given: %v", got)
	}
	n.sees(t, "app.calls")
	if out := n.mustAdmin(t, "keyspace", "list"); !strings.Contains(out, "public.countries") || !strings.Contains(out, "reference") {
		t.Error(out)
	}
	if out := n.mustAdmin(t, "keyspace", "show", "app.countries"); !strings.Contains(out, "copy 2") {
		t.Error(out)
	}
	conn := n.connect(t)
	lines := func(mode pgx.QueryExecMode, sql string, args ...any) string {
		t.Helper()
		rows, err := conn.Query(t.Context(), sql, append([]any{mode}, args...)...)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if d := rows.FieldDescriptions(); len(d) != 1 || d[0].Name != "QUERY PLAN" || rows.CommandTag().String() != "EXPLAIN" {
			t.Errorf("%s: %v, %v", sql, d, rows.CommandTag())
		}
		return strings.Join(list, "\n")
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
		for _, x := range []struct {
			sql  string
			args []any
			want []string
		}{
			{"EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = 42", nil, []string{"target    keyed, keyspace app.calls, customer_id = 42", "shard     shard_", "TRY", "BACKEND"}},
			{"EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = $1", []any{int64(42)}, []string{"target    keyed", "shard     shard_", "TRY"}},
			{"explain (route on, format text) UPDATE calls SET item = 'x' WHERE customer_id = 42", nil, []string{"intent    write (UPDATE)"}},
			{"EXPLAIN (ROUTE) SELECT * FROM countries", nil, []string{"target    any shard", "copies on shard_1, shard_2, shard_3"}},
			{"EXPLAIN (ROUTE) SELECT * FROM calls, plain", nil, []string{"target    none", "error     0A000", "hint      ", "a comment can say where it runs"}},
			{"/* rangefinder: shard=shard_2 */ EXPLAIN (ROUTE) SELECT * FROM calls", nil, []string{"target    unsharded", "shard     shard_2", "hint      a comment: shard=shard_2"}},
			{"EXPLAIN (ROUTE) DELETE FROM countries WHERE code = 'de'", nil, []string{"target    several shards", "shards    shard_1, shard_2, shard_3"}},
		} {
			got := lines(mode, x.sql, x.args...)
			for _, want := range x.want {
				if !strings.Contains(got, want) {
					t.Errorf("%v: %s lacks %q:\n%s", mode, x.sql, want, got)
				}
			}
		}
		var a RouteAnswer
		if err := json.Unmarshal([]byte(lines(mode, "EXPLAIN (ROUTE, FORMAT JSON) SELECT * FROM calls WHERE customer_id = 42")), &a); err != nil {
			t.Fatal(err)
		}
		want, err := n.Route(t.Context(), RouteQuery{SQL: "SELECT * FROM calls WHERE customer_id = 42", Database: "app", User: "app"})
		if err != nil || a.Shard != want.Shard || a.SQL != want.SQL || a.Reason != want.Reason || len(a.Candidates) != len(want.Candidates) {
			t.Errorf("JSON %+v\nwant %+v, %v", a, want, err)
		}
		for sql, state := range map[string]string{
			"EXPLAIN (ROUTE, ANALYZE) SELECT 1":     "42601",
			"EXPLAIN (ROUTE, FORMAT YAML) SELECT 1": "22023",
			"EXPLAIN (ROUTE) EXECUTE nosuch":        "26000",
			"EXPLAIN (ROUTE false) SELECT 1":        "42601", // PostgreSQL's own: it knows no such option
		} {
			_, err := conn.Exec(t.Context(), sql, mode)
			if code, text := sqlState(err); code != state {
				t.Errorf("%v: %s: %s %s", mode, sql, code, text)
			}
		}
	}
	// Without values.
	raw := conn.PgConn()
	d, err := raw.Prepare(t.Context(), "open", "EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = $1 AND item = $2", nil)
	if err != nil || !slices.Equal(d.ParamOIDs, []uint32{20, 25}) || len(d.Fields) != 1 {
		t.Fatalf("described as %+v, %v", d, err)
	}
	result := raw.ExecPrepared(t.Context(), "open", nil, nil, nil).Read()
	var text strings.Builder
	for _, row := range result.Rows {
		text.Write(row[0])
		text.WriteByte('\n')
	}
	if result.Err != nil || !strings.Contains(text.String(), "shards    shard_1, shard_2, shard_3") || !strings.Contains(text.String(), "have no value yet") {
		t.Errorf("without values: %v\n%s", result.Err, text.String())
	}
	// What the session has set and done.
	for _, x := range []struct{ before, sql, want string }{
		{"SET rangefinder.shard = 'shard_3'", "EXPLAIN (ROUTE) SELECT count(*) FROM calls", "hint      rangefinder.shard = shard_3"},
		{"RESET rangefinder.shard; ", "EXPLAIN (ROUTE) SELECT count(*) FROM calls", "target    "},
		{"PREPARE held(bigint) AS SELECT * FROM calls WHERE customer_id = $1", "EXPLAIN (ROUTE) EXECUTE held(42)", "shard     shard_"},
		{"BEGIN", "EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = 42", "target    keyed"},
		{"UPDATE calls SET item = 'x' WHERE customer_id = 42", "EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = 42", "session   The transaction is open on shard_"},
		{"COMMIT", "EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = 42", "session   The session has written to shard_"},
	} {
		if _, err := conn.Exec(t.Context(), x.before, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", x.before, err)
		}
		if got := lines(pgx.QueryExecModeSimpleProtocol, x.sql); !strings.Contains(got, x.want) {
			t.Errorf("after %s: %s lacks %q:\n%s", x.before, x.sql, x.want, got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(pgtest.Shared(t).Bin(), "psql"), n.dsn(appPassword), "-XAtc", "EXPLAIN (ROUTE) SELECT * FROM calls WHERE customer_id = 42").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "target    keyed, keyspace app.calls, customer_id = 42") {
		t.Errorf("psql: %v\n%s", err, out)
	}
}
