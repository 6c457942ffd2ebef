package lab

import (
	"container/heap"
	"net"
	"sync"
	"time"
)

// packetBytes bounds the datagrams on their way; more are dropped, as a full queue on a router would.
const packetBytes = 8 << 20

// WrapPacketConn returns a packet connection that sends each datagram half a round trip late, by the rules for its
// destination, and receives as pc does (the other side delays what it sends). Datagrams that no rule matches go at once. Close
// drops what is on its way and waits for the sender. Without rules, pc is returned as it is.
func WrapPacketConn(pc net.PacketConn, rules Rules) net.PacketConn {
	if len(rules) == 0 {
		return pc
	}
	p := &packetConn{inner: pc, rules: rules, wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	go p.send()
	return p
}

type packetConn struct {
	// constant
	inner  net.PacketConn
	rules  Rules
	wake   chan struct{} // capacity 1
	closed chan struct{} // closed by Close
	done   chan struct{} // closed by the sender at its end
	once   sync.Once

	// guarded by mu
	mu    sync.Mutex
	queue packetHeap
	bytes int
	seq   uint64
}

type packet struct {
	due  time.Time
	seq  uint64 // of two that are due at once, the first sent goes first
	data []byte
	addr net.Addr
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	rtt := p.rules.to(addr)
	if rtt <= 0 {
		return p.inner.WriteTo(b, addr)
	}
	select {
	case <-p.closed:
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: net.ErrClosed}
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+len(b) > packetBytes {
		return len(b), nil
	}
	p.bytes += len(b)
	p.seq++
	heap.Push(&p.queue, packet{time.Now().Add(rtt / 2), p.seq, append([]byte(nil), b...), addr})
	signal(p.wake)
	return len(b), nil
}

// send sends what is due.
func (p *packetConn) send() {
	defer close(p.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.mu.Lock()
		var due []packet
		for now := time.Now(); len(p.queue) > 0 && !p.queue[0].due.After(now); {
			next := heap.Pop(&p.queue).(packet)
			p.bytes -= len(next.data)
			due = append(due, next)
		}
		wait := time.Hour
		if len(p.queue) > 0 {
			wait = time.Until(p.queue[0].due)
		}
		p.mu.Unlock()
		for _, d := range due {
			_, _ = p.inner.WriteTo(d.data, d.addr) // a datagram that cannot be sent is a datagram lost
		}
		if len(due) > 0 {
			continue // sending took time: look again
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.closed:
			return
		}
	}
}

func (p *packetConn) Close() error {
	err := error(&net.OpError{Op: "close", Net: "udp", Err: net.ErrClosed})
	p.once.Do(func() {
		close(p.closed)
		err = p.inner.Close()
	})
	<-p.done
	return err
}

func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) { return p.inner.ReadFrom(b) }
func (p *packetConn) LocalAddr() net.Addr                      { return p.inner.LocalAddr() }
func (p *packetConn) SetDeadline(t time.Time) error            { return p.inner.SetDeadline(t) }
func (p *packetConn) SetReadDeadline(t time.Time) error        { return p.inner.SetReadDeadline(t) }
func (p *packetConn) SetWriteDeadline(t time.Time) error       { return p.inner.SetWriteDeadline(t) }

// packetHeap has the packet due first on top.
type packetHeap []packet

func (h packetHeap) Len() int      { return len(h) }
func (h packetHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h packetHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h *packetHeap) Push(x any) { *h = append(*h, x.(packet)) }
func (h *packetHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = packet{}
	*h = old[:len(old)-1]
	return last
}
