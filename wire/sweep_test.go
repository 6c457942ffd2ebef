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
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// bothTransports runs a test with clients on plain sockets, and on what is none.
func bothTransports(t *testing.T, test func(t *testing.T, buffered bool)) {
	for _, buffered := range []bool{false, true} {
		t.Run(map[bool]string{false: "raw", true: "buffered"}[buffered], func(t *testing.T) { test(t, buffered) })
	}
}

// beside marks a test that runs beside another one: it has shared servers of its own.
const beside = "_beside"

// bothAtOnce is bothTransports for a test that needs no servers but the shared ones, or none: it runs on both transports at once.
func bothAtOnce(t *testing.T, test func(t *testing.T, buffered bool)) {
	for name, buffered := range map[string]bool{"raw": false, "buffered" + beside: true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, buffered)
		})
	}
}

// pass lets time go by, on a backend's clock.
func (r *rig) pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := servers(t)[0].primary.Exec(ctxOf(t), fmt.Sprintf("SELECT pg_sleep(%f)", d.Seconds())); err != nil {
		t.Fatal(err)
	}
}

func codeOf(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

func TestStatementTimeout(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		const limit = 400 * time.Millisecond
		r := newRig(t, rigOptions{buffered: buffered, poolSize: 1, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: limit}}})
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			ctx, conn := ctxOf(t), r.connect(mode)
			begin := time.Now()
			pe := pgErr(t, conn, "SELECT pg_sleep(60)")
			if took := time.Since(begin); pe.Code != pg.CodeQueryCanceled || pe.Message != "canceling statement due to statement timeout" || !strings.Contains(pe.Hint, "statement_timeout") || took < limit {
				t.Errorf("%+v after %v", pe, took)
			}
			// Neither several statements that take long together, nor a wait for the client, count as one.
			for range 5 {
				if _, err := conn.Exec(ctx, "SELECT pg_sleep(0.1)"); err != nil {
					t.Fatal(err)
				}
			}
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "SELECT 1 FROM notes"); err != nil {
				t.Fatal(err)
			}
			r.pass(t, 2*limit)
			if _, err := tx.Exec(ctx, "SELECT 1 FROM notes"); err != nil {
				t.Error(err)
			}
			if _, err := tx.Exec(ctx, "SELECT pg_sleep(60) FROM generate_series(1, 2)"); codeOf(err) != pg.CodeQueryCanceled {
				t.Error(err)
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Error(err)
			}
			// Requests that are sent at one stroke are still several.
			socket := pgtest.Hijack(ctxOf(t), t, conn.PgConn())
			socket.Write(pg.AppendTerminate(bytes.Repeat(pg.AppendQuery(nil, "SELECT pg_sleep(0.1)"), 7)))
			all, err := io.ReadAll(socket)
			if n := bytes.Count(all, []byte("SELECT 1\x00Z")); n != 7 || err != nil {
				t.Errorf("%d of 7 requests were answered, %v: %q", n, err, all)
			}
		}
		if n := r.counts.limits(wire.RefusedStatement); n != 6 {
			t.Errorf("%d statements were canceled, want 6", n)
		}
		if s := r.pools.Stats(); s[0].Connects > 2 {
			t.Errorf("%d connections were made: a cancel costs none", s[0].Connects)
		}
	})
}

// A server process that heeds no cancel request loses its connection: its client is told, and another one gets the place in the pool.
func TestCanceledInVain(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, wait: patience, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: 400 * time.Millisecond}}})
	ctx, conn, other := ctxOf(t), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	var pid int
	if err := conn.QueryRow(ctx, "INSERT INTO notes VALUES (1, 'x') RETURNING pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "INSERT INTO notes VALUES (2, 'x')")
		done <- err
	}()
	r.until("the statement has the connection", func(s *console.Snapshot) bool { return countClients(s, console.Active) == 1 })
	if _, err := other.Exec(ctx, "INSERT INTO notes VALUES (3, 'x')"); err != nil {
		t.Errorf("who waits for the place in the pool: %v", err)
	}
	if err := <-done; codeOf(err) != pg.CodeTransactionResolutionUnknown {
		t.Error(err)
	}
	if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (4, 'x')"); err != nil {
		t.Errorf("the session's next statement: %v", err)
	}
}

