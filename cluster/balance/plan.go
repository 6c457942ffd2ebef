package balance

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Range is what was measured of one range.
type Range struct {
	Keyspace string  `json:"keyspace"`
	Bounds   string  `json:"range"`
	Shard    string  `json:"shard"` // that owns it
	Rows     int64   `json:"rows"`
	Bytes    int64   `json:"bytes"` // with its part of the indexes
	Load     float64 `json:"load"`  // statements a second that name one key of it

	Keys []KeyLoad `json:"-"` // of it, in their order: those that get the most, and others by chance
}

// KeyLoad is what one key gets.
type KeyLoad struct {
	Key   string  `json:"key"`             // as a bound is written: of the method hash a position
	Value string  `json:"value,omitempty"` // of the method hash: the key itself; "": not known
	Next  string  `json:"next,omitempty"`  // the key behind it; "" where that cannot be written, or is no more of the range
	Load  float64 `json:"load"`            // statements a second
	First bool    `json:"-"`               // the range begins with it
}

// Options say what a plan is for. The zero value evens out within 10 %.
type Options struct {
	Shards    []string // all that may have ranges, those without any included
	Empty     []string // of them, those that are to have none any more
	Only      string   // the one shard that may be given ranges; "": any
	Tolerance float64  // by how much of the mean the heaviest shard may be above the lightest; 0: 0.1
	MaxMoves  int      // 0: 100
}

// Move is one range that should have another shard.
type Move struct {
	Range
	To   string  `json:"to"`
	Gain float64 `json:"gain"` // by how much it brings the heaviest and the lightest shard together, in parts of the mean; of one that empties a shard, its weight
}

// Split is a range that is too heavy to be moved as it is.
type Split struct {
	Range
	Parts int       `json:"parts"`
	Why   string    `json:"why"`
	At    []string  `json:"at,omitempty"`  // bounds by which its load falls into parts, as far as it is known where that is; else those by which its rows do
	Hot   []KeyLoad `json:"hot,omitempty"` // keys that get more than a part's fair share, each by itself: they can be set apart, but not spread
}

// Weight is a shard's part of all.
type Weight struct {
	Shard  string  `json:"shard"`
	Ranges int     `json:"ranges"`
	Rows   int64   `json:"rows"`
	Bytes  int64   `json:"bytes"`
	Load   float64 `json:"load"`
	Part   float64 `json:"part"` // of all weights together, from 0 to 1
}

// Plan is what to do, in this order.
type Plan struct {
	Moves  []Move   `json:"moves"`
	Splits []Split  `json:"splits"`
	Before []Weight `json:"before"`
	After  []Weight `json:"after"`
	More   bool     `json:"more,omitempty"` // there is more to move: the plan ends where it is as long as it may be

	Missing []string `json:"missing,omitempty"` // nodes that have not said what they have counted: load is without theirs
}

// Defaults of Options, and bounds.
const (
	defaultTolerance = 0.1
	defaultMoves     = 100
	MaxCuts          = 64 // bounds of one range that are suggested
)

// leastLoad is how many statements a second there are in all before it counts on which ranges they are: what is left of a count when a load is over, or of a look
// now and then, says nothing.
const leastLoad = 1

// weights gives each range its part of all: half by bytes, half by load, as far as there are any; else all alike.
func weights(ranges []Range) []float64 {
	var bytes, load float64
	for _, r := range ranges {
		bytes += float64(max(0, r.Bytes))
		load += sane(r.Load)
	}
	if load < leastLoad {
		load = 0
	}
	list := make([]float64, len(ranges))
	for i, r := range ranges {
		b, l := float64(max(0, r.Bytes)), sane(r.Load)
		switch {
		case bytes > 0 && load > 0:
			list[i] = (b/bytes + l/load) / 2
		case bytes > 0:
			list[i] = b / bytes
		case load > 0:
			list[i] = l / load
		default:
			list[i] = 1 / float64(len(ranges))
		}
	}
	return list
}

