package rib

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Snapshot is the table at one moment. Nothing in it may be changed, but for the gauges.
type Snapshot struct {
	Version   uint64 // grows with each change of the table
	Self      Member
	Policy    *Policy       // never nil
	Ownership *Ownership    // never nil
	Members   []Member      // live ones and self, sorted by name
	Backends  []BackendView // announced and not withdrawn, sorted by name
	Drains    []Drain       // in force, sorted by target
	// Distances is this node's distance to each region that it has measured, after the filter (see Health.Distance), and
	// to its own, zero if never measured.
	Distances map[string]time.Duration

	BackendsChanged  uint64 // Version of the first snapshot since which the backends and their shards have been these
	DistancesChanged uint64 // Version of the first snapshot since which Distances has been this
}

// BackendView is what the routes of one backend add up to. The verdict is the same on every node that has heard the same;
// Evidence is this node's alone.
type BackendView struct {
	Backend  Backend
	Routes   []Route // of live observers, sorted by observer
	Verdict  State   // Down: a majority of the live observers says so; StateUnknown: no live observer
	Role     Role    // as the latest timeline has it, or most observers (see Doubted); the last known one if no observer is left
	Timeline uint32
	Lag      time.Duration // the longest that a live observer saw, this node by what it saw last; LagUnknown if none could tell
	LagBytes int64         // the most, likewise; LagBytesUnknown if none could tell
	Latency  time.Duration // the shortest of the observers' probes
	Own      time.Duration // of this node's probe, if it is an observer; else the shortest of observers in its region; 0: neither
	Load     LoadClass     // the highest
	Reason   string        // of the verdict: "2 of 3 observers say down"
	Evidence string        // this node's own, against the backend: why; "" is none
	Conflict string        // who announces it differently than whom, so that one configuration is wrong; "" is nobody
	Doubted  string        // who tells another role or timeline than is believed, and what; "" is nobody
	Refused  string        // why it may not serve its shard, whatever its health; "" is nothing
	Drained  string        // who wants it to get no more reads, since when and why; "" is nobody
	Gauge    *Gauge

	Trial               // what this node makes of its answers
	AuthorRegion string // where the author stands; "" if it is gone

	Changed uint64 // Version of the first snapshot since which all of the above has been as it is
}

// same tells whether two views of one backend say the same; Changed does not count.
func (v *BackendView) same(o *BackendView) bool {
	return v.Backend == o.Backend && v.AuthorRegion == o.AuthorRegion && v.Verdict == o.Verdict && v.Role == o.Role &&
		v.Timeline == o.Timeline && v.Lag == o.Lag && v.LagBytes == o.LagBytes && v.Latency == o.Latency && v.Own == o.Own && v.Load == o.Load && v.Reason == o.Reason && v.Evidence == o.Evidence && v.Conflict == o.Conflict && v.Doubted == o.Doubted &&
		v.Refused == o.Refused && v.Drained == o.Drained && v.Gauge == o.Gauge && v.Trial == o.Trial && sameRoutes(v.Routes, o.Routes)
}

func sameRoutes(a, b []Route) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b) // most views are the ones of the snapshot before
}

// since notes what has changed since the snapshot before; nil: everything has. So who goes by a snapshot need not compare
// what has not changed.
func (s *Snapshot) since(before *Snapshot) {
	if before == nil {
		before = &Snapshot{BackendsChanged: s.Version, DistancesChanged: s.Version}
	}
	alike := len(s.Backends) == len(before.Backends)
	old := before.Backends
	for i := range s.Backends {
		v := &s.Backends[i]
		v.Changed = s.Version
		for len(old) > 0 && old[0].Backend.Name < v.Backend.Name {
			old = old[1:]
		}
		if len(old) == 0 || old[0].Backend.Name != v.Backend.Name {
			alike = false
			continue
		}
		alike = alike && old[0].Backend.Shard == v.Backend.Shard
		if v.same(&old[0]) {
			v.Changed = old[0].Changed
		}
	}
	if s.BackendsChanged = s.Version; alike {
		s.BackendsChanged = before.BackendsChanged
	}
	if s.DistancesChanged = s.Version; maps.Equal(s.Distances, before.Distances) {
		s.DistancesChanged = before.DistancesChanged
	}
}

// Down reports whether the backend is down for this node: by the observers' verdict, or by its own evidence.
func (v *BackendView) Down() bool { return v.Evidence != "" || v.Verdict == Down }

// refusal is why the ledger does not let b be a backend of its shard. Gossip announces backends, and only this comparison
// stands between a wrong announcement and another shard's rows: what is not known to be right is refused.
func refusal(shards map[string]*Shard, b *Backend) string {
	shard := shards[b.Shard]
	switch {
	case shard == nil:
		return fmt.Sprintf("shard %s is not recorded yet", b.Shard)
	case b.SystemID == 0:
		return "its system identifier is not known yet: nobody has reached it"
	case b.SystemID != shard.SystemID:
		return fmt.Sprintf("system identifier %d is not %s's %d", b.SystemID, b.Shard, shard.SystemID)
	}
	return ""
}
