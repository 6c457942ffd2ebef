package move

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

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// counting are servers that count copies, and on which Complete may fail.
type counting struct {
	Servers
	copies   *atomic.Int64
	complete func(error) error // what becomes of its error; nil: it stays
}

func (c *counting) Copy(ctx context.Context, j *Job, report func(Copied)) (Identity, error) {
	c.copies.Add(1)
	return c.Servers.Copy(ctx, j, report)
}

func (c *counting) Complete(ctx context.Context, j *Job) error {
	err := c.Servers.Complete(ctx, j)
	if c.complete != nil {
		err = c.complete(err)
	}
	return err
}

// hasty has freezes, and what is between them, be short.
func (r *rig) hasty(copies *atomic.Int64, at string, do func() error, with ...func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Freeze, c.Again = time.Second, 200*time.Millisecond
		c.Servers = &counting{Servers: c.Servers, copies: copies}
		hook(at, do)(c)
		for _, f := range with {
			f(c)
		}
	}
}

// thawed waits until the range is not frozen any more, and has not changed hands.
func (r *rig) thawed() error {
	return pgtest.Wait(r.t.Context(), 5*time.Millisecond, func() error {
		if told := r.book.became(); len(told) == 0 || !strings.HasPrefix(told[len(told)-1], "thawed: ") {
			return errors.New("the range is frozen")
		}
		return nil
	})
}

// TestServersAreAway: the source's or the target's server is away for longer than a range may be frozen, or the target's replica too far behind for so long. The range
// is let go meanwhile, its rows are not copied again, and it changes hands afterwards.
func TestServersAreAway(t *testing.T) {
	r := newRig(t, true)
	r.fill(1500)
	low, high := r.quarter()
	l := r.load(3, r.where(low, high))
	for _, c := range []struct{ at, side string }{
		{"Fence before", sideSource}, {"Fence after", sideSource}, {"Fence after", sideTarget}, {"Complete before", "replica"},
	} {
		t.Run(c.side+" "+c.at, func(t *testing.T) {
			r.t = t
			from, to := *r.book.owner.Load(), r.other()
			away, back := r.at(from).primary.Kill, r.at(from).primary.Start
			switch c.side {
			case sideTarget:
				away, back = r.at(to).primary.Kill, r.at(to).primary.Start
			case "replica":
				away = func() error { return r.at(to).replica.Exec(t.Context(), "SELECT pg_wal_replay_pause()") }
				back = func(ctx context.Context) error { return r.at(to).replica.Exec(ctx, "SELECT pg_wal_replay_resume()") }
			}
			var copies atomic.Int64
			came := make(chan error, 1)
			m := r.mover(r.hasty(&copies, c.at, func() error {
				err := away()
				go func() {
					err := r.thawed()
					if err == nil && c.side != sideSource {
						l.busy() // the source is there, and nothing holds its rows back
					}
					came <- errors.Join(err, back(t.Context()))
				}()
				return err
			}))
			id := r.book.start(low, high, from, to)
			r.over(id, m)
			if err := <-came; err != nil {
				t.Error(err)
			}
			m.Close()
			told := strings.Join(r.book.became(), " ")
			_, told, _ = strings.Cut(told, "thawed: ")
			if !strings.HasSuffix(told, "flipped") || strings.Contains(told, "aborted") || copies.Load() != 1 {
				t.Errorf("%s; copied %d times", told, copies.Load())
			}
			r.clean()
			l.busy()
			r.book.mu.Lock()
			r.book.told = nil
			r.book.mu.Unlock()
		})
	}
	r.t = t
	l.end()
	l.check()
}

