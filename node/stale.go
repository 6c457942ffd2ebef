package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rangefinder/gossip"
	"rangefinder/rib"
)

// A node that is cut off goes on with what it last knew, and says so: of which nodes it has not heard since when, and how old what it
// knows of a backend is that nobody who can tell speaks of any more.

const (
	staleTick      = time.Second
	maxLostRegions = 16 // that have an alarm each
)

// staleness is since when nobody has said of a backend how it is.
type staleness struct {
	mu    sync.Mutex
	since map[string]time.Time // by backend
}

// look notes what a snapshot shows.
func (s *staleness) look(backends []rib.BackendView, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := make(map[string]time.Time)
	for i := range backends {
		if b := &backends[i]; b.Verdict == rib.StateUnknown {
			at, ok := s.since[b.Backend.Name]
			if !ok {
				at = now
			}
			since[b.Backend.Name] = at
		}
	}
	s.since = since
}

// of is how long what is known of the backend has been stale at least; 0: it is not.
func (s *staleness) of(backend string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.since[backend]
	if !ok {
		return 0
	}
	return max(now.Sub(at), time.Millisecond)
}

func (n *Node) staleLoop(ctx context.Context) {
	for {
		n.stale.look(n.table.Snapshot().Backends, time.Now())
		n.forgetLost()
		if !pause(ctx, staleTick) {
			return
		}
	}
}

// staleFor says for people how old something is; "" if it is not.
func staleFor(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return "stale for " + d.Round(time.Second).String()
}

func lostViews(lost []gossip.Lost, now time.Time) []LostView {
	list := []LostView{}
	for _, l := range lost {
		age := max(now.Sub(l.Since), time.Millisecond)
		list = append(list, LostView{Name: l.Name, Region: l.Region, Addr: l.Addr, StaleMS: ms(age), Stale: staleFor(age)})
	}
	return list
}

// lostAlarms tells of regions without a node, and of a node that has lost most of the others. They name a time and no age, for an alarm
// is another one when its text changes.
func lostAlarms(members []rib.Member, lost []gossip.Lost) (list []string) {
	live, gone := map[string]bool{}, map[string]time.Time{}
	for _, m := range members {
		live[m.Region] = true
	}
	var first time.Time
	for _, l := range lost {
		if first.IsZero() || l.Since.Before(first) {
			first = l.Since
		}
		if at, ok := gone[l.Region]; !live[l.Region] && (!ok || l.Since.After(at)) {
			gone[l.Region] = l.Since
		}
	}
	clock := func(t time.Time) string { return t.UTC().Format("15:04:05 MST") }
	if len(lost) > 0 && len(lost) >= len(members) {
		list = append(list, fmt.Sprintf("this node hears %d of %d nodes and may be cut off: since %s it goes on with what it knew", len(members), len(members)+len(lost), clock(first)))
	}
	regions := slices.Sorted(maps.Keys(gone))
	if more := len(regions) - maxLostRegions; more > 0 {
		regions = regions[:maxLostRegions]
		list = append(list, fmt.Sprintf("no node of %d other regions is heard", more))
	}
	for _, region := range regions {
		list = append(list, fmt.Sprintf("no node of region %s has been heard since %s: what is known of its backends may be stale", region, clock(gone[region])))
	}
	slices.Sort(list)
	return list
}
