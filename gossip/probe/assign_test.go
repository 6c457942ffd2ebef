package probe

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// far is the target of a server that another node lists.
func far(s *server) Target {
	return Target{Name: "other", Shard: "shard_1", Region: "fra", Addr: s.host.Addr(port), SystemID: 77}
}

func (s *seen) ofBackend(name string) (routes []sighting) {
	for _, r := range s.all() {
		if r.Backend == name {
			routes = append(routes, r)
		}
	}
	return routes
}

func TestAssignedBackendIsObservedAndNotAnnounced(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		p.Assign([]Target{{Name: "b"}, far(s)})
		sink.await(t, 0, "other", "up", is(rib.Up))
		<-time.After(10 * time.Second)
		if n := len(sink.ofBackend("other")); n < 9 || n > 12 {
			t.Errorf("%d reports in 10 s, want one a second", n)
		}
		for _, b := range sink.announced {
			if b.Name == "other" {
				t.Error("it announces a backend that another node lists")
			}
		}
		s.host.Close()
		sink.await(t, 0, "other", "down", is(rib.Down))
		sink.until(t, "b is lost as well", func() bool { return sink.lost["b"] != "" })
		if why := sink.lost["other"]; !strings.Contains(why, "refused") {
			t.Errorf("this node's own evidence is %q", why)
		}
		s.start(t)
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 2 })

		// Not chosen any more: no word, and no probe.
		p.Assign([]Target{{Name: "b"}})
		<-time.After(time.Second)
		n := len(sink.ofBackend("other"))
		<-time.After(10 * time.Second)
		if more := len(sink.ofBackend("other")) - n; more != 0 {
			t.Errorf("%d reports of a backend that is not observed any more", more)
		}
		if p.Suspect("other") {
			t.Error("it is probed still")
		}
	})
}

// Who lists a backend and leaves it to other observers looks at it now and then: it goes on to announce what it is.
func TestListedBackendThatOthersObserve(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		p.Assign(nil)
		<-time.After(time.Second)
		mark := sink.mark()
		s.says(row("f", "1", "0", "78"))
		start := time.Now()
		sink.until(t, "the new identifier", func() bool { return sink.announced[len(sink.announced)-1].SystemID == 78 })
		between(t, "the new identifier", time.Since(start), 0, 12*time.Second)
		if n := sink.mark() - mark; n != 0 {
			t.Errorf("%d reports of a backend that others observe", n)
		}
		s.host.Close() // evidence for this node all the same, and nobody else's
		sink.until(t, "evidence", func() bool { return sink.lost["b"] != "" })
		if n := sink.mark() - mark; n != 0 {
			t.Errorf("%d reports of a backend that others observe", n)
		}
		p.Assign([]Target{{Name: "b"}})
		sink.await(t, mark, "b", "down", is(rib.Down))
	})
}

// An address may lead elsewhere from here: localhost does. Who meets another server, or nobody ever, has no say; it only cannot use it.
func TestObserverThatNeverReachedTheBackendHasNoSay(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		stranger, nobody := far(s), far(s)
		stranger.Name, stranger.SystemID = "stranger", 99
		nobody.Name, nobody.Addr = "nobody", "10.9.9.9:5432"
		p.Assign([]Target{{Name: "b"}, stranger, nobody})
		sink.until(t, "evidence", func() bool { return sink.lost["stranger"] != "" && sink.lost["nobody"] != "" })
		<-time.After(20 * time.Second)
		for _, name := range []string{"stranger", "nobody"} {
			if routes := sink.ofBackend(name); len(routes) > 0 {
				t.Errorf("of %s it says %+v", name, routes[0].Route)
			}
		}
		if why := sink.lost["stranger"]; !strings.Contains(why, "system identifier is 77, not 99") {
			t.Errorf("the evidence is %q", why)
		}
		if len(sink.recovered) > 0 {
			t.Errorf("recovered: %v", sink.recovered)
		}
	})
}

// A server that does not know this node's user is no dead server: not for others, and not for this node's statements, which log in
// as somebody else. For its own node it is.
func TestObserverThatMayNotLogIn(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		p.Assign([]Target{{Name: "b"}, far(s)})
		sink.await(t, 0, "other", "up", is(rib.Up))
		code := "28P01"
		s.login.Store(&code)
		p.Renew()
		sink.await(t, 0, "b", "down", is(rib.Down))
		<-time.After(10 * time.Second)
		routes := sink.ofBackend("other")
		// What it saw last is not true for ever: it has no say any more, and none against the backend.
		if last := routes[len(routes)-1]; last.State != rib.StateUnknown || len(routes) != 2 || sink.lost["other"] != "" {
			t.Errorf("it says %v, and of its own way there %q", last.State, sink.lost["other"])
		}
	})
}

