package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
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

// However many die, each is missed: what it had it may still have, and who has lost most of the others may be cut off. Only of more than there can be
// at once those that have been gone for the longest are let go.
func TestLostIsEverybodyWhoIsMissing(t *testing.T) {
	for _, c := range []struct{ members, gone, forgotten int }{
		{1, 0, 0},
		{1000, 600, 0},
		{maxMembers + 1, maxMembers, 0},
		{maxMembers + 3, maxMembers + 2, 2},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.gone, c.members), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				self := rib.Member{Name: "self", Region: "fra"}
				s := New(Config{Self: self, ClusterID: "c", Health: rib.NewTable(self).Health(), Logger: slog.New(slog.DiscardHandler)})
				var names []string
				for i := range c.members - 1 {
					names = append(names, fmt.Sprintf("node-%04d", i))
					m := rib.Member{Name: names[i], Region: "iad", Incarnation: 1}
					s.memberEvent(event{node: memberlist.Node{Name: m.Name, Meta: appendMeta(nil, &m, s.cluster, 1)}})
				}
				for _, name := range names[:c.gone] {
					s.memberEvent(event{node: memberlist.Node{Name: name}, gone: true})
					wait(time.Millisecond)
				}
				var lost []string
				for _, l := range s.Lost() {
					lost = append(lost, l.Name)
				}
				if want := names[c.forgotten:c.gone]; !slices.Equal(lost, want) {
					t.Errorf("%d are lost, want %d", len(lost), len(want))
				}
				if got, want := s.Present(), append(names[c.forgotten:], "self"); !slices.Equal(got, want) {
					t.Errorf("%d are present, want %d", len(got), len(want))
				}
			})
		})
	}
}
