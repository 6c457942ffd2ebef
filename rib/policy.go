package rib

import (
	"slices"
	"strings"
	"time"
)

// LagBytesUnknown is the LagBytes of a replica that could not tell how far it is behind.
const LagBytesUnknown = int64(-1)

// Policy is how this node's operator wants backends to be chosen. It is no belief and is told to nobody. It must not be changed once
// it is in use.
type Policy struct {
	MaxLag      time.Duration         // a replica that is further behind serves no reads; 0: no bound
	MaxLagBytes int64                 // the same in bytes of WAL that it has not replayed yet; 0: no bound
	Databases   map[string]Preference // by database; those that are not here go by distance
}

// Behind tells whether a replica that is so far behind serves no reads. Not to know how far is too far, if there is a bound.
func (p *Policy) Behind(lag time.Duration, bytes int64) bool {
	return p.MaxLag > 0 && (lag == LagUnknown || lag > p.MaxLag) ||
		p.MaxLagBytes > 0 && (bytes == LagBytesUnknown || bytes > p.MaxLagBytes)
}

// Preference is where a database's reads go first.
type Preference struct {
	Regions []string // in this order, before all others; empty: by distance alone
	Pinned  bool     // and to no others, even if nothing is left
}

// Place is where a region stands in the preference, from 0; those that are not named come last, all alike.
func (p Preference) Place(region string) int {
	if i := slices.Index(p.Regions, region); i >= 0 {
		return i
	}
	return len(p.Regions)
}

// Excludes tells whether reads must not go to the region.
func (p Preference) Excludes(region string) bool {
	return p.Pinned && !slices.Contains(p.Regions, region)
}

// String is the preference in words. It must name regions.
func (p Preference) String() string {
	if p.Pinned {
		return "pinned to " + strings.Join(p.Regions, ", then ")
	}
	return "first to " + strings.Join(p.Regions, ", then ") + ", then by distance"
}
