package port

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// listener is the net.Listener of one kind.
type listener struct {
	port  *Port
	kind  Kind
	queue chan net.Conn // unbuffered: a stream that nobody has taken yet is still half-open, and bounded as such
	done  chan struct{}
	once  sync.Once
}

// Listener returns the listener for one kind. It panics if there is one already that is not closed: two servers of one kind
// in a process are a mistake. Its Addr is the advertised address; closing it leaves the port open.
func (p *Port) Listener(kind Kind) net.Listener { return p.listen(kind) }

func (p *Port) listen(kind Kind) *listener {
	l := &listener{port: p, kind: kind, queue: make(chan net.Conn), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listeners[kind] != nil {
		panic(fmt.Sprintf("port: %s streams have a listener already", kind))
	}
	p.listeners[kind] = l
	return l
}

// Accept waits for the next stream. After Close, of the listener or of the port, it returns net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	case <-l.port.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
	case <-l.port.done:
	}
	return nil, net.ErrClosed
}

// Close ends Accept. Streams already accepted stay open.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.port.mu.Lock()
		if l.port.listeners[l.kind] == l {
			delete(l.port.listeners, l.kind)
		}
		l.port.mu.Unlock()
		close(l.done)
	})
	return nil
}

// Addr returns the advertised address.
func (l *listener) Addr() net.Addr { return streamAddr(l.port.addr) }

// streamAddr is an advertised address, which may hold a host name.
type streamAddr string

func (streamAddr) Network() string  { return "tcp" }
func (a streamAddr) String() string { return string(a) }

// Dial opens a stream of one kind to a node's cluster port. It takes no longer than ctx allows, nor much longer than twice the
// handshake's time limit. Errors are a *DialError; errors.Is tells ErrKeyMismatch, ErrNotProtected and ErrClosed.
func (p *Port) Dial(ctx context.Context, kind Kind, addr string) (net.Conn, error) {
	s, err := p.dial(ctx, kind, addr)
	if err != nil {
		return nil, &DialError{Kind: kind, Addr: addr, Err: err}
	}
	return s, nil
}

func (p *Port) dial(ctx context.Context, kind Kind, addr string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() // a dial under way must not outlive the port
	raw, err := p.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, p.orClosed(err)
	}
	conn := raw
	if p.id != nil {
		c := tls.Client(raw, p.id.client)
		shake, done := context.WithTimeout(ctx, p.cfg.HandshakeTimeout)
		err := c.HandshakeContext(shake)
		done()
		if err != nil {
			raw.Close()
			return nil, p.orClosed(handshakeCause(err))
		}
		conn = c
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write([]byte{byte(kind)}); err != nil {
		raw.Close()
		return nil, p.orClosed(err)
	}
	_ = conn.SetWriteDeadline(time.Time{})
	s := p.track(conn, raw)
	if s == nil {
		raw.Close()
		return nil, ErrClosed
	}
	p.stats.dialed.Add(1)
	return s, nil
}

// orClosed prefers ErrClosed over the odd errors that a closing port makes.
func (p *Port) orClosed(err error) error {
	select {
	case <-p.done:
		return ErrClosed
	default:
		return err
	}
}

// Raft returns the stream layer that raft.NewNetworkTransport needs. Call it once.
func (p *Port) Raft() raft.StreamLayer { return raftLayer{p.listen(KindRaft)} }

type raftLayer struct{ *listener }

// Dial opens a Raft stream.
func (r raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return r.port.Dial(ctx, KindRaft, string(address))
}
