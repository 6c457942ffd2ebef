package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// As when a backend has died and all who used it come to the next one: a connection that is there serves them while theirs are being made.
func TestOneConnectionServesAllWhoseLoginsTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var login atomic.Int64 // how long one takes
		p := newPools(pipeDial(func(ctx context.Context) error {
			select {
			case <-time.After(time.Duration(login.Load())):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}), pool.Limits{Size: 40, Wait: time.Hour})
		defer p.Close()
		first, err := p.Get(t.Context(), memory, user("a"), false)
		if err != nil {
			t.Fatal(err)
		}
		first.Release()
		login.Store(int64(time.Second))
		since := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c, err := p.Get(context.Background(), memory, user("a"), true)
				if err != nil {
					t.Error(err)
					return
				}
				<-time.After(2 * time.Millisecond) // its statement, in virtual time
				c.Release()
			})
		}
		wg.Wait()
		if took := time.Since(since); took > 20*time.Millisecond {
			t.Errorf("eight statements of 2ms took %v", took)
		}
		<-time.After(2 * time.Second)
		if s := p.Stats()[0]; s.Idle != 8 || s.InUse != 0 || s.Connects != 8 { // those that were begun are of use to the next ones
			t.Errorf("%+v", s)
		}
	})
}

// Who waits hears what became of the logins, and not that somebody else has given up his.
func TestGivingUpIsNobodyElsesError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := make(chan struct{})
		var dials atomic.Int64
		p := newPools(pipeDial(func(ctx context.Context) error {
			if dials.Add(1) == 1 {
				<-ctx.Done()
				<-time.After(100 * time.Millisecond) // it takes a moment to end
				return ctx.Err()
			}
			<-fails
			return syscall.ECONNREFUSED
		}), pool.Limits{Size: 40, Wait: time.Hour})
		defer p.Close()
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		for _, ctx := range []context.Context{ctx, t.Context()} {
			go func() {
				_, err := p.Get(ctx, memory, user("a"), true)
				errs <- err
			}()
			synctest.Wait()
		}
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
		close(fails)
		since := time.Now()
		if err := <-errs; !errors.Is(err, syscall.ECONNREFUSED) || time.Since(since) > 0 {
			t.Errorf("who waited got %v after %v", err, time.Since(since))
		}
	})
}

// hangingSecond are pools whose second login hangs.
type hangingSecond struct {
	*pool.Pools
	dials *atomic.Int64
}

func newHangingSecond(t *testing.T, c pg.Credential) hangingSecond {
	dials := new(atomic.Int64)
	p := pool.New(pool.Config{
		Limits:     pool.Limits{Size: 5, Wait: time.Minute, Connect: time.Minute},
		Credential: func(pool.Identity) pg.Credential { return c },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	})
	t.Cleanup(p.Close)
	return hangingSecond{p, dials}
}

// held is the first connection, which went to who had the second login begun: that is under way still, and nobody waits for it.
func (p hangingSecond) held(t *testing.T, b *rib.Backend, id pool.Identity) *pool.Conn {
	t.Helper()
	first, err := p.Get(t.Context(), b, id, false)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan *pool.Conn, 1)
	go func() {
		c, err := p.Get(t.Context(), b, id, false)
		if err != nil {
			t.Error(err)
		}
		served <- c
	}()
	pgtest.Eventually(t, 10*time.Second, func() error {
		if n := p.dials.Load(); n != 2 {
			return fmt.Errorf("%d logins", n)
		}
		return nil
	})
	first.Release()
	c := <-served
	if c == nil {
		t.FailNow()
	}
	return c
}

