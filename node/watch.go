package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"rangefinder/gossip/probe"
	"rangefinder/rib"
)

const (
	watchTick = time.Second
	// watchHold is how long a node goes on observing a backend that it is not chosen for any more: who is chosen may have only
	// begun, and what it is chosen by may only have trembled.
	watchHold = 10 * time.Second
	// watchSettle is how long it must have been chosen for a backend that it does not list: a node that starts knows nobody at first,
	// and would be chosen for everything.
	watchSettle = 3 * time.Second
)

// watchLoop has this node observe the backends that it is chosen for, and puts into the log who can reach which backend.
func (n *Node) watchLoop(ctx context.Context) {
	w := watchList{}
	said := map[string]rib.Reach{}
	looked := time.Time{}
	for on := true; on; on = pause(ctx, watchTick) {
		s, now := n.table.Snapshot(), time.Now()
		targets := w.next(s, n.lists(), rib.NewPlaces(s.Observing(), n.speaker().RTTs()), now)
		n.observe(s, targets)
		n.sayReach(s, said)
		for _, t := range unsure(s) {
			if err := n.prober().Look(t, false); err != nil && ctx.Err() == nil {
				n.log.Debug("cannot look at a backend whose observers cannot tell how it is", "backend", t.Name, "error", err)
			}
		}
		if now.Sub(looked) < watchHold || n.cfg().Probe.User == "" {
			continue
		}
		looked = now
		for _, t := range primariesOf(s, targets) {
			if err := n.prober().Look(t, false); err != nil && ctx.Err() == nil {
				n.log.Debug("cannot look how far a primary has come", "backend", t.Name, "error", err)
			}
		}
	}
}

// unsure are backends that this node has statements at, and whose observers live and cannot tell how they are, as when they suspect
// themselves. Its sessions must not wait for those to know again: it looks itself, and goes by what it meets.
func unsure(s *rib.Snapshot) (list []probe.Target) {
	for i := range s.Backends {
		v := &s.Backends[i]
		if v.Verdict == rib.StateUnknown && len(v.Routes) > 0 && v.Refused == "" && v.Gauge.InFlight.Load() > 0 {
			list = append(list, target(&v.Backend))
		}
	}
	return list
}

// primariesOf are the primaries of the replicas among targets, but for those that are targets themselves: how far a replica is behind
// only its primary can tell, and only to who asks both.
func primariesOf(s *rib.Snapshot, targets []probe.Target) (list []probe.Target) {
	shards := make(map[string]bool, len(targets))
	for _, t := range targets {
		shards[t.Shard] = true
	}
	for i := range s.Backends {
		v := &s.Backends[i]
		if t := target(&v.Backend); v.Role == rib.Primary && v.Refused == "" && shards[t.Shard] && !slices.Contains(targets, t) {
			list = append(list, t)
		}
	}
	return list
}

// lists are the names of the backends in this node's configuration.
func (n *Node) lists() (names []string) {
	for _, b := range n.cfg().Backends {
		names = append(names, b.Name)
	}
	return names
}

// watchList is what this node observes, or is about to: by backend, when it was first chosen for it and when last. It is owned by
// watchLoop.
type watchList map[string]struct{ first, last time.Time }

// next is what this node observes now.
func (w watchList) next(s *rib.Snapshot, lists []string, p *rib.Places, now time.Time) (targets []probe.Target) {
	here := make(map[string]bool, len(s.Backends))
	hold := watchHold
	if s.NodeDrained(s.Self) != "" {
		hold = 0 // those that nobody else observes it is chosen for all the same
	}
	for i := range s.Backends {
		v := &s.Backends[i]
		b, listed := &v.Backend, slices.Contains(lists, v.Backend.Name) // few: those near this node
		// Of somebody else's backend that is not known yet, or refused, there is nothing to be said.
		if !listed && v.Refused != "" {
			continue
		}
		here[b.Name] = true
		chosen, ok := w[b.Name]
		if s.Watches(v, listed, p) {
			if chosen.last = now; !ok {
				chosen.first = now
			}
			w[b.Name], ok = chosen, true
		}
		settled := listed || chosen.last.Sub(chosen.first) >= watchSettle
		switch {
		case ok && (now.Sub(chosen.last) >= hold && !chosen.last.Equal(now) || !settled && !chosen.last.Equal(now)):
			delete(w, b.Name)
		case ok && settled:
			targets = append(targets, target(b))
		}
	}
	maps.DeleteFunc(w, func(name string, _ struct{ first, last time.Time }) bool { return !here[name] })
	return targets
}

// observe has the probes look at targets, and takes back what this node has said of other backends.
func (n *Node) observe(s *rib.Snapshot, targets []probe.Target) {
	if n.cfg().Probe.User == "" { // it lists nothing, and knows nobody to look as
		targets = nil
	}
	n.prober().Assign(targets)
	mine := make(map[string]bool, len(targets))
	for _, t := range targets {
		mine[t.Name] = true
	}
	for i := range s.Backends {
		v := &s.Backends[i]
		if !mine[v.Backend.Name] && slices.ContainsFunc(v.Routes, func(r rib.Route) bool { return r.Observer == s.Self.Name }) {
			n.speaker().Observe(rib.Route{Backend: v.Backend.Name, State: rib.Withdrawn})
		}
	}
}

// sayReach logs whenever somebody else can reach a backend than before: that this node cannot is another thing than that nobody can.
func (n *Node) sayReach(s *rib.Snapshot, said map[string]rib.Reach) {
	for i := range s.Backends {
		v := &s.Backends[i]
		now, before := v.Reach(), said[v.Backend.Name]
		if said[v.Backend.Name] = now; now == before {
			continue
		}
		switch now {
		case rib.ReachNotHere:
			text := "this node cannot reach a backend"
			if v.Verdict == rib.Up {
				text += ", others can"
			}
			n.log.Warn(text, "backend", v.Backend.Name, "here", v.Evidence, "verdict", v.Reason)
		case rib.ReachNobody:
			n.log.Warn("nobody can reach a backend", "backend", v.Backend.Name, "here", v.Evidence, "verdict", v.Reason)
		case rib.ReachHereOnly:
			n.log.Warn("a backend's observers cannot reach it", "backend", v.Backend.Name, "verdict", v.Reason)
		case rib.ReachAll:
			if before != rib.ReachUnknown {
				n.log.Info("a backend can be reached again", "backend", v.Backend.Name, "verdict", v.Reason)
			}
		}
	}
}
