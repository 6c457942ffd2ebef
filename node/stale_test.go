package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"rangefinder/gossip"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

func TestStaleness(t *testing.T) {
	var s staleness
	view := func(states ...rib.State) (views []rib.BackendView) {
		for i, state := range states {
			views = append(views, rib.BackendView{Backend: rib.Backend{Name: fmt.Sprint("b", i)}, Verdict: state})
		}
		return views
	}
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	s.look(view(rib.Up, rib.StateUnknown), at(0))
	s.look(view(rib.StateUnknown, rib.StateUnknown), at(30))
	if a, b := s.of("b0", at(34)), s.of("b1", at(34)); a != 4*time.Second || b != 34*time.Second {
		t.Errorf("stale for %v and %v, want 4s and 34s", a, b)
	}
	if s.of("b0", at(30)) == 0 || s.of("b2", at(34)) != 0 {
		t.Error("stale from the first moment on, and only who is")
	}
	s.look(view(rib.Down, rib.StateUnknown), at(40))
	s.look(view(rib.StateUnknown), at(50))
	if a, b := s.of("b0", at(51)), s.of("b1", at(51)); a != time.Second || b != 0 {
		t.Errorf("after it was heard again, stale for %v; the one that is gone for %v", a, b)
	}
	if got := staleFor(34 * time.Second); got != "stale for 34s" || staleFor(0) != "" {
		t.Errorf("%q", got)
	}
}

func TestLostAlarms(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := func(regions ...string) (list []rib.Member) {
		for i, r := range regions {
			list = append(list, rib.Member{Name: fmt.Sprint(r, i), Region: r})
		}
		return list
	}
	l := func(regions ...string) (list []gossip.Lost) {
		for i, r := range regions {
			list = append(list, gossip.Lost{Name: fmt.Sprint(r, i), Region: r, Since: clock.Add(time.Duration(i) * time.Second)})
		}
		return list
	}
	for _, c := range []struct {
		members []rib.Member
		lost    []gossip.Lost
		want    []string
	}{
		{m("fra", "fra", "iad"), nil, nil},
		{m("fra", "fra", "iad"), l("iad"), nil}, // others of its region live
		{m("fra", "fra", "iad"), l("syd", "syd"), []string{"no node of region syd has been heard since 03:04:06 UTC: what is known of its backends may be stale"}},
		{m("fra", "fra"), l("fra", "fra"), []string{"this node hears 2 of 4 nodes and may be cut off: since 03:04:05 UTC it goes on with what it knew"}},
		{m("fra"), l("iad", "syd"), []string{
			"no node of region iad has been heard since 03:04:05 UTC: what is known of its backends may be stale",
			"no node of region syd has been heard since 03:04:06 UTC: what is known of its backends may be stale",
			"this node hears 1 of 3 nodes and may be cut off: since 03:04:05 UTC it goes on with what it knew",
		}},
	} {
		if got := lostAlarms(c.members, c.lost); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v, lost %v:\n%q\nwant\n%q", c.members, c.lost, got, c.want)
		}
	}
}

// A hundred regions at one stroke are not a hundred alarms, and an answer does not name a thousand nodes.
func TestMuchThatIsLostIsToldInShort(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var lost []gossip.Lost
	a := drainAsked{nodes: 2, said: 2}
	for i := range 100 {
		lost = append(lost, gossip.Lost{Name: fmt.Sprintf("n-%02d", i), Region: fmt.Sprintf("r-%02d", i), Since: clock})
		a.lost = append(a.lost, lost[i].Name)
	}
	got := lostAlarms([]rib.Member{{Name: "self", Region: "fra"}}, lost)
	if len(got) != maxLostRegions+2 || got[0] != "no node of 84 other regions is heard" || !strings.HasPrefix(got[1], "no node of region r-00 has been heard since ") ||
		!strings.HasPrefix(got[16], "no node of region r-15 has been heard since ") || !strings.HasPrefix(got[17], "this node hears 1 of 101 nodes") {
		t.Errorf("%q", got)
	}
	target := rib.DrainTarget{Kind: rib.DrainRegion, Name: "fra"}
	if text := a.notDrained(target, &rib.Drain{}); !strings.HasSuffix(text, "; lost, and not asked: "+strings.Join(a.lost[:16], ", ")+" and 84 others") {
		t.Error(text)
	}
	a.lost = a.lost[:16]
	if text := a.notDrained(target, &rib.Drain{}); !strings.HasSuffix(text, "; lost, and not asked: "+strings.Join(a.lost, ", ")) {
		t.Error(text)
	}
}

// A node that hears nobody any more says so wherever a person looks: how long since, of whom, and of which backends nobody tells it.
func TestANodeThatIsAloneSaysSo(t *testing.T) {
	t.Cleanup(func() { // after the nodes: memberlist waits for the answer of one that is gone, whoever stops it
		pgtest.Eventually(t, 30*time.Second, func() error {
			stacks := make([]byte, 1<<20)
			if strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "Memberlist).probeNode") {
				return errors.New("memberlist still waits for an answer")
			}
			return nil
		})
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	alone := newNode(t, testConfig(t, "fra"), nil).open(t)
	cfg := testConfig(t, "syd", alone.port().Addr())
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "syd-db", Shard: "shard_1", Address: closed.Addr().String()}}
	other := newNode(t, cfg, map[string]string{"PROBE_PASSWORD": probePassword}).open(t)
	backend := func(want string) {
		t.Helper()
		pgtest.Eventually(t, time.Minute, func() error {
			for _, b := range alone.View().Backends {
				if b.Name == "syd-db" && b.ForAll == want && (b.Stale != "") == (want == "unknown") && (b.StaleMS > 0) == (b.Stale != "") {
					return nil
				}
			}
			return fmt.Errorf("want syd-db %s: %+v", want, alone.View().Backends)
		})
	}
	backend("down")
	if v := alone.View(); len(v.Lost) != 0 || strings.Contains(fmt.Sprint(v.Alarms), "region syd") {
		t.Errorf("lost %v, alarms %q, and everybody is there", v.Lost, v.Alarms)
	}
	if err := other.speaker().Kill(); err != nil { // no goodbye
		t.Fatal(err)
	}
	backend("unknown")
	v := alone.View()
	if len(v.Lost) != 1 || v.Lost[0].Region != "syd" || v.Lost[0].StaleMS <= 0 || !strings.HasPrefix(v.Lost[0].Stale, "stale for ") {
		t.Errorf("lost: %+v", v.Lost)
	}
	for _, want := range []string{"no node of region syd has been heard since ", "this node hears 1 of 2 nodes and may be cut off"} {
		if !strings.Contains(fmt.Sprint(v.Alarms), want) {
			t.Errorf("alarms %q, want one with %q", v.Alarms, want)
		}
	}
	code, out, _ := alone.admin("status")
	if code != 0 || !strings.Contains(out, "lost: stale for ") || !strings.Contains(out, "no live observer; stale for ") {
		t.Errorf("status, exit %d:\n%s", code, out)
	}
	if _, page := alone.get(t, "/debug?fragment=1"); !strings.Contains(page, "lost: stale for ") || strings.Count(page, "stale for ") < 2 {
		t.Errorf("the page:\n%s", page)
	}
	var dump struct {
		Lost     []LostView
		Backends []BackendView
	}
	_, body := alone.get(t, "/debug/rib")
	if err := json.Unmarshal([]byte(body), &dump); err != nil || len(dump.Lost) != 1 || len(dump.Backends) != 1 || dump.Backends[0].Stale == "" {
		t.Errorf("/debug/rib: %v\n%s", err, body)
	}
}
