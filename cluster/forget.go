package cluster

import (
	"context"
	"slices"
	"time"
)

// A node that is gone for good would be waited for without end: the fence of a range that has changed hands stays until every node has said
// that it knows the new owner. So an operator may say that a node is gone. Its number stays its own. If it comes back nevertheless, it is
// waited for as soon as the leader hears of it, and it is a node as before once it has a lease, and so the newest table.

// ForgetSpec names a node that is gone for good. Its JSON form is the API's body.
type ForgetSpec struct {
	Node string `json:"node"` // its name
	Origin
}

// ForgetNode has nobody wait for a node any more. It works on the leader alone, and is refused while the node has a lease or may have one.
// Errors are as for CreateKeyspace.
func (l *Ledger) ForgetNode(ctx context.Context, s ForgetSpec) error {
	if err := l.leads(); err != nil {
		return err
	}
	if _, ok := l.cfg.Owners.Get().NodeNumber(s.Node); !ok { // above all not "": the log takes no such command
		return noNode(s.Node)
	}
	if err := l.leases.mayForget(s.Node); err != nil {
		return err
	}
	_, err := l.proposeSigned(ctx, &command{Kind: kindForget, Forget: s.Node}, s.Origin)
	return err
}

// mayForget refuses to forget a node that has, or may have, a lease.
func (s *Leases) mayForget(node string) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == 0 || now.Sub(s.since) < LeaseTerm+leaseSlack {
		return reject(ErrAlive, "node %s may have a lease of another leader: ask again in %s", node, LeaseTerm)
	}
	for p, h := range s.holders {
		if p.node == node && now.Before(h.until) {
			return reject(ErrAlive, "node %s has a lease: it is alive", node)
		}
	}
	for p := range s.holders { // what it has said no longer counts; if it speaks again it is back
		if p.node == node {
			delete(s.holders, p)
		}
	}
	return nil
}

// Leased reports whether a node has a lease, as the leader knows it.
func (s *Leases) Leased(node string) bool {
	return slices.ContainsFunc(s.List(), func(l LeaseStatus) bool { return l.Node == node && l.Left > 0 })
}

// forgetNode notes that a node is gone for good.
func forgetNode(next *draft, name string) (changed bool, err error) {
	number, ok := next.NodeNumber(name)
	if !ok {
		return false, noNode(name)
	}
	at, found := slices.BinarySearch(next.Forgotten, number)
	if found {
		return false, nil
	}
	next.Forgotten = slices.Insert(slices.Clone(next.Forgotten), at, number)
	return true, nil
}

func noNode(name string) error {
	return reject(ErrNoNode, "there is no node %.64q that a move could wait for", name)
}
