package gossip

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

// Those who observe a backend look at it when another node asks them, and no others do; the one that asks looks too if it is one of them. Who asks, or is
// asked, without end has it looked at five times a second, and what nobody has announced is looked at by nobody.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.close()
		var looked [5]atomic.Int64
		for i := range looked {
			n := w.add(fmt.Sprint("n", i), regions[i], func(c *Config) {
				c.OnRecheck = func(backend string) {
					if backend != "b" {
						t.Errorf("n%d looks at %q", i, backend)
					}
					looked[i].Add(1)
				}
			})
			if i > 0 {
				w.join(n, w.nodes[0])
			}
		}
		w.nodes[0].Announce(rib.Backend{Name: "b", Shard: "shard_1", Region: regions[0], Addr: "10.0.0.1:5432", SystemID: 1})
		view := rib.BackendView{Backend: rib.Backend{Name: "b"}}
		for _, i := range []int{0, 2, 3} {
			view.Routes = append(view.Routes, rib.Route{Backend: "b", Observer: w.nodes[i].self.Name})
		}
		wait(5 * time.Second)
		want := func(what string, counts ...int64) {
			t.Helper()
			wait(time.Second)
			for i := range looked {
				if got := looked[i].Swap(0); got != counts[i] {
					t.Errorf("%s: n%d looks %d times, want %d", what, i, got, counts[i])
				}
			}
		}
		w.nodes[1].Recheck(&view)
		want("who does not observe it asks", 1, 0, 1, 1, 0)
		w.nodes[2].Recheck(&view)
		want("an observer asks", 1, 0, 1, 1, 0)
		unknown := view
		unknown.Backend.Name = "never announced"
		w.nodes[1].Recheck(&unknown)
		want("nobody has announced it", 0, 0, 0, 0, 0)
		ignored := w.nodes[3].Stats().Unanswered
		for range 100 {
			for _, n := range w.nodes {
				n.Recheck(&view)
			}
			wait(10 * time.Millisecond)
		}
		wait(time.Second)
		for _, i := range []int{0, 2, 3} {
			if got := looked[i].Load(); got < 5 || got > 6 {
				t.Errorf("asked for a second, n%d looks %d times", i, got)
			}
		}
		if got := w.nodes[3].Stats().Unanswered; got == ignored {
			t.Error("what is not followed is not counted")
		}
	})
}
