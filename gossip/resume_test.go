package gossip

import (
	"encoding/json"
	"testing"
	"time"

	"rangefinder/rib"
)

// TestResume: a speaker goes on where another one of the same node stopped. What the node has said counts everywhere all the while, and
// what it says next is newer.
func TestResume(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.form(3)
		old := w.nodes[1]
		old.lists("b")
		w.until(time.Minute, "b is up everywhere", func() bool { return w.nodes[0].verdict("b") == rib.Up && w.nodes[2].verdict("b") == rib.Up })

		if err := old.Kill(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(old.Word())
		if err != nil {
			t.Fatal(err)
		}
		var word Word
		if err := json.Unmarshal(text, &word); err != nil {
			t.Fatal(err)
		}
		lost := false
		wait(500 * time.Millisecond)
		old.self.Incarnation = word.Incarnation
		old.open(func(c *Config) { c.Resume = &word })
		if old.verdict("b") != rib.Up {
			t.Error("the new speaker's own table does not know what was said")
		}
		w.join(old, w.nodes[0])
		for range 100 {
			wait(100 * time.Millisecond)
			for _, n := range w.nodes {
				lost = lost || n.verdict("b") != rib.Up || n.counted("b") != 1
			}
		}
		if lost {
			t.Error("for a while nobody's word on b counted")
		}
		old.Observe(rib.Route{Backend: "b", State: rib.Down})
		w.until(time.Minute, "the next word is heard", func() bool { return w.nodes[0].verdict("b") == rib.Down && w.nodes[2].verdict("b") == rib.Down })
	})
}

// TestResumeForgetsWhoIsGone: who was a member before and does not come back is let go.
func TestResumeForgetsWhoIsGone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.close()
		w.form(2)
		one, two := w.nodes[0], w.nodes[1]
		two.lists("b")
		w.until(time.Minute, "b is up", func() bool { return one.verdict("b") == rib.Up })
		word := one.Word()
		health := one.table.Health()
		if err := one.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := two.Kill(); err != nil {
			t.Fatal(err)
		}
		// The table is the old one, as in a process that takes everything back.
		tr, err := one.host.Transport(7946)
		if err != nil {
			t.Fatal(err)
		}
		cfg := one.cfg
		cfg.Transport, cfg.Health, cfg.Resume = tr, health, &word
		one.Speaker = New(cfg)
		if err := one.Open(); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if one.verdict("b") != rib.Up {
			t.Error("a member is let go at once")
		}
		w.until(time.Minute, "two is let go", func() bool { return one.counted("b") == 0 })
	})
}
