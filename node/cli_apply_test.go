package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rangefinder/cluster"
	"rangefinder/cluster/balance"
)

// movingOffice is a node whose ranges move as soon as that is asked for.
type movingOffice struct {
	fakeOffice
	ranges  []balance.Range
	plans   int
	moved   map[string]int               // by bounds: how often
	after   func(o *movingOffice, n int) // what comes to pass after so many moves; nil: nothing
	planned func(o *movingOffice, n int) // and before so many plans
}

func newMovingOffice(shard string, ranges int) *movingOffice {
	o := &movingOffice{fakeOffice: fakeOffice{view: exampleView()}, moved: map[string]int{}}
	for i := range ranges {
		o.ranges = append(o.ranges, balance.Range{Keyspace: "app.orders", Bounds: fmt.Sprintf("%d..%d", 1000+i, 1001+i), Shard: shard, Rows: 10, Bytes: 100})
	}
	return o
}

func (o *movingOffice) Rebalance(_ context.Context, q RebalanceQuery) (balance.Plan, error) {
	if o.plans++; o.planned != nil {
		o.planned(o, o.plans)
	}
	options := balance.Options{Shards: []string{"shard_1", "shard_2", "shard_3"}, Only: q.Only, Tolerance: q.Tolerance}
	if q.Empty != "" {
		options.Empty = []string{q.Empty}
	}
	return balance.Make(o.ranges, options)
}

func (o *movingOffice) StartMove(_ context.Context, r cluster.MoveRequest) (MoveView, error) {
	for i := range o.ranges {
		if o.ranges[i].Bounds == r.Range {
			o.ranges[i].Shard = r.To
		}
	}
	o.moved[r.Range]++
	if o.after != nil {
		o.after(o, len(o.moved))
	}
	return MoveView{ID: 7, Keyspace: r.Keyspace, Range: r.Range, From: r.From, To: r.To, Phase: "prepare", Missing: []string{}}, nil
}

func (o *movingOffice) Move(_ context.Context, id uint64) (MoveView, error) {
	return MoveView{ID: id, Phase: phaseOver, Step: "flipped", Part: 1}, nil
}

func (o *movingOffice) on(shard string) (n int) {
	for i := range o.ranges {
		if o.ranges[i].Shard == shard {
			n++
		}
	}
	return n
}

// TestAllRangesOfAShardMove: more than a plan may hold, and those that come to it meanwhile. Each moves once: one that is there again is named, and the command fails.
func TestAllRangesOfAShardMove(t *testing.T) {
	o := newMovingOffice("shard_1", 150)
	code, out, errs := runCLI("shard", "empty", "shard_1", "--rest", "0s", "--admin", serveOffice(t, o))
	if code != 0 || o.on("shard_1") != 0 || len(o.moved) != 150 || o.plans != 3 || !strings.Contains(out, "move 7, 100 of 100") || !strings.Contains(out, "move 7, 50 of 50") {
		t.Errorf("exit %d, %d moved by %d plans, %d are left\n%s", code, len(o.moved), o.plans, o.on("shard_1"), errs)
	}

	late := newMovingOffice("shard_1", 3)
	late.after = func(o *movingOffice, n int) {
		if n == 3 {
			o.ranges = append(o.ranges, balance.Range{Keyspace: "app.orders", Bounds: "5..6", Shard: "shard_1", Bytes: 100})
		}
	}
	if code, _, errs := runCLI("shard", "empty", "shard_1", "--rest", "0s", "--admin", serveOffice(t, late)); code != 0 || late.on("shard_1") != 0 || late.moved["5..6"] != 1 {
		t.Errorf("one that comes meanwhile: exit %d, moved %v\n%s", code, late.moved, errs)
	}

	back := newMovingOffice("shard_1", 120)
	back.after = func(o *movingOffice, _ int) { // two do not stay where they were moved to
		for i := range o.ranges[:2] {
			o.ranges[i].Shard = "shard_1"
		}
	}
	code, _, errs = runCLI("shard", "empty", "shard_1", "--rest", "0s", "--admin", serveOffice(t, back))
	if code != exitFailed || !strings.Contains(errs, "2 ranges of shard shard_1 are left: 1000..1001 of app.orders, 1001..1002 of app.orders") || !strings.Contains(errs, "rangefinder range history") {
		t.Errorf("ranges that are there again: exit %d\n%s", code, errs)
	}
	for bounds, n := range back.moved {
		if n != 1 {
			t.Errorf("%s was moved %d times", bounds, n)
		}
	}

	// The node that is asked hears of the last move a moment after the leader has said that it is over.
	slow := newMovingOffice("shard_1", 3)
	var heard []balance.Range
	slow.after = func(o *movingOffice, n int) {
		if n == 3 {
			heard = slices.Clone(o.ranges)
			o.ranges[2].Shard = "shard_1"
		}
	}
	slow.planned = func(o *movingOffice, n int) {
		if n == 3 {
			o.ranges = heard
		}
	}
	if code, _, errs := runCLI("shard", "empty", "shard_1", "--rest", "0s", "--admin", serveOffice(t, slow)); code != 0 || slow.plans != 3 || len(slow.moved) != 3 {
		t.Errorf("what is heard of late: exit %d, %d plans, moved %v\n%s", code, slow.plans, slow.moved, errs)
	}

	// Those that lie on the other shards already are no matter of it, and neither is what these have more or less of.
	none := newMovingOffice("shard_2", 5)
	if code, out, errs := runCLI("shard", "empty", "shard_1", "--tolerance", "10", "--admin", serveOffice(t, none)); code != 0 || len(none.moved) != 0 || !strings.Contains(out, "Nothing is to be moved.") {
		t.Errorf("an empty one: exit %d, moved %v\n%s%s", code, none.moved, out, errs)
	}
}

