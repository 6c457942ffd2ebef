package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/console"
)

// promoted tells the rig what a probe would find after a failover.
func (r *rig) promoted(backend string, timeline uint32) {
	r.observe(rib.Route{Backend: backend, State: rib.Up, Role: rib.Primary, Timeline: timeline, Latency: time.Millisecond})
}

// waiting waits until that many sessions wait for something that the node has to get for them.
func (r *rig) waiting(n int) {
	r.t.Helper()
	r.until(fmt.Sprint(n, " sessions wait"), func(s *console.Snapshot) bool { return countClients(s, console.Waiting) == n })
}

// stalled waits until that many sessions wait for a primary, not for a connection that is being made: a driver may have its statement
// described by a replica first. Who has just begun to wait may be about to make one, so two looks must agree.
func (r *rig) stalled(n int) {
	r.t.Helper()
	agreed := 0
	r.until(fmt.Sprint(n, " sessions wait for a primary"), func(s *console.Snapshot) bool {
		if agreed++; countClients(s, console.Waiting) != n || len(s.Logins) > 0 {
			agreed = 0
		}
		return agreed == 2
	})
}

// countIn counts the notes on a server.
func countIn(t *testing.T, s *pgtest.Server) (n int) {
	t.Helper()
	conn, err := s.ConnTo(ctxOf(t), "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(ctxOf(t), "SELECT count(*) FROM notes").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The primary dies, and writes in every protocol, alone and in transaction blocks, wait until a replica has been promoted. Each is
// done once.
func TestWritesWaitForANewPrimary(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("buffered=%v", buffered), func(t *testing.T) {
			shards := ownShards(t, 1)
			r := newRig(t, rigOptions{shards: shards, failover: patience, buffered: buffered})
			ctx := ctxOf(t)
			var writers []*pgx.Conn
			for _, mode := range allModes {
				for range 2 {
					conn := r.connect(mode)
					if _, err := conn.Exec(ctx, "SET work_mem = '5MB'"); err != nil {
						t.Fatal(err)
					}
					writers = append(writers, conn)
				}
			}
			// Reads leave connections to the replica behind, which were made while it was one.
			for _, conn := range writers {
				if _, err := conn.Exec(ctx, "SELECT count(*) FROM notes"); err != nil {
					t.Fatal(err)
				}
			}
			if err := shards[0].replica.CaughtUp(ctx); err != nil {
				t.Fatal(err)
			}
			if err := shards[0].primary.Kill(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, len(writers))
			for i, conn := range writers {
				go func() {
					done <- func() error {
						if i%2 == 0 {
							_, err := conn.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i)
							return err
						}
						return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
							_, err := tx.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i)
							return err
						})
					}()
				}()
			}
			r.stalled(len(writers))
			if _, err := r.connect(pgx.QueryExecModeExec).Exec(ctx, "SELECT count(*) FROM notes"); err != nil {
				t.Errorf("a read meanwhile: %v", err)
			}
			if err := shards[0].replica.Promote(ctx); err != nil {
				t.Fatal(err)
			}
			r.stalled(len(writers)) // nobody has told the node yet
			r.promoted("shard_1-replica", 2)
			for range writers {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if n := countIn(t, shards[0].replica); n != len(writers) {
				t.Errorf("%d notes, want %d", n, len(writers))
			}
			if r.counts.failedOver("shard_1-primary") != len(writers) {
				t.Errorf("%d statements are counted as gone elsewhere", r.counts.failedOver("shard_1-primary"))
			}
		})
	}
}

// Nobody is known as the primary when a write comes. It waits and is done once, in every protocol, with whatever parameters, alone and in a
// block; an answer without the write would be a lie.
func TestWritesWaitForAnyPrimary(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("buffered=%v", buffered), func(t *testing.T) {
			r := newRig(t, rigOptions{failover: patience, buffered: buffered})
			ctx := ctxOf(t)
			var writers []*pgx.Conn
			for _, mode := range allModes {
				for range 2 {
					conn := r.connect(mode)
					if _, err := conn.Exec(ctx, "SELECT count(*) FROM notes WHERE body <> $1", "y"); err != nil {
						t.Fatal(err)
					}
					writers = append(writers, conn)
				}
			}
			r.observe(rib.Route{Backend: "shard_1-primary", State: rib.Up, Role: rib.Replica, Timeline: 1})
			pgtest.Eventually(t, patience, func() error {
				if len(r.handle.Load().Slot("shard_1").Candidates().Writes) > 0 {
					return errors.New("there is still a primary")
				}
				return nil
			})
			done := make(chan error, len(writers))
			for i, conn := range writers {
				go func() {
					done <- func() error {
						if i%2 == 0 {
							tag, err := conn.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i)
							if err == nil && tag.RowsAffected() != 1 {
								err = fmt.Errorf("writer %d: %q", i, tag)
							}
							return err
						}
						return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
							_, err := tx.Exec(ctx, "INSERT INTO notes VALUES ($1, 'x')", i)
							return err
						})
					}()
				}()
			}
			r.stalled(len(writers))
			r.promoted("shard_1-primary", 1)
			for range writers {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if n := countIn(t, servers(t)[0].primary); n != len(writers) {
				t.Errorf("%d notes, want %d", n, len(writers))
			}
		})
	}
}

