package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
)

// Target is one PostgreSQL server.
type Target struct {
	Name   string // of the backend
	Shard  string
	Region string
	Addr   string // host:port
	// SystemID is what is known of it from before; 0: nothing yet. What the first probe finds counts more.
	SystemID uint64
}

// Sink takes what is seen. Its methods are called from many goroutines and must not block for long.
type Sink interface {
	Announce(rib.Backend)
	Observe(rib.Route)    // Observer and Stamp are empty
	Withdraw(name string) // this node does not look at that backend any more
}

// unwatched is how many times less often a backend is looked at that this node lists and leaves to other observers.
const unwatched = 10

// Settings are the part of the configuration that Reload replaces. Zero values of durations and counts mean the defaults.
type Settings struct {
	Backends []Target // announced and observed

	User     string
	Password string // never logged
	Database string // "": as the user

	Interval time.Duration // between probes, +- 10 %; default 1 s
	Timeout  time.Duration // of a probe's query, and of each answer while it connects; default 2 s
	Fall     int           // failed probes in a row that make an Up backend Down; default 3. A refused connect counts at once. The second and third run at the same time
	Rise     int           // good probes in a row that make a Down backend Up; default 2. The very first counts at once

	Soft int // percent of its connections from which on a backend's load is between its limits; 0: it never is
	Hard int // percent from which on it is at the limit; 0: it never is
}

// loadBack is how many percent less than a limit a backend must use to be below it again.
const loadBack = 5

// class is the load class of a backend of which so many percent of the connections are in use, and that was in another one before.
func (s *Settings) class(used int, before rib.LoadClass) rib.LoadClass {
	over := func(limit int, already bool) bool {
		if already {
			limit -= loadBack
		}
		return limit > 0 && used >= limit
	}
	switch {
	case over(s.Hard, before == rib.LoadAtLimit):
		return rib.LoadAtLimit
	case over(s.Soft, before != rib.LoadBelow):
		return rib.LoadBetween
	}
	return rib.LoadBelow
}

func (s Settings) withDefaults() *Settings {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&s.Interval, time.Second)
	set(&s.Timeout, 2*time.Second)
	if s.Fall <= 0 {
		s.Fall = 3
	}
	if s.Rise <= 0 {
		s.Rise = 2
	}
	return &s
}

// Config is what a Prober needs.
type Config struct {
	Settings // until the first Reload

	TLS    func(addr string) *tls.Config                                     // of each new connection to that backend; nil, or if it returns nil: clear text
	Plain  func(addr string) bool                                            // whether that backend may be told the password in clear text, should it ask for it so; nil: each may
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer
	Sink   Sink
	Logger *slog.Logger // nil: slog.Default

	// Lost is called when this node itself cannot reach a backend any more, with why: that is evidence for this node alone,
	// whatever others say. May be nil.
	Lost func(backend, why string)

	// Quiet is called when a probe has had no answer, and when there is one again, or nobody probes the backend any more. One alone
	// says little: who waits for that backend may begin to ask whether it lives. May be nil.
	Quiet func(backend string, quiet bool)

	// Saw is called with each answer that tells how far a server has come. It says how far a replica is known to be behind, which the
	// replica itself may not know. May be nil.
	Saw func(rib.Position) rib.Delay

	// Recovered is called when a backend that was lost, or was given to Suspect or Watch, has answered Rise new connections or
	// probes in a row: the node's own evidence against it is over. May be nil.
	Recovered func(backend string)
}

// Prober probes. All methods may be called from any goroutine.
type Prober struct {
	// constant
	cfg    Config
	begun  time.Time
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// atomic
	settings  atomic.Pointer[Settings]
	seeking   atomic.Pointer[map[string]struct{}] // see Seek
	suspicion suspicion

	// guarded by mu
	mu      sync.Mutex
	open    bool
	closed  bool
	near    map[string]*worker // by backend: those that the configuration lists
	far     map[string]*worker // others: to observe, or after own evidence
	streams map[net.Conn]struct{}

	failures map[string]*atomic.Uint64 // by backend, see Failures
}

// lookHold is how long a backend is probed after somebody has wanted to know how far it has come.
const lookHold = 30 * time.Second

