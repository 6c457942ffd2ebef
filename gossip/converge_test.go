package gossip

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// A smaller go run ./bench converge: fifty nodes at random phases, a quarter of all packets lost, twenty flips.
func TestFlipsOfFiftyNodesAtAQuarterLost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 50)
		defer w.close()
		w.form(50)
		for _, n := range w.nodes {
			n.lists("b-" + n.self.Name)
		}
		w.until(15*time.Second, "one table", func() bool { return agree(w.nodes, 50) })
		w.net.SetLoss(memnet.Everyone, memnet.Everyone, 0.25)
		slowest := time.Duration(0)
		for i := range 20 {
			wait(500*time.Millisecond + rand.N(500*time.Millisecond))
			n := w.nodes[i]
			r := up("b-" + n.self.Name)
			r.State = rib.Down
			n.Observe(r)
			took := w.until(5*time.Second, "the flip everywhere", func() bool {
				return !slices.ContainsFunc(w.nodes, func(o *node) bool { return o.verdict(r.Backend) != rib.Down })
			})
			slowest = max(slowest, took)
		}
		if slowest > 400*time.Millisecond {
			t.Errorf("the slowest of 20 flips took %v", slowest)
		}
		t.Logf("the slowest took %v", slowest)
		deaths := uint64(0)
		wait(2 * time.Minute)
		for _, n := range w.nodes {
			deaths += n.Stats().Deaths
		}
		if deaths > 2 { // twelve in five minutes with three helpers and four repetitions
			t.Errorf("nodes took live ones for dead %d times", deaths)
		}
	})
}

// Whatever the number of nodes, each is looked after by as many others as a flip is pushed to, so that it does not depend on chance
// whether anybody sends it one.
func TestEverybodyIsLookedAfter(t *testing.T) {
	for n := 1; n <= 40; n++ {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("n-%02d", i))
		}
		by := make(map[string]int)
		for _, self := range names {
			s := &Speaker{cfg: Config{Self: rib.Member{Name: self}}, peers: make(map[string]*peer)}
			for _, name := range names {
				if name != self {
					s.order = append(s.order, name)
					s.peers[name] = &peer{node: memberlist.Node{Name: name}}
				}
			}
			wards := s.wards(eagerPeers)
			for i, w := range wards {
				if w.Name == self || slices.ContainsFunc(wards[:i], func(o memberlist.Node) bool { return o.Name == w.Name }) {
					t.Fatalf("%d nodes: %s looks after %v", n, self, wards)
				}
				by[w.Name]++
			}
		}
		for _, name := range names {
			if want := min(eagerPeers, n-1); by[name] != want {
				t.Errorf("of %d nodes %s is looked after by %d, not %d", n, name, by[name], want)
			}
		}
	}
}
