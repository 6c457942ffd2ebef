package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/rib"
)

// A lease is the leader's word that a node knows who owns what: until it ends, no range changes hands without the node. The leader grants
// it for LeaseTerm, and both sides count from the node's question by their own monotonic clocks: the node from when it asked, the leader
// from when it was asked, which is later. A node that cannot reach the leader has no lease LeaseTerm later, and then the cluster need not
// wait for it any more.
//
// The leader grants one only if Raft has said, after the question came, that it leads: so no other leader has been elected before, and a
// new one that waits a LeaseTerm after its election has waited for the end of all leases that others have granted.
//
// A question is an acknowledgement too: it says how new the node's table is, and for which moves nothing runs on the old owner any more. A node
// whose table is older than the last change of a move or a range gets no lease, so a lease also says that the node's table is new. Nor
// does a node that has none yet, or has lost it, get one as long as a statement of before is at work on a range that has changed hands: what
// Drained has said once stays true. Nor as long as something is at work that was routed without a move, of whatever phase: Unaware has not
// waited for it, and with a lease it would be sent and meet rows twice. For the same reason a node does not take an answer to a question that
// it asked while it had a lease, when that has ended meanwhile.

const (
	// LeaseTerm is how long a lease lasts.
	LeaseTerm = 2 * time.Second
	// leaseSlack is what the leader adds to its own count, for clocks that do not run alike.
	leaseSlack = LeaseTerm / 20
	// leaseQuiet is when a stream is closed on which no question comes.
	leaseQuiet = 10 * time.Second
)

// leaseQuestion is what a node says when it asks for a lease.
type leaseQuestion struct {
	Node      string    `json:"node"`
	Boot      uint64    `json:"boot"` // another one after each start
	ClusterID string    `json:"cluster_id"`
	Holds     bool      `json:"holds,omitempty"` // it has a lease now
	Applied   rib.Epoch `json:"applied"`         // of the table by which statements are routed
	Settled   rib.Epoch `json:"settled"`         // nothing that was routed by an older table is at work on a range that has changed hands since
	Drained   []uint64  `json:"drained,omitempty"`
	Aware     []uint64  `json:"aware,omitempty"` // moves that whatever is at work was routed with
}

// leaseAnswer is what the leader says to that.
type leaseAnswer struct {
	Granted bool      `json:"granted"`
	Epoch   rib.Epoch `json:"epoch"`         // of the leader's table
	Why     string    `json:"why,omitempty"` // there is none
	Leader  string    `json:"leader,omitempty"`
	Addr    string    `json:"addr,omitempty"`
}

// Leases is who has a lease, as the leader knows it. On other nodes it is empty. Its methods are safe for concurrent use.
type Leases struct {
	// constant
	l *Ledger

	// guarded by mu
	mu        sync.Mutex
	term      uint64    // Raft's, of this node's leadership; 0: it does not lead, or has not caught up yet
	since     time.Time // since when
	from      rib.Epoch // of what was committed before
	holders   map[process]*holder
	changed   chan struct{} // closed when a node has said something new; nil: nobody waits for it
	next      *verification // that the next questions wait for; nil: none do
	verifying bool
	closing   bool
	running   sync.WaitGroup // verifyAll

	newestOf *rib.Ownership // newest is of this table
	newest   rib.Epoch      // the last change of a move or of a range's owner
}

// process is a node from one start to the next: what a node has said before its last start does not hold any more, but for its lease.
type process struct {
	node string
	boot uint64
}

// holder is what the leader knows of one process.
type holder struct {
	until            time.Time // of its lease
	heard            time.Time
	applied, settled rib.Epoch
	drained, aware   []uint64
}

// verification is one question to Raft whether this node leads.
type verification struct {
	done chan struct{} // closed when there is an answer
	err  error
}

// Leases returns the leases that this node grants while it leads.
func (l *Ledger) Leases() *Leases { return &l.leases }

// ServeLeases answers the questions of one node, until its stream ends. The caller closes the stream.
func (l *Ledger) ServeLeases(conn net.Conn) error {
	for {
		if err := conn.SetDeadline(time.Now().Add(leaseQuiet)); err != nil {
			return err
		}
		var q leaseQuestion
		if err := readHead(conn, &q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read a question for a lease: %w", err)
		}
		if err := writeHead(conn, l.leases.answer(&q)); err != nil {
			return fmt.Errorf("answer a question for a lease: %w", err)
		}
	}
}

