package move

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// hooked are servers with something that happens once, at one moment of a move: "Copy before", "Copy within", "Copy after".
type hooked struct {
	Servers
	at   string
	once *sync.Once
	do   func() error // its error is the call's
}

func (h *hooked) moment(name string) (err error) {
	if name == h.at {
		h.once.Do(func() { err = h.do() })
	}
	return err
}

func (h *hooked) around(name string, f func(within func(Copied)) error) error {
	if err := h.moment(name + " before"); err != nil {
		return err
	}
	var within error
	if err := f(func(Copied) {
		if err := h.moment(name + " within"); err != nil {
			within = err
		}
	}); err != nil {
		return errors.Join(err, within)
	}
	return h.moment(name + " after")
}

func (h *hooked) Check(ctx context.Context, j *Job) (o []Obstacle, err error) {
	err = h.around("Check", func(func(Copied)) (err error) {
		o, err = h.Servers.Check(ctx, j)
		return err
	})
	return o, err
}

func (h *hooked) Copy(ctx context.Context, j *Job, report func(Copied)) (id Identity, err error) {
	err = h.around("Copy", func(within func(Copied)) (err error) {
		id, err = h.Servers.Copy(ctx, j, func(c Copied) {
			report(c)
			within(c)
		})
		return err
	})
	return id, err
}

func (h *hooked) Follow(ctx context.Context, j *Job) (lag Lag, err error) {
	err = h.around("Follow", func(func(Copied)) (err error) {
		lag, err = h.Servers.Follow(ctx, j)
		return err
	})
	return lag, err
}

func (h *hooked) Fence(ctx context.Context, j *Job) error {
	return h.around("Fence", func(func(Copied)) error { return h.Servers.Fence(ctx, j) })
}

func (h *hooked) Complete(ctx context.Context, j *Job) error {
	return h.around("Complete", func(func(Copied)) error { return h.Servers.Complete(ctx, j) })
}

func (h *hooked) Thaw(ctx context.Context, j *Job) error {
	return h.around("Thaw", func(func(Copied)) error { return h.Servers.Thaw(ctx, j) })
}

func (h *hooked) Unfence(ctx context.Context, j *Job) error {
	return h.around("Unfence", func(func(Copied)) error { return h.Servers.Unfence(ctx, j) })
}

func (h *hooked) Clean(ctx context.Context, j *Job, _ func(Copied)) error {
	return h.around("Clean", func(within func(Copied)) error { return h.Servers.Clean(ctx, j, within) })
}

func (h *hooked) Detach(ctx context.Context, j *Job) error {
	return h.around("Detach", func(func(Copied)) error { return h.Servers.Detach(ctx, j) })
}

func (h *hooked) Delete(ctx context.Context, j *Job, report func(Copied)) error {
	return h.around("Delete", func(within func(Copied)) error {
		return h.Servers.Delete(ctx, j, func(c Copied) {
			report(c)
			within(c)
		})
	})
}

func (h *hooked) RemoveFence(ctx context.Context, j *Job) error {
	return h.around("RemoveFence", func(func(Copied)) error { return h.Servers.RemoveFence(ctx, j) })
}

// hook has something happen at a moment of the mover's next move.
func hook(at string, do func() error) func(*Config) {
	return func(c *Config) { c.Servers = &hooked{c.Servers, at, &sync.Once{}, do} }
}

// moments are those of a move that comes to its end.
func moments() (all []string) {
	for _, name := range []string{"Check before", "Copy", "Follow after", "Fence", "Complete", "Detach", "Delete", "RemoveFence"} {
		switch name {
		case "Copy", "Delete":
			all = append(all, name+" before", name+" within", name+" after")
		case "Fence", "Complete", "Detach", "RemoveFence":
			all = append(all, name+" before", name+" after")
		default:
			all = append(all, name)
		}
	}
	return all
}

// other is the shard that does not have the moving range.
func (r *rig) other() string {
	if *r.book.owner.Load() == "shard_1" {
		return "shard_2"
	}
	return "shard_1"
}

var errKilled = errors.New("the leader is gone")

