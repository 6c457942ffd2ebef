package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/cluster"
)

// TestMoveSim: a few games in which nothing may be wrong, and then without the fence as many as it takes until something is.
func TestMoveSim(t *testing.T) {
	var out bytes.Buffer
	s := &moveSim{out: &out, progress: &out, patience: 5 * time.Minute, game: simPlayed}
	for seed := range uint64(3) {
		s.one(t, 1+seed, true)
	}
	if s.err != nil || s.result.Violations > 0 || s.flips == 0 || s.ops < 500 {
		t.Errorf("%d violations in %d games with %d flips and %d statements: %v\n%s", s.result.Violations, s.played, s.flips, s.ops, s.err, &out)
	}
	for seed := uint64(1); seed <= 40 && s.result.WithoutFence == 0; seed++ {
		s.one(t, seed, false)
	}
	if s.err != nil || s.result.WithoutFence == 0 {
		t.Errorf("without the fence nothing was found in %d games: %v", s.played-3, s.err)
	}
	if line, err := json.Marshal(moveSimResult{Seeds: 3, WithoutFence: 1}); err != nil || string(line) != `{"seeds":3,"violations":0,"violations_without_fence":1}` {
		t.Errorf("%s, %v", line, err)
	}
}

// TestMoveSimAbandonedWrite: a write that its node has given up, and that comes to the range's old owner seconds after all nodes knew of the new one, is refused
// there. If the fence goes at once, it is accepted and its row left, and that is found.
func TestMoveSimAbandonedWrite(t *testing.T) {
	for late, accepted := range map[time.Duration]bool{simLate: false, time.Millisecond: true} {
		t.Run(late.String(), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(1, true, dir)
				w.onItsWay = late
				defer w.close()
				if err := w.form(); err != nil {
					t.Fatal(err)
				}
				f := w.leads()
				n := w.nodes[4]
				if o := w.statement(0, n, 10, 1, simBrisk); o.outcome != simDone { // so that n has a connection
					t.Fatalf("%+v", o)
				}
				m, err := f.ledger.StartMove(w.ctx, cluster.MoveRequest{Keyspace: simSpace, Range: simRange, To: "shard_2"})
				if err != nil {
					t.Fatal(err)
				}
				if err := w.until("the fence is shut", time.Minute, func() bool {
					s := w.shards["shard_1"]
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.sources[m.ID] != nil && s.sources[m.ID].state != simOpen && s.sources[m.ID].state != simMade
				}); err != nil {
					t.Fatal(err)
				}
				w.net.SetRTT(n.name, "shard_1", 6*time.Second)
				ctx, cancel := context.WithTimeout(w.ctx, 10*time.Millisecond)
				defer cancel()
				s := w.shards["shard_1"]
				if err := n.call(ctx, s, simFor{}, func(ctx context.Context) error { return s.write(ctx, 10, 2, 0, false) }); !errors.Is(err, errSimLost) {
					t.Fatal(err)
				}
				if err := w.until("the move is over", time.Minute, w.settled); err != nil {
					t.Fatal(err)
				}
				_ = pause(w.ctx, 10*time.Second)
				w.leftovers()
				if (w.game.late > 0) != accepted || (len(w.game.wrongs) > 0) != accepted {
					t.Errorf("%d late writes, %q", w.game.late, w.game.wrongs)
				}
			})
		})
	}
}

