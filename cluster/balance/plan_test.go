package balance

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func part(list []Weight, shard string) float64 {
	for _, w := range list {
		if w.Shard == shard {
			return w.Part
		}
	}
	return 0
}

func heaviest(list []Weight, but []string) (most float64) {
	for _, w := range list {
		if !slices.Contains(but, w.Shard) {
			most = max(most, w.Part)
		}
	}
	return most
}

// TestWhatEveryPlanKeeps draws clusters and holds their plans against what must be true of all.
func TestWhatEveryPlanKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o Options
		for i := range rapid.IntRange(1, 6).Draw(t, "shards") {
			o.Shards = append(o.Shards, fmt.Sprintf("shard_%d", i+1))
		}
		if len(o.Shards) > 1 && rapid.Bool().Draw(t, "empties one") {
			o.Empty = []string{rapid.SampledFrom(o.Shards).Draw(t, "empty")}
		}
		o.MaxMoves = rapid.IntRange(0, 30).Draw(t, "moves")
		var ranges []Range
		for i := range rapid.IntRange(0, 40).Draw(t, "ranges") {
			ranges = append(ranges, Range{
				Keyspace: "k", Bounds: fmt.Sprintf("%03d", i), Shard: rapid.SampledFrom(o.Shards).Draw(t, "shard"),
				Bytes: rapid.Int64Range(0, 1<<40).Draw(t, "bytes"), Load: rapid.Float64Range(0, 1e6).Draw(t, "load"), Rows: 1,
			})
		}
		p, err := Make(ranges, o)
		if err != nil {
			t.Fatal(err)
		}
		mixed := slices.Clone(ranges)
		slices.Reverse(mixed)
		if again, _ := Make(mixed, o); !reflect.DeepEqual(p, again) {
			t.Fatalf("another order has another plan:\n%+v\n%+v", p, again)
		}
		limit := o.MaxMoves
		if limit == 0 {
			limit = defaultMoves
		}
		if len(p.Moves) > limit {
			t.Fatalf("%d moves, at most %d", len(p.Moves), limit)
		}
		longer := o
		longer.MaxMoves = limit + 1
		if next, err := Make(ranges, longer); err != nil || p.More != (len(next.Moves) > limit) {
			t.Fatalf("%d moves of at most %d, more: %v; of one more there are %d", len(p.Moves), limit, p.More, len(next.Moves))
		}
		owners, seen := map[string]string{}, map[string]bool{}
		for _, r := range ranges {
			owners[r.Bounds] = r.Shard
		}
		for _, m := range p.Moves {
			if seen[m.Bounds] || owners[m.Bounds] != m.Shard || m.To == m.Shard || slices.Contains(o.Empty, m.To) || !slices.Contains(o.Shards, m.To) || m.Gain < 0 {
				t.Fatalf("move %+v of %+v", m, p.Moves)
			}
			seen[m.Bounds], owners[m.Bounds] = true, m.To
		}
		rows := 0
		for _, w := range p.After {
			rows += int(w.Rows)
		}
		if rows != len(ranges) {
			t.Fatalf("%d rows after, %d before", rows, len(ranges))
		}
		if len(o.Empty) == 0 && heaviest(p.After, nil) > heaviest(p.Before, nil)+1e-9 {
			t.Fatalf("the heaviest shard is heavier: %+v, was %+v", p.After, p.Before)
		}
		if len(o.Empty) == 1 && len(p.Moves) < limit && len(ranges) > 0 && part(p.After, o.Empty[0]) > 1e-9 {
			t.Fatalf("%s is not empty: %+v", o.Empty[0], p.After)
		}
		// A balanced plan needs no second one.
		if len(p.Moves) == 0 && len(p.Splits) == 0 && len(o.Shards) > 1 && len(ranges) > 0 && len(o.Empty) == 0 && o.MaxMoves != 0 {
			after := slices.SortedFunc(slices.Values(p.After), func(a, b Weight) int { return int(1e9 * (a.Part - b.Part)) })
			mean := 1 / float64(len(o.Shards))
			if apart := after[len(after)-1].Part - after[0].Part; apart > 2*mean {
				t.Fatalf("nothing to do, and they are %.2f of the mean apart: %+v", apart/mean, p.After)
			}
		}
	})
}