// A wait for a primary can be given up in every way in which one for a connection can, and nothing of the statement is ever run.
func TestWaitsForAPrimaryEnd(t *testing.T) {
	for _, c := range []struct {
		how  string
		wait time.Duration
		end  func(r *rig, conn *pgx.Conn)
		code string // "": there is nobody to tell
	}{
		{"no time", 0, nil, "57P03"},
		{"time is over", 50 * time.Millisecond, nil, "57P03"},
		{"canceled", patience, func(r *rig, conn *pgx.Conn) {
			if err := conn.PgConn().CancelRequest(ctxOf(r.t)); err != nil {
				r.t.Fatal(err)
			}
		}, "57014"},
		{"gone", 10 * patience, func(_ *rig, conn *pgx.Conn) { conn.PgConn().Conn().Close() }, ""},
		{"killed", patience, func(r *rig, _ *pgx.Conn) { r.command(r.console(pgx.QueryExecModeExec), "KILL app") }, "57P01"},
		{"stopping", patience, func(r *rig, _ *pgx.Conn) {
			if err := r.server.Shutdown(ctxOf(r.t)); err != nil {
				r.t.Fatal(err)
			}
		}, "57P01"},
	} {
		t.Run(c.how, func(t *testing.T) {
			r := newRig(t, rigOptions{failover: c.wait})
			conn := r.connect(pgx.QueryExecModeExec)
			r.observe(rib.Route{Backend: "shard_1-primary", State: rib.Up, Role: rib.Replica, Timeline: 1})
			pgtest.Eventually(t, patience, func() error {
				if len(r.handle.Load().Slot("shard_1").Candidates().Writes) > 0 {
					return errors.New("it still has a primary")
				}
				return nil
			})
			done := start(ctxOf(t), conn, "INSERT INTO notes VALUES (1, 'x')")
			if c.end != nil {
				r.waiting(1)
				running(t, "the write", done)
				c.end(r, conn)
			}
			err := <-done
			if c.code != "" && codeOf(err) != c.code {
				t.Errorf("%v", err)
			}
			var pe *pgconn.PgError
			if errors.As(err, &pe) && c.code == "57P03" && (!strings.Contains(pe.Message, "no primary") || !strings.Contains(pe.Hint, "Nothing was sent")) {
				t.Errorf("%+v", pe)
			}
			want := 0
			if c.how == "time is over" {
				want = 1
			}
			if n := r.counts.limits(wire.RefusedFailover); n != want {
				t.Errorf("%d waits are counted as in vain, want %d", n, want)
			}
			if c.how == "canceled" || want == 1 { // the session is as good as before
				r.promoted("shard_1-primary", 1)
				pgtest.Eventually(t, patience, func() error {
					_, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (2, 'x')")
					return err
				})
			} else {
				r.waiting(0)
			}
		})
	}
}

