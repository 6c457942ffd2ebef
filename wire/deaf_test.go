package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// believe has the rig's node believe something of a backend, as an observer would tell it.
func (r *rig) believe(backend string, state rib.State, role rib.Role, lag time.Duration) {
	r.observe(rib.Route{Backend: backend, State: state, Role: role, Timeline: 1, Latency: time.Millisecond, Lag: lag})
}

// freezes stops a server's processes until the test ends.
func freezes(t *testing.T, s *pgtest.Server) {
	t.Helper()
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Thaw(); err != nil {
			t.Error(err)
		}
	})
}

// What waits for a frozen replica does not wait until it thaws: plain reads are answered by the primary, and the rest hears that the
// connection is lost. A backend that is up, if behind, may take as long as it likes.
func TestReplicaFreezes(t *testing.T) {
	shards := ownShards(t, 1)
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered, shards: shards})
		slowOnReplicas(t, shards[0])
		ctx := ctxOf(t)
		type answer struct {
			what, who string
			err       error
		}
		answers, begun := make(chan answer, 20), make(chan struct{})
		begins := sync.OnceFunc(func() { close(begun) })
		ask := func(what string, conn *pgx.Conn, sql string) {
			go func() {
				a := answer{what: what}
				rows, _ := conn.Query(ctx, sql)
				var all []string
				all, a.err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
					if what == "rows" {
						begins()
					}
					return pgx.RowTo[string](row)
				})
				if len(all) > 0 {
					a.who = all[len(all)-1]
				}
				answers <- a
			}()
		}
		for name, mode := range allModes {
			ask(name, r.connect(mode), "SELECT who FROM slow")
		}
		block, rows := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
		if _, err := block.Exec(ctx, "BEGIN READ ONLY"); err != nil {
			t.Fatal(err)
		}
		ask("block", block, "SELECT who FROM slow")
		// The primary would answer it as well, but a part of the replica's answer has reached the client: half a row, most likely, and then
		// nothing can be told any more.
		ask("rows", rows, "SELECT repeat('x', 10000) FROM generate_series(1, 20) UNION ALL SELECT who FROM slow")
		select {
		case <-begun:
		case <-time.After(patience):
			t.Fatal("no row comes")
		}
		runs(t, shards[0].replica, "SELECT", len(allModes)+2)
		freezes(t, shards[0].replica)
		r.believe("shard_1-replica", rib.Up, rib.Replica, time.Hour)
		r.pass(t, 2*time.Second)
		select {
		case a := <-answers:
			t.Fatalf("a backend that is only behind: %+v", a)
		default:
		}
		r.believe("shard_1-replica", rib.Down, rib.Replica, 0)
		began := time.Now()
		for range len(allModes) + 2 {
			select {
			case a := <-answers:
				switch a.what {
				case "block":
					if codeOf(a.err) != pg.CodeConnectionFailure || !strings.Contains(a.err.Error(), "rolled back") {
						t.Errorf("in a transaction: %v", a.err)
					}
				case "rows":
					if a.err == nil || a.who == "primary" {
						t.Errorf("after some rows: %q, %v", a.who[:min(len(a.who), 10)], a.err)
					}
				default:
					if a.err != nil || a.who != "primary" {
						t.Errorf("%s: answered by %q: %v", a.what, a.who, a.err)
					}
				}
			case <-time.After(patience):
				t.Fatal("it still waits")
			}
		}
		t.Logf("after %v", time.Since(began))
		if tag, err := block.Exec(ctx, "ROLLBACK"); err != nil || tag.String() != "ROLLBACK" {
			t.Errorf("%v, %v", tag, err)
		}
		r.busy(t, 0)
		if err := shards[0].replica.Thaw(); err != nil {
			t.Fatal(err)
		}
		runs(t, shards[0].replica, "SELECT who", 0) // what was given up is canceled when the server is there again
	})
}

