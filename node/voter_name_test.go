package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/node/port"
)

// votes waits until a node knows these voters.
func (n *testNode) votes(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	pgtest.Eventually(t, time.Minute, func() error {
		var got []string
		for _, v := range n.ledger().Voters() {
			got = append(got, v.Name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("%s knows the voters %q, want %q", n.cfg.Name, got, want)
		}
		return nil
	})
}

// TestLetIn: one node that lets a newcomer in may have heard less than another of its cluster, which refuses it.
func TestLetIn(t *testing.T) {
	yes := helloResult{reply: port.HelloReply{ClusterID: "c1", Accepted: true}}
	no := func(cluster string, retry bool) helloResult {
		reply := port.HelloReply{ClusterID: cluster, Retry: retry}
		return helloResult{reply: reply, err: &port.RefusedError{Reply: reply}}
	}
	silent := helloResult{err: errors.New("no answer")}
	for name, c := range map[string]struct {
		replies []helloResult
		want    bool
	}{
		"nobody answers":            {[]helloResult{silent, silent}, false},
		"all do":                    {[]helloResult{yes, yes}, true},
		"one does":                  {[]helloResult{silent, yes}, true},
		"one refuses":               {[]helloResult{yes, no("c1", false)}, false},
		"one refuses, and is first": {[]helloResult{no("c1", false), yes}, false},
		"one does not know":         {[]helloResult{no("c1", true), yes}, true},
		"a stranger refuses":        {[]helloResult{no("c2", false), yes}, true},
	} {
		if r := letIn(c.replies); (r != nil) != c.want || r != nil && r.reply.ClusterID != "c1" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestALostVotersNameIsTaken: who comes with nothing under a voter's name is not let in, by a node that is no voter and has not heard of that one either. It would vote with an
// empty log, and what the ledger had agreed on with its help could be lost.
func TestALostVotersNameIsTaken(t *testing.T) {
	first := newNode(t, testConfig(t, "iad"), nil).open(t)
	join := first.port().Addr()
	begin := func(region, name string) *testNode {
		cfg := testConfig(t, region, join)
		cfg.Name = name
		return newNode(t, cfg, nil).open(t)
	}
	drained := begin("fra", "fra-1")
	begin("syd", "syd-1")
	first.votes(t, "iad-1", "fra-1", "syd-1")
	lost, asked := begin("fra", "fra-2"), begin("iad", "iad-2")
	asked.votes(t, "iad-1", "fra-1", "syd-1")
	if code, out, errs := first.admin("node", "drain", "fra-1"); code != exitOK {
		t.Fatalf("drain: exit %d\n%s%s", code, out, errs)
	}
	first.votes(t, "iad-1", "fra-2", "syd-1")
	pgtest.Eventually(t, time.Minute, func() error {
		if lost.ledger().Follows() {
			return errors.New("it has not heard yet that it is a voter")
		}
		return nil
	})
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	hello := func(name string) (port.HelloReply, error) {
		return drained.port().Hello(t.Context(), asked.port().Addr(), port.Hello{Name: name, Region: "fra"})
	}
	pgtest.Eventually(t, time.Minute, func() error {
		for _, m := range asked.speaker().Members() {
			if m.Name == "fra-2" {
				return errors.New("it is still among the members")
			}
		}
		return nil
	})
	if reply, err := hello("fra-2"); err == nil || reply.Retry {
		t.Errorf("under a voter's name: %+v, %v", reply, err)
	}
	if _, err := hello("fra-3"); err != nil {
		t.Error(err)
	}

	// Without a leader nobody can tell that node.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if reply, err := hello("fra-3"); err == nil || !reply.Retry {
		t.Errorf("without a leader: %+v, %v", reply, err)
	}
}
