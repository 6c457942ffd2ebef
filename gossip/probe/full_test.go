package probe

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/gossip/memnet"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// A server that has no connection left for the probe lives, and is at the limit of its load, at once. How far it is behind is what was seen
// last, for as long as that stands while probes fail; then nobody knows. It is not called what it was for ever, and not down.
func TestServerWithoutAConnectionLeft(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		s.says(row("t", "3", "0", "77", "5", "10"))
		sink.await(t, 0, "b", "up", func(r rib.Route) bool { return r.State == rib.Up && r.Role == rib.Replica })
		code := tooManyConnections
		s.login.Store(&code)
		start := time.Now()
		p.Renew()
		full := sink.await(t, sink.mark(), "b", "full", func(r rib.Route) bool { return r.Load == rib.LoadAtLimit })
		between(t, "full", full.at.Sub(start), 0, 2*suspectGap)
		if full.State != rib.Up || full.Role != rib.Replica || full.Timeline != 3 || full.Lag != 0 || full.LagBytes != 5 {
			t.Errorf("at first it is called %+v", full.Route)
		}
		if why := p.Trouble("b"); why != "not now (SQLSTATE 53300)" {
			t.Errorf("its trouble is %q", why)
		}
		aged := sink.await(t, sink.mark(), "b", "of unknown lag", func(r rib.Route) bool { return r.Lag == rib.LagUnknown })
		between(t, "its last lag", aged.at.Sub(start), 1700*time.Millisecond, 2500*time.Millisecond) // the third probe
		if aged.State != rib.Up || aged.Role != rib.Replica || aged.Timeline != 3 || aged.LagBytes != rib.LagBytesUnknown || aged.Load != rib.LoadAtLimit {
			t.Errorf("later it is called %+v", aged.Route)
		}
		if why := sink.lost["b"]; why != "" {
			t.Errorf("this node cannot reach it: %s", why)
		}
		s.login.Store(nil)
		sink.await(t, sink.mark(), "b", "as before", func(r rib.Route) bool { return r.Load == rib.LoadBelow && r.Lag == 0 && r.LagBytes == 5 })
		if why := p.Trouble("b"); why != "" {
			t.Errorf("its trouble is still %q", why)
		}
	})
}

// One that was down and comes back full is up after as many answers as any other; one that was never seen has no role and no lag.
func TestServerThatComesBackFull(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		s.says(row("f", "2", "0", "77"))
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.host.Close()
		sink.await(t, 0, "b", "down", is(rib.Down))
		code := tooManyConnections
		s.login.Store(&code)
		s.start(t)
		start, mark := time.Now(), sink.mark()
		up := sink.await(t, mark, "b", "up", is(rib.Up))
		between(t, "up", up.at.Sub(start), time.Second, 2300*time.Millisecond)
		if up.Role != rib.Primary || up.Timeline != 2 || up.Load != rib.LoadAtLimit {
			t.Errorf("it is called %+v", up.Route)
		}
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 1 })
	})
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		code := tooManyConnections
		s.login.Store(&code)
		p.Renew()
		first := sink.await(t, 0, "b", "full", func(r rib.Route) bool { return r.Load == rib.LoadAtLimit })
		if first.State != rib.Up || first.Role != rib.RoleUnknown || first.Lag != rib.LagUnknown || first.LagBytes != rib.LagBytesUnknown {
			t.Errorf("it is called %+v", first.Route)
		}
	})
}

// What says for ever that it is not in the state for the question is not what it was seen to be once; nor is it down.
func TestAnswersThatAreNone(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.says(func(b *pgproto3.Backend, _ net.Conn) bool {
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: notInThatState, Message: "recovery is in progress"})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			return b.Flush() == nil
		})
		mark, start := sink.mark(), time.Now()
		got := sink.await(t, mark, "b", "unknown", is(rib.StateUnknown))
		between(t, "unknown", got.at.Sub(start), 1800*time.Millisecond, 3300*time.Millisecond)
	})
}

// The limits of a role and of a database, on PostgreSQL: the server lives, and how busy it is is not said. The server's own limit is one.
func TestLimitsOfConnections(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	pg := pgtest.NewPrimary(t, pgtest.Options{Params: map[string]string{"max_connections": "12", "superuser_reserved_connections": "3", "autovacuum": "off"}})
	if err := pg.Exec(ctx, "CREATE ROLE prober LOGIN", "CREATE ROLE app LOGIN"); err != nil {
		t.Fatal(err)
	}
	sink := newSeen()
	p := New(Config{
		Settings: Settings{Backends: []Target{{Name: "b", Addr: pg.Addr()}}, User: "prober", Database: "postgres", Interval: 100 * time.Millisecond, Timeout: 20 * time.Second},
		Sink:     sink, Logger: quiet(), Saw: sink.Saw, Recovered: sink.Recovered, Lost: sink.Lost,
	})
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	sink.await(t, 0, "b", "up", is(rib.Up))

	trouble := func(what string) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, func() error {
			if why := p.Trouble("b"); !strings.Contains(why, what) {
				return fmt.Errorf("the probe fails with %q", why)
			}
			return nil
		})
	}
	for _, sql := range []string{"ALTER ROLE prober CONNECTION LIMIT 0", "ALTER DATABASE postgres CONNECTION LIMIT 0"} {
		if err := pg.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
		p.Renew()
		trouble("too many connections for")
		mark := sink.mark()
		got := sink.await(t, mark, "b", "a word", func(rib.Route) bool { return true })
		if got.State != rib.Up || got.Role != rib.Primary || got.Load != rib.LoadBelow {
			t.Errorf("%s: %+v, %s", sql, got.Route, p.Trouble("b"))
		}
		if err := pg.Exec(ctx, "ALTER ROLE prober CONNECTION LIMIT -1", "ALTER DATABASE postgres CONNECTION LIMIT -1"); err != nil {
			t.Fatal(err)
		}
		sink.until(t, "an answer", func() bool { return p.Trouble("b") == "" })
	}

	// Nobody holds a place for the probe while others take all.
	if err := pg.Exec(ctx, "ALTER ROLE prober CONNECTION LIMIT 0"); err != nil {
		t.Fatal(err)
	}
	p.Renew()
	trouble("too many connections for role")
	for n := 0; n < 12-3; n++ { // those that are not reserved; the probe that is refused takes one for a moment
		c, err := pgx.Connect(ctx, pg.DSN("postgres", "app"))
		if err != nil && ctx.Err() == nil {
			n--
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
	}
	if err := pg.Exec(ctx, "ALTER ROLE prober CONNECTION LIMIT -1"); err != nil {
		t.Fatal(err)
	}
	trouble("remaining connection slots")
	if got := sink.await(t, 0, "b", "full", func(r rib.Route) bool { return r.Load == rib.LoadAtLimit }); got.State != rib.Up || got.Role != rib.Primary || got.Lag != 0 {
		t.Errorf("%+v", got.Route)
	}
}
