package probe

import (
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// Connecting takes several round trips. A backend on the other side of the world is reached although they take longer together than a probe waits.
func TestFarBackend(t *testing.T) {
	lab(t, func(n *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		n.SetRTT(memnet.Everyone, memnet.Everyone, 900*time.Millisecond)
		mark, start := sink.mark(), time.Now()
		s.hangsUpOnce()
		up := sink.await(t, mark, "b", "over a new connection", func(r rib.Route) bool { return r.State == rib.Up && r.Latency > 100*time.Millisecond })
		between(t, "a new connection", up.at.Sub(start), 2*time.Second, 6*time.Second)
		for _, r := range sink.all()[mark:] {
			if r.State == rib.Down {
				t.Errorf("it was called down at %v", r.at)
			}
		}
	})
}

// A server that goes on saying something, and lets nobody in, is waited for no longer than one that is silent.
func TestServerThatDrips(t *testing.T) {
	lab(t, func(_ *memnet.Net, s *server, _ *Prober, sink *seen) {
		sink.await(t, 0, "b", "up", is(rib.Up))
		s.drips.Store(true)
		start := time.Now()
		s.hangsUpOnce()
		down := sink.await(t, 0, "b", "down", is(rib.Down))
		between(t, "down", down.at.Sub(start), 4*time.Second, 8*time.Second)
		s.drips.Store(false)
		<-time.After(2 * time.Second) // its goroutines end
	})
}

// hangsUpOnce has the server close the kept connection at the next query, and answer those on new ones.
func (s *server) hangsUpOnce() {
	before := *s.answer.Load()
	s.says(func(*pgproto3.Backend, net.Conn) bool {
		s.says(before)
		return false
	})
}