// TestMoveSimJoin: a node that joins while the leader does not hear of it gets the table from another one, and is cut off then from all but the shards. A range changes hands,
// all nodes know of it that have numbers, and the fence goes. What the node would write by its table, the old owner would take: so it serves nobody before the table
// names it.
func TestMoveSimJoin(t *testing.T) {
	for _, eager := range []bool{false, true} {
		t.Run(fmt.Sprintf("eager %v", eager), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(1, true, dir)
				w.eager = eager
				defer w.close()
				if err := w.form(); err != nil {
					t.Fatal(err)
				}
				n := w.joiner()
				w.net.Cut(n.name, w.leads().n.name)
				if err := n.join(false); err != nil {
					t.Fatal(err)
				}
				if err := w.until("a table of a peer's", time.Minute, func() bool { return n.life.Load().fib.Load().Ownership().KeyspaceByName(simSpace) != nil }); err != nil {
					t.Fatal(err)
				}
				for _, o := range w.others(n) {
					w.net.Cut(n.name, o)
				}
				m, err := w.leads().ledger.StartMove(w.ctx, cluster.MoveRequest{Keyspace: simSpace, Range: simRange, To: "shard_2"})
				if err != nil {
					t.Fatal(err)
				}
				if err := w.until("the move is over", time.Minute, func() bool {
					f := w.leads()
					w.mu.Lock()
					defer w.mu.Unlock()
					return w.flipped[m.ID] && f != nil && f.table.Owners().Get().Move(m.ID) == nil
				}); err != nil {
					t.Fatal(err)
				}
				if o := w.statement(0, n, 10, 7, simBrisk); (o.outcome == simDone) != eager {
					t.Errorf("a write through a node that nobody waits for: %s", o.outcome)
				}
				if (w.game.late > 0) != eager {
					t.Errorf("the old owner has taken %d writes", w.game.late)
				}
				w.net.HealAll()
				if err := w.until("all is well", time.Minute, w.settled); err != nil {
					t.Fatal(err, w.stuck())
				}
				if o := w.statement(0, n, 10, 8, simBrisk); o.outcome != simDone {
					t.Errorf("a write through a node that has a number: %s", o.outcome)
				}
			})
		})
	}
}

// TestMoveSimThaw: a server that is away for longer than a range may be frozen does not cost the copy: statements go on meanwhile, and the range changes hands when it is back.
func TestMoveSimThaw(t *testing.T) {
	for _, test := range []struct{ at, shard string }{{"fence", "shard_1"}, {"fence done", "shard_1"}, {"end done", "shard_2"}} {
		t.Run(test.at+" "+test.shard, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(1, true, dir)
				defer w.close()
				if err := w.form(); err != nil {
					t.Fatal(err)
				}
				copies, frozen, crashed, opened := 0, time.Time{}, false, time.Duration(0)
				away := make(chan struct{}) // closed with the crash
				w.watch = func(what string) {
					switch {
					case what == "slot":
						copies++
					case what == "is frozen" && frozen.IsZero():
						frozen = time.Now()
					case what == "is thawed" && opened == 0:
						opened = time.Since(frozen)
					case what == test.at && !crashed:
						crashed = true
						w.shards[test.shard].crash()
						close(away)
						w.acts.Go(func() {
							_ = pause(w.ctx, 7*time.Second)
							if err := w.shards[test.shard].start(); err != nil {
								t.Error(err)
							}
						})
					}
				}
				m, err := w.leads().ledger.StartMove(w.ctx, cluster.MoveRequest{Keyspace: simSpace, Range: simRange, To: "shard_2"})
				if err != nil {
					t.Fatal(err)
				}
				select {
				case <-away:
				case <-time.After(time.Minute):
					t.Fatal("the server never goes away")
				}
				if test.shard == "shard_2" { // the source is there, and serves the range as soon as it is let go
					if err := w.until("a write while the target is away", 6*time.Second, func() bool { return w.statement(0, w.nodes[4], 10, 1, simBrisk).outcome == simDone }); err != nil {
						t.Error(err)
					}
				}
				if err := w.until("the move is over", time.Minute, w.settled); err != nil {
					t.Fatal(err)
				}
				w.acts.Wait()
				if copies != 1 || w.game.thaws != 1 || w.game.again != 1 || !w.flipped[m.ID] {
					t.Errorf("copied %d times, thawed %d times, flipped %v; %d moves flipped after that", copies, w.game.thaws, w.flipped, w.game.again)
				}
				if opened < 3*time.Second || opened > 5*time.Second {
					t.Errorf("statements were let go %s after the range was frozen", opened)
				}
				w.leftovers()
				if w.game.late > 0 || len(w.game.wrongs) > 0 {
					t.Errorf("%d late writes, %q", w.game.late, w.game.wrongs)
				}
			})
		})
	}
}

