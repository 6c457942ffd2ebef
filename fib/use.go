package fib

import (
	"fmt"
	"slices"

	"rangefinder/rib"
)

// Use is whether statements of this node go to a backend: whether it is in any of its shard's lists.
type Use struct {
	Used bool
	Why  string // what keeps it out of the reads, or makes it a last resort there; "" is nothing
}

// Uses tells of each backend of the table, by its name, whether the table sends statements to it. It runs the comparator that made the
// candidate lists, as Explain does, and speaks its words.
func (t *Table) Uses() map[string]Use {
	all := map[string]Use{}
	for _, slot := range t.slots {
		if in := slot.input.Load(); in != nil {
			in.uses(all)
		}
	}
	return all
}

func (in *input) uses(into map[string]Use) {
	all := in.rank(rib.Preference{}, nil)
	n := usable(all)
	primary, _, _ := in.primary(all)
	for i := range all {
		r := &all[i]
		u := Use{Used: i < n || r == primary}
		switch {
		case i >= n && r == primary:
			u.Why = "gets writes alone: " + in.against(r)
		case i >= n:
			u.Why = leftOut + in.against(r)
		case r.class > full:
			u.Why = lastResort + in.against(r)
		}
		into[r.Backend.Name] = u
	}
	// What is left out of the reads of most may be the last resort of a database that is pinned to its region.
	for _, p := range in.policy.Databases {
		if !p.Pinned {
			continue
		}
		all := in.rank(p, nil)
		for i := range all[:usable(all)] {
			if u := into[all[i].Backend.Name]; !u.Used {
				u.Used = true
				u.Why = "last resort of databases that may read nowhere else: " + in.against(&all[i])
				into[all[i].Backend.Name] = u
			}
		}
	}
}

// stray names a replica that is up and stands still: it follows a primary that is none any more. "": none.
func (in *input) stray(latest uint32) string {
	i := slices.IndexFunc(in.views, func(v *rib.BackendView) bool {
		return v.Refused == "" && v.Verdict == rib.Up && v.Evidence == "" && strays(v, latest)
	})
	if i < 0 {
		return ""
	}
	v := in.views[i]
	return fmt.Sprintf("backend %s still follows timeline %d, while shard %s is on %d: it gets no reads that others can answer; have it follow the new primary, or make it anew",
		v.Backend.Name, v.Timeline, in.shard, latest)
}
