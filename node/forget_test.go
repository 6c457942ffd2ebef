package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestForgetANode: a move waits for a node that has stopped, and who watches it is told; forgotten, it is waited for no more. It comes back, and
// is a node as before.
func TestForgetANode(t *testing.T) {
	c := startMovable(t)
	c.accounts(t)
	n, gone := c.nodes[0], c.nodes[2]
	name := gone.state.Node
	api := newClient(t, n)
	forget := fmt.Sprintf(`{"node": %q, "reason": "burnt"}`, name)
	if status, e := api.call(t, "POST", forgetPath, forget, nil); status != 409 || e.Code != codeAlive {
		t.Errorf("a node that lives: %d %+v", status, e)
	}
	if status, e := api.call(t, "POST", forgetPath, `{"node": "nobody"}`, nil); status != 404 || e.Code != codeNotFound {
		t.Errorf("an unknown node: %d %+v", status, e)
	}
	if err := errors.Join(gone.speaker().Kill(), gone.Close()); err != nil { // no goodbye
		t.Fatal(err)
	}
	misses := func(x *testNode, want int) error {
		var dump struct{ Lost []LostView }
		if _, text := x.get(t, "/debug/rib"); json.Unmarshal([]byte(text), &dump) != nil || len(dump.Lost) != want {
			return fmt.Errorf("%s misses %v, want %d: %s", x.cfg.Name, dump.Lost, want, text)
		}
		if alarms := fmt.Sprint(x.View().Alarms); strings.Contains(alarms, "no node of region "+gone.cfg.Region) != (want > 0) {
			return fmt.Errorf("%s: alarms %s", x.cfg.Name, alarms)
		}
		return nil
	}
	for _, x := range c.nodes[:2] {
		pgtest.Eventually(t, time.Minute, func() error { return misses(x, 1) })
	}
	code, out, errs := n.admin("move", "start", "app.accounts", "10-20", "--to", "shard_2", "--watch")
	if code != 0 || !strings.Contains(out, "the range and its rows are at shard_2") || !strings.Contains(out, "that they know: "+name+"\n") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if code, out, errs := n.admin("cluster", "forget", name); code == 0 || !strings.Contains(errs, "the name was not given again") {
		t.Errorf("without its name again: exit %d: %s%s", code, out, errs)
	}
	// Its backend serves on without it.
	backend := gone.cfg.Backends[0].Name
	if status, e := api.call(t, "POST", forgetPath, forget, nil); status != 409 || e.Code != codeBackendUp || !strings.Contains(e.Error, backend) {
		t.Errorf("a node that alone lists a backend that is up: %d %+v", status, e)
	}
	knows := func(n *testNode) bool {
		return slices.ContainsFunc(n.table.Snapshot().Backends, func(b rib.BackendView) bool { return b.Backend.Name == backend })
	}
	if err := c.servers[2].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var v ForgottenView
	pgtest.Eventually(t, 20*time.Second, func() error {
		if status, e := api.call(t, "POST", forgetPath, forget, &v); status != 200 || v.Node != name || v.Epoch == "" || !slices.Equal(v.Withdrawn, []string{backend}) {
			return fmt.Errorf("%d %+v", status, e)
		}
		return nil
	})
	for _, x := range c.nodes[:2] {
		pgtest.Eventually(t, 20*time.Second, func() error { return misses(x, 0) })
		pgtest.Eventually(t, 20*time.Second, func() error {
			if text, err := os.ReadFile(filepath.Join(x.dir.path, beliefsFile)); err != nil || knows(x) || strings.Contains(string(text), backend) {
				return fmt.Errorf("%s still knows %s, %v", x.cfg.Name, backend, err)
			}
			return nil
		})
	}
	if code, out, errs := n.admin("cluster", "forget", name, "--yes"); code != 0 || !strings.Contains(out, name+" is forgotten") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	// One that nobody has ever seen, and yet has a word.
	for _, x := range c.nodes[:2] {
		x.table.Health().Announce(rib.Announcement{Backend: rib.Backend{Name: "ghost", Shard: "shard_1", Region: "fra", Addr: "127.0.0.1:1"}, Observer: "nobody", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}})
	}
	if status, e := api.call(t, "POST", forgetPath, `{"node": "nobody"}`, &v); status != 200 || !slices.Equal(v.Withdrawn, []string{"ghost"}) {
		t.Errorf("%d %+v %+v", status, e, v)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if moves := n.table.Owners().Get().Moves; len(moves) > 0 {
			return fmt.Errorf("not over: %+v", moves)
		}
		return nil
	})
	var past HistoryAnswer
	if status, _ := api.call(t, "GET", "/api/v1/history", "", &past); status != 200 ||
		!slices.ContainsFunc(past.Events, func(e EventView) bool { return e.Kind == "node.forget" && e.Subject == name && e.Reason == "burnt" }) {
		t.Errorf("%d: %+v", status, past.Events)
	}

	if err := c.servers[2].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := gone.cfg
	cfg.Join = []string{n.port().Addr()}
	back := newNodeWith(t, cfg, gone.options).open(t)
	back.owner(t, "app.accounts", "15", "shard_2")
	pgtest.Eventually(t, 20*time.Second, func() error {
		if o := n.table.Owners().Get(); o.Forgot(name) {
			return fmt.Errorf("forgotten still: %v of %v", o.Forgotten, o.Nodes)
		}
		return nil
	})
	for _, x := range c.nodes[:2] {
		pgtest.Eventually(t, 20*time.Second, func() error {
			if !knows(x) {
				return fmt.Errorf("%s does not know %s", x.cfg.Name, backend)
			}
			return nil
		})
	}
	if code, out, errs := n.admin("move", "start", "app.accounts", "10-20", "--to", "shard_1", "--watch"); code != 0 || strings.Contains(out, "cluster forget") {
		t.Errorf("the move after that: exit %d: %s%s", code, out, errs)
	}
}