// answer grants a lease, or says why not.
func (s *Leases) answer(q *leaseQuestion) leaseAnswer {
	came := time.Now()
	l := s.l
	a := leaseAnswer{}
	select {
	case <-l.opened:
	default:
		a.Why = ErrNotOpen.Error()
		return a
	}
	switch id := l.ClusterID(); {
	case q.Node == "" || len(q.Node) > MaxName || len(q.Drained) > rib.MaxMoves || len(q.Aware) > rib.MaxMoves:
		a.Why = "the question is malformed"
		return a
	case q.ClusterID != id || id == "":
		a.Why = fmt.Sprintf("this is cluster %s, not %s", id, q.ClusterID)
		return a
	}
	a.Leader, a.Addr = l.Leader()
	if err := l.leads(); err != nil {
		a.Why = err.Error()
		return a
	}
	if err := s.verify(); err != nil {
		a.Why = "this node could not make sure that it leads: " + err.Error()
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == 0 || s.term != l.raft.CurrentTerm() {
		a.Why = "this node has begun to lead a moment ago"
		return a
	}
	o := l.fsm.current.Load().table()
	a.Epoch = o.Epoch
	if why := l.fsm.stalled.Load(); why != nil {
		a.Why = "the ledger has stopped on the leader: " + *why
		return a
	}
	h := s.hear(q, came, o)
	switch {
	case h == nil:
		a.Why = fmt.Sprintf("there are %d nodes with a lease, and may be no more", rib.MaxNodes)
	case q.Applied.Compare(s.newestChange(o)) < 0:
		a.Why = fmt.Sprintf("its table is of epoch %s, and ranges have changed hands since", q.Applied)
	case !q.Holds && !allDrained(o.Moves, q.Drained):
		a.Why = "it has no lease, and statements of before are at work on a range that changes hands"
	case !q.Holds && !allAware(o.Moves, q.Aware):
		a.Why = "it has no lease, and statements are at work that were routed without a move which has begun since"
	default:
		a.Granted = true
		h.until = came.Add(LeaseTerm + leaseSlack)
	}
	return a
}

// hear notes what a node says of itself; nil: there is no room. mu is held.
func (s *Leases) hear(q *leaseQuestion, came time.Time, o *rib.Ownership) *holder {
	h := s.holders[process{q.Node, q.Boot}]
	if h == nil {
		if s.prune(came, o); len(s.holders) >= rib.MaxNodes {
			return nil
		}
		h = &holder{}
		s.holders[process{q.Node, q.Boot}] = h
	}
	news := h.applied != q.Applied || h.settled != q.Settled || !slices.Equal(h.drained, q.Drained) || !slices.Equal(h.aware, q.Aware)
	h.heard, h.applied, h.settled, h.drained, h.aware = came, q.Applied, q.Settled, q.Drained, q.Aware
	if news {
		s.tell()
	}
	return h
}

// tell wakes whoever waits for news. mu is held.
func (s *Leases) tell() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// prune forgets processes without a lease that another one of the same node has followed, or whose node the cluster does not know. mu is
// held.
func (s *Leases) prune(now time.Time, o *rib.Ownership) {
	for p, h := range s.holders {
		if _, admitted := o.NodeNumber(p.node); !now.Before(h.until) && (!admitted || s.last(p.node) != h) {
			delete(s.holders, p)
		}
	}
}

// last is the process of a node that was heard last; nil: none was. mu is held.
func (s *Leases) last(node string) (last *holder) {
	for p, h := range s.holders {
		if p.node == node && (last == nil || h.heard.After(last.heard)) {
			last = h
		}
	}
	return last
}

// newestChange is the epoch of the last change of a move's phase or of a range's owner. mu is held.
func (s *Leases) newestChange(o *rib.Ownership) rib.Epoch {
	if s.newestOf == o {
		return s.newest
	}
	var newest rib.Epoch
	for i := range o.Moves {
		if e := o.Moves[i].Epoch; e.Compare(newest) > 0 {
			newest = e
		}
	}
	for i := range o.Keyspaces {
		for j := range o.Keyspaces[i].Ranges {
			if e := o.Keyspaces[i].Ranges[j].Epoch; e.Compare(newest) > 0 {
				newest = e
			}
		}
	}
	s.newestOf, s.newest = o, newest
	return newest
}

// allDrained reports whether a node has drained all moves whose range nodes must have left.
func allDrained(moves []rib.Move, drained []uint64) bool {
	for i := range moves {
		if p := moves[i].Phase; (p == rib.MoveFrozen || p == rib.MoveFlipped) && !slices.Contains(drained, moves[i].ID) {
			return false
		}
	}
	return true
}

// allAware reports whether all that is at work on a node was routed with all moves.
func allAware(moves []rib.Move, aware []uint64) bool {
	for i := range moves {
		if !slices.Contains(aware, moves[i].ID) {
			return false
		}
	}
	return true
}

// verify returns nil if Raft says that this node leads, and has been asked after the call. Questions that come together share one.
func (s *Leases) verify() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrNotOpen
	}
	v := s.next
	if v == nil {
		v = &verification{done: make(chan struct{})}
		s.next = v
	}
	if !s.verifying {
		s.verifying = true
		s.running.Go(s.verifyAll)
	}
	s.mu.Unlock()
	<-v.done
	return v.err
}

// close refuses further questions to Raft and waits for the answer to those it has. It comes before Raft's shutdown: what Raft has not looked at
// by then it never answers. While it runs it does, at the latest when it has lost the majority for Timeouts.Lease.
func (s *Leases) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.running.Wait()
}

