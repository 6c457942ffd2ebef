package pool

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Dialer connects to a backend.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Config is what the pools of a node need.
type Config struct {
	Limits         Limits        // until the first SetLimits
	ConnectTimeout time.Duration // to connect and authenticate
	Dial           Dialer
	TLS            func(addr string) *tls.Config   // of connections and cancel requests to that backend; nil, or if it returns nil: clear text
	Credential     func(Identity) pg.Credential    // what a backend is shown; zero: nothing, which is enough for one that trusts this node
	Refused        func(context.Context, Identity) // a backend did not take what it was shown, or asked for more; nil: nobody is told
	Report         func(backend string, err error) // a backend could not be reached: this node's own evidence
	Logger         *slog.Logger
}

func (c *Config) tls(addr string) *tls.Config {
	if c.TLS == nil {
		return nil
	}
	return c.TLS(addr)
}

// ErrClosed is returned once the pools are closed.
var ErrClosed = errors.New("pool: closed")

// ExhaustedError says that every connection to a backend stayed busy for as long as a session may wait.
type ExhaustedError struct {
	Backend string
	Size    int
	Wait    time.Duration
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("all %d connections to backend %s stayed busy for %s", e.Size, e.Backend, e.Wait)
}

// ConnectError says that a backend could not be connected to. Err is a *pg.Error if it answered, with its own words.
type ConnectError struct {
	Backend  string
	Shard    string
	Addr     string
	Identity Identity
	Err      error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("connect to backend %s at %s: %v", e.Backend, e.Addr, e.Err)
}

// Unwrap returns what the connect failed with.
func (e *ConnectError) Unwrap() error { return e.Err }

// Login reports whether the backend was there and did not take what the user was proved to be with, or asked for more.
func (e *ConnectError) Login() bool {
	var pe *pg.Error
	if errors.As(e.Err, &pe) {
		return pe.Code == pg.CodeInvalidPassword
	}
	return errors.Is(e.Err, pg.ErrNoPassword) || errors.Is(e.Err, pg.ErrWrongKind) || errors.Is(e.Err, pg.ErrOtherVerifier)
}

// Elsewhere reports whether another backend of the shard may well do better: this one is out of reach, starting, stopping or full.
func (e *ConnectError) Elsewhere() bool {
	var pe *pg.Error
	if !errors.As(e.Err, &pe) {
		return !e.Login()
	}
	return pe.Code == pg.CodeCannotConnectNow || pe.Code == pg.CodeAdminShutdown || pe.Code == pg.CodeCrashShutdown || pe.Code == pg.CodeTooManyConnections
}

// Pools holds one pool for each backend that was ever asked for.
type Pools struct {
	// constant
	cfg Config

	// atomic
	ids    atomic.Uint64 // given to connections
	limits atomic.Pointer[Limits]

	// guarded by mu
	mu     sync.RWMutex
	byName map[string]*backendPool
	closed bool

	watch *watch // made by Open; nil: none
	stop  chan struct{}
	done  sync.WaitGroup
}

// New returns pools without connections.
func New(cfg Config) *Pools {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Pools{cfg: cfg, byName: make(map[string]*backendPool), stop: make(chan struct{})}
	p.limits.Store(&cfg.Limits)
	return p
}

// Open starts the goroutine that closes connections which are idle for too long or were closed by their backend.
func (p *Pools) Open() {
	p.watch = openWatch()
	p.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case now := <-tick.C:
				for _, bp := range p.all() {
					bp.reap(now)
				}
			}
		}
	})
}

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
	p.watch.close()
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

// Get lends a connection to b for id. With sure, the kernel is asked whether the backend has closed an idle one: for a write,
// which cannot be sent again. Errors: *ConnectError, *ExhaustedError, ErrClosed, or ctx's.
func (p *Pools) Get(ctx context.Context, b *rib.Backend, id Identity, sure bool) (*Conn, error) {
	for {
		bp, err := p.of(b)
		if err != nil {
			return nil, err
		}
		c, err := bp.get(ctx, b, id, sure)
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
		cfg: &p.cfg, limits: &p.limits, addr: b.Addr, name: b.Name, ids: &p.ids, watch: p.watch, idle: make(map[Identity][]*Conn),
		conns: make(map[*Conn]struct{}), logins: make(map[Identity]int), waited: make(map[string]time.Duration),
	}
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
}

