package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// HasState reports whether this node belongs to a cluster already: it must then not bootstrap one. It may be called before Open.
func (l *Ledger) HasState() bool {
	if l.ClusterID() != "" {
		return true
	}
	select {
	case <-l.opened:
		has, err := raft.HasExistingState(l.stores.Log, l.stores.Stable, l.stores.Snapshots)
		return has || err != nil // in doubt there is some: a second cluster would be worse than a refusal
	default:
	}
	for _, name := range []string{clusterFile, tableFile} {
		if _, err := os.Stat(filepath.Join(l.cfg.Dir, name)); err == nil {
			return true
		}
	}
	return false
}

// ClusterID returns the cluster that this node belongs to; empty: none yet. It is known from Open on.
func (l *Ledger) ClusterID() string {
	if id := l.clusterID.Load(); id != nil {
		return *id
	}
	return ""
}

// Bootstrap makes this node the first of a new cluster and returns when it leads it. It refuses with ErrHasState if the node belongs
// to a cluster already. If it fails half way, the next Open goes on with the same cluster.
func (l *Ledger) Bootstrap(clusterID string) error {
	if clusterID == "" || len(clusterID) > MaxName {
		return reject(ErrInvalid, "a cluster id has 1 to %d bytes", MaxName)
	}
	l.lifeMu.Lock()
	defer l.lifeMu.Unlock()
	if !l.isOpen || l.closed {
		return ErrNotOpen
	}
	if l.HasState() {
		return ErrHasState
	}
	if err := writeMembership(l.cfg.Dir, membership{ClusterID: clusterID, Making: true}); err != nil {
		return err
	}
	l.saveMu.Lock()
	l.making = true
	l.saveMu.Unlock()
	l.clusterID.Store(&clusterID)
	if err := l.bootstrapRaft(); err != nil {
		return err
	}
	l.hurry()
	t := l.cfg.Timeouts
	late := time.NewTimer(4*(t.Heartbeat+t.Election) + t.Command)
	defer late.Stop()
	select {
	case <-l.ready:
		return nil
	case <-l.done:
		return ErrNotOpen
	case <-late.C:
		return errors.New("the new cluster did not elect its only node in time; it goes on trying")
	}
}

func (l *Ledger) bootstrapRaft() error {
	servers := []raft.Server{{ID: raft.ServerID(l.cfg.Node), Address: l.transport.LocalAddr()}}
	err := l.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrHasState
	}
	return err
}

// hurry starts the election of a node that is its own majority: there is nobody to wait for.
func (l *Ledger) hurry() {
	servers := l.raft.GetConfiguration().Configuration().Servers
	if len(servers) != 1 || servers[0].ID != raft.ServerID(l.cfg.Node) {
		return
	}
	l.wg.Go(func() {
		var resp raft.TimeoutNowResponse
		req := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
		// If it fails, the ordinary timeout does the same a little later.
		_ = l.transport.TimeoutNow(servers[0].ID, l.transport.LocalAddr(), &req, &resp)
	})
}

// Admit records which cluster this node joins, as the hello told it. It refuses with ErrOtherCluster if it belongs to another.
func (l *Ledger) Admit(clusterID string) error {
	if clusterID == "" || len(clusterID) > MaxName {
		return reject(ErrInvalid, "a cluster id has 1 to %d bytes", MaxName)
	}
	l.lifeMu.Lock()
	defer l.lifeMu.Unlock()
	if !l.isOpen || l.closed {
		return ErrNotOpen
	}
	switch l.ClusterID() {
	case clusterID:
		return nil
	case "":
	default:
		return fmt.Errorf("%w: this node belongs to cluster %s, not to %s", ErrOtherCluster, l.ClusterID(), clusterID)
	}
	if err := writeMembership(l.cfg.Dir, membership{ClusterID: clusterID}); err != nil {
		return err
	}
	l.clusterID.Store(&clusterID)
	return nil
}

// barrier returns when all that was committed is applied, or this node leads no more.
func (l *Ledger) barrier() error {
	for {
		err := l.raft.Barrier(l.cfg.Timeouts.Command).Error()
		if err == nil || l.raft.State() != raft.Leader {
			return err
		}
	}
}

// watchLeadership grants leases once this node leads, and finishes a bootstrap that was interrupted, whenever this node becomes
// the leader.
func (l *Ledger) watchLeadership() {
	l.hurry()
	for {
		select {
		case <-l.done:
			return
		case leads := <-l.raft.LeaderCh():
			if !leads {
				l.leases.follow()
				continue
			}
		}
		term := l.raft.CurrentTerm()
		// Behind the barrier the state machine holds everything committed before.
		if err := l.barrier(); err != nil {
			continue // no longer the leader
		}
		if l.raft.CurrentTerm() == term && l.raft.State() == raft.Leader {
			l.leases.lead(term, l.fsm.current.Load().table().Epoch)
		}
		if l.fsm.current.Load().ClusterID != "" || l.ClusterID() == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeouts.Command)
		_, err := l.propose(ctx, &command{Kind: kindInit2, Request: "init " + l.ClusterID(), Init: &initCommand{ClusterID: l.ClusterID(), Generation: 1}})
		cancel()
		if err != nil {
			l.log.Warn("the cluster's first command failed; the next leader repeats it", slog.Any("error", err))
		}
	}
}
