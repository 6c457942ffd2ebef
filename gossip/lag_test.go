package gossip

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"rangefinder/rib"
)

// bounded is a cluster of three whose operators let replicas be that far behind; its first node observes b.
func bounded(t *testing.T, p rib.Policy, f func(w *world)) {
	t.Helper()
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.close()
		for i := range 3 {
			n := w.add(fmt.Sprint("n", i), "fra", func(c *Config) { c.Policy = func() *rib.Policy { return &p } })
			if i > 0 {
				w.join(n, w.nodes[0])
			}
		}
		w.nodes[0].lists("b")
		w.until(time.Minute, "all know b", func() bool { return agree(w.nodes, 1) })
		wait(time.Minute) // nothing is held back any more
		f(w)
	})
}

func (n *node) view(t *testing.T, backend string) rib.BackendView {
	t.Helper()
	for _, v := range n.table.Snapshot().Backends {
		if v.Backend.Name == backend {
			return v
		}
	}
	t.Fatalf("%s does not know %s", n.self.Name, backend)
	return rib.BackendView{}
}

// behind tells whether the node would not read from the backend.
func (n *node) behind(t *testing.T, backend string) bool {
	t.Helper()
	v := n.view(t, backend)
	return n.cfg.Policy().Behind(v.Lag, v.LagBytes)
}

// everywhere waits until all nodes think the same of b, and fails if that takes longer.
func (w *world) everywhere(behind bool, limit time.Duration) (took time.Duration) {
	w.t.Helper()
	return w.until(limit, fmt.Sprintf("all hold b for too far behind: %v", behind), func() bool {
		for _, n := range w.nodes {
			if n.behind(w.t, "b") != behind {
				return false
			}
		}
		return true
	})
}

// A bound is a bound: however small the step across it is, and whenever the last word was, all nodes know of it within a second.
func TestTooFarBehindIsKnownEverywhereAtOnce(t *testing.T) {
	policy := rib.Policy{MaxLag: 10 * time.Second, MaxLagBytes: 64 << 20}
	for _, c := range []struct {
		what   string
		within rib.Route
		beyond rib.Route
	}{
		{"by less than a step of what is told", rib.Route{Lag: 9990 * time.Millisecond}, rib.Route{Lag: 10010 * time.Millisecond}},
		{"by a third", rib.Route{Lag: 9 * time.Second}, rib.Route{Lag: 12 * time.Second}},
		{"by a few bytes", rib.Route{LagBytes: 64 << 20}, rib.Route{LagBytes: 64<<20 + 1}},
		{"by less than twice the bytes", rib.Route{LagBytes: 60 << 20}, rib.Route{LagBytes: 110 << 20}},
		{"nobody knows the time", rib.Route{Lag: 9 * time.Second}, rib.Route{Lag: rib.LagUnknown}},
		{"nobody knows the bytes", rib.Route{LagBytes: 60 << 20}, rib.Route{LagBytes: rib.LagBytesUnknown}},
	} {
		t.Run(c.what, func(t *testing.T) {
			bounded(t, policy, func(w *world) {
				n, r := w.nodes[0], up("b")
				say := func(x rib.Route) { r.Lag, r.LagBytes = x.Lag, x.LagBytes; n.Observe(r) }
				say(c.within)
				wait(time.Second)
				w.everywhere(false, 0)
				say(c.beyond) // a second after the last word
				w.everywhere(true, time.Second)
				for range 300 {
					wait(time.Second)
					say(c.beyond)
					w.everywhere(true, 0)
				}
				for range 4 {
					wait(time.Second)
					say(c.within) // it may be a lag that dances
					for _, other := range w.nodes[1:] {
						if !other.behind(t, "b") {
							t.Fatal("it is read from as soon as it is within the bound")
						}
					}
				}
				for range 2 {
					wait(time.Second)
					say(c.within)
				}
				w.everywhere(false, time.Second)
			})
		})
	}
}

// A replica whose lag dances around the bound is too far behind, for all, all the time; and this makes no word a second.
func TestLagDancesAroundTheBound(t *testing.T) {
	bounded(t, rib.Policy{MaxLag: 10 * time.Second}, func(w *world) {
		n, r := w.nodes[0], up("b")
		told := n.Stats().Told
		for i := range 600 {
			r.Lag = []time.Duration{11 * time.Second, 9 * time.Second, 3 * time.Second}[i%3]
			n.Observe(r)
			wait(time.Second)
			for _, other := range w.nodes[1:] {
				if !other.behind(t, "b") {
					t.Fatalf("after %d s it is read from", i+1)
				}
			}
		}
		if got := n.Stats().Told - told; got > 2 {
			t.Errorf("%d records in 600 s", got)
		}
		// A wave that is slower than what is waited for is followed, both ways.
		told = n.Stats().Told
		for i := range 600 {
			r.Lag = 9 * time.Second
			if i%20 < 10 {
				r.Lag = 11 * time.Second
			}
			n.Observe(r)
			wait(time.Second)
			if i%20 < 14 != w.nodes[2].behind(t, "b") && i > 20 {
				t.Fatalf("after %d s, %v behind, it is read from: %v", i+1, r.Lag, !w.nodes[2].behind(t, "b"))
			}
		}
		if got := n.Stats().Told - told; got < 55 || got > 61 {
			t.Errorf("%d records of 30 waves", got)
		}
	})
}