// Nobody misses a forgotten node, or looks for it. One that was cut off, and is not gone at all, finds the others by itself.
func TestForgottenNodesAreNotMissed(t *testing.T) {
	partitioned(t, 11, func(w *partWorld) {
		crashed, cut := w.nodes[2], w.nodes[5]
		alive := []*partNode{w.nodes[0], w.nodes[1], w.nodes[3], w.nodes[4]}
		var names []string
		for _, n := range w.nodes {
			names = append(names, n.host.Name())
		}
		forget := func(numbers ...int) {
			o := *w.owners
			o.Epoch.Index++
			o.Nodes, o.Forgotten, w.owners = names, numbers, &o
			for _, n := range w.nodes {
				n.table.Owners().Set(&o)
			}
		}
		every := func(ok func(n *partNode) bool) func() bool {
			return func() bool { return !slices.ContainsFunc(alive, func(n *partNode) bool { return !ok(n) }) }
		}
		forget()
		crashed.crash()
		w.net.Isolate(cut.region)
		w.until(time.Minute, "both are missed", every(func(n *partNode) bool {
			return len(n.speaker().Lost()) == 2 && strings.Contains(strings.Join(n.worries(), "\n"), "no node of region "+cut.region)
		}))
		for _, n := range alive {
			n.mu.Lock()
			n.peersBefore = []string{"127.0.0.1:1", crashed.addr, cut.addr}
			n.mu.Unlock()
		}
		forget(2, 5)
		w.until(3*time.Second, "nobody misses them, and what they had is others'", every(func(n *partNode) bool {
			return len(n.speaker().Lost()) == 0 && len(n.worries()) == 0 && len(n.speaker().Present()) == 4
		}))
		var tries [4]uint64
		for i, n := range alive {
			tries[i] = n.speaker().Stats().Rejoins
			n.mu.Lock()
			if !slices.Equal(n.peersBefore, []string{"127.0.0.1:1"}) {
				t.Errorf("%s remembers %q for its next start", n.host.Name(), n.peersBefore)
			}
			n.mu.Unlock()
		}
		<-time.After(10 * time.Minute)
		for i, n := range alive {
			if got := n.speaker().Stats().Rejoins - tries[i]; got != 0 {
				t.Errorf("%s has looked for them %d times", n.host.Name(), got)
			}
		}

		w.net.HealAll()
		w.until(healed, "it finds the others", every(func(n *partNode) bool { return len(n.speaker().Members()) == 5 }))
		crashed.again(alive[0])
		w.until(healed, "all are back", every(func(n *partNode) bool { return len(n.speaker().Members()) == 6 }))
		forget()
		w.until(healed, "all agree", w.agreed)
	})
}
