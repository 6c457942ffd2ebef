package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// healed is how long nodes may take after a fault until all believe the same again and nobody worries: they look for those they have
// lost every five to ten seconds, who observed in their stead goes on for ten, and one that suspects itself does so for half a minute.
const healed = time.Minute

// upFor checks that no backend that the node can reach, and others beside it, is ever down for all.
func upFor(w *partWorld, side func(region string) bool) func(n *partNode, v *rib.BackendView) {
	return func(n *partNode, v *rib.BackendView) {
		if side(n.region) && side(v.Backend.Region) && v.Verdict == rib.Down {
			w.t.Errorf("%s takes %s for down: %s", n.host.Name(), v.Backend.Name, v.Reason)
		}
	}
}

func everywhere(string) bool { return true }

func TestRegionCutOff(t *testing.T) {
	partitioned(t, 1, func(w *partWorld) {
		w.net.Isolate("syd")
		inside := func(region string) bool { return region == "syd" }
		outside := func(region string) bool { return region != "syd" }
		both := func(n *partNode, v *rib.BackendView) {
			upFor(w, inside)(n, v)
			upFor(w, outside)(n, v)
		}
		w.during(3*time.Minute, both)
		for _, n := range w.nodes {
			lost, live := 2, 4
			if n.region == "syd" {
				lost, live = 4, 2
			}
			if l, m := n.speaker().Lost(), n.speaker().Members(); len(l) != lost || len(m) != live {
				t.Errorf("%s has lost %v and hears %v", n.host.Name(), l, m)
			}
			text := strings.Join(n.worries(), "\n")
			if n.region == "syd" && (!strings.Contains(text, "this node hears 2 of 6 nodes and may be cut off") || !strings.Contains(text, "no node of region iad has been heard since")) {
				t.Errorf("%s does not say that it is cut off: %s", n.host.Name(), text)
			}
			if n.region != "syd" && (strings.Contains(text, "cut off") || !strings.Contains(text, "no node of region syd has been heard since")) {
				t.Errorf("%s: %s", n.host.Name(), text)
			}
			// It reads what stands beside it.
			for _, slot := range n.fib.Load().Slots() {
				if hop := slot.Candidates().Reads[0]; hop.Backend.Region != n.region || !hop.Healthy {
					t.Errorf("%s reads %s from %+v", n.host.Name(), slot.Shard(), hop.Backend)
				}
			}
		}
		w.net.HealAll()
		t.Logf("all agree %v after the heal", w.until(healed, "all agree", w.agreed))
		w.during(time.Minute, upFor(w, everywhere)) // and nothing of what the minority believed comes up again
	})
}

// What goes one way only is for both ends no way at all. Others between them know better.
func TestOneWayLink(t *testing.T) {
	partitioned(t, 2, func(w *partWorld) {
		w.net.CutOneWay("fra", "syd")
		w.during(3*time.Minute, upFor(w, everywhere))
		for _, n := range w.nodes {
			if m := len(n.speaker().Members()); m != len(w.nodes) {
				t.Errorf("%s takes %d nodes for alive", n.host.Name(), m)
			}
		}
		w.net.HealAll()
		t.Logf("all agree %v after the heal", w.until(healed, "all agree", w.agreed))
	})
}

// A link that comes and goes makes nobody change his mind at each turn.
func TestFlappingLink(t *testing.T) {
	partitioned(t, 3, func(w *partWorld) {
		for range 60 {
			w.net.Isolate("syd")
			w.during(700*time.Millisecond, nil)
			w.net.Rejoin("syd")
			w.during(700*time.Millisecond, nil)
		}
		for _, n := range w.nodes {
			for backend, downs := range n.downs {
				if downs > 3 { // of 60 cuts
					t.Errorf("%s took %s for down %d times", n.host.Name(), backend, downs)
				}
			}
		}
		t.Logf("all agree %v after the last turn", w.until(healed, "all agree", w.agreed))
	})
}

func TestAQuarterIsLost(t *testing.T) {
	partitioned(t, 4, func(w *partWorld) {
		w.net.SetLoss("*", "*", 0.25)
		w.during(3*time.Minute, upFor(w, everywhere))
		for _, n := range w.nodes {
			if m := len(n.speaker().Members()); m != len(w.nodes) {
				t.Errorf("%s takes %d nodes for alive", n.host.Name(), m)
			}
		}
		w.net.SetLoss("*", "*", 0)
		t.Logf("all agree %v after the loss", w.until(healed, "all agree", w.agreed))
	})
}

// A node that is stopped is given up, and the others observe in its stead. When it goes on, be it after
// all that the others remember of the dead is forgotten, what it believes of them in the first moment convinces nobody.
func TestFrozenNode(t *testing.T) {
	for _, hold := range []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run(hold.String(), func(t *testing.T) {
			partitioned(t, 5, func(w *partWorld) {
				still := w.nodes[1]
				w.net.Freeze(still.host)
				others := func(n *partNode, v *rib.BackendView) {
					if n != still {
						upFor(w, everywhere)(n, v)
					}
				}
				w.during(hold, others)
				if lost := len(w.nodes[0].speaker().Lost()); (lost == 1) != (hold > 30*time.Second) {
					t.Errorf("after %v %d nodes are lost", hold, lost)
				}
				w.net.Thaw(still.host)
				w.during(5*time.Second, others)
				t.Logf("all agree %v after it went on", 5*time.Second+w.until(healed, "all agree", w.agreed))
			})
		})
	}
}