// TestAnotherLeaderGoesOn ends the leader at each step of a move, and has another one go on.
func TestAnotherLeaderGoesOn(t *testing.T) {
	r := newRig(t, false)
	r.fill(1500)
	low, high := r.quarter()
	l := r.load(3, r.where(low, high))
	for _, at := range moments() {
		t.Run(at, func(t *testing.T) {
			r.t = t
			to := r.other()
			gone := make(chan struct{})
			var first *Mover
			first = r.mover(hook(at, func() error {
				r.book.mu.Lock()
				r.book.leader = 0 // and its own commands fail from now on
				r.book.mu.Unlock()
				first.stop()
				close(gone)
				return errKilled
			}))
			id := r.book.start(low, high, *r.book.owner.Load(), to)
			<-gone
			first.Close()
			r.book.mu.Lock()
			r.book.leader = id
			r.book.mu.Unlock()
			second := r.mover(nil)
			r.over(id, second)
			second.Close()
			if told := r.book.became(); told[len(told)-1] != "flipped" || *r.book.owner.Load() != to {
				t.Errorf("the move has come to nothing: %v", told)
			}
			r.clean()
			l.busy()
		})
	}
	r.t = t
	l.end()
	l.check()
}

// TestAbort aborts a move at each step before the flip. Nothing of it is left.
func TestAbort(t *testing.T) {
	r := newRig(t, false)
	r.fill(1500)
	low, high := r.quarter()
	l := r.load(3, r.where(low, high))
	for _, at := range moments() {
		if strings.HasPrefix(at, "Detach") {
			break
		}
		t.Run(at, func(t *testing.T) {
			r.t = t
			before := r.rowsOf("shard_2")
			var id uint64
			var m *Mover
			aborted := make(chan error, 1)
			started := make(chan struct{})
			m = r.mover(hook(at, func() error {
				<-started
				aborted <- m.Abort(t.Context(), id, "of a test")
				return nil
			}))
			id = r.book.start(low, high, "shard_1", "shard_2")
			close(started)
			if err := <-aborted; err != nil {
				t.Fatal(err)
			}
			r.over(id, m)
			m.Close()
			if told := r.book.became(); told[len(told)-1] != "aborted: of a test" {
				t.Error(told)
			}
			r.clean()
			if after := r.rowsOf("shard_2"); after != before {
				t.Errorf("the target had %s and has %s", before, after)
			}
			l.busy()
		})
	}
	r.t = t
	l.end()
	l.check()
}

// TestServersRestart crashes the source's or the target's server in each phase, from which it comes back at once. The move goes on.
func TestServersRestart(t *testing.T) {
	r := newRig(t, false)
	r.fill(1500)
	low, high := r.quarter()
	l := r.load(3, r.where(low, high))
	for _, side := range []string{sideSource, sideTarget} {
		for _, at := range []string{"Copy within", "Follow after", "Fence after", "Complete after", "Detach after", "Delete within"} {
			t.Run(side+" "+at, func(t *testing.T) {
				r.t = t
				from, to := *r.book.owner.Load(), r.other()
				server := r.at(from).primary
				if side == sideTarget {
					server = r.at(to).primary
				}
				restarted := false
				m := r.mover(hook(at, func() error {
					restarted = true
					if err := server.Kill(); err != nil {
						return err
					}
					return server.Start(t.Context())
				}))
				id := r.book.start(low, high, from, to)
				r.over(id, m)
				m.Close()
				if !restarted {
					t.Error("the server was not restarted")
				}
				if told := r.book.became(); told[len(told)-1] != "flipped" {
					t.Error(told[len(told)-1])
				}
				r.clean()
				l.busy()
			})
		}
	}
	r.t = t
	l.end()
	l.check()
}

