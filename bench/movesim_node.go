package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/cluster"
	"rangefinder/cluster/move"
	"rangefinder/fib"
	"rangefinder/gossip/memnet"
	"rangefinder/rib"
	"rangefinder/wire/moving"
)

const (
	simRaftPort  = 7946
	simPullPort  = 7947
	simLeasePort = 7948
	simHintPort  = 7949
	simHintEvery = 500 * time.Millisecond // a node says again which epoch it has
	simLate      = 4 * time.Second        // nothing is on its way for longer: see slow
)

// simNode is a node: the production ledger, leases, moves, table and mover. It may die and come back.
type simNode struct {
	// constant
	w            *simWorld
	name, region string
	dir          string
	disk         *cluster.Stores // Raft's: what is written there is never lost
	simPeer

	life   atomic.Pointer[simLife] // nil: it is dead
	joined atomic.Bool             // it is one of the cluster's nodes, dead or alive
}

// simLife is what a node has from one start to the next.
type simLife struct {
	n      *simNode
	ctx    context.Context
	end    context.CancelFunc
	table  *rib.Table
	fib    fib.Handle
	follow *fib.Maintainer
	ledger *cluster.Ledger
	lessee *cluster.Lessee
	moves  *moving.Moves
	mover  *move.Mover
	hints  *memnet.Transport
	pulls  chan string // addresses of nodes that have a newer table; capacity 1
	done   sync.WaitGroup
	serves atomic.Bool // see open

	mu   sync.Mutex
	work map[*simWork]struct{}
	met  map[string]bool // nodes that this one has heard of
}

// simWork is a statement on its way: a moving.Work.
type simWork struct{ over atomic.Bool }

func (w *simWork) Over() bool { return w.over.Load() }

// simLayer is Raft's stream layer.
type simLayer struct {
	*memnet.Listener
	host *memnet.Host
}

func (l simLayer) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.host.DialTimeout(string(a), timeout)
}

func newSimNode(w *simWorld, name, region string) *simNode {
	log := raft.NewInmemStore()
	return &simNode{
		w: w, name: name, region: region, dir: filepath.Join(w.dir, name), simPeer: simPeer{w: w, host: w.net.Host(name, region)},
		disk: &cluster.Stores{Log: log, Stable: log, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }},
	}
}

func (n *simNode) member() rib.Member {
	return rib.Member{Name: n.name, Region: n.region, Addr: n.host.Addr(simRaftPort), Incarnation: 1}
}

// start has the node go on from what is on its disk.
func (n *simNode) start() (err error) {
	f := &simLife{n: n, table: rib.NewTable(n.member()), pulls: make(chan string, 1), work: map[*simWork]struct{}{}, met: map[string]bool{n.name: true}}
	f.ctx, f.end = context.WithCancel(n.w.ctx)
	streams, err := n.host.Listen(simRaftPort)
	if err != nil {
		return err
	}
	f.ledger, err = cluster.New(cluster.Config{
		Node: n.name, Region: n.region, Addr: n.host.Addr(simRaftPort), Dir: n.dir, Stream: simLayer{streams, n.host}, Owners: f.table.Owners(),
		OnApply: func(rib.Epoch) { n.w.saw(f.table.Owners().Get()); f.hint() }, Logger: slog.New(slog.DiscardHandler),
		Stores: func(string) (*cluster.Stores, error) { return n.disk, nil },
	})
	if err != nil {
		return err
	}
	if f.hints, err = n.host.Transport(simHintPort); err != nil {
		return err
	}
	if err := f.ledger.Open(); err != nil {
		return err
	}
	n.simPeer.start()
	f.follow = fib.NewMaintainer(f.table, &f.fib, nil)
	f.follow.Open()
	f.moves = moving.New(moving.Config{FIB: &f.fib, AtWork: f.atWork, News: func() {
		if f.lessee != nil {
			f.lessee.Poke()
		}
	}})
	f.lessee = cluster.NewLessee(cluster.LesseeConfig{
		Ledger: f.ledger,
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return f.dial(ctx, addr, simLeasePort) },
		State: func() cluster.Acknowledgement {
			s := f.moves.Say()
			return cluster.Acknowledgement{Applied: s.Applied, Settled: s.Settled, Drained: s.Drained, Aware: s.Aware}
		},
		Behind: func(_, addr string, _ rib.Epoch) { f.pullFrom(addr) },
	})
	f.mover = move.New(move.Config{
		Ledger: simLedger{f}, Leases: f.ledger.Leases(), Servers: simServers{n}, Owners: f.table.Owners().Get, Logger: slog.New(slog.DiscardHandler), Late: n.w.onItsWay,
		Leads: func() (uint64, bool) {
			term, ok := f.ledger.LeadsIn()
			return uint64(f.table.Owners().Get().Epoch.Generation)<<40 | term, ok
		},
	})
	if err := f.answer(simPullPort, f.servePull); err != nil {
		return err
	}
	if err := f.answer(simLeasePort, f.ledger.ServeLeases); err != nil {
		return err
	}
	f.done.Go(func() { f.moves.Run(f.ctx) })
	f.done.Go(func() { f.lessee.Run(f.ctx) })
	f.done.Go(f.listen)
	f.done.Go(f.pull)
	f.done.Go(f.reconcile)
	f.done.Go(f.number)
	f.mover.Open()
	n.life.Store(f)
	return nil
}

