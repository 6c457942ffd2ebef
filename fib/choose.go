package fib

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"rangefinder/rib"
)

const (
	// lagPenalty is what each full second behind counts as, in distance. In steps: a list must not be reordered, or even
	// swapped, with every replayed transaction.
	lagPenalty = 100 * time.Millisecond
	// unmeasured stands for the distance to a region that has not been measured yet: far.
	unmeasured = time.Second
)

// class is how much speaks against a backend for reads. Smaller is better; the order is that of the least bad.
type class uint8

const (
	healthy  class = iota
	unseen         // nobody lives who watches it, and nothing speaks against it
	full           // up, but at the limit of its load
	drained        // an operator wants it to get no more reads
	spared         // ejected or down by verdict, but too many of the shard's replicas are
	lagging        // up, but it would answer with the past
	ejected        // up, but it answers this node's statements badly
	down           // by verdict
	evident        // this node itself cannot reach it
	outdated       // a primary that another one was promoted after: what it holds may never have happened
	refused        // it may not serve this shard at all
)

// input is all that the choice among one shard's backends depends on. It is immutable. A flip makes it anew when
// BackendView.Changed or Snapshot.DistancesChanged say so: what else a choice may depend on one day, group has to look at.
type input struct {
	shard     string
	views     []*rib.BackendView // sorted by name
	distances map[string]time.Duration
	policy    *rib.Policy
}

// ranked is the comparator's view of one backend.
type ranked struct {
	*rib.BackendView
	class    class
	cost     time.Duration
	measured bool   // the distance to its region is
	latest   uint32 // timeline of the shard
	place    int    // of its region in the database's preference; 0 if that is by distance
	outside  bool   // the database's reads are pinned to other regions
}

// compare is the order in which a shard's backends are tried for reads.
func compare(a, b *ranked) int {
	if a.outside != b.outside {
		if a.outside {
			return 1
		}
		return -1
	}
	if c := cmp.Compare(a.class, b.class); c != 0 {
		return c
	}
	if drained := a.Drained != ""; drained != (b.Drained != "") { // both are down, say
		if drained {
			return 1
		}
		return -1
	}
	if c := cmp.Compare(a.place, b.place); c != 0 {
		return c
	}
	if c := cmp.Compare(a.cost, b.cost); c != 0 {
		return c
	}
	// Equally close: who has room before who is busy.
	if c := cmp.Compare(a.Load, b.Load); c != 0 {
		return c
	}
	// Equally close: a replica spares the primary.
	if c := cmp.Compare(b.Role, a.Role); c != 0 {
		return c
	}
	return strings.Compare(a.Backend.Name, b.Backend.Name)
}

// fewBackends is how many backends of a shard a flip ranks without allocating.
const fewBackends = 8

// rank orders all backends of the shard for a database's reads, with what speaks for and against each. It takes the room for
// them, if there is enough.
func (in *input) rank(p rib.Preference, room []ranked) []ranked {
	all := room[:0]
	if len(in.views) > cap(all) {
		all = make([]ranked, 0, len(in.views))
	}
	all = all[:len(in.views)]
	latest := in.latest()
	for i, v := range in.views {
		distance, measured := in.distance(v)
		all[i] = ranked{
			BackendView: v, class: classOf(v, latest, in.policy), cost: distance + penalty(v), measured: measured, latest: latest,
			place: p.Place(v.Backend.Region), outside: p.Excludes(v.Backend.Region),
		}
	}
	slices.SortFunc(all, func(a, b ranked) int { return compare(&a, &b) })
	if in.spare(all) {
		slices.SortFunc(all, func(a, b ranked) int { return compare(&a, &b) })
	}
	return all
}

// distance is how far a backend is away. Where no node stands nobody measures the way; but probes from here go the same, and the shortest
// tells for all that is there: else one of two copies in that region would get all reads.
func (in *input) distance(v *rib.BackendView) (d time.Duration, measured bool) {
	if d, measured = in.distances[v.Backend.Region]; measured {
		return d, true
	}
	for _, o := range in.views {
		if o.Own > 0 && o.Backend.Region == v.Backend.Region && (!measured || o.Own < d) {
			d, measured = o.Own, true
		}
	}
	if !measured {
		d = unmeasured
	}
	return d, measured
}

