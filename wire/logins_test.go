package wire

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"rangefinder/wire/pg"
)

func TestLoginBuckets(t *testing.T) {
	l := logins{byAddr: make(map[netip.Addr]*list.Element)}
	at := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(s), 1)) }
	now := time.Unix(1000, 0)
	ask := func(from string, n int) (in, told, hushed int) {
		for range n {
			var pe *pg.Error
			switch err := l.allow(at(from), 5, now); {
			case err == nil:
				in++
			case errors.As(err, &pe):
				told++
			case errors.Is(err, errHush):
				hushed++
			}
		}
		return in, told, hushed
	}
	check := func(from string, n, in, told, hushed int) {
		t.Helper()
		if a, b, c := ask(from, n); a != in || b != told || c != hushed {
			t.Errorf("%d logins from %s: %d let in, %d told, %d hushed; want %d, %d, %d", n, from, a, b, c, in, told, hushed)
		}
	}
	check("10.0.0.1", 120, 50, 50, 20)
	check("10.0.0.2", 1, 1, 0, 0)
	check("::ffff:10.0.0.1", 1, 0, 0, 1) // the same address
	now = now.Add(time.Second)
	check("10.0.0.1", 12, 5, 5, 2)
	now = now.Add(time.Hour)
	check("10.0.0.1", 60, 50, 10, 0)
	now = now.Add(-time.Hour) // a clock that is put back gives nothing, and takes nothing
	check("10.0.0.1", 1, 0, 1, 0)
	check("2001:db8::1", 50, 50, 0, 0)
	check("2001:db8::2", 1, 0, 1, 0) // the same network
	check("2001:db8:0:1::1", 1, 1, 0, 0)
	if err := l.allow(at("10.0.0.1"), 0, now); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := l.allow(a.RemoteAddr(), 1, now); err != nil {
		t.Errorf("what has no address: %v", err)
	}
	for i := range 2 * maxAddresses {
		ask(fmt.Sprintf("10.1.%d.%d", i>>8, i&255), 1)
	}
	if len(l.byAddr) != maxAddresses || l.recent.Len() != maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.byAddr))
	}
}