// A new limit holds for sessions that are there.
func TestFailoverWaitIsReloaded(t *testing.T) {
	r := newRig(t, rigOptions{failover: patience})
	conn := r.connect(pgx.QueryExecModeExec)
	r.observe(rib.Route{Backend: "shard_1-primary", State: rib.Up, Role: rib.Replica, Timeline: 1})
	r.live.FailoverWait = 0
	r.server.Reload(r.live)
	pgtest.Eventually(t, patience, func() error {
		if _, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x') ON CONFLICT DO NOTHING"); codeOf(err) != "57P03" {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	if n := r.counts.limits(wire.RefusedFailover); n != 0 {
		t.Errorf("%d have waited", n)
	}
}

// The node takes for the primary what has become a replica: nothing is sent there, the backend is looked at again, and writes go on
// where the primary is once the node knows. Also in a transaction block, where an error would have ended it.
func TestPrimaryThatIsAReplica(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards, failover: patience})
	one, two := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeCacheStatement)
	if _, err := one.Exec(ctxOf(t), "SELECT count(*) FROM notes"); err != nil { // an idle connection to the replica
		t.Fatal(err)
	}
	r.promoted("shard_1-replica", 2) // which is not true
	pgtest.Eventually(t, patience, func() error {
		if w := r.handle.Load().Slot("shard_1").Candidates().Writes; w[0].Backend.Name != "shard_1-replica" {
			return errors.New("not told yet")
		}
		return nil
	})
	done := start(ctxOf(t), one, "INSERT INTO notes VALUES (1, 'x')")
	block := make(chan error, 1)
	go func() {
		block <- pgx.BeginFunc(ctxOf(t), two, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctxOf(t), "INSERT INTO notes VALUES ($1, 'x')", 2)
			return err
		})
	}()
	pgtest.Eventually(t, patience, func() error {
		r.counts.mu.Lock()
		defer r.counts.mu.Unlock()
		if n := r.counts.recheck["shard_1-replica"]; n < 2 {
			return fmt.Errorf("it was asked for %d times to be looked at", n)
		}
		return nil
	})
	r.waiting(2)
	r.observe(rib.Route{Backend: "shard_1-replica", State: rib.Up, Role: rib.Replica, Timeline: 1})
	r.promoted("shard_1-primary", 1)
	if err := errors.Join(<-done, <-block); err != nil {
		t.Error(err)
	}
	if n := countIn(t, shards[0].primary); n != 2 {
		t.Errorf("%d notes", n)
	}
}

// The primary's machine takes connections and says nothing. A write that tries to log in there goes on at the next primary without
// waiting for the end of that.
func TestNewPrimaryWhileConnectingToTheOld(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := newRig(t, rigOptions{failover: patience})
	conn := r.connect(pgx.QueryExecModeExec)
	r.announce(rib.Backend{Name: "shard_1-silent", Shard: "shard_1", Region: "far", Addr: silent.Addr().String(), SystemID: servers(t)[0].primary.SystemID()}, rib.Replica)
	r.promoted("shard_1-silent", 2)
	pgtest.Eventually(t, patience, func() error {
		if w := r.handle.Load().Slot("shard_1").Candidates().Writes; w[0].Backend.Name != "shard_1-silent" {
			return errors.New("not told yet")
		}
		return nil
	})
	began := time.Now()
	done := start(ctxOf(t), conn, "INSERT INTO notes VALUES (1, 'x')")
	r.waiting(1)
	r.promoted("shard_1-primary", 3)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience-5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The closest replica's machine takes connections and says nothing. A read that tries to log in there goes on elsewhere when it is known to
// be down, without waiting for the end of that.
func TestReadLeavesALoginThatIsNotAnswered(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered})
		conn := r.connect(pgx.QueryExecModeExec)
		r.announce(rib.Backend{Name: "shard_1-silent", Shard: "shard_1", Region: "here", Addr: silent.Addr().String(), SystemID: servers(t)[0].primary.SystemID()}, rib.Replica)
		for _, other := range []string{"shard_1-primary", "shard_1-replica"} {
			r.table.Health().Evidence(other, true, "so that the silent one is the closest")
		}
		pgtest.Eventually(t, patience, func() error {
			if reads := r.handle.Load().Slot("shard_1").Candidates().Reads; reads[0].Backend.Name != "shard_1-silent" {
				return fmt.Errorf("%s is the closest", reads[0].Backend.Name)
			}
			return nil
		})
		began := time.Now()
		done := start(ctxOf(t), conn, "SELECT count(*) FROM notes")
		r.waiting(1)
		for _, other := range []string{"shard_1-primary", "shard_1-replica"} {
			r.table.Health().Evidence(other, false, "")
		}
		select {
		case err := <-done:
			t.Fatalf("it is not down, and the read ends: %v", err)
		default:
		}
		r.believe("shard_1-silent", rib.Down, rib.Replica, 0)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > patience-5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A read that must see what its session has just written runs on the primary, which dies under it: it is run again on the next one, for