// latest is the timeline of the shard's last promotion, as far as a primary shows it.
func (in *input) latest() (timeline uint32) {
	for _, v := range in.views {
		if v.Refused == "" && v.Role == rib.Primary {
			timeline = max(timeline, v.Timeline)
		}
	}
	return timeline
}

func classOf(v *rib.BackendView, latest uint32, p *rib.Policy) class {
	switch {
	case v.Refused != "":
		return refused
	case v.Role == rib.Primary && v.Timeline < latest:
		return outdated
	case v.Evidence != "":
		return evident
	case v.Verdict == rib.Down:
		return down
	case v.Ejected != "":
		return ejected
	case v.Verdict == rib.Up && v.Role != rib.Primary && (p.Behind(v.Lag, v.LagBytes) || strays(v, latest)):
		return lagging
	case v.Drained != "":
		return drained
	case v.Verdict != rib.Up:
		return unseen
	case v.Load == rib.LoadAtLimit:
		return full
	}
	return healthy
}

// strays tells whether a replica is still on a timeline from before the last promotion: it follows a primary that is none
// any more, and calls itself up to date.
func strays(v *rib.BackendView, latest uint32) bool {
	return v.Role == rib.Replica && v.Timeline != 0 && v.Timeline < latest
}

func penalty(v *rib.BackendView) time.Duration {
	if v.Role == rib.Primary || v.Lag < time.Second {
		return 0
	}
	return v.Lag / time.Second * lagPenalty
}

// spare is the panic rule: verdicts and ejections leave out at most half of a shard's replicas. When more look bad it is likelier
// that those who judge are wrong, so the closest of them stay in the list, behind all that look better. What this node has met
// itself is believed at once. all is in order; spare tells whether it changed a class.
func (in *input) spare(all []ranked) (changed bool) {
	replicas, out := 0, 0
	for i := range all {
		if r := &all[i]; r.class != refused && r.Role != rib.Primary && !r.outside {
			replicas++
			if r.class == down || r.class == ejected {
				out++
			}
		}
	}
	for i := range all {
		if r := &all[i]; (r.class == down || r.class == ejected) && r.Role != rib.Primary && !r.outside && out > replicas/2 {
			r.class = spared
			out--
			changed = true
		}
	}
	return changed
}

// usable is how many of the first of all make the read list: everything that nothing weighty speaks against; or, if there
// is nothing such, all that may serve the shard, the least bad first. What is drained is in the list too, behind all that is not:
// it still answers, and better that than an error.
func usable(all []ranked) int {
	last := evident
	if len(all) > 0 && all[0].class <= full {
		last = spared
	}
	n := 0
	for n < len(all) && all[n].class <= last && !all[n].outside {
		n++
	}
	return n
}

// choose makes the candidate lists: one that goes by distance, and one for each database with a preference of its own.
func (in *input) choose() *Candidates {
	c := in.list(rib.Preference{})
	for database, p := range in.policy.Databases {
		if len(p.Regions) == 0 {
			continue
		}
		if c.databases == nil {
			c.databases = make(map[string]*Candidates, len(in.policy.Databases))
		}
		c.databases[database] = in.list(p)
	}
	return c
}

func (in *input) list(p rib.Preference) *Candidates {
	var room [fewBackends]ranked
	all := in.rank(p, room[:])
	n := usable(all)
	hops := make([]NextHop, n+1) // all that there can be, in one piece
	c := &Candidates{Reads: hops[:n:n], Stray: in.stray(in.latest())}
	for i := range c.Reads {
		c.Reads[i] = all[i].hop()
		if i == c.ReadsNear && near(&all[0], &all[i]) {
			c.ReadsNear++
		}
	}
	for _, v := range in.views {
		if v.Down() {
			c.Down = append(c.Down, &v.Backend)
		}
	}
	primary, reason, split := in.primary(all)
	c.WritesReason, c.SplitBrain = reason, split
	if primary != nil {
		c.Writes = hops[n:]
		c.Writes[0] = primary.hop()
		c.Writes[0].Reason, c.Writes[0].Healthy = "primary", !primary.dead()
		c.Past = past(all, primary)
	}
	return c
}

