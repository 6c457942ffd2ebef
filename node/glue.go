package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/cluster"
	"rangefinder/node/port"
	"rangefinder/rib"
)

const (
	pullTimeout = 60 * time.Second       // one pull of a whole table
	pullPause   = 200 * time.Millisecond // after one that did not bring what was told of: there may be lies without end
	maxPulls    = 16                     // answered at once
	leaderTick  = 500 * time.Millisecond
	peersTick   = 5 * time.Second
	acceptPause = 100 * time.Millisecond // after a failed accept
)

// pullFrom is a node that has a newer epoch than this one.
type pullFrom struct {
	member rib.Member
	epoch  rib.Epoch
}

// startLoops starts what carries events from one part to another, and makes the first contact with the cluster.
func (n *Node) startLoops(context.Context) error {
	ctx, cancel := context.WithCancel(n.ctx)
	if n.keeper == nil {
		n.mu.Lock()
		n.peersBefore = slices.Clone(n.state.Peers)
		n.keeper = newShareKeeper(n.state.Node, time.Now(), len(n.state.Peers), len(n.cfg().Join) > 0)
		n.mu.Unlock()
	}
	n.keepShare()
	var wg sync.WaitGroup
	apiCalls := n.port().Listener(port.KindAPI)
	pulls := n.port().Listener(port.KindPull)
	forwarded := &api{office: n, log: n.log}
	leases := n.port().Listener(port.KindLease)
	calls := newHTTPServer(forwarded.forwarded(), n.log)
	calls.IdleTimeout = 10 * time.Second
	// These two may be held up by a node that does not answer; they end when gossip, ledger and port are closed under them.
	n.wg.Go(func() {
		n.joinGossip()
		n.contactedOnce.Do(func() { close(n.contacted) })
	})
	n.wg.Go(func() { n.reconcileLoop(ctx) })
	wg.Go(func() { n.pullLoop(ctx) })
	wg.Go(func() { n.serveStreams(ctx, pulls, maxPulls, "a pull", n.servePull) })
	wg.Go(func() { n.serveStreams(ctx, leases, rib.MaxNodes, "questions for leases", n.ledger().ServeLeases) })
	wg.Go(func() { n.leaseLoop(ctx) })
	wg.Go(func() { n.moves.Run(ctx) })
	wg.Go(func() { n.recordLoop(ctx) })
	wg.Go(func() { n.numberLoop(ctx) })
	wg.Go(func() { n.uniqueLoop(ctx) })
	wg.Go(func() { n.uniqueMakeLoop(ctx) })
	wg.Go(func() { n.loanLoop(ctx) })
	wg.Go(func() { n.loadLoop(ctx) })
	wg.Go(func() { n.loadAskLoop(ctx) })
	wg.Go(func() { n.hintLoop(ctx) })
	wg.Go(func() { n.beliefsLoop(ctx) })
	wg.Go(func() { n.watchLoop(ctx) })
	wg.Go(func() { n.drainLoop(ctx) })
	wg.Go(func() { n.judgeLoop(ctx) })
	wg.Go(func() { n.seekLoop(ctx) })
	wg.Go(func() { n.followLoop(ctx) })
	wg.Go(func() { n.staleLoop(ctx) })
	wg.Go(func() { n.alarmsLoop(ctx) })
	wg.Go(func() { n.budgetLoop(ctx) })
	wg.Go(func() { n.dependentsLoop(ctx) })
	wg.Go(func() { n.peersLoop(ctx) })
	wg.Go(func() {
		if err := calls.Serve(apiCalls); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			n.fail(fmt.Errorf("forwarded calls: %w", err))
		}
	})
	n.opened("loops", func() error {
		cancel()
		_, _ = pulls.Close(), leases.Close()
		err := shutdownHTTP(calls)
		n.rememberPeers()
		wg.Wait()
		return err
	})
	return nil
}

// heardEpoch is called by gossip: somebody has a newer ownership table. The newest news wins; gossip repeats it until the
// epoch is reached, so none has to be kept.
func (n *Node) heardEpoch(from rib.Member, e rib.Epoch) {
	for {
		select {
		case n.pulls <- pullFrom{from, e}:
			return
		default:
		}
		select {
		case <-n.pulls:
		default:
		}
	}
}

func (n *Node) pullLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-n.pulls:
			if n.ledger().Epoch().Compare(p.epoch) >= 0 {
				continue // Raft was faster
			}
			err := n.pull(ctx, p.member.Addr)
			if errors.Is(err, cluster.ErrDelta) { // then the whole
				err = n.pull(ctx, p.member.Addr)
			}
			if err != nil && ctx.Err() == nil {
				n.log.Warn("cannot pull the ownership table; gossip will name somebody again", "from", p.member.Name, "error", err)
			}
			if n.ledger().Epoch().Compare(p.epoch) < 0 && !pause(ctx, pullPause) {
				return
			}
		}
	}
}

