package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// What a tied session has made itself it means by its name, as long as it is there: afterwards the name is that of what all shards have.
func TestOwnNamesEnd(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		conn := r.connect(mode)
		run := func(list ...string) {
			t.Helper()
			for _, sql := range list {
				if _, err := conn.Exec(ctxOf(t), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
		}
		refused := func() {
			t.Helper()
			_, err := conn.Exec(ctxOf(t), "ALTER SEQUENCE numbers INCREMENT BY 7")
			wantCode(t, err, pg.CodeFeatureNotSupported)
			if _, sum := r.onShards(t, "SELECT count(*) FROM pg_sequence WHERE seqincrement = 7"); sum != 0 {
				t.Fatal("it was altered on some shard")
			}
		}
		run("CREATE SEQUENCE numbers", "CREATE TEMP TABLE ties (a int)")
		refused()
		run("CREATE TEMP SEQUENCE numbers", "ALTER SEQUENCE numbers INCREMENT BY 3", "DROP SEQUENCE numbers")
		refused()
		run("BEGIN", "CREATE TEMP SEQUENCE numbers", "ALTER SEQUENCE numbers INCREMENT BY 3", "ROLLBACK")
		refused()
		run("BEGIN", "SAVEPOINT s", "CREATE TEMP SEQUENCE numbers", "ROLLBACK TO s", "COMMIT")
		refused()
		run("CREATE TEMP SEQUENCE numbers", "BEGIN", "DROP SEQUENCE numbers", "ROLLBACK", "ALTER SEQUENCE numbers INCREMENT BY 3")
		run("ALTER SEQUENCE numbers RENAME TO others")
		refused()
		run("ALTER SEQUENCE others INCREMENT BY 5", "DROP SEQUENCE others")
		if mode == pgx.QueryExecModeSimpleProtocol {
			run("BEGIN; CREATE TEMP SEQUENCE numbers; ROLLBACK")
			refused()
		}
		if _, err := conn.Exec(ctxOf(t), "CREATE TEMP SEQUENCE numbers INCREMENT BY 0"); err == nil {
			t.Error("it was made")
		}
		refused()
		run("DROP TABLE ties", "DROP SEQUENCE numbers")
		r.busy(t, 0)
	}
}
