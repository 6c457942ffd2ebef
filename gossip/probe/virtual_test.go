package probe

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

func TestFirstProbeCountsAtOnceThenOneASecond(t *testing.T) {
	lab(t, func(_ *memnet.Net, _ *server, _ *Prober, sink *seen) {
		start := time.Now()
		first := sink.await(t, 0, "b", "up", is(rib.Up))
		between(t, "the first", first.at.Sub(start), time.Millisecond, 10*time.Millisecond)
		if first.Latency != time.Millisecond {
			t.Errorf("latency %v, want the query's round trip, 1 ms", first.Latency)
		}
		<-time.After(10 * time.Second)
		if n := sink.mark(); n < 10 || n > 12 {
			t.Errorf("%d probes in 10 s", n)
		}
		routes := sink.all()
		for i, r := range routes[1:] {
			between(t, "an interval", r.at.Sub(routes[i].at), 890*time.Millisecond, 1110*time.Millisecond)
		}
	})
}

func TestSilenceTakesFallAndReturnTakesRise(t *testing.T) {
	lab(t, func(n *memnet.Net, _ *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		start := time.Now()
		n.Cut("node", "db")
		down := sink.await(t, 0, "b", "down", is(rib.Down))
		// A probe of 2 s, begun up to 1.1 s after the cut, and then two at once.
		between(t, "down", down.at.Sub(start), 4*time.Second, 5200*time.Millisecond)
		if quiet := sink.quietAt("b"); quiet.IsZero() || down.at.Sub(quiet) < 1900*time.Millisecond {
			t.Errorf("it was called quiet at %v, and down at %v", quiet, down.at)
		}
		mark := sink.mark()
		start = time.Now()
		n.HealAll()
		up := sink.await(t, mark, "b", "up again", is(rib.Up))
		between(t, "up again", up.at.Sub(start), 900*time.Millisecond, 3300*time.Millisecond)
		good := 0
		for _, r := range sink.all()[mark:] {
			if r.at.Before(start) {
				continue
			}
			good++
			if r.State == rib.Up {
				break
			}
		}
		if good != 2 {
			t.Errorf("up after %d reports since the heal, want Rise, 2", good)
		}
	})
}

func TestDeathIsSeenAtOnce(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		<-time.After(3500 * time.Millisecond) // in the middle between two probes
		start := time.Now()
		s.host.Close()
		down := sink.await(t, 0, "b", "down", is(rib.Down))
		between(t, "down", down.at.Sub(start), 0, 5*time.Millisecond)

		mark := sink.mark()
		s.start(t)
		up := sink.await(t, mark, "b", "up", is(rib.Up))
		between(t, "up", up.at.Sub(start), time.Second, 2300*time.Millisecond)
	})
}

// The port of a server that is killed may live a moment longer than the process at the other end of the kept connection. The kernel takes
// connections then and breaks them off: that is not yet definite, but the prober does not wait for its next turn to see how it ends.
func TestDeathThatTakesAMoment(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		<-time.After(3500 * time.Millisecond) // in the middle between two probes
		start := time.Now()
		s.host.Close()
		s.shut.Store(true)
		s.start(t)
		<-time.After(250 * time.Millisecond)
		s.host.Close()
		down := sink.await(t, 0, "b", "down", is(rib.Down))
		between(t, "down", down.at.Sub(start), 250*time.Millisecond, 350*time.Millisecond)
	})
	// One that goes on so is down when three turns have found it so, and no sooner; and it is not looked at more often for ever.
	lab(t, func(n *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		<-time.After(3500 * time.Millisecond)
		start := time.Now()
		s.host.Close()
		s.shut.Store(true)
		s.start(t)
		down := sink.await(t, 0, "b", "down", is(rib.Down))
		between(t, "down", down.at.Sub(start), 1800*time.Millisecond, 2300*time.Millisecond)
		dials := n.Host("node", "fra").Traffic().Dials
		<-time.After(10 * time.Second)
		if got := n.Host("node", "fra").Traffic().Dials - dials; got < 9 || got > 12 {
			t.Errorf("%d connections in 10 s, want one a second", got)
		}
	})
}