func (n *Node) pull(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	conn, err := n.port().Dial(ctx, port.KindPull, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	applied, err := n.ledger().Pull(ctx, conn)
	if applied {
		n.log.Info("pulled the ownership table", "from", addr, "epoch", n.ledger().Epoch().String())
	}
	return err
}

// serveStreams answers other nodes on streams of one kind, so many at a time.
func (n *Node) serveStreams(ctx context.Context, ln net.Listener, most int, what string, serve func(net.Conn) error) {
	room := make(chan struct{}, most)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if !pause(ctx, acceptPause) {
				return
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := serve(conn); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				n.log.Debug("a stream of another node failed", "of", what, "from", conn.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// pause waits, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// reconcileLoop tells the ledger who lives: it makes voters of them where it leads, and finds the voters where it does not.
func (n *Node) reconcileLoop(ctx context.Context) {
	for {
		n.ledger().SetRTT(n.farthestVoter())
		n.ledger().Reconcile(n.speaker().Members(), n.drainedNodes())
		if !pause(ctx, leaderTick) {
			return
		}
	}
}

// farthestVoter is the longest round trip from here to a region with a voter, of those that are measured; every: all are.
func (n *Node) farthestVoter() (rtt time.Duration, every bool) {
	distances, voters := n.table.Snapshot().Distances, n.ledger().Voters()
	every = len(voters) > 0
	for _, v := range voters {
		d, measured := distances[v.Region]
		rtt, every = max(rtt, d), every && measured
	}
	return rtt, every
}

// drainedNodes are the names of the live nodes that are drained; nil: none is.
func (n *Node) drainedNodes() (names map[string]bool) {
	if len(n.table.Health().Drains()) == 0 {
		return nil
	}
	names = map[string]bool{}
	s := n.table.Snapshot()
	for _, m := range s.Members {
		names[m.Name] = s.NodeDrain(m) != nil
	}
	return names
}

// recordLoop records, on the leader, the shards that have shown a primary.
func (n *Node) recordLoop(ctx context.Context) {
	for pause(ctx, leaderTick) {
		if n.ledger().IsLeader() {
			n.recordShards(ctx)
			continue
		}
		n.forgetShards()
	}
}

// forgetShards leaves the shards that could not be recorded, and the alarms about them, to another leader. Alarms about other things
// are this node's own.
func (n *Node) forgetShards() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.shards)
	maps.DeleteFunc(n.alarms, func(about, _ string) bool { return strings.HasPrefix(about, shardAlarm) })
}

// peersLoop keeps the members on disk, for a restart when nobody of the join list lives any more.
func (n *Node) peersLoop(ctx context.Context) {
	for pause(ctx, peersTick) {
		n.rememberPeers()
	}
}

func (n *Node) rememberPeers() {
	var live, lost []string
	for _, m := range n.speaker().Members() {
		if m.Name != n.state.Node && m.Addr != "" {
			live = append(live, m.Addr)
		}
	}
	for _, l := range n.speaker().Lost() {
		lost = append(lost, l.Addr)
	}
	n.mu.Lock()
	if time.Since(n.started) < peersKept {
		lost = append(lost, n.peersBefore...)
	}
	peers := keptPeers(live, lost)
	same := slices.Equal(peers, n.state.Peers)
	n.mu.Unlock()
	if len(live) == 0 || same { // alone: the old ones are still the best guess
		return
	}
	if err := n.change(func(s *State) { s.Peers = peers }); err != nil {
		n.log.Warn("cannot keep the peers on disk", "error", err)
	}
}

// keptPeers are the peers to keep on disk: those that live, and as far as there is room those that are lost, which may be behind a cut. Of
// the own side nobody leads there.
func keptPeers(live, lost []string) []string {
	slices.Sort(live)
	peers := slices.Compact(live)
	for _, addr := range lost {
		if len(peers) < maxPeers && !slices.Contains(peers, addr) {
			peers = append(peers, addr)
		}
	}
	slices.Sort(peers)
	return peers
}

// reportBackend is called by the pools when a backend could not be connected to. That holds for this node at once; whether it
// holds for all is for the observers to say. The probe decides when this node may use it again.
func (n *Node) reportBackend(backend string, err error) {
	if err == nil {
		return
	}
	n.table.Health().Evidence(backend, true, err.Error())
	here := n.prober().Suspect(backend)
	for _, v := range n.table.Snapshot().Backends {
		if v.Backend.Name != backend {
			continue
		}
		if v.Verdict != rib.Down {
			n.speaker().Recheck(&v) // all who have a say in it need not wait for the time of their next probe
		}
		if here {
			return
		}
		b := v.Backend
		if err := n.prober().Watch(target(&b)); err != nil {
			// Nobody would ever say that it is back: then only the cluster's verdict counts.
			n.log.Warn("a backend out of reach cannot be watched", "backend", backend, "error", err)
			n.table.Health().Evidence(backend, false, "")
		}
	}
}
