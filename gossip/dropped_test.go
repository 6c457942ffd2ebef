package gossip

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Where nothing is lost and nobody says much, nothing counts as dropped, though nodes that compare what they hold at one moment are not all answered.
func TestNothingIsDroppedWhileAllIsWell(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 51)
		defer w.close()
		w.form(3)
		for _, n := range w.nodes {
			for i := range 20 {
				n.lists(fmt.Sprintf("b-%s-%d", n.self.Name, i))
			}
		}
		for end := time.Now().Add(20 * time.Minute); time.Now().Before(end); wait(rand.N(200 * time.Millisecond)) {
			n := w.nodes[rand.IntN(3)]
			r := up(fmt.Sprintf("b-%s-%d", n.self.Name, rand.IntN(20)))
			r.Lag = rand.N(time.Minute)
			n.Observe(r)
		}
		unanswered := uint64(0)
		for _, n := range w.nodes {
			st := n.Stats()
			if st.Dropped != 0 || st.Syncs == 0 {
				t.Errorf("%s: %+v", n.self.Name, st)
			}
			unanswered += st.Unanswered
		}
		if unanswered == 0 {
			t.Error("no two digests have crossed: nothing is shown")
		}
	})
}
