package rib_test

import (
	"testing"

	"rangefinder/rib"
)

func TestReachTellsNotHereFromNobody(t *testing.T) {
	for _, test := range []struct {
		verdict  rib.State
		evidence string
		reach    rib.Reach
		why      string
	}{
		{rib.Up, "", rib.ReachAll, ""},
		{rib.StateUnknown, "", rib.ReachUnknown, ""},
		{rib.Down, "", rib.ReachHereOnly, "2 of 3 observers say down"},
		{rib.Up, "refused", rib.ReachNotHere, "this node cannot reach it, others can: refused"},
		{rib.StateUnknown, "refused", rib.ReachNotHere, "this node cannot reach it: refused"},
		{rib.Down, "refused", rib.ReachNobody, "nobody can reach it, nor can this node: refused"},
	} {
		v := rib.BackendView{Verdict: test.verdict, Evidence: test.evidence, Reason: "2 of 3 observers say down"}
		if got, why := v.Reach(), v.WhyUnreached(); got != test.reach || why != test.why {
			t.Errorf("%v, %q: %v, %q; want %v, %q", test.verdict, test.evidence, got, why, test.reach, test.why)
		}
	}
}
