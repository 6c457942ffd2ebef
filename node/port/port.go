package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is the first byte of a stream: who serves it.
type Kind byte

// The kinds. Their values are the wire's: none is ever given another meaning.
const (
	KindGossip Kind = 'G' // memberlist's push/pull and its fallback probes
	KindRaft   Kind = 'R' // Raft among the voters
	KindPull   Kind = 'P' // the ownership table, for followers
	KindAPI    Kind = 'A' // HTTP calls forwarded to another node
	KindHello  Kind = 'H' // a joiner's first question
	KindLease  Kind = 'L' // questions for leases, to the ledger's leader
	KindCancel Kind = 'C' // a client's cancel request, for a session of the node that is dialed
)

// String returns the kind's name for people.
func (k Kind) String() string {
	switch k {
	case KindGossip:
		return "gossip"
	case KindRaft:
		return "raft"
	case KindPull:
		return "pull"
	case KindAPI:
		return "api"
	case KindHello:
		return "hello"
	case KindLease:
		return "lease"
	case KindCancel:
		return "cancel"
	}
	return fmt.Sprintf("kind 0x%02x", byte(k))
}

// Config is what a port needs. The zero value of every limit means its default.
type Config struct {
	Bind      string   // IP address to listen on; empty: 127.0.0.1
	Port      int      // TCP and UDP; 0: any number that is free for both
	Advertise string   // host or host:port that others reach this node at; empty: Bind, which must then not be 0.0.0.0 or ::
	Key       []byte   // the cluster key, KeySize bytes; nil: no protection
	OldKeys   [][]byte // keys that others may still have, or have already, while the key is changed; none without Key
	Node      string   // this node's name, put in its certificate for whoever reads logs
	Logger    *slog.Logger

	// TCP and UDP are sockets that are open already, of one address; nil: Listen opens them.
	TCP net.Listener
	UDP net.PacketConn

	// Dial opens TCP connections; nil: the net package. WrapPacket may replace the UDP socket by one that behaves otherwise
	// (adds a delay, say); closing what it returns must close what it was given. Both are for laboratories.
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	WrapPacket func(net.PacketConn) net.PacketConn

	HandshakeTimeout time.Duration // from accept to a known kind, and for a dialer's TLS; default 5 s
	MaxHandshakes    int           // half-open streams at once, a quarter of them from one address; default 256
}

func (c Config) withDefaults() Config {
	if c.Bind == "" {
		c.Bind = "127.0.0.1"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = 256
	}
	return c
}

// keepAlive finds a peer that vanished without a word in half a minute; the default takes more than two.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Port is a node's cluster port. Its methods are safe for concurrent use.
type Port struct {
	// constant after Listen
	cfg       Config
	log       *slog.Logger
	id        *identity // nil: plain
	advertise netip.AddrPort
	addr      string // advertise as the configuration spells it, host:port
	tcp       net.Listener
	udp       net.PacketConn
	sockets   [2]filer // tcp and udp as the kernel's sockets
	gossip    *gossipTransport
	ctx       context.Context // ends with Close; its Done channel is done
	done      <-chan struct{}
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	// atomic
	stats counters
	noise noiseLog

	// guarded by mu
	mu        sync.Mutex
	closed    bool
	listeners map[Kind]*listener
	streams   map[*stream]struct{}  // open streams, dialed or accepted
	halfOpen  map[net.Conn]struct{} // accepted, kind not known yet
	byAddr    map[netip.Addr]int    // half-open by remote address
}

// Listen opens both sockets and begins to accept. Streams of a kind that nobody listens for are closed and counted.
func Listen(cfg Config) (*Port, error) {
	cfg = cfg.withDefaults()
	p := &Port{
		cfg:       cfg,
		log:       cfg.Logger,
		listeners: make(map[Kind]*listener),
		streams:   make(map[*stream]struct{}),
		halfOpen:  make(map[net.Conn]struct{}),
		byAddr:    make(map[netip.Addr]int),
	}
	p.noise.log = cfg.Logger
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.done = p.ctx.Done()
	if cfg.Key != nil {
		if len(cfg.Key) != KeySize {
			return nil, fmt.Errorf("%w: it holds %d bytes and must hold %d", ErrBadKey, len(cfg.Key), KeySize)
		}
		for _, k := range cfg.OldKeys {
			if len(k) != KeySize {
				return nil, fmt.Errorf("%w: a key beside it holds %d bytes and must hold %d", ErrBadKey, len(k), KeySize)
			}
		}
		id, err := newIdentity(cfg.Key, cfg.OldKeys, cfg.Node)
		if err != nil {
			return nil, err
		}
		p.id = id
	}
	var err error
	p.tcp, p.udp = cfg.TCP, cfg.UDP
	if p.tcp == nil || p.udp == nil {
		if p.tcp, p.udp, err = bindBoth(cfg.Bind, cfg.Port); err != nil {
			return nil, err
		}
	}
	p.sockets[0], _ = p.tcp.(filer)
	p.sockets[1], _ = p.udp.(filer)
	if cfg.WrapPacket != nil {
		p.udp = cfg.WrapPacket(p.udp)
	}
	if err = p.resolveAdvertise(); err != nil {
		p.tcp.Close()
		p.udp.Close()
		return nil, err
	}
	p.gossip = newGossipTransport(p)
	p.wg.Go(p.accept)
	return p, nil
}

