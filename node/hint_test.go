package node

import (
	"testing"

	"rangefinder/cluster"
	"rangefinder/rib"
)

func TestWhomToAskForTheLeader(t *testing.T) {
	members := []rib.Member{{Name: "a", Addr: "1"}, {Name: "b", Addr: "2"}, {Name: "c", Addr: "3"}, {Name: "d", Addr: "4"}, {Name: "e", Addr: "5"}, {Name: "f"}}
	voters := []cluster.Voter{{Name: "c"}, {Name: "d"}, {Name: "x"}}
	for range 20 {
		got := whomToAsk(members, voters, "a")
		if len(got) != 4 || got[0].Name != "c" && got[0].Name != "d" || got[1].Name != "c" && got[1].Name != "d" {
			t.Fatalf("%v", got)
		}
		for _, m := range got {
			if m.Name == "a" || m.Name == "f" {
				t.Fatalf("%v", got)
			}
		}
	}
	if got := whomToAsk(members[:1], nil, "a"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
