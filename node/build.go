package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"rangefinder/cluster"
	"rangefinder/fib"
	"rangefinder/gossip"
	"rangefinder/gossip/probe"
	"rangefinder/node/port"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/moving"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// This file makes the parts out of the configuration; what passes between them is in glue.go.

// openTables makes the RIB, the FIB and the goroutine that compiles one into the other.
func (n *Node) openTables(context.Context) error {
	self := rib.Member{Name: n.state.Node, Region: n.cfg().Region, Addr: n.port().Addr(), Incarnation: n.state.Incarnation}
	if n.word != nil {
		self.Incarnation = n.word.Incarnation
	}
	n.table = rib.NewTable(self)
	n.table.Local().SetPolicy(n.cfg().readPolicy())
	n.recallBeliefs()
	n.recallDrains()
	n.fib = new(fib.Handle)
	n.loads = newLoads()
	n.moves = moving.New(moving.Config{FIB: n.fib, News: n.newsOfMoves})
	n.compiler = fib.NewMaintainer(n.table, n.fib, n.log.With("part", "fib"))
	n.compiler.Open()
	n.opened("FIB", func() error { n.compiler.Close(); return nil })
	n.watchdog = fib.NewWatchdog(n.fib, n.compiler, func() time.Duration { return n.cfg().Watchdog.Duration }, n.options.Die)
	n.watchdog.Open()
	n.opened("watchdog", func() error { n.watchdog.Close(); return nil })
	return nil
}

// openLedger opens this node's part of the ledger, and makes the cluster if this is its first node.
func (n *Node) openLedger(context.Context) error {
	ledger, err := cluster.New(cluster.Config{
		Node: n.state.Node, Region: n.cfg().Region, Addr: n.port().Addr(), Dir: filepath.Join(n.dir.path, ledgerDir),
		Stream: n.port().Raft(), Owners: n.table.Owners(), Logger: n.log.With("part", "ledger"),
		CheckShard: n.healthyShard,
		OnApply: func(e rib.Epoch) {
			if s := n.speaker(); s != nil {
				s.SetEpoch(e)
			}
		},
	})
	if err != nil {
		return err
	}
	if err := ledger.Open(); err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	n.parts.ledger.Store(ledger)
	n.opened("ledger", ledger.Close)
	if n.state.Bootstrap {
		// A crash between the two files leaves either no ledger, which is made now, or one that goes on by itself.
		n.waits("making the cluster")
		if !ledger.HasState() {
			if err := ledger.Bootstrap(n.state.ClusterID); err != nil {
				return fmt.Errorf("make the cluster: %w", err)
			}
		}
		return n.change(func(s *State) { s.Bootstrap = false })
	}
	return ledger.Admit(n.state.ClusterID)
}

// openGossip makes the speaker. It joins nobody yet: see startLoops.
func (n *Node) openGossip(context.Context) error {
	speaker := gossip.New(gossip.Config{
		Self:      rib.Member{Name: n.state.Node, Region: n.cfg().Region, Addr: n.port().Addr(), Incarnation: n.state.Incarnation},
		Resume:    n.word,
		ClusterID: n.state.ClusterID, Key: port.KeyFor(n.setup.Load().secrets.ClusterKey, port.PurposeGossip),
		OldKeys:   port.KeysFor(n.setup.Load().secrets.OtherKeys, port.PurposeGossip),
		Transport: n.port().Gossip(), Health: n.table.Health(), Policy: n.table.Local().Policy, Logger: n.log,
		Seeds: n.seeds, OnEpoch: n.heardEpoch, OnSchema: n.stirDependents, OnRecheck: n.heardRecheck,
		SetIncarnation: func(v uint32) {
			if err := n.change(func(s *State) { s.Incarnation = v }); err != nil {
				n.log.Error("cannot keep the incarnation on disk", "error", err)
			}
		},
	})
	if err := speaker.Open(); err != nil {
		return err
	}
	n.opened("gossip", speaker.Close)
	n.parts.speaker.Store(speaker)
	speaker.SetEpoch(n.ledger().Epoch())
	return nil
}

