package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/cluster"
	"rangefinder/cluster/move"
	"rangefinder/fib"
	"rangefinder/gossip"
	"rangefinder/gossip/probe"
	"rangefinder/internal/lab"
	"rangefinder/node/port"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/auth"
	"rangefinder/wire/moving"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

// Options are what a node gets from the process around it. The zero value is the process's own.
type Options struct {
	Logger   *slog.Logger
	Level    *slog.LevelVar              // of the Logger, for a reload to change; nil: it cannot be changed
	Getenv   func(string) (string, bool) // nil: os.LookupEnv
	Takeover bool                        // ask the process that runs with the same data_dir for its sockets
	Load     func() (Config, error)      // reads the configuration again, as Read does; nil: there is nothing to reload
	Die      func(why string)            // is called when dispatch is stuck; nil: see die
}

// phase is where a node stands in its life.
type phase int32

const (
	phaseNew phase = iota
	phaseStarting
	phaseServing
	phaseDraining
	phaseLast   // it accepts nobody, and ends with its last client
	phaseHanded // another process has taken over: only sessions are left
)

// Node is one running Rangefinder: what the configuration describes, from Open to Close.
type Node struct {
	// constant after New
	log     *slog.Logger
	level   *slog.LevelVar
	options Options
	delays  lab.Rules // none outside demos and tests
	dialer  *lab.Dialer
	started time.Time
	metrics *metrics
	audit   *auditLog
	guard   *auth.Guard // its policy is what a reload replaces

	// constant once Open has returned; made in this order, closed in the opposite one
	dir       *dataDir
	httpLn    net.Listener
	table     *rib.Table
	fib       *fib.Handle
	moves     *moving.Moves
	loads     *loads // what ranges and keys get
	compiler  *fib.Maintainer
	watchdog  *fib.Watchdog
	pools     *pool.Pools
	planner   *sqlkey.Planner
	server    *wire.Server
	twophase  *twophase.Manager
	carriers  *move.Postgres // the shards, as moves see them
	mover     *move.Mover
	pgLn      net.Listener
	sockets   sockets      // from the process before this one; nil: opened here
	word      *gossip.Word // what has been said in this node's name before; nil: nothing
	recalled  []rib.Known  // what was last known of backends, until the probes have begun
	before    *predecessor // nil: there is none
	serveHTTP func()

	// channels
	pulls      chan pullFrom // capacity 1: somebody has a newer epoch
	sawPrimary chan struct{} // capacity 1: there is a new position to compare those of replicas with
	cancels    chan struct{} // capacity maxCancels: cancel requests that are being passed on
	failed     chan struct{} // closed when a listener ends by itself
	retired    chan struct{} // closed when Close should be called: see Retired
	contacted  chan struct{} // closed after the first try to reach the cluster
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	// atomic
	parts     parts
	setup     atomic.Pointer[setup] // what is in force: see reload.go
	phase     atomic.Int32
	handing   atomic.Bool                    // another process is taking over
	whole     atomic.Bool                    // every part is there: Open got to its end
	waitsFor  atomic.Pointer[string]         // while starting: what for
	lessee    atomic.Pointer[cluster.Lessee] // nil: there is none yet
	clusterID atomic.Pointer[string]
	share     atomic.Int64              // this node's of pool.budget; -1: none
	leaving   atomic.Pointer[departure] // nil: this node is not drained, or has not noticed yet

	keeper *shareKeeper // owned by budgetLoop
	elders elders       // owned by Open, then by leaseLoop

	dependents dependents // has a guard of its own
	types      types      // likewise
	catalogs   catalogs   // likewise
	unique     *uniques   // atomic
	lender     *lender    // has a guard of its own
	stale      staleness  // likewise

	drainsMu   sync.Mutex // one writer of drains.json
	drainsKept uint64     // guarded by drainsMu: the sum of what is in it

	reloading     sync.Mutex // held by the one reload, or the handover
	contactedOnce sync.Once
	retireOnce    sync.Once

	// guarded by mu
	mu      sync.Mutex
	state   State
	closers []closer
	closed  bool
	failure error
	shards  map[string]time.Time // shards that could not be recorded: when to try again
	alarms  map[string]string    // by subject

	peersBefore []string // State.Peers as this process found them, without those that are forgotten
}