// What a backend says to a user's login hears who it was begun for, though another login of that user goes on, or hangs: here one that was begun for
// somebody who has got another's connection since.
func TestRefusalIsHeardWhileAnotherLoginHangs(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	for name, c := range map[string]struct{ change, code string }{
		"no login":       {"ALTER ROLE u NOLOGIN", "28000"},
		"password":       {"ALTER ROLE u PASSWORD 'another'", "28P01"},
		"no database":    {"DROP DATABASE d WITH (FORCE)", "3D000"},
		"no connections": {"ALTER DATABASE d ALLOW_CONNECTIONS false", "55000"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, sql := range []string{"DROP DATABASE IF EXISTS d WITH (FORCE)", "DROP ROLE IF EXISTS u", "CREATE ROLE u LOGIN PASSWORD 'secret'", "CREATE DATABASE d"} {
				if err := s.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			p, b, id := newHangingSecond(t, pg.Password("secret")), &rib.Backend{Name: "b", Shard: "s", Addr: s.Addr()}, user("u")
			held := p.held(t, b, id)
			defer held.Discard()
			if err := s.Exec(t.Context(), c.change); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := p.Get(ctx, b, id, false)
			var pe *pg.Error
			if !errors.As(err, &pe) || pe.Code != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// Sessions that keep their connections, and come one after the other while logins are under way, get one each.
func TestSessionsThatKeepTheirConnections(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			p := newPools(pipeDial(func(context.Context) error {
				<-time.After(5 * time.Millisecond)
				return nil
			}), pool.Limits{Size: 20, Wait: time.Second})
			defer p.Close()
			var wg sync.WaitGroup
			for range 20 {
				<-time.After(time.Duration(r.IntN(4000)) * time.Microsecond)
				since := time.Now()
				wg.Go(func() {
					c, err := p.Get(context.Background(), memory, user("a"), true)
					if took := time.Since(since); err != nil || took > 20*time.Millisecond {
						t.Errorf("seed %d: %v after %v", seed, err, took)
						return
					}
					<-time.After(time.Hour)
					c.Release()
				})
			}
			wg.Wait()
		})
	}
}

// A login is ended when all who could use it have gone, and not before.
func TestLoginsEndWithThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials, ended atomic.Int64
		open := make(chan struct{})
		p := newPools(pipeDial(func(ctx context.Context) error {
			dials.Add(1)
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				ended.Add(1)
				return ctx.Err()
			}
		}), pool.Limits{Size: 40, Wait: time.Hour})
		defer p.Close()
		get := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() {
				c, err := p.Get(ctx, memory, user("a"), false)
				if err == nil {
					c.Release()
				}
				done <- err
			}()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone, stays := get(ctx), get(t.Context())
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone got %v", err)
		}
		synctest.Wait()
		if dials.Load() != 2 || ended.Load() != 1 {
			t.Errorf("%d logins were begun, %d ended; one still waits", dials.Load(), ended.Load())
		}
		close(open)
		if err := <-stays; err != nil {
			t.Error(err)
		}
		if s := p.Stats()[0]; s.Idle != 1 || s.InUse != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Whatever logins do, and whoever goes away: everybody gets a connection or an error, and no place is lost.
func TestNobodyHopesForEver(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			r := rand.New(rand.NewPCG(seed, 1))
			random := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return r.IntN(n)
			}
			refuses := random(3) == 0
			p := newPools(pipeDial(func(ctx context.Context) error {
				select {
				case <-time.After(time.Duration(random(50)) * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
				if refuses && random(4) == 0 {
					return errors.New("refused")
				}
				return nil
			}), pool.Limits{Size: 1 + random(12), Wait: time.Minute})
			var wg sync.WaitGroup
			for range 2 + random(30) {
				wg.Go(func() {
					for range 5 {
						<-time.After(time.Duration(random(20)) * time.Millisecond)
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random(200))*time.Millisecond)
						if random(2) == 0 {
							ctx = context.Background()
						}
						c, err := p.Get(ctx, memory, user(string(rune('a'+random(3)))), false)
						var ce *pool.ConnectError
						switch {
						case err == nil && random(8) == 0:
							c.Discard()
						case err == nil:
							<-time.After(time.Duration(random(10)) * time.Millisecond)
							c.Release()
						case errors.As(err, &ce) == errors.Is(err, ctx.Err()):
							t.Errorf("seed %d: %v", seed, err)
						}
						cancel()
					}
				})
			}
			wg.Wait()
			<-time.After(time.Second)
			if s := p.Stats()[0]; s.InUse != 0 || s.Waiting != 0 || s.Idle > s.Size {
				t.Errorf("seed %d: %+v", seed, s)
			}
			p.Close()
		})
	}
}
