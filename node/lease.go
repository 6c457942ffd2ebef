package node

import (
	"context"
	"net"
	"time"

	"rangefinder/cluster"
	"rangefinder/node/port"
	"rangefinder/rib"
)

// aloneAfter is for how long a node must have been without a lease until clients and the log hear of it: the ledger may just have
// another leader.
const aloneAfter = 3 * time.Second

// leaseLoop asks the ledger's leader for leases, and tells it with each question what this node has acknowledged.
func (n *Node) leaseLoop(ctx context.Context) {
	lessee := cluster.NewLessee(cluster.LesseeConfig{
		Ledger: n.ledger(),
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return n.port().Dial(ctx, port.KindLease, addr)
		},
		State:  n.acknowledge,
		Behind: func(leader, addr string, e rib.Epoch) { n.heardEpoch(rib.Member{Name: leader, Addr: addr}, e) },
	})
	n.lessee.Store(lessee)
	lessee.Run(ctx)
}

// newsOfMoves has the leader hear at once what this node has acknowledged.
func (n *Node) newsOfMoves() {
	if l := n.lessee.Load(); l != nil {
		l.Poke()
	}
}

// leased reports whether this node has a lease.
func (n *Node) leased() bool {
	l := n.lessee.Load()
	return l != nil && l.Held()
}

// alone reports whether this node was without a lease at a moment, and for so long that somebody should know.
func (n *Node) alone(at time.Time) bool {
	l := n.lessee.Load()
	return l != nil && !l.HeldAt(at, aloneAfter)
}

// fenced is called when a shard has refused a row that it does not own: the leader is asked for a newer table.
func (n *Node) fenced() { n.newsOfMoves() }

// LeaseView is a node's lease as people see it.
type LeaseView struct {
	Held      bool   `json:"held"`
	LeftMS    int64  `json:"left_ms,omitempty"`    // until it ends, unless it is renewed
	WithoutMS int64  `json:"without_ms,omitempty"` // since when there is none
	Why       string `json:"why,omitempty"`        // there is none
	Waiting   int64  `json:"waiting,omitempty"`    // statements that wait for a range to change hands
	Waited    uint64 `json:"waited,omitempty"`     // that have waited so far
}

// LeaseStatus is a node as the ledger's leader has heard of it.
type LeaseStatus struct {
	Node    string   `json:"node"`
	LeftMS  int64    `json:"left_ms"` // of its lease; 0: it has none
	Applied string   `json:"applied"` // the epoch that it routes by
	Settled string   `json:"settled"` // up to which nothing of before is at work where ranges have changed hands
	Drained []uint64 `json:"drained,omitempty"`
}

func (n *Node) leaseStatuses() []LeaseStatus {
	list := []LeaseStatus{}
	for _, s := range n.ledger().Leases().List() {
		list = append(list, LeaseStatus{Node: s.Node, LeftMS: s.Left.Milliseconds(), Applied: s.Applied.String(), Settled: s.Settled.String(), Drained: s.Drained})
	}
	return list
}

// leaseAlarm tells of a node that has been without a lease for a while; "" if this one has not. It names a time and no age, for an alarm is
// another one when its text changes.
func (n *Node) leaseAlarm() string {
	now := time.Now()
	if !n.alone(now) {
		return ""
	}
	_, _, without := n.lessee.Load().Status()
	if without == 0 {
		return ""
	}
	return "this node has had no lease since " + now.Add(-without).Round(time.Second).UTC().Format("15:04:05 MST") + ": ranges may change hands without it, and what it reads of those may be out of date"
}

// words says it in one line.
func (v LeaseView) words() string {
	switch {
	case v.Held:
		return "lease for another " + (time.Duration(v.LeftMS) * time.Millisecond).String()
	case v.Why == "":
		return "no lease"
	}
	return "no lease: " + v.Why
}

func (n *Node) leaseView() LeaseView {
	l := n.lessee.Load()
	if l == nil {
		return LeaseView{Why: "it has not asked yet"}
	}
	left, why, without := l.Status()
	v := LeaseView{Held: left > 0, Why: why}
	v.LeftMS, v.WithoutMS = left.Milliseconds(), without.Milliseconds()
	v.Waiting, v.Waited = n.moves.Waiting()
	return v
}
