package node

import (
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
	if err := gone.Close(); err != nil {
		t.Fatal(err)
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