// sane is a load that can be added up.
func sane(load float64) float64 {
	if math.IsNaN(load) || math.IsInf(load, 0) || load < 0 {
		return 0
	}
	return load
}

// Make works out a plan. The same input has the same plan; each range moves once at most, and no move makes the heaviest shard heavier. The
// order of ranges does not matter.
func Make(ranges []Range, o Options) (Plan, error) {
	o.Tolerance = cmp.Or(o.Tolerance, defaultTolerance)
	o.MaxMoves = cmp.Or(o.MaxMoves, defaultMoves)
	ranges = slices.SortedFunc(slices.Values(ranges), func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Keyspace, b.Keyspace), cmp.Compare(a.Bounds, b.Bounds))
	})
	b := &board{ranges: ranges, weight: weights(ranges), owner: make([]string, len(ranges)), moved: make([]bool, len(ranges)), total: map[string]float64{}}
	for _, shard := range o.Shards {
		b.total[shard] = 0
	}
	for i, r := range ranges {
		if _, ok := b.total[r.Shard]; !ok {
			return Plan{}, fmt.Errorf("range %s of %s is on shard %s, which is not among the shards", r.Bounds, r.Keyspace, r.Shard)
		}
		b.owner[i] = r.Shard
		b.total[r.Shard] += b.weight[i]
	}
	for _, shard := range slices.Concat(o.Empty, []string{o.Only}) {
		if _, ok := b.total[shard]; !ok && shard != "" {
			return Plan{}, fmt.Errorf("there is no shard %s", shard)
		}
	}
	for shard := range b.total {
		if b.shards = append(b.shards, shard); !slices.Contains(o.Empty, shard) {
			b.stay = append(b.stay, shard)
			if o.Only == "" || o.Only == shard {
				b.targets = append(b.targets, shard)
			}
		}
	}
	slices.Sort(b.shards)
	slices.Sort(b.stay)
	slices.Sort(b.targets)
	if len(b.targets) == 0 && len(ranges) > 0 {
		return Plan{}, errors.New("no shard is left to have the ranges")
	}
	p := Plan{Moves: []Move{}, Splits: []Split{}, Before: b.weights()}
	b.empty(&p, &o)
	if !p.More && len(o.Empty) == 0 { // whoever empties a shard has asked for no more
		b.even(&p, &o)
	}
	b.split(&p, &o)
	p.After = b.weights()
	return p, nil
}

// full tells whether there is no place for another move, of which there is one.
func (p *Plan) full(o *Options) bool {
	p.More = len(p.Moves) == o.MaxMoves
	return p.More
}

// board is who would own what, while a plan is made.
type board struct {
	ranges                []Range
	weight                []float64
	owner                 []string
	moved                 []bool
	total                 map[string]float64 // by shard
	shards, stay, targets []string           // all; those that are not emptied; those that may be given ranges
}

func (b *board) mean() float64 { return 1 / float64(max(1, len(b.stay))) }

func (b *board) give(p *Plan, i int, to string, gain float64) {
	b.total[b.owner[i]] -= b.weight[i]
	b.total[to] += b.weight[i]
	b.owner[i], b.moved[i] = to, true
	p.Moves = append(p.Moves, Move{Range: b.ranges[i], To: to, Gain: gain})
}

// lightest is the first of the lightest shards.
func (b *board) lightest(list []string) string {
	return slices.MinFunc(list, func(x, y string) int { return cmp.Or(cmp.Compare(b.total[x], b.total[y]), cmp.Compare(x, y)) })
}

// empty gives away all ranges of the shards that are to have none, the heaviest first.
func (b *board) empty(p *Plan, o *Options) {
	var all []int
	for i := range b.ranges {
		if slices.Contains(o.Empty, b.owner[i]) {
			all = append(all, i)
		}
	}
	slices.SortStableFunc(all, func(x, y int) int { return cmp.Compare(b.weight[y], b.weight[x]) })
	for _, i := range all {
		if p.full(o) {
			return
		}
		b.give(p, i, b.lightest(b.targets), b.weight[i]/b.mean())
	}
}