// TestPromotion promotes the source's or the target's replica. Before the flip the move is aborted, after it it comes to its end.
func TestPromotion(t *testing.T) {
	for _, c := range []struct{ at, side, want string }{
		{"Follow after", sideSource, "aborted"}, {"Follow after", sideTarget, "aborted"},
		{"Fence after", sideSource, "aborted"}, {"Complete before", sideTarget, "aborted"},
		{"Detach before", sideSource, "flipped"}, {"Delete before", sideTarget, "flipped"},
	} {
		t.Run(c.side+" "+c.at, func(t *testing.T) {
			r := newRig(t, true)
			for _, name := range []string{"shard_1", "shard_2"} { // else a promotion loses what it loses without a move
				if err := r.at(name).primary.Exec(t.Context(), "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"); err != nil {
					t.Fatal(err)
				}
			}
			r.fill(500)
			low, high := r.quarter()
			l := r.load(3, r.where(low, high))
			name := "shard_1"
			if c.side == sideTarget {
				name = "shard_2"
			}
			m := r.mover(hook(c.at, func() error {
				r.promote(name)
				return r.at(name).primary.Exec(t.Context(), "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
			}))
			id := r.book.start(low, high, "shard_1", "shard_2")
			r.over(id, m)
			l.busy()
			l.end()
			if told := fmt.Sprint(r.book.became()); !strings.HasPrefix(told, "["+c.want) {
				t.Errorf("%s, want %s", told, c.want)
			}
			l.check()
			r.clean()
		})
	}
}

// TestRowsComeBack: a source that was promoted from a replica which had not seen all removals has rows again. They are removed before the fence is.
func TestRowsComeBack(t *testing.T) {
	r := newRig(t, false)
	r.fill(500)
	low, high := r.quarter()
	var id uint64
	m := r.mover(hook("RemoveFence before", func() error {
		return r.at("shard_1").primary.Exec(t.Context(), fmt.Sprintf("SET rangefinder.mover = '%d'; INSERT INTO nothing SELECT c, 1 FROM generate_series(1, 1000) AS c WHERE %s", r.book.owners().Moves[0].ID,
			strings.ReplaceAll(r.where(low, high), "customer_id", "c")))
	}))
	id = r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	if n := r.query("shard_1", "SELECT count(*)::text FROM nothing WHERE "+r.where(low, high)); n != "0" {
		t.Errorf("%s rows of the range are left on the source", n)
	}
	r.clean()
}

// TestReplicasLoseTheRowsToo: a step that removes rows is done when the shard's replica has none of them any more: statements are not told to leave them
// out after that, and may be run on the replica.
func TestReplicasLoseTheRowsToo(t *testing.T) {
	for _, c := range []struct{ step, shard string }{{"Delete", "shard_1"}, {"Clean", "shard_2"}} {
		t.Run(c.step, func(t *testing.T) {
			r := newRig(t, true)
			r.fill(500)
			low, high := r.quarter()
			count := func(s *pgtest.Server) (n int, err error) {
				conn, err := s.Conn(t.Context())
				if err != nil {
					return 0, err
				}
				defer hangUp(conn)
				return n, conn.QueryRow(t.Context(), "SELECT count(*) FROM orders WHERE "+r.where(low, high)).Scan(&n)
			}
			primary, replica := r.at(c.shard).primary, r.at(c.shard).replica
			done := make(chan struct{})
			var resumed sync.WaitGroup
			defer resumed.Wait()
			left := -1
			m := r.mover(func(cfg *Config) {
				hook(c.step+" before", func() error {
					if err := replica.Exec(t.Context(), "SELECT pg_wal_replay_pause()"); err != nil {
						return err
					}
					resumed.Go(func() {
						pgtest.Eventually(t, time.Minute, func() error {
							if n, err := count(primary); err != nil || n > 0 {
								return fmt.Errorf("%d rows, %w", n, err)
							}
							return nil
						})
						select {
						case <-done: // too early
						case <-time.After(300 * time.Millisecond):
						}
						if err := replica.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
							t.Error(err)
						}
					})
					return nil
				})(cfg)
				hook(c.step+" after", func() (err error) {
					left, err = count(replica)
					close(done)
					return err
				})(cfg)
				if c.step == "Clean" {
					hook("Follow after", func() error { return ErrDiffers })(cfg)
				}
			})
			id := r.book.start(low, high, "shard_1", "shard_2")
			r.over(id, m)
			m.Close()
			if left != 0 {
				t.Errorf("%d rows on the replica when the step was done", left)
			}
		})
	}
}

