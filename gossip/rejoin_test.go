package gossip

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// Both sides of a cut go on for longer than a lost node is remembered, and one side is started anew under other addresses: what leads
// back is a host name in the list of nodes to join, although some peer lives.
func TestSeedsByNameLeadBackAfterADay(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 12)
		defer w.close()
		var asked atomic.Int64
		var ips atomic.Pointer[[]net.IPAddr] // what the name leads to
		ips.Store(new([]net.IPAddr))
		named := func(c *Config) {
			c.Seeds = func() []string { return []string{"cluster.example:7946"} }
			c.Lookup = func(_ context.Context, host string) ([]net.IPAddr, error) {
				if asked.Add(1); host != "cluster.example" {
					return nil, &net.DNSError{Err: "no such host", Name: host}
				}
				return *ips.Load(), nil
			}
		}
		a, b := w.add("fra-0", "fra", named), w.add("fra-1", "fra", named)
		c, d := w.add("iad-0", "iad", nil), w.add("iad-1", "iad", nil)
		w.join(a, b)
		w.join(c, d) // the other side: a and b have never heard of it, nor it of them
		var all []net.IPAddr
		for _, n := range w.nodes {
			host, _, err := net.SplitHostPort(n.addr)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, net.IPAddr{IP: net.ParseIP(host)})
		}
		ips.Store(&all)
		w.until(time.Minute, "one cluster", func() bool {
			for _, n := range w.nodes {
				if n.live.Load() != 3 {
					return false
				}
			}
			return true
		})
		asked.Store(0)
		wait(10 * time.Minute)
		if n := asked.Load(); n < 2*8 || n > 2*12 {
			t.Errorf("in ten minutes two nodes have asked for the name %d times, want about one a minute each", n)
		}
		joins := a.Stats().Rejoins
		wait(10 * time.Minute)
		if got := a.Stats().Rejoins; got != joins {
			t.Errorf("%d joins of who is there already", got-joins)
		}
	})
}
