package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

const (
	leftTimeout = 2 * time.Second // for another node to say what it has left
	leftAtOnce  = 16              // nodes asked at once
	leftBody    = 1 << 20         // bytes of its answer
)

// DrainLeftView is what is left on a target, as all nodes that could be asked see it.
type DrainLeftView struct {
	Drain *DrainView `json:"drain"`          // absent: the target is not drained
	Nodes int        `json:"nodes"`          // of the cluster, this one included
	Heard int        `json:"heard"`          // of these, that know of the drain
	Left  []LeftView `json:"left"`           // empty: nothing is left
	Text  string     `json:"text,omitempty"` // of a target that is not drained: who says so
}

// LeftView is one thing that is left on a drained target.
type LeftView struct {
	What  string `json:"what"`  // connections, sessions, writes, reads, leader, observer or node
	Node  string `json:"node"`  // at which node; "": it is not one's alone
	Of    string `json:"of"`    // which backend, node or shard
	Count int    `json:"count"` // 0: it cannot be counted
	Moves bool   `json:"moves"` // it goes away by itself
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// LeftHere is what one node has left on a target.
type LeftHere struct {
	Heard bool       `json:"heard"` // it knows the word that was asked for, or a later one
	Left  []LeftView `json:"left"`
	Word  *DrainView `json:"word,omitempty"` // the last word on the target that it knows, taken back or not; absent: it knows none
}

// DrainLeft asks all nodes what is left on a target.
func (n *Node) DrainLeft(ctx context.Context, target rib.DrainTarget) DrainLeftView {
	s := n.table.Snapshot()
	v := DrainLeftView{Nodes: len(s.Members), Left: []LeftView{}}
	w, ok := n.table.Health().DrainOf(target)
	if !ok || !w.InForce(time.Now()) { // this node may not have heard of it yet
		asked := n.askDrain(ctx, target)
		if w, ok = n.table.Health().DrainOf(target); !ok || !w.InForce(time.Now()) {
			v.Text = asked.notDrained(target, &w)
			return v
		}
		s = n.table.Snapshot()
	}
	view := drainView(&w)
	v.Drain = &view
	v.Left = append(v.Left, writesThatStay(s, n.fib.Load(), target)...)

	answers := make([]LeftHere, len(s.Members))
	n.eachMember(s.Members, func(i int, m rib.Member) {
		if m.Name == s.Self.Name {
			answers[i] = n.DrainLeftHere(target, w.Number)
			return
		}
		here, err := n.askLeft(ctx, m, target, w.Number)
		if err != nil { // of what it does not say, nobody knows that it is gone
			here = LeftHere{Left: []LeftView{{What: "node", Node: m.Name, Of: m.Name, Moves: true, Text: "node " + m.Name + " does not say what it has left: " + err.Error()}}}
		}
		answers[i] = here
	})
	for i, here := range answers {
		if here.Heard {
			v.Heard++
		} else if len(here.Left) == 0 {
			v.Left = append(v.Left, LeftView{What: "node", Node: s.Members[i].Name, Of: s.Members[i].Name, Moves: true, Text: "node " + s.Members[i].Name + " has not heard of it yet"})
		}
		for _, l := range here.Left {
			if !slices.Contains(v.Left, l) { // reads stay for want of better copies: most nodes say the same
				v.Left = append(v.Left, l)
			}
		}
	}
	return v
}

// askLeft asks another node over the cluster port.
func (n *Node) askLeft(ctx context.Context, m rib.Member, target rib.DrainTarget, number uint64) (here LeftHere, err error) {
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	q := url.Values{"kind": {target.Kind.String()}, "name": {target.Name}, "number": {strconv.FormatUint(number, 10)}}
	err = n.askNode(ctx, m, "/api/v1/drains/here?"+q.Encode(), leftBody, &here)
	if errors.Is(err, errUnknownCall) {
		err = errors.New("it is of a release that knows no drains")
	}
	if err == nil && here.Word != nil {
		err = n.hearDrain(here.Word)
	}
	return here, err
}

// errUnknownCall is that another node knows no such call: it is of another release.
var errUnknownCall = errors.New("it is of a release that does not know the call")

// askNode asks another node something over the cluster port, and reads at most limit bytes of its answer.
func (n *Node) askNode(ctx context.Context, m rib.Member, path string, limit int64, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Addr+path, nil)
	if err != nil {
		return err
	}
	resp, err := n.clusterClient(m.Addr).Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(answer)
	case http.StatusNotFound:
		return errUnknownCall
	}
	return fmt.Errorf("it answers %s", resp.Status)
}