// parts are what a process gives up to the one that takes over from it, and makes anew if that one fails.
type parts struct {
	port    atomic.Pointer[port.Port]
	ledger  atomic.Pointer[cluster.Ledger]
	speaker atomic.Pointer[gossip.Speaker]
	prober  atomic.Pointer[probe.Prober]
}

// port, ledger, speaker and prober are nil before Open has come to them. While another process takes over, and after that, they
// are closed: then they say what was last known, and do nothing more.
func (n *Node) port() *port.Port         { return n.parts.port.Load() }
func (n *Node) ledger() *cluster.Ledger  { return n.parts.ledger.Load() }
func (n *Node) speaker() *gossip.Speaker { return n.parts.speaker.Load() }
func (n *Node) prober() *probe.Prober    { return n.parts.prober.Load() }

// closer is one thing that Open started.
type closer struct {
	name string       // no two alike
	stop func() error // nil: it is stopped
}

// New checks a configuration and follows its secrets. It starts nothing and touches no disk.
func New(cfg Config, o Options) (*Node, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	if o.Getenv == nil {
		o.Getenv = os.LookupEnv
	}
	if o.Die == nil {
		o.Die = func(why string) { die(o.Logger, why, os.Stderr, os.Exit) }
	}
	first, err := newSetup(cfg, o, nil)
	if err != nil {
		return nil, err
	}
	n := &Node{
		log: o.Logger, level: o.Level, options: o,
		pulls: make(chan pullFrom, 1), sawPrimary: make(chan struct{}, 1), cancels: make(chan struct{}, maxCancels), failed: make(chan struct{}), retired: make(chan struct{}), contacted: make(chan struct{}),
		shards: map[string]time.Time{}, alarms: map[string]string{}, unique: newUniques(time.Now), dependents: dependents{stirred: make(chan struct{}, 1)},
	}
	n.setup.Store(first)
	n.lender = newLender(n)
	n.audit = newAuditLog(o.Logger)
	n.guard = auth.NewGuard(first.policy, n.askStored)
	n.metrics = newMetrics(n.gauges)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	for _, l := range cfg.Lab {
		n.delays = append(n.delays, lab.Rule{Net: netip.MustParsePrefix(l.Net), RTT: l.RTT.Duration}) // checked above
	}
	n.dialer = &lab.Dialer{Rules: n.delays}
	return n, nil
}

// Open starts the node and returns when it serves clients. A node that joins waits for its cluster as long as ctx lasts.
// When Open fails, everything it started is stopped again.
func (n *Node) Open(ctx context.Context) (err error) {
	if !n.phase.CompareAndSwap(int32(phaseNew), int32(phaseStarting)) {
		return errors.New("node: opened twice")
	}
	defer func() {
		if err != nil {
			n.stop()
		}
	}()
	n.started = time.Now()
	n.waits("starting")
	n.warn()
	for _, step := range []func(context.Context) error{
		n.takeOver, n.openDir, n.openHTTP, n.openPort, n.join, n.openTables, n.openLedger, n.openGossip, n.openProber, n.openTwoPhase, n.openMover, n.startLoops, n.awaitOwnership, n.awaitBeliefs, n.awaitDependents, n.openServer, n.openHandover,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	n.whole.Store(true)
	n.phase.Store(int32(phaseServing))
	n.log.Info("serving", "node", n.state.Node, "region", n.cfg().Region, "cluster", n.state.ClusterID,
		"postgres", n.pgLn.Addr().String(), "cluster_port", n.port().Addr(), "debug", "http://"+n.httpLn.Addr().String()+"/debug")
	return nil
}

// warn says loudly what must not be overlooked.
func (n *Node) warn() {
	if n.cfg().Insecure && n.setup.Load().secrets.ClusterKey == nil {
		n.log.Warn("INSECURE: no cluster key; whoever reaches the cluster port can join the cluster", "bind", n.cfg().Bind)
	}
	if n.setup.Load().tls == nil && n.cfg().exposed() != "" {
		n.log.Warn("no [tls]: what clients ask and are answered goes over the network in clear text", "bind", n.cfg().Bind)
	}
	if ip, err := netip.ParseAddr(n.cfg().httpBind()); err == nil && !ip.IsLoopback() && n.setup.Load().api == nil {
		n.log.Warn("[api] has no certificate: tokens and all that the HTTP port says go over the network in clear text", "http_bind", n.cfg().httpBind())
	}
	n.warnPolicy(n.setup.Load())
	for _, l := range n.cfg().Lab {
		n.log.Warn("DELAY INJECTED: this is a laboratory, not production", "net", l.Net, "rtt", l.RTT.Duration)
	}
	if len(n.cfg().Databases) == 0 {
		n.log.Warn("no [[databases]]: no client can connect")
	}
	if len(n.cfg().Users)+len(n.cfg().HBA) == 0 && n.cfg().Auth.User == "" {
		n.log.Warn("no [[users]]: no client can log in")
	}
}

// Failed is closed when a part of the node has ended by itself; Close then returns why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// fail records the first failure of a running node.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure == nil && !n.closed {
		n.failure = err
		n.log.Error("a part of this node has ended", "error", err)
		close(n.failed)
	}
}