// TestAPlanThatIsCutIsFollowedByAnother: a shard is filled with all of its part, and no range moves twice.
func TestAPlanThatIsCutIsFollowedByAnother(t *testing.T) {
	o := newMovingOffice("shard_1", 400)
	code, _, errs := runCLI("shard", "fill", "shard_3", "--rest", "0s", "--admin", serveOffice(t, o))
	if n := o.on("shard_3"); code != 0 || n < 180 || n > 200 || o.plans != 2 {
		t.Errorf("exit %d, %d ranges there by %d plans\n%s", code, n, o.plans, errs)
	}
	whole := newMovingOffice("shard_1", 12)
	if code, _, errs := runCLI("rebalance", "apply", "--rest", "0s", "--admin", serveOffice(t, whole)); code != 0 || whole.plans != 1 || whole.on("shard_2") != 4 {
		t.Errorf("a whole plan: exit %d, %d plans\n%s", code, whole.plans, errs)
	}
}

// laggingOffice is a node that has a replica fall behind when a move has been looked at so often.
type laggingOffice struct {
	fakeOffice
	phases []string // of the move, look for look; the last one stays
	looks  int
	from   int // the look from which on the replica is behind
}

func (o *laggingOffice) Move(_ context.Context, id uint64) (MoveView, error) {
	m := exampleMove()
	m.ID, m.Phase = id, o.phases[min(o.looks, len(o.phases)-1)]
	if slices.ContainsFunc(o.changes, func(c string) bool { return strings.HasPrefix(c, "abort") }) {
		m.Phase, m.Step, m.Why = phaseOver, "aborted", "of the test"
	} else if m.Phase == phaseOver {
		m.Step = "flipped"
	}
	if o.looks++; o.looks > o.from {
		o.view.Backends[0].ForUs, o.view.Backends[0].LagMS = "up", 60000
	}
	return m, nil
}