// writesThatStay are those on a target: they cannot move by themselves. Every node sees the same.
func writesThatStay(s *rib.Snapshot, t *fib.Table, target rib.DrainTarget) (left []LeftView) {
	drained := drainedBackends(s, target)
	for _, slot := range t.Slots() {
		if c := slot.Candidates(); len(c.Writes) > 0 && drained[c.Writes[0].Backend.Name] {
			b := c.Writes[0].Backend
			left = append(left, LeftView{
				What: "writes", Of: b.Name, Text: fmt.Sprintf("%s is the primary of %s: its writes cannot move", b.Name, b.Shard), Hint: promoteHint(s, b),
			})
		}
	}
	return left
}

// readsThatStay are the reads of this node that find nothing better than a target: of several drained copies each node takes the closest.
func readsThatStay(s *rib.Snapshot, t *fib.Table, databases []Listing, target rib.DrainTarget) (left []LeftView) {
	drained := drainedBackends(s, target)
	for _, slot := range t.Slots() {
		c := slot.Candidates()
		reads := func(whose string, c *fib.Candidates, hint string) {
			if len(c.Reads) == 0 || !c.Reads[0].Drained || !drained[c.Reads[0].Backend.Name] {
				return
			}
			left = append(left, LeftView{What: "reads", Of: slot.Shard(), Text: fmt.Sprintf("reads of %s%s stay on %s: there is nothing better", slot.Shard(), whose, c.Reads[0].Backend.Name), Hint: hint})
		}
		reads("", c, "Every other copy of the shard is drained too, down, or too far behind: see rangefinder status.")
		for _, d := range databases {
			if own := slot.For(d.Name); own != c && asks(s.Ownership, &d, slot.Shard()) {
				reads(" by database "+d.Name, own, "See regions and pinned of the database in the nodes' configuration.")
			}
		}
	}
	return left
}

// asks tells whether a database has tables on a shard: those of no keyspace, or of one.
func asks(o *rib.Ownership, d *Listing, shard string) bool {
	return d.Shard == shard || slices.ContainsFunc(o.Keyspaces, func(k rib.Keyspace) bool { return k.Database == d.Name })
}

// promoteHint names the copies of a shard that could take the writes.
func promoteHint(s *rib.Snapshot, primary *rib.Backend) string {
	var others, drained []string
	for i := range s.Backends {
		if v := &s.Backends[i]; v.Backend.Shard == primary.Shard && v.Role == rib.Replica && !v.Down() && v.Refused == "" {
			if name := v.Backend.Name + " in " + v.Backend.Region; v.Drained == "" {
				others = append(others, name)
			} else {
				drained = append(drained, name)
			}
		}
	}
	if len(others) == 0 && len(drained) > 0 {
		return "Whatever else of " + primary.Shard + " could be promoted is drained too: " + strings.Join(drained, ", ") + "."
	}
	if len(others) == 0 {
		return "No other copy of " + primary.Shard + " could be promoted now."
	}
	return "Promote a replica elsewhere, with what manages your PostgreSQL or by pg_promote: " + strings.Join(others, ", ") + ". All nodes follow by themselves."
}

func drainedBackends(s *rib.Snapshot, t rib.DrainTarget) map[string]bool {
	names := map[string]bool{}
	for i := range s.Backends {
		b := &s.Backends[i].Backend
		if t.Kind == rib.DrainBackend && b.Name == t.Name || t.Kind == rib.DrainRegion && b.Region == t.Name {
			names[b.Name] = true
		}
	}
	return names
}

