package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/epoll"
	"rangefinder/wire/pg"
)

// Dialer connects to a backend.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Config is what the pools of a node need.
type Config struct {
	Limits     Limits // until the first SetLimits
	Dial       Dialer
	TLS        func(addr string) *tls.Config   // of connections and cancel requests to that backend; nil, or if it returns nil: clear text
	Credential func(Identity) pg.Credential    // what a backend is shown; zero: nothing, which is enough for one that trusts this node
	Refused    func(context.Context, Identity) // a backend did not take what it was shown, or asked for more; nil: nobody is told
	Report     func(backend string, err error) // a backend could not be reached: this node's own evidence
	Logger     *slog.Logger
	NoRing     bool // io_uring is not used for the sockets of Set
}

func (c *Config) tls(addr string) *tls.Config {
	if c.TLS == nil {
		return nil
	}
	return c.TLS(addr)
}

// Pools holds one pool for each backend that was ever asked for.
type Pools struct {
	// constant
	cfg Config

	// atomic
	ids    atomic.Uint64 // given to connections
	limits atomic.Pointer[Limits]
	share  atomic.Int64 // of the cluster's budget; < 0: there is none

	// guarded by mu
	mu      sync.RWMutex
	byName  map[string]*backendPool
	present map[Identity]int // sessions
	resting map[string]bool  // backends, as Rest was told last; never changed
	closed  bool

	watch *epoll.Set // made by Open; nil: none
	start time.Time  // what connections count their time from
	stop  chan struct{}
	done  sync.WaitGroup
}

// New returns pools without connections.
func New(cfg Config) *Pools {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Pools{cfg: cfg, byName: make(map[string]*backendPool), present: make(map[Identity]int), start: time.Now(), stop: make(chan struct{})}
	p.limits.Store(&cfg.Limits)
	p.share.Store(-1)
	return p
}

// Open starts the goroutine that closes connections which are too old, idle for too long, or closed by their backend, and makes
// those that should be there in advance.
func (p *Pools) Open() {
	p.watch = epoll.Open(!p.cfg.NoRing)
	p.done.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				cancel()
				for _, bp := range p.all() {
					bp.warming.Wait()
				}
				return
			case <-tick.C:
				for _, bp := range p.all() {
					bp.reap(p.isPresent)
					bp.warm(ctx, p.isPresent)
				}
			}
		}
	})
}

// Set is the set that tells of the server connections' events; nil if there is none, or before Open.
func (p *Pools) Set() *epoll.Set { return p.watch }

// Close closes every idle connection, refuses new ones, and wakes all who wait. Connections that are lent out are closed
// when they come back.
func (p *Pools) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	p.mu.Unlock()
	close(p.stop)
	p.done.Wait()
	p.watch.Close()
	for _, bp := range p.all() {
		bp.close()
	}
}

func (p *Pools) all() []*backendPool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]*backendPool, 0, len(p.byName))
	for _, bp := range p.byName {
		out = append(out, bp)
	}
	return out
}

// Ready lends an idle connection to b for id, as Get does. It never waits, and returns nil if there is none: Get may have one then.
func (p *Pools) Ready(b *rib.Backend, id Identity, sure bool) *Conn {
	bp, err := p.of(b)
	if err != nil {
		return nil
	}
	bp.mu.Lock()
	s := bp.shelves[id]
	bp.mu.Unlock()
	return s.Ready(sure)
}

// Get lends a connection to b for id. With sure, the kernel is asked whether the backend has closed an idle one: for a write,
// which cannot be sent again. Errors: *ConnectError, *ExhaustedError, ErrClosed, or ctx's.
func (p *Pools) Get(ctx context.Context, b *rib.Backend, id Identity, sure bool) (*Conn, error) {
	return p.Take(ctx, b, id, Claim{Sure: sure})
}

// Take does what Get does for somebody who may hold several connections at a time. One more error: ErrJam.
func (p *Pools) Take(ctx context.Context, b *rib.Backend, id Identity, claim Claim) (*Conn, error) {
	for {
		bp, err := p.of(b)
		if err != nil {
			return nil, err
		}
		c, err := bp.get(ctx, b, id, claim)
		if err != ErrClosed {
			return c, err
		}
		// These pools are closed, or only that one: it was forgotten meanwhile, or its backend is at another address now.
		p.mu.RLock()
		now, closed := p.byName[b.Name], p.closed
		p.mu.RUnlock()
		if !closed && now != nil && now.addr != b.Addr {
			return nil, &ConnectError{Backend: b.Name, Addr: b.Addr, Err: errMoved}
		}
	}
}