func TestAPlanEvensOut(t *testing.T) {
	var ranges []Range
	for i := range 30 {
		ranges = append(ranges, Range{Keyspace: "k", Bounds: fmt.Sprintf("%02d", i), Shard: "a", Bytes: 100, Rows: 10})
	}
	p, err := Make(ranges, Options{Shards: []string{"a", "b", "c"}})
	if err != nil || len(p.Moves) < 18 || len(p.Moves) > 20 {
		t.Fatalf("%v: %d moves", err, len(p.Moves))
	}
	for _, w := range p.After {
		if w.Ranges < 9 || w.Ranges > 12 {
			t.Errorf("%+v", w)
		}
	}
	p, err = Make(ranges, Options{Shards: []string{"a", "b", "c"}, Only: "c"})
	if err != nil || slices.ContainsFunc(p.Moves, func(m Move) bool { return m.To != "c" }) || part(p.After, "c") < 0.4 {
		t.Errorf("only c: %v %+v", err, p.After)
	}
}

// TestEmptyingMovesNothingElse: whoever empties a shard has asked for that alone, however uneven the others are.
func TestEmptyingMovesNothingElse(t *testing.T) {
	var ranges []Range
	for i := range 30 {
		ranges = append(ranges, Range{Keyspace: "k", Bounds: fmt.Sprintf("%02d", i), Shard: "a", Bytes: 100, Rows: 10})
	}
	ranges = append(ranges, Range{Keyspace: "k", Bounds: "30", Shard: "b", Bytes: 100, Rows: 10})
	p, err := Make(ranges, Options{Shards: []string{"a", "b", "c"}, Empty: []string{"b"}})
	if err != nil || len(p.Moves) != 1 || p.Moves[0].Range.Bounds != "30" || p.Moves[0].To != "c" {
		t.Errorf("%v: %+v", err, p.Moves)
	}
}

// TestManySmallRangesAreEvenedOut: that one of them alone gains next to nothing is no reason to leave all where they are. Where they gain nothing together either, they stay.
func TestManySmallRangesAreEvenedOut(t *testing.T) {
	var ranges []Range
	for i := range 1200 {
		ranges = append(ranges, Range{Keyspace: "k", Bounds: fmt.Sprintf("%04d", i), Shard: []string{"a", "b"}[i%2], Bytes: 100, Rows: 10})
	}
	p, err := Make(ranges, Options{Shards: []string{"a", "b", "c"}, Only: "c", MaxMoves: 1000})
	if err != nil || p.More || len(p.Moves) < 360 || len(p.Moves) > 400 || part(p.After, "c") < 0.3 {
		t.Errorf("%v: %d moves, more: %v, %+v", err, len(p.Moves), p.More, p.After)
	}
	dust := []Range{{Keyspace: "k", Bounds: "all", Shard: "a", Bytes: 1e9}}
	for i := range 50 {
		dust = append(dust, Range{Keyspace: "k", Bounds: fmt.Sprintf("%02d", i), Shard: "a", Bytes: 1000})
	}
	if p, err := Make(dust, Options{Shards: []string{"a", "b"}}); err != nil || len(p.Moves) != 0 || len(p.Splits) != 1 {
		t.Errorf("dust beside one that is heavy: %v %+v", err, p)
	}
}

func TestAHotRangeIsToBeSplit(t *testing.T) {
	ranges := []Range{{Keyspace: "k", Bounds: "..5", Shard: "a", Bytes: 10, Load: 900}, {Keyspace: "k", Bounds: "5..", Shard: "b", Bytes: 10, Load: 100}}
	p, err := Make(ranges, Options{Shards: []string{"a", "b"}})
	if err != nil || len(p.Splits) != 1 || p.Splits[0].Bounds != "..5" || p.Splits[0].Parts < 2 || p.Splits[0].Why == "" {
		t.Errorf("%v %+v", err, p)
	}
}

