package fib

import (
	"fmt"
	"slices"
	"strings"

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
	// What is left out of the reads of most may be the last resort of a database with an order of its own: it may be pinned to that
	// region, and of several that look bad the first ones are kept.
	for _, p := range in.policy.Databases {
		if len(p.Regions) == 0 {
			continue
		}
		all := in.rank(p, nil)
		for i := range all[:usable(all)] {
			if u := into[all[i].Backend.Name]; !u.Used {
				u.Used = true
				u.Why = "last resort of databases with regions of their own: " + in.against(&all[i])
				into[all[i].Backend.Name] = u
			}
		}
	}
}

// stray names the replicas that are up and stand still: they follow a primary that is none any more. "": none. Which timeline a replica follows
// may be hidden from who looks, see probe.query; then what it says is old, and so is this.
func (in *input) stray(latest uint32) string {
	var late []string
	for _, v := range in.views {
		if v.Refused == "" && v.Verdict == rib.Up && v.Evidence == "" && strays(v, latest) {
			late = append(late, fmt.Sprintf("backend %s still follows timeline %d", v.Backend.Name, v.Timeline))
		}
	}
	if len(late) == 0 {
		return ""
	}
	slices.Sort(late)
	return fmt.Sprintf("%s, while shard %s is on %d: no reads that others can answer go there; have it follow the new primary, or make it anew. "+
		"If it does follow it, the probe's user is not told: GRANT pg_read_all_stats TO that user", strings.Join(late, ", "), in.shard, latest)
}
