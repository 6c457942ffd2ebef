package node

import (
	"time"

	"rangefinder/cluster"
	"rangefinder/fib"
)

// The types in this file are what the HTTP API and the debug page show, and what the command line reads back. Their JSON
// names are stable; times are milliseconds as decimal numbers, ids that exceed 2^53 are strings.

// ClusterView is all that one node believes of its cluster: /debug/cluster.
type ClusterView struct {
	ClusterID   string         `json:"cluster_id"`
	Version     string         `json:"version"`
	Node        NodeView       `json:"node"`
	Members     []MemberView   `json:"members"`
	Lost        []LostView     `json:"lost"` // nodes that were there and have not said goodbye, for a day
	RTT         []RTTView      `json:"rtt"`
	Raft        RaftView       `json:"raft"`
	Lease       LeaseView      `json:"lease"`
	Leases      []LeaseStatus  `json:"leases"` // on the leader: what it has heard of the others
	Backends    []BackendView  `json:"backends"`
	Keyspaces   []KeyspaceView `json:"keyspaces"`
	Ranges      []RangeView    `json:"ranges"` // the first thousand; all are at /api/v1/ranges
	RangesTotal int            `json:"ranges_total"`
	Moves       []MoveView     `json:"moves"` // under way, as this node knows them: how far they are is known on the leader
	Shards      []ShardView    `json:"shards"`
	Pools       []PoolView     `json:"pools"`
	Sessions    SessionsView   `json:"sessions"`
	Epoch       string         `json:"epoch"` // of the newest change to ownership that this node knows
	FIB         uint64         `json:"fib_version"`
	Alarms      []string       `json:"alarms"`    // what a person should look at now
	Drains      []DrainView    `json:"drains"`    // what operators have drained
	TwoPhase    []TwoPhaseView `json:"two_phase"` // transactions over several shards that have not come to their end, the oldest thousand

	Preferences []PreferenceView `json:"preferences"` // reads of databases that do not go by distance alone; the first thousand
}

// NodeView is the node that answers.
type NodeView struct {
	Name        string    `json:"name"`
	Region      string    `json:"region"`
	Incarnation uint32    `json:"incarnation"`
	Started     time.Time `json:"started"`
	Postgres    string    `json:"postgres"` // host:port
	Cluster     string    `json:"cluster"`
	HTTP        string    `json:"http"`
	NotReady    []string  `json:"not_ready"` // why not; empty: ready
	Lab         []string  `json:"lab"`       // injected delays; empty outside demos and tests
}

// MemberView is one live node.
type MemberView struct {
	Name        string `json:"name"`
	Region      string `json:"region"`
	Addr        string `json:"addr"`
	Incarnation uint32 `json:"incarnation"`
	Self        bool   `json:"self"`
	Leader      bool   `json:"leader"`
	Voter       bool   `json:"voter"`
	Drained     string `json:"drained,omitempty"` // by whom, since when, why; absent: it is not
}

// LostView is a node that is dead, or behind a cut.
type LostView struct {
	Name    string  `json:"name"`
	Region  string  `json:"region"`
	Addr    string  `json:"addr"`
	StaleMS float64 `json:"stale_ms"` // since it was given up
	Stale   string  `json:"stale"`    // the same for people: "stale for 34s"
}

// RTTView is one entry of the region-to-region matrix.
type RTTView struct {
	From string  `json:"from"`
	To   string  `json:"to"`
	MS   float64 `json:"ms"`
}

// RaftView is this node's place in the ledger.
type RaftView struct {
	Role          string   `json:"role"`
	Term          uint64   `json:"term"`
	Leader        string   `json:"leader"` // "" if none is known
	LeaderAddr    string   `json:"leader_addr"`
	Voters        []string `json:"voters"`
	Applied       uint64   `json:"applied"`
	LastContactMS float64  `json:"last_contact_ms"` // since this follower heard of its leader; 0 on the leader
}

