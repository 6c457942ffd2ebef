package fib

import (
	"fmt"
	"strings"
	"time"

	"rangefinder/rib"
)

// Explanation says where a statement would go, and why, as JSON for the debug page and as the source of all texts about it.
type Explanation struct {
	Keyspace string    `json:"keyspace,omitempty"`
	Key      string    `json:"key,omitempty"`   // as the method writes it
	Range    string    `json:"range,omitempty"` // the owning range, "from..to"
	Epoch    string    `json:"epoch,omitempty"` // of the range's owner
	Shard    string    `json:"shard"`
	Intent   string    `json:"intent"`            // "read" or "write"
	Prefers  string    `json:"prefers,omitempty"` // the database's own preference of regions
	Version  uint64    `json:"version"`
	Problem  string    `json:"problem,omitempty"` // why no backend is left, or what is wrong with the choice
	Backends []Verdict `json:"backends"`          // all of the shard, in the order to try; those left out last
}

// Verdict is what became of one backend of the shard.
type Verdict struct {
	Backend  string  `json:"backend"`
	Addr     string  `json:"addr"`
	Region   string  `json:"region"`
	Role     string  `json:"role"`
	State    string  `json:"state"` // by the live observers' majority
	CostMS   float64 `json:"cost_ms"`
	InFlight int32   `json:"in_flight"`
	Order    int     `json:"order"` // 1 is tried first, together with all that are Near; 0 is left out
	Near     bool    `json:"near"`  // as close as the first: load decides
	Healthy  bool    `json:"healthy"`
	Drained  string  `json:"drained,omitempty"` // who wants it to get no reads, since when and why; "" is nobody
	Reason   string  `json:"reason"`
}

// Explain says where a statement with that key would go, in the keyspace's database. It runs the comparator that made the candidate lists, on what they
// were made from. The keyspace is one of the table's ownership.
func (t *Table) Explain(keyspace *rib.Keyspace, key rib.Key, write bool) Explanation {
	e := Explanation{Keyspace: keyspace.Name}
	owner, ok := t.Lookup(keyspace.ID, key)
	if !ok {
		e.Intent, e.Problem = intent(write), "keyspace "+keyspace.Name+" is not in the table"
		return e
	}
	if owner.Slot == nil {
		e.Intent, e.Version, e.Problem = intent(write), t.Version(), "no shard owns this key"
	} else {
		e = t.ExplainShard(owner.Slot.shard, keyspace.Database, write)
	}
	e.Keyspace, e.Epoch = keyspace.Name, owner.Range.Epoch.String()
	if m, err := rib.MethodByName(keyspace.Method); err == nil {
		e.Key = m.FormatKey(keyspace.Types, key)
		e.Range = rib.FormatInterval(m, keyspace.Types, owner.Range.From, owner.Range.To)
	}
	return e
}

func intent(write bool) string {
	if write {
		return "write"
	}
	return "read"
}

// ExplainShard says where a statement for that shard would go. The database may be "": one without a preference of its own.
func (t *Table) ExplainShard(shard, database string, write bool) Explanation {
	e := Explanation{Shard: shard, Intent: intent(write), Version: t.Version()}
	slot := t.Slot(shard)
	if slot == nil {
		e.Problem = "shard " + shard + " is known neither to the ledger nor to any node"
		return e
	}
	in := slot.input.Load()
	p := in.policy.Databases[database]
	if len(p.Regions) > 0 {
		e.Prefers = p.String()
	}
	all := in.rank(p, nil)
	if write {
		in.explainWrite(&e, all)
	} else {
		in.explainRead(&e, all)
	}
	return e
}

// What the reason begins with of a backend that is not in the list, and of one that is there for want of a better one.
const (
	leftOut    = "left out: "
	lastResort = "last resort: "
)

func (in *input) explainRead(e *Explanation, all []ranked) {
	n := usable(all)
	if n == 0 {
		e.Problem = "no backend may serve shard " + in.shard
		if e.Prefers != "" {
			e.Problem += " to this database: its reads are " + e.Prefers
		}
	} else if all[0].class == drained {
		e.Problem = "nothing that is not drained looks any good: better drained than nothing"
	} else if all[0].class > full {
		e.Problem = "nothing looks healthy: the least bad is tried first"
	}
	several := n > 1 && near(&all[0], &all[1])
	for i := range all {
		r := &all[i]
		v := r.verdict()
		if i >= n {
			v.Reason = leftOut + in.against(r)
			if r.outside && r.class != refused {
				v.Reason = "left out: the database's reads are " + e.Prefers
			}
			e.Backends = append(e.Backends, v)
			continue
		}
		v.Order, v.Near = i+1, near(&all[0], r)
		switch {
		case r.class > full:
			v.Reason = lastResort + in.against(r)
		case r.class == full:
			v.Reason = "at the limit of its load: " + r.distance()
		case r.class > all[0].class:
			v.Reason = "less sure: " + r.distance()
		case v.Near && i > 0:
			v.Reason = "as close, load decides: " + r.distance()
		case i == 0 && r.outranks(all[1:n]):
			v.Reason = "preferred: " + r.distance()
		case i == 0:
			v.Reason = "closest: " + r.distance()
		case r.place > all[0].place:
			v.Reason = "less preferred: " + r.distance()
		case r.cost == all[0].cost && r.Load > all[0].Load:
			v.Reason = "as close, but busier: " + r.distance()
		default:
			v.Reason = "farther: " + r.distance()
		}
		if r.class == unseen {
			v.Reason += "; " + r.BackendView.Reason
		}
		if r.Held > 0 && v.Near && several && r.class <= full {
			v.Reason += fmt.Sprintf("; back only now: it leaves %d %% of its turns to those as close", r.Held)
		}
		e.Backends = append(e.Backends, v)
	}
}

