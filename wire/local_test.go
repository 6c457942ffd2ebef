package wire_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// A session that is tied to its connection to the home shard alters there what is there alone: tables of no keyspace, and its own temporary relations. What may be
// on all shards, a view or a sequence, it is told to alter elsewhere, and nothing of it has happened on one shard.
func TestLocalDefinitionsOfTiedSessions(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			free, conn := r.connect(mode), r.connect(mode)
			run := func(conn *pgx.Conn, sql string) {
				t.Helper()
				if _, err := conn.Exec(ctxOf(t), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			for _, sql := range []string{"DROP VIEW IF EXISTS seen", "DROP SEQUENCE IF EXISTS counts", "DROP TABLE IF EXISTS lone", "CREATE VIEW seen AS SELECT 1 AS a", "CREATE SEQUENCE counts", "CREATE TABLE lone (a int)"} {
				run(free, sql)
			}
			for _, tie := range []string{"SELECT pg_advisory_lock(11)", "CREATE TEMPORARY TABLE mine (a int)"} {
				run(conn, tie)
				for _, sql := range []string{
					"GRANT SELECT ON seen TO PUBLIC", "GRANT SELECT ON counts TO PUBLIC", "GRANT SELECT ON lone, counts TO PUBLIC", "COMMENT ON COLUMN seen.a IS 'x'",
					"ALTER TABLE counts RENAME TO accounts", "ALTER TABLE seen OWNER TO CURRENT_USER", "ALTER TABLE IF EXISTS absent OWNER TO app",
				} {
					_, err := conn.Exec(ctxOf(t), sql)
					if e := wantCode(t, err, pg.CodeFeatureNotSupported); e == nil || !strings.Contains(e.Hint, "in another session") {
						t.Errorf("%s: %v", sql, err)
					}
				}
				const granted = "SELECT count(*) FROM pg_class WHERE relname IN ('seen', 'counts') AND relacl IS NOT NULL"
				if each, _ := r.onShards(t, granted); each[0]+each[1] != 0 {
					t.Fatalf("%v", each)
				}
				run(conn, "GRANT SELECT ON lone TO PUBLIC")
				run(conn, "ALTER TABLE lone ADD COLUMN b int")
				run(conn, "COMMENT ON COLUMN lone.b IS 'b'")
				run(conn, "ALTER TABLE lone DROP COLUMN b")
				// In a block: it fails as a whole.
				run(conn, "BEGIN")
				run(conn, "ALTER TABLE lone ADD COLUMN c int")
				_, err := conn.Exec(ctxOf(t), "GRANT SELECT ON counts TO PUBLIC")
				wantCode(t, err, pg.CodeFeatureNotSupported)
				_, err = conn.Exec(ctxOf(t), "SELECT 1")
				wantCode(t, err, pg.CodeInFailedTransaction)
				run(conn, "ROLLBACK")
				run(conn, "BEGIN")
				_, err = conn.Exec(ctxOf(t), "GRANT SELECT ON counts TO PUBLIC")
				wantCode(t, err, pg.CodeFeatureNotSupported)
				run(conn, "ROLLBACK")
				if each, _ := r.onShards(t, "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('lone') AND attname = 'c'"); each[0] != 0 {
					t.Fatal("what was rolled back is there")
				}
			}
			run(conn, "ALTER TABLE mine ADD COLUMN b int")
			run(conn, "GRANT SELECT ON mine TO PUBLIC")
			run(conn, "CREATE TEMPORARY VIEW own AS SELECT 1 AS a")
			run(conn, "GRANT SELECT ON own TO PUBLIC")
			run(conn, "COMMENT ON COLUMN own.a IS 'a'")
			if err := conn.Close(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
			run(free, "GRANT SELECT ON counts TO PUBLIC")
			run(free, "GRANT SELECT ON seen TO PUBLIC") // which names no sharded table, and so is on the home shard
			if each, _ := r.onShards(t, "SELECT count(*) FROM pg_class WHERE relname IN ('seen', 'counts') AND relacl IS NOT NULL"); each[0] != 2 || each[1] != 1 {
				t.Fatalf("%v", each)
			}
		})
	}
}