// maxFar bounds the backends of others that are probed: there are no more in a cluster.
const maxFar = 4096

// New makes a Prober and starts nothing.
func New(cfg Config) *Prober {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Prober{
		cfg:     cfg,
		begun:   time.Now(),
		log:     cfg.Logger.With("part", "probe"),
		near:    make(map[string]*worker),
		far:     make(map[string]*worker),
		streams: make(map[net.Conn]struct{}),

		failures: make(map[string]*atomic.Uint64),
	}
	p.settings.Store(cfg.Settings.withDefaults())
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// clock is the time since this prober was made, in nanoseconds and never 0: nobody sets it, as the machine's clock may be set.
func (p *Prober) clock() int64 { return max(int64(time.Since(p.begun)), 1) }

// Open announces the backends and starts to probe them. It is an error if an address cannot be one.
func (p *Prober) Open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open || p.closed {
		return fmt.Errorf("probe: Open: the prober is open or closed already")
	}
	var workers []*worker
	for _, t := range p.cfg.Backends {
		w, err := p.newWorker(t, true)
		if err != nil {
			return err
		}
		workers = append(workers, w)
	}
	p.open = true
	for _, w := range workers {
		p.near[w.target.Name] = w
		p.cfg.Sink.Announce(w.backend())
		p.wg.Go(w.run)
	}
	return nil
}

// Close stops all probes and waits for them.
func (p *Prober) Close() error {
	p.mu.Lock()
	p.closed = true
	p.cancel()
	conns := make([]net.Conn, 0, len(p.streams))
	for c := range p.streams {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // a probe that hangs in a read or write ends here
	}
	p.wg.Wait()
	return nil
}

// Suspect probes a backend now and over a new connection: somebody could not connect to it. It returns false if the
// backend is not probed here; Watch it then. Recovered is called once it answers again.
func (p *Prober) Suspect(backend string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.worker(backend)
	if w == nil {
		return false
	}
	w.suspect()
	return true
}

// Trouble is what this node's last probe of a backend failed with, also if that says nothing against the backend, as that it had no
// connection left; "": it had an answer, or the backend is not probed here.
func (p *Prober) Trouble(backend string) string {
	p.mu.Lock()
	w := p.worker(backend)
	p.mu.Unlock()
	if w == nil {
		return ""
	}
	return w.trouble()
}

// Failures counts, by backend, the probes that had no answer, or none that is one, since this prober was made. A backend that was probed here
// and is not any more keeps its count, so that nobody who looks now and then misses what was between.
func (p *Prober) Failures() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := make(map[string]uint64, len(p.failures))
	for name, n := range p.failures {
		counts[name] = n.Load()
	}
	return counts
}

// counter is the count of a backend's failures. It needs mu.
func (p *Prober) counter(backend string) *atomic.Uint64 {
	if n := p.failures[backend]; n != nil {
		return n
	}
	if len(p.failures) >= maxFar {
		maps.DeleteFunc(p.failures, func(name string, _ *atomic.Uint64) bool { return p.worker(name) == nil })
	}
	n := new(atomic.Uint64)
	p.failures[backend] = n
	return n
}

// worker probes that backend here; nil: none does. It needs mu.
func (p *Prober) worker(backend string) *worker {
	if w := p.near[backend]; w != nil {
		return w
	}
	return p.far[backend]
}

// begin probes a backend that is not probed here yet; duty gives the worker something to do. It needs mu.
func (p *Prober) begin(what string, t Target, duty func(*worker)) error {
	if !p.open || p.closed {
		return fmt.Errorf("probe: %s %s: the prober is not open", what, t.Name)
	}
	if len(p.far) >= maxFar {
		return fmt.Errorf("probe: %s %s: %d backends are watched already", what, t.Name, maxFar)
	}
	w, err := p.newWorker(t, false)
	if err != nil {
		return err
	}
	duty(w)
	p.start(w)
	return nil
}

// Seek names the shards of which no primary is known that takes writes: until the next call their backends are probed more often, for
// one of them may be promoted at any moment. The map is kept, and must not be changed any more.
func (p *Prober) Seek(shards map[string]struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeking.Store(&shards)
	for _, all := range []map[string]*worker{p.near, p.far} {
		for _, w := range all {
			if w.sought() && w.watches.Load() {
				w.hurry()
			}
		}
	}
}

