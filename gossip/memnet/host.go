package memnet

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Host is one machine of a Net.
type Host struct {
	// constant
	net    *Net
	name   string
	region string
	ip     net.IP
	hash   uint64 // of name

	// atomic
	packets      atomic.Uint64
	packetBytes  atomic.Uint64
	packetsLost  atomic.Uint64
	streamBytes  atomic.Uint64
	streamsDials atomic.Uint64

	// guarded by net.mu
	listeners map[int]*Listener
	sockets   map[int]*Transport
	conns     map[*Conn]struct{}
	nextPort  int
	links     map[*Host]*link // to others
}

// Traffic is what a host has sent since it was made.
type Traffic struct {
	Packets     uint64
	PacketBytes uint64
	PacketsLost uint64 // of those, lost, cut off or sent to a full or closed socket
	StreamBytes uint64
	Dials       uint64
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// Region returns the host's region.
func (h *Host) Region() string { return h.region }

// IP returns the host's address.
func (h *Host) IP() net.IP { return h.ip }

// Addr returns host:port for a port of this host.
func (h *Host) Addr(port int) string { return net.JoinHostPort(h.ip.String(), strconv.Itoa(port)) }

// Traffic returns what this host has sent.
func (h *Host) Traffic() Traffic {
	return Traffic{
		Packets:     h.packets.Load(),
		PacketBytes: h.packetBytes.Load(),
		PacketsLost: h.packetsLost.Load(),
		StreamBytes: h.streamBytes.Load(),
		Dials:       h.streamsDials.Load(),
	}
}

// Close is the sudden death of the host's processes: every socket is closed and every connection reset. The host may be
// used again afterwards, as after a restart.
func (h *Host) Close() {
	n := h.net
	n.mu.Lock()
	var ls []*Listener
	for _, l := range h.listeners {
		ls = append(ls, l)
	}
	var ts []*Transport
	for _, t := range h.sockets {
		ts = append(ts, t)
	}
	var cs []*Conn
	for c := range h.conns {
		cs = append(cs, c)
	}
	n.mu.Unlock()
	for _, l := range ls {
		_ = l.Close()
	}
	for _, t := range ts {
		_ = t.Shutdown()
	}
	for _, c := range cs {
		c.Reset()
	}
}

// Listen accepts streams on a port; 0 picks a free one.
func (h *Host) Listen(port int) (*Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		port = h.portLocked()
	}
	if h.listeners[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: h.tcp(port), Err: syscall.EADDRINUSE}
	}
	l := &Listener{host: h, port: port, backlog: make(chan net.Conn, backlog), closed: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// DialTimeout is Dial with a bound on the time; 0 is none.
func (h *Host) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return h.Dial(ctx, "tcp", addr)
}

// Dial opens a stream from this host. It takes one round trip; a closed port refuses after one round trip; a cut link
// answers nothing until it heals or ctx ends.
func (h *Host) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	h.streamsDials.Add(1)
	fail := func(err error) (net.Conn, error) {
		op := &net.OpError{Op: "dial", Net: "tcp", Source: h.tcp(0), Err: err}
		if to, e := net.ResolveTCPAddr("tcp", addr); e == nil {
			op.Addr = to
		}
		return nil, op
	}
	to, port, err := h.net.find(addr)
	if err != nil {
		return fail(err)
	}
	if err := h.cross(ctx, h, to); err != nil {
		return fail(err)
	}
	near, far := h.net.connect(h, to, port)
	handed := to.deliver(port, far)
	if err := h.cross(ctx, to, h); err != nil {
		near.Reset()
		return fail(err)
	}
	if !handed {
		near.Reset()
		return fail(syscall.ECONNREFUSED)
	}
	return near, nil
}

// cross waits as long as one small packet takes from a to b, retransmissions and cuts included.
func (h *Host) cross(ctx context.Context, a, b *Host) error {
	n := h.net
	for {
		n.mu.Lock()
		f := n.fateLocked(a, b)
		changed := n.changed
		n.mu.Unlock()
		if f.cut {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return timeoutError(ctx)
			}
		}
		d := f.delay + retransmission(&f)
		if d <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			t.Stop()
			return timeoutError(ctx)
		}
	}
}

// deliver hands an incoming connection to whoever listens.
func (h *Host) deliver(port int, c *Conn) bool {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l, t := h.listeners[port], h.sockets[port]
	switch {
	case l != nil:
		select {
		case l.backlog <- c:
			return true
		default:
		}
	case t != nil:
		select {
		case t.streams <- c:
			return true
		default:
		}
	}
	return false
}

func (h *Host) portLocked() int {
	for {
		h.nextPort++
		if h.nextPort > 65000 {
			h.nextPort = 40001
		}
		if h.listeners[h.nextPort] == nil && h.sockets[h.nextPort] == nil {
			return h.nextPort
		}
	}
}

func (h *Host) tcp(port int) *net.TCPAddr { return &net.TCPAddr{IP: h.ip, Port: port} }

func timeoutError(ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded {
		return syscall.ETIMEDOUT
	}
	return ctx.Err()
}
