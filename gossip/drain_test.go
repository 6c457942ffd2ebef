package gossip

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// drain is an operator who tells this node something.
func (n *node) drain(kind rib.DrainKind, name string, back bool) rib.Drain {
	n.world.t.Helper()
	w, err := n.Drain(rib.Drain{Target: rib.DrainTarget{Kind: kind, Name: name}, Back: back, By: "alice", Why: "works", Since: time.Now().Unix()})
	if err != nil {
		n.world.t.Fatal(err)
	}
	return w
}

// drained tells whether all these nodes hold the target for drained, or none does.
func drained(nodes []*node, kind rib.DrainKind, name string, want bool) bool {
	for _, n := range nodes {
		w, ok := n.table.Health().DrainOf(rib.DrainTarget{Kind: kind, Name: name})
		if (ok && w.InForce(time.Now())) != want {
			return false
		}
	}
	return true
}

// reads is the backend that a node's statements go to.
func (n *node) reads(shard string) string {
	t, err := fib.Compile(n.table.Snapshot())
	if err != nil {
		n.world.t.Fatal(err)
	}
	slot := t.Slot(shard)
	if slot == nil || len(slot.Candidates().Reads) == 0 {
		return ""
	}
	return slot.Candidates().Reads[0].Backend.Name
}

// A region is drained and taken back in a cluster of all regions that loses a tenth of its packets: within a second all nodes route by it,
// also after the node that was told has died, and those that come later or start anew hear of it.
func TestDrainReachesEverybodyAndStays(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 41)
		defer w.close()
		const nodes = 16
		w.form(nodes)
		w.net.SetLoss(memnet.Everyone, memnet.Everyone, 0.10)
		for i, n := range w.nodes[:8] {
			n.lists("b-" + regions[i])
		}
		for _, n := range w.nodes {
			n.table.Owners().Set(&rib.Ownership{ClusterID: "c", Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 77}}})
			for i, region := range regions { // as measured: one's own region is the closest
				n.table.Health().Distance(region, time.Duration(10+i)*time.Millisecond, time.Now())
			}
		}
		w.until(15*time.Second, "one table", func() bool { return agree(w.nodes, 8) })
		home := regions[0]
		away := func(nodes []*node, want bool) func() bool {
			return func() bool {
				for _, n := range nodes {
					if n.self.Region == home && (n.reads("shard_1") == "b-"+home) == want {
						return false
					}
				}
				return drained(nodes, rib.DrainRegion, home, want)
			}
		}
		if !away(w.nodes, false)() {
			t.Fatal("reads do not go to their own region to begin with")
		}
		told := w.nodes[5]
		told.drain(rib.DrainRegion, home, false)
		took := w.until(time.Second, "all have heard of the drain", away(w.nodes, true))
		t.Logf("heard by %d nodes after %v", nodes, took)

		// The node that was told dies, and with it nothing.
		if err := told.Kill(); err != nil {
			t.Fatal(err)
		}
		rest := append(append([]*node(nil), w.nodes[:5]...), w.nodes[6:]...)
		wait(90 * time.Second) // it is gone, and so is its tombstone
		if !away(rest, true)() {
			t.Fatal("the drain has died with the node that it was given to")
		}
		late := w.add("late", regions[3], nil)
		w.join(late, rest[0])
		w.until(5*time.Second, "a newcomer hears of it", func() bool { return drained([]*node{late}, rib.DrainRegion, home, true) })

		// Another node is told that it is over: that is the later word.
		rest[7].drain(rib.DrainRegion, home, true)
		w.until(time.Second, "all have heard that it is over", func() bool { return drained(append(rest, late), rib.DrainRegion, home, false) })
		w.until(time.Second, "reads are back", away(rest, false))
		syncs := rest[1].Stats().Syncs
		wait(time.Minute)
		if now := rest[1].Stats().Syncs; now-syncs > 15 { // at this loss records are missed now and then
			t.Errorf("%d syncs in a minute at rest: the sums never agree", now-syncs)
		}
	})
}