// Half of the nodes die at once, and come back under new incarnations. Backends are well all the while, and that is what the living say.
func TestHalfOfTheNodesKilled(t *testing.T) {
	partitioned(t, 6, func(w *partWorld) {
		half := []*partNode{w.nodes[0], w.nodes[2], w.nodes[5]} // of syd nobody is left
		for _, n := range half {
			n.crash()
		}
		w.during(2*time.Minute, upFor(w, everywhere))
		for _, n := range w.nodes {
			if n.dead {
				continue
			}
			if text := strings.Join(n.worries(), "\n"); !strings.Contains(text, "this node hears 3 of 6 nodes") || !strings.Contains(text, "no node of region syd") {
				t.Errorf("%s: %s", n.host.Name(), text)
			}
			for _, v := range n.table.Snapshot().Backends {
				if v.Verdict != rib.Up || v.Evidence != "" {
					t.Errorf("%s: %s is %v, %s; %s", n.host.Name(), v.Backend.Name, v.Verdict, v.Reason, v.Evidence)
				}
			}
		}
		for _, n := range half {
			n.again(w.nodes[1])
		}
		w.during(5*time.Second, upFor(w, everywhere))
		t.Logf("all agree %v after they came back", 5*time.Second+w.until(healed, "all agree", w.agreed))
	})
}

// One node claims that a replica was promoted, and the servers do not say so. As long as most of those who observe it say otherwise, and the
// primary lives, nobody's writes go there, and everybody is told who claims it. A true promotion that only one observer has seen
// so far is followed as soon as another one has looked, and if the primary is down, at once.
func TestOneNodeClaimsALaterTimeline(t *testing.T) {
	partitioned(t, 11, func(w *partWorld) {
		const shard, primary, replica = "shard_1", "pg-1-fra", "pg-1-iad"
		liar := w.nodes[slices.IndexFunc(w.nodes, func(n *partNode) bool { return n.region == "syd" })]
		writes := func(n *partNode) string {
			for _, slot := range n.fib.Load().Slots() {
				if c := slot.Candidates(); slot.Shard() == shard && len(c.Writes) == 1 && c.Writes[0].Healthy {
					return c.Writes[0].Backend.Name
				}
			}
			return ""
		}
		goTo := func(backend string) func() bool {
			return func() bool { return w.all(func(n *partNode) bool { return writes(n) == backend }) }
		}
		claims := map[string]rib.Route{
			"a promotion":          {Backend: replica, State: rib.Up, Role: rib.Primary, Timeline: 2},
			"that it stepped down": {Backend: primary, State: rib.Up, Role: rib.Replica, Timeline: 2},
		}
		for what, claim := range claims {
			for range 3 {
				told := map[*partNode]bool{}
				w.during(3*time.Second, func(n *partNode, _ *rib.BackendView) {
					liar.speaker().Observe(claim) // it is no observer, and would take it back
					if to := writes(n); to != primary {
						t.Errorf("%s writes to %q: one node claims %s", n.host.Name(), to, what)
					}
					told[n] = told[n] || strings.Contains(strings.Join(n.worries(), "\n"), liar.host.Name()+" says that "+claim.Backend)
				})
				for _, n := range w.nodes {
					if !told[n] {
						t.Errorf("%s does not say who claims %s", n.host.Name(), what)
					}
				}
				liar.speaker().Observe(rib.Route{Backend: claim.Backend, State: rib.Withdrawn})
				w.until(5*time.Second, "nobody worries", func() bool { return w.all(func(n *partNode) bool { return len(n.worries()) == 0 }) })
			}
		}

		// Both say that they are primaries: the old one lives on, as when it was forgotten to stop it.
		observer := func(backend string) *partNode {
			return w.nodes[slices.IndexFunc(w.nodes, func(n *partNode) bool { return n.region == strings.TrimPrefix(backend, "pg-1-") })]
		}
		w.promote(0, replica)
		w.mu.Lock()
		w.old = map[string]string{primary: "1"}
		w.mu.Unlock()
		observer(replica).heardRecheck(replica) // one observer alone has reason to look
		took := w.until(2*time.Second, "all write to the promoted one", goTo(replica))
		if took > 500*time.Millisecond {
			t.Errorf("all write to the promoted one after %v", took)
		}
		t.Logf("all write to the promoted one, while the old primary lives, after %v", took)

		// The primary is down, and of the observers of the one that is promoted one can reach it.
		w.until(30*time.Second, "nobody expects another one", func() bool { return goTo(replica)() })
		const next = "pg-1-syd"
		_ = w.servers[replica].Close()
		w.until(10*time.Second, "the primary is down", func() bool { return w.all(func(n *partNode) bool { return writes(n) == "" }) })
		w.promote(0, next)
		one := observer(next)
		one.speaker().Observe(rib.Route{Backend: next, State: rib.Up, Role: rib.Primary, Timeline: 3})
		if took := w.until(2*time.Second, "all write to it", goTo(next)); took > 300*time.Millisecond {
			t.Errorf("all write to it after %v", took)
		}
	})
}