func (in *input) explainWrite(e *Explanation, all []ranked) {
	primary, problem, _ := in.primary(all)
	e.Problem = problem
	for i := range all {
		r := &all[i]
		v := r.verdict()
		switch {
		case r == primary:
			v.Order, v.Near, v.Healthy = 1, true, !r.dead()
			v.Reason = fmt.Sprintf("the primary on timeline %d: %s", r.Timeline, r.distance())
			if r.dead() {
				v.Reason += "; " + in.against(r)
			}
			if r.Drained != "" {
				v.Reason += "; " + r.Drained + ", but writes cannot move: promote a replica elsewhere"
			}
			e.Backends = append([]Verdict{v}, e.Backends...)
			continue
		case r.class == refused:
			v.Reason = leftOut + in.against(r)
		case r.Role != rib.Primary:
			v.Reason = "left out: a replica"
			if r.Role == rib.RoleUnknown {
				v.Reason = "left out: its role is not known"
			}
		case r.class == outdated:
			v.Reason = leftOut + in.against(r)
		default:
			v.Reason = fmt.Sprintf("left out: one of several primaries, on timeline %d", r.Timeline)
		}
		e.Backends = append(e.Backends, v)
	}
}

func (r *ranked) verdict() Verdict {
	b := &r.BackendView.Backend
	return Verdict{
		Backend: b.Name, Addr: b.Addr, Region: b.Region, Role: r.Role.String(), State: r.Verdict.String(),
		CostMS: milliseconds(r.cost), InFlight: r.Gauge.InFlight.Load(), Healthy: r.class <= full, Drained: r.Drained,
	}
}

// distance is the cost in words.
func (r *ranked) distance() string {
	if !r.measured {
		return "distance to " + r.Backend.Region + " not measured yet"
	}
	if p := penalty(r.BackendView); p > 0 {
		return fmt.Sprintf("%.1f ms, of which %.0f for being %.1f s behind", milliseconds(r.cost), milliseconds(p), r.Lag.Seconds())
	}
	return fmt.Sprintf("%.1f ms", milliseconds(r.cost))
}

// against is the weightiest thing that speaks against a backend.
func (in *input) against(r *ranked) string {
	switch r.class {
	case refused:
		return r.Refused
	case evident:
		return r.WhyUnreached()
	case down:
		return r.BackendView.Reason
	case drained:
		return r.Drained
	case spared:
		if r.Verdict != rib.Down {
			return r.Ejected + ", but too many replicas of the shard look bad"
		}
		return r.BackendView.Reason + ", but they do of too many replicas of the shard"
	case ejected:
		return r.Ejected
	case outdated:
		return fmt.Sprintf("a primary of timeline %d, while the shard is on %d", r.Timeline, r.latest)
	case lagging:
		return in.late(r)
	}
	return ""
}

// late is how a replica is behind, in words.
func (in *input) late(r *ranked) string {
	switch p := in.policy; {
	case strays(r.BackendView, r.latest):
		return fmt.Sprintf("still on timeline %d, while the shard is on %d", r.Timeline, r.latest)
	case p.MaxLag > 0 && r.Lag == rib.LagUnknown:
		return "nobody knows how far it is behind"
	case p.MaxLag > 0 && r.Lag > p.MaxLag:
		return fmt.Sprintf("%.1f s behind, more than %g", r.Lag.Seconds(), p.MaxLag.Seconds())
	case r.LagBytes == rib.LagBytesUnknown:
		return "nobody knows how many bytes it is behind"
	}
	return fmt.Sprintf("%s behind, more than %s", inBytes(r.LagBytes), inBytes(in.policy.MaxLagBytes))
}

// inBytes writes a number of them for people.
func inBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	x, i := float64(n), 0
	for ; x >= 1024 && i < len(units)-1; i++ {
		x /= 1024
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0") + " " + units[i]
}

// outranks tells whether the first is tried before a closer one, because its region is preferred.
func (r *ranked) outranks(others []ranked) bool {
	for i := range others {
		if o := &others[i]; o.class == r.class && o.place > r.place && o.cost < r.cost {
			return true
		}
	}
	return false
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