var errMoved = errors.New("it has moved to another address")

func (p *Pools) of(b *rib.Backend) (*backendPool, error) {
	p.mu.RLock()
	bp, closed := p.byName[b.Name], p.closed
	p.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	if bp != nil && bp.addr == b.Addr {
		return bp, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	bp = p.byName[b.Name]
	if bp != nil && bp.addr == b.Addr {
		return bp, nil
	}
	if bp != nil { // the backend moved to another address
		go bp.close()
	}
	bp = &backendPool{
		cfg: &p.cfg, pools: p, limits: &p.limits, share: &p.share, addr: b.Addr, name: b.Name, ids: &p.ids, watch: p.watch, backend: b, start: p.start,
		shelves: make(map[Identity]*Shelf), conns: make(map[*Conn]struct{}), logins: make(map[Identity]int), waited: make(map[string]time.Duration),
		queue: queue{lines: make(map[Identity]*line)}, full: make(map[Identity]*full), known: make(map[Identity]struct{}),
	}
	bp.resting.Store(p.resting[b.Name])
	p.byName[b.Name] = bp
	return bp, nil
}

// Stat is one pool's state.
type Stat struct {
	Backend  string `json:"backend"`
	InUse    int    `json:"in_use"`
	Idle     int    `json:"idle"`
	Waiting  int    `json:"waiting"`
	Size     int    `json:"size"`
	Connects uint64 `json:"connects"`
	Failures uint64 `json:"failures"`
	Refusals uint64 `json:"refusals"` // of those: the backend had no connection left
}

// Stats returns the state of every pool, in no order.
func (p *Pools) Stats() []Stat {
	var out []Stat
	for _, bp := range p.all() {
		bp.mu.Lock()
		out = append(out, Stat{
			Backend: bp.name, InUse: bp.total - bp.idleN, Idle: bp.idleN, Waiting: bp.queue.n, Size: bp.bound(),
			Connects: bp.connects.Load(), Failures: bp.failures.Load(), Refusals: bp.refusals.Load(),
		})
		bp.mu.Unlock()
	}
	return out
}

type backendPool struct {
	// constant
	cfg   *Config
	pools *Pools
	name  string
	addr  string
	ids   *atomic.Uint64
	watch *epoll.Set
	start time.Time // of all pools

	// atomic
	limits   *atomic.Pointer[Limits] // of all pools
	share    *atomic.Int64           // the same
	connects atomic.Uint64
	failures atomic.Uint64
	refusals atomic.Uint64
	resting  atomic.Bool // see Rest

	warming sync.WaitGroup // connections that are made in advance
	backend *rib.Backend   // constant

	// guarded by mu
	mu       sync.Mutex
	shelves  map[Identity]*Shelf // of all who have a connection, or are about to
	idleN    int
	total    int // idle, lent out and being connected
	queue    queue
	closed   bool
	conns    map[*Conn]struct{} // idle and lent out
	logins   map[Identity]int   // being connected
	waited   map[string]time.Duration
	renewals uint64                // calls of Reconnect
	known    map[Identity]struct{} // who has had connections here

	connecting int // places in which a connection is being made, or is about to be
	down       *down
	full       map[Identity]*full
}

// bound is how many connections there may be.
func (bp *backendPool) bound() int {
	size := bp.limits.Load().Size
	if share := int(bp.share.Load()); share >= 0 {
		return min(size, share)
	}
	return size
}

func (bp *backendPool) get(ctx context.Context, b *rib.Backend, id Identity, claim Claim) (*Conn, error) {
	var deadline time.Time // of the wait, from its beginning on
	for {
		bp.mu.Lock()
		if bp.closed {
			bp.mu.Unlock()
			return nil, ErrClosed
		}
		if c := bp.popIdle(bp.shelves[id]); c != nil {
			bp.mu.Unlock()
			if c.usable(claim.Sure) {
				claim.placed()
				return c, nil
			}
			c.Discard()
			continue
		}
		if err := bp.unreachable(id); err != nil {
			bp.mu.Unlock()
			return nil, err
		}
		// Whoever waits already comes first.
		if bp.queue.lines[id] == nil && bp.mayConnect() && !bp.isFull(id) {
			if victim, ok := bp.room(id); ok { // victim is somebody else's: its place is what we need
				bp.take(id)
				bp.mu.Unlock()
				claim.placed()
				c, err := bp.connect(ctx, b, id, victim)
				if err != errQueue {
					return c, err
				}
				bp.mu.Lock()
				if bp.closed {
					bp.mu.Unlock()
					return nil, ErrClosed
				}
			}
		}
		again := !deadline.IsZero()
		if !again {
			deadline = time.Now().Add(bp.limits.Load().Wait)
		}
		w := &waiter{id: id, by: claim.By, grant: make(chan grant, 1)}
		bp.queue.push(w, again || claim.By.holds())
		bp.mu.Unlock()

		since := time.Now()
		g, err := bp.wait(ctx, w, deadline)
		took := time.Since(since)
		bp.mu.Lock()
		bp.waited[id.Database] += took
		bp.mu.Unlock()
		if err != nil {
			return nil, err
		}
		claim.placed()
		if g.conn != nil {
			return g.conn, nil
		}
		c, err := bp.connect(ctx, b, id, g.old)
		if err != errQueue {
			return c, err
		}
	}
}

func (bp *backendPool) wait(ctx context.Context, w *waiter, deadline time.Time) (grant, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var looks <-chan time.Time
	if w.by != nil {
		tick := time.NewTicker(jamLook)
		defer tick.Stop()
		looks = tick.C
	}
	var err error
	for done := false; !done; {
		select {
		case g, ok := <-w.grant:
			return granted(g, ok)
		case <-looks:
			if bp.pools.jams(w.by) {
				err, done = ErrJam, true
			}
		case <-timer.C:
			done = true
		case <-ctx.Done():
			err, done = ctx.Err(), true
		}
	}
	bp.mu.Lock()
	defer bp.mu.Unlock()
	select {
	case g, ok := <-w.grant: // granted at the last moment: take it after all
		return granted(g, ok)
	default:
	}
	bp.queue.remove(w)
	if err == nil {
		err = &ExhaustedError{Backend: bp.name, Size: bp.bound(), Wait: bp.limits.Load().Wait, Full: bp.words(w.id)}
	}
	return grant{}, err
}

func granted(g grant, ok bool) (grant, error) {
	if !ok {
		return g, ErrClosed
	}
	return g, g.err
}

// connect makes a connection whose place is already counted; old has had it. With errQueue, the backend has none left.
func (bp *backendPool) connect(ctx context.Context, b *rib.Backend, id Identity, old *Conn) (*Conn, error) {
	if old != nil {
		old.retire()
	}
	since, renewals := time.Now(), bp.began(id)
	c, err := bp.dial(ctx, b, id)
	if err == nil {
		bp.ended(id, c, renewals, time.Since(since), nil, false)
		bp.connects.Add(1)
		return c, nil
	}
	bp.failures.Add(1)
	ce := &ConnectError{Backend: bp.name, Shard: b.Shard, Addr: bp.addr, Identity: id, Err: err}
	gaveUp := ctx.Err() != nil // a client that went away says nothing of the backend
	if bp.ended(id, nil, renewals, time.Since(since), ce, gaveUp) {
		return nil, errQueue
	}
	if ce.Login() && !id.Own && bp.cfg.Refused != nil { // it may need the place that was given up
		bp.cfg.Refused(ctx, id)
	}
	if !gaveUp && ce.Elsewhere() && bp.cfg.Report != nil {
		bp.cfg.Report(bp.name, ce)
	}
	return nil, ce
}

func (bp *backendPool) dial(ctx context.Context, b *rib.Backend, id Identity) (*Conn, error) {
	if limit := bp.limits.Load().Connect; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	s, err := bp.login(ctx, b, id)
	for tries := 1; tries < maxLetGo && errors.Is(err, pg.ErrLetGo); tries++ { // somebody ends connections: says nothing of the backend yet
		s, err = bp.login(ctx, b, id)
	}
	if err != nil {
		return nil, err
	}
	return newConn(bp, b, id, s), nil
}

func (bp *backendPool) login(ctx context.Context, b *rib.Backend, id Identity) (*pg.Server, error) {
	nc, err := bp.cfg.Dial(ctx, "tcp", b.Addr)
	if err != nil {
		return nil, err
	}
	KeepAlive(nc, bp.limits.Load().KeepAlive)
	return pg.Connect(ctx, nc, &pg.ConnectConfig{ // which closes it on every error
		User: id.User, Credential: bp.cfg.Credential(id), Database: id.Database, TLS: bp.cfg.tls(b.Addr), SystemID: b.SystemID,
	})
}

func (bp *backendPool) release(c *Conn) {
	switch {
	case bp.shelve(c):
	case c.usable(false):
		c.bye()
	default: // its backend has closed it meanwhile
		c.Discard()
	}
}

// shelve gives a connection to who waits for it, or keeps it. It returns false if it is to be closed: if somebody waits, its place is
// what he gets then.
func (bp *backendPool) shelve(c *Conn) bool {
	now := time.Since(bp.start)
	bp.mu.Lock()
	defer bp.mu.Unlock()
	if bp.closed || c.worn || bp.resting.Load() && bp.queue.n == 0 || bp.total > bp.bound() || c.old(now, bp.limits.Load().Lifetime) {
		return false
	}
	if bp.queue.n > 0 {
		if !c.usable(false) {
			return false
		}
		if bp.pass(c) {
			return true
		}
	}
	c.since = now
	c.shelf.idle = append(c.shelf.idle, c)
	bp.idleN++
	return true
}

// forget gives up the place of a connection that is gone.
func (bp *backendPool) forget(c *Conn) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	bp.lose(c)
	delete(bp.full, c.Identity) // there may be room now
	bp.fill()
}

