package demo

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// story is what clients saw around a kill: reads every 5 ms from the victim, then from the next one.
func story(victim, next *backend) (clients []client, killed time.Time) {
	begin := time.Unix(1000, 0)
	killed = begin.Add(2 * time.Second)
	clients = make([]client, 2)
	for i := range clients {
		for at := 5 * time.Millisecond; at < 8*time.Second; at += 5 * time.Millisecond {
			a := answer{at: begin.Add(at), waits: time.Millisecond, shard: 1, by: victim}
			switch since := a.at.Sub(killed); {
			case since >= 0 && since < 150*time.Millisecond:
				continue
			case since >= 0:
				a.by = next
			}
			clients[i].answers = append(clients[i].answers, a)
		}
	}
	return clients, killed
}

// The demo must call wrong what is wrong.
func TestJudge(t *testing.T) {
	victim, next, far := &backend{shard: 1, region: regions[1]}, &backend{shard: 1, region: regions[0]}, &backend{shard: 1, region: regions[2]}
	d := &demo{}
	for _, b := range []*backend{victim, next, far} {
		b.name = "shard_1-" + b.region.name
	}
	for name, c := range map[string]struct {
		spoil func([]client)
		want  string // "": nothing is wrong
	}{
		"good":         {func([]client) {}, ""},
		"wrong answer": {func(c []client) { c[1].wrong = []string{"customer 7"} }, "1 wrong answers"},
		"errors":       {func(c []client) { c[0].errors = make([]error, loadClients+1); fill(c[0].errors) }, "9 statements"},
		"one error each is allowed": {func(c []client) {
			c[0].errors = []error{errors.New("57P01")}
			c[1].errors = []error{errors.New("57P01")}
		}, ""},
		"too slow": {func(c []client) {
			for i := range c {
				c[i].answers = keep(c[i].answers, func(a answer) bool { return a.at.Unix() < 1002 || a.at.Unix() > 1006 })
			}
		}, "first answer from elsewhere came 5000 ms"},
		"not the next closest": {func(c []client) {
			c[0].answers[len(c[0].answers)-1].by = far
		}, "after: "},
		"was not read from": {func(c []client) { c[0].answers[3].by = next }, "before: "},
		"other shards fled": {func(c []client) {
			c[0].answers = append(c[0].answers, answer{at: time.Unix(1003, 0), shard: 2, by: &backend{shard: 2, region: regions[2]}})
		}, "other shards"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			d.report = &report{out: &out, begin: time.Now()}
			clients, killed := story(victim, next)
			c.spoil(clients)
			d.judge(clients, 1, victim, next, killed, killed.Add(time.Millisecond))
			bad := fmt.Sprint(d.report.bad)
			if c.want == "" && len(d.report.bad) > 0 || c.want != "" && !strings.Contains(bad, c.want) {
				t.Errorf("found wrong: %s\n%s", bad, out.String())
			}
			if (d.report.err() == nil) != (len(d.report.bad) == 0) {
				t.Errorf("error %v", d.report.err())
			}
		})
	}
}

func fill(errs []error) {
	for i := range errs {
		errs[i] = errors.New("lost")
	}
}

func keep(answers []answer, want func(answer) bool) (kept []answer) {
	for _, a := range answers {
		if want(a) {
			kept = append(kept, a)
		}
	}
	return kept
}

func TestDelaysAreSymmetric(t *testing.T) {
	for _, a := range regions {
		for _, b := range regions {
			if rtt(a, b) != rtt(b, a) || (rtt(a, b) == 0) != (a == b) {
				t.Errorf("%s-%s: %v, back %v", a.name, b.name, rtt(a, b), rtt(b, a))
			}
		}
		rules := network{slot: 7}.delays(a)
		for _, b := range regions {
			addr := netip.MustParseAddr(network{slot: 7}.server(b, 2))
			if got := rules.RTT(addr); got != rtt(a, b) {
				t.Errorf("%s to %s (%s): %v", a.name, b.name, addr, got)
			}
		}
	}
}

// Two demos on one machine get addresses of their own; one that has ended gives its back.
func TestNetworksAreExclusive(t *testing.T) {
	a, err := claimNetwork()
	if err != nil {
		t.Fatal(err)
	}
	b, err := claimNetwork()
	if err != nil {
		t.Fatal(err)
	}
	if a.slot == b.slot || a.node(regions[0]) == b.node(regions[0]) {
		t.Errorf("both got %s", a.node(regions[0]))
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
	c, err := claimNetwork()
	if err != nil {
		t.Fatal(err)
	}
	if c.slot > a.slot {
		t.Errorf("the part that was given back, %d, was not used: got %d", a.slot, c.slot)
	}
	if err := errors.Join(b.close(), c.close()); err != nil {
		t.Error(err)
	}
}