// openProber begins to look at the backends of the configuration.
func (n *Node) openProber(context.Context) error {
	settings := n.setup.Load().probes()
	n.goOn(&settings)
	prober := probe.New(probe.Config{
		Settings: settings,
		Dial:     n.dialer.DialContext, TLS: n.backendTLS, Plain: n.tellsPlain, Sink: sink{n}, Logger: n.log,
		Saw:   n.saw,
		Quiet: n.table.Health().Quiet,
		Lost:  func(backend, why string) { n.table.Health().Evidence(backend, true, why) },
		Recovered: func(backend string) {
			n.log.Info("a backend that could not be reached from here answers again", "backend", backend)
			if n.whole.Load() {
				n.pools.Reachable(backend) // first: who sees the table think well of it tries it at once
			}
			n.table.Health().Evidence(backend, false, "")
		},
	})
	if err := prober.Open(); err != nil {
		return err
	}
	n.parts.prober.Store(prober)
	n.opened("probes", prober.Close)
	return nil
}

// goOn has the probes begin with what the process before this one has found. What it has said of backends that are not configured any more
// is taken back by who takes over; of one that has ended it is forgotten.
func (n *Node) goOn(s *probe.Settings) {
	if n.word == nil {
		for _, k := range n.recalled {
			before := target(&k.Announcement.Backend)
			here := before
			here.SystemID = 0 // as the configuration has it
			if i := slices.Index(s.Backends, here); i >= 0 && k.Announcement.Observer == n.state.Node {
				s.Backends[i] = before
			}
		}
		n.recalled = nil
		return
	}
	for _, a := range n.word.Announcements {
		here := false
		for i := range s.Backends {
			if s.Backends[i].Name == a.Backend.Name {
				s.Backends[i].SystemID, here = a.Backend.SystemID, true
			}
		}
		if !here && !a.Gone {
			n.speaker().Withdraw(a.Backend.Name)
		}
	}
}

// sink takes the probes' word to the speaker, which is another one after somebody has failed to take over.
type sink struct{ n *Node }

func (s sink) Announce(b rib.Backend) { s.n.speaker().Announce(b) }
func (s sink) Observe(r rib.Route)    { s.n.speaker().Observe(r) }
func (s sink) Withdraw(name string)   { s.n.speaker().Withdraw(name) }

// buildServer makes the pools and the server that uses them.
func (n *Node) buildServer() *wire.Server {
	n.pools = pool.New(pool.Config{
		NoRing: !n.cfg().IOUring,
		Limits: n.cfg().poolLimits(),
		Dial:   n.dialer.DialContext, TLS: n.backendTLS, Plain: n.tellsPlain, Report: n.reportBackend, Next: n.nextReads, Logger: n.log.With("part", "pool"),
		Credential: n.credential, Refused: func(ctx context.Context, id pool.Identity) { n.guard.Refused(ctx, id.User, id.Database) },
	})
	n.pools.SetShare(int(n.share.Load()))
	n.pools.Open()
	n.opened("pools", func() error { n.pools.Close(); return nil })
	n.planner = sqlkey.NewPlanner(sqlkey.PlannerConfig{})
	server := wire.NewServer(wire.Config{
		FIB: n.fib, Planner: n.planner, Pools: n.pools, Guard: n.guard, SaltSecret: n.setup.Load().secrets.salts(), Node: n.state.Node, ForwardCancel: n.forwardCancel, Recheck: n.recheck,
		Positions: n.table.Positions(), Look: n.look, Explain: n.explainRoute, Unique: n.unique.next, Defined: n.schemaChanged, Learn: n.learnTypes, Moves: n.moves, Heat: n.loads.meter, Leased: n.leased, Alone: n.alone, Fenced: n.fenced, Committer: n.twophase, Watch: n.twophase.Watch,
		Metrics: n.metrics, Logger: n.log.With("part", "wire"), Live: n.serverLive(n.setup.Load()),
	})
	n.dependents.serve(server.SetDependents)
	n.types.serve(server.SetTypes)
	return server
}

// credential is what a backend is shown.
func (n *Node) credential(id pool.Identity) pg.Credential {
	if id.Own {
		return n.guard.Asking()
	}
	return n.guard.Credential(id.User, id.Database)
}
