package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// noticed connects and collects the SQLSTATEs of the notices that come.
func (r *rig) noticed(mode pgx.QueryExecMode) (*pgx.Conn, func() []string) {
	r.t.Helper()
	var mu sync.Mutex
	var codes []string
	cfg, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		mu.Lock()
		defer mu.Unlock()
		codes = append(codes, n.Code)
	}
	conn, err := pgx.ConnectConfig(ctxOf(r.t), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(codes)
	}
}

// What PostgreSQL says when another of its processes has crashed.
var crashed = pg.AppendNotice(nil, &pg.Error{Severity: "WARNING", Code: pg.CodeCrashShutdown, Message: "terminating connection because of crash of another server process"})

// A server that says that it ends the connection, and ends it, has answered nothing: a plain read of which no byte has reached the
// client goes on elsewhere, and its client sees neither the words nor an error.
func TestServerSaysThatItEnds(t *testing.T) {
	columns := pg.AppendRowDescription(nil, []pg.Field{{Name: "count"}})
	parsed := append([]byte{'1', 0, 0, 0, 4, '2', 0, 0, 0, 4}, columns...)
	for name, words := range map[string][]byte{
		"crash":    crashed,
		"shutdown": pg.AppendNotice(nil, &pg.Error{Severity: "WARNING", Code: pg.CodeAdminShutdown, Message: "terminating connection due to immediate shutdown command"}),
		"fatal":    pg.AppendError(nil, &pg.Error{Severity: "FATAL", Code: pg.CodeAdminShutdown, Message: "terminating connection due to administrator command"}),
		"both":     append(bytes.Clone(crashed), pg.AppendError(nil, &pg.Error{Severity: "FATAL", Code: pg.CodeAdminShutdown, Message: "x"})...),
		"half":     append(bytes.Clone(crashed), 'E', 0, 0, 0, 50, 'S'),
	} {
		t.Run(name, func(t *testing.T) {
			bothAtOnce(t, func(t *testing.T, buffered bool) {
				for mode, first := range map[pgx.QueryExecMode][]byte{pgx.QueryExecModeSimpleProtocol: columns, pgx.QueryExecModeExec: parsed} {
					for alone, send := range map[string][]byte{"alone": words, "behind columns": append(bytes.Clone(first), words...)} {
						t.Run(mode.String()+" "+alone, func(t *testing.T) {
							fake := fakeServer(t, servers(t)[0].primary.SystemID(), firstRequest, pgtest.SendBytes(send), untilTaken, pgtest.Close())
							r := behindFake(t, rigOptions{tls: buffered}, fake)
							conn, notices := r.noticed(mode)
							n := -1
							if err := conn.QueryRow(ctxOf(t), "SELECT count(*) FROM notes").Scan(&n); err != nil || n != 0 {
								t.Errorf("%d rows, %v", n, err)
							}
							if got := notices(); len(got) > 0 {
								t.Errorf("notices %v", got)
							}
							if r.counts.failedOver("shard_1-fake") == 0 {
								t.Error("the fake was not asked")
							}
						})
					}
				}
			})
		})
	}
}

// What may not be repeated gets its error as before, and the server's words with it.
func TestServerSaysThatItEndsAndNothingIsRepeated(t *testing.T) {
	row := pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}})
	row = append(row, 'D', 0, 0, 0, 11, 0, 1, 0, 0, 0, 1, '7')
	for name, c := range map[string]struct {
		before string // a statement that comes first
		sql    string
		rows   []byte // that come first
		code   string
	}{
		"a transaction": {before: "BEGIN READ ONLY", sql: "SELECT count(*) FROM notes", code: pg.CodeConnectionFailure},
		"some rows":     {sql: "SELECT id FROM notes", rows: row, code: pg.CodeConnectionFailure},
		"a write":       {sql: "INSERT INTO notes VALUES (1, 'x')", code: pg.CodeTransactionResolutionUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			bothAtOnce(t, func(t *testing.T, buffered bool) {
				steps := []pgtest.Step{pgtest.SendBytes(c.rows), untilTaken, pgtest.SendBytes(crashed), untilTaken, pgtest.Close()}
				var r *rig
				if name == "a write" {
					r = newRig(t, rigOptions{tls: buffered, backends: fakeAlone(fakeServer(t, fakeSystemID, firstRequest, steps...))})
				} else {
					r = behindFake(t, rigOptions{tls: buffered}, fakeServer(t, servers(t)[0].primary.SystemID(), firstRequest, steps...))
				}
				conn, notices := r.noticed(pgx.QueryExecModeSimpleProtocol)
				if c.before != "" {
					if _, err := conn.Exec(ctxOf(t), c.before); err != nil {
						t.Fatal(err)
					}
				}
				e := pgErr(t, conn, c.sql)
				if e.Code != c.code || !strings.Contains(e.Detail, "crash of another server process") {
					t.Errorf("%s: %s (%s)", e.Code, e.Message, e.Detail)
				}
				if got := notices(); !slices.Equal(got, []string{pg.CodeCrashShutdown}) {
					t.Errorf("notices %v", got)
				}
				if n := r.counts.failedOver("shard_1-fake"); n != 0 {
					t.Errorf("it was tried elsewhere %d times", n)
				}
			})
		})
	}
}

