package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgproto3/v2"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// pipeDial connects to servers in memory that let everybody in and then say nothing. before is called first, and may refuse.
func pipeDial(before func(ctx context.Context) error) pool.Dialer {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := before(ctx); err != nil {
			return nil, err
		}
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			if _, err := pgproto3.NewBackend(pgproto3.NewChunkReader(far), far).ReceiveStartupMessage(); err != nil {
				return
			}
			hello := []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}
			far.Write(pg.AppendReady(pg.AppendBackendKeyData(hello, 1, []byte{1, 2, 3, 4}), 'I'))
			var one [1]byte
			far.Read(one[:])
		}()
		return near, nil
	}
}

func newPools(dial pool.Dialer, l pool.Limits) *pool.Pools {
	l.Connect = 5 * time.Second
	return pool.New(pool.Config{Limits: l, Dial: dial, Credential: func(pool.Identity) pg.Credential { return pg.Credential{} }})
}

var memory = &rib.Backend{Name: "b", Shard: "s", Addr: "memory:1"}

func user(name string) pool.Identity { return pool.Identity{User: name, Database: "d"} }

// A user with a long line keeps no other one waiting.
func TestUsersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPools(pipeDial(func(context.Context) error { return nil }), pool.Limits{Size: 1, Wait: time.Hour})
		defer p.Close()
		held, err := p.Get(t.Context(), memory, user("a"), false)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan *pool.Conn)
		for _, name := range []string{"a", "a", "a", "a", "a", "b", "c"} {
			go func() {
				c, err := p.Get(context.Background(), memory, user(name), false)
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			synctest.Wait()
		}
		var order []string
		for range 7 {
			held.Release()
			held = <-got
			order = append(order, held.Identity.User)
		}
		if !slices.Equal(order, []string{"b", "a", "c", "a", "a", "a", "a"}) {
			t.Errorf("they were served in the order %v", order)
		}
		held.Release()
	})
}

// As long as everybody has a fair part, connections stay with their users: a login costs more than a statement.
func TestConnectionsStayWithTheirUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPools(pipeDial(func(context.Context) error { return nil }), pool.Limits{Size: 5, Wait: time.Hour})
		defer p.Close()
		var wg sync.WaitGroup
		served := map[string]*atomic.Int64{"a": {}, "b": {}}
		end := time.Now().Add(10 * time.Second)
		for i := range 24 {
			name := []string{"a", "a", "b"}[i%3]
			wg.Go(func() {
				for time.Now().Before(end) {
					c, err := p.Get(context.Background(), memory, user(name), false)
					if err != nil {
						t.Error(err)
						return
					}
					<-time.After(time.Millisecond) // its statement, in virtual time
					served[name].Add(1)
					c.Release()
				}
			})
		}
		wg.Wait()
		s := p.Stats()[0]
		a, b := served["a"].Load(), served["b"].Load()
		if s.Connects > 10 || b < a/2 || a < b/2 {
			t.Errorf("%d connections were made, a was served %d times and b %d", s.Connects, a, b)
		}
	})
}

// However many want one, few connections are made at a time.
func TestConnectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, all atomic.Int64
		p := newPools(pipeDial(func(context.Context) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			all.Add(1)
			<-time.After(100 * time.Millisecond)
			now.Add(-1)
			return nil
		}), pool.Limits{Size: 40, Wait: time.Hour})
		defer p.Close()
		conns := make(chan *pool.Conn, 40)
		for range 40 {
			go func() {
				c, err := p.Get(context.Background(), memory, user("a"), false)
				if err != nil {
					t.Error(err)
				}
				conns <- c
			}()
		}
		for range 40 {
			(<-conns).Release()
		}
		if most.Load() > 8 || all.Load() > 40 {
			t.Errorf("%d at a time, %d in all", most.Load(), all.Load())
		}
	})
}

// A backend that is out of reach is not stormed: whoever wants a connection hears of the last try, and soon after it is back it
// is used again.
func TestFailingBackendIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		var down atomic.Bool
		down.Store(true)
		p := newPools(pipeDial(func(context.Context) error {
			dials.Add(1)
			<-time.After(5 * time.Millisecond)
			if down.Load() {
				return errors.New("refused")
			}
			return nil
		}), pool.Limits{Size: 10, Wait: time.Hour})
		defer p.Close()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 1000 {
					_, err := p.Get(context.Background(), memory, user("a"), false)
					var ce *pool.ConnectError
					if !errors.As(err, &ce) || !ce.Elsewhere() {
						t.Errorf("got %v", err)
						return
					}
					<-time.After(10 * time.Millisecond)
				}
			})
		}
		wg.Wait() // some 10 s
		if n := dials.Load(); n > 8+16 {
			t.Errorf("it was asked %d times", n)
		}
		down.Store(false)
		since := time.Now()
		for {
			c, err := p.Get(context.Background(), memory, user("a"), false)
			if err == nil {
				c.Release()
				break
			}
			<-time.After(time.Millisecond)
		}
		if took := time.Since(since); took > 1100*time.Millisecond {
			t.Errorf("back after %v", took)
		}
		down.Store(true)
		p.Forget("b")
		p.Get(context.Background(), memory, user("a"), false)
		p.Get(context.Background(), memory, user("a"), false)
		down.Store(false)
		p.Reachable("b")
		c, err := p.Get(context.Background(), memory, user("a"), false)
		if err != nil {
			t.Fatalf("a backend that has been seen to answer: %v", err)
		}
		c.Release()
	})
}

