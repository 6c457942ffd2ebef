package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// backend is a server that lets everybody in and then says nothing.
type backend struct {
	ln    net.Listener
	open  atomic.Int32
	mu    sync.Mutex
	most  int32
	conns []net.Conn
	wg    sync.WaitGroup

	deaf atomic.Bool // it heeds no goodbye
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{ln: ln}
	b.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, conn)
			b.mu.Unlock()
			b.wg.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() { b.kill(); b.wg.Wait() })
	return b
}

func (b *backend) serve(conn net.Conn) {
	defer conn.Close()
	first, err := pgproto3.NewBackend(pgproto3.NewChunkReader(conn), conn).ReceiveStartupMessage()
	if _, ok := first.(*pgproto3.StartupMessage); !ok || err != nil {
		return
	}
	n := b.open.Add(1)
	defer b.open.Add(-1)
	b.mu.Lock()
	b.most = max(b.most, n)
	b.mu.Unlock()
	hello := []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}
	conn.Write(pg.AppendReady(pg.AppendBackendKeyData(hello, 1, []byte{1, 2, 3, 4}), 'I'))
	var one [1]byte
	for {
		if _, err := conn.Read(one[:]); err != nil || !b.deaf.Load() {
			return
		}
	}
}

// kill ends the listener and every connection, as the death of a server does.
func (b *backend) kill() {
	b.ln.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
}

type rig struct {
	*pool.Pools
	b        *rib.Backend
	reported atomic.Int32
}

func newRig(t testing.TB, be *backend, size int, wait time.Duration) *rig {
	r := &rig{b: &rib.Backend{Name: "b", Shard: "s", Addr: be.ln.Addr().String()}}
	r.Pools = pool.New(pool.Config{
		Limits: pool.Limits{Size: size, Wait: wait, Connect: 5 * time.Second}, Dial: new(net.Dialer).DialContext,
		Credential: func(pool.Identity) pg.Credential { return pg.Credential{} },
		Report:     func(string, error) { r.reported.Add(1) },
	})
	r.Open()
	t.Cleanup(r.Close)
	return r
}

func (r *rig) get(t *testing.T, user string) *pool.Conn {
	t.Helper()
	c, err := r.Get(t.Context(), r.b, pool.Identity{User: user, Database: "d"}, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReuseAndBound(t *testing.T) {
	be := newBackend(t)
	r := newRig(t, be, 2, 50*time.Millisecond)
	a := r.get(t, "u")
	a.Release()
	if again := r.get(t, "u"); again != a {
		t.Error("an idle connection was not used again")
	}
	b := r.get(t, "u")
	_, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, false)
	var ee *pool.ExhaustedError
	if !errors.As(err, &ee) || ee.Size != 2 || ee.Backend != "b" {
		t.Errorf("the third: %v", err)
	}
	// Another user's connection takes the place of an idle one: the bound is the backend's.
	b.Release()
	other := r.get(t, "v")
	if other == b || other.Identity.User != "v" {
		t.Error("a connection was lent to another user")
	}
	be.mu.Lock()
	if be.most > 3 { // the closed one may still be on its way out
		t.Errorf("%d connections at once", be.most)
	}
	be.mu.Unlock()
	a.Discard()
	other.Discard()
	if s := r.Stats(); len(s) != 1 || s[0].InUse != 0 || s[0].Idle != 0 {
		t.Errorf("%+v", s)
	}
}

// Users take turns, whoever has nothing first; among those of one user, whoever waits longest is served first.
func TestWaiters(t *testing.T) {
	r := newRig(t, newBackend(t), 1, 10*time.Second)
	held := r.get(t, "u")
	got := make(chan int, 3)
	waiting := func(n int) {
		pgtest.Eventually(t, 30*time.Second, func() error {
			if s := r.Stats(); s[0].Waiting != n {
				return fmt.Errorf("%d wait, want %d", s[0].Waiting, n)
			}
			return nil
		})
	}
	var wg sync.WaitGroup
	for i, user := range []string{"u", "v", "u"} {
		wg.Go(func() {
			c, err := r.Get(context.Background(), r.b, pool.Identity{User: user, Database: "d"}, false)
			if err != nil {
				t.Error(err)
				return
			}
			if c.Identity.User != user {
				t.Errorf("%s got a connection of %s", user, c.Identity.User)
			}
			got <- i
			c.Release()
		})
		waiting(i + 1)
	}
	held.Release()
	wg.Wait()
	for place, want := range []int{1, 0, 2} {
		if i := <-got; i != want {
			t.Errorf("waiter %d was served in place %d", i, place)
		}
	}
	// A waiter who gives up leaves no trace.
	held = r.get(t, "u")
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		if _, err := r.Get(ctx, r.b, pool.Identity{User: "u", Database: "d"}, false); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled wait: %v", err)
		}
	})
	waiting(1)
	cancel()
	wg.Wait()
	held.Release()
	r.get(t, "u").Release()
}