// TestBoundsHoldWhileAMoveCopies: a move under which a replica falls behind is aborted as long as it copies; one that has come to its freeze is not. In both cases nothing more is moved.
func TestBoundsHoldWhileAMoveCopies(t *testing.T) {
	late := append(slices.Repeat([]string{"prepare"}, 3), append(slices.Repeat([]string{"frozen"}, 12), phaseOver)...)
	thawed := append(slices.Repeat([]string{"frozen"}, 12), "prepare")
	for name, c := range map[string]struct {
		phases []string
		from   int
		abort  bool
		want   string
	}{
		"it copies":                {[]string{"prepare"}, 2, true, "stopped in move 1 of 2, which was aborted: backend iad-db1 is 1m0s behind, more than 10s"},
		"it is frozen":             {late, 2, false, "stopped after move 1 of 2: backend iad-db1 is 1m0s behind, more than 10s"},
		"it was frozen in vain":    {thawed, 0, true, "stopped in move 1 of 2, which was aborted: backend iad-db1 is 1m0s behind"},
		"it is over before a look": {[]string{"prepare", phaseOver}, 0, false, "stopped before move 2 of 2: backend iad-db1 is 1m0s behind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &laggingOffice{fakeOffice: fakeOffice{view: exampleView()}, phases: c.phases, from: c.from}
			code, out, errs := runCLI("rebalance", "apply", "--rest", "0s", "--admin", serveOffice(t, o))
			if code != exitFailed || !strings.Contains(errs, c.want) || !strings.Contains(errs, "hint: Begin again when it has caught up") {
				t.Errorf("exit %d, want %q\n%s%s", code, c.want, out, errs)
			}
			var orders []string
			for _, change := range o.changes {
				if !strings.HasPrefix(change, "/api/v1/rebalance") && !strings.HasPrefix(change, "move ") {
					orders = append(orders, change)
				}
			}
			if want := []string{"abort 7 backend iad-db1 is 1m0s behind, more than 10s"}; c.abort != slices.Equal(orders, want) || !c.abort && len(orders) > 0 {
				t.Errorf("ordered %q", orders)
			}
		})
	}
}

// jsonLines reads lines of JSON.
func jsonLines[T any](t *testing.T, out string) (list []T) {
	t.Helper()
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		var v T
		d := json.NewDecoder(strings.NewReader(s.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		list = append(list, v)
	}
	return list
}

// TestLinesOfJSON: what takes a while prints one for each change, to the end, and nothing else.
func TestLinesOfJSON(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	url := serveOffice(t, office)
	over := MoveView{ID: 7, Phase: phaseOver, Step: "flipped", Part: 1, Missing: []string{}}
	aborted := MoveView{ID: 7, Phase: phaseOver, Step: "aborted", Why: "not today", Missing: []string{}}
	frozen := MoveView{ID: 7, Phase: "frozen", Step: "fence", Missing: []string{}}
	for _, c := range []struct {
		args   []string
		looks  []MoveView
		phases string
		code   int
	}{
		{[]string{"move", "start", "app.orders", "1000-2000", "--to", "shard_3"}, []MoveView{exampleMove(), frozen, frozen, over}, "prepare frozen over", 0},
		{[]string{"move", "start", "app.orders", "1000-2000", "--to", "shard_3"}, []MoveView{frozen, aborted}, "prepare frozen over", 1},
		{[]string{"move", "status", "7"}, []MoveView{exampleMove(), exampleMove(), over}, "prepare over", 0},
		{[]string{"move", "status", "7"}, []MoveView{aborted}, "over", 1},
		{[]string{"move", "abort", "7"}, []MoveView{exampleMove(), aborted}, "prepare over", 0},
		{[]string{"move", "abort"}, []MoveView{over}, "prepare over", 0},
	} {
		office.watched = c.looks
		code, out, errs := runCLI(append(c.args, "--watch", "--json", "--admin", url)...)
		var phases []string
		for _, m := range jsonLines[MoveView](t, out) {
			if phases = append(phases, m.Phase); m.ID != 7 {
				t.Errorf("%v: %+v", c.args, m)
			}
		}
		if code != c.code || strings.Join(phases, " ") != c.phases || len(office.watched) > 0 {
			t.Errorf("%v: exit %d, phases %q, %d looks left\n%s", c.args, code, phases, len(office.watched), errs)
		}
	}

	for _, args := range [][]string{{"rebalance", "apply"}, {"shard", "fill", "shard_3"}, {"shard", "empty", "shard_1"}} {
		o := newMovingOffice("shard_1", 9)
		code, out, errs := runCLI(append(args, "--json", "--rest", "0s", "--admin", serveOffice(t, o))...)
		var plan *balance.Plan
		for i, l := range jsonLines[applyLine](t, out) {
			switch {
			case l.Plan != nil && i == 0:
				plan = l.Plan
			case plan == nil || l.Move == nil || l.Move.ID != 7 || l.Move.Phase != phaseOver || l.Number != i || l.Of != len(plan.Moves):
				t.Errorf("%v: line %d is %+v", args, i, l)
			}
		}
		if lines := strings.Count(out, "\n"); code != 0 || plan == nil || len(plan.Moves) == 0 || len(plan.Moves) != len(o.moved) || lines != 1+len(o.moved) {
			t.Errorf("%v: exit %d, %d moved\n%s%s", args, code, len(o.moved), out, errs)
		}
	}
}