// Whoever raises such a warning for a reason of his own is heard, in his turn.
func TestWarningThatEndsNothing(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered})
		conn, notices := r.noticed(pgx.QueryExecModeSimpleProtocol)
		for range 3 {
			if _, err := conn.Exec(ctxOf(t), "DO $$ BEGIN RAISE WARNING 'a' USING ERRCODE = '57P02'; RAISE WARNING 'b' USING ERRCODE = '57P01'; RAISE NOTICE 'c' USING ERRCODE = '00000'; RAISE WARNING 'd' USING ERRCODE = '57P02'; END $$"); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Repeat([]string{"57P02", "57P01", "00000", "57P02"}, 3)
		if got := notices(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// slowOnReplicas makes a view of which a read takes ten minutes on a replica, and no time on the primary. To the router it is a read
// as any other.
func slowOnReplicas(t *testing.T, s shardServers) {
	t.Helper()
	if err := s.primary.ExecIn(ctxOf(t), "app",
		"CREATE VIEW slow AS SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT 'replica' FROM pg_sleep(600)) ELSE 'primary' END AS who",
		"GRANT ALL ON slow TO app"); err != nil {
		t.Fatal(err)
	}
	if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
}

// runs waits until n statements of app that begin like this run on a server.
func runs(t *testing.T, s *pgtest.Server, sql string, n int) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		c, err := s.Conn(ctxOf(t))
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		found := 0
		if err := c.QueryRow(ctxOf(t), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND starts_with(query, $1)", sql).Scan(&found); err != nil || found == n {
			return err
		}
		return fmt.Errorf("%d statements run, want %d", found, n)
	})
}

// crashes kills one process of a server, which ends all others, and waits until the server is there again.
func crashes(t *testing.T, s *pgtest.Server) {
	t.Helper()
	var conns [2]*pgx.Conn
	for i := range conns {
		conn, err := s.Conn(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		conns[i] = conn
	}
	var pid int
	if err := conns[0].QueryRow(ctxOf(t), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, patience, func() error {
		if err := conns[1].Ping(ctxOf(t)); err == nil {
			return errors.New("the others have not been ended yet")
		}
		return s.Exec(ctxOf(t), "SELECT 1")
	})
}

// One of a server's processes crashes, and PostgreSQL ends all of them: a plain read that it runs is answered by another server, and
// its client notices nothing; a write has its error.
func TestBackendProcessCrashes(t *testing.T) {
	shards := ownShards(t, 1)
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered, shards: shards})
		ctx := ctxOf(t)
		slowOnReplicas(t, shards[0])
		type answer struct {
			who string
			err error
		}
		answers := make(chan answer, len(allModes))
		var notices []func() []string
		for _, mode := range allModes {
			conn, heard := r.noticed(mode)
			notices = append(notices, heard)
			go func() {
				var a answer
				a.err = conn.QueryRow(ctx, "SELECT who FROM slow").Scan(&a.who)
				answers <- a
			}()
		}
		runs(t, shards[0].replica, "SELECT who FROM slow", len(allModes))
		crashes(t, shards[0].replica)
		for range allModes {
			if a := <-answers; a.err != nil || a.who != "primary" {
				t.Errorf("answered by %q: %v", a.who, a.err)
			}
		}
		for _, heard := range notices {
			if got := heard(); len(got) > 0 {
				t.Errorf("notices %v", got)
			}
		}
		if n := r.counts.failedOver("shard_1-replica"); n < len(allModes) {
			t.Errorf("%d went elsewhere", n)
		}

		conn, heard := r.noticed(pgx.QueryExecModeExec)
		const write = "INSERT INTO notes SELECT 1, pg_sleep(600)::text"
		done := start(ctxOf(t), conn, write)
		runs(t, shards[0].primary, write, 1)
		crashes(t, shards[0].primary)
		if err := <-done; codeOf(err) != pg.CodeTransactionResolutionUnknown {
			t.Errorf("the write: %v", err)
		}
		if got := heard(); !slices.Equal(got, []string{pg.CodeCrashShutdown}) {
			t.Errorf("notices of the write: %v", got)
		}
		if err := shards[0].replica.CaughtUp(ctxOf(t)); err != nil {
			t.Error(err)
		}
	})
}
