package memnet

import (
	"slices"
	"time"
)

// Regions are eight places, for a network as wide as the world: see Spread.
func Regions() []string {
	return []string{"iad", "ord", "sjc", "dub", "fra", "gru", "nrt", "syd"}
}

// Between is the round trip between two of Regions: 13 to 150 ms, roughly as clouds publish them, and a millisecond within
// one.
func Between(a, b string) time.Duration {
	if a == b {
		return time.Millisecond
	}
	i, j := slices.Index(Regions(), a), slices.Index(Regions(), b)
	if i > j {
		i, j = j, i
	}
	return time.Duration(13+(j-i-1)*22+i) * time.Millisecond
}

// Spread sets the round trips between Regions, with 10 % of jitter.
func (n *Net) Spread() {
	n.SetJitter(0.1)
	for _, a := range Regions() {
		for _, b := range Regions() {
			n.SetRTT(a, b, Between(a, b))
		}
	}
}
