package cluster

import (
	"slices"
	"sort"

	"rangefinder/rib"
)

// span is which of a keyspace's ranges have keys in [low, high): those from i to before j.
func span(ranges []rib.Range, low, high rib.Key) (i, j int) {
	i = sort.Search(len(ranges)-1, func(i int) bool { return ranges[i+1].From.Compare(low) > 0 })
	j = len(ranges)
	if len(high) > 0 {
		j = sort.Search(len(ranges), func(i int) bool { return ranges[i].From.Compare(high) >= 0 })
	}
	return i, j
}

// cut returns ranges with a bound at key, which is not empty. The owners stay.
func cut(ranges []rib.Range, key rib.Key) []rib.Range {
	i, _ := span(ranges, key, nil)
	if ranges[i].From.Compare(key) == 0 {
		return ranges
	}
	before, behind := ranges[i], ranges[i]
	before.To, behind.From = key, key
	return slices.Concat(ranges[:i], []rib.Range{before, behind}, ranges[i+1:])
}

// assign returns ranges where [low, high) is a shard's. Bounds within it stay.
func assign(ranges []rib.Range, low, high rib.Key, shard string, epoch rib.Epoch) []rib.Range {
	for _, key := range []rib.Key{low, high} {
		if len(key) > 0 {
			ranges = cut(ranges, key)
		}
	}
	ranges = slices.Clone(ranges)
	i, j := span(ranges, low, high)
	for k := i; k < j; k++ {
		ranges[k].Shard, ranges[k].Epoch = shard, epoch
	}
	return ranges
}

// join returns ranges where those from i to before j, which have one owner, are one.
func join(ranges []rib.Range, i, j int) []rib.Range {
	one := ranges[i]
	one.To = ranges[j-1].To
	for _, r := range ranges[i+1 : j] {
		if r.Epoch.Compare(one.Epoch) > 0 {
			one.Epoch = r.Epoch
		}
	}
	return slices.Concat(ranges[:i], []rib.Range{one}, ranges[j:])
}
