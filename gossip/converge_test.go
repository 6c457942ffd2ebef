package gossip

import (
	"math/rand/v2"
	"testing"
	"time"

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
		late, slowest := 0, time.Duration(0)
		for i := range 20 {
			wait(500*time.Millisecond + rand.N(500*time.Millisecond))
			n := w.nodes[i]
			r := up("b-" + n.self.Name)
			r.State = rib.Down
			n.Observe(r)
			took := w.until(5*time.Second, "the flip everywhere", func() bool {
				missing := 0
				for _, o := range w.nodes {
					if o.verdict(r.Backend) != rib.Down {
						missing++
					}
				}
				return missing == 0
			})
			if slowest = max(slowest, took); took > 300*time.Millisecond {
				late++
			}
		}
		// One node in a thousand may need the second round of the queue.
		if late > 1 || slowest > 600*time.Millisecond {
			t.Errorf("%d of 20 flips took more than 300 ms, the slowest %v", late, slowest)
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