// Stats returns the state of every pool, in no order.
func (p *Pools) Stats() []Stat {
	var out []Stat
	for _, bp := range p.all() {
		bp.mu.Lock()
		out = append(out, Stat{
			Backend: bp.name, InUse: bp.total - bp.idleN, Idle: bp.idleN, Waiting: bp.waiters.Len(), Size: p.limits.Load().Size,
			Connects: bp.connects.Load(), Failures: bp.failures.Load(),
		})
		bp.mu.Unlock()
	}
	return out
}

type backendPool struct {
	// constant
	cfg   *Config
	name  string
	addr  string
	ids   *atomic.Uint64
	watch *watch

	// atomic
	limits   *atomic.Pointer[Limits] // of all pools
	connects atomic.Uint64
	failures atomic.Uint64

	// guarded by mu
	mu       sync.Mutex
	idle     map[Identity][]*Conn // last in, first out
	idleN    int
	total    int       // idle, lent out and being connected
	waiters  list.List // of *waiter, first come first served
	closed   bool
	conns    map[*Conn]struct{} // idle and lent out
	logins   map[Identity]int   // being connected
	waited   map[string]time.Duration
	renewals uint64 // calls of Reconnect
}

// waiter waits for a connection of its identity, or (a nil Conn) for leave to make one.
type waiter struct {
	id    Identity
	grant chan *Conn // capacity 1
}

func (bp *backendPool) get(ctx context.Context, b *rib.Backend, id Identity, sure bool) (*Conn, error) {
	for {
		bp.mu.Lock()
		if bp.closed {
			bp.mu.Unlock()
			return nil, ErrClosed
		}
		if c := bp.popIdle(id); c != nil {
			bp.mu.Unlock()
			if c.usable(sure) {
				return c, nil
			}
			c.Discard()
			continue
		}
		if bp.total < bp.limits.Load().Size {
			bp.total++
			bp.mu.Unlock()
			return bp.connect(ctx, b, id)
		}
		if victim := bp.popAnyIdle(); victim != nil { // somebody else's: its place is what we need
			delete(bp.conns, victim)
			bp.mu.Unlock()
			victim.close()
			return bp.connect(ctx, b, id)
		}
		w := &waiter{id: id, grant: make(chan *Conn, 1)}
		el := bp.waiters.PushBack(w)
		bp.mu.Unlock()

		since := time.Now()
		c, err := bp.wait(ctx, w, el)
		took := time.Since(since)
		bp.mu.Lock()
		bp.waited[id.Database] += took
		bp.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if c == nil {
			return bp.connect(ctx, b, id)
		}
		return c, nil
	}
}

func (bp *backendPool) wait(ctx context.Context, w *waiter, el *list.Element) (*Conn, error) {
	limits := bp.limits.Load()
	timer := time.NewTimer(limits.Wait)
	defer timer.Stop()
	var err error
	select {
	case c, ok := <-w.grant:
		if !ok {
			return nil, ErrClosed
		}
		return c, nil
	case <-timer.C:
		err = &ExhaustedError{Backend: bp.name, Size: limits.Size, Wait: limits.Wait}
	case <-ctx.Done():
		err = ctx.Err()
	}
	bp.mu.Lock()
	select {
	case c, ok := <-w.grant: // granted at the last moment: take it after all
		bp.mu.Unlock()
		if !ok {
			return nil, ErrClosed
		}
		return c, nil
	default:
		bp.waiters.Remove(el)
	}
	bp.mu.Unlock()
	return nil, err
}