// Lag counts as distance, by full seconds. One that goes up and down, as on a replica that replays in bursts, must not have reads go to and fro.
func TestDancingLagLeavesTheOrderAlone(t *testing.T) {
	for name, lags := range map[string][]time.Duration{
		"by a second and more": {300 * time.Millisecond, 1600 * time.Millisecond}, "around a full second": {1900 * time.Millisecond, 2100 * time.Millisecond},
		"around the bound": {9500 * time.Millisecond, 11 * time.Second, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bounded(t, rib.Policy{MaxLag: 10 * time.Second}, func(w *world) {
				n, r := w.nodes[0], up("b")
				turns, last := make([]int, len(w.nodes)), make([]time.Duration, len(w.nodes))
				for i := range 120 {
					r.Lag = lags[i%len(lags)]
					n.Observe(r)
					wait(time.Second)
					for j, other := range w.nodes {
						if at := other.view(t, "b").Lag / time.Second; i == 0 || at != last[j] {
							last[j] = at
							turns[j]++
						}
					}
				}
				for j, n := range turns {
					if n > 2 { // what it was first, and the larger
						t.Errorf("n%d has seen the order change %d times", j, n)
					}
				}
				for range 8 {
					r.Lag = 0
					n.Observe(r)
					wait(time.Second)
				}
				for _, other := range w.nodes {
					if v := other.view(t, "b"); v.Lag >= time.Second {
						t.Errorf("%s: eight seconds at the head, and it is %v behind", other.self.Name, v.Lag)
					}
				}
			})
		})
	}
}

// However many replicas come and go over the bound, what is told of them stays within a budget, and what is held back is that they are
// near again, never that they are too far behind.
func TestManyLagsCrossTheBound(t *testing.T) {
	bounded(t, rib.Policy{MaxLag: 10 * time.Second}, func(w *world) {
		const replicas = 800
		n, other := w.nodes[0], w.nodes[2]
		name := func(i int) string { return fmt.Sprint("r", i) }
		for i := range replicas {
			n.lists(name(i))
		}
		w.until(time.Minute, "all are known", func() bool { return len(other.table.Snapshot().Backends) == replicas+1 })
		wait(time.Minute)
		phases := rand.New(rand.NewPCG(1, 1)).Perm(replicas)
		told := n.Stats().Told
		const seconds = 300
		for second := range seconds {
			far := make(map[string]bool, replicas)
			for i := range replicas {
				r := up(name(i))
				r.Lag = 9 * time.Second
				if far[r.Backend] = (second+phases[i])%14 < 7; far[r.Backend] {
					r.Lag = 11 * time.Second
				}
				n.Observe(r)
			}
			wait(2 * time.Second)
			for _, v := range other.table.Snapshot().Backends {
				if far[v.Backend.Name] && v.Lag < 10*time.Second {
					t.Fatalf("after %d s %s is %v behind for others", second, v.Backend.Name, v.Lag)
				}
			}
		}
		got := int(n.Stats().Told - told)
		t.Logf("%d records in %d s of %d waves", got, 2*seconds, replicas*seconds/14)
		if most := 2*(backBurst+2*seconds*int(backRate)/3) + replicas; got > most {
			t.Errorf("%d records, more than %d", got, most)
		}
		if n.Stats().Withheld == 0 {
			t.Error("nothing was held back: this shows nothing")
		}
	})
}

// What a node's own probe has found it goes by itself, whether it is told or not.
func TestOwnProbesLagCountsHere(t *testing.T) {
	bounded(t, rib.Policy{MaxLag: 10 * time.Second, MaxLagBytes: 64 << 20}, func(w *world) {
		n, r := w.nodes[0], up("b")
		say := func(lag time.Duration, bytes int64) { r.Lag, r.LagBytes = lag, bytes; n.Observe(r) }
		say(5*time.Second, 0)
		wait(time.Second)
		told := n.Stats().Told
		say(6500*time.Millisecond, 0) // no step that is worth a word
		if v := n.view(t, "b"); v.Lag < 6*time.Second || v.Routes[0].Lag > 6*time.Second || n.Stats().Told != told {
			t.Errorf("the own view is %v, the own word %v: want 6.5s, and the 5s told", v.Lag, v.Routes[0].Lag)
		}
		wait(time.Second)
		if v := w.nodes[1].view(t, "b"); v.Lag > 6*time.Second {
			t.Errorf("what was not told is known to others: %v", v.Lag)
		}
		say(12*time.Second, 0)
		w.everywhere(true, time.Second)
		say(2*time.Second, 100<<20)
		w.everywhere(true, 0)
		for range 5 {
			say(2*time.Second, 0)
			w.everywhere(true, 0) // it may dance
			wait(time.Second)
		}
		say(2*time.Second, 0)
		if n.behind(t, "b") {
			t.Error("it has been near for five seconds, and its observer does not read from it")
		}
		say(rib.LagUnknown, 0)
		if v := n.view(t, "b"); v.Lag != rib.LagUnknown {
			t.Errorf("nobody can tell, and it is %v", v.Lag)
		}
		// What another observer says counts beside it: the one may not see the primary.
		r.Observer = ""
		w.nodes[1].Observe(func() rib.Route { r := up("b"); r.Lag = 30 * time.Second; return r }())
		say(time.Second, 0)
		w.until(time.Second, "the other's word is heard", func() bool { return n.behind(t, "b") })
	})
}

