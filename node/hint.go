package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

const (
	hintTick    = time.Second
	hintTimeout = 2 * time.Second // for one node to say who leads
	hintAsks    = 4               // nodes asked in one round
)

// A node that has no part in Raft knows the leader by what others tell it. This file keeps that word fresh.

// hintLoop asks the voters who leads whenever the leader that this node knows of is none, or is gone. Voters ask too: one that has lost its place, while it was
// away say, hears nothing of Raft, and learns here that it is none.
func (n *Node) hintLoop(ctx context.Context) {
	for pause(ctx, hintTick) {
		if !n.leaderLives() {
			n.askLeader(ctx)
		}
	}
}

func (n *Node) leaderLives() bool {
	name, _ := n.ledger().Leader()
	return slices.ContainsFunc(n.speaker().Members(), func(m rib.Member) bool { return m.Name == name })
}

// askLeader pulls from one member after another until one names a leader that lives: voters first, who know it at first hand.
func (n *Node) askLeader(ctx context.Context) {
	for _, m := range whomToAsk(n.speaker().Members(), n.ledger().Voters(), n.state.Node) {
		ask, cancel := context.WithTimeout(ctx, hintTimeout)
		err := n.pull(ask, m.Addr)
		cancel()
		if err == nil && n.leaderLives() || ctx.Err() != nil {
			return
		}
	}
}

// whomToAsk picks up to hintAsks members but this one, in random order, the voters among them first.
func whomToAsk(members []rib.Member, voters []cluster.Voter, self string) []rib.Member {
	votes := func(m rib.Member) bool {
		return slices.ContainsFunc(voters, func(v cluster.Voter) bool { return v.Name == m.Name })
	}
	members = slices.DeleteFunc(slices.Clone(members), func(m rib.Member) bool { return m.Name == self || m.Addr == "" })
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	slices.SortStableFunc(members, func(a, b rib.Member) int {
		switch {
		case votes(a) == votes(b):
			return 0
		case votes(a):
			return -1
		}
		return 1
	})
	return members[:min(len(members), hintAsks)]
}

// watchLeader cancels a call to a leader that leads no more: it may hang and never answer.
func (n *Node) watchLeader(ctx context.Context, asked string, cancel context.CancelCauseFunc) {
	for pause(ctx, hintTick) {
		if n.ledger().Follows() {
			n.askLeader(ctx)
		}
		if name, _ := n.ledger().Leader(); name != "" && name != asked {
			cancel(fmt.Errorf("it leads no more: %s does", name))
			return
		}
	}
}
