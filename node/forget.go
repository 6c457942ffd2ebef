package node

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

const forgetPath = "/api/v1/nodes/forget"

// ForgottenView is a node that nobody waits for any more.
type ForgottenView struct {
	Node      string   `json:"node"`
	Epoch     string   `json:"epoch"`     // of the table that says so, or a later one
	Withdrawn []string `json:"withdrawn"` // backends that it alone has announced: the cluster knows them no more
}

// ForgetNode has nobody wait for a node that is gone for good, on whichever node leads, nor know the backends that it alone has announced. It is refused while the
// node is a member or has a lease, or such a backend is up: what the node announced outlives it, and clients may be using it.
func (n *Node) ForgetNode(ctx context.Context, s cluster.ForgetSpec) (ForgottenView, error) {
	sign(ctx, &s.Origin)
	return onLeader(ctx, n, forgetPath, s, func(ctx context.Context) (v ForgottenView, err error) {
		if err := n.leads(); err != nil {
			return v, err
		}
		for _, m := range n.speaker().Members() {
			if m.Name == s.Node {
				return v, &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
					Code: codeAlive, Error: fmt.Sprintf("node %s lives, at %s", m.Name, m.Addr), Hint: "Nothing was changed. Stop the node first, and ask again a few seconds later.",
				}}
			}
		}
		alone, since := n.table.Health().AnnouncedBy(s.Node)
		if err := inUse(s.Node, alone, time.Since(since), n.table.Snapshot()); err != nil {
			return v, err
		}
		if _, numbered := n.table.Owners().Get().NodeNumber(s.Node); !numbered && len(alone) > 0 { // nobody ever saw it, and yet it has said something
			if err := n.ledger().NumberNode(ctx, s.Node); err != nil {
				return v, err
			}
		}
		if err := n.ledger().ForgetNode(ctx, s); err != nil {
			return v, err
		}
		n.log.Info("a node is forgotten: no move waits for it, and what it announced is withdrawn", "node", s.Node, "backends", alone, "by", s.Author, "why", s.Reason)
		return ForgottenView{Node: s.Node, Epoch: n.ledger().Epoch().String(), Withdrawn: orEmpty(alone)}, nil
	})
}

// forgetLost has this node miss nobody whom an operator has given up, nor look for him, now or after its next start. It is called again and again:
// one that has come back, and that the ledger has not taken back yet, may be gone again.
func (n *Node) forgetLost() {
	o := n.table.Owners().Get()
	if len(o.Forgotten) == 0 {
		return
	}
	names := make([]string, len(o.Forgotten))
	for i, number := range o.Forgotten {
		names[i] = o.Nodes[number]
	}
	addrs := n.speaker().Forget(names)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peersBefore = slices.DeleteFunc(n.peersBefore, func(addr string) bool { return slices.Contains(addrs, addr) })
}

// othersLook is how long it takes at most until other nodes watch the backends of one that is gone, and say how they are.
const othersLook = 20 * time.Second

// inUse refuses to forget a node, gone for so long, if the cluster would lose a backend that serves.
func inUse(node string, alone []string, gone time.Duration, s *rib.Snapshot) error {
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Refused != "" || !slices.Contains(alone, b.Backend.Name) {
			continue
		}
		v := ErrorView{Code: codeBackendUp}
		switch {
		case b.Verdict == rib.Up:
			v.Error = fmt.Sprintf("backend %s is up, and only %s has announced it", b.Backend.Name, node)
			v.Hint = "Nothing was changed. List it under [[backends]] of another node, or stop it if it is to go too, and ask again."
		case b.Verdict == rib.StateUnknown && gone < othersLook:
			v.Error = fmt.Sprintf("nobody knows yet whether backend %s is up, which only %s has announced", b.Backend.Name, node)
			v.Hint = fmt.Sprintf("Nothing was changed. Ask again in %s.", othersLook)
		default:
			continue
		}
		return &apiError{Status: http.StatusConflict, ErrorView: v}
	}
	return nil
}