// BackendView is one backend, with what each observer says of it.
type BackendView struct {
	Name      string      `json:"name"`
	Shard     string      `json:"shard"`
	Region    string      `json:"region"`
	Addr      string      `json:"addr"`
	SystemID  string      `json:"system_id"`
	Role      string      `json:"role"`
	ForAll    string      `json:"for_all"`    // the cluster's verdict: up, down, unknown
	ForUs     string      `json:"for_us"`     // up, down, drained or left out: whether this node uses it
	Reason    string      `json:"reason"`     // of the verdict
	Evidence  string      `json:"evidence"`   // this node's own against it; "" if none
	Reach     string      `json:"reach"`      // by whom: all, not from here, not by its observers, nobody, unknown
	Refused   string      `json:"refused"`    // why it may not be the shard's at all; "" if it may
	LagMS     float64     `json:"lag_ms"`     // -1: unknown
	LagBytes  int64       `json:"lag_bytes"`  // -1: unknown
	Load      string      `json:"load"`       // below, between or at limit: the highest that an observer saw
	Ejected   string      `json:"ejected"`    // why it gets no reads of this node's for a while; "" if it does
	Held      int         `json:"held"`       // percentage of its turns that it leaves to others while it warms up
	LatencyMS float64     `json:"latency_ms"` // of the probe, at the observer nearest to it
	Timeline  uint32      `json:"timeline"`
	InFlight  int32       `json:"in_flight"` // statements of this node that run on it now
	Routes    []RouteView `json:"routes"`

	StaleMS float64 `json:"stale_ms"` // how long nobody has said how it is; 0: somebody does
	Stale   string  `json:"stale"`    // the same for people: "stale for 34s"; "" if it is not

	Choice       string `json:"choice"`        // what has the routing table not use it, or only as a last resort; "" if nothing, or what already stands elsewhere
	Drained      string `json:"drained"`       // by whom, since when, why; "": it is not
	WhyUnreached string `json:"why_unreached"` // who cannot reach it, and why; "" if nothing speaks against it
	Probe        string `json:"probe"`         // what this node's last probe of it failed with, as that it had no connection left; "": it had an answer, or none is sent
}

// RouteView is what one observer says of one backend.
type RouteView struct {
	Observer  string  `json:"observer"`
	State     string  `json:"state"`
	Role      string  `json:"role"`
	Timeline  uint32  `json:"timeline"`
	LatencyMS float64 `json:"latency_ms"`
	LagMS     float64 `json:"lag_ms"`    // -1: unknown
	LagBytes  int64   `json:"lag_bytes"` // -1: unknown
	Load      string  `json:"load"`
	Stamp     string  `json:"stamp"` // incarnation.seq
}

// KeyspaceView is one sharding rule.
type KeyspaceView struct {
	ID       uint32      `json:"id"`
	Name     string      `json:"name"`
	Database string      `json:"database"`
	Method   string      `json:"method"`
	Types    []string    `json:"types"`
	Tables   []TableView `json:"tables"`
	Ranges   int         `json:"ranges"`
	Values   int         `json:"values,omitempty"`   // of the list method
	Copies   []string    `json:"copies,omitempty"`   // of reference tables: the shards that have one
	Default  string      `json:"default,omitempty"`  // of the list method: the shard of all other values; "" if they have none
	Warnings []string    `json:"warnings,omitempty"` // when it is made: which relations are refused from now on
}

// TableView is one table of a keyspace and its key columns.
type TableView struct {
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Columns []string `json:"columns"` // of a reference table: those that INSERT must give
}

// RangeView is one range and its owner.
type RangeView struct {
	Keyspace string `json:"keyspace"`
	From     string `json:"from"` // as the method writes keys; "" is the open end, and of the list method there is none
	To       string `json:"to"`
	Value    string `json:"value,omitempty"` // of the list method: the value, or "other values"
	Shard    string `json:"shard"`           // "" if nobody owns it
	Epoch    string `json:"epoch"`

	Rate float64      `json:"statements_s"`       // that name one key of it, lately, on all nodes that have answered
	Hot  []HotKeyView `json:"hot_keys,omitempty"` // those that get a tenth of them or more, the hottest first
}

// ShardView is what the ledger has recorded of a shard.
type ShardView struct {
	Name     string `json:"name"`
	SystemID string `json:"system_id"`
	Epoch    string `json:"epoch"`
}

// PreferenceView is where the reads of a shard go for a database that prefers some regions, or is pinned to them.
type PreferenceView struct {
	Database string        `json:"database"`
	Prefers  string        `json:"prefers"` // in words
	Shard    string        `json:"shard"`
	Reads    []fib.Verdict `json:"reads"` // all backends, in the order to try; those left out last
}

// PoolView counts the connections to one backend.
type PoolView struct {
	Backend string `json:"backend"`
	InUse   int    `json:"in_use"`
	Idle    int    `json:"idle"`
	Waiting int    `json:"waiting"`
	Limit   int    `json:"limit"` // what may be there now: size or share, whichever is smaller

	Size     int    `json:"size"`     // pool.size
	Share    int    `json:"share"`    // this node's of the budget; -1 without one
	Budget   int    `json:"budget"`   // of the whole cluster; 0: none
	Refusals uint64 `json:"refusals"` // connects that the backend refused because it had no connection left
}

