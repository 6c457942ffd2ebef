package cluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// reconcileTime bounds one Reconcile.
const reconcileTime = 10 * time.Second

// Reconcile tells the ledger who lives. Call it on every node whenever the members change, and now and then; another call while
// one is at work returns at once. Every node learns from it where the voters are now, and keeps that on disk, so that they find each
// other even if all came back at other addresses. The leader also makes voters of members, up to Config.Voters, from regions without
// a voter first, but of none that drained names (nil: nobody is): it may be stopped soon, and would count for the majority then.
//
// A voter that has been gone for Config.Replace, or that is drained, gives its place to another member: that one becomes a voter first, so
// that there are never fewer. Without another one it stays: a member that gossip believes dead may be counting votes on the other side of
// a partition, and one that is drained counts as well as any for as long as it runs. Nor do voters stay together that were there first: where a region
// has several, and another one has members and no voter, one of these takes the place of one of those, once it and all voters have been there for Config.Replace.
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
	if _, leader := l.raft.LeaderWithID(); leader != "" && !l.outside() {
		l.hintVoters = nil // Raft itself tells, and what it told last is what counts without a leader too
	}
	l.membersMu.Unlock()
	if l.votersMoved() {
		wake(l.saves)
	}

	if !l.reconcileMu.TryLock() {
		return
	}
	defer l.reconcileMu.Unlock()
	if !l.IsLeader() || l.fsm.current.Load().ClusterID == "" {
		clear(l.missing)
		clear(l.present)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reconcileTime)
	defer cancel()
	plan := voterPlan{members: members, drained: drained, tried: make(map[string]bool), self: l.cfg.Node}
	plan.gone, plan.steady = l.watchVoters(members)
	for ctx.Err() == nil && l.raft.State() == raft.Leader {
		add, remove := l.nextChange(&plan)
		switch {
		case add != nil:
			if err := l.enrol(ctx, *add); err != nil {
				l.log.Warn("cannot make a node a voter; the next Reconcile tries again",
					slog.String("node", add.Name), slog.String("addr", add.Addr), slog.Any("error", err))
				delete(l.present, add.Name) // it is no more steady than if it had been away
			}
			plan.tried[add.Name] = true // once for each member: one that cannot be reached must not keep the others out
		case remove != "":
			if err := l.await(ctx, l.raft.RemoveServer(raft.ServerID(remove), 0, l.cfg.Timeouts.Command)); err != nil {
				l.log.Warn("cannot take a voter's place from it; the next Reconcile tries again", slog.String("node", remove), slog.Any("error", err))
				return
			}
			l.log.Info("a node is no longer a voter of the ledger: another one has its place", slog.String("node", remove))
		default:
			return
		}
	}
}

// Raft's timeouts as multiples of the longest round trip between voters, and at the most.
const (
	roundTrips = 5
	slowest    = 10 * time.Second
)

// SetRTT tells the ledger the longest round trip to a voter, as far as they are measured; every: all are. Raft's timeouts follow it: so
// long that a live leader is not taken for dead, and where all voters are known to be near no longer than Timeouts.Lease, within which a leader
// gives up that reaches no majority.
func (l *Ledger) SetRTT(rtt time.Duration, every bool) {
	select {
	case <-l.opened:
	default:
		return
	}
	l.reconcileMu.Lock()
	defer l.reconcileMu.Unlock()
	if diff := rtt - l.rtt; every == l.rttOfAll && diff.Abs() <= l.rtt/4 { // small changes mean nothing
		return
	}
	l.rtt, l.rttOfAll = rtt, every
	timeout := func(usual time.Duration) time.Duration {
		if every {
			usual = min(usual, l.cfg.Timeouts.Lease)
		}
		return min(slowest, max(usual, roundTrips*rtt))
	}
	c := l.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout(l.cfg.Timeouts.Heartbeat), timeout(l.cfg.Timeouts.Election)
	if c == l.raft.ReloadableConfig() {
		return
	}
	if err := l.raft.ReloadConfig(c); err != nil {
		l.log.Warn("cannot change Raft's timeouts", slog.Any("error", err))
		return
	}
	l.log.Info("Raft's timeouts follow the longest round trip to a voter", slog.Duration("rtt", rtt), slog.Duration("heartbeat", c.HeartbeatTimeout))
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
