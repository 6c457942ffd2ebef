package node

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/fib"
	"rangefinder/rib"
)

// What a ClusterView holds at most: the page and /debug/cluster are for people.
const (
	maxViewRanges      = 1000
	maxViewPreferences = 1000
)

// NotReady lists why this node should get no traffic now.
func (n *Node) NotReady() []string {
	var why []string
	switch phase(n.phase.Load()) {
	case phaseDraining:
		why = append(why, "draining")
	case phaseLast:
		why = append(why, "waiting for the last client to leave")
	case phaseHanded:
		why = append(why, "another process has taken over")
	}
	if !n.whole.Load() {
		return append(why, *n.waitsFor.Load())
	}
	if n.table.Owners().Get().ClusterID == "" {
		why = append(why, "who owns which keys is not known yet")
	}
	if n.fib.Load().Ownership().ClusterID == "" {
		why = append(why, "no routing table has been compiled")
	}
	if s := n.table.Snapshot(); s.NodeDrained(s.Self) != "" {
		why = append(why, s.NodeDrained(s.Self))
	}
	return why
}

// View is everything that this node believes, from one snapshot.
func (n *Node) View() ClusterView {
	s := n.table.Snapshot()
	status := n.ledger().Status()
	v := ClusterView{
		ClusterID: n.state.ClusterID, Version: Version(), Epoch: s.Ownership.Epoch.String(), FIB: n.fib.Load().Version(),
		Node:      n.nodeView(s.Self),
		Members:   []MemberView{},
		Lost:      lostViews(n.speaker().Lost(), time.Now()),
		RTT:       rttViews(n),
		Raft:      raftView(status),
		Lease:     n.leaseView(),
		Leases:    n.leaseStatuses(),
		Keyspaces: n.Keyspaces(),
		Moves:     []MoveView{},
		Shards:    []ShardView{},
		Pools:     n.poolViews(),
		Sessions:  n.sessionsView(),
		Alarms:    orEmpty(n.alarmList(s, status)),
		Drains:    drainViews(s),
		TwoPhase:  n.twoPhaseViews(),

		Preferences: preferenceViews(n.fib.Load(), n.cfg().Databases),
	}
	for _, m := range n.speaker().Members() {
		v.Members = append(v.Members, MemberView{
			Name: m.Name, Region: m.Region, Addr: m.Addr, Incarnation: m.Incarnation, Self: m.Name == s.Self.Name,
			Drained: s.NodeDrained(m),
			Leader:  m.Name == status.Leader, Voter: slices.ContainsFunc(status.Voters, func(x cluster.Voter) bool { return x.Name == m.Name }),
		})
	}
	v.Backends = n.backendViews(s)
	slices.SortStableFunc(v.Backends, func(a, b BackendView) int { return cmp.Compare(a.Shard, b.Shard) })
	for _, x := range s.Ownership.Shards {
		v.Shards = append(v.Shards, ShardView{Name: x.Name, SystemID: strconv.FormatUint(x.SystemID, 10), Epoch: x.Epoch.String()})
	}
	for i := range s.Ownership.Moves {
		v.Moves = append(v.Moves, n.moveView(s.Ownership.Moves[i]))
	}
	for i := range s.Ownership.Keyspaces {
		v.RangesTotal += shownRanges(&s.Ownership.Keyspaces[i])
	}
	v.Ranges = rangeViews(s.Ownership, "", maxViewRanges, n.loadSeen())
	return v
}

func (n *Node) nodeView(self rib.Member) NodeView {
	v := NodeView{
		Name: self.Name, Region: self.Region, Incarnation: self.Incarnation, Started: n.started,
		Cluster: n.port().Addr(), HTTP: n.httpLn.Addr().String(), NotReady: orEmpty(n.NotReady()), Lab: []string{},
	}
	if n.pgLn != nil {
		v.Postgres = n.pgLn.Addr().String()
	}
	for _, l := range n.cfg().Lab {
		v.Lab = append(v.Lab, l.Net+": "+l.RTT.String())
	}
	return v
}