// even moves ranges from the heaviest shard to the lightest, as long as that brings them together. A shard that has nothing to give, for one range is all of its weight,
// is as it is: the others are evened out beside it. So is one whose other ranges gain next to nothing, all together.
func (b *board) even(p *Plan, o *Options) {
	from := slices.Clone(b.stay)
	for len(b.targets) > 0 && len(from) > 0 {
		heavy := slices.MaxFunc(from, func(x, y string) int { return cmp.Or(cmp.Compare(b.total[x], b.total[y]), cmp.Compare(y, x)) })
		light := b.lightest(b.targets)
		apart := b.total[heavy] - b.total[light]
		if heavy == light || apart <= o.Tolerance*b.mean() {
			return
		}
		best, left, all := -1, apart, 0.0 // all: what those gain together that gain anything
		for i := range b.ranges {
			if b.owner[i] != heavy || b.moved[i] || b.weight[i] <= 0 {
				continue
			}
			after := math.Abs(apart - 2*b.weight[i])
			if after < left-1e-9 {
				best, left = i, after
			}
			all += max(0, apart-after)
		}
		if best < 0 || min(all, apart)/b.mean() < o.Tolerance/2 {
			from = slices.DeleteFunc(from, func(shard string) bool { return shard == heavy })
			continue
		}
		if p.full(o) {
			return
		}
		b.give(p, best, light, (apart-left)/b.mean())
	}
}

// split names the ranges that are so heavy that no shard can be as light as the mean with one of them beside others.
func (b *board) split(p *Plan, o *Options) {
	if len(b.stay) < 2 {
		return
	}
	for i, r := range b.ranges {
		if w := b.weight[i]; w > b.mean()*(1+o.Tolerance)/2 && b.total[b.owner[i]] > b.mean()*(1+o.Tolerance) {
			parts := int(math.Ceil(w / (b.mean() / 2)))
			s := Split{Range: r, Parts: max(2, parts), Why: fmt.Sprintf("it is %.0f %% of all, and a shard's fair part is %.0f %%", 100*w, 100*b.mean())}
			s.At, s.Hot = cut(r.Keys, s.Parts)
			p.Splits = append(p.Splits, s)
		}
	}
}

// cut finds bounds by which the load of keys, which are in order, falls into so many parts that are about alike. A key that gets more than a
// part's share is put into a range of its own.
func cut(keys []KeyLoad, parts int) (at []string, hot []KeyLoad) {
	var all float64
	for _, k := range keys {
		all += sane(k.Load)
	}
	if all <= 0 {
		return nil, nil
	}
	share, sum := all/float64(parts), 0.0
	bound := func(key string) {
		if key != "" && len(at) < MaxCuts && (len(at) == 0 || at[len(at)-1] != key) {
			at = append(at, key)
		}
	}
	for i, k := range keys {
		load := sane(k.Load)
		switch {
		case load > share:
			hot = append(hot, k)
			if !k.First {
				bound(k.Key)
			}
			bound(k.Next)
			sum = 0
			continue
		case sum+load > share && i > 0 && sum > 0:
			bound(k.Key)
			sum = 0
		}
		sum += load
	}
	return at, hot
}

func (b *board) weights() []Weight {
	list := make([]Weight, len(b.shards))
	for i, shard := range b.shards {
		list[i] = Weight{Shard: shard, Part: max(0, b.total[shard])}
		for j, r := range b.ranges {
			if b.owner[j] == shard {
				list[i].Ranges++
				list[i].Rows += r.Rows
				list[i].Bytes += r.Bytes
				list[i].Load += sane(r.Load)
			}
		}
	}
	return list
}
