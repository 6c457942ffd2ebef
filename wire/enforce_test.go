package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A session whose role has been dropped can give it up, keeps what else it has set, and costs nobody his connection.
func TestRoleThatWasDropped(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	primary := r.servers[0].primary
	other := r.connect(pgx.QueryExecModeSimpleProtocol)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		for _, sql := range []string{
			"RESET ROLE", "SET ROLE NONE", "SET ROLE TO DEFAULT", "DISCARD ALL", "SET ROLE app", "RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT",
		} {
			if err := primary.Exec(ctxOf(t), "CREATE ROLE gone", "GRANT gone TO app"); err != nil {
				t.Fatal(err)
			}
			conn := r.connect(mode)
			r.exec(conn, "SET work_mem = '5MB'", "SET ROLE gone", "SELECT 1")
			var pid, still string
			if err := other.QueryRow(ctxOf(t), "SELECT pg_backend_pid()::text").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			if err := primary.Exec(ctxOf(t), "DROP ROLE gone"); err != nil {
				t.Fatal(err)
			}
			refused := func(sql string, status byte) {
				t.Helper()
				if e := pgErr(t, conn, sql); e.Code != "22023" || e.Message != `role "gone" does not exist` || conn.PgConn().TxStatus() != status {
					t.Errorf("%s: %v, status %c, want %c", sql, e, conn.PgConn().TxStatus(), status)
				}
			}
			refused("SELECT 1", 'I')
			refused("SET work_mem = '6MB'", 'I') // who sets something else would run the next statement under another role
			r.exec(conn, "BEGIN")
			refused(sql, 'E')
			r.exec(conn, "ROLLBACK", "RESET ALL") // which leaves the role
			refused("SELECT 1", 'I')
			r.exec(conn, sql)
			find(t, conn, "SELECT current_user::text", "app")
			find(t, conn, "SHOW work_mem", "4MB") // by RESET ALL
			if err := other.QueryRow(ctxOf(t), "SELECT pg_backend_pid()::text").Scan(&still); err != nil || still != pid {
				t.Errorf("%s: connection %s became %s: %v", sql, pid, still, err)
			}
			conn.Close(ctxOf(t))
		}
	}
	// What else is set stays in force.
	if err := primary.Exec(ctxOf(t), "CREATE ROLE gone", "GRANT gone TO app"); err != nil {
		t.Fatal(err)
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	r.exec(conn, "SET work_mem = '5MB'", "SET ROLE gone", "SET lock_timeout = '7s'", "SELECT 1")
	r.exec(other, "SELECT 1")
	if err := primary.Exec(ctxOf(t), "DROP ROLE gone"); err != nil {
		t.Fatal(err)
	}
	r.exec(conn, "RESET ROLE")
	find(t, conn, "SELECT current_user || ' ' || current_setting('work_mem') || ' ' || current_setting('lock_timeout')", "app 5MB 7s")
	find(t, other, "SELECT current_user || ' ' || current_setting('work_mem') || ' ' || current_setting('lock_timeout')", "app 4MB 0")
}

// What a DO block has prepared or taken away matters to its own session alone.
func TestCodeThatPrepares(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	a, b := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeSimpleProtocol)
	if _, err := a.Prepare(ctxOf(t), "s", "SELECT ($1::int + 1)::text"); err != nil {
		t.Fatal(err)
	}
	r.exec(a, "PREPARE other AS SELECT 'still'")
	answers := func() {
		t.Helper()
		var got, other string
		r.exec(a, "BEGIN")
		if err := a.QueryRow(ctxOf(t), "s", 1).Scan(&got); err != nil || got != "2" {
			t.Fatalf("%q: %v", got, err)
		}
		if err := a.QueryRow(ctxOf(t), "EXECUTE other").Scan(&other); err != nil || other != "still" {
			t.Fatalf("%q: %v", other, err)
		}
		r.exec(a, "COMMIT")
	}
	answers()
	for _, code := range []string{"deallocate all", "prepare left_behind as select 1", "discard plans"} {
		r.exec(b, "DO $$ BEGIN EXECUTE '"+code+"'; END $$")
		answers()
		find(t, a, "SELECT count(*)::text FROM pg_prepared_statements WHERE name = 'left_behind'", "0")
		r.exec(b, "SELECT 1")
		answers()
	}
}

// What is set in front of a BEGIN in one pipeline holds in that block, and the connection is not taken for what it is not by whoever has it next.
func TestRoleInFrontOfABlock(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	if err := r.servers[0].primary.Exec(ctxOf(t), "CREATE ROLE borrowed", "GRANT borrowed TO app"); err != nil {
		t.Fatal(err)
	}
	conn, other := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
	for _, c := range []struct{ before, set, role, after string }{
		{"SET ROLE borrowed", "RESET ROLE", "app", "app"},
		{"RESET ROLE", "SET ROLE borrowed", "borrowed", "borrowed"},
		{"SET ROLE borrowed", "SET SESSION AUTHORIZATION app", "app", "app"},
	} {
		for _, end := range []string{"COMMIT", "ROLLBACK"} {
			r.exec(conn, c.before)
			want := c.after
			if end == "ROLLBACK" {
				want = map[string]string{"SET ROLE borrowed": "borrowed", "RESET ROLE": "app"}[c.before]
			}
			p := conn.PgConn().StartPipeline(ctxOf(t))
			for _, sql := range []string{c.set, "BEGIN", "SELECT current_user::text, count(*) FROM (SELECT 1 FROM pg_class LIMIT 1) AS c", end} {
				p.SendQueryParams(sql, nil, nil, nil, nil)
			}
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
			role := ""
			for range 4 {
				res, err := p.GetResults()
				if err != nil {
					t.Fatal(err)
				}
				got := res.(*pgconn.ResultReader).Read()
				if got.Err != nil {
					t.Fatal(got.Err)
				}
				if len(got.Rows) > 0 {
					role = string(got.Rows[0][0])
				}
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if role != c.role {
				t.Errorf("%s; BEGIN: the block runs as %s, want %s", c.set, role, c.role)
			}
			find(t, other, "SELECT current_user::text", "app")
			find(t, conn, "SELECT current_user::text", want)
			r.exec(conn, "DISCARD ALL")
		}
	}
}