// A backend that has no connection left makes sessions wait: for one that comes back here, or for one that is closed elsewhere.
func TestBackendIsFull(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{})
	if err := s.Exec(t.Context(), "CREATE ROLE few LOGIN CONNECTION LIMIT 2"); err != nil {
		t.Fatal(err)
	}
	b := &rib.Backend{Name: "b", Shard: "s", Addr: s.Addr()}
	few := pool.Identity{User: "few", Database: "postgres"}
	p := newPools(new(net.Dialer).DialContext, pool.Limits{Size: 10, Wait: 30 * time.Second})
	p.Open()
	defer p.Close()
	elsewhere, err := s.ConnTo(t.Context(), "postgres", "few")
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.Get(t.Context(), b, few, true)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *pool.Conn, 2)
	for range 2 {
		go func() {
			c, err := p.Get(context.Background(), b, few, true)
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
	}
	pgtest.Eventually(t, 10*time.Second, func() error {
		if st := p.Stats()[0]; st.Waiting != 2 || st.Refusals == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	select {
	case <-got:
		t.Fatal("there was one left after all")
	default:
	}
	pid := first.PID
	first.Release()
	second := <-got
	if second == nil || second.PID != pid {
		t.Error("the one that came back was not passed on")
	}
	elsewhere.Close(t.Context())
	third := <-got
	if third == nil || third == second {
		t.Fatal("no connection, though one was closed elsewhere")
	}
	// Other users are not kept from this backend by that one's limit.
	other, err := p.Get(t.Context(), b, pool.Identity{User: "postgres", Database: "postgres"}, true)
	if err != nil {
		t.Fatal(err)
	}
	other.Release()
	p.SetLimits(pool.Limits{Size: 10, Wait: 300 * time.Millisecond})
	begin := time.Now()
	_, err = p.Get(t.Context(), b, few, true)
	var ee *pool.ExhaustedError
	if !errors.As(err, &ee) || ee.Full == nil || !strings.Contains(ee.Full.Message, "too many connections") || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("when the wait was over: %v after %v", err, time.Since(begin))
	}
	if n := p.Stats()[0].Refusals; n > 40 {
		t.Errorf("it was asked %d times", n)
	}
	second.Release()
	third.Release()
}

// Where max_connections is what is missing, another user's idle connection makes room.
func TestFullBackendGivesUpIdleConnections(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{Params: map[string]string{"max_connections": "8", "superuser_reserved_connections": "2"}})
	if err := s.Exec(t.Context(), "CREATE ROLE one LOGIN", "CREATE ROLE two LOGIN"); err != nil {
		t.Fatal(err)
	}
	b := &rib.Backend{Name: "b", Shard: "s", Addr: s.Addr()}
	p := newPools(new(net.Dialer).DialContext, pool.Limits{Size: 20, Wait: 20 * time.Second})
	p.Open()
	defer p.Close()
	var all []*pool.Conn
	for range 6 {
		c, err := p.Get(t.Context(), b, pool.Identity{User: "one", Database: "postgres"}, true)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Release()
	}
	c, err := p.Get(t.Context(), b, pool.Identity{User: "two", Database: "postgres"}, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	if st := p.Stats()[0]; st.Refusals == 0 || st.Idle != 6 {
		t.Errorf("%+v", st)
	}
}

func TestLifetime(t *testing.T) {
	r := newRig(t, newBackend(t), 4, time.Second)
	lent, idle := r.get(t, "u"), r.get(t, "u")
	idle.Release()
	r.SetLimits(pool.Limits{Size: 4, Wait: time.Second, Lifetime: time.Second})
	pgtest.Eventually(t, 10*time.Second, func() error {
		if s := r.Stats()[0]; s.Idle != 0 || s.InUse != 1 { // the lent one
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	lent.Release()
	if s := r.Stats()[0]; s.InUse+s.Idle != 0 {
		t.Errorf("it was kept: %+v", s)
	}
}

// Connections are ready for users that are there, before they are wanted; and are made again.
func TestMinimum(t *testing.T) {
	be := newBackend(t)
	r := newRig(t, be, 10, time.Second)
	r.SetLimits(pool.Limits{Size: 10, Wait: time.Second, Idle: 10 * time.Millisecond, Min: 3})
	r.Join(user("u"))
	r.get(t, "u").Release()
	r.get(t, "gone").Release() // nobody of that name has a session
	have := func(n int) {
		t.Helper()
		pgtest.Eventually(t, 15*time.Second, func() error {
			list, _ := r.Servers()
			if s := r.Stats()[0]; s.Idle != n || len(list) != n {
				return fmt.Errorf("%+v", s)
			}
			for _, c := range list {
				if c.Identity != user("u") {
					return fmt.Errorf("one of %v", c.Identity)
				}
			}
			return nil
		})
	}
	have(3)
	before := r.Stats()[0].Connects
	be.mu.Lock()
	for _, c := range be.conns {
		c.Close()
	}
	be.mu.Unlock()
	pgtest.Eventually(t, 15*time.Second, func() error {
		if n := r.Stats()[0].Connects; n < before+3 {
			return fmt.Errorf("%d connections were made", n)
		}
		return nil
	})
	have(3)
	r.Leave(user("u"))
	have(0)
}

func TestKeepAlive(t *testing.T) {
	r := newRig(t, newBackend(t), 4, time.Second)
	r.SetLimits(pool.Limits{Size: 4, Wait: time.Second, KeepAlive: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: -1}})
	c := r.get(t, "u")
	defer c.Discard()
	option := func(level, name int) (v int) {
		c.Raw().Control(func(fd uintptr) { v, _ = syscall.GetsockoptInt(int(fd), level, name) })
		return v
	}
	on, idle, interval := option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE), option(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
	if on == 0 || idle != 60 || interval != 10 {
		t.Errorf("keepalive %d, after %d s, every %d s", on, idle, interval)
	}
}
