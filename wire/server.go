package wire

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
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
	"rangefinder/wire/pg"
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
	Node          string                                               // this node's name: cancel keys tell whose they are
	ForwardCancel func(ctx context.Context, pid uint32, secret []byte) // a cancel request that is for no session here; nil: dropped
	Recheck       func(backend string)                                 // that gets writes seems to be no primary: look at it; must not block; nil: nobody does
	Positions     *rib.Positions                                       // how far this node's probes have seen backends
	Look          func(*rib.Backend)                                   // somebody waits for how far a primary is: look at it soon; must not block; nil: nobody does
	Moves         *moving.Moves                                        // of ranges that change hands; nil: nobody tells of any
	Heat          *heat.Meter                                          // counts the statements on each range, and finds hot keys; nil: nobody does
	Leased        func() bool                                          // whether this node has a lease; must not block; nil: it has one at any time
	Alone         func(at time.Time) bool                              // whether it had none at that moment, and for long enough to tell clients; must not block; nil: never
	Fenced        func()                                               // a shard has refused a row that it does not own: look for a newer table; must not block; nil: nobody does
	Defined       func(ctx context.Context, database string)           // a client has changed a database's schema: returns when this node plans by the new one, or ctx has ended; nil: nobody need look
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
	mock       []byte        // see pg.AcceptConfig.MockSecret: the same after a reload
	made       time.Time     // env.now was 0 then
	sleepAfter time.Duration // a session without requests sleeps; see sleep.go
	queue      *pool.Conn    // stands for the connection that a session waits for

	// atomic
	live     atomic.Pointer[live]
	draining atomic.Bool
	catalog  atomic.Pointer[catalogOf]
	accepted atomic.Uint64
	ids      atomic.Uint64 // given to sessions

	// safe for concurrent use
	buffers    sync.Pool    // of *buffers
	reads      sync.Pool    // of *[]byte, for server bytes
	set        *epoll.Set   // of the sockets on the raw transport, which are the pools' as well; nil: there is none
	dozed      atomic.Int64 // how many sessions have gone to sleep so far
	seats      seats
	scatterLog scatterLog
	scattered  scatter.Shared // of statements over several shards
	logins     logins
	sweeper    sync.Once
	changed    chan struct{} // capacity 1: other limits are in force
	cutters    chan struct{} // capacity maxCutters: statements that are being canceled
	hands      chan net.Conn // to a goroutine that rests
	resting    atomic.Int32  // those, and those about to

	// guarded by mu
	mu         sync.Mutex
	listeners  map[net.Listener]*Listener // nil: its connections do not inherit TCP's keepalive
	conns      map[net.Conn]*list.Element // all, from accept to close; of handshakes: nil once logged in
	handshakes list.List                  // of net.Conn, the oldest first
	sessions   map[uint32]*session        // by pid
	gates      map[string]*gate           // by database, also of those that a reload has removed
	fresh      map[pool.Identity]*fresh
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
		cfg.Alone = func(time.Time) bool { return false }
	}
	if cfg.Fenced == nil {
		cfg.Fenced = func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, pools: cfg.Pools, log: cfg.Logger, made: time.Now(), sleepAfter: sleepAfter,
		listeners: make(map[net.Listener]*Listener), hands: make(chan net.Conn), conns: make(map[net.Conn]*list.Element),
		sessions: make(map[uint32]*session), fresh: make(map[pool.Identity]*fresh),
		ctx: ctx, cancel: cancel, gates: make(map[string]*gate), queue: new(pool.Conn),
		operators: make(map[uint32]*operator), hubs: make(map[string]*hub), ended: make(map[string]*console.Totals), mock: make([]byte, 32),
	}
	s.seats.users, s.seats.databases, s.logins.byAddr = make(map[string]int), make(map[string]int), make(map[netip.Addr]*list.Element)
	_, _ = rand.Read(s.mock) // never fails
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

// Listener is what Listen returns. Go leaves the connections alone that it accepts: they inherit TCP's keepalive from it, which is
// three system calls less for each.
type Listener struct {
	*net.TCPListener
	file *os.File // the same socket once more: Go lets nobody else accept on a listener
}

// Listen listens on a TCP port, in the way that suits Serve best.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	ln, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	own := &Listener{TCPListener: ln.(*net.TCPListener)}
	if own.file, err = own.File(); err != nil {
		ln.Close()
		return nil, err
	}
	return own, nil
}

// Close is net.Listener's.
func (l *Listener) Close() error { return errors.Join(l.file.Close(), l.TCPListener.Close()) }