// What waits for a frozen primary has an error that says what is known of its fate, and its connection is given to nobody else. When
// the primary thaws, it is asked to cancel what was given up.
func TestPrimaryFreezes(t *testing.T) {
	shards := ownShards(t, 1)
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered, shards: shards})
		ctx := ctxOf(t)
		if err := shards[0].primary.ExecIn(ctx, "app",
			"CREATE TABLE late (id int)", "GRANT ALL ON late TO app",
			"CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$",
			"CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()"); err != nil {
			t.Fatal(err)
		}
		copying := pgtest.Hijack(ctx, t, r.connect(pgx.QueryExecModeExec).PgConn())
		waits := map[string]<-chan error{}
		conns := map[string]*pgx.Conn{}
		for name, sqls := range map[string][]string{
			"write":       {"INSERT INTO notes SELECT 1, pg_sleep(600)::text"},
			"transaction": {"BEGIN", "INSERT INTO notes VALUES (2, 'x')", "INSERT INTO notes SELECT 3, pg_sleep(600)::text"},
			"commit":      {"BEGIN", "INSERT INTO late VALUES (1)", "COMMIT"},
		} {
			conn := r.connect(pgx.QueryExecModeExec)
			conns[name] = conn
			for i, sql := range sqls {
				if i == len(sqls)-1 {
					waits[name] = start(ctx, conn, sql)
				} else if _, err := conn.Exec(ctx, sql); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A COPY of more than all buffers hold.
		data := append(pg.AppendQuery(nil, "COPY notes FROM STDIN"), slices.Repeat([]byte{'d', 0, 0, 0, 4}, 1000)...)
		if _, err := copying.Write(data); err != nil {
			t.Fatal(err)
		}
		r.busy(t, 4)
		runs(t, shards[0].primary, "", 4)
		var used []uint64
		pgtest.Eventually(t, patience, func() error { // a connection that is still being made counts as busy as well
			used = used[:0]
			for _, s := range r.server.Snapshot().Servers {
				if !s.Idle {
					used = append(used, s.ID)
				}
			}
			if len(used) != 4 {
				return fmt.Errorf("%d server connections in use", len(used))
			}
			return nil
		})

		freezes(t, shards[0].primary)
		wrote := make(chan error, 1)
		go func() {
			chunk := slices.Repeat([]byte{'d', 0, 0, 0, 4}, 1<<16)
			var err error
			for err == nil {
				_, err = copying.Write(chunk)
			}
			wrote <- err
		}()
		r.believe("shard_1-primary", rib.Down, rib.Primary, 0)
		for name, code := range map[string]string{
			"write": pg.CodeTransactionResolutionUnknown, "transaction": pg.CodeConnectionFailure, "commit": pg.CodeTransactionResolutionUnknown,
		} {
			select {
			case err := <-waits[name]:
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != code || pe.Hint == "" || !strings.Contains(pe.Detail, "does not answer") {
					t.Errorf("%s: %v", name, err)
				}
			case <-time.After(patience):
				t.Fatalf("%s: it still waits", name)
			}
		}
		copying.SetReadDeadline(time.Now().Add(patience))
		heard := make([]byte, 4096)
		for {
			n, err := copying.Read(heard)
			if err != nil {
				t.Fatalf("COPY: %v", err)
			}
			if strings.Contains(string(heard[:n]), pg.CodeTransactionResolutionUnknown) {
				break
			}
		}
		copying.Close()
		<-wrote
		r.busy(t, 0)
		for _, s := range r.server.Snapshot().Servers {
			if slices.Contains(used, s.ID) {
				t.Errorf("connection %d has been put back", s.ID)
			}
		}
		if err := shards[0].primary.Thaw(); err != nil {
			t.Fatal(err)
		}
		runs(t, shards[0].primary, "", 0)
		r.believe("shard_1-primary", rib.Up, rib.Primary, 0)
		for name, conn := range conns {
			if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
				t.Errorf("%s, afterwards: %v", name, err)
			}
			if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES ((random() * 1e9)::int, 'x')"); err != nil {
				t.Errorf("%s, afterwards: %v", name, err)
			}
		}
	})
}

