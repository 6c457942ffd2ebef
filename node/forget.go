package node

import (
	"context"
	"fmt"
	"net/http"

	"rangefinder/cluster"
)

const forgetPath = "/api/v1/nodes/forget"

// ForgottenView is a node that nobody waits for any more.
type ForgottenView struct {
	Node  string `json:"node"`
	Epoch string `json:"epoch"` // of the table that says so, or a later one
}

// ForgetNode has nobody wait for a node that is gone for good, on whichever node leads. It is refused while the node is a member or has a lease.
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
		if err := n.ledger().ForgetNode(ctx, s); err != nil {
			return v, err
		}
		n.log.Info("a node is forgotten: no move waits for it", "node", s.Node, "by", s.Author, "why", s.Reason)
		return ForgottenView{Node: s.Node, Epoch: n.ledger().Epoch().String()}, nil
	})
}
