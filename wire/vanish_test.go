package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/wire"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// A client that vanishes while rows are written to it takes nothing with it.
func TestClientVanishesInTheMiddleOfRows(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	for range 3 {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		pid := conn.PgConn().PID()
		socket := pgtest.Hijack(ctxOf(t), t, conn.PgConn()).(*net.TCPConn)
		if _, err := socket.Write(pg.AppendQuery(nil, "INSERT INTO notes SELECT i, 'x' FROM generate_series(1, 300000) i RETURNING repeat(body, 100)")); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := socket.Read(b[:]); err != nil { // rows have begun to come
			t.Fatal(err)
		}
		socket.SetLinger(0) // a reset, as after a crash
		socket.Close()
		pgtest.Eventually(t, patience, func() error {
			s := r.server.Snapshot()
			for _, c := range s.Clients {
				if c.ID == pid {
					return errors.New("the session is still there")
				}
			}
			for _, v := range s.Servers {
				if !v.Idle {
					return errors.New("its server connection is still there")
				}
			}
			return nil
		})
		if _, err := r.connect(pgx.QueryExecModeSimpleProtocol).Exec(ctxOf(t), "TRUNCATE notes"); err != nil {
			t.Fatal(err)
		}
	}
}

// dies ends a client's connection without a word: in order, as when a process is killed, or with a reset, as when its machine is.
func dies(t *testing.T, conn net.Conn, reset bool) {
	t.Helper()
	if below, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = below.NetConn()
	}
	if reset {
		conn.(*net.TCPConn).SetLinger(0)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// activity is what app's connections to the first shard's servers do, but for those that are idle.
func activity(t *testing.T) (all []string) {
	t.Helper()
	for _, s := range []*pgtest.Server{servers(t)[0].primary, servers(t)[0].replica} {
		conn, err := s.Conn(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		rows, _ := conn.Query(ctxOf(t), "SELECT state || ': ' || query FROM pg_stat_activity WHERE datname = 'app' AND usename = 'app' AND state <> 'idle'")
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		conn.Close(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// slowly are ways to have a server work for a client for minutes.
func slowly(sleep string) map[string][]byte {
	parsed := func(sql string) []byte {
		b := pg.AppendBindText(pg.AppendParse(nil, "", sql, nil))
		return pg.AppendExecute(pg.AppendDescribe(b, 'P', ""), "", 0)
	}
	selects := "SELECT pg_sleep(" + sleep + ")"
	copies := pg.AppendQuery(nil, "COPY slow FROM STDIN")
	copies = append(copies, 'd', 0, 0, 0, 6, '1', '\n')
	return map[string][]byte{
		"simple":           pg.AppendQuery(nil, selects),
		"a write":          pg.AppendQuery(nil, "INSERT INTO slow VALUES (1)"),
		"extended":         pg.AppendSync(parsed(selects)),
		"flushed":          pg.AppendFlush(parsed(selects)),
		"pipeline":         append(pg.AppendSync(parsed(selects)), pg.AppendSync(parsed("INSERT INTO notes VALUES (1, 'must not be run')"))...),
		"COPY out":         pg.AppendQuery(nil, "COPY (SELECT 1, pg_sleep("+sleep+")) TO STDOUT"),
		"COPY in":          copies,
		"COPY in, to end":  append(copies[:len(copies):len(copies)], 'c', 0, 0, 0, 4),
		"after some rows":  pg.AppendQuery(nil, "SELECT repeat('x', 10000), CASE WHEN i > 300 THEN pg_sleep("+sleep+") END FROM generate_series(1, 500) i"),
		"with a goodbye":   pg.AppendTerminate(pg.AppendQuery(nil, selects)),
		"several together": pg.AppendQuery(nil, "SELECT 1; "+selects),
	}
}

func slowTable(t *testing.T) {
	t.Helper()
	if err := servers(t)[0].primary.ExecIn(ctxOf(t), "app",
		"CREATE TABLE slow (id int)", "GRANT ALL ON slow TO app",
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$",
		"CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION slow()"); err != nil {
		t.Fatal(err)
	}
}

// Whatever a server does for a client that dies is canceled within seconds, and nothing of the client's stays open.
func TestClientDiesWhileItsServerWorks(t *testing.T) {
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			o.poolSize = 100
			r := newRig(t, o)
			slowTable(t)
			ways := slowly("600")
			var dying []net.Conn
			for _, bytes := range ways {
				for _, block := range []bool{false, true} {
					conn := r.connect(pgx.QueryExecModeSimpleProtocol)
					if block {
						for _, sql := range []string{"BEGIN", "INSERT INTO notes VALUES ((random()*1e9)::int, 'must not stay')"} {
							if _, err := conn.Exec(ctxOf(t), sql); err != nil {
								t.Fatal(err)
							}
						}
					}
					socket := pgtest.Hijack(ctxOf(t), t, conn.PgConn())
					if _, err := socket.Write(bytes); err != nil {
						t.Fatal(err)
					}
					dying = append(dying, socket)
				}
			}
			asleep := func(want int) func() error {
				return func() error {
					all := activity(t)
					working := 0
					for _, a := range all {
						if strings.HasPrefix(a, "active") {
							working++
						}
					}
					if working != want || want == 0 && len(all) > 0 {
						return fmt.Errorf("%d servers at work, want %d: %q", working, want, all)
					}
					return nil
				}
			}
			pgtest.Eventually(t, patience, asleep(len(dying)))
			for i, socket := range dying {
				dies(t, socket, i%3 == 0)
			}
			begin := time.Now()
			pgtest.Eventually(t, patience, asleep(0))
			pgtest.Eventually(t, patience, func() error {
				if n := r.server.Stats().Sessions; n != 0 {
					return fmt.Errorf("%d sessions are left", n)
				}
				return nil
			})
			r.busy(t, 0)
			t.Logf("after %v", time.Since(begin))
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := notes(t); n != 0 {
				t.Errorf("%d rows of transactions that nobody has committed", n)
			}
			if n := r.counts.limits(wire.RefusedStatement); n != 0 {
				t.Errorf("%d statements were counted as too slow", n)
			}
		})
	}
}

// Who waits for a connection gives up the place in the queue by dying, and by a cancel request.
func TestClientDiesInTheQueue(t *testing.T) {
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			o.poolSize = 1
			r := newRig(t, o)
			ctx := ctxOf(t)
			tx, err := r.connect(pgx.QueryExecModeExec).Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1, 'x')"); err != nil {
				t.Fatal(err)
			}
			waiting := func(want int) {
				t.Helper()
				pgtest.Eventually(t, patience, func() error {
					n := 0
					for _, s := range r.pools.Stats() {
						n += s.Waiting
					}
					if n != want {
						return fmt.Errorf("%d wait, want %d", n, want)
					}
					return nil
				})
			}
			dead := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
			if _, err := dead.Write(pg.AppendQuery(nil, "INSERT INTO notes VALUES (2, 'must not be run')")); err != nil {
				t.Fatal(err)
			}
			waiting(1)
			conn := r.connect(pgx.QueryExecModeExec)
			canceled := start(ctx, conn, "INSERT INTO notes VALUES (3, 'must not be run')")
			waiting(2)
			dies(t, dead, false)
			waiting(1)
			if err := conn.PgConn().CancelRequest(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-canceled; codeOf(err) != pg.CodeQueryCanceled {
				t.Errorf("canceled while it waited: %v", err)
			}
			waiting(0)
			if err := tx.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (4, 'x')"); err != nil {
				t.Errorf("after a cancel: %v", err)
			}
			if n := notes(t); n != 2 {
				t.Errorf("%d rows, want 2", n)
			}
		})
	}
}

