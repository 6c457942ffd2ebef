package gossip

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// owned has nodes know of one shard, shard_1 with system identifier 77, and of the nodes there ever were; those named in forgotten an
// operator has given up.
func (w *world) owned(index uint64, nodes []*node, forgotten ...string) {
	o := &rib.Ownership{ClusterID: "test-cluster", Epoch: rib.Epoch{Index: index}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 77}}}
	for i, n := range w.nodes {
		o.Nodes = append(o.Nodes, n.self.Name)
		if slices.Contains(forgotten, n.self.Name) {
			o.Forgotten = append(o.Forgotten, i)
		}
	}
	for _, n := range nodes {
		n.table.Owners().Set(o)
	}
}

// announced are the backends that a node knows of, but for those that begin with b-.
func (n *node) announced() (names []string) {
	for _, v := range n.table.Snapshot().Backends {
		if !strings.HasPrefix(v.Backend.Name, "b-") {
			names = append(names, v.Backend.Name)
		}
	}
	return names
}

// know waits until all these nodes know of these backends, and of no others.
func (w *world) know(limit time.Duration, nodes []*node, want ...string) {
	w.t.Helper()
	w.until(limit, fmt.Sprintf("the backends are %q", want), func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return !slices.Equal(n.announced(), want) })
	})
}

// What a node has announced outlives it, for as long as it may be of use. What can never be of use does not.
func TestAnnouncementsOutliveTheirAuthorWhileTheyAreOfUse(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 41)
		defer w.close()
		w.form(4)
		author, others := w.nodes[3], w.nodes[:3]
		author.lists("good")
		for name, b := range map[string]rib.Backend{
			"unreached": {Shard: "shard_1"}, "another": {Shard: "shard_1", SystemID: 78}, "unheard-of": {Shard: "shard_9", SystemID: 79},
		} {
			b.Name, b.Region, b.Addr = name, "fra", name+":5432"
			author.Announce(b)
		}
		all := []string{"another", "good", "unheard-of", "unreached"}
		w.know(5*time.Second, w.nodes, all...)
		w.net.Isolate(others[0].self.Region)
		wait(time.Minute)
		if err := author.Kill(); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Minute) // nobody knows yet which shards there are
		w.know(0, others, all...)
		w.owned(1, others[1:])
		w.know(2*rib.Tombstone, others[1:], "good")
		wait(time.Hour)
		w.know(0, others[1:], "good")
		w.know(0, others[:1], all...)

		w.net.Rejoin(others[0].self.Region) // it brings nothing back, whether it knows of the shards or not
		w.until(5*time.Minute, "all are back", func() bool { return len(others[0].Members()) == 3 && len(others[1].Members()) == 3 })
		w.know(0, others[1:], "good")
		w.owned(1, others[:1])
		w.know(2*rib.Tombstone, others, "good")
		fresh := w.add("fra-9", "fra", nil)
		w.owned(1, []*node{fresh})
		w.join(fresh, others[1])
		w.know(time.Minute, append(others[:3:3], fresh), "good")
		wait(10 * time.Minute)
		w.know(0, append(others[:3:3], fresh), "good")
	})
}

// What an operator has forgotten has announced nothing, wherever it is still known: with nodes that were cut off, and on their disks.
func TestForgottenNodesHaveAnnouncedNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 42)
		defer w.close()
		w.form(4)
		author, others := w.nodes[3], w.nodes[:3]
		author.lists("lost")
		author.lists("shared")
		others[1].lists("shared")
		w.owned(1, w.nodes)
		w.know(5*time.Second, w.nodes, "lost", "shared")
		disk := others[1].table.Health().Known()
		w.net.Isolate(others[0].self.Region)
		wait(time.Minute)
		w.owned(2, w.nodes[1:], author.self.Name)
		wait(time.Minute)
		w.know(0, w.nodes, "lost", "shared") // those that see it alive wait for the ledger to take it back
		if err := author.Kill(); err != nil {
			t.Fatal(err)
		}
		w.know(time.Minute, others[1:], "shared")

		others[1].table.Health().Recall(disk)
		w.know(0, others[1:], "shared")
		w.net.Rejoin(others[0].self.Region)
		w.until(5*time.Minute, "all are back", func() bool { return len(others[0].Members()) == 3 && len(others[1].Members()) == 3 })
		w.know(0, others[:1], "lost", "shared")
		w.owned(2, others[:1], author.self.Name)
		w.know(5*time.Second, others, "shared")
		wait(10 * time.Minute)
		w.know(0, others, "shared")

		// It is not gone after all.
		back := &node{world: w, self: rib.Member{Name: author.self.Name, Region: "fra", Incarnation: 2}, host: w.net.Host("back", "fra")}
		back.open(nil)
		w.owned(2, []*node{back}, author.self.Name)
		w.nodes[3] = back
		w.join(back, others[0])
		back.lists("lost")
		w.know(time.Minute, w.nodes, "lost", "shared")
	})
}