// TestStoppedLeaderMakesNothing: a leader that has slept through the end of its move makes no triggers and no publication anew.
func TestStoppedLeaderMakesNothing(t *testing.T) {
	r := newRig(t, false)
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	low, high := r.quarter()
	job := func(term int) *Job {
		return &Job{Move: rib.Move{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MovePrepare}, Keyspace: r.ks, Term: uint64(term)}
	}
	var old *Job
	for i, c := range []struct {
		name string
		do   func(ctx context.Context, l *link) error
	}{
		{"what guards the tables", func(ctx context.Context, l *link) error {
			_, err := p.guard(ctx, l, old)
			return err
		}},
		{"the fence", func(ctx context.Context, l *link) error {
			return fenceTables(old, sideSource, l.tables, func(t *table, sql ...string) error {
				return p.locked(ctx, lockOn{l.source, "shard_1", t.name, writersSQL}, sql...)
			})
		}},
		{"the publication", func(ctx context.Context, l *link) error { return publish(ctx, l, old) }},
		{"the slot", func(ctx context.Context, l *link) error {
			holder, _, err := p.slot(ctx, l, old, func(Copied) {})
			hangUp(holder)
			return err
		}},
		{"the subscription", func(ctx context.Context, l *link) error { return p.subscribe(ctx, l, old) }},
		{"the rows", func(ctx context.Context, l *link) error { return p.rowsOf(ctx, l, old) }},
	} {
		old = job(2*i + 1)
		// What it still has open is ended by whoever ends the move: what comes by it makes nothing.
		err := p.with(t.Context(), old, func(l *link) error {
			if err := p.rowsOf(t.Context(), l, old); err != nil {
				return err
			}
			if _, err := l.look(t.Context(), old); err != nil {
				return err
			}
			next := NewPostgres(r.config)
			defer next.Close()
			over := job(2*i + 2)
			over.Move.Phase = rib.MoveAborted
			if err := errors.Join(next.Unfence(t.Context(), over), next.Clean(t.Context(), over, func(Copied) {})); err != nil {
				t.Fatal(err)
			}
			return c.do(t.Context(), l)
		})
		if err == nil {
			t.Errorf("%s is made by a connection that was ended", c.name)
		}
		r.clean()
		// Nor does what it opens anew.
		if _, err := p.Copy(t.Context(), old, func(Copied) {}); !errors.Is(err, ErrDeposed) {
			t.Errorf("%s: %v", c.name, err)
		}
		r.clean()
	}
	// Not even on a connection that nobody has ended, by which it has claimed the move before a newer leader came.
	old = job(100)
	conn, err := r.primary(t.Context(), "shard_1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(conn)
	if err := errors.Join(p.claim(t.Context(), conn, old, sideSource), NewPostgres(r.config).Clean(t.Context(), job(101), func(Copied) {})); err != nil {
		t.Fatal(err)
	}
	if err := p.rowOf(t.Context(), conn, old, sideSource); !errors.Is(err, ErrDeposed) {
		t.Error(err)
	}
	r.clean()
}

// TestSlotOfAMoveThatIsOver: a leader that has slept through the end of its move when it was about to make the slot leaves none.
func TestSlotOfAMoveThatIsOver(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	old, over := r.first(low, high), r.first(low, high)
	over.Term, over.Move.Phase = 2, rib.MoveAborted
	next := NewPostgres(r.config)
	t.Cleanup(next.Close)
	var asleep atomic.Bool
	r.config.Primary = func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
		conn, err := r.primary(ctx, shard, database)
		if err != nil {
			return nil, err
		}
		defer hangUp(conn)
		c := conn.Config()
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if asleep.Swap(false) {
				if err := errors.Join(next.Unfence(t.Context(), over), next.Clean(t.Context(), over, func(Copied) {})); err != nil {
					return nil, err
				}
			}
			return dial(ctx, network, addr)
		}
		return pgx.ConnectConfig(ctx, c)
	}
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	err := p.with(t.Context(), old, func(l *link) error {
		if err := p.rowsOf(t.Context(), l, old); err != nil {
			return err
		}
		asleep.Store(true)
		holder, _, err := p.slot(t.Context(), l, old, func(Copied) {})
		hangUp(holder)
		return err
	})
	if err == nil || asleep.Load() {
		t.Errorf("%v", err)
	}
	r.clean()
}

