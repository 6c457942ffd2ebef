package probe

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// While a shard has no primary a promotion is seen within two tenths of a second; before and after it the probes are no more than
// usual. What somebody asks to be looked at is looked at at once.
func TestSeekingAPrimary(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, p *Prober, sink *seen) {
		s.says(row("t", "1", "0", "77"))
		sink.await(t, 0, "b", "up", is(rib.Up))
		p.Seek(map[string]struct{}{"shard_2": {}}) // another's
		mark := sink.mark()
		<-time.After(10 * time.Second)
		if n := sink.mark() - mark; n > 12 {
			t.Errorf("%d probes in 10 s of a backend that nobody asks for", n)
		}
		p.Seek(map[string]struct{}{"shard_1": {}})
		<-time.After(time.Second)
		s.says(row("f", "2", "0", "77"))
		mark, start := sink.mark(), time.Now()
		primary := sink.await(t, mark, "b", "primary", func(r rib.Route) bool { return r.Role == rib.Primary && r.Timeline == 2 })
		between(t, "the primary", primary.at.Sub(start), 0, 230*time.Millisecond)
		p.Seek(map[string]struct{}{})
		mark = sink.mark()
		<-time.After(10 * time.Second)
		if n := sink.mark() - mark; n > 12 {
			t.Errorf("%d probes in 10 s after the primary was found", n)
		}
		<-time.After(200 * time.Millisecond)
		s.says(row("t", "2", "0", "77"))
		mark, start = sink.mark(), time.Now()
		p.Recheck("b")
		again := sink.await(t, mark, "b", "replica", func(r rib.Route) bool { return r.Role == rib.Replica })
		between(t, "the other role", again.at.Sub(start), 0, 110*time.Millisecond)
		p.Recheck("nobody")
	})
}

// An address that leads elsewhere by now, as one that moves with the primary does, leads there for new connections alone: who has met another
// server than the probe's connection still does has the probe look at that one.
func TestRecheckFollowsTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		n.SetRTT(memnet.Everyone, memnet.Everyone, time.Millisecond)
		first, next := startServer(t, n), &server{host: n.Host("db2", "fra")}
		next.says(row("t", "2", "0", "77"))
		next.start(t)
		var leads atomic.Pointer[server]
		leads.Store(first)
		node, sink := n.Host("node", "fra"), newSeen()
		p := New(Config{
			Settings: Settings{Backends: []Target{{Name: "b", Shard: "shard_1", Region: "fra", Addr: "moves:5432"}}, User: "prober", Interval: time.Minute},
			Sink:     sink, Logger: quiet(),
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return node.Dial(ctx, network, leads.Load().host.Addr(port))
			},
		})
		if err := p.Open(); err != nil {
			t.Fatal(err)
		}
		sink.await(t, 0, "b", "primary", func(r rib.Route) bool { return r.Role == rib.Primary && r.Timeline == 1 })
		<-time.After(time.Second)
		leads.Store(next)
		mark, start := sink.mark(), time.Now()
		p.Recheck("b")
		replica := sink.await(t, mark, "b", "replica", func(r rib.Route) bool { return r.Role == rib.Replica })
		between(t, "the other server's role", replica.at.Sub(start), 0, 20*time.Millisecond)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
	})
}