// A client that closes its writing side and waits is taken as gone, but is told so.
func TestClientThatOnlyHalfCloses(t *testing.T) {
	r := newRig(t, rigOptions{})
	short, long := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn()), pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
	for socket, sql := range map[net.Conn]string{short: "SELECT 'short' FROM pg_sleep(0.3)", long: "SELECT 'long' FROM pg_sleep(600)"} {
		if _, err := socket.Write(pg.AppendQuery(nil, sql)); err != nil {
			t.Fatal(err)
		}
		if err := socket.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := io.ReadAll(short); err != nil || !bytes.Contains(all, []byte("SELECT 1\x00")) {
		t.Errorf("a statement that takes no second: %q, %v", all, err)
	}
	if e := fateOf(t, long); e.Code != pg.CodeQueryCanceled {
		t.Errorf("one that does: %v", e)
	}
}

// Clients that die when their statements are just about to end, on few connections: nobody else's statement is canceled.
func TestDyingClientsHarmNobody(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered, poolSize: 3, wait: 60 * time.Second})
		var wg sync.WaitGroup
		var died, quick atomic.Int64
		begun := time.Now()
		enough := func() bool {
			return died.Load() >= 50 && quick.Load() >= 30 || time.Since(begun) > 2*patience || t.Failed()
		}
		for i := range 6 {
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			wg.Go(func() {
				for !enough() {
					conn, err := pgx.Connect(context.Background(), r.dsn())
					if err != nil {
						t.Error(err)
						return
					}
					h, err := conn.PgConn().Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					h.Conn.Write(pg.AppendQuery(nil, fmt.Sprintf("SELECT pg_sleep(%f)", 0.9+0.8*rnd.Float64())))
					dies(t, h.Conn, rnd.IntN(2) == 0)
					died.Add(1)
					r.pass(t, time.Duration(rnd.IntN(1000))*time.Millisecond)
				}
			})
			conn := r.connect(pgx.QueryExecModeExec)
			wg.Go(func() {
				for !enough() {
					if _, err := conn.Exec(context.Background(), "SELECT pg_sleep(0.01)"); err != nil {
						t.Error(err)
						return
					}
					quick.Add(1)
				}
			})
		}
		wg.Wait()
		t.Logf("%d died, %d others", died.Load(), quick.Load())
		if time.Since(begun) > 2*patience {
			t.Error("too few to prove anything")
		}
	})
}