// popIdle takes the connection that was used last from s, which may be nil. mu is held.
func (bp *backendPool) popIdle(s *Shelf) *Conn {
	if s == nil || len(s.idle) == 0 {
		return nil
	}
	last := len(s.idle) - 1
	c := s.idle[last]
	s.idle[last] = nil
	s.idle = s.idle[:last]
	bp.idleN--
	return c
}

func (bp *backendPool) popAnyIdle() *Conn {
	if bp.idleN == 0 {
		return nil
	}
	for _, s := range bp.shelves {
		if c := bp.popIdle(s); c != nil {
			return c
		}
	}
	return nil
}

// reap closes what is too old, was idle for too long, or was closed by its backend.
func (bp *backendPool) reap(present func(Identity) bool) {
	now, limits := time.Since(bp.start), bp.limits.Load()
	bp.mu.Lock()
	var gone, spare []*Conn
	for id, s := range bp.shelves {
		most, l := s.held, s.idle // most: that may go for being idle
		if limits.Min > 0 && present(id) {
			most -= limits.Min
		}
		kept := l[:0]
		for _, c := range l { // the one that was idle for longest is first
			switch {
			case !c.quiet():
				gone = append(gone, c)
			case c.old(now, limits.Lifetime):
				spare = append(spare, c)
			case most > 0 && limits.Idle > 0 && now-c.since > limits.Idle:
				spare = append(spare, c)
			default:
				kept = append(kept, c)
				continue
			}
			most--
		}
		clear(l[len(kept):])
		s.idle = kept
	}
	bp.idleN -= len(gone) + len(spare)
	for id, f := range bp.full {
		if time.Since(f.until) > time.Minute && bp.queue.lines[id] == nil {
			delete(bp.full, id)
		}
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.Discard()
	}
	farewell(spare)
}

func (bp *backendPool) close() {
	bp.mu.Lock()
	bp.closed = true
	var gone []*Conn
	for _, s := range bp.shelves {
		gone = append(gone, s.idle...)
		s.idle = nil
	}
	bp.idleN = 0
	for el := bp.queue.turns.Front(); el != nil; el = bp.queue.turns.Front() {
		w := el.Value.(*line).waiters.Front().Value.(*waiter)
		bp.queue.remove(w)
		close(w.grant)
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.abrupt(false)
		c.Net.SetWriteDeadline(time.Now().Add(goodbye))
		c.Net.Write(pg.AppendTerminate(nil))
		c.Discard()
	}
}