// A reload may bring another bound: then it is that one which is told of, with the next probe.
func TestAnotherBoundIsToldOf(t *testing.T) {
	p := rib.Policy{MaxLag: 20 * time.Second}
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 4)
		defer w.close()
		for i := range 2 {
			w.add(fmt.Sprint("n", i), "fra", func(c *Config) { c.Policy = func() *rib.Policy { return &p } })
		}
		w.join(w.nodes[1], w.nodes[0])
		n, r := w.nodes[0], up("b")
		n.lists("b")
		wait(time.Minute)
		say := func(lag time.Duration) { r.Lag = lag; n.Observe(r) }
		say(9 * time.Second)
		wait(time.Second)
		say(11 * time.Second)
		w.everywhere(false, time.Second)
		p = rib.Policy{MaxLag: 10 * time.Second}
		wait(time.Second)
		say(11 * time.Second)
		w.everywhere(true, time.Second)
		told := n.Stats().Told
		for _, bound := range []time.Duration{0, 20 * time.Second, 10 * time.Second} { // what others know is right by each of them
			p = rib.Policy{MaxLag: bound}
			say(11 * time.Second)
			w.everywhere(bound == 10*time.Second, time.Second)
		}
		if got := n.Stats().Told - told; got != 0 {
			t.Errorf("%d words of nothing new", got)
		}
	})
}

// Who goes on from an earlier speaker's word, or speaks under another incarnation, still knows what was told.
func TestBoundsAfterResume(t *testing.T) {
	bounded(t, rib.Policy{MaxLag: 10 * time.Second}, func(w *world) {
		n, r := w.nodes[0], up("b")
		own := func() time.Duration { return n.view(t, "b").Lag }
		r.Lag = 5 * time.Second
		n.Observe(r)
		wait(time.Second)
		r.Lag = 6500 * time.Millisecond
		n.Observe(r) // no step that is worth a word, and seen here
		if own() < 6*time.Second {
			t.Errorf("the own probe does not count: %v", own())
		}
		n.reincarnate(7)
		if own() > 6*time.Second {
			t.Errorf("said again, it is not what was told, but %v", own())
		}
		n.Observe(r)
		if own() < 6*time.Second {
			t.Errorf("said again, the own probe does not count any more: %v", own())
		}
		r.Lag = 12 * time.Second
		n.Observe(r)
		w.everywhere(true, time.Second)
		r.Lag = time.Second
		word := n.Word()
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		policy := n.cfg.Policy
		n.self.Incarnation = word.Incarnation
		n.open(func(c *Config) { c.Resume, c.Policy = &word, policy })
		w.join(n, w.nodes[1])
		if !n.behind(t, "b") {
			t.Error("the own table is not what was told")
		}
		n.Observe(r)
		w.everywhere(false, 10*time.Second)
	})
}

// What is told of a lag is on the same side of the bound as the lag, and within a step of it.
func TestToldLagIsOnItsSideOfTheBound(t *testing.T) {
	for range 100000 {
		p := &rib.Policy{MaxLag: time.Duration(rand.Int64N(1 << rand.IntN(42))), MaxLagBytes: rand.Int64N(1 << rand.IntN(62))}
		r := rib.Route{Lag: time.Duration(rand.Int64N(1 << rand.IntN(43))), LagBytes: rand.Int64N(1 << rand.IntN(62))}
		switch rand.IntN(4) {
		case 0:
			r.Lag, r.LagBytes = p.MaxLag, p.MaxLagBytes
		case 1:
			r.Lag, r.LagBytes = p.MaxLag+1, p.MaxLagBytes+1
		}
		q := quantize(observationVersion, p, r)
		if p.Behind(r.Lag, 0) != p.Behind(q.Lag, 0) || p.Behind(0, r.LagBytes) != p.Behind(0, q.LagBytes) {
			t.Fatalf("%v and %d B become %v and %d B: the bounds are %v and %d B", r.Lag, r.LagBytes, q.Lag, q.LagBytes, p.MaxLag, p.MaxLagBytes)
		}
		if again := quantize(observationVersion, p, q); again != q {
			t.Fatalf("%+v becomes %+v the second time", q, again)
		}
		if far := float64(q.Lag) / float64(r.Lag); r.Lag > time.Millisecond && q.Lag != rib.LagUnknown && r.Lag < 50*time.Minute && (far < 0.9 || far > 1.1) {
			t.Fatalf("%v becomes %v", r.Lag, q.Lag)
		}
	}
}
