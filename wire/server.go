package wire

import (
	"container/list"
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/auth"
	"rangefinder/wire/console"
	"rangefinder/wire/epoll"
	"rangefinder/wire/heat"
	"rangefinder/wire/moving"
	"rangefinder/wire/oids"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

// Metrics is told what sessions do. Its methods are called on the way of a statement: they must not block.
type Metrics interface {
	// Routed is called for each request that is sent to a backend, with how many reads and other statements are run by it and
	// the time it took to find out where it goes.
	Routed(reads, writes int, took time.Duration)
	// Refused is called for each request that the node itself answered with an error.
	Refused(sqlstate string)
	// BackendError is called for each error that a backend answered with or was lost with.
	BackendError(backend, sqlstate string)
	// Failover is called when a statement goes to another backend because this one failed.
	Failover(backend string)
	// Scattered is called for each statement that is run on several shards because nothing binds it to one.
	Scattered(shards int)
	// Limited is called when a client meets one of the limits.
	Limited(kind Refusal)
}

// Config is what a Server needs.
type Config struct {
	FIB           *fib.Handle
	Planner       *sqlkey.Planner
	Pools         *pool.Pools
	Guard         *auth.Guard                                          // who may come in
	SaltSecret    []byte                                               // see pg.AcceptConfig: alike on all nodes of a cluster
	Node          string                                               // this node's name: cancel keys tell whose they are
	ForwardCancel func(ctx context.Context, pid uint32, secret []byte) // a cancel request that is for no session here; nil: dropped
	Recheck       func(backend string)                                 // that gets writes seems to be no primary: look at it; must not block; nil: nobody does
	Positions     *rib.Positions                                       // how far this node's probes have seen backends
	Look          func(*rib.Backend)                                   // somebody waits for how far a primary is: look at it soon; must not block; nil: nobody does
	Moves         *moving.Moves                                        // of ranges that change hands; nil: nobody tells of any
	Heat          *heat.Meter                                          // counts the statements on each range, and finds hot keys; nil: nobody does
	Leased        func() bool                                          // whether this node has a lease; must not block; nil: it has one at any time
	Alone         func(at time.Time) bool                              // whether it had none at that moment, and for long enough to tell clients, and not to wait for it; must not block; nil: at once
	Fenced        func()                                               // a shard has refused a row that it does not own: look for a newer table; must not block; nil: nobody does
	Defined       func(ctx context.Context, database string)           // a client has changed a database's schema: returns when this node plans by the new one, or ctx has ended; nil: nobody need look
	Learn         func(ctx context.Context, database string) bool      // somebody has met a type that is not among those of SetTypes: returns when the catalogs have been read anew and the types set, and whether all of them have been; nil: nobody looks
	Unique        func() (int64, error)                                // makes the ids of rangefinder.unique_id(); must not block; nil: nobody does
	Explain       func(*Route) []string                                // tells where a statement goes and why, for EXPLAIN (ROUTE), in lines; nil: it is refused
	Committer     scatter.Committer                                    // ends transactions that have written on several shards; nil: they are refused
	Watch         func(twophase.Span) (forget func())                  // is told of transactions that are open on several shards; nil: nobody is
	Metrics       Metrics
	Logger        *slog.Logger
	Live          Live // until the first Reload
}

// Server accepts client connections and runs their sessions.
type Server struct {
	// constant
	cfg        Config
	pools      *pool.Pools
	log        *slog.Logger
	salts      []byte        // see pg.AcceptConfig.SaltSecret: the same after a reload
	made       time.Time     // env.now was 0 then
	sleepAfter time.Duration // a session without requests sleeps; see sleep.go
	queue      *pool.Conn    // stands for the connection that a session waits for

	// atomic
	live       atomic.Pointer[live]
	draining   atomic.Bool
	catalog    atomic.Pointer[catalogOf]
	types      atomic.Pointer[map[string]*oids.Database] // see SetTypes
	accepted   atomic.Uint64
	untrustedN atomic.Uint64 // handshakes of TLS that have failed
	ids        atomic.Uint64 // given to sessions

	// safe for concurrent use
	buffers    sync.Pool    // of *buffers
	reads      sync.Pool    // of *[]byte, for server bytes
	set        *epoll.Set   // of the sockets on the raw transport, which are the pools' as well; nil: there is none
	dozed      atomic.Int64 // how many sessions have gone to sleep so far
	seats      seats
	scatterLog rationed       // of statements on several shards
	doorLog    rationed       // of connections that were nobody's
	untrusted  untrusted      // of TLS with clients that has failed
	scattered  scatter.Shared // of statements over several shards
	logins     logins
	sweeper    sync.Once
	changed    chan struct{} // capacity 1: other limits are in force
	cutters    chan struct{} // capacity maxCutters: statements that are being canceled
	hands      chan net.Conn // to a goroutine that rests
	resting    atomic.Int32  // those, and those about to

	suspending sync.Mutex // the pools are told of the end of a pause before anybody begins another one

	// guarded by mu
	mu         sync.Mutex
	listeners  map[net.Listener]*Listener // nil: its connections do not inherit TCP's keepalive
	conns      map[net.Conn]*list.Element // all, from accept to close; of handshakes: nil once logged in
	handshakes list.List                  // of *handshake, the oldest first
	sessions   map[uint32]*session        // by pid
	gates      map[string]*gate           // by database, also of those that a reload has removed
	fresh      map[pool.Identity]*fresh
	asking     map[pool.Identity]chan struct{} // closed when what is asked for fresh has been answered
	beside     map[string]chan struct{}        // by backend; capacity maxBeside: connections beside its pool
	proven     map[provenKey]*proof
	operators  map[uint32]*operator       // by pid
	hubs       map[string]*hub            // by database
	period     period                     // of averages
	ended      map[string]*console.Totals // of sessions that are over, by database; of the same ones as gates

	ctx      context.Context // ends when sessions are to be ended by force
	cancel   context.CancelFunc
	stopping context.Context // ends when the server begins to shut down
	stop     context.CancelFunc
	done     sync.WaitGroup // of connections
	serving  sync.WaitGroup // calls of Serve
	helpers  sync.WaitGroup // goroutines that are no session
}

type catalogOf struct {
	ownership *rib.Ownership
	live      *live
	catalog   *sqlkey.Catalog
}

// NewServer returns a server that serves nothing yet.
func NewServer(cfg Config) *Server {
	if cfg.Recheck == nil {
		cfg.Recheck = func(string) {}
	}
	if cfg.Look == nil {
		cfg.Look = func(*rib.Backend) {}
	}
	if cfg.Leased == nil {
		cfg.Leased = func() bool { return true }
	}
	if cfg.Alone == nil {
		cfg.Alone = func(time.Time) bool { return !cfg.Leased() }
	}
	if cfg.Fenced == nil {
		cfg.Fenced = func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, pools: cfg.Pools, log: cfg.Logger, made: time.Now(), sleepAfter: sleepAfter,
		listeners: make(map[net.Listener]*Listener), hands: make(chan net.Conn), conns: make(map[net.Conn]*list.Element),
		sessions: make(map[uint32]*session), fresh: make(map[pool.Identity]*fresh), asking: make(map[pool.Identity]chan struct{}), beside: make(map[string]chan struct{}), proven: make(map[provenKey]*proof),
		ctx: ctx, cancel: cancel, gates: make(map[string]*gate), queue: new(pool.Conn),
		operators: make(map[uint32]*operator), hubs: make(map[string]*hub), ended: make(map[string]*console.Totals), salts: cfg.SaltSecret,
	}
	s.untrusted.known = make(map[failure]*failing)
	s.seats.users, s.seats.databases, s.logins.byAddr = make(map[string]int), make(map[string]int), make(map[netip.Addr]*list.Element)
	if s.salts == nil {
		s.salts = make([]byte, 32)
		_, _ = rand.Read(s.salts) // never fails
	}
	s.changed, s.cutters = make(chan struct{}, 1), make(chan struct{}, maxCutters)
	s.stopping, s.stop = context.WithCancel(ctx)
	s.buffers.New = func() any { return new(buffers) }
	s.reads.New = func() any { b := make([]byte, serverBuffer); return &b }
	s.period.since = time.Now()
	s.Reload(cfg.Live)
	if cfg.Moves != nil {
		cfg.Moves.Serve(s.working)
	}
	return s
}

// catalogFor returns the planner's view of the ownership that t was compiled from.
func (s *Server) catalogFor(t *fib.Table) *sqlkey.Catalog {
	o, l := t.Ownership(), s.live.Load()
	if c := s.catalog.Load(); c != nil && c.ownership == o && c.live == l {
		return c.catalog
	}
	c := &catalogOf{o, l, sqlkey.NewCatalog(o, l.rules, l.dependents)}
	s.catalog.Store(c)
	return c.catalog
}

// Catalog returns what plans stand on at present.
func (s *Server) Catalog() *sqlkey.Catalog { return s.catalogFor(s.cfg.FIB.Load()) }

// Stats is a server's state.
type Stats struct {
	Clients  int    `json:"clients"`  // connections, handshakes included
	Sessions int    `json:"sessions"` // authenticated
	Accepted uint64 `json:"accepted"` // since the start
	NoTLS    uint64 `json:"no_tls"`   // of those: TLS was asked for and did not come about
	Draining bool   `json:"draining"`
}

// Stats returns the server's state.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Clients: len(s.conns), Sessions: len(s.sessions), Accepted: s.accepted.Load(), NoTLS: s.untrustedN.Load(), Draining: s.draining.Load()}
}
