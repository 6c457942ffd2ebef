package gossip

import (
	"testing"

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
	if targets := s.targets(map[string]int{}); len(targets) != 1 || targets["iad"].Name == "b" {
		t.Errorf("targets: %v", targets)
	}
	if nodes := s.randomPeers(9); len(nodes) != 2 {
		t.Errorf("peers: %v", nodes)
	}
	s.tellsRow()
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