// The wait for a server connection is the pool's to bound.
func TestStatementTimeoutIsNotForTheQueue(t *testing.T) {
	const limit = 300 * time.Millisecond
	r := newRig(t, rigOptions{poolSize: 1, wait: 20 * time.Second, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: limit}}})
	ctx := ctxOf(t)
	tx, err := r.connect(pgx.QueryExecModeExec).Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	other := r.connect(pgx.QueryExecModeExec)
	got := make(chan error, 1)
	go func() {
		_, err := other.Exec(ctx, "INSERT INTO notes VALUES (2, 'x')")
		got <- err
	}()
	r.pass(t, 3*limit)
	select {
	case err := <-got:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A COPY is a statement until its last row.
func TestStatementTimeoutOfCopy(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{buffered: buffered, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: 200 * time.Millisecond, Idle: time.Second, IdleInTransaction: time.Second}}})
		conn := r.connect(pgx.QueryExecModeExec)
		rows, feed := io.Pipe()
		go func() {
			fmt.Fprint(feed, "1\tx\n")
			for i := 2; r.counts.limits(wire.RefusedStatement) == 0; i++ { // no rows: it would take too long to send them
				r.pass(t, 50*time.Millisecond)
			}
			for i := 2; i < 100_000; i++ {
				if _, err := fmt.Fprintf(feed, "%d\tx\n", i); err != nil {
					return
				}
			}
			feed.Close()
		}()
		_, err := conn.PgConn().CopyFrom(ctxOf(t), rows, "COPY notes FROM STDIN")
		rows.Close()
		if codeOf(err) != pg.CodeQueryCanceled {
			t.Errorf("a COPY that took too long: %v", err)
		}
		if _, err := conn.Exec(ctxOf(t), "SELECT 1"); err != nil {
			t.Error(err)
		}
	})
}

// A cancel request that is under way when its statement ends hits nothing: neither the session's next statement, nor that of
// whoever gets the connection.
func TestStatementTimeoutHitsNothingElse(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		for _, inBlock := range []bool{true, false} {
			var hold atomic.Bool
			release, held := make(chan struct{}), make(chan struct{}, 10)
			r := newRig(t, rigOptions{
				buffered: buffered, poolSize: 1, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: 300 * time.Millisecond}},
				dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if hold.Load() {
						held <- struct{}{}
						select {
						case <-release:
						case <-ctx.Done():
						}
					}
					return new(net.Dialer).DialContext(ctx, network, addr)
				},
			})
			ctx, conn, other := ctxOf(t), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
			if inBlock {
				if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Exec(ctx, "SELECT pg_sleep(0)"); err != nil { // so there is a connection
				t.Fatal(err)
			}
			hold.Store(true)
			const slow = "SELECT pg_sleep(0.8)"
			type result struct {
				who string
				err error
			}
			results := make(chan result, 3)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := conn.Exec(ctx, slow)
				results <- result{"the slow statement", err}
				_, err = conn.Exec(ctx, "SELECT pg_sleep(0.2)")
				results <- result{"its session's next one", err}
				if inBlock {
					conn.Exec(ctx, "COMMIT")
				}
			})
			<-held // the cancel request is on its way, and the statement goes on without it
			r.setLimits(wire.Limits{})
			go func() {
				_, err := other.Exec(ctx, "SELECT pg_sleep(0.2)")
				results <- result{"the next borrower's", err}
			}()
			runs(t, servers(t)[0].primary, slow, 0) // it has ended by itself, and the connection is free for what may be hit
			hold.Store(false)
			close(release)
			for range 3 {
				if x := <-results; x.err != nil {
					t.Errorf("in a block %v: %s: %v", inBlock, x.who, x.err)
				}
			}
			wg.Wait()
		}
	})
}

