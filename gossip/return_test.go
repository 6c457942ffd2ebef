package gossip

import (
	"slices"
	"sync"
	"testing"
	"time"

	"rangefinder/rib"
)

// The same after all that it had said is forgotten: nobody can tell it any more that it has lived before, so nobody holds that against it.
func TestReturnWithLowerIncarnationAfterLong(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 10)
		defer w.close()
		w.form(3)
		w.nodes[0].lists("a")
		first := w.add("fra-9", "fra", func(c *Config) { c.Self.Incarnation = 41 })
		w.join(first, w.nodes[0])
		w.until(5*time.Second, "the backend", func() bool { return agree(w.nodes, 1) })
		first.Observe(up("a")) // it announces nothing
		wait(2 * time.Minute)  // until what an earlier life said would be refused
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		wait(3 * time.Minute)
		second := &node{world: w, self: rib.Member{Name: "fra-9", Region: "fra", Incarnation: 1}, host: w.net.Host("fra-9-new", "fra")}
		second.open(func(c *Config) { c.Seeds = func() []string { return []string{w.nodes[0].addr} } })
		w.nodes[3] = second
		w.join(second, w.nodes[0])
		down := up("a")
		down.State = rib.Down
		second.Observe(down)
		w.until(time.Minute, "the word of the new life everywhere", func() bool {
			for _, n := range w.nodes {
				heard := false
				for _, b := range n.table.Snapshot().Backends { // none, at first, on the node that is new
					for _, r := range b.Routes {
						heard = heard || r.Observer == "fra-9" && r.State == rib.Down
					}
				}
				if !heard {
					return false
				}
			}
			return agree(w.nodes, 1)
		})
		wait(10 * time.Second)
		before := second.Stats().Syncs
		wait(time.Minute)
		if st := second.Stats(); st.Syncs > before+3 {
			t.Errorf("sums go on differing: %+v", st)
		}
	})
}

func TestRestartWithLowerIncarnationJumps(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 10)
		defer w.close()
		w.form(3)
		first := w.add("fra-9", "fra", func(c *Config) { c.Self.Incarnation = 41 })
		w.join(first, w.nodes[0])
		first.lists("a")
		w.until(5*time.Second, "the backend", func() bool { return agree(w.nodes, 1) })
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}

		// Its disk is lost, and it has another address.
		var mu sync.Mutex
		var kept []uint32
		second := &node{world: w, self: rib.Member{Name: "fra-9", Region: "fra", Incarnation: 1}, host: w.net.Host("fra-9-new", "fra")}
		second.open(func(c *Config) {
			c.SetIncarnation = func(v uint32) {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, v)
			}
			c.Seeds = func() []string { return []string{w.nodes[0].addr} }
		})
		w.nodes[3] = second
		w.join(second, w.nodes[0])
		second.lists("a")
		down := up("a")
		down.State = rib.Down
		second.Observe(down)
		w.until(time.Minute, "the new life's word everywhere", func() bool {
			return w.nodes[1].verdict("a") == rib.Down && agree(w.nodes, 1)
		})
		mu.Lock()
		defer mu.Unlock()
		if len(kept) == 0 || kept[len(kept)-1] < 42 {
			t.Errorf("incarnations kept: %v, want one above 41", kept)
		}
		if st := second.Stats(); st.Jumps == 0 {
			t.Error("no jump was counted")
		}
		took := w.until(time.Minute, "the new address everywhere", func() bool {
			for _, n := range w.nodes[:3] {
				if !slices.ContainsFunc(n.Members(), func(m rib.Member) bool { return m.Addr == second.addr }) {
					return false
				}
			}
			return true
		})
		t.Logf("the new address took another %v", took)
		if !agree(w.nodes, 1) || len(w.nodes[1].Members()) != 4 {
			t.Errorf("members %v", w.nodes[1].Members())
		}
	})
}