// past says which backend that is up still calls itself primary, of a time before the chosen one's.
func past(all []ranked, primary *ranked) string {
	for i := range all {
		if r := &all[i]; r.class == outdated && r.Verdict == rib.Up && r.Evidence == "" {
			return fmt.Sprintf("backend %s still calls itself the primary of shard %s, on timeline %d, though %s was promoted after it, on timeline %d: stop it, or make it a replica",
				r.Backend.Name, r.Backend.Shard, r.Timeline, primary.Backend.Name, primary.Timeline)
		}
	}
	return ""
}

// near tells whether load alone should decide between two.
func near(first, other *ranked) bool {
	return first.class == other.class && first.cost == other.cost && first.Load == other.Load && first.Backend.Region == other.Backend.Region
}

// primary finds the one backend that may get writes. PostgreSQL alone says that it is a primary; no latency, vote or health
// chooses one. If two say so, the one on the later timeline was promoted after the other.
func (in *input) primary(all []ranked) (chosen *ranked, reason string, split bool) {
	var second *ranked
	for i := range all {
		r := &all[i]
		if r.class == refused || r.Role != rib.Primary {
			continue
		}
		switch {
		case chosen == nil || r.Timeline > chosen.Timeline:
			chosen, second = r, nil
		case r.Timeline == chosen.Timeline:
			second = r
		}
	}
	switch {
	case chosen == nil && len(all) == 0:
		return nil, "shard " + in.shard + " has no backend", false
	case chosen == nil:
		return nil, "shard " + in.shard + " has no known primary", false
	case second != nil:
		names := []string{chosen.Backend.Name, second.Backend.Name}
		slices.Sort(names)
		// One that is down counts: it may be cut off from here, and go on elsewhere.
		return nil, fmt.Sprintf("TWO PRIMARIES of shard %s on timeline %d: %s and %s; neither gets writes until one is made a replica, or stopped and taken out of the nodes' configuration",
			in.shard, chosen.Timeline, names[0], names[1]), true
	case chosen.dead():
		return chosen, "the primary " + chosen.Backend.Name + " looks dead: " + chosen.doubt(), false
	}
	return chosen, "", false
}

// dead tells whether a primary looks dead. Writes have nowhere else to go: that it is busy, or answers badly, is no reason not to
// send them.
func (r *ranked) dead() bool { return r.class == down || r.class == evident }

// doubt is what speaks against the chosen primary, in a few words.
func (r *ranked) doubt() string {
	if r.class == evident && r.Reach() == rib.ReachNobody {
		return "nobody can reach it"
	}
	return reasonOf[r.class]
}

// reasonOf is a hop's short reason: fixed texts, since lists are made with every flip. Explain writes the long ones.
var reasonOf = [...]string{
	healthy:  "up",
	unseen:   "no live observer, nothing speaks against it",
	full:     "at the limit of its load",
	drained:  "drained",
	spared:   "it looks bad, but so do too many replicas of the shard",
	lagging:  "too far behind",
	ejected:  "ejected",
	down:     "observed down",
	evident:  "this node cannot reach it",
	outdated: "a primary of the past",
	refused:  "refused",
}

func (r *ranked) hop() NextHop {
	return NextHop{
		Backend: &r.BackendView.Backend, Gauge: r.Gauge, Cost: r.cost, Timeline: r.Timeline,
		Reason: reasonOf[r.class], Healthy: r.class <= full, Drained: r.Drained != "", Held: r.Held, place: uint16(min(r.place, math.MaxUint16)),
	}
}