// Statements that end just when they are to be canceled, on few connections: whatever is canceled has run too long.
func TestStatementTimeoutStress(t *testing.T) {
	const limit = 100 * time.Millisecond
	r := newRig(t, rigOptions{poolSize: 3, wait: 20 * time.Second, limits: wire.Limits{Timeouts: wire.Timeouts{Statement: limit}}})
	begin := time.Now()
	var wg sync.WaitGroup
	var canceled, survived, quick atomic.Int64
	const wantCanceled, wantQuick = 10, 100
	more := func() bool { // a slow machine takes longer to have had its share of each kind
		took := time.Since(begin)
		return took < 4*time.Second || took < patience && (canceled.Load() < wantCanceled || quick.Load() < wantQuick)
	}
	for i := range 8 {
		conn := r.connect([]pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}[i%2])
		rnd := rand.New(rand.NewPCG(3, uint64(i)))
		const step = 4 * time.Millisecond
		var late time.Duration // after the limit: when about half of them are canceled, on this machine
		exec := func(sql string) string {
			begin := time.Now()
			_, err := conn.Exec(context.Background(), sql)
			if err == nil {
				return ""
			}
			if code := codeOf(err); code != pg.CodeQueryCanceled {
				t.Errorf("%s: %v", sql, err)
			} else if took := time.Since(begin); took < limit {
				t.Errorf("%s was canceled after %v", sql, took)
			}
			return "canceled"
		}
		wg.Go(func() {
			for more() {
				block := rnd.IntN(2) == 0
				if block {
					exec("BEGIN")
				}
				failed := exec(fmt.Sprintf("SELECT pg_sleep(%f)", (limit+late).Seconds()+0.01*rnd.Float64()-0.005)) != ""
				if failed {
					canceled.Add(1)
					late = max(late-step, -step)
				} else {
					survived.Add(1)
					late += step
				}
				if block && failed {
					exec("ROLLBACK")
					continue
				}
				for range 5 {
					if exec("SELECT count(*) FROM notes") == "" {
						quick.Add(1)
					}
				}
				if block {
					exec("COMMIT")
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d canceled, %d not, %d quick ones", canceled.Load(), survived.Load(), quick.Load())
	if canceled.Load() < wantCanceled || quick.Load() < wantQuick {
		t.Errorf("only %d canceled, %d quick ones", canceled.Load(), quick.Load())
	}
}

// fate waits for the server to say why it ends the session.
func fate(t *testing.T, conn *pgx.Conn) *pgconn.PgError {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := conn.PgConn().WaitForNotification(ctx)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		t.Fatalf("it is not ended with a word: %v", err)
	}
	return pe
}

func fateOf(t *testing.T, conn net.Conn) *pg.Error {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("it is not ended: %v", err)
	}
	for len(all) > 0 {
		typ, n, err := pg.Next(all, 1<<20)
		if err != nil || n == 0 {
			t.Fatalf("%q: %v", all, err)
		}
		if typ == 'E' {
			e, err := pg.DecodeError(all[pg.HeaderSize:n])
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		all = all[n:]
	}
	panic("it was ended without a word")
}

func TestIdleTimeout(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		const limit = 300 * time.Millisecond
		r := newRig(t, rigOptions{buffered: buffered, limits: wire.Limits{Timeouts: wire.Timeouts{Idle: limit}}})
		ctx := ctxOf(t)
		asking, long, block := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
		if _, err := block.Exec(ctx, "BEGIN"); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := long.Exec(ctx, "SELECT pg_sleep(1.5)")
			got <- err
		}()
		begin := time.Now()
		for time.Since(begin) < 4*limit {
			if _, err := asking.Exec(ctx, "SELECT pg_sleep(0.02)"); err != nil {
				t.Fatalf("a session that is used: %v", err)
			}
		}
		idle := r.connect(pgx.QueryExecModeExec)
		begin = time.Now()
		e := fate(t, idle)
		if took := time.Since(begin); e.Severity != "FATAL" || e.Code != pg.CodeIdleSessionTimeout || !strings.Contains(e.Hint, "idle_timeout") || took < limit/2 {
			t.Errorf("after %v: %v; %s; %s", took, e, e.Detail, e.Hint)
		}
		if err := <-got; err != nil {
			t.Errorf("a session whose statement takes long: %v", err)
		}
		if _, err := block.Exec(ctx, "COMMIT"); err != nil {
			t.Errorf("a session in a transaction: %v", err)
		}
		pinned := r.connect(pgx.QueryExecModeExec)
		if _, err := pinned.Exec(ctx, "CREATE TEMP TABLE mine (id int)"); err != nil {
			t.Fatal(err)
		}
		if e := fate(t, pinned); e.Code != pg.CodeIdleSessionTimeout {
			t.Errorf("a session tied to its connection: %v", e)
		}
		pgtest.Eventually(t, patience, func() error {
			if n := r.server.Stats().Sessions; n != 0 {
				return fmt.Errorf("%d sessions are left", n)
			}
			return nil
		})
		r.busy(t, 0)
		if n := r.counts.limits(wire.RefusedIdle); n != 5 {
			t.Errorf("%d sessions were ended, want 5", n)
		}
	})
}

