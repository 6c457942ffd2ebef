package gossip

import (
	"bytes"
	"testing"
	"time"

	"rangefinder/rib"
)

// The cluster key is changed node by node in three rounds, while flips go on.
func TestKeyIsChangedNodeByNode(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 22)
		defer w.close()
		old, next := bytes.Repeat([]byte("o"), 32), bytes.Repeat([]byte("n"), 32)
		with := func(key []byte, others ...[]byte) func(*Config) {
			return func(c *Config) { c.Key, c.OldKeys = key, others }
		}
		for i := range 4 {
			n := w.add(regions[i]+"-1", regions[i], with(old))
			if i > 0 {
				w.join(n, w.nodes[0])
			}
		}
		state := rib.Up
		w.nodes[0].lists("a")
		everywhere := func() bool {
			for _, n := range w.nodes {
				if n.verdict("a") != state || len(n.Members()) != len(w.nodes) {
					return false
				}
			}
			return true
		}
		w.until(10*time.Second, "the backend everywhere", everywhere)
		for _, round := range []func(*Config){with(old, next), with(next, old), with(next)} {
			for i, n := range w.nodes {
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
				n.self.Incarnation++
				n.open(round)
				w.join(n, w.nodes[(i+1)%len(w.nodes)])
				if i == 0 {
					n.lists("a")
					state = rib.Up
				} else {
					state = rib.Up + rib.Down - state
					r := up("a")
					r.State = state
					w.nodes[0].Observe(r)
				}
				w.until(10*time.Second, "a flip everywhere", everywhere)
			}
		}
		stranger := w.add("late-1", "fra", with(old))
		if _, err := stranger.Join([]string{w.nodes[0].addr}); err == nil {
			t.Error("a node with the old key is let in")
		}
	})
}