// Own evidence that a backend cannot be reached ends when the server itself answers, also if the probe's user may not log in there: sessions
// come as other users.
func TestEvidenceEndsWhereTheProbeMayNotLogIn(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		code := cannotConnectNow
		s.login.Store(&code)
		if err := p.Watch(far(s)); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		sink.until(t, "not yet: it starts", func() bool { return len(sink.recovered) == 0 })
		refused := "28P01"
		s.login.Store(&refused)
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 1 && sink.recovered[0] == "other" })
	})
}

// But not evidence that the address leads to another server.
func TestEvidenceOfAnotherServerStays(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.says(row("f", "1", "0", "78"))
		if err := p.Watch(far(s)); err != nil {
			t.Fatal(err)
		}
		sink.until(t, "another server", func() bool { return sink.lost["other"] != "" })
		refused := "28P01"
		s.login.Store(&refused)
		p.Renew()
		<-time.After(time.Minute)
		sink.until(t, "evidence holds", func() bool { return !slices.Contains(sink.recovered, "other") })
	})
}

// A server that is replaced by another one under the same address: up before, unknown then, and up again with the right one.
func TestObserverMeetsAnotherServer(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		p.Assign([]Target{{Name: "b"}, far(s)})
		sink.await(t, 0, "other", "up", is(rib.Up))
		s.says(row("f", "1", "0", "78"))
		mark := sink.mark()
		sink.await(t, mark, "other", "unknown", is(rib.StateUnknown))
		s.says(row("f", "1", "0", "77"))
		sink.await(t, mark, "other", "up", is(rib.Up))
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 1 && sink.recovered[0] == "other" })
	})
}

func TestEvidenceOutlivesTheWorkerThatMetIt(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.host.Close()
		if err := p.Watch(Target{Name: "other", Addr: s.host.Addr(port)}); err != nil {
			t.Fatal(err)
		}
		<-time.After(5 * time.Second)
		p.Assign([]Target{{Name: "b"}, far(s)}) // it is to be observed, and its identifier is known now
		<-time.After(5 * time.Second)
		if len(sink.recovered) > 0 {
			t.Fatalf("recovered while it is dead: %v", sink.recovered)
		}
		s.start(t)
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 2 })
	})
}

// fleet is one prober and n servers that it lists.
func fleet(t *testing.T, count int, f func(n *memnet.Net, servers []*server, p *Prober, sink *seen)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		n.SetRTT(memnet.Everyone, memnet.Everyone, time.Millisecond)
		var servers []*server
		var targets []Target
		for i := range count {
			s := &server{host: n.Host(fmt.Sprintf("db%d", i), "fra")}
			s.says(row("f", "1", "0", "77"))
			s.start(t)
			servers = append(servers, s)
			targets = append(targets, Target{Name: fmt.Sprintf("b%d", i), Shard: "shard_1", Region: "fra", Addr: s.host.Addr(port)})
		}
		sink := newSeen()
		p := New(Config{Settings: Settings{Backends: targets, User: "prober"}, Sink: sink, Logger: quiet(), Lost: sink.Lost, Recovered: sink.Recovered, Dial: n.Host("node", "fra").Dial})
		if err := p.Open(); err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			sink.await(t, 0, target.Name, "up", is(rib.Up))
		}
		f(n, servers, p, sink)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
	})
}

func TestMostBackendsSilentAtOneStrokeIsItsOwnFault(t *testing.T) {
	fleet(t, 5, func(n *memnet.Net, _ []*server, p *Prober, sink *seen) {
		start := time.Now()
		for i := range 3 {
			n.Cut("node", fmt.Sprintf("db%d", i))
		}
		for i := range 3 {
			b := fmt.Sprintf("b%d", i)
			got := sink.await(t, 0, b, "not up any more", func(r rib.Route) bool { return r.State != rib.Up })
			if got.State != rib.StateUnknown {
				t.Errorf("%s is %v, want unknown", b, got.State)
			}
			if sink.lost[b] == "" {
				t.Errorf("%s: it cannot reach it and does not know", b)
			}
		}
		if why := p.Suspicion(); !strings.HasPrefix(why, "3 of the 5 backends") {
			t.Errorf("suspicion: %q", why)
		}
		// What lasts is believed.
		<-time.After(suspicionTime - time.Second)
		for i := range 3 {
			down := sink.await(t, 0, fmt.Sprintf("b%d", i), "down", is(rib.Down))
			between(t, "down", down.at.Sub(start), suspicionTime, suspicionTime+12*time.Second)
		}
		if why := p.Suspicion(); why != "" {
			t.Errorf("it suspects itself still: %s", why)
		}
		n.HealAll()
		sink.until(t, "recovered", func() bool { return len(sink.recovered) == 3 })
	})
}