// Two operators tell two halves of a cluster that cannot hear each other the opposite. Afterwards all agree, on what counts as later.
func TestContradictingDrainsConverge(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 42)
		defer w.close()
		w.form(8)
		w.nodes[0].drain(rib.DrainRegion, "x", false)
		w.until(time.Second, "all have heard", func() bool { return drained(w.nodes, rib.DrainRegion, "x", true) })

		cut := w.nodes[3]
		w.net.Isolate(cut.self.Name)
		cut.drain(rib.DrainRegion, "x", true)  // number 2
		cut.drain(rib.DrainRegion, "y", false) // 1
		w.nodes[0].drain(rib.DrainRegion, "x", true)
		w.nodes[1].drain(rib.DrainRegion, "y", false)
		wait(time.Second) // for the others to hear of it
		w.nodes[5].drain(rib.DrainRegion, "y", true)
		wait(time.Second)
		w.nodes[2].drain(rib.DrainRegion, "x", false) // 3: later than both
		wait(time.Minute)
		w.net.Rejoin(cut.self.Name)
		w.until(3*time.Minute, "one word on each", func() bool {
			return drained(w.nodes, rib.DrainRegion, "x", true) && drained(w.nodes, rib.DrainRegion, "y", false)
		})
		for _, n := range w.nodes[1:] {
			if !reflect.DeepEqual(n.table.Health().Drains(), w.nodes[0].table.Health().Drains()) {
				t.Errorf("%s holds %+v, %s %+v", n.self.Name, n.table.Health().Drains(), w.nodes[0].self.Name, w.nodes[0].table.Health().Drains())
			}
		}
	})
}

// A drain with an end is over everywhere when it comes.
// A node knows since when it may have missed something, and takes what it has asked another one for as if it had heard it. What no peer would have said
// it does not take.
func TestWhatANodeHasAskedFor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 45)
		defer w.close()
		w.form(3)
		wait(10 * time.Second)
		for _, n := range w.nodes {
			if ago, ok := n.Agreed(); !ok || ago > 4*time.Second {
				t.Errorf("%s agreed with somebody %v ago, %v", n.self.Name, ago, ok)
			}
		}
		alone := w.nodes[0]
		w.net.Isolate(alone.self.Region)
		wait(30 * time.Second)
		if ago, ok := alone.Agreed(); !ok || ago < 29*time.Second {
			t.Errorf("cut off, it agreed with somebody %v ago, %v", ago, ok)
		}
		word := w.nodes[1].drain(rib.DrainNode, w.nodes[2].self.Name, false)
		if drained(w.nodes[:1], word.Target.Kind, word.Target.Name, true) {
			t.Fatal("it has heard of it over the cut")
		}
		for _, bad := range []func(*rib.Drain){
			func(w *rib.Drain) { w.Number = 0 }, func(w *rib.Drain) { w.Number = maxDrainNumber + 1 }, func(w *rib.Drain) { w.Author = "" },
			func(w *rib.Drain) { w.Target.Kind = 0 }, func(w *rib.Drain) { w.Target.Kind = rib.DrainNode + 1 }, func(w *rib.Drain) { w.By = "a\nb" },
		} {
			lie := word
			bad(&lie)
			if err := alone.HearDrain(lie); err == nil {
				t.Errorf("it has taken %+v", lie)
			}
		}
		if err := alone.HearDrain(word); err != nil || !drained(w.nodes[:1], word.Target.Kind, word.Target.Name, true) {
			t.Errorf("it has not taken %+v: %v", word, err)
		}
		back, err := alone.Speaker.Drain(rib.Drain{Target: word.Target, Back: true, By: "bob", Since: time.Now().Unix()})
		if err != nil || back.Number != word.Number+1 {
			t.Errorf("taken back with %+v, %v", back, err)
		}
		w.net.HealAll()
		w.until(time.Minute, "all know that it is taken back", func() bool { return drained(w.nodes, word.Target.Kind, word.Target.Name, false) })
	})
}

