package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
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
	var v ForgottenView
	if status, e := api.call(t, "POST", forgetPath, forget, &v); status != 200 || v.Node != name || v.Epoch == "" {
		t.Fatalf("%d %+v", status, e)
	}
	if code, out, errs := n.admin("cluster", "forget", name, "--yes"); code != 0 || !strings.Contains(out, name+" is forgotten") {
		t.Errorf("exit %d: %s%s", code, out, errs)
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
	if code, out, errs := n.admin("move", "start", "app.accounts", "10-20", "--to", "shard_1", "--watch"); code != 0 || strings.Contains(out, "cluster forget") {
		t.Errorf("the move after that: exit %d: %s%s", code, out, errs)
	}
}
