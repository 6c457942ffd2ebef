package pool_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// standbys are pools of a shard with two backends, whose reads go to the other one when one has failed.
type standbys struct {
	*pool.Pools
	first, second *rib.Backend
	dials         [2]atomic.Int64
	refuses       atomic.Bool // the second one does
	crowded       atomic.Bool // the same
	slow          atomic.Bool // logins take for ever
}

func newStandbys(l pool.Limits) *standbys {
	s := &standbys{first: &rib.Backend{Name: "1", Shard: "s", Addr: "memory:1"}, second: &rib.Backend{Name: "2", Shard: "s", Addr: "memory:2"}}
	l.Connect = 5 * time.Second
	let := pipeDial(func(context.Context) error { return nil })
	s.Pools = pool.New(pool.Config{
		Limits: l, Credential: func(pool.Identity) pg.Credential { return pg.Credential{} },
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			second := strings.HasSuffix(addr, ":2")
			if second {
				s.dials[1].Add(1)
			} else {
				s.dials[0].Add(1)
			}
			if s.slow.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if second && s.refuses.Load() {
				return nil, errors.New("refused")
			}
			return let(ctx, network, addr)
		},
		Next: func(b *rib.Backend, _ pool.Identity) *rib.Backend {
			if b.Name == s.second.Name {
				return s.first
			}
			if s.crowded.Load() {
				return nil
			}
			return s.second
		},
	})
	return s
}

// use has a statement of somebody at a backend.
func (s *standbys) use(t *testing.T, b *rib.Backend, name string) *pool.Conn {
	t.Helper()
	c, err := s.Get(t.Context(), b, user(name), true)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	return c
}

// wait lets time pass.
func (s *standbys) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(time.Second)
		s.Tend()
		synctest.Wait()
	}
}

// idle is how many connections of somebody are ready at a backend.
func (s *standbys) idle(b *rib.Backend, name string) (n int) {
	list, _ := s.Servers()
	for _, c := range list {
		if c.Backend == b.Name && c.Identity == user(name) && c.Idle {
			n++
		}
	}
	return n
}

func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandbys(pool.Limits{Size: 8, Wait: time.Second, Idle: time.Minute, Standby: 1})
		defer s.Close()
		s.Join(user("a"))
		s.use(t, s.first, "a")
		s.use(t, s.first, "gone") // who has no sessions
		s.wait(5 * time.Second)
		if s.idle(s.second, "a") != 1 || s.idle(s.second, "gone") != 0 || s.dials[1].Load() != 1 {
			t.Fatalf("%d and %d connections stand by, of %d", s.idle(s.second, "a"), s.idle(s.second, "gone"), s.dials[1].Load())
		}
		s.wait(time.Hour) // it stays, and is the one that the next statement gets
		s.use(t, s.second, "a")
		if n := s.dials[1].Load(); n != 1 {
			t.Errorf("the statement had to wait for a login: %d at the second backend", n)
		}
		s.Leave(user("a"))
		s.wait(2 * time.Minute)
		if s.idle(s.second, "a") != 0 || s.idle(s.first, "a") != 0 {
			t.Error("connections stand by for somebody who has no session any more")
		}
	})
}

// What stands by and is not to any more is closed at once, and not made again a moment later.
func TestStandbyIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandbys(pool.Limits{Size: 8, Wait: time.Second, Standby: 1})
		defer s.Close()
		s.Join(user("a"))
		s.use(t, s.first, "a")
		s.wait(5 * time.Second)
		if s.idle(s.second, "a") != 1 {
			t.Fatal("none stands by")
		}
		s.crowded.Store(true)
		s.wait(2 * time.Second)
		if s.idle(s.second, "a") != 0 {
			t.Error("it stays where too many connections are in use")
		}
		s.crowded.Store(false)
		s.wait(10 * time.Second)
		if n := s.dials[1].Load(); n != 1 {
			t.Errorf("it was made again at once: %d logins", n)
		}
		s.wait(2 * time.Minute)
		if s.idle(s.second, "a") != 1 {
			t.Error("it is not made again")
		}
	})
}

// Whoever uses the second backend from now on has one ready at the first.
func TestStandbyFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandbys(pool.Limits{Size: 8, Wait: time.Second, Idle: time.Minute, Standby: 1})
		defer s.Close()
		s.Join(user("a"))
		s.use(t, s.second, "a")
		s.wait(5 * time.Second)
		if s.idle(s.first, "a") != 1 {
			t.Error("none stands by at the first backend")
		}
	})
}