func TestIdleInTransactionTimeout(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		const limit = 300 * time.Millisecond
		r := newRig(t, rigOptions{buffered: buffered, poolSize: 2, limits: wire.Limits{Timeouts: wire.Timeouts{IdleInTransaction: limit}}})
		ctx := ctxOf(t)
		outside, using := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
		for name, statements := range map[string][]string{
			"open nowhere yet": {"BEGIN"},
			"failed":           {"BEGIN", "nonsense"},
			"on a server":      {"BEGIN", "INSERT INTO notes VALUES (1, 'x')"},
			"and failed there": {"BEGIN", "INSERT INTO notes VALUES (2, 'x')", "SELECT 1/0"},
		} {
			conn := r.connect(pgx.QueryExecModeExec)
			for _, sql := range statements {
				conn.Exec(ctx, sql)
			}
			if s := conn.PgConn().TxStatus(); s == 'I' {
				t.Fatalf("%s: status %c", name, s)
			}
			if e := fate(t, conn); e.Severity != "FATAL" || e.Code != pg.CodeIdleInTransactionSessionTimeout || !strings.Contains(e.Hint, "idle_in_transaction_timeout") {
				t.Errorf("%s: %v; %s; %s", name, e, e.Detail, e.Hint)
			}
		}
		// A request that no Sync has ended keeps a transaction open too.
		socket := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
		socket.Write(pg.AppendFlush(pg.AppendExecute(append(pg.AppendParse(nil, "", "INSERT INTO notes VALUES (3, 'x')", nil), 'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0), "", 0)))
		if e := fateOf(t, socket); e.Code != pg.CodeIdleInTransactionSessionTimeout {
			t.Errorf("without a Sync: %v", e)
		}
		// One that is used is left alone.
		tx, err := using.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < 4*limit; {
			if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.02) FROM notes LIMIT 1"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tx.Exec(ctx, "SELECT pg_sleep(1)"); err != nil {
			t.Errorf("while its statement runs: %v", err)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Error(err)
		}
		var n int
		if err := outside.QueryRow(ctx, "SELECT count(*) FROM notes").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows of transactions that were not committed, %v", n, err)
		}
		r.busy(t, 0)
		if n := r.counts.limits(wire.RefusedInBlock); n != 5 {
			t.Errorf("%d sessions were ended, want 5", n)
		}
	})
}

// A database's own timeouts hold instead of those for all, and new ones at once.
func TestTimeoutsOfADatabase(t *testing.T) {
	const limit = 150 * time.Millisecond
	limits := wire.Limits{Timeouts: wire.Timeouts{Idle: limit, Statement: limit}, DatabaseTimeouts: map[string]wire.Timeouts{"app": {}}}
	r := newRig(t, rigOptions{limits: limits})
	conn := r.connect(pgx.QueryExecModeExec)
	r.pass(t, 4*limit)
	if _, err := conn.Exec(ctxOf(t), fmt.Sprintf("SELECT pg_sleep(%f)", 4*limit.Seconds())); err != nil {
		t.Errorf("a database without timeouts: %v", err)
	}
	r.setLimits(wire.Limits{DatabaseTimeouts: map[string]wire.Timeouts{"app": {Statement: limit}}})
	if e := pgErr(t, conn, "SELECT pg_sleep(60)"); e.Code != pg.CodeQueryCanceled {
		t.Error(e)
	}
	r.setLimits(wire.Limits{Timeouts: wire.Timeouts{Idle: limit}})
	if e := fate(t, conn); e.Code != pg.CodeIdleSessionTimeout {
		t.Error(e)
	}
}

// Sessions that are to end for two reasons at once end once, and say one of them.
func TestIdleTimeoutMeetsShutdown(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		for range 3 {
			r := newRig(t, rigOptions{buffered: buffered, limits: wire.Limits{Timeouts: wire.Timeouts{Idle: 200 * time.Millisecond}}})
			var conns []*pgx.Conn
			for i := range 40 {
				conn := r.connect(pgx.QueryExecModeExec)
				if i%4 == 0 {
					if _, err := conn.Exec(ctxOf(t), "CREATE TEMP TABLE mine (id int)"); err != nil {
						t.Fatal(err)
					}
				}
				conns = append(conns, conn)
			}
			first := fate(t, conns[0]) // the others are about to go as well
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			if err := r.server.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			cancel()
			ends := map[string]int{first.Code: 1}
			for _, conn := range conns[1:] {
				ends[fate(t, conn).Code]++
			}
			if ends[pg.CodeIdleSessionTimeout]+ends[pg.CodeAdminShutdown] != len(conns) {
				t.Errorf("they ended with %v", ends)
			}
		}
	})
}