// Down is not dead: a server that shuts down takes nobody in any more, and those who are there finish what they do.
func TestDownAndStillAtWork(t *testing.T) {
	shards := ownShards(t, 1)
	bothTransports(t, func(t *testing.T, buffered bool) {
		var asked atomic.Int32 // how often the replica was, whether it is there
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if end, ok := ctx.Deadline(); ok && time.Until(end) < 2*time.Second && addr == shards[0].replica.Addr() {
				asked.Add(1)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		r := newRig(t, rigOptions{tls: buffered, shards: shards, dial: dial})
		ctx := ctxOf(t)
		// To the router it is a read as any other. On the replica it takes until the test lets it go on.
		if err := shards[0].primary.ExecIn(ctx, "app",
			"CREATE VIEW slow AS SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT 'replica' FROM pg_advisory_lock_shared(7)) ELSE 'primary' END AS who",
			"GRANT ALL ON slow TO app"); err != nil {
			t.Fatal(err)
		}
		if err := shards[0].replica.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
		holder, err := shards[0].replica.ConnTo(ctx, "app", "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer holder.Close(context.Background())
		if _, err := holder.Exec(ctx, "SELECT pg_advisory_lock(7)"); err != nil {
			t.Fatal(err)
		}
		conn := r.connect(pgx.QueryExecModeExec)
		var who string
		done := make(chan error, 1)
		go func() { done <- conn.QueryRow(ctx, "SELECT who FROM slow").Scan(&who) }()
		runs(t, shards[0].replica, "SELECT who", 1)
		if err := syscall.Kill(shards[0].replica.PID(), syscall.SIGTERM); err != nil { // a smart shutdown
			t.Fatal(err)
		}
		asked.Store(0)
		r.believe("shard_1-replica", rib.Down, rib.Replica, 0)
		pgtest.Eventually(t, patience, func() error {
			if n := asked.Load(); n < 3 {
				return fmt.Errorf("the replica was asked %d times", n)
			}
			return nil
		})
		holder.Close(ctx)
		if err := <-done; err != nil || who != "replica" {
			t.Errorf("answered by %q: %v", who, err)
		}
		conn.Close(ctx)
		r.pools.Close() // the server waits for its clients
		restarted := func() error { return shards[0].replica.Restart(ctx) }
		pgtest.Eventually(t, patience, restarted)
	})
}

// Statements that are cut off just when they are answered: whoever gets their connections next, or the next statement, is not hit.
func TestCuttingOffHarmsNobody(t *testing.T) {
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		var deaf atomic.Bool
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if end, ok := ctx.Deadline(); ok && time.Until(end) < 2*time.Second && deaf.Load() { // who asks whether anybody is there
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		r := newRig(t, rigOptions{tls: buffered, poolSize: 9, wait: 60 * time.Second, dial: dial})
		deaf.Store(true)
		r.believe("shard_1-primary", rib.Down, rib.Primary, 0)
		var wg sync.WaitGroup
		var cut, quick, slow atomic.Int64
		begun := time.Now()
		enough := func() bool {
			return cut.Load() >= 6 && slow.Load() >= 6 && quick.Load() >= 100 || time.Since(begun) > 2*patience || t.Failed()
		}
		for i := range 6 {
			rnd := rand.New(rand.NewPCG(9, uint64(i)))
			long, short := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
			wg.Go(func() {
				for !enough() {
					sql := fmt.Sprintf("SELECT pg_sleep(%f)", 0.9+0.7*rnd.Float64())
					block := rnd.IntN(2) == 0
					if block {
						if _, err := long.Exec(context.Background(), "BEGIN"); err != nil {
							t.Error(err)
						}
					}
					_, err := long.Exec(context.Background(), sql)
					switch {
					case err == nil:
						slow.Add(1)
					case codeOf(err) == pg.CodeConnectionFailure, codeOf(err) == pg.CodeTransactionResolutionUnknown:
						cut.Add(1)
					default:
						t.Error(err)
					}
					if block {
						if _, err := long.Exec(context.Background(), "SELECT 1"); err != nil && codeOf(err) != pg.CodeInFailedTransaction && codeOf(err) != pg.CodeConnectionFailure {
							t.Error(err)
						}
						if _, err := long.Exec(context.Background(), "ROLLBACK"); err != nil {
							t.Error(err)
						}
					}
				}
			})
			wg.Go(func() {
				for !enough() {
					if _, err := short.Exec(context.Background(), "SELECT pg_sleep(0.01)"); err != nil {
						t.Error(err)
						return
					}
					quick.Add(1)
				}
			})
		}
		wg.Wait()
		t.Logf("%d were cut off, %d as slow were not, %d others", cut.Load(), slow.Load(), quick.Load())
		if time.Since(begun) > 2*patience {
			t.Error("too few to prove anything")
		}
		r.busy(t, 0)
	})
}

// lateConn is a server connection whose answer comes just when it is being cut off.
type lateConn struct {
	net.Conn
	armed *atomic.Bool
	come  func()
	read  chan struct{}
}

func (c *lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.armed.Load() {
		select {
		case c.read <- struct{}{}:
		default:
		}
	}
	return n, err
}

func (c *lateConn) SetDeadline(at time.Time) error {
	if !at.IsZero() && time.Until(at) < 0 && c.armed.Load() {
		c.come()
		<-c.read // the session has it
		c.armed.Store(false)
	}
	return c.Conn.SetDeadline(at)
}

// A statement that is answered in the very moment in which it is cut off is answered. Its connection has a deadline that has passed:
// nobody else gets it, and nothing more is sent there.
func TestAnsweredWhenItIsCutOff(t *testing.T) {
	for name, block := range map[string]bool{"alone": false, "in a transaction": true} {
		t.Run(name, func(t *testing.T) {
			var armed atomic.Bool
			come, seen := make(chan struct{}), make(chan string, 100)
			fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
				if strings.HasPrefix(sql, "INSERT") {
					seen <- sql
				}
				if strings.Contains(sql, "late") {
					armed.Store(true)
					<-come
				}
				return answered(c, sql, status)
			})
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				if end, ok := ctx.Deadline(); ok && time.Until(end) < 2*time.Second {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return &lateConn{conn, &armed, func() { close(come) }, make(chan struct{})}, err
			}
			r := newRig(t, rigOptions{dial: dial, backends: fakeAlone(fake)})
			conn := r.connect(pgx.QueryExecModeSimpleProtocol)
			if _, err := conn.Exec(ctxOf(t), "SELECT 1"); err != nil { // it has a connection to come back to
				t.Fatal(err)
			}
			connections := fake.Connections()
			if block {
				if _, err := conn.Exec(ctxOf(t), "BEGIN"); err != nil {
					t.Fatal(err)
				}
			}
			r.believe("shard_1-fake", rib.Down, rib.Primary, 0)
			if _, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'late')"); err != nil {
				t.Errorf("what was answered: %v", err)
			}
			r.believe("shard_1-fake", rib.Up, rib.Primary, 0)
			_, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (2, 'next')")
			<-seen
			if block {
				if codeOf(err) != pg.CodeConnectionFailure || !strings.Contains(err.Error(), "rolled back") {
					t.Errorf("the next statement: %v", err)
				}
				if len(seen) != 0 {
					t.Errorf("it was sent: %s", <-seen)
				}
			} else if err != nil || fake.Connections() != connections+1 {
				t.Errorf("the next statement: %v; %d new connections", err, fake.Connections()-connections)
			}
		})
	}
}

// A backend is asked as soon as a probe of this node's has had no answer, so that what waits there is cut off with the verdict; without one
// it is not, nor if the probe has an answer again.
func TestQuietBackendIsAskedBeforeTheVerdict(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards})
	slowOnReplicas(t, shards[0])
	conn := r.connect(pgx.QueryExecModeExec)
	answer := make(chan error, 1)
	go func() {
		var who string
		answer <- conn.QueryRow(ctxOf(t), "SELECT who FROM slow").Scan(&who)
	}()
	runs(t, shards[0].replica, "SELECT", 1)
	freezes(t, shards[0].replica)
	quiet := r.table.Health().Quiet
	waits := func(what string) {
		t.Helper()
		r.pass(t, 4*time.Second)
		select {
		case err := <-answer:
			t.Fatalf("%s, and what waits for it ends: %v", what, err)
		default:
		}
	}
	quiet("shard_1-replica", true)
	waits("it is quiet")
	quiet("shard_1-replica", false)
	waits("it was quiet")
	quiet("shard_1-replica", true)
	r.believe("shard_1-replica", rib.Down, rib.Replica, 0)
	select {
	case err := <-answer:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it is quiet and down, and what waits for it goes on")
	}
}
