package move

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// farConn answers a round trip after the last that was sent.
type farConn struct {
	net.Conn
	trip  atomic.Int64 // nanoseconds
	sent  atomic.Pointer[time.Time]
	heard atomic.Bool   // an answer has come since the last that was sent
	turns *atomic.Int64 // counts round trips; nil: they are not counted
}

func (c *farConn) Write(b []byte) (int, error) {
	if c.turns != nil && c.heard.Swap(false) {
		c.turns.Add(1)
	}
	now := time.Now()
	c.sent.Store(&now)
	return c.Conn.Write(b)
}

func (c *farConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard.Store(n > 0 || c.heard.Load())
	if at := c.sent.Load(); at != nil {
		if left := time.Duration(c.trip.Load()) - time.Since(*at); left > 0 {
			<-time.After(left)
		}
	}
	return n, err
}

// trips counts round trips to shards, over all connections to each.
type trips map[string]*atomic.Int64

// far has the servers be far away from whoever moves ranges, and counts the round trips.
func (r *rig) far(trip time.Duration) trips {
	turns := trips{"shard_1": {}, "shard_2": {}}
	near := r.config.Primary
	r.config.Primary = func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
		conn, err := near(ctx, shard, database)
		if err != nil {
			return nil, err
		}
		c := conn.Config().Copy()
		if err := conn.Close(ctx); err != nil {
			return nil, err
		}
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			turns[shard].Add(1) // of the handshake
			far := &farConn{Conn: conn, turns: turns[shard]}
			far.heard.Store(true)
			far.trip.Store(int64(trip))
			return far, err
		}
		return pgx.ConnectConfig(ctx, c)
	}
	return turns
}

// most is the largest number of round trips to one of the shards.
func (t trips) most() (n int64) {
	for _, turns := range t {
		n = max(n, turns.Load())
	}
	return n
}

// TestCheckAsksAtOnce: whatever is asked before a move begins takes one round trip to each server, beside those of its login, however many tables there are.
func TestCheckAsksAtOnce(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	turns := r.far(0)
	conn, err := r.config.Primary(t.Context(), "shard_1", "")
	if err != nil {
		t.Fatal(err)
	}
	hangUp(conn)
	login := turns.most()
	p := NewPostgres(r.config)
	defer p.Close()
	for _, id := range []uint64{0, 1} {
		for _, n := range turns {
			n.Store(0)
		}
		obstacles, err := p.Check(t.Context(), &Job{Move: rib.Move{ID: id, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks})
		if err != nil || len(obstacles) > 0 {
			t.Fatal(err, obstacles)
		}
		for shard, n := range turns { // the settings of the session, the distance, the questions, and the goodbye
			if got := n.Load() - login; got > 4 {
				t.Errorf("move %d: %s was asked in %d round trips", id, shard, got)
			}
		}
	}
}

// TestNothingIsCopiedInFewTrips: a range without rows is checked, and copied, in few round trips, for whoever gives it another shard waits.
func TestNothingIsCopiedInFewTrips(t *testing.T) {
	const most = 32
	r := newRig(t, false)
	low, high := r.quarter()
	turns := r.far(0)
	var before, after int64
	m := r.mover(func(c *Config) {
		hook("Copy after", func() error { after = turns["shard_2"].Load(); return nil })(c)
		hook("Copy before", func() error { before = turns["shard_2"].Load(); return nil })(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := r.book.became(); len(told) != 1 || told[0] != "flipped" {
		t.Errorf("%q", told)
	}
	t.Logf("round trips to the target: %d for the check, %d for the copy", before, after-before)
	if after > most {
		t.Errorf("the target was asked in %d round trips before it followed, of which %d were of the copy", after, after-before)
	}
}

// TestTooFar: servers so far away that no freeze would be long enough are an obstacle, each by name, before anything is touched.
func TestTooFar(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	r.config.Freeze = frozenTrips * 100 * time.Millisecond
	r.far(110 * time.Millisecond)
	p := NewPostgres(r.config)
	defer p.Close()
	obstacles, err := p.Check(t.Context(), &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks})
	if err != nil {
		t.Fatal(err)
	}
	for i, shard := range []string{"shard_1", "shard_2"} {
		if len(obstacles) != 2 || obstacles[i].Shard != shard || !strings.Contains(obstacles[i].Problem, "a round trip from here to its primary takes 1") || !strings.Contains(obstacles[i].Problem, "in 1.2s only if it takes 100ms at most") {
			t.Fatalf("%+v", obstacles)
		}
	}
}

// TestFarServers moves a range between servers that are far away: what is done one after another while the range is frozen takes few round trips, so
// that it comes to its end at the first try.
func TestFarServers(t *testing.T) {
	const trip = 150 * time.Millisecond
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
	r.far(trip)
	var began time.Time
	var took time.Duration
	m := r.mover(func(c *Config) {
		hook("Complete after", func() error { took = time.Since(began); return nil })(c)
		hook("Fence before", func() error { began = time.Now(); return nil })(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := r.book.became(); len(told) != 1 || told[0] != "flipped" {
		t.Errorf("%q", told)
	}
	t.Logf("fence and handover: %v, %.1f round trips", took, float64(took)/float64(trip))
	if took > frozenTrips*trip {
		t.Errorf("the range was fenced for %v, which is more than %d round trips of %v", took, frozenTrips, trip)
	}
	r.clean()
}

// TestNoTimeToFill: where the time of a freeze is too short for the target's last word, that is not begun: the copy is kept, and the range is frozen again.
func TestNoTimeToFill(t *testing.T) {
	r := newRig(t, true)
	r.fill(200)
	low, high := r.quarter()
	var slow atomic.Bool
	slow.Store(true)
	near := r.config.Replicas
	r.config.Replicas = func(ctx context.Context, shard, database string) ([]*pgx.Conn, error) {
		conns, err := near(ctx, shard, database)
		if err != nil || shard != "shard_2" || !slow.Load() {
			return conns, err
		}
		for i, conn := range conns {
			c := conn.Config().Copy()
			if err := conn.Close(ctx); err != nil {
				return nil, err
			}
			var far *farConn
			dial := c.DialFunc
			c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				far = &farConn{Conn: conn}
				return far, err
			}
			if conns[i], err = pgx.ConnectConfig(ctx, c); err != nil {
				return nil, err
			}
			far.trip.Store(int64(time.Second)) // from now on
		}
		return conns, nil
	}
	m := r.mover(func(c *Config) { c.Freeze, c.Again = 1800*time.Millisecond, 50*time.Millisecond })
	id := r.book.start(low, high, "shard_1", "shard_2")
	pgtest.Eventually(t, time.Minute, func() error {
		if told := r.book.became(); len(told) == 0 {
			return errors.New("nothing has become of it yet")
		}
		return nil
	})
	slow.Store(false)
	r.over(id, m)
	told := r.book.became()
	if !strings.HasPrefix(told[0], "thawed") || !strings.Contains(told[0], "less time left than another one takes") || told[len(told)-1] != "flipped" {
		t.Errorf("%q", told)
	}
	r.clean()
}
