package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/sqlkey"
)

func TestDependentsAreRefusedAtOnceAndAfterAReload(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	if _, err := conn.Prepare(ctxOf(t), "early", "SELECT * FROM notes"); err != nil {
		t.Fatal(err)
	}
	runs := func(want string) {
		t.Helper()
		for _, sql := range []string{"SELECT * FROM notes", "early"} {
			if _, err := conn.Exec(ctxOf(t), sql); codeOf(err) != want {
				t.Errorf("%s: %v, want SQLSTATE %q", sql, err, want)
			}
		}
	}
	runs("<nil>")
	r.server.SetDependents(map[string][]sqlkey.Dependent{
		"app": {{Schema: "public", Name: "notes", Kind: sqlkey.DependsView, OfSchema: "public", OfName: "orders"}},
	})
	runs("0A000")
	r.server.Reload(r.live)
	runs("0A000")
	r.server.SetDependents(nil)
	runs("<nil>")
}

// A name in GROUP BY that a table's column has means the column, as in PostgreSQL, where the columns are known; else it is refused.
func TestGroupByNamesAColumnAndAnOutput(t *testing.T) {
	r := newRig(t, rigOptions{})
	if _, err := r.connect(pgx.QueryExecModeExec).Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($1, 2, 'b')", r.keyOn("shard_1", 1)); err != nil {
		t.Fatal(err)
	}
	for _, mode := range queryModes {
		r.server.SetDependents(nil)
		conn := r.connect(mode)
		const sql = "SELECT 1 AS item, count(*) FROM orders GROUP BY item"
		_, err := conn.Exec(ctxOf(t), sql)
		if e := wantCode(t, err, "0A000"); e.Message != "GROUP BY names both a column and an output: item" || e.Hint == "" {
			t.Errorf("%v: %#v", mode, e)
		}
		r.server.SetDependents(map[string][]sqlkey.Dependent{
			"app": {{Schema: "public", Name: "orders", Kind: sqlkey.DependsColumns, OfName: `["customer_id", "id", "item"]`}},
		})
		if tag, err := conn.Exec(ctxOf(t), sql); err != nil || tag.String() != "SELECT 2" {
			t.Errorf("%v: %v %v", mode, tag, err)
		}
	}
}