// join starts the node for the first time. The first of all makes the cluster.
func (n *simNode) join(first bool) error {
	if err := n.start(); err != nil {
		return err
	}
	n.joined.Store(true)
	l := n.life.Load().ledger
	if first {
		return l.Bootstrap("sim")
	}
	return l.Admit("sim")
}

// open reports whether the node takes clients: as in production, from when its table says that moves wait for it.
func (f *simLife) open() bool {
	if !f.serves.Load() && f.counts() {
		f.serves.Store(true)
	}
	return f.serves.Load()
}

// counts reports whether moves wait for the node, by its table.
func (f *simLife) counts() bool {
	return f.n.w.eager || f.fib.Load().Ownership().Admitted(f.n.name)
}

// servePull gives the node's table to another one.
func (f *simLife) servePull(conn net.Conn) error {
	if !f.counts() {
		return errors.New("this node has no number yet")
	}
	return f.ledger.ServePull(conn)
}

// kill ends the node at a stroke. What it had not written to its disk is lost.
func (n *simNode) kill() {
	f := n.life.Swap(nil)
	if f == nil {
		return
	}
	n.host.Close()
	n.simPeer.stop()
	restore := n.holdDisk()
	f.end()
	f.mover.Close()
	_ = f.ledger.Close()
	f.follow.Close()
	f.done.Wait()
	restore()
}

// holdDisk has the ledger's table on disk stay as it is, until the func that it returns is called: its directory looks full.
func (n *simNode) holdDisk() func() {
	in := filepath.Join(n.dir, "ownership.new")
	if os.Mkdir(in, 0o700) != nil {
		return func() {} // somebody else holds it
	}
	return func() { _ = os.Remove(in) }
}

// answer serves streams on a port until the node dies.
func (f *simLife) answer(port int, serve func(net.Conn) error) error {
	ln, err := f.n.host.Listen(port)
	if err != nil {
		return err
	}
	f.done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.done.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(f.ctx, func() { conn.Close() })()
				_ = serve(conn)
			})
		}
	})
	return nil
}

// dial opens a stream to another port of the node whose Raft has this address.
func (f *simLife) dial(ctx context.Context, addr string, port int) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return f.n.host.Dial(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
}

// simHint is the packet that stands for gossip's word of an epoch.
type simHint struct {
	Node  string
	Addr  string
	Epoch rib.Epoch
}

// hint tells all others which table this node has. Packets may be lost, late, and in any order.
func (f *simLife) hint() {
	b, err := json.Marshal(simHint{f.n.name, f.n.host.Addr(simRaftPort), f.table.Owners().Get().Epoch})
	if err != nil || f.hints == nil {
		return
	}
	for _, o := range f.n.w.nodes {
		if o != f.n {
			_, _ = f.hints.WriteTo(b, o.host.Addr(simHintPort))
		}
	}
}

// listen takes hints, and repeats its own.
func (f *simLife) listen() {
	tick := time.NewTicker(simHintEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			_ = f.hints.Shutdown()
			return
		case p := <-f.hints.PacketCh():
			var h simHint
			if p == nil || json.Unmarshal(p.Buf, &h) != nil {
				continue
			}
			f.mu.Lock()
			f.met[h.Node] = true
			f.mu.Unlock()
			if h.Epoch.Compare(f.ledger.Epoch()) > 0 {
				f.pullFrom(h.Addr)
			}
		case <-tick.C:
			f.hint()
		}
	}
}

// reconcile tells the ledger who lives.
func (f *simLife) reconcile() {
	for pause(f.ctx, simHintEvery) == nil {
		f.ledger.Reconcile(f.n.w.members(), nil)
	}
}

// number has the leader give numbers to the nodes that it has heard of.
func (f *simLife) number() {
	for pause(f.ctx, simHintEvery) == nil {
		if !f.ledger.IsLeader() {
			continue
		}
		f.mu.Lock()
		met := slices.Sorted(maps.Keys(f.met))
		f.mu.Unlock()
		for _, name := range met {
			if !f.table.Owners().Get().Admitted(name) {
				ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
				_ = f.ledger.NumberNode(ctx, name)
				cancel()
			}
		}
	}
}

func (f *simLife) pullFrom(addr string) {
	select {
	case f.pulls <- addr:
	default:
	}
}

