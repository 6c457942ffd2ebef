package node

import (
	"context"
	"slices"
	"time"

	"rangefinder/fib"
	"rangefinder/gossip/probe"
	"rangefinder/rib"
)

// A session's reads stay on the primary until a probe has seen a replica with what the session wrote. Probes come once a second, and
// a node does not probe backends that it neither lists nor observes. So where sessions of this node write, it looks more often: at the
// primary soon after the write, at the replicas as soon as the primary's answer is there to compare theirs with, and ever more
// seldom at those that stay behind.

const (
	// followParts is how many times in a probe's interval shards are looked after that were written to.
	followParts = 5
	followLeast = 10 * time.Millisecond // however short the interval
	// followReads bounds how many replicas of a shard are looked at: the closest ones, for they get the reads.
	followReads = 4
)

// following is a shard that was written to.
type following struct {
	wrote time.Time // not before the last write
	next  time.Time // when to look again at replicas that stay behind
}

// saw takes a probe's answer.
func (n *Node) saw(p rib.Position) rib.Delay {
	behind := n.table.Positions().Saw(p)
	if p.Role == rib.Primary {
		select {
		case n.sawPrimary <- struct{}{}:
		default:
		}
	}
	return behind
}

// followLoop looks after the shards that sessions of this node write to.
func (n *Node) followLoop(ctx context.Context) {
	shards := map[*fib.Slot]following{}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		interval := n.cfg().Probe.Interval.Duration
		due := false
		select {
		case <-ctx.Done():
			return
		case <-n.sawPrimary:
		case <-tick.C:
			due = true
			tick.Reset(max(interval/followParts, followLeast))
		}
		now := time.Now()
		for _, s := range n.fib.Load().Slots() {
			if s.Written() {
				shards[s] = following{wrote: now}
			}
		}
		for s, f := range shards {
			targets, done := f.targets(s, n.cfg().Databases, due, now)
			if done {
				delete(shards, s)
				continue
			}
			if len(targets) > 0 && due {
				f.next = now.Add(min(now.Sub(f.wrote)/4, interval))
				shards[s] = f
			}
			for _, t := range targets {
				if err := n.prober().Look(t, false); err != nil && ctx.Err() == nil {
					n.log.Debug("cannot look how far a backend has come", "backend", t.Name, "error", err)
				}
			}
		}
	}
}

// targets are the backends of a shard to look at now; done: all that matter are known to have what was written. due: it is time for
// more than what an answer of the primary makes worth while.
func (f *following) targets(s *fib.Slot, databases []Listing, due bool, now time.Time) (list []probe.Target, done bool) {
	writes := s.Candidates().Writes
	if len(writes) == 0 {
		return nil, false
	}
	due = due && !now.Before(f.next)
	primary := writes[0].Backend
	mark := writes[0].Gauge.Seen.Load()
	done = true
	if mark == nil || mark.Asked.Before(f.wrote) {
		if done = false; due {
			list = append(list, target(primary))
		}
	}
	look := func(hops []fib.NextHop) {
		for i := range hops[:min(len(hops), followReads)] {
			h := &hops[i]
			if h.Backend.Name == primary.Name {
				return // nobody reads from a replica behind it
			}
			seen := h.Gauge.Seen.Load()
			if seen != nil && !seen.Covers.Before(f.wrote) {
				continue
			}
			done = false
			t := target(h.Backend)
			if (due || mark != nil && (seen == nil || seen.Asked.Before(mark.Asked))) && !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	look(s.Candidates().Reads)
	for i := range databases { // they may prefer other regions
		look(s.For(databases[i].Name).Reads)
	}
	return list, done
}

// look has a backend looked at for a client that waits for the answer.
func (n *Node) look(b *rib.Backend) {
	if err := n.prober().Look(target(b), true); err != nil {
		n.log.Debug("cannot look how far a backend has come", "backend", b.Name, "error", err)
	}
}

// recheck has all backends of a shard looked at now, by whoever observes them, here too, since one has another role than is known: who was a replica
// so far may be the primary.
func (n *Node) recheck(backend string) {
	views := n.table.Snapshot().Backends
	i := slices.IndexFunc(views, func(v rib.BackendView) bool { return v.Backend.Name == backend })
	for j := range views {
		if i >= 0 && views[j].Backend.Shard == views[i].Backend.Shard {
			n.speaker().Recheck(&views[j])
		}
	}
}

// heardRecheck has a backend looked at, if this node observes it.
func (n *Node) heardRecheck(backend string) {
	if p := n.prober(); p != nil {
		p.Recheck(backend)
	}
}

func target(b *rib.Backend) probe.Target {
	return probe.Target{Name: b.Name, Shard: b.Shard, Region: b.Region, Addr: b.Addr, SystemID: b.SystemID}
}