// Serve accepts connections until ln is closed or the server shut down; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.draining.Load() { // Shutdown came first: it waits for what has begun, and nothing may begin any more
		s.mu.Unlock()
		ln.Close()
		return nil
	}
	own, _ := ln.(*Listener)
	if own != nil && !setInherited(own, s.live.Load().Limits.KeepAlive) {
		own = nil
	}
	s.listeners[ln] = own
	s.serving.Add(1)
	s.sweeper.Do(func() {
		s.set = s.pools.Set()
		s.helpers.Go(s.heraldLoop)
		s.helpers.Go(s.sweepLoop)
		s.helpers.Go(s.averageLoop)
	})
	s.mu.Unlock()
	defer s.serving.Done()
	accept := s.acceptor(ln, own)
	for {
		conn, err := accept()
		if err != nil {
			if s.draining.Load() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			s.log.Warn("accept failed", "err", err)
			select { // out of file descriptors, most likely: let some close
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
				return nil
			}
			continue
		}
		s.mu.Lock()
		if s.draining.Load() {
			s.mu.Unlock()
			conn.Close()
			return nil
		}
		evicted := s.knocks(conn)
		s.done.Add(1)
		s.mu.Unlock()
		for _, old := range evicted {
			s.refusedBy(RefusedHandshake)
			old.Close()
		}
		s.accepted.Add(1)
		if own == nil {
			pool.KeepAlive(conn, s.live.Load().Limits.KeepAlive)
		}
		select {
		case s.hands <- conn:
		default:
			go s.work(conn)
		}
	}
}

// acceptor is how the connections of a listener are accepted: those of our own go into the set at once, where their sessions need them.
func (s *Server) acceptor(ln net.Listener, own *Listener) func() (net.Conn, error) {
	if s.set == nil || own == nil {
		return ln.Accept
	}
	raw, err := own.file.SyscallConn()
	if err != nil {
		return ln.Accept
	}
	return func() (net.Conn, error) {
		sock, err := s.set.Accept(raw, own.Addr())
		if err != nil {
			return nil, err
		}
		return sock, nil
	}
}

// maxResting bounds the goroutines that wait for a connection after one has ended.
const maxResting = 16

// work serves a connection, and then others: a goroutine that has served one has a stack as large as that takes, and growing a
// new one costs a twentieth of a short connection.
func (s *Server) work(conn net.Conn) {
	for {
		if ses := s.serve(conn); ses != nil {
			ses.goOn()
		} else {
			s.gone(conn)
		}
		if s.resting.Add(1) > maxResting {
			s.resting.Add(-1)
			return
		}
		select {
		case conn = <-s.hands:
			s.resting.Add(-1)
		case <-s.ctx.Done():
			return
		}
	}
}

// gone is the end of a connection.
func (s *Server) gone(conn net.Conn) {
	conn.Close()
	s.goes(conn)
	s.done.Done()
}

// serve takes one connection through its login, and returns its session; nil if it was here for something else, or not let in. A
// panic ends this connection and no other.
func (s *Server) serve(conn net.Conn) *session {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("login panicked", "client", conn.RemoteAddr(), "panic", r, "stack", stack())
		}
	}()
	l := s.live.Load() // for the whole of this login
	client, err := pg.Accept(quicken(conn), l.accept)
	if err != nil {
		level := slog.LevelInfo
		if quietly(err) {
			level = slog.LevelDebug
		}
		s.log.Log(s.ctx, level, "client refused", "client", conn.RemoteAddr(), "err", err)
		return nil
	}
	if client.Startup.Kind == pg.KindCancel {
		s.cancelRequest(client.Startup.PID, client.Startup.Secret)
		return nil
	}
	s.cfg.Guard.Admitted(client.User, client.Database, client.Shown)
	if client.Database == console.Name {
		s.serveConsole(conn, client, l)
		return nil
	}
	if kind, e := s.seats.take(&l.Limits, client.User, client.Database); e != nil {
		s.refusedBy(kind)
		s.refuse(client, e)
		return nil
	}
	leave := sync.OnceFunc(func() { s.seats.leave(client.User, client.Database) })
	begun := false
	defer func() {
		if !begun {
			leave()
		}
	}()
	if !s.loggedIn(conn) {
		return nil
	}
	ses, e := s.begin(conn, client, l)
	if e != nil {
		leave() // first: it may try again as soon as it hears of it
		s.refuse(client, e)
		return nil
	}
	s.pools.Join(ses.id)
	begun = true
	return ses
}

// refuse tells an authenticated client why it cannot go on.
func (s *Server) refuse(client *pg.Client, e *pg.Error) {
	client.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	client.Conn.Write(pg.AppendError(client.Held, e.Fatal()))
	client.Conn.Close()
	s.log.Info("client refused", "client", client.Conn.RemoteAddr(), "user", client.User, "database", client.Database, "err", e)
}