func TestServerThatRefusesLogins(t *testing.T) {
	for _, test := range []struct {
		code string
		down bool
	}{
		{"57P03", true},  // it starts or stops: at once
		{"53300", false}, // full: it works, for those who are in
	} {
		lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
			sink.await(t, 0, "b", "up", is(rib.Up))
			s.login.Store(&test.code)
			mark := sink.mark()
			if !p.Suspect("b") {
				t.Fatal("b is not probed")
			}
			<-time.After(500 * time.Millisecond)
			sink.mu.Lock()
			defer sink.mu.Unlock()
			down := len(sink.routes) > mark && sink.routes[len(sink.routes)-1].State == rib.Down
			if down != test.down {
				t.Errorf("%s: down %v, want %v", test.code, down, test.down)
			}
		})
	}
}

func TestSuspectConnectsAnewAndClears(t *testing.T) {
	lab(t, func(n *memnet.Net, _ *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		dials := n.Host("node", "fra").Traffic().Dials
		if p.Suspect("nobody") {
			t.Error("a backend nobody listed is probed")
		}
		start := time.Now()
		p.Suspect("b")
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 1 })
		between(t, "recovery", time.Since(start), 800*time.Millisecond, 1200*time.Millisecond) // Rise: now, and a second later
		if got := n.Host("node", "fra").Traffic().Dials - dials; got != 1 {
			t.Errorf("%d new connections, want 1", got)
		}
	})
}

func TestKeptConnectionEndsButServerLives(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		var queries atomic.Int32
		s.says(func(b *pgproto3.Backend, c net.Conn) bool {
			queries.Add(1)
			row("t", "3", "250", "77")(b, c)
			return false // closes after each answer
		})
		got := sink.await(t, 0, "b", "up", func(r rib.Route) bool { return r.Role == rib.Replica })
		if got.Timeline != 3 || got.Lag != 250*time.Millisecond {
			t.Errorf("%+v", got.Route)
		}
		queries.Store(0)
		<-time.After(10 * time.Second)
		if n := queries.Load(); n < 50 || n > 105 {
			t.Errorf("%d probes in 10 s of a server that closes each connection: want at most one in 100 ms", n)
		}
		for _, r := range sink.all() {
			if r.State != rib.Up {
				t.Fatalf("it was called %v", r.State)
			}
		}
	})
}

func TestGarbageIsAFailedProbe(t *testing.T) {
	junk := func(s string) func(*pgproto3.Backend, net.Conn) bool {
		return func(_ *pgproto3.Backend, c net.Conn) bool {
			_, err := io.WriteString(c, s)
			return err == nil
		}
	}
	for name, says := range map[string]func(*pgproto3.Backend, net.Conn) bool{
		"noise":            junk("\x00\xff\x13\x37 nonsense \x00\x00"),
		"a gigabyte":       junk("D\x3f\xff\xff\xff"),
		"negative length":  junk("D\xff\xff\xff\xff"),
		"no columns":       row(),
		"three columns":    row("t", "1", "0"),
		"not a bool":       row("maybe", "1", "0", "77"),
		"not a number":     row("t", "one", "0", "77"),
		"null role":        row("NULL", "1", "0", "77"),
		"no identifier":    row("t", "1", "0", "NULL"),
		"negative bytes":   row("t", "1", "0", "77", "-1", "10"),
		"not a size":       row("t", "1", "0", "77", "much", "10"),
		"not a position":   row("t", "1", "0", "77", "0", "10", "somewhere"),
		"no end":           row("t", "1", "0", "77", "0", "10", "0/5", "never", "f"),
		"no load":          row("t", "1", "0", "77", "0", "NULL"),
		"http":             junk("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"negative columns": junk("T\x00\x00\x00\x06\xff\xff"),
	} {
		t.Run(name, func(t *testing.T) {
			lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
				sink.await(t, 0, "b", "up", is(rib.Up))
				s.says(says)
				sink.await(t, 0, "b", "down", is(rib.Down))
				s.says(row("t", "1", "NULL", "77", "NULL", "10"))
				got := sink.await(t, sink.mark(), "b", "up", is(rib.Up))
				if got.Lag != rib.LagUnknown || got.LagBytes != rib.LagBytesUnknown {
					t.Errorf("lag %v and %d bytes, want unknown", got.Lag, got.LagBytes)
				}
			})
		})
	}
}

