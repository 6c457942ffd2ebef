package node

import (
	"context"
	"maps"

	"rangefinder/fib"
)

// seekLoop has the probes look harder for the next primary of shards that have none.
func (n *Node) seekLoop(ctx context.Context) {
	said := map[string]struct{}{}
	for {
		changed := n.fib.Changed()
		if now := headless(n.fib.Load()); !maps.Equal(now, said) {
			n.prober().Seek(now)
			said = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// headless are the shards of which no primary is known that looks alive.
func headless(t *fib.Table) map[string]struct{} {
	shards := make(map[string]struct{})
	for _, slot := range t.Slots() {
		if w := slot.Candidates().Writes; len(w) == 0 || !w[0].Healthy {
			shards[slot.Shard()] = struct{}{}
		}
	}
	return shards
}