// TestAtWork: what counts as at work at the source is what runs and ran at a moment, and nothing that is idle, has begun later, or is a mover's own.
// It is at work for as long as its statement or its transaction lasts.
func TestAtWork(t *testing.T) {
	r := newRig(t, false)
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	low, high := r.quarter()
	j := &Job{Move: rib.Move{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MoveFlipped}, Keyspace: r.ks, Term: 1}
	connect := func(shard string, sql ...string) *pgx.Conn {
		t.Helper()
		conn, err := r.primary(t.Context(), shard, "")
		if err == nil {
			err = script(t.Context(), conn, sql...)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hangUp(conn) })
		return conn
	}
	waits := func(conn *pgx.Conn, shard, event string) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error {
			if got := r.query(shard, fmt.Sprintf("SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = %d", conn.PgConn().PID())); got != event {
				return fmt.Errorf("it waits for %q, not for %s", got, event)
			}
			return nil
		})
	}
	slow := make(chan error, 10)
	begin := func(conn *pgx.Conn, shard string) *pgx.Conn {
		t.Helper()
		go func() { slow <- script(t.Context(), conn, "SELECT pg_sleep(600)") }()
		waits(conn, shard, "PgSleep")
		return conn
	}
	end := func(shard string, conns ...*pgx.Conn) {
		t.Helper()
		for _, conn := range conns {
			r.query(shard, fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)::text", conn.PgConn().PID()))
			if err := <-slow; err == nil {
				t.Error("a statement has come to its end")
			}
		}
	}
	look := func(held []Work, want int) []Work {
		t.Helper()
		works, err := p.AtWork(t.Context(), j)
		if held != nil {
			works = left(held, works)
		}
		if err != nil || len(works) != want {
			t.Fatalf("%+v are at work, want %d: %v", works, want, err)
		}
		return works
	}
	connect("shard_1", "BEGIN", "SELECT 1") // idle in a transaction
	look(nil, 0)
	old := begin(connect("shard_1"), "shard_1")
	mute := connect("shard_1", "SET track_activities = off")
	elsewhere := begin(connect("shard_2"), "shard_2")
	mover := begin(connect("shard_1", "SET application_name = 'rangefinder move 8'"), "shard_1")
	held := look(nil, 1)
	later := begin(connect("shard_1"), "shard_1")
	look(held, 1)
	go func() { slow <- script(t.Context(), mute, "SELECT pg_advisory_lock(7), pg_sleep(600)") }() // of which nobody knows since when it runs
	pgtest.Eventually(t, 10*time.Second, func() error {
		works, err := p.AtWork(t.Context(), j)
		if err == nil && len(works) != 3 {
			err = fmt.Errorf("%d are at work", len(works))
		}
		return err
	})
	look(held, 1)
	end("shard_1", old)
	look(held, 0)
	held = look(nil, 2)
	end("shard_1", mute)
	look(held, 1)
	end("shard_1", later)
	look(held, 0)
	end("shard_1", mover)
	end("shard_2", elsewhere)

	// One that has the connection of another is not it, and whoever is on its way to the next statement, or transaction, of what it was sent, is.
	lock := connect("shard_1", "SELECT pg_advisory_lock(8)")
	const acquire = "SELECT pg_advisory_lock_shared(8)"
	pooled, several, procedure := connect("shard_1"), connect("shard_1"), connect("shard_1")
	single := make(chan error)
	go func() { single <- script(t.Context(), pooled, acquire) }()
	go func() {
		batch := &pgx.Batch{}
		batch.Queue(acquire)
		batch.Queue("SELECT pg_sleep(600)")
		slow <- several.SendBatch(t.Context(), batch).Close()
	}()
	go func() {
		slow <- script(t.Context(), procedure, "DO $$BEGIN PERFORM pg_advisory_lock_shared(8); COMMIT; PERFORM pg_sleep(600); END$$")
	}()
	for _, conn := range []*pgx.Conn{pooled, several, procedure} {
		waits(conn, "shard_1", "advisory")
	}
	held = look(nil, 3)
	if err := script(t.Context(), lock, "SELECT pg_advisory_unlock(8)"); err != nil {
		t.Fatal(err)
	}
	if err := <-single; err != nil {
		t.Fatal(err)
	}
	begin(pooled, "shard_1")
	waits(several, "shard_1", "PgSleep")
	waits(procedure, "shard_1", "PgSleep")
	look(nil, 3)
	held = look(held, 2)
	end("shard_1", several)
	look(held, 1)
	end("shard_1", procedure)
	look(held, 0)
	end("shard_1", pooled)
}

// TestPromotedReplica: a replica that has become a primary counts as promoted also when it has been restarted since, and has no position up to
// which it has replayed any more.
func TestPromotedReplica(t *testing.T) {
	r := newRig(t, true)
	p := NewPostgres(r.config)
	defer p.Close()
	j := &Job{Move: rib.Move{ID: 7, From: "shard_1", To: "shard_2"}, Keyspace: r.ks}
	lsn := r.query("shard_1", "SELECT pg_current_wal_flush_lsn()::text")
	if err := p.replayed(t.Context(), j, "shard_1", lsn); err != nil {
		t.Fatal(err)
	}
	replica := r.at("shard_1").replica
	if err := replica.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := replica.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.replayed(t.Context(), j, "shard_1", lsn); !errors.Is(err, ErrPromoted) {
		t.Fatal(err)
	}
}
