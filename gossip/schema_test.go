package gossip

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/gossip/memnet"
)

// News of a schema reach everybody but who has told them, within a second at a tenth of all packets lost, and each node looks once.
func TestSchemaNewsReachEverybodyOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 43)
		defer w.close()
		const nodes = 20
		var looked [nodes]atomic.Int64
		for i := range nodes {
			nd := w.add(fmt.Sprintf("%s-%d", regions[i%8], i), regions[i%8], func(c *Config) {
				c.OnSchema = func() { looked[i].Add(1) }
			})
			if i > 0 {
				w.join(nd, w.nodes[0])
			}
		}
		wait(5 * time.Second)
		w.net.SetLoss(memnet.Everyone, memnet.Everyone, 0.10)
		for round := range int64(3) {
			teller := int(round) * 7
			w.nodes[teller].Schema()
			w.until(time.Second, "all have looked", func() bool {
				for i := range looked {
					if i != teller && looked[i].Load() == 0 {
						return false
					}
				}
				return true
			})
			wait(10 * time.Second) // whatever is still on its way
			for i := range looked {
				want := int64(1)
				if i == teller {
					want = 0
				}
				if got := looked[i].Swap(0); got != want {
					t.Errorf("round %d: node %d has looked %d times, want %d", round, i, got, want)
				}
			}
		}
	})
}
