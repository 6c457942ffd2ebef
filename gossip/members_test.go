package gossip

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

// Whoever walks the members between an event and the end of its batch must not meet one that is gone.
func TestMembersAreWholeBetweenEvents(t *testing.T) {
	s := New(Config{Self: rib.Member{Name: "self", Region: "fra"}, ClusterID: "c", Health: rib.NewTable(rib.Member{Name: "self"}).Health()})
	happens := func(name string, gone bool) {
		m := rib.Member{Name: name, Region: "iad", Incarnation: 1}
		s.memberEvent(event{node: memberlist.Node{Name: name, Meta: appendMeta(nil, &m, s.cluster, 1)}, gone: gone})
	}
	for _, name := range []string{"c", "a", "b", "a"} {
		happens(name, false)
	}
	happens("b", true)
	if targets := s.targets(map[string]*place{}); len(targets) != 1 || targets["iad"].Name == "b" {
		t.Errorf("targets: %v", targets)
	}
	if nodes := s.randomPeers(9); len(nodes) != 2 {
		t.Errorf("peers: %v", nodes)
	}
	s.tells(&s.cfg.Self)
	if len(s.order) != 2 || s.order[0] != "a" || s.order[1] != "c" {
		t.Errorf("order: %v", s.order)
	}
}

// A record that cannot be its observer's takes no place, and is no first word of it.
func TestImplausibleRecordsTakeNoPlace(t *testing.T) {
	s := New(Config{Self: rib.Member{Name: "self", Region: "fra"}, ClusterID: "c", Health: rib.NewTable(rib.Member{Name: "self"}).Health()})
	o := observation{backend: idOf("b"), observer: idOf("n")}
	s.known[o.backend], s.known[o.observer] = "b", "n"
	o.route = rib.Route{State: rib.Up, Stamp: rib.Stamp{Incarnation: maxIncarnation, Seq: 1}}
	s.hearObservation(o, nil)
	if st := s.Stats(); st.Records != 0 || st.Implausible != 1 {
		t.Errorf("%+v", st)
	}
	o.route.Stamp.Incarnation = 1
	s.hearObservation(o, nil)
	if st := s.Stats(); st.Records != 1 {
		t.Errorf("%+v", st)
	}
}

// Of a region's nodes the first three by name tell how far it is to the others. What another one said while it was among them counts
// no more.
func TestRowsOfThoseWhoTell(t *testing.T) {
	s := New(Config{Self: rib.Member{Name: "self", Region: "fra"}, ClusterID: "c", Health: rib.NewTable(rib.Member{Name: "self"}).Health()})
	joins := func(name string, rtt time.Duration) {
		m := rib.Member{Name: name, Region: "iad", Incarnation: 1}
		s.memberEvent(event{node: memberlist.Node{Name: name, Meta: appendMeta(nil, &m, s.cluster, 1)}})
		s.hearRow(row{observer: idOf(name), stamp: rib.Stamp{Incarnation: 1, Seq: 1}, rtt: map[id]time.Duration{idOf("fra"): rtt}})
	}
	iad := func() time.Duration { return s.RTTs()["iad"]["fra"] }
	for _, name := range []string{"d", "e", "f"} {
		joins(name, 500*time.Millisecond)
	}
	if got := iad(); got != 500*time.Millisecond {
		t.Errorf("of three nodes: %v", got)
	}
	for _, name := range []string{"c", "a", "b"} {
		joins(name, 20*time.Millisecond)
	}
	if got := iad(); got != 20*time.Millisecond {
		t.Errorf("of six nodes: %v", got)
	}
	s.memberEvent(event{node: memberlist.Node{Name: "b"}, gone: true})
	s.memberEvent(event{node: memberlist.Node{Name: "a"}, gone: true})
	if got := iad(); got != 500*time.Millisecond { // d and e are among them again
		t.Errorf("of four nodes: %v", got)
	}
	for name, tells := range map[string]bool{"c": true, "d": true, "e": true, "f": false} {
		if got := s.tells(&rib.Member{Name: name, Region: "iad"}); got != tells {
			t.Errorf("%s tells: %v", name, got)
		}
	}
	if !s.tells(&s.cfg.Self) {
		t.Error("this node does not tell, the only one of its region")
	}
}
