package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
	"rangefinder/wire/console"
	"rangefinder/wire/twophase"
)

// openTwoPhase makes what commits transactions over several shards. It does nothing before clients are served.
func (n *Node) openTwoPhase(context.Context) error {
	sites := twophase.Connect(func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
		return n.connectPrimary(ctx, shard, cmp.Or(database, n.cfg().Probe.Database))
	})
	n.twophase = twophase.New(twophase.Config{
		Cluster: n.state.ClusterID, Node: n.state.Node, Logger: n.log.With("part", "two-phase commit"),
		Sites: sites, Shards: n.shardsHere, Others: n.spanningElsewhere,
		Alive: func(node string) bool {
			return slices.ContainsFunc(n.speaker().Members(), func(m rib.Member) bool { return m.Name == node })
		},
		Alone:  func() bool { return n.before == nil && !n.handing.Load() && phase(n.phase.Load()) != phaseHanded },
		Wanted: func() bool { return len(n.cfg().acrossShards()) > 0 },
		Uses:   func() []string { return n.cfg().acrossShards() },
	})
	return nil
}

// acrossShards are the databases whose clients may write on several shards in one transaction.
func (cfg *Config) acrossShards() (names []string) {
	for _, d := range cfg.Databases {
		if d.CrossShardWrites == writesTwoPhase {
			names = append(names, d.Name)
		}
	}
	return names
}

// shardsHere are the shards whose primary this node observes: it looks after what transactions leave there, also while it is drained, for writes have
// no other place. Up to three nodes do that for a shard, so one that dies is not missed.
func (n *Node) shardsHere() (shards []string) {
	s := n.table.Snapshot()
	for i := range s.Backends {
		v := &s.Backends[i]
		seen := slices.ContainsFunc(v.Routes, func(r rib.Route) bool { return r.Observer == s.Self.Name })
		if v.Role == rib.Primary && seen && !v.Down() && v.Refused == "" && !slices.Contains(shards, v.Backend.Shard) {
			shards = append(shards, v.Backend.Shard)
		}
	}
	return shards
}

const (
	spanningBody    = 4 << 20 // bytes of another node's answer
	spanningTimeout = 2 * time.Second
)

// Spanning lists the transactions of this node that are open on several shards.
func (n *Node) Spanning() []twophase.Spanning {
	return orEmpty(n.twophase.Spanning())
}

// spanningElsewhere asks all other nodes for theirs. One that does not answer in time is left out: what waits for its transactions waits until
// another look, or until its statement's own time is over.
func (n *Node) spanningElsewhere(ctx context.Context) (all []twophase.Spanning) {
	ctx, cancel := context.WithTimeout(ctx, spanningTimeout)
	defer cancel()
	members := n.speaker().Members()
	answers := make([][]twophase.Spanning, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		if m.Name == n.state.Node {
			continue
		}
		wg.Go(func() {
			if err := n.askNode(ctx, m, "/api/v1/spanning", spanningBody, &answers[i]); err != nil {
				answers[i] = nil
				n.log.Info("a node does not say which transactions it has open on several shards", "node", m.Name, "error", err)
			}
		})
	}
	wg.Wait()
	return slices.Concat(answers...)
}

// TwoPhaseView is a transaction over several shards that has not come to its end.
type TwoPhaseView struct {
	GID      string   `json:"gid"` // as pg_prepared_xacts has it
	Node     string   `json:"node"`
	Database string   `json:"database"`
	Shards   []string `json:"shards"` // that take part, as far as this node knows
	Open     []string `json:"open"`   // where its part may still be prepared, and hold locks
	Decision string   `json:"decision_shard"`
	State    string   `json:"state"` // preparing, deciding, decided, rolling back, in doubt
	AgeMS    float64  `json:"age_ms"`
	Age      string   `json:"age"`     // the same for people
	Problem  string   `json:"problem"` // why it could not be ended so far; ""
}

// maxTwoPhase bounds how many of them are shown.
const maxTwoPhase = 1000

// twoPhaseViews are those that this node knows of, the oldest first.
func (n *Node) twoPhaseViews() []TwoPhaseView {
	list := []TwoPhaseView{}
	for _, t := range n.twophase.Transactions() {
		if len(list) == maxTwoPhase {
			break
		}
		list = append(list, TwoPhaseView{
			GID: t.GID, Node: t.Node, Database: t.Database, Shards: t.Shards, Open: orEmpty(t.Open), Decision: t.Decision, State: string(t.State),
			AgeMS: ms(t.Age), Age: t.Age.Round(time.Millisecond).String(), Problem: t.Problem,
		})
	}
	return list
}

// showTwoPhase is what SHOW TWO_PHASE shows.
func (n *Node) showTwoPhase() (list []console.TwoPhase) {
	for _, t := range n.twophase.Transactions() {
		list = append(list, console.TwoPhase{
			GID: t.GID, Node: t.Node, Database: t.Database, Participants: strings.Join(t.Shards, ","), Open: strings.Join(t.Open, ","),
			Decision: t.Decision, State: string(t.State), Age: t.Age, Problem: t.Problem,
		})
	}
	return list
}

// warnTwoPhase says what keeps the shards of a keyspace from taking part in transactions over several of them, if clients may have such.
func (n *Node) warnTwoPhase(ctx context.Context, ks *rib.Keyspace) (warnings []string) {
	if !slices.Contains(n.cfg().acrossShards(), ks.Database) {
		return nil
	}
	var shards []string
	for i := range ks.Ranges {
		if s := ks.Ranges[i].Shard; s != "" && !slices.Contains(shards, s) {
			shards = append(shards, s)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	for _, e := range n.twophase.Check(ctx, ks.Database, shards) {
		warnings = append(warnings, e.Message+". "+e.Hint)
	}
	return warnings
}