// Recheck probes a backend now and over a new connection, if it is probed here: somebody has reason to think that it has another role. The
// address may lead to another server by now than the one that the kept connection still leads to.
func (p *Prober) Recheck(backend string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range []*worker{p.near[backend], p.far[backend]} {
		if w != nil {
			w.renew()
		}
	}
}

// Look probes a backend now, over the connection that is kept: how far it has come is of interest. If nobody has asked for that, or
// for another reason to probe it, for a while, it is left alone again. soon: somebody waits for the answer.
func (p *Prober) Look(t Target, soon bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	looked := func(w *worker) { w.looked.Store(p.clock()) }
	w := p.worker(t.Name)
	if w == nil || p.closed {
		return p.begin("Look", t, looked)
	}
	looked(w)
	if soon {
		ring(w.soon)
	} else {
		w.hurry()
	}
	return nil
}

// Watch probes a backend that is not near until it answers again, then calls Recovered and stops. What is seen goes to
// nobody else. A backend that is probed already is suspected.
func (p *Prober) Watch(t Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.worker(t.Name); w != nil {
		w.suspect()
		return nil
	}
	return p.begin("Watch", t, func(w *worker) { w.evidence = true })
}

// Assign names the backends that this node observes from now on, listed or not; others are not spoken of. Until the first
// call it observes what it lists. What is listed and not observed is still looked at now and then, for what it is. A target's
// SystemID tells whether the server is the right one: the address may lead elsewhere from here.
func (p *Prober) Assign(targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || p.closed {
		return
	}
	wanted := make(map[string]Target, len(targets))
	for _, t := range targets {
		wanted[t.Name] = t
	}
	for name, w := range p.near {
		_, ok := wanted[name]
		w.watch(ok)
		delete(wanted, name)
	}
	for name, w := range p.far {
		t, ok := wanted[name]
		switch {
		case ok && t == w.target:
			w.watch(true)
			delete(wanted, name)
		case ok, p.near[name] != nil: // another server, or listed by now
			w.stop()
			delete(p.far, name)
		default:
			w.watch(false)
		}
	}
	for name, t := range wanted {
		if err := p.begin("Assign", t, func(w *worker) { w.watches.Store(true) }); err != nil {
			p.log.Warn("a backend cannot be observed from here", "backend", name, "addr", t.Addr, "error", err)
		}
	}
}

// start runs a far worker. It needs mu.
func (p *Prober) start(w *worker) {
	name := w.target.Name
	p.far[name] = w
	p.wg.Go(func() {
		w.run()
		p.mu.Lock()
		if p.far[name] == w {
			delete(p.far, name)
		}
		p.mu.Unlock()
		if w.evidence && p.ctx.Err() == nil && !p.Suspect(name) && p.cfg.Recovered != nil {
			p.cfg.Recovered(name) // nobody is left who would take it back
		}
	})
}

// retire lets a far worker go that has nothing left to do, and tells whether it may.
func (p *Prober) retire(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.watches.Load() || w.suspected.Load() || w.followed() {
		return false
	}
	if p.far[w.target.Name] == w {
		delete(p.far, w.target.Name)
	}
	return true
}

// dial is the configured one, ended by Close.
func (p *Prober) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	c, err := p.cfg.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t := &tracked{Conn: c, p: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	p.streams[t] = struct{}{}
	return t, nil
}

// maxStream is how many bytes a server may send over one connection. Its settings are kept, and an answer's rows until the last: a server
// that sends them without end must not take the node's memory. One that answers probes needs hours for as many; then the next
// probe connects anew.
const maxStream = 16 << 20

// tracked is a connection that Close can close.
type tracked struct {
	net.Conn
	p    *Prober
	read atomic.Int64 // bytes
}

// Read is net.Conn's.
func (t *tracked) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if t.read.Add(int64(n)) > maxStream {
		return 0, fmt.Errorf("the server has sent more than %d bytes over one connection", maxStream)
	}
	return n, err
}

func (t *tracked) Close() error {
	t.p.mu.Lock()
	delete(t.p.streams, t)
	t.p.mu.Unlock()
	return t.Conn.Close()
}