// the client has seen nothing of it yet.
func TestReadsOfThePrimaryGoOnAtTheNext(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards, failover: patience})
	ctx := ctxOf(t)
	if err := shards[0].primary.ExecIn(ctx, "app",
		fmt.Sprintf("CREATE VIEW slow AS SELECT CASE WHEN inet_server_port() = %d THEN (SELECT 'old' FROM pg_sleep(600)) ELSE 'new' END AS who", shards[0].primary.Port()),
		"GRANT ALL ON slow TO app"); err != nil {
		t.Fatal(err)
	}
	if err := shards[0].replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	conn := r.connect(pgx.QueryExecModeExec)
	if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		var who string
		err := conn.QueryRow(ctx, "SELECT who FROM slow").Scan(&who)
		if err == nil && who != "new" {
			err = errors.New("answered by the " + who)
		}
		read <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		admin, err := shards[0].primary.Conn(ctx)
		if err != nil {
			return err
		}
		defer admin.Close(ctx)
		var n int
		if err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'").Scan(&n); err != nil || n == 1 {
			return err
		}
		return errors.New("the read does not run yet")
	})
	r.looks(0) // else nobody could tell, after the promotion, whether the write is there
	if err := shards[0].primary.Kill(); err != nil {
		t.Fatal(err)
	}
	r.waiting(1)
	running(t, "the read", read)
	if err := shards[0].replica.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	r.promoted("shard_1-replica", 2)
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// A connection that was there before a write came, and breaks before anything of the write has been sent, says nothing of the primary:
// the write gets another one at once. One that was made for it does say something.
func TestWriteOutlivesAnOldConnection(t *testing.T) {
	for _, always := range []bool{false, true} {
		t.Run(fmt.Sprintf("always=%v", always), func(t *testing.T) {
			var broken atomic.Int64
			fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
				if strings.Contains(sql, "work_mem") && (broken.Add(1) == 1 || always) {
					return errStop
				}
				return answered(c, sql, status)
			}, pgtest.Close())
			r := newRig(t, rigOptions{backends: fakeAlone(fake)})
			if _, err := r.connect(pgx.QueryExecModeSimpleProtocol).Exec(ctxOf(t), "SELECT 1"); err != nil {
				t.Fatal(err)
			}
			cfg, err := pgx.ParseConfig(r.dsn() + " work_mem=5MB")
			if err != nil {
				t.Fatal(err)
			}
			cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
			conn, err := pgx.ConnectConfig(ctxOf(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			_, err = conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')")
			var pe *pgconn.PgError
			switch {
			case !always && (err != nil || broken.Load() != 2):
				t.Errorf("%d connections were used, %v", broken.Load(), err)
			case always && (!errors.As(err, &pe) || pe.Code != "57P03" || broken.Load() != 2):
				t.Errorf("%d connections were used, %v", broken.Load(), err)
			}
		})
	}
}

// A replica is promoted while the old primary lives on. A session that is tied to the old one is ended before it writes there, and what
// tied it is gone from the server.
func TestTiedSessionLeavesTheOldPrimary(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("buffered=%v", buffered), func(t *testing.T) {
			shards := ownShards(t, 1)
			r := newRig(t, rigOptions{shards: shards, failover: patience, buffered: buffered})
			ctx := ctxOf(t)
			var tied []*pgx.Conn
			for _, mode := range allModes {
				conn := r.connect(mode)
				if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", len(tied)); err != nil {
					t.Fatal(err)
				}
				tied = append(tied, conn)
			}
			if err := shards[0].replica.Promote(ctx); err != nil {
				t.Fatal(err)
			}
			r.promoted("shard_1-replica", 2)
			pgtest.Eventually(t, time.Minute, func() error {
				if w := r.handle.Load().Slot("shard_1").Candidates().Writes; len(w) == 0 || w[0].Backend.Name != "shard_1-replica" {
					return errors.New("the table has the old primary")
				}
				return nil
			})
			for _, conn := range tied {
				var e *pgconn.PgError
				if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (1, 'late')"); !errors.As(err, &e) || e.Code != "57P01" || e.Severity != "FATAL" {
					t.Errorf("%s: a tied session's write on the old primary: %v", conn.Config().DefaultQueryExecMode, err)
				}
			}
			if n := countIn(t, shards[0].primary); n != 0 {
				t.Errorf("the old primary has %d notes", n)
			}
			pgtest.Eventually(t, time.Minute, func() error {
				held := 0
				c, err := shards[0].primary.ConnTo(ctx, "app", "")
				if err != nil {
					return err
				}
				defer c.Close(context.Background())
				if err := c.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted").Scan(&held); err != nil {
					return err
				}
				if held != 0 {
					return fmt.Errorf("%d locks are held", held)
				}
				return nil
			})
		})
	}
}