// Close drains and stops the node: readyz turns 503, no new client is accepted, sessions finish their transaction within
// drain_timeout, then the node leaves the cluster. It returns what went wrong on the way, or what made the node fail.
func (n *Node) Close() error {
	if n.phase.Swap(int32(phaseDraining)) == int32(phaseServing) {
		n.log.Info("draining", "timeout", n.cfg().DrainTimeout.Duration, "sessions", n.server.Stats().Sessions)
	}
	return n.stop()
}

// stop closes what was opened, the latest first.
func (n *Node) stop() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	errs := []error{n.failure}
	names := make([]string, len(n.closers))
	for i, c := range n.closers {
		names[len(names)-1-i] = c.name
	}
	n.mu.Unlock()
	for _, name := range names {
		if err := n.giveUp(name); err != nil {
			n.log.Warn("while stopping", "part", name, "error", err)
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	n.cancel()
	n.wg.Wait()
	n.catalogs.close()
	n.log.Info("stopped")
	return errors.Join(errs...)
}

// opened notes how to stop what was just started. What is started again takes its old place.
func (n *Node) opened(name string, stop func() error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.closers {
		if n.closers[i].name == name && n.closers[i].stop == nil {
			n.closers[i].stop = stop
			return
		}
	}
	n.closers = append(n.closers, closer{name, stop})
}

// giveUp stops one part; of one that is stopped already it does nothing.
func (n *Node) giveUp(name string) error {
	n.mu.Lock()
	var stop func() error
	for i := range n.closers {
		if n.closers[i].name == name {
			stop, n.closers[i].stop = n.closers[i].stop, nil
		}
	}
	n.mu.Unlock()
	if stop == nil {
		return nil
	}
	return stop()
}

// waits says what a starting node waits for, on /readyz.
func (n *Node) waits(why string) { n.waitsFor.Store(&why) }

// openDir locks the data directory and counts this boot.
func (n *Node) openDir(context.Context) error {
	dir, err := openDataDir(n.cfg().DataDir)
	if err != nil {
		return err
	}
	n.dir = dir
	n.opened("data directory", dir.Close)
	if err := n.openElders(); err != nil {
		return err
	}
	state, found, err := dir.Load()
	if err != nil {
		return err
	}
	switch {
	case !found && dir.HasLedger():
		return &Failure{
			Message: fmt.Sprintf("%s holds a ledger but no %s", dir.path, stateFile),
			Hint:    "Restore the file, or empty the whole data_dir and start again with --join.",
			Err:     ErrState,
		}
	case found && n.cfg().Name != "" && n.cfg().Name != state.Node:
		return &Failure{
			Message: fmt.Sprintf("this data_dir belongs to node %q, and the configuration names it %q", state.Node, n.cfg().Name),
			Detail:  "The ledger knows its voters by name.",
			Hint:    fmt.Sprintf("Set name = %q, or give node %q a data_dir of its own and --join.", state.Node, n.cfg().Name),
		}
	case found && state.Region != n.cfg().Region:
		n.log.Warn("this node has moved to another region", "was", state.Region, "is", n.cfg().Region)
	}
	if !found {
		state = State{Node: n.cfg().Name}
		if state.Node == "" {
			state.Node = newNodeName(n.cfg().Region)
		}
	}
	state.Region = n.cfg().Region
	state.Incarnation++
	n.state = state
	if found { // else there is nothing worth keeping before the cluster is known
		n.clusterID.Store(&state.ClusterID)
		return dir.Save(state)
	}
	return nil
}

// change edits the state and saves it.
func (n *Node) change(edit func(*State)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.state
	edit(&next)
	if err := n.dir.Save(next); err != nil {
		return err
	}
	if n.state.ClusterID != next.ClusterID { // while Open runs; then it is read without the lock, as the name is
		n.state.ClusterID = next.ClusterID
	}
	n.state.Incarnation, n.state.Bootstrap, n.state.Peers = next.Incarnation, next.Bootstrap, next.Peers
	return nil
}

// openHTTP serves health checks from the first moment on; everything else says that the node is starting.
func (n *Node) openHTTP(context.Context) error {
	ln, err := n.sockets.http, error(nil)
	if ln == nil {
		ln, err = net.Listen("tcp", net.JoinHostPort(n.cfg().httpBind(), strconv.Itoa(n.cfg().Ports.HTTP)))
	}
	if err != nil {
		return portTaken("http", "ports.http", err)
	}
	n.httpLn = ln
	if err := n.audit.open(n.dir.path); err != nil {
		_ = ln.Close()
		return fmt.Errorf("the audit log: %w", err)
	}
	n.opened("audit log", n.audit.close)
	a := &api{office: n, metrics: n.metrics.handler(), log: n.log, audit: n.audit, gate: n.gatekeeper}
	server := newHTTPServer(n.gate(a.handler()), n.log)
	secured := ln
	if c := n.setup.Load().api; c != nil {
		secured = tls.NewListener(ln, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.Get().asking, nil }})
	}
	n.opened("HTTP", func() error {
		_ = ln.Close() // also if nobody serves it yet
		return shutdownHTTP(server)
	})
	n.serveHTTP = func() {
		n.wg.Go(func() {
			if err := server.Serve(secured); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				n.fail(fmt.Errorf("the HTTP port: %w", err))
			}
		})
	}
	if n.before == nil { // else the process before this one answers until this one is ready
		n.serveHTTP()
	}
	return nil
}

