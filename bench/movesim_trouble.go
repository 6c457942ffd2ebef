package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// This file is what goes wrong: now and then, and at each step of a move with some probability.

// trouble does something every few seconds.
func (w *simWorld) trouble() {
	for w.playing.Load() {
		_ = pause(w.ctx, w.luck(500*time.Millisecond, 6*time.Second))
		n := w.nodes[w.luck(0, time.Duration(len(w.nodes)))]
		if f := w.leads(); f != nil && w.luck(0, 3) == 0 {
			n = f.n
		}
		w.strike(n)
	}
}

// joiner is the node that is not there at first.
func (w *simWorld) joiner() *simNode { return w.nodes[simFounders] }

// grow has one more node join at some time, often as it should least of all: while there is no leader, or so that the leader does not hear of it, it gets a table from somebody else, and
// then reaches nobody but the shards.
func (w *simWorld) grow() {
	_ = pause(w.ctx, w.luck(time.Second, simPlay/2))
	n, f := w.joiner(), w.leads()
	how := w.luck(0, 3)
	if f != nil && how == 0 {
		w.kill(f.n)
	}
	if f != nil && how == 1 {
		w.net.Cut(n.name, f.n.name)
	}
	w.note("%s joins", n.name)
	if err := n.join(false); err != nil {
		w.wrong("%s cannot join: %v", n.name, err)
	}
	if how == 1 {
		for w.playing.Load() && n.life.Load().fib.Load().Ownership().KeyspaceByName(simSpace) == nil {
			_ = pause(w.ctx, 10*time.Millisecond)
		}
		w.cutFor(n, w.others(n), false, w.luck(10*time.Second, 20*time.Second))
	}
	w.unbusy(n.name)
}

// simInFreeze are points at which a range is frozen: there servers go away for longer than that may last.
var simInFreeze = []string{"is frozen", "fence", "fence done", "end", "end done", "compare"}

// point is called by whoever carries out a move, on a node, between any two things that it does.
func (w *simWorld) point(ctx context.Context, n *simNode, what string) {
	if w.watch != nil {
		w.watch(what)
	}
	if !w.playing.Load() {
		return
	}
	if slices.Contains(simInFreeze, what) && w.luck(0, 15) == 0 {
		w.note("at %q of %s:", what, n.name)
		w.crash(w.shards[fmt.Sprintf("shard_%d", 1+w.luck(0, 2))], w.luck(3*time.Second, 12*time.Second))
		return
	}
	if w.luck(0, 40) > 0 {
		return
	}
	w.note("at %q of %s:", what, n.name)
	switch w.luck(0, 4) {
	case 0, 1: // the leader dies right here
		if w.kill(n) {
			select {
			case <-ctx.Done():
			case <-time.After(simPlay):
			}
		}
	case 2:
		w.note("%s stops for a while", n.name)
		_ = pause(ctx, w.luck(0, 6*time.Second))
	default:
		w.strike(w.nodes[w.luck(0, time.Duration(len(w.nodes)))])
	}
}

// strike does something to a node, or to a shard.
func (w *simWorld) strike(n *simNode) {
	if !w.playing.Load() {
		return
	}
	switch w.luck(0, 9) {
	case 0:
		w.kill(n)
	case 1, 2, 3: // it loses the others, and reaches the shards
		w.cut(n, w.others(n), false)
	case 4:
		w.cut(n, append(w.others(n), "shard_1", "shard_2"), false)
	case 5:
		w.cut(n, w.others(n), true)
	case 6:
		w.slow(n)
	case 7:
		w.crash(w.shards[fmt.Sprintf("shard_%d", 1+w.luck(0, 2))], w.luck(100*time.Millisecond, 3*time.Second))
	case 8:
		w.full(n)
	}
}

// kill ends a node, and starts it some time later.
func (w *simWorld) kill(n *simNode) bool {
	if !w.claimBusy(n.name) {
		return false
	}
	down := w.luck(0, 8*time.Second)
	w.note("%s dies for %v", n.name, down.Round(time.Millisecond))
	w.acts.Go(func() {
		defer w.unbusy(n.name)
		n.kill()
		_ = pause(w.ctx, down)
		if err := n.start(); err != nil {
			w.wrong("%s cannot start: %v", n.name, err)
		}
		w.note("%s is back", n.name)
	})
	return true
}

// cut keeps a node from others, both ways or only what it sends.
func (w *simWorld) cut(n *simNode, from []string, oneWay bool) {
	w.cutFor(n, from, oneWay, w.luck(time.Second, 15*time.Second))
}

func (w *simWorld) cutFor(n *simNode, from []string, oneWay bool, d time.Duration) {
	w.note("%s is cut off from %v for %v, one way: %v", n.name, from, d.Round(time.Millisecond), oneWay)
	w.acts.Go(func() {
		for _, o := range from {
			if oneWay {
				w.net.CutOneWay(n.name, o)
			} else {
				w.net.Cut(n.name, o)
			}
		}
		_ = pause(w.ctx, d)
		for _, o := range from {
			w.net.Heal(n.name, o)
		}
		w.note("%s is not cut off any more", n.name)
	})
}

// slow has what goes between a node and all others be late by seconds.
func (w *simWorld) slow(n *simNode) {
	d, rtt := w.luck(time.Second, 10*time.Second), w.luck(500*time.Millisecond, 6*time.Second)
	list := append(w.others(n), "shard_1", "shard_2")
	w.note("round trips of %s take %v for %v", n.name, rtt.Round(time.Millisecond), d.Round(time.Millisecond))
	w.acts.Go(func() {
		for _, o := range list {
			w.net.SetRTT(n.name, o, rtt)
		}
		_ = pause(w.ctx, d)
		for _, o := range list {
			w.net.SetRTT(n.name, o, 100*time.Millisecond)
		}
	})
}

// crash ends a shard's server, and starts it again some time later.
func (w *simWorld) crash(s *simShard, down time.Duration) {
	if !w.claimBusy(s.name) {
		return
	}
	w.note("%s crashes for %v", s.name, down.Round(time.Millisecond))
	w.acts.Go(func() {
		defer w.unbusy(s.name)
		s.crash()
		_ = pause(w.ctx, down)
		if err := s.start(); err != nil {
			w.wrong("%s cannot start: %v", s.name, err)
		}
	})
}

// full has a node's disk take nothing for a while; then it may die, and come back alone with what it had.
func (w *simWorld) full(n *simNode) {
	d, dies := w.luck(3*time.Second, 15*time.Second), w.luck(0, 2) == 0
	w.note("the disk of %s is full for %v", n.name, d.Round(time.Millisecond))
	w.acts.Go(func() {
		free := n.holdDisk()
		_ = pause(w.ctx, d)
		if dies && w.playing.Load() {
			w.cut(n, w.others(n), false)
			w.kill(n)
			_ = pause(w.ctx, 10*time.Millisecond)
		}
		free()
	})
}