func TestDrainEnds(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 43)
		defer w.close()
		w.form(4)
		if _, err := w.nodes[0].Drain(rib.Drain{Target: rib.DrainTarget{Kind: rib.DrainNode, Name: w.nodes[2].self.Name}, By: "alice", Since: time.Now().Unix(), Until: time.Now().Add(time.Hour).Unix()}); err != nil {
			t.Fatal(err)
		}
		is := func(want bool) func() bool {
			return func() bool {
				for _, n := range w.nodes {
					if (n.table.Snapshot().NodeDrained(w.nodes[2].self) != "") != want {
						return false
					}
				}
				return true
			}
		}
		w.until(time.Second, "it is drained", is(true))
		wait(time.Hour - 3*time.Second)
		if !is(true)() {
			t.Error("the drain was over before its time")
		}
		w.until(5*time.Second, "it is back", is(false))
	})
}

// Nodes of the release before ignore drains, and count them. They do not keep the others from comparing what they hold, and hear of what
// is in force when they are upgraded.
func TestDrainWhileAClusterIsUpgraded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 44)
		defer w.close()
		for i, reads := range []byte{2, 2, 2, level, level, level} {
			w.nodes = append(w.nodes, w.speaks(regions[i]+"-1", regions[i], 1, reads))
			if i > 0 {
				w.join(w.nodes[i], w.nodes[0])
			}
		}
		w.until(time.Minute, "all know each other", func() bool {
			for _, n := range w.nodes {
				if n.live.Load() != 5 {
					return false
				}
			}
			return true
		})
		old, current := w.nodes[:3], w.nodes[3:]
		current[0].drain(rib.DrainRegion, "fra", false)
		w.until(time.Second, "the new ones have heard", func() bool { return drained(current, rib.DrainRegion, "fra", true) })
		wait(5 * time.Second)
		for _, n := range old {
			if st := n.Stats(); st.Unknown == 0 || st.Malformed != 0 {
				t.Errorf("%s, of the release before: %d unknown, %d malformed", n.self.Name, st.Unknown, st.Malformed)
			}
			if len(n.table.Health().Drains()) != 0 {
				t.Errorf("%s holds what it cannot read", n.self.Name)
			}
		}
		before := current[1].Stats().Syncs
		wait(5 * time.Minute)
		if now := current[1].Stats().Syncs; now-before > 5 {
			t.Errorf("%d syncs in five minutes of a mixed cluster at rest", now-before)
		}
		// Also a new one that has missed it hears of it, when it next exchanges digests with anybody who knows.
		late := w.speaks("late", regions[6], 1, level)
		w.join(late, current[2])
		w.until(5*time.Second, "a newcomer of this release hears of it", func() bool { return drained([]*node{late}, rib.DrainRegion, "fra", true) })
		for i, n := range old {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			w.nodes[i] = w.speaks(n.self.Name, n.self.Region, 2, level)
			w.join(w.nodes[i], w.nodes[(i+1)%6])
		}
		w.nodes = append(w.nodes, late)
		w.until(30*time.Second, "the upgraded ones know it", func() bool { return drained(w.nodes, rib.DrainRegion, "fra", true) })
		wait(10 * time.Second)
		for _, n := range w.nodes {
			if n.current().records != w.nodes[0].current().records {
				t.Errorf("the sums of %s and %s differ", n.self.Name, w.nodes[0].self.Name)
			}
		}
	})
}

// Who holds the cluster key can give a false word, but not one that no later word can be given after.
func TestLiesAboutDrains(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		lie := rib.Drain{Target: rib.DrainTarget{Kind: rib.DrainRegion, Name: "fra"}, Number: maxDrainNumber, Author: victim.self.Name, By: "mallory", Since: time.Now().Unix()}
		liar.sends(victim, appendDrain(nil, &lie))
		w.until(time.Second, "it is counted", func() bool { return victim.Stats().Implausible > 0 })
		lie.Number = manyDrains + drainStep
		liar.sends(victim, appendDrain(nil, &lie))
		w.until(time.Second, "it is believed", func() bool { return drained(w.nodes[:3], rib.DrainRegion, "fra", true) })
		victim.drain(rib.DrainRegion, "fra", true)
		w.until(time.Second, "the operator has the last word", func() bool { return drained(w.nodes[:3], rib.DrainRegion, "fra", false) })
		// And no more of them than the bound.
		for i := range rib.MaxDrains + 10 {
			lie.Target.Name, lie.Number = strings.Repeat("x", 1+i%100)+string(rune('a'+i/100)), 1
			liar.sends(victim, appendDrain(nil, &lie))
		}
		w.until(5*time.Second, "the bound is met", func() bool { return victim.Stats().OverBound > 0 })
		if n := len(victim.table.Health().Drains()); n > rib.MaxDrains {
			t.Errorf("%d drains are held", n)
		}
	})
}

