package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// Status is the ledger's state as the debug page shows it.
type Status struct {
	ClusterID   string        `json:"cluster_id"`
	Node        string        `json:"node"`
	Role        string        `json:"role"` // "leader", "voter", "candidate", "follows" (by pulls), "closed"
	Term        uint64        `json:"term"`
	Leader      string        `json:"leader"`
	LeaderAddr  string        `json:"leader_addr"`
	Voters      []Voter       `json:"voters"`
	LogIndex    uint64        `json:"log_index"`
	Applied     uint64        `json:"applied"`         // Raft's, all kinds of entries
	LastContact time.Duration `json:"last_contact_ns"` // since the leader was heard; 0 on the leader; -1: never
	Epoch       rib.Epoch     `json:"epoch"`           // of the table this node serves
	Catalog     uint64        `json:"catalog"`
	Keyspaces   int           `json:"keyspaces"`
	Ranges      int           `json:"ranges"`
	Shards      int           `json:"shards"`
	Stalled     string        `json:"stalled,omitempty"` // why this node applies no more commands; empty: it does

	Diverged string `json:"diverged,omitempty"` // another node's table has come from other commands; empty: none is known

	PullsServed   uint64 `json:"pulls_served"`
	PullsRefused  uint64 `json:"pulls_refused"`
	PullsApplied  uint64 `json:"pulls_applied"`  // pulls that brought a newer table
	PullsDelta    uint64 `json:"pulls_delta"`    // of these, those that brought commands instead of the whole
	PullsCurrent  uint64 `json:"pulls_current"`  // pulls that found nothing newer
	Strangers     uint64 `json:"strangers"`      // Raft streams of another generation, refused
	PullsDiverged uint64 `json:"pulls_diverged"` // tables that had come from other commands, and were refused
	SaveErrors    uint64 `json:"save_errors"`    // times the table could not be kept on disk
}

// Voter is one server of the Raft configuration.
type Voter struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"`             // where it was last seen
	Region string `json:"region,omitempty"` // if this node has heard of it
}

// Leader returns the leader's name and cluster port, as Raft knows it here or, on a node that is no voter, as the last pull told;
// both empty: not known now.
func (l *Ledger) Leader() (name, addr string) {
	select {
	case <-l.opened:
	default:
		return "", ""
	}
	if a, id := l.raft.LeaderWithID(); id != "" && !l.leftBehind() {
		name, addr = string(id), string(a)
	}
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	if name == "" && (l.outside() || l.leftBehind()) {
		name, addr = l.hintLeader, l.hintAddr
	}
	if m, ok := l.members[name]; ok && m.Addr != "" && name != "" {
		addr = m.Addr
	}
	return name, addr
}

// Follows reports whether this node has no part in Raft, or none any more: it then knows the leader and the voters by pulls alone.
func (l *Ledger) Follows() bool {
	select {
	case <-l.opened:
		l.membersMu.Lock()
		defer l.membersMu.Unlock()
		return l.outside()
	default:
		return true
	}
}

// outside reports whether this node is no voter. A voter whose place is another's may have been told of that, and then its own log says so. It may not have, for
// nobody waits until it has heard; then Raft tells it of no leader any more, and the last pull of voters without it. l.membersMu is held.
func (l *Ledger) outside() bool {
	if !slices.ContainsFunc(l.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(l.cfg.Node) }) {
		return true
	}
	_, leader := l.raft.LeaderWithID()
	return leader == "" && len(l.hintVoters) > 0 && !slices.ContainsFunc(l.hintVoters, func(v Voter) bool { return v.Name == l.cfg.Node })
}

// Voters returns the voters with where they were last seen; on a node that follows, as the last pull told.
func (l *Ledger) Voters() []Voter {
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	voters := slices.Clone(l.hintVoters)
	select {
	case <-l.opened:
		if len(voters) > 0 && l.outside() {
			break // what its own log says is old, if it says anything
		}
		voters = nil
		for _, server := range l.raft.GetConfiguration().Configuration().Servers {
			voters = append(voters, Voter{Name: string(server.ID), Addr: string(server.Address)})
		}
	default:
	}
	for i, v := range voters {
		if m, ok := l.members[v.Name]; ok && m.Addr != "" {
			voters[i].Addr, voters[i].Region = m.Addr, m.Region
		}
	}
	return voters
}

// VotersTold returns when a voter last told this node, in an answer to a pull, who the voters are; zero: none has since the start.
func (l *Ledger) VotersTold() time.Time {
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	return l.votersTold
}

// IsLeader reports whether this node leads, as far as it knows.
func (l *Ledger) IsLeader() bool {
	select {
	case <-l.opened:
		return l.raft.State() == raft.Leader && !l.leftBehind() // else what it leads does not count
	default:
		return false
	}
}

// Status returns the ledger's state for people.
func (l *Ledger) Status() Status {
	o := l.cfg.Owners.Get()
	s := Status{
		ClusterID: l.ClusterID(), Node: l.cfg.Node, Role: "closed", Epoch: o.Epoch, Catalog: o.Catalog,
		Keyspaces: len(o.Keyspaces), Shards: len(o.Shards), LastContact: -1,
		PullsServed: l.stats.pullsServed.Load(), PullsRefused: l.stats.pullsRefused.Load(),
		PullsApplied: l.stats.pullsApplied.Load(), PullsDelta: l.stats.pullsDelta.Load(), PullsCurrent: l.stats.pullsCurrent.Load(), Strangers: l.stats.strangers.Load(), PullsDiverged: l.stats.pullsDiverged.Load(), SaveErrors: l.stats.saveErrors.Load(),
	}
	for i := range o.Keyspaces {
		s.Ranges += len(o.Keyspaces[i].Ranges)
	}
	if why := l.fsm.stalled.Load(); why != nil {
		s.Stalled = *why
	}
	if why := l.diverged.Load(); why != nil {
		s.Diverged = *why
	}
	select {
	case <-l.opened:
	default:
		return s
	}
	s.Leader, s.LeaderAddr = l.Leader()
	s.Term, s.LogIndex, s.Applied = l.raft.CurrentTerm(), l.raft.LastIndex(), l.raft.AppliedIndex()
	s.Voters = l.Voters()
	voter := !l.Follows() && slices.ContainsFunc(s.Voters, func(v Voter) bool { return v.Name == l.cfg.Node })
	switch state := l.raft.State(); {
	case state == raft.Shutdown:
		return s
	case state == raft.Leader:
		s.Role, s.LastContact = "leader", 0
		return s
	case state == raft.Candidate:
		s.Role = "candidate"
	case voter:
		s.Role = "voter"
	default:
		s.Role = "follows"
	}
	if at := l.raft.LastContact(); !at.IsZero() {
		s.LastContact = time.Since(at)
	}
	return s
}

// Term is Raft's, as this node knows it: no two leaders have the same. 0 before the ledger is open.
func (l *Ledger) Term() uint64 {
	select {
	case <-l.opened:
		return l.raft.CurrentTerm()
	default:
		return 0
	}
}
