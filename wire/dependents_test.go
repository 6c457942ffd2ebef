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
