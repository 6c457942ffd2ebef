package gossip

import (
	"fmt"
	"testing"
	"time"

	"rangefinder/rib"
)

// Pulls make a node work for long, each of them, and as little else is heard meanwhile as they let: so few are answered.
func TestPullsInManyNames(t *testing.T) {
	virtual(t, func(t *testing.T) {
		table := rib.NewTable(rib.Member{Name: "me", Region: "fra", Incarnation: 1})
		s := New(Config{Self: rib.Member{Name: "me", Region: "fra", Incarnation: 1}, ClusterID: "c", Health: table.Health()})
		table.Health().Announce(rib.Announcement{Observer: "me", Backend: rib.Backend{Name: "b", Shard: "s", Region: "fra", Addr: "1.1.1.1:1"}, Stamp: rib.Stamp{Incarnation: 1, Seq: 1}})
		var batch []byte
		for i := range 60 {
			name := fmt.Sprintf("node-%d", i)
			s.peers[name] = &peer{}
			batch = appendBatched(batch, appendPull(nil, &pull{sender: name, observers: []id{idOf("me")}}))
		}
		served := func(what string, want uint64, message []byte) {
			t.Helper()
			before := s.count.served.Load()
			s.inbox.put(message)
			s.work()
			if got := s.count.served.Load() - before; got != want {
				t.Errorf("%s: %d pulls are answered, want %d", what, got, want)
			}
		}
		one := appendPull(nil, &pull{sender: "node-7", observers: []id{idOf("me")}})
		served("one", 1, one)
		for range pullBurst - 1 {
			served("again", 1, one)
		}
		served("too often", 0, one)
		wait(time.Second)
		served("again, later", 1, one)
		served("sixty in one message, in the names of sixty nodes", maxPulls, batch)
		served("of a node that is none", 0, appendPull(nil, &pull{sender: "stranger", observers: []id{idOf("me")}}))

		// An answer that took long keeps pulls, of whomever, from being answered for as long.
		s.pullAgain = time.Now().Add(100 * time.Millisecond)
		served("right after a long one", 0, appendPull(nil, &pull{sender: "node-50", observers: []id{idOf("me")}}))
		wait(100 * time.Millisecond)
		served("a while after it", 1, appendPull(nil, &pull{sender: "node-50", observers: []id{idOf("me")}}))
	})
}
