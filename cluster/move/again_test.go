package move

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// tried counts how often a move's last steps are begun.
type tried struct {
	Servers
	n *atomic.Int64
}

func (s *tried) RemoveFence(ctx context.Context, j *Job) error {
	s.n.Add(1)
	return s.Servers.RemoveFence(ctx, j)
}

func (s *tried) Clean(ctx context.Context, j *Job, report func(Copied)) error {
	s.n.Add(1)
	return s.Servers.Clean(ctx, j, report)
}

// TestRemovedOnce: when the rows of a range are gone from a server, and its fence from a table, what somebody writes there is his, also if the rest has to be tried again.
func TestRemovedOnce(t *testing.T) {
	for _, c := range []struct{ at, shard string }{{"Follow after", "shard_2"}, {"RemoveFence before", "shard_1"}} {
		t.Run(c.shard, func(t *testing.T) {
			r := newRig(t, false)
			r.fill(300)
			low, high := r.quarter()
			r.config.LockWait = 200 * time.Millisecond
			reader := r.connect(c.shard)
			var tries atomic.Int64
			m := r.mover(func(cfg *Config) {
				hook(c.at, func() error {
					err := script(t.Context(), reader, "BEGIN", "SELECT count(*) FROM orders") // whose fence stays for as long as this does
					if c.at == "Follow after" {
						err = errors.Join(err, ErrDiffers)
					}
					return err
				})(cfg)
				cfg.Servers = &tried{cfg.Servers, &tries}
			})
			id := r.book.start(low, high, "shard_1", "shard_2")
			pgtest.Eventually(t, 60*time.Second, func() error {
				if n := r.query(c.shard, "SELECT count(*)::text FROM pg_trigger WHERE tgrelid = 'nothing'::regclass"); n != "0" || tries.Load() == 0 {
					return fmt.Errorf("%s triggers", n)
				}
				return r.at(c.shard).primary.Exec(t.Context(), r.insertSQL(low, high))
			})
			by := tries.Load()
			pgtest.Eventually(t, 60*time.Second, func() error {
				if tries.Load() < by+2 {
					return errors.New("it is not tried again yet")
				}
				return nil
			})
			if err := script(t.Context(), reader, "COMMIT"); err != nil {
				t.Fatal(err)
			}
			r.over(id, m)
			m.Close()
			if n := r.query(c.shard, "SELECT count(*)::text FROM nothing WHERE x = 4711"); n != "1" {
				t.Errorf("%s rows are left", n)
			}
			r.clean()
		})
	}
}

// TestDeposedWipe: a leader that has slept while it cleared up for a copy takes nothing of the next one's away.
func TestDeposedWipe(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	id := r.book.start(low, high, "shard_1", "shard_2")
	job := func(term uint64) *Job {
		return &Job{Move: *r.book.owners().Move(id), Keyspace: r.ks, Term: term}
	}
	p, next := NewPostgres(r.config), NewPostgres(r.config)
	t.Cleanup(p.Close)
	t.Cleanup(next.Close)
	old := job(1)
	err := p.with(t.Context(), old, func(l *link) error {
		if err := p.rowsOf(t.Context(), l, old); err != nil {
			return err
		}
		if copies, err := holdsCopies(t.Context(), l.target, old); err != nil || copies {
			t.Errorf("%v, %v", copies, err)
		}
		if _, err := next.Copy(t.Context(), job(2), func(Copied) {}); err != nil { // while it sleeps
			return err
		}
		before := r.catalogs("shard_1") + r.catalogs("shard_2")
		for _, side := range []string{sideSource, sideTarget} {
			if err := p.unguard(t.Context(), l.on(side), old, side, allGuards); err == nil {
				t.Errorf("it is let in at the %s", side)
			}
		}
		if after := r.catalogs("shard_1") + r.catalogs("shard_2"); after != before {
			t.Errorf("there was %s, and is %s", before, after)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNoLongerWaited: when a replica has replayed, a move does not say that it waits for it.
func TestNoLongerWaited(t *testing.T) {
	r := newRig(t, true)
	r.fill(100)
	low, high := r.quarter()
	replica, reader := r.at("shard_1").replica, r.connect("shard_1")
	m := r.mover(hook("Delete before", func() error {
		return errors.Join(script(t.Context(), reader, "BEGIN", "SELECT count(*) FROM orders"), replica.Exec(t.Context(), "SELECT pg_wal_replay_pause()"))
	}))
	id := r.book.start(low, high, "shard_1", "shard_2")
	waits := func(want bool) func() error {
		return func() error {
			if s := m.Status(); len(s) != 1 || strings.Contains(s[0].Problem, "has not replayed the removal") != want {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}
	}
	pgtest.Eventually(t, 30*time.Second, waits(true))
	if err := replica.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // what comes behind the replicas has begun
		if n := r.query("shard_1", "SELECT count(*)::text FROM pg_event_trigger"); n != "0" {
			return errors.New(n)
		}
		return nil
	})
	if err := waits(false)(); err != nil {
		t.Error(err)
	}
	if err := script(t.Context(), reader, "COMMIT"); err != nil {
		t.Error(err)
	}
	r.over(id, m)
}
