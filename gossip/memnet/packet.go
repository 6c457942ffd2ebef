package memnet

import (
	"errors"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxPacket   = 65507 // UDP's own limit
	socketDepth = 1024  // packets that wait in a socket; more are dropped, as a kernel would
	backlog     = 128   // streams that wait to be accepted
)

// Transport is one port of a host as memberlist wants it: packets and streams.
type Transport struct {
	// constant
	host    *Host
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// Transport opens a port for packets and streams; 0 picks a free one. A port that is open is an error.
func (h *Host) Transport(port int) (*Transport, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		port = h.portLocked()
	}
	if h.sockets[port] != nil {
		return nil, errors.New("memnet: port in use: " + h.Addr(port))
	}
	t := &Transport{
		host:    h,
		port:    port,
		packets: make(chan *memberlist.Packet, socketDepth),
		streams: make(chan net.Conn, backlog),
	}
	h.sockets[port] = t
	return t, nil
}

// Addr returns the transport's host:port.
func (t *Transport) Addr() string { return t.host.Addr(t.port) }

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.host.ip, t.port, nil
}

// WriteTo implements memberlist.Transport. As with UDP, no error says that something was lost.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	h, n := t.host, t.host.net
	if len(b) > maxPacket {
		return now, &net.OpError{Op: "write", Net: "udp", Err: errors.New("message too long")}
	}
	h.packets.Add(1)
	h.packetBytes.Add(uint64(len(b)))
	to, port, err := n.find(addr)
	if err != nil {
		h.packetsLost.Add(1)
		return now, nil
	}
	n.mu.Lock()
	open := h.sockets[t.port] == t
	f := n.fateLocked(h, to)
	f.lost = f.lost || n.silent
	n.mu.Unlock()
	if !open {
		return now, &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}
	}
	if f.cut && !f.still || f.lost {
		h.packetsLost.Add(1)
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: &net.UDPAddr{IP: h.ip, Port: t.port}}
	time.AfterFunc(f.delay, func() { to.receive(port, p, h) })
	return now, nil
}

// receive runs when a packet arrives.
func (h *Host) receive(port int, p *memberlist.Packet, from *Host) {
	h.net.mu.Lock()
	t := h.sockets[port]
	if h.net.frozenLocked(h) {
		defer h.net.mu.Unlock()
		if waiting := h.net.frozen[h]; len(waiting) < socketDepth {
			h.net.frozen[h] = append(waiting, func() { h.receive(port, p, from) })
		} else {
			from.packetsLost.Add(1)
		}
		return
	}
	h.net.mu.Unlock()
	if t != nil {
		p.Timestamp = time.Now()
		select {
		case t.packets <- p:
			return
		default:
		}
	}
	from.packetsLost.Add(1)
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.host.DialTimeout(addr, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.host.DialTimeout(a.Addr, timeout)
}

// Shutdown implements memberlist.Transport: the port is free again, and streams nobody accepted are reset.
func (t *Transport) Shutdown() error {
	n := t.host.net
	n.mu.Lock()
	if t.host.sockets[t.port] == t {
		delete(t.host.sockets, t.port)
	}
	n.mu.Unlock()
	drain(t.streams)
	return nil
}

// drain resets the connections that nobody will accept any more.
func drain(ch chan net.Conn) {
	for {
		select {
		case c := <-ch:
			if c, ok := c.(*Conn); ok {
				c.Reset()
			}
		default:
			return
		}
	}
}
