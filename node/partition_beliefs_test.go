package node

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"rangefinder/rib"
)

// The way from the primary to a replica falls silent, and the replica calls itself up to date. Who observes it sees by the primary that it is
// not, and max_lag holds on all nodes, also those that look at neither.
func TestSilentWayFromThePrimary(t *testing.T) {
	partitioned(t, 7, func(w *partWorld) {
		const bound, silent = 5 * time.Second, "pg-1-syd"
		for _, n := range w.nodes {
			n.table.Local().SetPolicy(&rib.Policy{MaxLag: bound})
		}
		all := func(reads bool) func() bool {
			return func() bool { return w.all(func(n *partNode) bool { return n.reads(silent) == reads }) }
		}
		read := func(n *partNode, v *rib.BackendView) {
			if !n.reads(v.Backend.Name) {
				t.Errorf("%s does not read from %s: %v behind", n.host.Name(), v.Backend.Name, v.Lag)
			}
		}
		w.hush(silent, true)
		w.during(30*time.Second, read) // of a primary that writes nothing nobody is behind
		w.hush(silent, false)
		w.write()
		w.during(30*time.Second, read)

		w.hush(silent, true)
		took := w.until(time.Minute, "nobody reads from it", all(false))
		if took < bound || took > bound+2*time.Second { // with the next probe
			t.Errorf("nobody reads from it after %v", took)
		}
		w.during(30*time.Second, func(n *partNode, v *rib.BackendView) {
			if reads := n.reads(v.Backend.Name); reads != (v.Backend.Name != silent) || v.Verdict != rib.Up {
				t.Errorf("%s reads from %s: %v, %v behind, %v", n.host.Name(), v.Backend.Name, reads, v.Lag, v.Verdict)
			}
		})
		w.hush(silent, false)
		back := w.until(time.Minute, "all read from it", all(true))
		t.Logf("with a bound of %v nobody reads from it %v after the silence began, and all do %v after its end", bound, took, back)
	})
}

// A node that does not observe a backend, and has nothing to do with it, goes by what its observers say: that it is down, and up again.
func TestVerdictsReachThoseWhoDoNotObserve(t *testing.T) {
	partitioned(t, 8, func(w *partWorld) {
		const name = "pg-1-syd"
		view := func(n *partNode) *rib.BackendView {
			for _, v := range n.table.Snapshot().Backends {
				if v.Backend.Name == name {
					return &v
				}
			}
			t.Fatalf("%s does not know %s", n.host.Name(), name)
			return nil
		}
		observes := func(n *partNode) bool {
			return slices.ContainsFunc(view(n).Routes, func(r rib.Route) bool { return r.Observer == n.host.Name() })
		}
		others := 0
		for _, n := range w.nodes {
			if !observes(n) {
				others++
			}
		}
		if others != len(w.nodes)-rib.MaxObservers {
			t.Fatalf("%d nodes do not observe it:\n%s", others, w.dump())
		}
		server := w.net.Host(name, "syd")
		says := func(verdict rib.State) func() bool {
			return func() bool {
				return w.all(func(n *partNode) bool { return view(n).Verdict == verdict && n.reads(name) == (verdict == rib.Up) })
			}
		}
		w.net.Freeze(server)
		first := w.until(time.Minute, "an observer takes it for down", func() bool {
			return !w.all(func(n *partNode) bool { return view(n).Verdict != rib.Down })
		})
		rest := w.until(time.Minute, "all take it for down", says(rib.Down))
		if first > 5500*time.Millisecond || rest > 1500*time.Millisecond {
			t.Errorf("down for the first after %v, for all %v later", first, rest)
		}
		for _, n := range w.nodes {
			if v := view(n); !observes(n) && (v.Evidence != "" || n.prober().Trouble(name) != "") {
				t.Errorf("%s has looked itself: %q %q", n.host.Name(), v.Evidence, n.prober().Trouble(name))
			}
		}
		// Of the observers that say so, one dies: the others' word holds. Who is chosen in its place has never reached it, and has no say yet.
		for _, n := range w.nodes {
			if observes(n) && n.region != "syd" {
				n.crash()
				break
			}
		}
		w.during(time.Minute, func(n *partNode, v *rib.BackendView) {
			if v.Backend.Name == name && v.Verdict != rib.Down {
				t.Errorf("%s takes it for %v: %s", n.host.Name(), v.Verdict, v.Reason)
			}
		})
		if v := view(w.nodes[0]); v.Reason != "2 of 2 observers say down" {
			t.Errorf("an observer has died, and %s", v.Reason)
		}
		w.net.Thaw(server)
		back := w.until(time.Minute, "all take it for up", says(rib.Up))
		if back > 6*time.Second {
			t.Errorf("up for all after %v", back)
		}
		w.until(time.Minute, "three observe it again", func() bool {
			return w.all(func(n *partNode) bool { return view(n).Reason == "3 of 3 observers say up" })
		})
		t.Logf("down for the first after %v and for all %v later, up for all %v after it went on", first, rest, back)
	})
}

