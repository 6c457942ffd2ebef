package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A text that is prepared behind a SET in the same pipeline, or text, and is read by what that sets, is nobody else's statement.
func TestLiteralsOfOthers(t *testing.T) {
	const month = "SELECT extract(month FROM date '1.2.2020')::text"
	for name, play := range map[string][]step{
		"pipeline":              {{msg(extended("SET DateStyle = 'German'"), parse("s", month), bind("", "s"), run("", 0), syncs()), "Z"}},
		"set_config":            {{msg(extended("SELECT set_config('datestyle', 'German', false)"), parse("s", month), bind("", "s"), run("", 0), syncs()), "Z"}},
		"PREPARE in a pipeline": {{msg(extended("SET DateStyle = 'German'"), extended("PREPARE p AS "+month), syncs()), "Z"}, {simple("EXECUTE p"), "Z"}},
		"PREPARE in a text":     {{simple("SET DateStyle = 'German'; PREPARE p AS " + month + "; EXECUTE p"), "Z"}, {simple("EXECUTE p"), "Z"}},
		"the end of a block": {{simple("BEGIN"), "Z"}, {simple("SELECT count(*) FROM notes"), "Z"}, {simple("SET DateStyle = 'SQL, DMY'"), "Z"}, {simple("COMMIT"), "Z"}, {simple("BEGIN"), "Z"}, {simple("SELECT count(*) FROM notes"), "Z"},
			{simple("SET DateStyle = 'ISO, MDY'"), "Z"}, {msg(extended("ROLLBACK"), parse("s", month), bind("", "s"), run("", 0), syncs()), "Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{poolSize: 1, shards: []shardServers{{primary: servers(t)[0].primary}}})
			other := r.connect(pgx.QueryExecModeExec)
			r.exec(other, "PREPARE p AS "+month)
			if _, err := other.Prepare(ctxOf(t), "s", month); err != nil {
				t.Fatal(err)
			}
			asked := func() {
				t.Helper()
				for _, sql := range []string{"EXECUTE p", "s"} {
					find(t, other, sql, "1")
				}
			}
			asked()
			told := tell(t, r.addr, "app", play)
			asked()
			if want := tell(t, r.servers[0].primary.Addr(), "app", play); fmt.Sprint(told) != fmt.Sprint(want) {
				t.Errorf("PostgreSQL and the router differ:\n%s", sideBySide(want, told))
			}
		})
	}
}