// begin makes the session of an authenticated client and writes what a server says at the start of one.
func (s *Server) begin(conn net.Conn, client *pg.Client, l *live) (*session, *pg.Error) {
	if _, ok := l.Databases[client.Database]; !ok {
		return nil, pg.NewError(pg.CodeInvalidCatalogName, `database "`+client.Database+`" does not exist`).
			WithHint("Name it under [[databases]] in the node's configuration.")
	}
	id := pool.Identity{User: client.User, Database: client.Database}
	g := s.gateOf(client.Database)
	if g.disabled.Load() {
		return nil, pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "database \"%s\" is not currently accepting connections", client.Database).
			WithHint("It was disabled on this node: ENABLE it in the console.")
	}
	if err := s.pass(s.ctx, g, client.Conn); err != nil {
		return nil, asError(err)
	}
	f, e := s.freshFor(s.ctx, id, l)
	g.leave()
	if e != nil {
		return nil, e
	}
	c := newCore(&l.env, client.User, client.Database)
	c.own.database, c.own.acrossDatabase = &g.consistency, &g.across
	c.own.scatterDatabase, c.own.isolatedDatabase = &g.scatter, &g.isolated
	base, err := startupSettings(client.Startup.Params, f.params, &c.own, &l.env)
	if err != nil {
		return nil, asError(err)
	}
	if e := c.checkHints(base.hints.inForce()); e != nil {
		return nil, e
	}
	c.settings, c.base, c.freshPath = base, base, f.searchPath
	c.ownConn = l.Databases[client.Database].OwnConnections
	c.params = newParams(f.params)
	for _, x := range base.list {
		if name := canonicalParam(x.name); c.params.get(name) != "" || name == "application_name" {
			c.params.set(name, x.value)
		}
	}
	ses := &session{server: s, client: client.Conn, socket: conn, id: id, core: c, gate: g, connected: time.Now()}
	ses.goRaw()
	client.Conn = ses.client
	if !s.register(ses, client.Minor) {
		return nil, pg.NewError(pg.CodeTooManyConnections, "sorry, too many clients already")
	}
	s.adopted(conn, ses.socket)
	c.pid, c.id = ses.pid, s.ids.Add(1)
	if len(client.Rest) > 0 {
		c.clientRead(copy(c.clientSpace(), client.Rest)) // which has more room than Rest can need
	}
	c.out = append(c.out, client.Held...)
	for k, v := range c.params.all() {
		c.out = pg.AppendParameterStatus(c.out, k, v)
	}
	c.out = pg.AppendBackendKeyData(c.out, ses.pid, ses.secret)
	c.out = pg.AppendReady(c.out, 'I')
	return ses, nil
}

// Stats is a server's state.
type Stats struct {
	Clients  int    `json:"clients"`  // connections, handshakes included
	Sessions int    `json:"sessions"` // authenticated
	Accepted uint64 `json:"accepted"` // since the start
	Draining bool   `json:"draining"`
}

// Stats returns the server's state.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Clients: len(s.conns), Sessions: len(s.sessions), Accepted: s.accepted.Load(), Draining: s.draining.Load()}
}

// Shutdown stops accepting, ends idle sessions, lets open transactions finish until ctx ends, and then closes what is left.
// It returns ctx's error if sessions had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.stop()
	s.mu.Lock()
	for ln := range s.listeners {
		ln.Close()
	}
	for _, ses := range s.sessions {
		ses.wake() // it goes if it is idle
	}
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		s.done.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
		s.cutOff()
		select {
		case <-gone:
		case <-time.After(lastWait):
			s.log.Error("sessions did not end when they were cut off", "sessions", s.Stats().Sessions)
		}
	}
	s.cancel()
	s.helpers.Wait()
	return err
}

// Wait returns when the last connection has ended, or with ctx's error. Nothing may be accepted any more.
func (s *Server) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		s.serving.Wait()
		s.done.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// lastWait is for sessions that have been cut off: nothing that they do may take that long.
const lastWait = 5 * time.Second

// cutOff ends all sessions, wherever they are. A session uses its sockets as only who closes them may: so they get a deadline that
// has passed, which wakes it.
func (s *Server) cutOff() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	alive := make(map[net.Conn]bool, len(s.sessions))
	for _, ses := range s.sessions {
		alive[ses.client] = true
		ses.client.SetDeadline(longAgo)
		ses.wake()
		ses.mu.Lock()
		if ses.running != nil {
			ses.strike()
		}
		ses.mu.Unlock()
	}
	for conn := range s.conns {
		if !alive[conn] { // a handshake, or below TLS
			conn.Close()
		}
	}
}