// Each probe that fails is counted, though the log has a line only when another failure than the last is met; and what is counted stays when
// the backend is not probed here for a while.
func TestFailuresAreCounted(t *testing.T) {
	lab(t, func(n *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		count := func() uint64 { return p.Failures()["b"] }
		if all := p.Failures(); len(all) != 1 || count() != 0 {
			t.Errorf("%v before anything has failed", all)
		}
		s.says(row("maybe", "1", "0", "77"))
		<-time.After(10 * time.Second)
		garbage := count()
		if garbage < 9 || garbage > 13 { // one a second, and one more look in between
			t.Errorf("%d failures in 10 s of garbage", garbage)
		}
		s.says(row("f", "1", "0", "77"))
		mark := sink.mark()
		sink.await(t, mark, "b", "up", is(rib.Up))
		healed := count()
		<-time.After(10 * time.Second)
		if got := count(); got != healed {
			t.Errorf("%d failures of a server that works", got-healed)
		}
		n.Cut("node", "db")
		<-time.After(20 * time.Second)
		if got := count() - healed; got < 6 || got > 12 { // 2 s each
			t.Errorf("%d failures in 20 s of silence", got)
		}
		// What somebody reads every quarter of an hour must not miss what was in between.
		last := count()
		if err := p.Reload(Settings{}); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != last || last == 0 {
			t.Errorf("%d failures of a backend that is not probed any more, want %d as before", got, last)
		}
		if err := p.Watch(Target{Name: "b", Addr: s.host.Addr(port)}); err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Second)
		if got := count(); got <= last {
			t.Errorf("%d failures, and %d before it was probed again", got, last)
		}
	})
}

// A server that sends without end, rows or settings, takes a bounded part of memory.
func TestEndlessAnswers(t *testing.T) {
	part := make([]byte, 60<<10)
	for name, message := range map[string]pgproto3.BackendMessage{
		"rows":     &pgproto3.DataRow{Values: [][]byte{part}},
		"settings": &pgproto3.ParameterStatus{Name: "x", Value: string(bytes.ReplaceAll(part, []byte{0}, []byte("y")))},
	} {
		t.Run(name, func(t *testing.T) {
			lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
				sink.await(t, 0, "b", "up", is(rib.Up))
				var sent, connections atomic.Int64
				s.says(func(b *pgproto3.Backend, _ net.Conn) bool {
					connections.Add(1)
					b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1}}})
					for {
						b.Send(message)
						if b.Flush() != nil {
							return false
						}
						sent.Add(int64(len(part)))
					}
				})
				sink.await(t, 0, "b", "down", is(rib.Down))
				if most := connections.Load() * (maxStream + 2<<20); sent.Load() > most {
					t.Errorf("%d bytes were taken over %d connections, want at most %d", sent.Load(), connections.Load(), most)
				}
			})
		})
	}
}

func TestCloseEndsAHangingProbe(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.says(func(*pgproto3.Backend, net.Conn) bool { return true }) // never an answer
		<-time.After(1500 * time.Millisecond)
		start := time.Now()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		between(t, "Close", time.Since(start), 0, 200*time.Millisecond)
		if err := p.Watch(Target{Name: "x", Addr: "10.0.0.1:1"}); err == nil {
			t.Error("Watch after Close")
		}
	})
}

func TestPasswordIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		s := startServer(t, n)
		code := "28P01"
		s.login.Store(&code)
		sink := newSeen()
		p := New(Config{
			Settings: Settings{Backends: []Target{{Name: "b", Addr: s.host.Addr(port)}}, User: "prober", Password: "hunter2"}, Sink: sink,
			Dial: n.Host("node", "fra").Dial, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err := p.Open(); err != nil {
			t.Fatal(err)
		}
		sink.await(t, 0, "b", "down", is(rib.Down))
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		n.Close()
	})
	if strings.Contains(log.String(), "hunter2") {
		t.Error("the password is in the log")
	}
	if !strings.Contains(log.String(), "28P01") {
		t.Errorf("the log does not say why: %s", log.String())
	}
}

