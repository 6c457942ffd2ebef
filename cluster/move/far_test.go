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
)

// farConn answers a round trip after the last that was sent.
type farConn struct {
	net.Conn
	trip atomic.Int64 // nanoseconds
	sent atomic.Pointer[time.Time]
}

func (c *farConn) Write(b []byte) (int, error) {
	now := time.Now()
	c.sent.Store(&now)
	return c.Conn.Write(b)
}

func (c *farConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if at := c.sent.Load(); at != nil {
		if left := time.Duration(c.trip.Load()) - time.Since(*at); left > 0 {
			<-time.After(left)
		}
	}
	return n, err
}

// TestFarServers moves a range between servers that are far away: what is done one after another while the range is frozen takes few round trips, so
// that it comes to its end at the first try.
func TestFarServers(t *testing.T) {
	const trip, most = 150 * time.Millisecond, 12
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
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
			far := &farConn{Conn: conn}
			far.trip.Store(int64(trip))
			return far, err
		}
		return pgx.ConnectConfig(ctx, c)
	}
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
	if took > most*trip {
		t.Errorf("the range was fenced for %v, which is more than %d round trips of %v", took, most, trip)
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
