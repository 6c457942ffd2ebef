package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxPacket is the largest UDP payload; memberlist's own packets stay near 1400 bytes.
const maxPacket = 65536

// gossipTransport is memberlist's transport over the port: packets by UDP, streams of kind gossip.
type gossipTransport struct {
	port    *Port
	packets chan *memberlist.Packet
	done    chan struct{} // closed by Shutdown

	mu      sync.Mutex
	streams *listener      // nil until opened
	wg      sync.WaitGroup // the packet reader
	down    bool
}

var _ memberlist.NodeAwareTransport = (*gossipTransport)(nil)

func newGossipTransport(p *Port) *gossipTransport {
	return &gossipTransport{port: p, packets: make(chan *memberlist.Packet), done: make(chan struct{})}
}

// Gossip returns memberlist's transport. Packets are read from the first call on. Its Shutdown ends gossip for good and leaves
// the port's other kinds open.
func (p *Port) Gossip() memberlist.NodeAwareTransport {
	g := p.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams == nil && !g.down {
		g.streams = p.listen(KindGossip)
		g.wg.Add(1)
		p.wg.Go(func() { defer g.wg.Done(); g.read() })
	}
	return g
}

// FinalAdvertiseAddr returns the port's advertised address; memberlist's own settings, if given, win.
func (g *gossipTransport) FinalAdvertiseAddr(ip string, number int) (net.IP, int, error) {
	if ip == "" {
		return g.port.advertise.Addr().AsSlice(), int(g.port.advertise.Port()), nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, fmt.Errorf("gossip advertises %q, which is no IP address", ip)
	}
	return addr.Unmap().AsSlice(), number, nil
}

// WriteTo sends one packet.
func (g *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends one packet and returns when it went.
func (g *gossipTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	var dst *net.UDPAddr
	if ap, err := netip.ParseAddrPort(to.Addr); err == nil { // nearly always: resolving would allocate more
		dst = net.UDPAddrFromAddrPort(ap)
	} else if dst, err = net.ResolveUDPAddr("udp", to.Addr); err != nil {
		return time.Time{}, err
	}
	_, err := g.port.udp.WriteTo(b, dst)
	if err == nil {
		g.port.stats.packetsOut.Add(1)
	}
	return time.Now(), err
}

// PacketCh returns the packets received.
func (g *gossipTransport) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh returns the streams accepted. It is nil, which blocks for ever, if the port was shut down before it was used.
func (g *gossipTransport) StreamCh() <-chan net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams == nil {
		return nil
	}
	return g.streams.queue
}

// DialTimeout opens a gossip stream.
func (g *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a gossip stream.
func (g *gossipTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return g.port.Dial(ctx, KindGossip, to.Addr)
}

// Shutdown ends gossip: no more packets or streams are handed out. It waits for the reader.
func (g *gossipTransport) Shutdown() error {
	g.mu.Lock()
	if g.down {
		g.mu.Unlock()
		g.wg.Wait()
		return nil
	}
	g.down = true
	close(g.done)
	if g.streams != nil {
		g.streams.Close()
	}
	g.mu.Unlock()
	// The reader sits in ReadFrom: a deadline in the past wakes it without closing the socket, which is the port's.
	_ = g.port.udp.SetReadDeadline(time.Unix(1, 0))
	g.wg.Wait()
	return nil
}

// read takes packets off the socket until gossip or the port ends.
func (g *gossipTransport) read() {
	p := g.port
	buf := make([]byte, maxPacket)
	for {
		n, from, err := p.udp.ReadFrom(buf)
		now := time.Now() // close to the arrival: memberlist measures round trips with it
		if err != nil {
			select {
			case <-g.done:
				return
			case <-p.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// ICMP errors of earlier sends come back here; they say nothing about the socket.
			p.noise.say("cluster port: cannot read a packet", slog.Any("error", err))
			select {
			case <-g.done:
				return
			case <-p.done:
				return
			case <-time.After(time.Millisecond):
			}
			continue
		}
		p.stats.packetsIn.Add(1)
		if n == 0 {
			continue
		}
		packet := &memberlist.Packet{Buf: append(make([]byte, 0, n), buf[:n]...), From: from, Timestamp: now}
		select {
		case g.packets <- packet:
		case <-g.done:
			p.stats.packetsDropped.Add(1)
			return
		case <-p.done:
			p.stats.packetsDropped.Add(1)
			return
		}
	}
}
