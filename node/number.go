package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

const (
	numberTick  = 50 * time.Millisecond // a node without a number takes no clients, so it is not left waiting
	numberMost  = 32                    // that are given at a time
	numberAlarm = "numbers"             // the subject of the alarm about nodes that get none
)

// numbering is the leader's work of giving numbers. It is owned by numberLoop.
type numbering struct {
	of       *rib.Ownership
	admitted map[string]bool // by that table
}

// numberLoop has the ledger give a number to each node that lives and has none, on the leader.
func (n *Node) numberLoop(ctx context.Context) {
	var g numbering
	for pause(ctx, numberTick) {
		var refused []error
		if n.ledger().IsLeader() {
			var err error
			if refused, err = n.numberNodes(ctx, g.without(n.table.Owners().Get(), n.speaker().Members())); err != nil {
				continue // and of those who were refused before nothing else is known
			}
		}
		n.mu.Lock()
		if len(refused) > 0 {
			n.alarms[numberAlarm] = refusedNumbers(refused)
		} else {
			delete(n.alarms, numberAlarm) // another leader tells of it
		}
		n.mu.Unlock()
	}
}

// without are the members that moves do not wait for by a table.
func (g *numbering) without(o *rib.Ownership, members []rib.Member) (names []string) {
	if o.ClusterID == "" {
		return nil
	}
	if g.of != o {
		g.of, g.admitted = o, make(map[string]bool, len(o.Nodes))
		for _, name := range o.Nodes {
			g.admitted[name] = true
		}
		for _, number := range o.Forgotten {
			delete(g.admitted, o.Nodes[number])
		}
	}
	for _, m := range members {
		if !g.admitted[m.Name] {
			names = append(names, m.Name)
		}
	}
	return names
}

// numberNodes has the ledger give numbers to nodes, and tells why some can have none. One that was forgotten and lives is one of all again once it
// has a lease: then it routes by the newest table.
func (n *Node) numberNodes(ctx context.Context, names []string) (refused []error, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	room := make(chan struct{}, numberMost)
	for _, name := range names {
		if n.table.Owners().Get().Forgot(name) && !n.ledger().Leases().Leased(name) {
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			failed := n.ledger().NumberNode(ctx, name)
			if failed == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if rejected := (*cluster.RejectedError)(nil); errors.As(failed, &rejected) {
				refused = append(refused, failed)
				return
			}
			err = failed
			n.log.Debug("a node gets no number now", "node", name, "error", failed)
		})
	}
	wg.Wait()
	return refused, err
}

// refusedNumbers is the alarm about nodes that can have no number.
func refusedNumbers(refused []error) string {
	first := refused[0]
	for _, err := range refused {
		if err.Error() < first.Error() {
			first = err
		}
	}
	text := first.Error() + ". So it takes no clients"
	switch {
	case errors.Is(first, cluster.ErrTooMany):
		text += ". " + oldName
	case errors.Is(first, cluster.ErrInvalid):
		text += ". Start it with an empty data_dir and under a shorter name (name in its configuration)."
	}
	if more := len(refused) - 1; more > 0 {
		text += fmt.Sprintf(" Nodes that get none beside it: %d", more)
	}
	return text
}
