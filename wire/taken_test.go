package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// Whatever a client does to a server connection, those who get it next can prepare the same.
func TestPreparedByOthers(t *testing.T) {
	for name, sent := range map[string][]byte{
		"DISCARD ALL before a Parse":            msg(extended("DISCARD ALL"), parse("s", "SELECT 6789"), syncs()),
		"DISCARD ALL before a PREPARE":          msg(extended("DISCARD ALL"), extended("PREPARE p AS SELECT 6789"), syncs()),
		"a PREPARE that is executed twice":      msg(parse("", "PREPARE p AS SELECT 6789"), bind("", ""), run("", 0), run("", 0), syncs()),
		"DISCARD ALL before a temporary table":  msg(extended("DISCARD ALL"), extended("CREATE TEMP TABLE hidden (a int)"), syncs()),
		"DISCARD ALL before an advisory lock":   msg(extended("DISCARD ALL"), extended("SELECT pg_advisory_lock(6789)"), syncs()),
		"DISCARD ALL before a setting":          msg(extended("DISCARD ALL"), extended("SET work_mem = '15MB'"), syncs()),
		"DISCARD ALL before a hidden setting":   msg(extended("DISCARD ALL"), extended("DO $$ BEGIN PERFORM set_config('work_mem', '15MB', false); END $$"), syncs()),
		"a setting before a ROLLBACK that ends": msg(extended("SET work_mem = '15MB'"), extended("ROLLBACK"), syncs()),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
			tell(t, r.addr, "app", []step{{sent, "Z"}}) // and leaves
			for range 3 {
				conn := r.pgConn(t)
				if _, err := conn.Prepare(ctxOf(t), "s9", "SELECT 6789", nil); err != nil {
					t.Error(err)
				}
				if _, err := conn.Exec(ctxOf(t), "PREPARE p AS SELECT 6789").ReadAll(); err != nil {
					t.Error(err)
				}
				for sql, want := range map[string]string{
					"EXECUTE p": "6789", "SHOW work_mem": "4MB", "SELECT to_regclass('hidden') IS NULL": "t", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'": "0",
				} {
					if got, err := conn.Exec(ctxOf(t), sql).ReadAll(); err != nil || string(got[0].Rows[0][0]) != want {
						t.Errorf("%s: %v %v, want %s", sql, got, err, want)
					}
				}
				conn.Close(ctxOf(t))
			}
		})
	}
}

// A server connection that has a statement of which the node does not know harms nobody: a request that can be sent again is, and the
// connection is given up.
func TestNameTaken(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	exec := func(conn *pgconn.PgConn, sql string) error {
		_, err := conn.Exec(ctxOf(t), sql).ReadAll()
		return err
	}
	extended := func(conn *pgconn.PgConn, sql string) error {
		return conn.ExecParams(ctxOf(t), sql, nil, nil, nil, nil).Read().Err
	}
	parsed := func(conn *pgconn.PgConn, sql string) error {
		_, err := conn.Prepare(ctxOf(t), "s", sql, nil)
		return err
	}
	for i, c := range []struct {
		name string
		run  func(conn *pgconn.PgConn, sql string) error
		head string
		then string // runs it
	}{
		{"Parse", parsed, "", ""},
		{"PREPARE", exec, "PREPARE p AS ", "EXECUTE p"},
		{"PREPARE, extended", extended, "PREPARE p AS ", "EXECUTE p"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sql := fmt.Sprintf("SELECT %d", 700+i)
			prepares := func() *pgconn.PgConn { // leaves the name on a connection that does not know of it
				t.Helper()
				conn := r.pgConn(t)
				if err := c.run(conn, c.head+sql); err != nil {
					t.Fatal(err)
				}
				got, err := conn.Exec(ctxOf(t), "SELECT name, pg_backend_pid() FROM pg_prepared_statements WHERE statement LIKE '%"+sql+"%'").ReadAll()
				if err != nil || len(got[0].Rows) != 1 {
					t.Fatalf("%v %v", got, err)
				}
				name, pid := string(got[0].Rows[0][0]), string(got[0].Rows[0][1])
				conn.Close(ctxOf(t))
				if err := alone(t)[0].primary.Exec(ctxOf(t), "SELECT pg_terminate_backend("+pid+", 10000)"); err != nil {
					t.Fatal(err)
				}
				conn = r.pgConn(t)
				pgtest.Eventually(t, patience, func() error {
					return exec(conn, `DO $$ BEGIN EXECUTE 'PREPARE "`+name+`" AS SELECT 1'; END $$`)
				})
				return conn
			}
			conn := prepares() // for another session it would be taken away
			if err := c.run(conn, c.head+sql); err != nil {
				t.Fatal(err)
			}
			if c.then != "" {
				if got, err := conn.Exec(ctxOf(t), c.then).ReadAll(); err != nil || string(got[0].Rows[0][0]) != sql[len("SELECT "):] {
					t.Errorf("%v %v", got, err)
				}
			}
			conn.Close(ctxOf(t))

			conn = prepares()
			for _, sql := range []string{"BEGIN", "INSERT INTO notes VALUES (0, 'x')"} {
				if err := exec(conn, sql); err != nil {
					t.Fatal(err)
				}
			}
			if e := wantCode(t, c.run(conn, c.head+sql), pg.CodeSerializationFailure); e.Hint == "" {
				t.Error("no hint")
			}
			for _, sql := range []string{"ROLLBACK", "BEGIN"} {
				if err := exec(conn, sql); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.run(conn, c.head+sql); err != nil {
				t.Error(err)
			}
			conn.Close(ctxOf(t))
		})
	}
}

// What a client was told is prepared stays so, though what comes behind it is refused by the node: JDBC prepares its BEGIN so.
func TestRefusedBehindParse(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	words := tell(t, r.addr, "app", []step{
		{msg(parse("S_1", "BEGIN"), bind("", "S_1"), run("", 0), parse("", "PREPARE TRANSACTION 'x'"), bind("", ""), run("", 0), syncs()), "Z"},
		{simple("ROLLBACK"), "Z"},
		{msg(bind("", "S_1"), run("", 0), parse("", "SELECT 1"), bind("", ""), run("", 0), syncs()), "Z"},
		{msg(parse("s", "SELECT 2"), syncs(), simple("ROLLBACK")), "ZZ"},
		{msg(extended("DEALLOCATE s"), parse("", "PREPARE TRANSACTION 'x'"), syncs()), "Z"},
		{msg(parse("s", "SELECT 3"), syncs()), "Z"},
	})
	var codes []string
	for _, w := range words {
		if w[:2] == "E " {
			codes = append(codes, w[len("E ERROR "):][:5])
		}
	}
	if got := fmt.Sprint(codes); got != "[0A000 0A000]" {
		t.Errorf("errors %s in\n%q", got, words)
	}
}