// rttViews is what is known of the ways between regions: this node's own are those that it routes by.
func rttViews(n *Node) []RTTView {
	list := []RTTView{}
	for from, row := range n.speaker().RTTs() {
		for to, d := range row {
			list = append(list, RTTView{From: from, To: to, MS: ms(d)})
		}
	}
	slices.SortFunc(list, func(a, b RTTView) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return list
}

func raftView(s cluster.Status) RaftView {
	v := RaftView{Role: s.Role, Term: s.Term, Leader: s.Leader, LeaderAddr: s.LeaderAddr, Voters: []string{}, Applied: s.Applied, LastContactMS: ms(s.LastContact)}
	for _, x := range s.Voters {
		v.Voters = append(v.Voters, x.Name)
	}
	return v
}

func (n *Node) poolViews() []PoolView {
	list := []PoolView{}
	if n.pools == nil {
		return list
	}
	for _, p := range n.pools.Stats() {
		list = append(list, PoolView{Backend: p.Backend, InUse: p.InUse, Idle: p.Idle, Waiting: p.Waiting, Limit: p.Size,
			Size: n.cfg().Pool.Size, Share: n.pools.Share(), Budget: n.cfg().Pool.Budget, Refusals: p.Refusals})
	}
	slices.SortFunc(list, func(a, b PoolView) int { return cmp.Compare(a.Backend, b.Backend) })
	return list
}

func (n *Node) sessionsView() SessionsView {
	if n.server == nil {
		return SessionsView{}
	}
	s := n.server.Stats()
	return SessionsView{Open: s.Sessions, Connections: s.Clients, Total: s.Accepted}
}

// leftOut is said of a backend that is up and yet gets no statements of this node's.
const leftOut = "left out"

// forUs is what a backend is to this node: up if statements go to it, else drained, left out (the table does not use it, though it is up), or down.
func forUs(b *rib.BackendView, use fib.Use) string {
	switch {
	case b.Down(), b.Refused != "":
		return rib.Down.String()
	case b.Drained != "":
		return "drained"
	case !use.Used:
		return leftOut
	}
	return rib.Up.String()
}

// choice is what the table has against a backend, if that is not told of it anyway.
func choice(b *rib.BackendView, use fib.Use) string {
	if b.Down() || b.Refused != "" || b.Drained != "" && strings.HasSuffix(use.Why, b.Drained) {
		return ""
	}
	return use.Why
}

// backendViews are all backends of a snapshot, as the routing table that is in force uses them.
func (n *Node) backendViews(s *rib.Snapshot) []BackendView {
	list, uses := make([]BackendView, 0, len(s.Backends)), n.fib.Load().Uses()
	for i := range s.Backends {
		list = append(list, n.backendView(&s.Backends[i], uses[s.Backends[i].Backend.Name]))
	}
	return list
}

func (n *Node) backendView(b *rib.BackendView, use fib.Use) BackendView {
	v := BackendView{
		Name: b.Backend.Name, Shard: b.Backend.Shard, Region: b.Backend.Region, Addr: b.Backend.Addr,
		SystemID: strconv.FormatUint(b.Backend.SystemID, 10), Role: b.Role.String(), Timeline: b.Timeline,
		ForAll: b.Verdict.String(), ForUs: forUs(b, use), Choice: choice(b, use), Reason: b.Reason, Evidence: b.Evidence, Refused: b.Refused,
		Reach: b.Reach().String(), WhyUnreached: b.WhyUnreached(), Drained: b.Drained, Probe: n.prober().Trouble(b.Backend.Name),
		LagMS: ms(b.Lag), LagBytes: b.LagBytes, LatencyMS: ms(b.Latency), Load: b.Load.String(), Ejected: b.Ejected, Held: int(b.Held), InFlight: b.Gauge.InFlight.Load(), Routes: []RouteView{},
	}
	age := n.stale.of(b.Backend.Name, time.Now())
	v.StaleMS, v.Stale = ms(age), staleFor(age)
	for _, r := range b.Routes {
		v.Routes = append(v.Routes, RouteView{
			Observer: r.Observer, State: r.State.String(), Role: r.Role.String(), Timeline: r.Timeline,
			LatencyMS: ms(r.Latency), LagMS: ms(r.Lag), LagBytes: r.LagBytes, Load: r.Load.String(),
			Stamp: strconv.FormatUint(uint64(r.Stamp.Incarnation), 10) + "." + strconv.FormatUint(r.Stamp.Seq, 10),
		})
	}
	return v
}

// Keyspaces is the ownership that this node routes by.
func (n *Node) Keyspaces() []KeyspaceView {
	o := n.fib.Load().Ownership()
	list := make([]KeyspaceView, 0, len(o.Keyspaces))
	for i := range o.Keyspaces {
		list = append(list, keyspaceView(&o.Keyspaces[i]))
	}
	return list
}

func keyspaceView(k *rib.Keyspace) KeyspaceView {
	v := KeyspaceView{ID: uint32(k.ID), Name: k.Name, Database: k.Database, Method: k.Method, Ranges: len(k.Ranges)}
	if k.Listed() {
		v.Values, v.Default = len(k.Ranges)/2, k.Ranges[0].Shard
	}
	if k.Reference() {
		v.Copies = k.Shards()
	}
	for _, t := range k.Types {
		v.Types = append(v.Types, t.String())
	}
	for _, t := range k.Tables {
		v.Tables = append(v.Tables, TableView{Schema: t.Schema, Name: t.Name, Columns: t.Columns})
	}
	return v
}

// Ranges is the ownership that this node routes by, of one keyspace or of all, with what all nodes have counted on them.
func (n *Node) Ranges(ctx context.Context, keyspace string) (ranges []RangeView, epoch string, found bool) {
	o := n.fib.Load().Ownership()
	if keyspace != "" && o.KeyspaceByName(keyspace) == nil {
		return nil, "", false
	}
	return rangeViews(o, keyspace, -1, n.loadNow(ctx)), o.Epoch.String(), true
}

// bounds is the range as the command line takes it; of a list its value.
func (r *RangeView) bounds() string {
	if r.Value != "" {
		return r.Value
	}
	return r.From + ".." + r.To
}

// shownRanges is how many of a keyspace's ranges rangeViews writes: of a list its values, and the others once.
func shownRanges(k *rib.Keyspace) int {
	if k.Listed() {
		return len(k.Ranges)/2 + 1
	}
	return len(k.Ranges)
}

// rangeViews writes ranges as their method does, at most limit of them; -1 is all. sum may be nil.
func rangeViews(o *rib.Ownership, keyspace string, limit int, sum *loadSum) []RangeView {
	list := []RangeView{}
	for i := range o.Keyspaces {
		k := &o.Keyspaces[i]
		method, err := rib.MethodByName(k.Method)
		if err != nil || (keyspace != "" && k.Name != keyspace) {
			continue
		}
		show := func(key rib.Key) string {
			if len(key) == 0 {
				return ""
			}
			return method.FormatKey(k.Types, key)
		}
		others := -1 // of a list: where in list they are
		for j := range k.Ranges {
			if len(list) == limit {
				return list
			}
			r := &k.Ranges[j]
			v := RangeView{Keyspace: k.Name, Shard: r.Shard, Epoch: r.Epoch.String(), Rate: tenths(sum.of(k.ID, r.From))}
			switch {
			case !k.Listed():
				v.From, v.To, v.Hot = show(r.From), show(r.To), sum.hot(k, method, r)
			case j%2 == 0 && others >= 0: // the others are one and the same
				list[others].Rate += v.Rate
				continue
			default:
				if v.Value = rib.FormatInterval(method, k.Types, r.From, r.To); j == 0 {
					others = len(list)
				}
			}
			list = append(list, v)
		}
	}
	return list
}

// alarmList is what a person should look at now.
func (n *Node) alarmList(s *rib.Snapshot, status cluster.Status) []string {
	var list []string
	if a := n.compiler.Alarm(); a != "" {
		list = append(list, a)
	}
	if a := n.prober().Suspicion(); a != "" {
		list = append(list, a)
	}
	list = append(list, lostAlarms(n.speaker().Members(), n.speaker().Lost())...)
	if status.Leader == "" {
		list = append(list, "no leader is known: keyspaces cannot be changed; statements are routed by what was last agreed")
	}
	if a := n.leaseAlarm(); a != "" {
		list = append(list, a)
	}
	if status.Stalled != "" {
		list = append(list, status.Stalled)
	}
	if status.Diverged != "" {
		list = append(list, status.Diverged)
	}
	if budget, nodes := n.cfg().Pool.Budget, len(n.speaker().Present()); budget > 0 && nodes > budget {
		list = append(list, fmt.Sprintf("pool.budget is %d and there are %d nodes: each has one connection to a backend, which is more than the budget", budget, nodes))
	}
	n.mu.Lock()
	for _, a := range n.alarms {
		list = append(list, a)
	}
	n.mu.Unlock()
	list = append(list, n.lender.alarms(s.Ownership, time.Now())...)
	list = append(list, n.dependents.alarms()...)
	list = append(list, n.types.alarms()...)
	list = append(list, n.twophase.Alarms()...)
	for _, slot := range n.fib.Load().Slots() {
		if c := slot.Candidates(); c.SplitBrain || len(c.Writes) == 0 {
			list = append(list, "no writes: "+c.WritesReason)
		} else if c.WritesReason != "" {
			list = append(list, "writes to "+slot.Shard()+" fail: "+c.WritesReason)
		} else if c.Past != "" {
			list = append(list, c.Past)
		}
		if stray := slot.Candidates().Stray; stray != "" {
			list = append(list, stray)
		}
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Refused != "" && s.Ownership.Shard(b.Backend.Shard) != nil && b.Backend.SystemID != 0 {
			list = append(list, "backend "+b.Backend.Name+" is refused: "+b.Refused)
		}
		if b.Doubted != "" {
			list = append(list, b.Doubted)
		}
		if b.Conflict != "" {
			list = append(list, "backend "+b.Backend.Name+": "+b.Conflict+"; names of backends are unique in the cluster")
		}
	}
	slices.Sort(list)
	return list
}

// gauges is what /metrics shows of the node as it is now.
func (n *Node) gauges() gauges {
	if !n.whole.Load() {
		return gauges{}
	}
	s, status, heard := n.table.Snapshot(), n.ledger().Status(), n.speaker().Stats()
	sessions, compiles := n.server.Stats(), n.compiler.Stats()
	g := gauges{
		Sessions: sessions.Sessions, Accepted: sessions.Accepted, NoTLS: sessions.NoTLS, Members: heard.Members, Backends: len(s.Backends), Voters: len(status.Voters),
		EpochGeneration: s.Ownership.Epoch.Generation, EpochIndex: s.Ownership.Epoch.Index,
		FIBVersion: n.fib.Load().Version(), Compiles: compiles.Compiles, Failures: compiles.Failures,
		Gossip: heard, Statements: n.planner.Usage(), Drains: len(s.Drains), TwoPhase: n.twophase.Counts(), TwoPhaseOpen: len(n.twophase.Transactions()),
		Alarms: len(n.alarmList(s, status)), Ready: len(n.NotReady()) == 0, Leader: n.ledger().IsLeader(),
		Pools: n.poolViews(), BackendUp: map[string]bool{}, ProbeFailures: n.prober().Failures(),
	}
	uses := n.fib.Load().Uses()
	for i := range s.Backends {
		b := &s.Backends[i]
		g.BackendUp[b.Backend.Name] = forUs(b, uses[b.Backend.Name]) == rib.Up.String()
	}
	return g
}

// RIB is the snapshot as it stands, for people who look for a fault.
func (n *Node) RIB() any {
	s := n.table.Snapshot()
	type dump struct {
		Version   uint64             `json:"version"`
		Self      rib.Member         `json:"self"`
		Members   []rib.Member       `json:"members"`
		Lost      []LostView         `json:"lost"`
		Distances map[string]float64 `json:"distances_ms"` // from here, after the filter
		Backends  []BackendView      `json:"backends"`
		Suspicion string             `json:"suspicion"` // why this node trusts its own eyes less than the backends it watches; "" if it does not
		Drains    []DrainView        `json:"drains"`
		Epoch     string             `json:"epoch"`
		Gossip    any                `json:"gossip"`
		Port      any                `json:"port"`
		Ledger    any                `json:"ledger"`
	}
	d := dump{Version: s.Version, Self: s.Self, Members: s.Members, Distances: map[string]float64{},
		Epoch: s.Ownership.Epoch.String(), Gossip: n.speaker().Stats(), Port: n.port().Stats(), Ledger: n.ledger().Status()}
	d.Suspicion, d.Lost = n.prober().Suspicion(), lostViews(n.speaker().Lost(), time.Now())
	d.Drains = drainViews(s)
	for region, distance := range s.Distances {
		d.Distances[region] = ms(distance)
	}
	d.Backends = n.backendViews(s)
	return d
}

// preferring explains a shard's reads for each database that has a list of its own.
func preferring(t *fib.Table, shard string, databases []Listing) iter.Seq2[string, fib.Explanation] {
	return func(yield func(string, fib.Explanation) bool) {
		for i := range databases {
			if e := t.ExplainShard(shard, databases[i].Name, false); e.Prefers != "" && !yield(databases[i].Name, e) {
				return
			}
		}
	}
}

func preferenceViews(t *fib.Table, databases []Listing) []PreferenceView {
	list := []PreferenceView{}
	for _, slot := range t.Slots() {
		for database, e := range preferring(t, slot.Shard(), databases) {
			if len(list) == maxViewPreferences {
				return list
			}
			list = append(list, PreferenceView{Database: database, Prefers: e.Prefers, Shard: e.Shard, Reads: e.Backends})
		}
	}
	slices.SortStableFunc(list, func(a, b PreferenceView) int { return cmp.Compare(a.Database, b.Database) })
	return list
}

// FIB is the table that statements are routed by: for each shard, what reads and writes would try, and why.
func (n *Node) FIB() any {
	t := n.fib.Load()
	type shard struct {
		Shard     string                     `json:"shard"`
		Reads     any                        `json:"reads"`
		Databases map[string]fib.Explanation `json:"reads_of_databases,omitempty"` // those that prefer other regions, or are pinned to some
		Writes    any                        `json:"writes"`
	}
	type dump struct {
		Version   uint64         `json:"version"`
		Epoch     string         `json:"epoch"`
		Alarm     string         `json:"alarm"`
		Compiles  uint64         `json:"compiles"`
		Flips     uint64         `json:"flips"`
		Keyspaces []KeyspaceView `json:"keyspaces"`
		Shards    []shard        `json:"shards"`
	}
	stats := n.compiler.Stats()
	d := dump{Version: t.Version(), Epoch: t.Ownership().Epoch.String(), Alarm: n.compiler.Alarm(), Compiles: stats.Compiles, Flips: stats.Flips, Keyspaces: n.Keyspaces(), Shards: []shard{}}
	for _, slot := range t.Slots() {
		x := shard{Shard: slot.Shard(), Reads: t.ExplainShard(slot.Shard(), "", false), Writes: t.ExplainShard(slot.Shard(), "", true)}
		for database, e := range preferring(t, slot.Shard(), n.cfg().Databases) {
			if x.Databases == nil {
				x.Databases = map[string]fib.Explanation{}
			}
			x.Databases[database] = e
		}
		d.Shards = append(d.Shards, x)
	}
	return d
}