func TestWhatIsNoSuspicion(t *testing.T) {
	notUp := func(r rib.Route) bool { return r.State != rib.Up }
	t.Run("half of them", func(t *testing.T) {
		fleet(t, 4, func(n *memnet.Net, _ []*server, _ *Prober, sink *seen) {
			n.Cut("node", "db0")
			n.Cut("node", "db1")
			for _, b := range []string{"b0", "b1"} {
				if got := sink.await(t, 0, b, "not up", notUp); got.State != rib.Down {
					t.Errorf("%s is %v, want down", b, got.State)
				}
			}
		})
	})
	t.Run("they refuse", func(t *testing.T) {
		fleet(t, 3, func(_ *memnet.Net, servers []*server, _ *Prober, sink *seen) {
			for _, s := range servers {
				s.host.Close()
			}
			for _, b := range []string{"b0", "b1", "b2"} {
				if got := sink.await(t, 0, b, "not up", notUp); got.State != rib.Down {
					t.Errorf("%s is %v, want down", b, got.State)
				}
			}
		})
	})
	t.Run("one after the other", func(t *testing.T) {
		fleet(t, 3, func(n *memnet.Net, _ []*server, _ *Prober, sink *seen) {
			for i := range 3 {
				n.Cut("node", fmt.Sprintf("db%d", i))
				b := fmt.Sprintf("b%d", i)
				if got := sink.await(t, 0, b, "not up", notUp); got.State != rib.Down {
					t.Errorf("%s is %v, want down", b, got.State)
				}
				<-time.After(2 * stroke)
			}
		})
	})
	t.Run("too few to tell", func(t *testing.T) {
		fleet(t, 2, func(n *memnet.Net, _ []*server, _ *Prober, sink *seen) {
			n.Cut("node", "db0")
			n.Cut("node", "db1")
			for _, b := range []string{"b0", "b1"} {
				if got := sink.await(t, 0, b, "not up", notUp); got.State != rib.Down {
					t.Errorf("%s is %v, want down", b, got.State)
				}
			}
		})
	})
}

// A backend that this node neither lists nor observes is probed for how far it has come as long as somebody asks, and a while after
// that; it is never spoken of.
// Who looks at a backend that it does not observe, and that is silent, knows a few seconds later that it cannot be reached from here:
// while its observers suspect themselves nobody else tells.
func TestLookAtWhatIsSilent(t *testing.T) {
	lab(t, func(n *memnet.Net, s *server, p *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		n.Cut("node", "db")
		began := time.Now()
		if err := p.Look(far(s), false); err != nil {
			t.Fatal(err)
		}
		sink.until(t, "lost", func() bool { return sink.lost["other"] != "" })
		if took := time.Since(began); took > 5*time.Second || sink.quietAt("other").IsZero() {
			t.Errorf("lost after %v, quiet since %v", took, sink.quietAt("other"))
		}
		if routes := sink.ofBackend("other"); len(routes) > 0 {
			t.Errorf("it speaks of what it does not observe: %+v", routes)
		}
		n.Heal("node", "db")
		sink.until(t, "recovered", func() bool { return slices.Contains(sink.recovered, "other") })
	})
}

func TestLook(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		of := func() (list []rib.Position) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			for _, p := range sink.positions {
				if p.Backend == "other" {
					list = append(list, p)
				}
			}
			return list
		}
		began, x := time.Now(), far(s)
		if err := p.Look(x, false); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
		first := of()
		if len(first) != 1 || first[0].Asked.Before(began) || time.Since(first[0].Asked) > 100*time.Millisecond {
			t.Fatalf("saw %+v", first)
		}
		if want := (rib.Position{Backend: "other", Shard: x.Shard, Addr: x.Addr, SystemID: 77, Role: rib.Primary, Timeline: 1, LSN: 0x3000060, Asked: first[0].Asked, Told: first[0].Asked.Add(time.Millisecond)}); !reflect.DeepEqual(first[0], want) {
			t.Errorf("saw %+v, want %+v", first[0], want)
		}
		<-time.After(lookHold + 5*time.Second)
		probes := len(of())
		if probes < 25 || probes > 35 {
			t.Errorf("%d probes in %v", probes, lookHold)
		}
		<-time.After(time.Minute)
		if more := len(of()) - probes; more != 0 {
			t.Errorf("%d more probes that nobody wants", more)
		}
		if routes := sink.ofBackend("other"); len(routes) != 0 {
			t.Errorf("it is spoken of: %v", routes)
		}

		// One that is listed, and left to other observers, is looked at as often again.
		p.Assign(nil)
		<-time.After(20 * time.Second)
		for range 10 {
			before := time.Now()
			if err := p.Look(Target{Name: "b"}, false); err != nil {
				t.Fatal(err)
			}
			<-time.After(500 * time.Millisecond)
			sink.mu.Lock()
			last := sink.positions[len(sink.positions)-1]
			sink.mu.Unlock()
			if last.Backend != "b" || last.Asked.Before(before) {
				t.Fatalf("half a second after it was asked for the last probe is %+v", last)
			}
		}
	})
}