func (s *Leases) verifyAll() {
	for {
		s.mu.Lock()
		v := s.next
		s.next = nil
		s.verifying = v != nil
		s.mu.Unlock()
		if v == nil {
			return
		}
		v.err = s.l.raft.VerifyLeader().Error()
		close(v.done)
	}
}

// lead notes that this node leads in a term of Raft's, and has applied all that was committed before.
func (s *Leases) lead(term uint64, from rib.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term, s.since, s.from = term, time.Now(), from
	clear(s.holders)
	s.tell()
}

// LeadsIn reports whether this node leads and its table holds all that was committed before it did, and in which term of Raft's. Whoever
// goes on with what another leader has begun waits for that: by an older table it would undo what it has not read yet.
func (l *Ledger) LeadsIn() (term uint64, ok bool) {
	s := &l.leases
	s.mu.Lock()
	term, from := s.term, s.from
	s.mu.Unlock()
	return term, term != 0 && l.IsLeader() && term == l.Term() && l.Epoch().Compare(from) >= 0
}

// follow notes that it leads no more.
func (s *Leases) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = 0
	clear(s.holders)
	s.tell()
}

// Changed is closed when a node says something new, or this node begins or ceases to lead. Leases also end by themselves: whoever waits for
// Drained looks again after at most LeaseTerm.
func (s *Leases) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Drained reports whether every node with a lease has said that nothing runs any more on the range of a move that is frozen. It is true on
// the leader alone, and not before the leases have ended that another leader may have granted. Once it was true, no node gets a lease that
// has not drained, whoever leads; a late question may have it be false again for a while.
func (s *Leases) Drained(move uint64) bool { return len(s.Undrained(move)) == 0 }

// Undrained names what Drained waits for: nodes, or, in parentheses, something else.
func (s *Leases) Undrained(move uint64) (waiting []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.l.fsm.current.Load().Move(move)
	if m == nil || m.Phase != rib.MoveFrozen {
		return []string{"(the move is not frozen)"}
	}
	return s.without(func(h *holder) bool { return slices.Contains(h.drained, move) && h.applied.Compare(m.Epoch) >= 0 })
}

// Unaware names whom a move waits for before its first row is copied: nodes with a lease on which something may be at work that was routed without
// knowledge of the move, and would meet its rows twice; or, in parentheses, something else. Nodes without a lease ask each shard for no more than
// what it owns, by their table. As with Drained, leases of another leader's are waited for.
func (s *Leases) Unaware(move uint64) (waiting []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l.fsm.current.Load().Move(move) == nil {
		return []string{"(there is no such move)"}
	}
	return s.without(func(h *holder) bool { return slices.Contains(h.aware, move) })
}

// without names the nodes with a lease that have not said something, or what else is waited for. mu is held.
func (s *Leases) without(said func(*holder) bool) (waiting []string) {
	now := time.Now()
	switch {
	case s.term == 0 || s.l.leads() != nil || s.term != s.l.raft.CurrentTerm():
		return []string{"(this node does not lead)"}
	case now.Sub(s.since) < LeaseTerm+leaseSlack:
		return []string{"(leases that another leader may have granted)"}
	}
	for p, h := range s.holders {
		if now.Before(h.until) && !said(h) {
			waiting = append(waiting, p.node)
		}
	}
	slices.Sort(waiting)
	return slices.Compact(waiting)
}

// Acknowledged names the nodes, of all that were ever admitted and not forgotten since, that have not said yet that they route by a table of this
// epoch or a newer one, have it on disk, and that nothing which was routed by an older one is at work on a range that has changed hands since. A new leader has
// heard of nobody at first. On a node that does not lead all are missing.
func (s *Leases) Acknowledged(e rib.Epoch) (missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.l.fsm.current.Load()
	for _, name := range o.Nodes {
		h := s.last(name)
		if h == nil && s.term != 0 && o.Forgot(name) { // one that is heard of has come back, and is waited for at once
			continue
		}
		if s.term == 0 || h == nil || h.settled.Compare(e) < 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// LeaseStatus is one node as the leader has heard of it.
type LeaseStatus struct {
	Node    string        `json:"node"`
	Left    time.Duration `json:"left_ns"`  // of its lease; 0: it has none
	Heard   time.Duration `json:"heard_ns"` // since it asked last
	Applied rib.Epoch     `json:"applied"`
	Settled rib.Epoch     `json:"settled"`
	Drained []uint64      `json:"drained,omitempty"`
}

// List returns the nodes that this node has heard of since it leads, by name.
func (s *Leases) List() []LeaseStatus {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]LeaseStatus, 0, len(s.holders))
	for p, h := range s.holders {
		list = append(list, LeaseStatus{Node: p.node, Left: max(0, h.until.Sub(now)), Heard: now.Sub(h.heard), Applied: h.applied, Settled: h.settled, Drained: slices.Clone(h.drained)})
	}
	slices.SortFunc(list, func(a, b LeaseStatus) int { return strings.Compare(a.Node, b.Node) })
	return list
}