// Backends that somebody makes up, in names that nobody bears or of one who is dead, keep nobody else's out for good.
func TestBackendsThatAreMadeUp(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		w.owned(1, w.nodes)
		var msgs [][]byte
		for i := range maxBackends {
			b := rib.Backend{Name: fmt.Sprintf("made-up-%d", i), Shard: "shard_1", Region: "r", Addr: "10.0.0.1:1"}
			a := rib.Announcement{Backend: b, Observer: fmt.Sprintf("nobody-%d", i%8), Stamp: rib.Stamp{Incarnation: 1, Seq: uint64(i)}}
			switch i % 5 {
			case 0:
				a.Backend.SystemID = 78
			case 1:
				a.Backend.Shard, a.Backend.SystemID = "made-up", 77
			case 2:
				a.Gone = true
			case 3:
				a.Backend.SystemID = 77 // as every real announcement shows it
			}
			if msgs = append(msgs, appendAnnouncement(nil, &a)); len(msgs) == 512 {
				liar.sends(victim, msgs...)
				msgs = nil
			}
		}
		wait(5 * time.Second)
		if st := victim.Stats(); st.Backends != maxBackends || st.OverBound == 0 {
			w.t.Fatalf("held %+v", st)
		}
		w.nodes[1].lists("new")
		w.know(rib.Tombstone+recountTime+time.Minute, w.nodes, "new")
		w.until(time.Minute, "nothing is left of what was made up", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.Stats().Backends != 5 })
		})
	})
}

// Backends that somebody makes up in the name of a node that is dead, and may come back, last as long as it is away; but they make room for those of
// nodes that live. What the dead one has really announced, and somebody reaches, stays.
func TestBackendsThatAreMadeUpInTheNameOfTheDead(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		w.owned(1, w.nodes)
		dead := w.nodes[2]
		dead.lists("real") // sorts behind those that are made up, as any name may
		r := up("real")
		w.know(5*time.Second, w.nodes, "real")
		victim.Observe(r)
		_ = dead.Kill()
		dead.host.Close()
		live := []*node{victim, w.nodes[1], liar}
		w.until(time.Minute, "it is dead", func() bool { return len(victim.Members()) == 3 && len(w.nodes[1].Members()) == 3 })
		var msgs [][]byte
		for i := range maxBackends {
			a := rib.Announcement{
				Backend:  rib.Backend{Name: fmt.Sprintf("made-up-%d", i), Shard: "shard_1", Region: "r", Addr: "10.0.0.1:1", SystemID: 77},
				Observer: dead.self.Name, Stamp: rib.Stamp{Incarnation: 1, Seq: uint64(1000 + i)},
			}
			if msgs = append(msgs, appendAnnouncement(nil, &a)); len(msgs) == 512 {
				for _, n := range live[:2] {
					liar.sends(n, msgs...)
				}
				msgs = nil
			}
		}
		wait(rib.Tombstone + recountTime + time.Minute)
		if st := victim.Stats(); st.Backends != maxBackends {
			w.t.Fatalf("held %+v", st)
		}
		fresh := []string{"new-1", "new-2", "new-3"}
		for _, name := range fresh {
			w.nodes[1].lists(name)
		}
		here := func(n *node) bool {
			names := n.announced()
			return !slices.ContainsFunc(append(fresh, "real"), func(name string) bool { return !slices.Contains(names, name) })
		}
		w.until(10*time.Second, "the new ones and the real one", func() bool { return here(victim) && here(w.nodes[1]) })
		wait(10 * time.Minute)
		if st := victim.Stats(); !here(victim) || st.Backends > maxBackends {
			w.t.Errorf("later: %+v", st)
		}
	})
}
