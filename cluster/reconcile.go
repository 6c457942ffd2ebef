package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// reconcileTime bounds one Reconcile.
const reconcileTime = 10 * time.Second

// Reconcile tells the ledger who lives. Call it on every node whenever the members change, and now and then; another call while
// one is at work returns at once. Every node learns from it where the voters are now, and keeps that on disk, so that they find each
// other even if all came back at other addresses. The leader also makes voters of members, up to Config.Voters, from regions without
// a voter first, but of none that drained names (nil: nobody is): it may be stopped soon, and would count for the majority then. It never
// removes a voter: a member that gossip believes dead may be counting votes on the other side of a partition, and one that is drained
// counts as well as any for as long as it runs.
func (l *Ledger) Reconcile(members []rib.Member, drained map[string]bool) {
	select {
	case <-l.opened:
	default:
		return
	}
	l.membersMu.Lock()
	for _, m := range members {
		l.members[m.Name] = m
	}
	l.membersMu.Unlock()
	if l.votersMoved() {
		wake(l.saves)
	}

	if l.raft.State() != raft.Leader || l.fsm.current.Load().ClusterID == "" || !l.reconcileMu.TryLock() {
		return
	}
	defer l.reconcileMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), reconcileTime)
	defer cancel()
	for ctx.Err() == nil && l.raft.State() == raft.Leader {
		change := l.nextChange(members, drained)
		if change == nil {
			return
		}
		if err := l.enrol(ctx, *change); err != nil {
			l.log.Warn("cannot make a node a voter; the next Reconcile tries again",
				slog.String("node", change.Name), slog.String("addr", change.Addr), slog.Any("error", err))
		}
		// Once for each member: one that cannot be reached must not keep the others out.
		members = slices.DeleteFunc(slices.Clone(members), func(m rib.Member) bool { return m.Name == change.Name })
	}
}

// nextChange returns the member to make a voter next; nil: all is well.
func (l *Ledger) nextChange(members []rib.Member, drained map[string]bool) *rib.Member {
	servers := l.raft.GetConfiguration().Configuration().Servers
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	return planVoters(servers, members, l.members, drained, l.voters)
}

// planVoters decides whom to add. It leaves alone the address of a voter that moved: addresses (below) is where Raft asks, and changing
// it in the configuration makes raft 1.8.0 read and write it at once from two goroutines. members live now; known also holds those
// that lived before, for their regions.
func planVoters(servers []raft.Server, members []rib.Member, known map[string]rib.Member, drained map[string]bool, want int) *rib.Member {
	voters, regions := make(map[string]bool), make(map[string]int)
	for _, s := range servers {
		name := string(s.ID)
		voters[name] = true
		regions[known[name].Region]++
	}
	if len(voters) >= want {
		return nil
	}
	candidates := slices.DeleteFunc(slices.Clone(members), func(m rib.Member) bool { return voters[m.Name] || drained[m.Name] || m.Addr == "" || m.Name == "" })
	if len(candidates) == 0 {
		return nil
	}
	best := slices.MinFunc(candidates, func(a, b rib.Member) int {
		return cmp.Or(cmp.Compare(regions[a.Region], regions[b.Region]), cmp.Compare(a.Name, b.Name))
	})
	return &best
}

// enrol makes a node a voter. It first opens a Raft stream to it: a voter that cannot be reached
// would count for the majority and help nobody (with two voters it would stop the ledger).
func (l *Ledger) enrol(ctx context.Context, m rib.Member) error {
	conn, err := l.streams.Dial(raft.ServerAddress(m.Addr), l.cfg.Timeouts.RPC)
	if err != nil {
		return err
	}
	conn.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	f := l.raft.AddVoter(raft.ServerID(m.Name), raft.ServerAddress(m.Addr), 0, l.cfg.Timeouts.Command)
	if err := l.await(ctx, f); err != nil {
		return err
	}
	l.log.Info("a node is a voter of the ledger", slog.String("node", m.Name), slog.String("region", m.Region), slog.String("addr", m.Addr))
	return nil
}

// StepAside has another voter lead in this node's place. It returns when that one does, or cannot. It does nothing where this node does
// not lead.
func (l *Ledger) StepAside(ctx context.Context, to Voter) error {
	select {
	case <-l.opened:
	default:
		return ErrNotOpen
	}
	if l.raft.State() != raft.Leader {
		return nil
	}
	addr, err := addresses{l}.ServerAddr(raft.ServerID(to.Name))
	if err != nil {
		return err
	}
	return l.await(ctx, l.raft.LeadershipTransferToServer(raft.ServerID(to.Name), addr))
}

// votersMoved reports whether the voters' addresses differ from those kept on disk.
func (l *Ledger) votersMoved() bool {
	servers := l.raft.GetConfiguration().Configuration().Servers
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	for _, s := range servers {
		if m, ok := l.members[string(s.ID)]; ok && l.votersSaved[m.Name] != m {
			return true
		}
	}
	return false
}

// saveVoters keeps on disk where the voters were last seen.
func (l *Ledger) saveVoters() error {
	servers := l.raft.GetConfiguration().Configuration().Servers
	voters := make(map[string]rib.Member, len(servers))
	l.membersMu.Lock()
	for _, s := range servers {
		if m, ok := l.members[string(s.ID)]; ok {
			voters[m.Name] = m
		}
	}
	same := maps.Equal(voters, l.votersSaved)
	l.membersMu.Unlock()
	if same {
		return nil
	}
	if err := writeVoters(l.cfg.Dir, voters); err != nil {
		return err
	}
	l.membersMu.Lock()
	l.votersSaved = voters
	l.membersMu.Unlock()
	return nil
}

// addresses tells Raft's transport where a voter is now. Gossip knows it better than Raft's configuration, which says where the voter
// was when it was added.
type addresses struct{ l *Ledger }

// ServerAddr implements raft.ServerAddressProvider.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	l := a.l
	if id == raft.ServerID(l.cfg.Node) {
		return raft.ServerAddress(l.cfg.Addr), nil
	}
	l.membersMu.Lock()
	m, ok := l.members[string(id)]
	l.membersMu.Unlock()
	if ok && m.Addr != "" {
		return raft.ServerAddress(m.Addr), nil
	}
	select {
	case <-l.opened:
		for _, s := range l.raft.GetConfiguration().Configuration().Servers {
			if s.ID == id {
				return s.Address, nil
			}
		}
	default:
	}
	return "", errors.New("no such member")
}