// TestMoveSimHangs: a game that does not come to its end, or in which all wait for each other, is a violation, tells what it was at, and the next ones are
// played all the same.
func TestMoveSimHangs(t *testing.T) {
	outside := make(chan struct{}) // made in no bubble: who waits for it may go on at any time
	var played []*moveSim
	defer func() { // a game that goes on is a part of this test still
		close(outside)
		for _, s := range played {
			s.games.Wait()
		}
	}()
	for what, hang := range map[string]func(){
		"it waits for somebody outside": func() { waitsOutside(outside) },
		"all wait for each other":       func() { waitsOutside(make(chan struct{})) },
	} {
		var out bytes.Buffer
		s := &moveSim{out: &out, progress: &out, patience: 100 * time.Millisecond}
		s.game = func(seed uint64, _ bool, _ string) (*simGame, error) {
			if seed == 1 {
				hang()
			}
			return &simGame{seed: seed, flips: 1}, nil
		}
		played = append(played, s)
		s.one(t, 1, true)
		s.one(t, 2, true)
		if text := out.String(); s.err != nil || s.result.Violations != 1 || s.played != 2 || s.flips != 1 || !strings.Contains(text, "seed 1, fence true: "+errSimHung.Error()) || !strings.Contains(text, "waitsOutside") {
			t.Errorf("%s: %v, %+v, %d played, %d flips: %s", what, s.err, s.result, s.played, s.flips, text)
		}
	}
}

func waitsOutside(c chan struct{}) { <-c }

// TestMoveSimJudges: what must not be is found, and what may be is not.
func TestMoveSimJudges(t *testing.T) {
	at := func(call, end int, o simOp) simOp {
		o.key, o.call, o.end = simKeys[0], time.Duration(call), time.Duration(end)
		if o.outcome == "" {
			o.outcome = simDone
		}
		return o
	}
	write := simOp{write: true, value: 1}
	for what, test := range map[string]struct {
		ops []simOp
		bad bool
	}{
		"a lost write":                       {[]simOp{at(1, 2, write), at(3, 4, simOp{leased: true})}, true},
		"a row that is gone":                 {[]simOp{at(1, 2, simOp{leased: true, value: simGone})}, true},
		"an old value beside the write":      {[]simOp{at(1, 4, write), at(2, 3, simOp{leased: true})}, false},
		"an old value without a lease":       {[]simOp{at(1, 2, write), at(3, 4, simOp{})}, false},
		"a write without an answer, late":    {[]simOp{at(1, 2, simOp{write: true, value: 1, outcome: simUnknown}), at(3, 4, simOp{leased: true}), at(5, 6, simOp{leased: true, value: 1})}, false},
		"a write without an answer, undone":  {[]simOp{at(1, 2, simOp{write: true, value: 1, outcome: simUnknown}), at(3, 4, simOp{leased: true, value: 1}), at(5, 6, simOp{leased: true})}, true},
		"a refused write that is there":      {[]simOp{at(1, 2, simOp{write: true, value: 1, outcome: simFailed}), at(3, 4, simOp{leased: true, value: 1})}, true},
		"a value before its write was begun": {[]simOp{at(1, 2, simOp{leased: true, value: 1}), at(3, 4, write)}, true},
	} {
		g := &simGame{ops: test.ops}
		bad, err := g.judge()
		if err != nil || (len(bad) > 0) != test.bad {
			t.Errorf("%s: %v, %v", what, bad, err)
		}
		if text := g.describe(bad); test.bad && !strings.Contains(text, "client 0") {
			t.Errorf("%s: %s", what, text)
		}
	}
}
