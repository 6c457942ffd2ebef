package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"rangefinder/wire/moving"
)

// simOp is one statement: a read or a write of one register.
type simOp struct {
	client    int
	node      string
	key       int64
	write     bool
	value     int64 // written, or read; simGone: no row was found
	call, end time.Duration
	leased    bool // the node had a lease when the statement was sent and when its answer came
	outcome   simOutcome
}

type simOutcome string

const (
	simDone    simOutcome = "ok"
	simFailed  simOutcome = "failed, and nothing took effect"
	simUnknown simOutcome = "no answer"
)

// simFencedAgain is when a statement that a shard has refused is tried again although the table says nothing new, as in package wire.
const simFencedAgain = 250 * time.Millisecond

// simAnswer is how long a client waits at most.
const simAnswer = 8 * time.Second

// client reads and writes registers through any node.
func (w *simWorld) client(number int) {
	for w.playing.Load() {
		_ = pause(w.ctx, w.luck(20*time.Millisecond, 300*time.Millisecond))
		n := w.nodes[w.luck(0, time.Duration(len(w.nodes)))]
		key := simKeys[w.luck(0, simMoving)]
		if w.luck(0, 8) == 0 {
			key = simKeys[w.luck(0, time.Duration(len(simKeys)))]
		}
		value := int64(0)
		if w.luck(0, 2) == 0 {
			value = w.values.Add(1)
		}
		w.add(w.statement(number, n, key, value, w.pace()))
	}
}

// simPace is how long a write's transaction takes, and after what time its node gives up what it has sent.
type simPace struct{ takes, patience time.Duration }

// simBrisk is the pace of statements in which nothing is left to chance.
var simBrisk = simPace{10 * time.Millisecond, simAnswer}

// pace draws one.
func (w *simWorld) pace() simPace {
	p := simPace{w.luck(0, 30*time.Millisecond), simAnswer}
	if w.luck(0, 20) == 0 {
		p.takes = w.luck(0, 3*time.Second)
	}
	if w.luck(0, 150) == 0 { // this one outlasts a freeze
		p.takes = w.luck(3*time.Second, 7*time.Second)
	}
	if w.luck(0, 5) == 0 { // this one's node goes earlier
		p.patience = w.luck(0, 3*time.Second)
	}
	return p
}

// statement runs one statement as a node's session does: a write of a value, or with 0 a read.
func (w *simWorld) statement(client int, n *simNode, key, value int64, pace simPace) (o simOp) {
	o = simOp{client: client, node: n.name, key: key, write: value != 0, value: value, call: time.Since(w.began), outcome: simFailed}
	defer func() { o.end = time.Since(w.began) }()
	f := n.life.Load()
	if f == nil || !f.open() {
		_ = pause(w.ctx, time.Millisecond)
		return o
	}
	ctx, cancel := context.WithTimeout(f.ctx, pace.patience)
	defer cancel()
	for came := time.Now(); ; {
		work := f.begin()
		table := f.fib.Load()
		ks := table.Ownership().KeyspaceByName(simSpace)
		if ks == nil {
			f.over(work)
			return o
		}
		crossed, wait, view := f.enter(table, ks.ID, simKey(key), !o.write)
		again := moving.Patience
		if !wait {
			owner, _ := table.Lookup(ks.ID, simKey(key))
			s := w.shards[owner.Slot.Shard()]
			leased, got := f.lessee.Held(), value
			err := n.call(ctx, s, simFor{}, func(ctx context.Context) error {
				if o.write {
					return s.write(ctx, key, value, pace.takes, leased)
				}
				got = s.read(key)
				return nil
			})
			held := leased && f.lessee.Held()
			leave(crossed)
			f.over(work)
			switch {
			case err == nil:
				o.outcome, o.value, o.leased = simDone, got, held
				return o
			case errors.Is(err, errSimUnsent):
				return o
			case !errors.Is(err, errSimFenced):
				o.outcome = simUnknown
				return o
			}
			f.lessee.Poke()
			again = simFencedAgain
		} else {
			f.over(work)
		}
		left := moving.Patience - time.Since(came)
		if left <= 0 || f.stand(view, min(left, again)) != nil {
			return o
		}
	}
}

// simRegister is a register as porcupine knows it.
var simRegister = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		if o := input.(simOp); o.write {
			return true, o.value
		}
		return state == output, state
	},
}

// counts reports whether a statement has to fit. Reads do by nodes with a lease; writes do by all, for what a shard has accepted is there.
func (o *simOp) counts(seen map[int64]bool) bool {
	switch {
	case o.outcome == simFailed:
		return false
	case !o.write:
		return o.outcome == simDone && o.leased
	}
	return o.outcome == simDone || seen[o.value] // one that nobody has seen may have happened after all, or never
}

// judge returns the keys whose histories are not linearizable.
func (g *simGame) judge() (bad []int64, err error) {
	seen := map[int64]bool{}
	for i := range g.ops {
		if o := &g.ops[i]; !o.write && o.outcome == simDone && o.leased {
			seen[o.value] = true
		}
	}
	for _, key := range simKeys {
		var list []porcupine.Operation
		for i := range g.ops {
			o := &g.ops[i]
			if o.key != key || !o.counts(seen) {
				continue
			}
			p := porcupine.Operation{ClientId: o.client, Input: *o, Output: o.value, Call: int64(o.call), Return: int64(o.end)}
			if o.outcome == simUnknown {
				p.ClientId, p.Return = simClients+1+i, math.MaxInt64
			}
			list = append(list, p)
		}
		switch porcupine.CheckOperationsTimeout(simRegister, list, time.Minute) {
		case porcupine.Illegal:
			bad = append(bad, key)
		case porcupine.Unknown:
			err = fmt.Errorf("seed %d: porcupine has not decided on key %d with %d statements in a minute", g.seed, key, len(list))
		}
	}
	return bad, err
}

// describe writes what has happened, for people: all statements on some keys, and what went on beside.
func (g *simGame) describe(keys []int64) string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	for _, n := range g.notes {
		lines = append(lines, line{n.at, "        " + n.text})
	}
	for i := range g.ops {
		o := &g.ops[i]
		if !slices.Contains(keys, o.key) {
			continue
		}
		what := fmt.Sprintf("read of key %d: %d", o.key, o.value)
		if o.write {
			what = fmt.Sprintf("write of key %d to %d", o.key, o.value)
		}
		lease := "with a lease"
		if !o.leased {
			lease = "without a lease"
		}
		lines = append(lines, line{o.call, fmt.Sprintf("client %d at %s: %s, until %.3f s, %s: %s", o.client, o.node, what, o.end.Seconds(), lease, o.outcome)})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, fence %v: %d moves, %d flips; not linearizable: keys %v; late writes: %d, of these %d without a lease; %q\n", g.seed, g.fence, g.moves, g.flips, keys, g.late, g.alone, g.wrongs)
	for _, l := range lines {
		fmt.Fprintf(&b, "%9.3f  %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}