// connect makes a connection whose place is already counted in total.
func (bp *backendPool) connect(ctx context.Context, b *rib.Backend, id Identity) (*Conn, error) {
	since, renewals := time.Now(), bp.began(id)
	c, err := bp.dial(ctx, b, id)
	bp.ended(id, c, renewals, time.Since(since))
	if err != nil {
		bp.failures.Add(1)
		bp.forget(nil)
		ce := &ConnectError{Backend: bp.name, Shard: b.Shard, Addr: bp.addr, Identity: id, Err: err}
		if ce.Login() && !id.Own && bp.cfg.Refused != nil {
			bp.cfg.Refused(ctx, id)
		}
		// A client that went away says nothing of the backend.
		if ctx.Err() == nil && ce.Elsewhere() && bp.cfg.Report != nil {
			var pe *pg.Error
			if !errors.As(err, &pe) || pe.Code != pg.CodeTooManyConnections {
				bp.cfg.Report(bp.name, ce)
			}
		}
		return nil, ce
	}
	bp.connects.Add(1)
	return c, nil
}

func (bp *backendPool) dial(ctx context.Context, b *rib.Backend, id Identity) (*Conn, error) {
	if bp.cfg.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bp.cfg.ConnectTimeout)
		defer cancel()
	}
	nc, err := bp.cfg.Dial(ctx, "tcp", b.Addr)
	if err != nil {
		return nil, err
	}
	s, err := pg.Connect(ctx, nc, &pg.ConnectConfig{User: id.User, Credential: bp.cfg.Credential(id), Database: id.Database, TLS: bp.cfg.tls(b.Addr)})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return newConn(bp, b, id, s), nil
}

func (bp *backendPool) release(c *Conn) {
	bp.mu.Lock()
	if bp.closed || c.worn || bp.total > bp.limits.Load().Size {
		bp.mu.Unlock()
		c.bye()
		return
	}
	if el := bp.waiters.Front(); el != nil {
		if !c.usable(false) { // its backend has closed it meanwhile: the place is what the waiter gets
			bp.mu.Unlock()
			c.Discard()
			return
		}
		// First come, first served: whoever waits longest gets the place, if need be by a new connection in it.
		w := bp.waiters.Remove(el).(*waiter)
		if w.id == c.Identity {
			w.grant <- c
			bp.mu.Unlock()
			return
		}
		w.grant <- nil
		delete(bp.conns, c)
		bp.mu.Unlock()
		c.close()
		return
	}
	c.since = time.Now()
	bp.idle[c.Identity] = append(bp.idle[c.Identity], c)
	bp.idleN++
	bp.mu.Unlock()
}

// forget gives up the place of a connection that is gone (or, if c is nil, never came to be), to who waits longest.
func (bp *backendPool) forget(c *Conn) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	delete(bp.conns, c)
	bp.total--
	bp.fill()
}

func (bp *backendPool) popIdle(id Identity) *Conn {
	l := bp.idle[id]
	if len(l) == 0 {
		return nil
	}
	c := l[len(l)-1]
	l[len(l)-1] = nil
	if len(l) == 1 {
		delete(bp.idle, id)
	} else {
		bp.idle[id] = l[:len(l)-1]
	}
	bp.idleN--
	return c
}

func (bp *backendPool) popAnyIdle() *Conn {
	for id := range bp.idle {
		return bp.popIdle(id)
	}
	return nil
}

// reap closes what was idle for too long and what its backend has closed.
func (bp *backendPool) reap(now time.Time) {
	longest := bp.limits.Load().Idle
	bp.mu.Lock()
	var gone []*Conn
	for id, l := range bp.idle {
		kept := l[:0]
		for _, c := range l {
			if (longest > 0 && now.Sub(c.since) > longest) || !c.quiet() {
				gone = append(gone, c)
			} else {
				kept = append(kept, c)
			}
		}
		clear(l[len(kept):])
		if len(kept) == 0 {
			delete(bp.idle, id)
		} else {
			bp.idle[id] = kept
		}
	}
	bp.idleN -= len(gone)
	bp.mu.Unlock()
	for _, c := range gone {
		c.Discard()
	}
}

func (bp *backendPool) close() {
	bp.mu.Lock()
	bp.closed = true
	var gone []*Conn
	for _, l := range bp.idle {
		gone = append(gone, l...)
	}
	bp.idle, bp.idleN = make(map[Identity][]*Conn), 0
	for el := bp.waiters.Front(); el != nil; el = bp.waiters.Front() {
		close(bp.waiters.Remove(el).(*waiter).grant)
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.bye()
	}
}
