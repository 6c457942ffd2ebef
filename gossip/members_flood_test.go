package gossip

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

// Nodes that somebody makes up are held to the bound, also if they come faster than they are worked off, and of all the regions in which they claim
// to stand no more are asked in a second than a row has room for.
func TestNodesThatAreMadeUp(t *testing.T) {
	self := rib.Member{Name: "n", Region: "fra"}
	s := New(Config{Self: self, ClusterID: "c", Health: rib.NewTable(self).Health(), Logger: slog.New(slog.DiscardHandler)})
	d := delegate{s}
	live := 0
	madeUp := func(i int) *memberlist.Node {
		m := rib.Member{Name: fmt.Sprint("made-up-", i), Region: fmt.Sprint("region-", i), Incarnation: 1}
		return &memberlist.Node{Name: m.Name, Addr: net.IPv4(10, 6, 6, 6), Port: 7946, Meta: appendMeta(nil, &m, s.cluster, level)}
	}
	come := func(from, to int) {
		for i := from; i < to; i++ {
			if n := madeUp(i); d.NotifyAlive(n) == nil {
				d.NotifyJoin(n)
				live++
			}
		}
	}
	come(0, maxMembers+1000)
	if live != maxMembers || s.Stats().OverBound != 1000 {
		t.Errorf("%d nodes are let in, %+v", live, s.Stats())
	}
	s.work()
	if err := d.NotifyAlive(madeUp(7)); err != nil {
		t.Errorf("one that is in: %v", err)
	}
	for i := range 10 {
		d.NotifyLeave(madeUp(i))
		live--
	}
	if come(maxMembers+1000, maxMembers+1020); live != maxMembers {
		t.Errorf("%d nodes after some have gone and others come", live)
	}
	s.work()
	if n := len(s.Members()); n != maxMembers+1 {
		t.Errorf("%d members", n)
	}
	turns, asked := map[string]*place{}, map[string]bool{}
	for range maxMembers/maxRow + 1 {
		targets := s.targets(turns)
		if len(targets) > maxRow {
			t.Fatalf("%d nodes are asked at once", len(targets))
		}
		for region := range targets {
			asked[region] = true
		}
	}
	if len(asked) != maxMembers {
		t.Errorf("%d of %d regions have had their turn", len(asked), maxMembers)
	}
}

// Of a region in which nothing is any more nothing stays.
func TestRegionsThatAreGone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 44)
		defer w.close()
		w.form(2)
		n := w.nodes[0]
		regions := func() (known []string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for region := range n.own.rtt {
				if _, ok := n.table.Snapshot().Distances[region]; ok {
					known = append(known, region)
				}
			}
			slices.Sort(known)
			return known
		}
		for _, region := range []string{"empty", "served"} {
			nd := w.add("of "+region, region, nil)
			w.join(nd, n)
		}
		served := w.nodes[3]
		served.lists("db")
		all := []string{"empty", w.nodes[0].self.Region, w.nodes[1].self.Region, "served"}
		slices.Sort(all)
		w.until(20*time.Second, "all regions are measured", func() bool { return slices.Equal(regions(), all) })
		for _, nd := range w.nodes[2:] {
			_ = nd.Kill()
			nd.host.Close()
		}
		left := slices.DeleteFunc(slices.Clone(all), func(r string) bool { return r == "empty" })
		w.until(5*time.Minute, "nothing is known of the way to where nothing is", func() bool { return slices.Equal(regions(), left) })
		wait(5 * time.Minute)
		if got := regions(); !slices.Equal(got, left) {
			t.Errorf("the ways to %q are known: a backend stands in one of them", got)
		}
	})
}