// A node that does not observe a primary meets it as a replica: it has the observers look at it, and goes by the next primary much sooner than their
// probes would have come to it, whatever the distance.
func TestRecheckReachesTheObservers(t *testing.T) {
	partitioned(t, 9, func(w *partWorld) {
		away := w.nodes[0]
		for round := range 8 {
			<-time.After(10*time.Second + time.Duration(round)*130*time.Millisecond) // a moment of the probes' round like any other
			names := slices.DeleteFunc([]string{w.backend(0, "fra"), w.backend(0, "iad"), w.backend(0, "syd")}, func(b string) bool { return b == w.primaries[0] })
			next := names[round%2]
			before := w.promote(0, next)
			for _, v := range w.nodes[0].table.Snapshot().Backends {
				if v.Backend.Name == before {
					away = w.nodes[slices.IndexFunc(w.nodes, func(n *partNode) bool {
						return !slices.ContainsFunc(v.Routes, func(r rib.Route) bool { return r.Observer == n.host.Name() })
					})]
				}
			}
			away.recheck(before)
			took := w.until(time.Minute, "its writes go to the next primary", func() bool {
				for _, slot := range away.fib.Load().Slots() {
					if c := slot.Candidates(); slot.Shard() == "shard_1" && len(c.Writes) == 1 {
						return c.Writes[0].Backend.Name == next
					}
				}
				return false
			})
			t.Logf("%s writes to %s in place of %s after %v", away.host.Name(), next, before, took)
			if took > 300*time.Millisecond { // to the observers, from them to their servers for a login and a question, and back
				t.Errorf("%s writes to %s in place of %s after %v only", away.host.Name(), next, before, took)
			}
		}
	})
}

// A node whose connect is refused has the observers look at the server: all nodes know that it is down as soon as two of them have, and not only when
// they would have looked at it anyway.
func TestRefusedConnectsReachTheObservers(t *testing.T) {
	partitioned(t, 10, func(w *partWorld) {
		for i, name := range []string{"pg-1-iad", "pg-2-syd", "pg-2-fra"} {
			<-time.After(10*time.Second + time.Duration(i)*330*time.Millisecond) // a moment of the probes' round like any other
			_ = w.servers[name].Close()
			w.nodes[i].reportBackend(name, syscall.ECONNREFUSED)
			took := w.until(time.Minute, "all take it for down", func() bool {
				return w.all(func(n *partNode) bool {
					return slices.ContainsFunc(n.table.Snapshot().Backends, func(v rib.BackendView) bool { return v.Backend.Name == name && v.Verdict == rib.Down })
				})
			})
			t.Logf("%s has told of %s, and all know after %v", w.nodes[i].host.Name(), name, took)
			if took > 300*time.Millisecond { // to the observers, from there to the server, and to all
				t.Errorf("all know that %s is down after %v only", name, took)
			}
		}
	})
}
