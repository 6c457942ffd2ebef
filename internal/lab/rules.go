package lab

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Rule adds a round trip to what goes to a network: half of it on the way there, half on the way back.
type Rule struct {
	Net netip.Prefix
	RTT time.Duration
}

// Rules are looked up by the longest matching network. An address that none matches is not delayed.
type Rules []Rule

// RTT returns the round trip that the rules add to an address.
func (rules Rules) RTT(addr netip.Addr) time.Duration {
	addr = addr.Unmap()
	var rtt time.Duration
	bits := -1
	for _, r := range rules {
		if r.Net.Bits() > bits && r.Net.Contains(addr) {
			rtt, bits = r.RTT, r.Net.Bits()
		}
	}
	return rtt
}

// to returns the round trip to what net calls an address, 0 if it holds no IP address.
func (rules Rules) to(addr net.Addr) time.Duration {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return rules.RTT(a.AddrPort().Addr())
	case *net.UDPAddr:
		return rules.RTT(a.AddrPort().Addr())
	case nil:
		return 0
	}
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
		return rules.RTT(ap.Addr())
	}
	return 0
}

// Dialer dials connections that are delayed by rules. The zero value dials as net.Dialer does. It may be used concurrently.
type Dialer struct {
	Rules Rules
	Dial  func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
}

// DialContext dials address, and returns one round trip later: also a refusal has to travel. A connection that no rule
// matches is returned as it is.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dial := d.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if len(d.Rules) == 0 {
		return dial(ctx, network, address)
	}
	begin := time.Now()
	conn, err := dial(ctx, network, address)
	var rtt time.Duration
	if err == nil {
		rtt = d.Rules.to(conn.RemoteAddr())
	} else if ap, parseErr := netip.ParseAddrPort(address); parseErr == nil {
		rtt = d.Rules.RTT(ap.Addr())
	}
	if rtt <= 0 {
		return conn, err
	}
	if ctxErr := until(ctx.Done(), begin.Add(rtt)); !ctxErr {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: context.Cause(ctx)}
	}
	if err != nil {
		return nil, err
	}
	return newConn(conn, rtt/2), nil
}

// until waits for a moment and tells whether it came before cancel was closed.
func until(cancel <-chan struct{}, moment time.Time) bool {
	timer := time.NewTimer(time.Until(moment))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-cancel:
		return false
	}
}