// TestFenceIsNotShutLate: a fence that waits for a writer when the freeze is given up is not shut when that writer has ended.
func TestFenceIsNotShutLate(t *testing.T) {
	r := newRig(t, false)
	r.config.EndAfter = time.Hour
	r.fill(500)
	low, high := r.quarter()
	where := r.where(low, high)
	var copies atomic.Int64
	m := r.mover(r.hasty(&copies, "Fence before", func() error {
		writer, err := r.primary(t.Context(), "shard_1", "")
		if err == nil {
			err = script(t.Context(), writer, "BEGIN", "UPDATE orders SET note = 'held' WHERE "+where)
		}
		go func() {
			defer hangUp(writer)
			if err := r.thawed(); err != nil {
				t.Error(err)
			}
			if err := script(t.Context(), writer, "COMMIT"); err != nil {
				t.Error(err)
			}
		}()
		return err
	}, func(c *Config) { c.Again = time.Hour }))
	id := r.book.start(low, high, "shard_1", "shard_2")
	if err := r.thawed(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		if n := r.query("shard_1", "SELECT count(*)::text FROM orders WHERE note = 'held'"); n == "0" {
			return errors.New("the writer has not ended")
		}
		return nil
	})
	pgtest.Eventually(t, time.Minute, func() error {
		list := m.Status()
		if len(list) != 1 || list[0].Thawed != 1 || list[0].Phase != rib.MovePrepare || list[0].Step != string(stepFollow) || !strings.Contains(list[0].Problem, "frozen again in") {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	if state := r.query("shard_1", "SELECT state FROM rangefinder.fence"); state != stateOpen {
		t.Errorf("the fence is %s", state)
	}
	if err := r.at("shard_1").primary.Exec(t.Context(), "UPDATE orders SET note = 'after' WHERE "+where); err != nil {
		t.Errorf("a write after the freeze was given up: %v", err)
	}
	if waits := r.query("shard_1", "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'"); waits != "0" {
		t.Errorf("%s locks of the fence are left", waits)
	}
	if copies.Load() != 1 {
		t.Errorf("copied %d times", copies.Load())
	}
	if err := m.Abort(t.Context(), id, "of a test"); err != nil {
		t.Fatal(err)
	}
	r.over(id, m)
	r.clean()
}

// deaf connects to shards' primaries so that a server hears nothing, from some moment on, of a question that is given up: the request to cancel it gets lost.
func (r *rig) deaf(from *atomic.Bool) func(context.Context, string, string) (*pgx.Conn, error) {
	return func(ctx context.Context, name, _ string) (*pgx.Conn, error) {
		cfg, err := pgx.ParseConfig(r.at(name).primary.DSN("", ""))
		if err != nil {
			return nil, err
		}
		var connected atomic.Bool
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if connected.Load() && from.Load() {
				return nil, errors.New("the request is lost")
			}
			return dial(ctx, network, addr)
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		connected.Store(true)
		return conn, err
	}
}

// TestFenceIsNotShutAfterAnAbort: a fence that waits for a writer when the move is aborted is not shut when that writer has ended, though the server has not heard that
// nobody wants it any more: the source would refuse writes to the range for as long as it takes to remove what the move has left.
func TestFenceIsNotShutAfterAnAbort(t *testing.T) {
	r := newRig(t, false)
	var deaf atomic.Bool
	r.config.EndAfter, r.config.Primary = time.Hour, r.deaf(&deaf)
	r.fill(500)
	low, high := r.quarter()
	where := r.where(low, high)
	writer, err := r.primary(t.Context(), "shard_1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(writer)
	var m *Mover
	var id uint64
	aborted := make(chan error, 1)
	var state, refused string
	m = r.mover(func(c *Config) {
		c.Freeze = time.Minute
		hook("Fence before", func() error {
			go func() {
				err := pgtest.Wait(t.Context(), 5*time.Millisecond, func() error {
					if r.query("shard_1", "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == "0" {
						return errors.New("the fence does not wait for the writer")
					}
					return nil
				})
				deaf.Store(true)
				aborted <- errors.Join(err, m.Abort(t.Context(), id, "of a test"))
			}()
			return script(t.Context(), writer, "BEGIN", "UPDATE orders SET note = 'held' WHERE "+where)
		})(c)
		hook("Unfence after", func() error {
			if err := script(t.Context(), writer, "COMMIT"); err != nil {
				return err
			}
			err := pgtest.Wait(t.Context(), 5*time.Millisecond, func() error {
				if n := r.query("shard_1", "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'"); n != "0" {
					return fmt.Errorf("%s locks of the fence are left", n)
				}
				return nil
			})
			state = r.query("shard_1", "SELECT state FROM rangefinder.fence")
			if err := script(t.Context(), writer, "UPDATE orders SET note = 'after' WHERE "+where); err != nil {
				refused = err.Error()
			}
			return err
		})(c)
	})
	id = r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	if err := <-aborted; err != nil {
		t.Error(err)
	}
	if state != stateOpen || refused != "" {
		t.Errorf("the fence of a move that is aborted is %q, and a write gets %q", state, refused)
	}
	r.clean()
}

// TestFilledIsNotThawed: a target that lets writes through already holds no copy any more: a freeze that is given up then ends the move.
func TestFilledIsNotThawed(t *testing.T) {
	r := newRig(t, false)
	r.fill(500)
	low, high := r.quarter()
	var copies atomic.Int64
	m := r.mover(r.hasty(&copies, "", nil, func(c *Config) {
		c.Servers.(*hooked).Servers.(*counting).complete = func(err error) error { return errors.Join(err, errKilled) }
	}))
	before := r.rowsOf("shard_2")
	id := r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	told := r.book.became() // the target may be asked a moment after the range was let go
	if last := told[len(told)-1]; len(told) > 2 || !strings.HasPrefix(last, "aborted: ") || !strings.Contains(last, ErrFilled.Error()) || copies.Load() != 1 {
		t.Errorf("%q", told)
	}
	if after := r.rowsOf("shard_2"); after != before {
		t.Errorf("the target had %s and has %s", before, after)
	}
	r.clean()
}