// DrainLeftHere is what this node has left on a target.
func (n *Node) DrainLeftHere(target rib.DrainTarget, number uint64) LeftHere {
	s := n.table.Snapshot()
	w, ok := n.table.Health().DrainOf(target)
	here := LeftHere{Heard: ok && w.Number >= number, Left: []LeftView{}}
	if ok {
		view := drainView(&w)
		here.Word = &view
	}
	if !here.Heard || !n.whole.Load() {
		return here
	}
	resting := atRest(s, n.fib.Load(), n.cfg().Databases)
	names := drainedBackends(s, target)
	for _, p := range n.pools.Stats() {
		if !names[p.Backend] || !resting[p.Backend] || p.InUse+p.Idle == 0 { // what stays for writes or reads is told once for all
			continue
		}
		here.Left = append(here.Left, LeftView{
			What: "connections", Node: s.Self.Name, Of: p.Backend, Count: p.InUse + p.Idle, Moves: true,
			Text: fmt.Sprintf("%s from node %s to %s: open transactions, tied sessions, statements that run", count(p.InUse+p.Idle, "connection"), s.Self.Name, p.Backend),
			Hint: "They go when their transactions end, and tied sessions (temporary tables, advisory locks, pool_mode = \"session\") when their clients leave: see SHOW SERVERS in the console.",
		})
	}
	slices.SortFunc(here.Left, func(a, b LeftView) int { return strings.Compare(a.Of, b.Of) })
	here.Left = append(readsThatStay(s, n.fib.Load(), n.cfg().Databases, target), here.Left...)
	if s.NodeDrain(s.Self) != nil && (target.Kind == rib.DrainNode && target.Name == s.Self.Name || target.Kind == rib.DrainRegion && target.Name == s.Self.Region) {
		here.Left = append(here.Left, n.leftOnNode(s)...)
	}
	return here
}

// leftOnNode is what is left on this node, which is drained.
func (n *Node) leftOnNode(s *rib.Snapshot) (left []LeftView) {
	add := func(what string, count int, moves bool, text, hint string) {
		left = append(left, LeftView{What: what, Node: s.Self.Name, Of: s.Self.Name, Count: count, Moves: moves, Text: text, Hint: hint})
	}
	leaving, others := n.server.Leaving()
	if d := n.leaving.Load(); others > 0 && (d == nil || d.word != *s.NodeDrain(s.Self) || !d.told) {
		delay := n.cfg().DrainDelay.Duration
		if d != nil && d.word == *s.NodeDrain(s.Self) {
			delay = d.in
		}
		add("sessions", others, true, fmt.Sprintf("%s on node %s: in %v they are sent away, each when its transaction has ended", count(others, "session"), s.Self.Name, delay.Round(time.Second)), "")
		others = 0
	}
	if leaving > 0 {
		add("sessions", leaving, true, fmt.Sprintf("%s on node %s in a transaction, or about to end", count(leaving, "session"), s.Self.Name), "Each ends when its transaction does. KILL in the node's console ends them at once.")
	}
	if others > 0 {
		add("sessions", others, false, fmt.Sprintf("%s on node %s came after the drain", count(others, "session"), s.Self.Name),
			"Something still sends clients here: take the node out of the load balancer (its /readyz says 503) or out of DNS, and drain it again to send these away.")
	}
	if n.ledger().IsLeader() {
		_, ok := n.successor(s)
		add("leader", 0, ok, fmt.Sprintf("node %s leads the ledger", s.Self.Name), "Another voter takes over if one is up that is not drained: see rangefinder status.")
	}
	var observed []string
	for i := range s.Backends {
		if slices.ContainsFunc(s.Backends[i].Routes, func(r rib.Route) bool { return r.Observer == s.Self.Name }) {
			observed = append(observed, s.Backends[i].Backend.Name)
		}
	}
	if len(observed) > 0 {
		others := slices.ContainsFunc(s.Members, func(m rib.Member) bool { return s.NodeDrain(m) == nil })
		add("observer", len(observed), others, fmt.Sprintf("node %s observes %s until others do", s.Self.Name, strings.Join(observed, ", ")), "No other node can reach them, or has a [probe] user for them.")
	}
	return left
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
