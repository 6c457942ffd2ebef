package pool_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// TestRefusedLogin: a backend that asks a user for more than is known of him says nothing of itself: it is not taken for one that is
// out of reach, and whoever is told may use the place that is free now, for a question about that very user.
func TestRefusedLogin(t *testing.T) {
	asks := pgtest.Script{pgtest.ExpectStartup(nil), pgtest.Send(&pgproto3.AuthenticationCleartextPassword{}), pgtest.ExpectEOF()}
	fake := pgtest.NewFake(t, asks, pgtest.Script{pgtest.Login(), pgtest.ExpectEOF()})
	b := &rib.Backend{Name: "b", Shard: "shard_7", Addr: fake.Addr()}
	var p *pool.Pools
	var reported, told atomic.Int32
	p = pool.New(pool.Config{
		Limits: pool.Limits{Size: 1, Wait: 5 * time.Second, Connect: 5 * time.Second}, Dial: new(net.Dialer).DialContext,
		Credential: func(pool.Identity) pg.Credential { return pg.Credential{} },
		Report:     func(string, error) { reported.Add(1) },
		Refused: func(ctx context.Context, id pool.Identity) {
			told.Add(1)
			c, err := p.Get(ctx, b, pool.Identity{User: "asks", Database: id.Database, Own: true}, false)
			if err != nil {
				t.Errorf("the question about %s: %v", id.User, err)
				return
			}
			c.Release()
		},
	})
	p.Open()
	t.Cleanup(p.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // less than it would wait for the place
	defer cancel()
	_, err := p.Get(ctx, b, pool.Identity{User: "u", Database: "d"}, false)
	var ce *pool.ConnectError
	if !errors.As(err, &ce) || !errors.Is(err, pg.ErrNoPassword) || !ce.Login() || ce.Elsewhere() || ce.Shard != "shard_7" || ce.Identity.User != "u" {
		t.Errorf("%v", err)
	}
	if told.Load() != 1 || reported.Load() != 0 {
		t.Errorf("told %d times, reported %d times", told.Load(), reported.Load())
	}
}

// TestPasswordIsNotToldToAnybody: a backend that asks for the password in clear text gets it only where it may be told, and hears nothing
// else from who does not tell it.
func TestPasswordIsNotToldToAnybody(t *testing.T) {
	asks := pgtest.Script{pgtest.ExpectStartup(nil), pgtest.Send(&pgproto3.AuthenticationCleartextPassword{}), pgtest.ExpectEOF()}
	told := pgtest.Script{
		pgtest.ExpectStartup(nil), pgtest.Send(&pgproto3.AuthenticationCleartextPassword{}), pgtest.Expect(&pgproto3.PasswordMessage{Password: "secret"}),
		pgtest.Send(&pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}), pgtest.ExpectEOF(),
	}
	heard, listed := pgtest.NewFake(t, asks), pgtest.NewFake(t, told)
	var reported, again atomic.Int32
	p := pool.New(pool.Config{
		Limits: pool.Limits{Size: 1, Wait: 5 * time.Second, Connect: 5 * time.Second}, Dial: new(net.Dialer).DialContext,
		Plain:      func(addr string) bool { return addr == listed.Addr() },
		Credential: func(pool.Identity) pg.Credential { return pg.Password("secret") },
		Report:     func(string, error) { reported.Add(1) },
		Refused:    func(context.Context, pool.Identity) { again.Add(1) },
	})
	p.Open()
	t.Cleanup(p.Close)
	id := pool.Identity{User: "u", Database: "d"}
	_, err := p.Get(t.Context(), &rib.Backend{Name: "heard", Shard: "shard_7", Addr: heard.Addr()}, id, false)
	var ce *pool.ConnectError
	if !errors.As(err, &ce) || !errors.Is(err, pg.ErrPlain) || !ce.Login() || ce.Elsewhere() {
		t.Errorf("%v", err)
	}
	if reported.Load() != 0 || again.Load() != 0 {
		t.Errorf("reported %d times, the user was looked up %d times", reported.Load(), again.Load())
	}
	c, err := p.Get(t.Context(), &rib.Backend{Name: "listed", Shard: "shard_7", Addr: listed.Addr()}, id, false)
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
}