// SessionsView counts client sessions.
type SessionsView struct {
	Open        int    `json:"open"`        // authenticated, now
	Connections int    `json:"connections"` // now, those that still log in included
	Total       uint64 `json:"total"`       // connections since the start
}

// RouteAnswer says where a statement would go and why: /debug/route and `rangefinder route`.
type RouteAnswer struct {
	SQL        string          `json:"sql"`
	Database   string          `json:"database"`
	User       string          `json:"user"`
	Node       string          `json:"node"`
	Region     string          `json:"region"`
	Target     string          `json:"target"` // any shard, unsharded, keyed, several shards, none
	Intent     string          `json:"intent"` // read or write
	WhyWrite   string          `json:"why_write,omitempty"`
	Keyspace   string          `json:"keyspace,omitempty"`
	Keys       []string        `json:"keys,omitempty"` // "customer_id = 42"
	Tables     []string        `json:"tables,omitempty"`
	Reason     string          `json:"reason"`
	Hint       string          `json:"hint,omitempty"`   // the hint that is heeded
	Copies     []string        `json:"copies,omitempty"` // shards that have the reference tables that are named
	Notes      []string        `json:"notes,omitempty"`  // of EXPLAIN (ROUTE): what of the session matters
	Range      string          `json:"range,omitempty"`  // that holds the key
	Shard      string          `json:"shard,omitempty"`
	Epoch      string          `json:"epoch,omitempty"`  // of the range's owner
	Shards     []string        `json:"shards,omitempty"` // if several are needed, or one of them once the parameters are known
	Parts      []PartView      `json:"parts,omitempty"`  // where each of them would be asked first
	Asks       string          `json:"asks,omitempty"`   // what each of them is asked, if that is not the statement itself
	Final      string          `json:"final,omitempty"`  // what is asked over their rows, if merging is not enough
	Candidates []CandidateView `json:"candidates"`       // in the order in which they would be tried
	LeftOut    []CandidateView `json:"left_out"`
	Error      *StatementError `json:"error,omitempty"` // what the client would be told
}

// PartView is one shard's part of a statement that several shards answer.
type PartView struct {
	Shard   string  `json:"shard"`
	Backend string  `json:"backend,omitempty"` // that would be asked first; "": there is none
	Region  string  `json:"region,omitempty"`
	Addr    string  `json:"addr,omitempty"`
	Role    string  `json:"role,omitempty"`
	CostMS  float64 `json:"cost_ms"`
	Reason  string  `json:"reason"`
}

// CandidateView is one backend in a RouteAnswer.
type CandidateView struct {
	Place   int     `json:"place,omitempty"` // from 1; 0 if left out
	Backend string  `json:"backend"`
	Region  string  `json:"region"`
	Addr    string  `json:"addr"`
	Role    string  `json:"role"`
	CostMS  float64 `json:"cost_ms"`
	Healthy bool    `json:"healthy"`
	Drained string  `json:"drained,omitempty"`
	Reason  string  `json:"reason"`
}

// StatementError is a PostgreSQL error as a client would see it.
type StatementError struct {
	Code    string `json:"code"` // SQLSTATE
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// ErrorView is the body of every answer of the API that is not a success.
type ErrorView struct {
	Code   string `json:"code"`    // for programs: see codes in api_errors.go
	Error  string `json:"message"` // for people
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"` // what to do about it

	Problems []ProblemView `json:"problems,omitempty"` // every mistake of a configuration that was not taken

	Rows      int64          `json:"rows,omitempty"`      // that stand against it; of 10000 and more it is told that there are at least so many
	Obstacles []ObstacleView `json:"obstacles,omitempty"` // all that stands against a move
	Offer     *OfferView     `json:"offer,omitempty"`     // a call that would do instead
}

// OfferView is a call that would do what was wanted.
type OfferView struct {
	Method  string              `json:"method"`
	Path    string              `json:"path"`
	Body    cluster.MoveRequest `json:"body"`
	Command string              `json:"command"` // the same on the command line
}

// ProblemView is one mistake in a configuration file.
type ProblemView struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1; 0 if the key is not in the file
	Column  int    `json:"column"` // likewise
	Key     string `json:"key"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// ms turns a duration into the milliseconds of a view; -1 stays "unknown".
func ms(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return float64(d.Microseconds()) / 1000
}