// bindBoth listens on TCP and UDP under one number. With number 0 the kernel chooses TCP's, and UDP's may be taken: try others.
func bindBoth(bind string, number int) (net.Listener, net.PacketConn, error) {
	tries := 1
	if number == 0 {
		tries = 20
	}
	var failed error
	for range tries {
		lc := net.ListenConfig{KeepAliveConfig: keepAlive}
		tcp, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(bind, strconv.Itoa(number)))
		if err != nil {
			return nil, nil, fmt.Errorf("listen for the cluster on TCP: %w", err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			tcp.Close()
			failed = fmt.Errorf("listen for the cluster on UDP: %w", err)
			continue
		}
		if u, ok := udp.(*net.UDPConn); ok {
			// A burst of gossip must not be lost while this process is busy. The kernel may grant less; that is no error.
			for size := 2 << 20; size >= 1<<16; size /= 2 {
				if u.SetReadBuffer(size) == nil {
					break
				}
			}
		}
		return tcp, udp, nil
	}
	return nil, nil, failed
}

// resolveAdvertise finds the address that others are told, as text and as the IP address that memberlist needs.
func (p *Port) resolveAdvertise() error {
	bound := p.tcp.Addr().(*net.TCPAddr)
	host, number := p.cfg.Advertise, bound.Port
	if h, n, err := net.SplitHostPort(p.cfg.Advertise); err == nil {
		v, err := strconv.ParseUint(n, 10, 16)
		if err != nil || v == 0 {
			return fmt.Errorf("advertise %q: the port must be a number from 1 to 65535", p.cfg.Advertise)
		}
		host, number = h, int(v)
	}
	if host == "" {
		if bound.IP.IsUnspecified() {
			return fmt.Errorf("bind is %s, so others cannot know where this node is: set advertise to an address of this machine", bound.IP)
		}
		host = bound.IP.String()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return fmt.Errorf("advertise %q: %w", p.cfg.Advertise, err)
		}
		ip = ips[0]
	}
	if ip.IsUnspecified() {
		return fmt.Errorf("advertise %q: it must be an address that others can reach", p.cfg.Advertise)
	}
	p.advertise = netip.AddrPortFrom(ip.Unmap(), uint16(number))
	p.addr = net.JoinHostPort(host, strconv.Itoa(number))
	return nil
}

// Addr returns the advertised address, host:port: what other nodes dial.
func (p *Port) Addr() string { return p.addr }

// BoundAddr returns the address that the TCP socket is bound to.
func (p *Port) BoundAddr() net.Addr { return p.tcp.Addr() }

// filer is a socket that can be given away.
type filer interface{ File() (*os.File, error) }

// Files returns both sockets once more, for another process or another Port: they stay open when this one is closed.
func (p *Port) Files() (tcp, udp *os.File, err error) {
	if p.sockets[0] == nil || p.sockets[1] == nil {
		return nil, nil, errors.New("the cluster port is not made of sockets")
	}
	if tcp, err = p.sockets[0].File(); err != nil {
		return nil, nil, err
	}
	if udp, err = p.sockets[1].File(); err != nil {
		_ = tcp.Close()
		return nil, nil, err
	}
	return tcp, udp, nil
}

// Protected reports whether the port has a cluster key.
func (p *Port) Protected() bool { return p.id != nil }

// Close closes the sockets and every stream of the port, dialed or accepted, and waits for the port's own goroutines.
// Whoever serves a stream sees it fail. A second call does nothing.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	p.cancel()
	var conns []net.Conn
	for c := range p.halfOpen {
		conns = append(conns, c)
	}
	for s := range p.streams {
		conns = append(conns, s.raw) // not TLS's Close, which may wait for a peer that does not read
	}
	p.mu.Unlock()

	err := errors.Join(p.tcp.Close(), p.udp.Close())
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
	return err
}

// Stats is what has happened at the port since Listen. Every field but the last two only grows.
type Stats struct {
	Accepted       uint64 `json:"accepted"`        // streams handed to whoever listens for their kind
	Dialed         uint64 `json:"dialed"`          // streams opened from here
	Refused        uint64 `json:"refused"`         // closed at once: too many handshakes in progress
	BadHandshakes  uint64 `json:"bad_handshakes"`  // no TLS, or it failed for another reason than the key
	KeyMismatches  uint64 `json:"key_mismatches"`  // the other side holds another cluster key
	TooSlow        uint64 `json:"too_slow"`        // no kind within the handshake's time
	UnknownKinds   uint64 `json:"unknown_kinds"`   // a first byte that means nothing here
	NobodyListens  uint64 `json:"nobody_listens"`  // a known kind that this node does not serve now
	PacketsIn      uint64 `json:"packets_in"`      // UDP
	PacketsOut     uint64 `json:"packets_out"`     // UDP
	PacketsDropped uint64 `json:"packets_dropped"` // received when nobody reads gossip any more
	HalfOpen       int    `json:"half_open"`       // handshakes in progress now
	Streams        int    `json:"streams"`         // streams open now
}

type counters struct {
	accepted, dialed, refused, badHandshakes, keyMismatches, tooSlow, unknownKinds, nobodyListens atomic.Uint64
	packetsIn, packetsOut, packetsDropped                                                         atomic.Uint64
}

// Stats returns the port's counters.
func (p *Port) Stats() Stats {
	p.mu.Lock()
	half, open := len(p.halfOpen), len(p.streams)
	p.mu.Unlock()
	c := &p.stats
	return Stats{
		Accepted: c.accepted.Load(), Dialed: c.dialed.Load(), Refused: c.refused.Load(),
		BadHandshakes: c.badHandshakes.Load(), KeyMismatches: c.keyMismatches.Load(), TooSlow: c.tooSlow.Load(),
		UnknownKinds: c.unknownKinds.Load(), NobodyListens: c.nobodyListens.Load(),
		PacketsIn: c.packetsIn.Load(), PacketsOut: c.packetsOut.Load(), PacketsDropped: c.packetsDropped.Load(),
		HalfOpen: half, Streams: open,
	}
}