// A standby is made only where there is plenty of room, and not again and again where it cannot be.
func TestStandbyKeepsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandbys(pool.Limits{Size: 8, Wait: time.Second, Idle: time.Minute, Standby: 1})
		defer s.Close()
		s.crowded.Store(true)
		for _, name := range []string{"a", "b", "c", "d"} {
			s.Join(user(name))
			s.use(t, s.first, name)
		}
		s.wait(time.Minute)
		if n := s.dials[1].Load(); n != 0 {
			t.Errorf("%d logins where there is no room", n)
		}
		s.crowded.Store(false)
		s.wait(time.Minute)
		if n := s.dials[1].Load(); n != 2 { // a quarter of 8
			t.Errorf("%d of 8 places were taken, want a quarter", n)
		}
		s.Rest(map[string]bool{s.second.Name: true})
		s.wait(time.Minute)
		if n := s.dials[1].Load(); n != 2 {
			t.Errorf("%d logins at a backend that rests", n-2)
		}
		s.Rest(nil)
		s.refuses.Store(true)
		s.wait(10 * time.Minute)
		if n := s.dials[1].Load() - 2; n == 0 || n > 4*11 { // each user's once a minute
			t.Errorf("%d logins in ten minutes at a backend that refuses", n)
		}
		s.refuses.Store(false)
		s.SetLimits(pool.Limits{Size: 8, Wait: time.Second, Idle: time.Minute})
		s.wait(5 * time.Minute)
		before := s.dials[1].Load()
		s.wait(5 * time.Minute)
		if n := s.dials[1].Load(); n != before {
			t.Errorf("%d logins though none is to stand by", n-before)
		}
	})
}

// While a database is paused nothing is made for it in advance, and what is being made for nobody ends with the beginning of the pause.
func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStandbys(pool.Limits{Size: 8, Wait: time.Second, Idle: time.Minute, Standby: 1, Min: 2})
		defer s.Close()
		s.Join(user("a"))
		s.use(t, s.first, "a")
		s.wait(5 * time.Second)
		if s.idle(s.first, "a") != 2 || s.idle(s.second, "a") != 1 {
			t.Fatalf("%d and %d connections are ready", s.idle(s.first, "a"), s.idle(s.second, "a"))
		}
		s.slow.Store(true)
		gone, cancel := context.WithCancel(t.Context())
		one, err := s.Get(t.Context(), s.second, user("a"), true)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan *pool.Conn)
		go func() {
			c, _ := s.Get(gone, s.second, user("a"), true)
			asked <- c
		}()
		synctest.Wait()
		one.Release()
		if c := <-asked; c != one {
			t.Fatal("who waited for a login did not get what came back")
		}
		one.Release()
		cancel()
		wait := s.Suspend("d")
		s.Reconnect("d")
		wait()
		list, logins := s.Servers()
		if len(list) != 0 || len(logins) != 0 {
			t.Errorf("in a pause there are %d connections, and logins of %v", len(list), logins)
		}
		before := s.dials[0].Load() + s.dials[1].Load()
		s.wait(time.Hour)
		if n := s.dials[0].Load() + s.dials[1].Load(); n != before {
			t.Errorf("%d logins in a pause", n-before)
		}
		s.slow.Store(false)
		s.Resume("d")
		s.use(t, s.first, "a")
		s.wait(5 * time.Second)
		if s.idle(s.first, "a") != 2 || s.idle(s.second, "a") != 2 { // both have been used
			t.Errorf("after it %d and %d connections are ready", s.idle(s.first, "a"), s.idle(s.second, "a"))
		}
	})
}

// What is made in advance has had its server plan something: of the first statement that comes over it a client should not notice that it is the first.
func TestWhatIsMadeInAdvanceIsWarm(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{})
	if err := s.Exec(t.Context(), "CREATE ROLE u LOGIN"); err != nil {
		t.Fatal(err)
	}
	b := &rib.Backend{Name: "b", Shard: "s", Addr: s.Addr(), SystemID: s.SystemID()}
	id := pool.Identity{User: "u", Database: "postgres"}
	p := newPools(new(net.Dialer).DialContext, pool.Limits{Size: 10, Wait: 5 * time.Second, Min: 2})
	p.Open()
	defer p.Close()
	p.Join(id)
	lent, err := p.Get(t.Context(), b, id, true)
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Release()
	var spare uint32
	pgtest.Eventually(t, 15*time.Second, func() error {
		list, _ := p.Servers()
		for _, c := range list {
			if c.Idle {
				spare = c.PID
				return nil
			}
		}
		return errors.New("none was made")
	})
	conn, err := s.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for pid, want := range map[uint32]bool{lent.PID: false, spare: true} {
		var last string
		if err := conn.QueryRow(t.Context(), "SELECT query FROM pg_stat_activity WHERE pid = $1", pid).Scan(&last); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(last, "pg_class") != want || !strings.Contains(last, "system_identifier") {
			t.Errorf("made in advance: %v, and the server was asked %q", want, last)
		}
	}
}