// shutdownHTTP gives calls in progress a second: they are answered from memory, but a profile may take half a minute.
func shutdownHTTP(s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return s.Close()
	}
	return nil
}

// gate answers for a node whose parts are not all there yet.
func (n *Node) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.whole.Load() || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		fail(w, &apiError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, ErrorView: ErrorView{Error: "the node is starting: " + *n.waitsFor.Load()}})
	})
}

// portTaken says which key to change.
func portTaken(what, key string, err error) error {
	return &Failure{Message: fmt.Sprintf("cannot listen on the %s port: %v", what, err), Hint: "Set another one by " + key + ", or another address by bind.", Err: err}
}

// openServer accepts Postgres clients.
func (n *Node) openServer(ctx context.Context) error {
	n.server = n.buildServer()
	n.serveCancels()
	ln, err := n.sockets.postgres, error(nil)
	if ln == nil {
		ln, err = wire.Listen(ctx, net.JoinHostPort(n.cfg().Bind, strconv.Itoa(n.cfg().Ports.Postgres)))
	}
	if err != nil {
		return portTaken("Postgres", "ports.postgres", err)
	}
	n.pgLn = ln
	if err := n.relieve(); err != nil {
		_ = ln.Close()
		return err
	}
	n.twophase.Open()
	n.opened("two-phase commit", func() error { n.twophase.Close(); return nil })
	n.startMover()
	n.opened("clients", func() error {
		_ = ln.Close() // also if Serve has not come to know it yet
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg().DrainTimeout.Duration)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			n.log.Warn("drain_timeout is over: sessions were cut off", "error", err)
		}
		return nil
	})
	n.wg.Go(func() {
		if err := n.server.Serve(ln); err != nil {
			n.fail(fmt.Errorf("the Postgres port: %w", err))
		}
	})
	return nil
}