func TestBadAddresses(t *testing.T) {
	for _, addr := range []string{"", "db", "db:", ":5432", "db:0", "db:99999", "db:http"} {
		p := New(Config{Settings: Settings{Backends: []Target{{Name: "b", Addr: addr}}}, Sink: newSeen()})
		if err := p.Open(); err == nil || !strings.Contains(err.Error(), "backend b") {
			t.Errorf("%q: %v", addr, err)
		}
		if err := p.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// TestLagAfterAnIdleHour: a replica caught in the middle of replaying knows only the age of the last commit before. It is not an
// hour behind because nobody wrote for an hour.
func TestLagAfterAnIdleHour(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		s.says(row("t", "1", "0", "77"))
		sink.await(t, 0, "b", "at the head", func(r rib.Route) bool { return r.Role == rib.Replica && r.Lag == 0 })
		<-time.After(5 * time.Second)
		for _, says := range []string{"3600000", "NULL"} {
			mark := sink.mark()
			s.says(row("t", "1", says, "77"))
			got := sink.await(t, mark, "b", "a lag", func(r rib.Route) bool { return r.Lag != 0 })
			between(t, "the lag", got.Lag, 500*time.Millisecond, 3*time.Second)
			<-time.After(20 * time.Second) // it does not catch up
			between(t, "the lag then", sink.all()[sink.mark()-1].Lag, 18*time.Second, 24*time.Second)
			mark = sink.mark()
			s.says(row("t", "1", "0", "77"))
			sink.await(t, mark, "b", "at the head again", func(r rib.Route) bool { return r.Lag == 0 })
			<-time.After(2 * time.Second)
		}
		// One that was never seen at the head is as far behind as it says.
		mark := sink.mark()
		s.says(row("t", "2", "3600000", "77"))
		sink.await(t, mark, "b", "an hour", func(r rib.Route) bool { return r.Lag == time.Hour })
	})
}

// TestHistoryAfterAGrant: a probe's user that may not read a server's history is looked at again: the log and errors tell an operator to grant it that.
func TestHistoryAfterAGrant(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		s.says(row("f", "2", "0", "77"))
		sink.await(t, 0, "b", "the second timeline", func(r rib.Route) bool { return r.Timeline == 2 })
		<-time.After(10 * time.Second)
		if f := sink.forksOf("b"); f != nil {
			t.Fatalf("it may not, and was told %+v", f)
		}
		s.grants.Store(true)
		<-time.After(historyRetry + 2*time.Second)
		if f, want := sink.forksOf("b"), (rib.Fork{From: 1, Timeline: 2, Least: 0x5000, Most: 0x5000}); len(f) != 1 || f[0] != want {
			t.Errorf("a minute after the grant: %+v, want %+v", f, want)
		}
	})
}

func TestLoadClass(t *testing.T) {
	s := &Settings{Soft: 80, Hard: 95}
	class := rib.LoadBelow
	for i, step := range []struct {
		used int
		want rib.LoadClass
	}{
		{0, rib.LoadBelow}, {79, rib.LoadBelow}, {80, rib.LoadBetween}, {76, rib.LoadBetween}, {94, rib.LoadBetween}, {95, rib.LoadAtLimit},
		{120, rib.LoadAtLimit}, {90, rib.LoadAtLimit}, {89, rib.LoadBetween}, {94, rib.LoadBetween}, {74, rib.LoadBelow}, {99, rib.LoadAtLimit}, {10, rib.LoadBelow},
	} {
		if class = s.class(step.used, class); class != step.want {
			t.Errorf("step %d: %d %% used: %v, want %v", i, step.used, class, step.want)
		}
	}
	if got := new(Settings).class(100, rib.LoadBelow); got != rib.LoadBelow {
		t.Errorf("without limits it is %v", got)
	}
}

func TestLoadAndBytesAreTold(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		if err := p.Reload(Settings{Backends: p.cfg.Backends, User: "prober", Soft: 80, Hard: 95}); err != nil {
			t.Fatal(err)
		}
		for _, says := range []struct {
			used string
			load rib.LoadClass
		}{{"85", rib.LoadBetween}, {"99", rib.LoadAtLimit}, {"20", rib.LoadBelow}} {
			s.says(row("t", "1", "0", "77", "123456", says.used))
			got := sink.await(t, sink.mark(), "b", "load "+says.used, func(r rib.Route) bool { return r.Load == says.load })
			if got.LagBytes != 123456 {
				t.Errorf("%d bytes behind", got.LagBytes)
			}
		}
	})
}

// A server that answers with rows without end is not listened to.
func TestRowsWithoutEnd(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		var sent atomic.Int64
		s.says(func(b *pgproto3.Backend, c net.Conn) bool {
			b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1}}})
			if b.Flush() != nil {
				return false
			}
			row, err := (&pgproto3.DataRow{Values: [][]byte{make([]byte, 60000)}}).Encode(nil)
			for err == nil {
				var n int
				n, err = c.Write(row)
				sent.Add(int64(n))
			}
			return false
		})
		sink.await(t, sink.mark(), "b", "down", is(rib.Down))
		if sent.Load() > 20<<20 {
			t.Errorf("%d MiB were read of it", sent.Load()>>20)
		}
	})
}
