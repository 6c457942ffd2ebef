package gossip

import (
	"fmt"
	"testing"
	"time"

	"rangefinder/rib"
)

// speaks opens a node of a release that reads observations up to that version.
func (w *world) speaks(name, region string, incarnation uint32, reads byte) *node {
	w.t.Helper()
	n := &node{world: w, self: rib.Member{Name: name, Region: region, Incarnation: incarnation}, host: w.net.Host(name, region), level: reads}
	n.open(nil)
	return n
}

// A cluster is upgraded node by node to a release that knows a newer version of the observation. At every moment everybody
// understands everybody, and once the last one is there the new field is told.
func TestUpgradeFromOneVersionOfTheRecordToTheNext(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 21)
		defer w.close()
		const nodes = 6
		for i := range nodes {
			w.nodes = append(w.nodes, w.speaks(fmt.Sprintf("%s-%d", regions[i], i), regions[i], 1, 1))
			if i > 0 {
				w.join(w.nodes[i], w.nodes[0])
			}
			w.nodes[i].lists(fmt.Sprintf("b-%d", i))
		}
		w.until(15*time.Second, "one table", func() bool { return agree(w.nodes, nodes) })

		says := func(i int, state rib.State) {
			r := up(fmt.Sprintf("b-%d", i))
			r.State, r.LagBytes = state, 1<<20
			w.nodes[i].Observe(r)
		}
		heard := func(i int, state rib.State) func() bool {
			return func() bool {
				for _, n := range w.nodes {
					if n.verdict(fmt.Sprintf("b-%d", i)) != state {
						return false
					}
				}
				return agree(w.nodes, nodes)
			}
		}
		for i := range nodes {
			old := w.nodes[i]
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			w.nodes[i] = w.speaks(old.self.Name, old.self.Region, 2, observationVersion)
			w.join(w.nodes[i], w.nodes[(i+1)%nodes])
			w.nodes[i].lists(fmt.Sprintf("b-%d", i))
			w.until(30*time.Second, "the upgraded node is known", heard(i, rib.Up))
			for _, j := range []int{i, (i + 1) % nodes} { // the newest of the new, and, but for the last, an old one
				says(j, rib.Down)
				w.until(2*time.Second, "a flip in the mixed cluster", heard(j, rib.Down))
				says(j, rib.Up)
				w.until(2*time.Second, "a flip back in the mixed cluster", heard(j, rib.Up))
			}
			for j, n := range w.nodes {
				st := n.Stats()
				if st.Unknown != 0 || st.Malformed != 0 {
					t.Errorf("after %d upgrades node %d could not read all: %+v", i+1, j, st)
				}
				for _, v := range n.table.Snapshot().Backends {
					if got := v.LagBytes; i < nodes-1 && got != rib.LagBytesUnknown {
						t.Errorf("after %d upgrades node %d has a field that not all can read: %d", i+1, j, got)
					}
				}
			}
		}
		w.until(20*time.Second, "the new field is told", func() bool {
			for i := range nodes { // as its prober does all the time
				says(i, rib.Down)
			}
			for _, n := range w.nodes {
				for _, v := range n.table.Snapshot().Backends {
					if v.LagBytes < 1<<19 {
						return false
					}
				}
			}
			return agree(w.nodes, nodes)
		})

		// A message of a release to come is counted and ignored.
		r := up("b-0")
		msg := appendObservation(nil, observationVersion, idOf("b-0"), idOf(w.nodes[0].self.Name), &r)
		msg[1]++
		w.nodes[0].sends(w.nodes[1], msg)
		w.until(2*time.Second, "it is counted", func() bool { return w.nodes[1].Stats().Unknown > 0 })
		if v := w.nodes[1].verdict("b-0"); v != rib.Down {
			t.Errorf("a message of a version to come made b-0 %v", v)
		}
	})
}