func TestWhatCannotBePlanned(t *testing.T) {
	one := []Range{{Keyspace: "k", Bounds: "..", Shard: "a"}}
	for _, o := range []Options{{Shards: []string{"b"}}, {Shards: []string{"a"}, Empty: []string{"a"}}, {Shards: []string{"a", "b"}, Empty: []string{"x"}}, {Shards: []string{"a"}, Only: "x"}} {
		if _, err := Make(one, o); err == nil {
			t.Errorf("%+v has a plan", o)
		}
	}
	if p, err := Make(nil, Options{Shards: []string{"a"}}); err != nil || len(p.Moves) != 0 {
		t.Errorf("nothing: %+v %v", p, err)
	}
}

func TestWhereALoadIsCut(t *testing.T) {
	even := func(n int) (list []KeyLoad) {
		for i := range n {
			list = append(list, KeyLoad{Key: fmt.Sprint(10 * i), Next: fmt.Sprint(10*i + 1), Load: 5, First: i == 0})
		}
		return list
	}
	one := even(9)
	one[4].Load = 1000
	first := even(3)
	first[0].Load = 1000
	text := []KeyLoad{{Key: "a", Load: 1}, {Key: "b", Load: 100}, {Key: "c", Load: 1}}
	for _, c := range []struct {
		name  string
		keys  []KeyLoad
		parts int
		at    []string
		hot   []string
	}{
		{"nothing", nil, 2, nil, nil},
		{"no load", []KeyLoad{{Key: "1"}}, 2, nil, nil},
		{"an even one in two", even(10), 2, []string{"50"}, nil},
		{"an even one in five", even(10), 5, []string{"20", "40", "60", "80"}, nil},
		{"one key has it all", one, 2, []string{"40", "41"}, []string{"40"}},
		{"it is the first", first, 2, []string{"1"}, []string{"0"}},
		{"it has no next", text, 2, []string{"b"}, []string{"b"}},
	} {
		at, hot := cut(c.keys, c.parts)
		var names []string
		for _, k := range hot {
			names = append(names, k.Key)
		}
		if !slices.Equal(at, c.at) || !slices.Equal(names, c.hot) {
			t.Errorf("%s: cut at %q, hot are %q; want %q, %q", c.name, at, names, c.at, c.hot)
		}
	}
}

// TestARestOfLoadIsNoLoad: what is left of a count when nothing runs any more makes no range heavy.
func TestARestOfLoadIsNoLoad(t *testing.T) {
	ranges := []Range{{Keyspace: "k", Bounds: "a", Shard: "x", Bytes: 100}, {Keyspace: "k", Bounds: "b", Shard: "x", Bytes: 100}, {Keyspace: "k", Bounds: "c", Shard: "y", Bytes: 10, Load: 0.024}}
	p, err := Make(ranges, Options{Shards: []string{"x", "y"}})
	if err != nil || len(p.Moves) != 1 || p.Moves[0].Shard != "x" || p.Moves[0].To != "y" || len(p.Splits) > 1 {
		t.Errorf("%v %+v", err, p)
	}
	for i := range ranges {
		ranges[i].Load *= 1000
	}
	if p, err = Make(ranges, Options{Shards: []string{"x", "y"}}); err != nil || len(p.Moves) != 0 {
		t.Errorf("24 statements a second are some: %v %+v", err, p)
	}
}

// TestOneHeavyRangeDoesNotKeepTheOthers: a shard whose weight is one range stays as it is, and the others are evened out.
func TestOneHeavyRangeDoesNotKeepTheOthers(t *testing.T) {
	ranges := []Range{{Keyspace: "k", Bounds: "z", Shard: "heavy", Bytes: 1000}}
	for _, bounds := range []string{"a", "b", "c", "d"} {
		ranges = append(ranges, Range{Keyspace: "k", Bounds: bounds, Shard: "full", Bytes: 100})
	}
	p, err := Make(ranges, Options{Shards: []string{"heavy", "full", "free"}})
	if err != nil || len(p.Moves) != 2 || len(p.Splits) != 1 || p.Splits[0].Bounds != "z" {
		t.Fatalf("%v %+v", err, p)
	}
	for _, m := range p.Moves {
		if m.Shard != "full" || m.To != "free" {
			t.Errorf("%+v", m)
		}
	}
}
