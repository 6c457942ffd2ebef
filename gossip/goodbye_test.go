package gossip

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

// A node that says goodbye is no longer present, at once and for everybody. One that dies is, for as long as its tombstone stands:
// also if an old goodbye of it, from an earlier boot, is still about.
func TestPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.close()
		w.form(8)
		leaver, dier, rest := w.nodes[3], w.nodes[5], w.nodes[:3]
		everywhere := func(name string, present bool) func() bool {
			return func() bool {
				return !slices.ContainsFunc(rest, func(n *node) bool { return slices.Contains(n.Present(), name) != present })
			}
		}
		if !everywhere(leaver.self.Name, true)() || len(rest[0].Present()) != 8 {
			t.Fatalf("present are %v", rest[0].Present())
		}
		if err := leaver.Close(); err != nil {
			t.Error(err)
		}
		w.until(5*time.Second, "who has left is gone", everywhere(leaver.self.Name, false))

		for _, n := range rest {
			n.hearGoodbye(goodbye{dier.self.Name, dier.self.Incarnation - 1}, nil)
		}
		if err := dier.Kill(); err != nil {
			t.Error(err)
		}
		took := w.until(2*time.Minute, "who has died is gone", everywhere(dier.self.Name, false))
		if took < rib.Tombstone {
			t.Errorf("a dead node was gone after %v", took)
		}
	})
}
