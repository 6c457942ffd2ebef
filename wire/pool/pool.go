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
	TLS        func(addr string) *tls.Config             // of connections and cancel requests to that backend; nil, or if it returns nil: clear text
	Plain      func(addr string) bool                    // whether that backend may be told a password in clear text, should it ask for it so; nil: each may
	Credential func(Identity) pg.Credential              // what a backend is shown; zero: nothing, which is enough for one that trusts this node
	Refused    func(context.Context, Identity)           // a backend did not take what it was shown, or asked for more; nil: nobody is told
	Next       func(*rib.Backend, Identity) *rib.Backend // where that one's reads would go if the backend failed, if there is room; nil, or if it returns nil: nowhere
	Report     func(backend string, err error)           // a backend could not be reached: this node's own evidence
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
	mu        sync.RWMutex
	byName    map[string]*backendPool
	present   map[Identity]int // sessions
	resting   map[string]bool  // backends, as Rest was told last; never changed
	suspended map[string]bool  // databases
	closed    bool

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
	p := &Pools{cfg: cfg, byName: make(map[string]*backendPool), present: make(map[Identity]int), suspended: make(map[string]bool), start: time.Now(), stop: make(chan struct{})}
	p.limits.Store(&cfg.Limits)
	p.share.Store(-1)
	return p
}

// Open starts the goroutine that closes connections which are too old, idle for too long, or closed by their backend, and makes
// those that should be there in advance.
func (p *Pools) Open() {
	p.watch = epoll.Open(!p.cfg.NoRing)
	p.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				p.tend()
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
	for _, bp := range p.all() {
		bp.close()
		bp.making.Wait()
	}
	p.watch.Close()
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
		hopes: make(map[Identity]*hope), underway: make(map[*login]struct{}),
		shelves: make(map[Identity]*Shelf), conns: make(map[*Conn]struct{}), logins: make(map[Identity]int), waited: make(map[string]time.Duration),
		queue: queue{lines: make(map[Identity]*line)}, full: make(map[Identity]*full), known: make(map[Identity]struct{}), shunned: make(map[Identity]time.Time),
	}
	bp.ctx, bp.cancel = context.WithCancel(context.Background())
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