func (f *simLife) pull() {
	for {
		select {
		case <-f.ctx.Done():
			return
		case addr := <-f.pulls:
			ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
			conn, err := f.dial(ctx, addr, simPullPort)
			if err == nil {
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				if applied, _ := f.ledger.Pull(ctx, conn); applied {
					f.lessee.Poke()
				}
				stop()
				conn.Close()
			}
			cancel()
		}
	}
}

// atWork is what runs now.
func (f *simLife) atWork() (list []moving.Work) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.work {
		list = append(list, w)
	}
	return list
}

func (f *simLife) begin() *simWork {
	w := &simWork{}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.work[w] = struct{}{}
	return w
}

func (f *simLife) over(w *simWork) {
	w.over.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.work, w)
}

// enter does what wire's sessions do before a statement is sent: it counts the statement on the moves of its range, or says that it has to
// wait. It returns the view by which it decided.
func (f *simLife) enter(t *fib.Table, ks rib.KeyspaceID, key rib.Key, read bool) (crossed []*moving.Crossing, wait bool, view *moving.View) {
	var touched moving.Touched
	touched.On(t.Ownership().Moves, ks)
	_ = touched.Key(key) // never fails
	view = f.moves.View()
	for _, id := range touched.IDs() {
		m, x := t.Ownership().Move(id), view.Crossing(id)
		switch m.Phase {
		case rib.MovePrepare:
			if x != nil && x.Enter() {
				crossed = append(crossed, x)
				continue
			}
		case rib.MoveFrozen:
			if x != nil && read && !f.lessee.Held() {
				continue
			}
		default:
			continue
		}
		leave(crossed)
		return nil, true, view
	}
	return crossed, false, view
}

func leave(crossed []*moving.Crossing) {
	for _, x := range crossed {
		x.Leave()
	}
}

// stand waits for another view, for a time, or for the node's end.
func (f *simLife) stand(view *moving.View, d time.Duration) error {
	if !f.moves.Wait() {
		return errors.New("too many wait")
	}
	defer f.moves.Waited()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.moves.Changed(view):
		return nil
	case <-t.C:
		return nil
	case <-f.ctx.Done():
		return errSimUnsent
	}
}

// simLedger is the ledger as the mover knows it.
type simLedger struct{ f *simLife }

func (l simLedger) AdvanceMove(ctx context.Context, id uint64, from, to rib.MovePhase, note []byte) error {
	l.f.n.w.point(ctx, l.f.n, "to "+to.String())
	_, err := l.f.ledger.AdvanceMove(ctx, id, from, to, note)
	l.f.n.w.note("%s takes move %d to %v: %v", l.f.n.name, id, to, err)
	l.f.n.w.point(ctx, l.f.n, "is "+to.String())
	return err
}

func (l simLedger) ThawMove(ctx context.Context, id uint64, reason string, note []byte) error {
	l.f.n.w.point(ctx, l.f.n, "thaw")
	_, err := l.f.ledger.ThawMove(ctx, id, note, cluster.Origin{Author: "mover", Reason: reason})
	l.f.n.w.note("%s lets the range of move %d go, %s: %v", l.f.n.name, id, reason, err)
	if err == nil {
		l.f.n.w.thaw(id)
	}
	l.f.n.w.point(ctx, l.f.n, "is thawed")
	return err
}

func (l simLedger) NoteMove(ctx context.Context, id uint64, note []byte) error {
	return l.f.ledger.NoteMove(ctx, id, note, move.Cleared(note), cluster.Origin{})
}

func (l simLedger) AbortMove(ctx context.Context, id uint64, reason string) error {
	l.f.n.w.point(ctx, l.f.n, "abort")
	_, err := l.f.ledger.AbortMove(ctx, id, cluster.Origin{Author: "mover", Reason: reason})
	l.f.n.w.note("%s aborts move %d, %s: %v", l.f.n.name, id, reason, err)
	return err
}

func (l simLedger) FinishMove(ctx context.Context, id uint64) error {
	l.f.n.w.point(ctx, l.f.n, "finish")
	err := l.f.ledger.FinishMove(ctx, id)
	l.f.n.w.note("%s finishes move %d: %v", l.f.n.name, id, err)
	return err
}

// leads finds the life that takes itself for the leader; nil: none does.
func (w *simWorld) leads() *simLife {
	for _, n := range w.shuffled() {
		if f := n.life.Load(); f != nil && f.ledger.IsLeader() {
			return f
		}
	}
	return nil
}

func (w *simWorld) members() (list []rib.Member) {
	for _, n := range w.nodes {
		if n.life.Load() != nil {
			list = append(list, n.member())
		}
	}
	return list
}

func (w *simWorld) shuffled() []*simNode {
	list := slices.Clone(w.nodes)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}