// A connection that its backend has closed is never lent, and neither is one that has unread bytes.
func TestDeadConnections(t *testing.T) {
	be := newBackend(t)
	r := newRig(t, be, 4, time.Second)
	r.get(t, "u").Release()
	be.kill()
	pgtest.Eventually(t, 30*time.Second, func() error { // by checkout or by the reaper, whoever comes first
		if c, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, false); err == nil {
			c.Release()
			return errors.New("lent")
		}
		return nil
	})
	_, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, false)
	var ce *pool.ConnectError
	if !errors.As(err, &ce) || !ce.Elsewhere() || r.reported.Load() == 0 {
		t.Errorf("connecting to a dead backend: %v, reported %d times", err, r.reported.Load())
	}
	if s := r.Stats(); s[0].InUse != 0 || s[0].Failures == 0 {
		t.Errorf("%+v", s)
	}
}

func TestClose(t *testing.T) {
	r := newRig(t, newBackend(t), 1, 10*time.Second)
	held := r.get(t, "u")
	done := make(chan error, 1)
	go func() {
		_, err := r.Get(context.Background(), r.b, pool.Identity{User: "u", Database: "d"}, false)
		done <- err
	}()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if r.Stats()[0].Waiting != 1 {
			return errors.New("nobody waits")
		}
		return nil
	})
	r.Close()
	if err := <-done; !errors.Is(err, pool.ErrClosed) {
		t.Errorf("who waited got %v", err)
	}
	held.Release()
	if _, err := r.Get(t.Context(), r.b, pool.Identity{}, false); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestStatements(t *testing.T) {
	var s pool.Statements
	if s.Oldest() != "" || s.Has("a") {
		t.Error("an empty set holds something")
	}
	for _, n := range []string{"a", "b", "c", "a"} {
		s.Add(n)
	}
	if s.Len() != 3 || s.Oldest() != "b" {
		t.Errorf("%d, oldest %s", s.Len(), s.Oldest())
	}
	s.Has("b")
	s.Remove("c")
	s.Remove("missing")
	if s.Len() != 2 || s.Oldest() != "a" {
		t.Errorf("%d, oldest %s", s.Len(), s.Oldest())
	}
	s.Clear()
	if s.Len() != 0 || s.Has("a") {
		t.Error("Clear left something")
	}
}

// A cancel request that may still be on its way must find nobody else's statement.
func TestUnheardCancel(t *testing.T) {
	be := newBackend(t)
	var deaf atomic.Bool
	r := &rig{b: &rib.Backend{Name: "b", Shard: "s", Addr: be.ln.Addr().String()}}
	var other net.Conn
	r.Pools = pool.New(pool.Config{
		Limits: pool.Limits{Size: 1, Wait: time.Second, Connect: 5 * time.Second},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if deaf.Load() { // taken by nobody
				var near net.Conn
				near, other = net.Pipe()
				go io.Copy(io.Discard, other)
				return near, nil
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		Credential: func(pool.Identity) pg.Credential { return pg.Credential{} },
	})
	t.Cleanup(r.Close)
	c := r.get(t, "u")
	deaf.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Cancel(ctx); !errors.Is(err, pool.ErrUnheard) {
		t.Errorf("got %v", err)
	}
	deaf.Store(false)
	other.Close()
	c.Release()
	if again := r.get(t, "u"); again == c {
		t.Error("it was lent again")
	} else {
		again.Release()
	}
}

// Who cannot be connected to in time is out of reach; how long that may take can be changed.
func TestConnectLimit(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nothing ever comes
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := &rig{b: &rib.Backend{Name: "b", Shard: "s", Addr: silent.Addr().String()}}
	l := pool.Limits{Size: 1, Wait: time.Minute, Connect: time.Hour}
	r.Pools = pool.New(pool.Config{
		Limits: l, Dial: new(net.Dialer).DialContext, Credential: func(pool.Identity) pg.Credential { return pg.Credential{} },
		Report: func(string, error) { r.reported.Add(1) },
	})
	defer r.Close()
	l.Connect = 20 * time.Millisecond
	r.SetLimits(l)
	_, err = r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, false)
	var ce *pool.ConnectError
	if !errors.As(err, &ce) || !ce.Elsewhere() || !errors.Is(ce, context.DeadlineExceeded) || r.reported.Load() != 1 {
		t.Errorf("%v, reported %d times", err, r.reported.Load())
	}
}
