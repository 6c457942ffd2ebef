package node

import (
	"context"
	"slices"
	"time"

	"rangefinder/rib"
)

const (
	budgetTick = 250 * time.Millisecond
	// budgetSettles is how long a larger share must have stood before it is taken: until then others have heard of what made it
	// larger here and smaller there, and given up theirs.
	budgetSettles = 2 * time.Second
)

// shareOf is what a node gets of a budget: an equal part, and one of the rest if its name is among the first; at least 1. nodes are
// sorted, without doubles, and hold self. assumed is how many nodes there may be, if that is more: then nobody knows who gets the rest.
func shareOf(budget int, nodes []string, self string, assumed int) int {
	n := max(len(nodes), assumed, 1)
	share := budget / n
	if i := slices.Index(nodes, self); n == len(nodes) && i >= 0 && i < budget%n {
		share++
	}
	return max(share, 1)
}

// shareKeeper follows a node's share of the budget. A smaller one holds at once, a larger one when it has stood for budgetSettles:
// whatever order nodes hear of a change in, none takes what another one has not given up.
type shareKeeper struct {
	self    string
	started time.Time
	assumed int // nodes there may be, of which nothing has been heard yet; counts for as long as a tombstone stands

	share  int // -1: no budget
	larger int // the share that is waited for
	since  time.Time
}

// newShareKeeper is for a node that starts. peers are the other nodes it remembers; with joins it is to find some.
func newShareKeeper(self string, started time.Time, peers int, joins bool) *shareKeeper {
	k := &shareKeeper{self: self, started: started, assumed: peers + 1}
	if joins {
		k.assumed = max(k.assumed, 2)
	}
	if k.assumed == 1 {
		k.share = -1 // the first of its cluster: nobody has anything to give up
	}
	return k
}

// next is the node's share now; -1 without a budget. present are the names of the nodes that live, and of those that died less than
// a tombstone ago: these may be behind a cut, with connections in use.
func (k *shareKeeper) next(now time.Time, budget int, present []string) int {
	if budget == 0 {
		k.share = -1
		return -1
	}
	assumed := 0
	if now.Sub(k.started) < rib.Tombstone {
		assumed = k.assumed
	}
	want := shareOf(budget, present, k.self, assumed)
	switch {
	case k.share < 0 || want <= k.share:
		k.share, k.larger = want, 0
	case want != k.larger:
		k.larger, k.since = want, now
	case now.Sub(k.since) >= budgetSettles:
		k.share, k.larger = want, 0
	}
	return k.share
}

// budgetLoop gives the pools this node's share of the budget, as nodes come and go.
func (n *Node) budgetLoop(ctx context.Context) {
	for pause(ctx, budgetTick) {
		n.keepShare()
		if n.whole.Load() {
			n.pools.SetShare(int(n.share.Load()))
		}
	}
}

func (n *Node) keepShare() {
	n.share.Store(int64(n.keeper.next(time.Now(), n.cfg().Pool.Budget, n.speaker().Present())))
}