// Whoever fills the table with words that are taken back, of whatever time, does not take drains from the operators.
func TestDrainsThatAreMadeUp(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		for i := range rib.MaxDrains {
			lie := rib.Drain{Target: rib.DrainTarget{Kind: rib.DrainNode, Name: fmt.Sprint("made-up-", i)}, Number: 1, Back: true, Author: victim.self.Name, By: "mallory", Since: maxUnix}
			liar.sends(victim, appendDrain(nil, &lie))
		}
		w.until(time.Minute, "all are full of them", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return len(n.table.Health().Drains()) < rib.MaxDrains })
		})
		for i, name := range []string{"fra", "iad", "syd"} {
			w.nodes[i].drain(rib.DrainRegion, name, false)
			w.until(5*time.Second, name+" is drained", func() bool { return drained(w.nodes, rib.DrainRegion, name, true) })
		}
		wait(10 * time.Second)
		before := victim.Stats().Pulls
		wait(time.Minute)
		if pulls := victim.Stats().Pulls - before; pulls > 3 {
			t.Errorf("there is no peace: %d pulls in a minute", pulls)
		}
	})
}

func TestDrainComesBack(t *testing.T) {
	word := rib.Drain{
		Target: rib.DrainTarget{Kind: rib.DrainBackend, Name: strings.Repeat("n", maxName)}, Number: maxDrainNumber, Back: true,
		Author: strings.Repeat("a", maxName), By: strings.Repeat("b", maxBy), Why: strings.Repeat("w", maxWhy), Since: maxUnix, Until: maxUnix,
	}
	if err := checkDrain(&word); err != nil {
		t.Fatal(err)
	}
	b := appendDrain(nil, &word)
	if len(b) > maxBroadcast {
		t.Errorf("the largest drain takes %d bytes", len(b))
	}
	d := decoder{buf: b[2:]}
	if got := d.drain(); d.done() != nil || got != word {
		t.Errorf("came back as %+v", got)
	}
	for n := range len(b) - 2 {
		d := decoder{buf: b[2 : 2+n]}
		if d.drain(); d.done() == nil {
			t.Errorf("the first %d bytes pass", n)
		}
	}
	for what, change := range map[string]func(*rib.Drain){
		"no kind":        func(w *rib.Drain) { w.Target.Kind = 0 },
		"another kind":   func(w *rib.Drain) { w.Target.Kind = 4 },
		"no number":      func(w *rib.Drain) { w.Number = 0 },
		"no name":        func(w *rib.Drain) { w.Target.Name = "" },
		"nobody":         func(w *rib.Drain) { w.By = "" },
		"an escape":      func(w *rib.Drain) { w.Why = "\x1b[2J" },
		"a long reason":  func(w *rib.Drain) { w.Why += "w" },
		"a large number": func(w *rib.Drain) { w.Number = maxDrainNumber + 1 },
	} {
		wrong := word
		change(&wrong)
		d := decoder{buf: bytes.Clone(appendDrain(nil, &wrong)[2:])}
		if d.drain(); d.done() == nil {
			t.Errorf("%s passes", what)
		}
	}
	for what, change := range map[string]func(*rib.Drain){
		"no name":       func(w *rib.Drain) { w.Target.Name = "" },
		"nobody":        func(w *rib.Drain) { w.By = "" },
		"a line feed":   func(w *rib.Drain) { w.Why = "a\nb" },
		"a long reason": func(w *rib.Drain) { w.Why += "w" },
		"no such time":  func(w *rib.Drain) { w.Until = -1 },
	} {
		wrong := word
		if change(&wrong); checkDrain(&wrong) == nil {
			t.Errorf("%s is given to the cluster", what)
		}
	}
}
