package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/cluster"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// recoverByTheDocument is the command of docs/recovery.md, as it stands there, on the machine of a node: beside its configuration.
func recoverByTheDocument(t *testing.T, cfg Config) func(more ...string) (code int, stdout, stderr string) {
	t.Helper()
	text, err := os.ReadFile("../docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	list := slices.DeleteFunc(mentioned(string(text)), func(s string) bool { return !strings.HasPrefix(s, "rangefinder cluster recover ") })
	if len(list) != 1 {
		t.Fatalf("the document has these commands: %q", list)
	}
	var printed bytes.Buffer
	if err := cfg.Print(&printed); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("rangefinder.toml", printed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets := clusterEnv()
	return func(more ...string) (int, string, string) {
		var out, errs strings.Builder
		code := run(append(typedWords(list[0])[1:], more...), &env{ctx: t.Context(), stdout: &out, stderr: &errs, getenv: func(k string) (string, bool) { v, ok := secrets[k]; return v, ok }})
		return code, out.String(), errs.String()
	}
}

// TestRecoverOnRealPostgreSQL: two of three nodes are lost, and with them a flip that only the shards know of. The third is recovered, by the command line that the document has: it
// asks all shards first, leads a new generation, routes the range to the shard that has it, and what is agreed goes on.
func TestRecoverOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	made, err := c.nodes[2].CreateKeyspace(ctx, KeyspaceRequest{KeyspaceSpec: cluster.KeyspaceSpec{
		Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"},
		Tables: []cluster.TableSpec{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}},
		Shards: []string{"shard_1", "shard_2", "shard_3"}, Splits: []string{"1000", "2000"}}})
	if err != nil {
		t.Fatal(err)
	}
	last := c.nodes[2]
	ks := last.sees(t, "app.orders")
	pgtest.Eventually(t, 30*time.Second, func() error { // what it goes by is on its disk
		o, err := cluster.KnownOwnership(last.dir.path + "/" + ledgerDir)
		if err == nil && o.KeyspaceByName("app.orders") == nil {
			err = errors.New("the keyspace is not on disk yet")
		}
		return err
	})
	low, high, err := ks.ParseInterval("100-200")
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []string{"'source', 'app.orders', %s, 'shard_1', 'shard_2', 'moved'", "'target', 'app.orders', %s, 'shard_1', 'shard_2', 'filled'"} {
		row = fmt.Sprintf(row, fmt.Sprintf(`'\x%x', '\x%x'`, []byte(low), []byte(high)))
		if err := c.servers[i].ExecIn(ctx, "app", `CREATE SCHEMA IF NOT EXISTS rangefinder;
			CREATE TABLE IF NOT EXISTS rangefinder.fence (move bigint, side text, keyspace text, low bytea, high bytea, from_shard text, to_shard text, state text);
			GRANT USAGE ON SCHEMA rangefinder TO probe; GRANT SELECT ON rangefinder.fence TO probe;
			INSERT INTO rangefinder.fence VALUES (4711, `+row+`)`); err != nil {
			t.Fatal(err)
		}
	}
	alone := recoverByTheDocument(t, last.cfg)
	if code, out, errs := alone("--yes"); code != 1 || out != "" || !strings.Contains(errs, ErrLocked.Error()) {
		t.Errorf("on a node that runs: exit %d: %s%s", code, out, errs)
	}
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}

	const handed = "range 100..200 of keyspace app.orders belongs to shard_2"
	before, err := cluster.KnownOwnership(last.dir.path + "/" + ledgerDir)
	if err != nil {
		t.Fatal(err)
	}
	from := fmt.Sprintf("node %s would go on alone from epoch %s as 2/", last.cfg.Name, before.Epoch)
	if code, out, errs := alone(); code != 0 || !strings.Contains(out, handed) || !strings.Contains(out, from) || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("without --yes: exit %d: %s%s", code, out, errs)
	}
	r, err := openRecovery(newNode(t, last.cfg, clusterEnv()).Node, nil)
	if err != nil {
		t.Fatal(err)
	}
	how, _, err := r.plan(ctx)
	if want := []cluster.Place{{Shard: "shard_1", Database: "app"}, {Shard: "shard_2", Database: "app"}, {Shard: "shard_3", Database: "app"}}; err != nil || !slices.Equal(how.Asked, want) {
		t.Errorf("it has asked %v: %v", how.Asked, err)
	}
	if err := r.dir.Close(); err != nil {
		t.Fatal(err)
	}
	// A shard that cannot be asked is named, and nothing happens without it, unless it is left out.
	if err := c.servers[0].Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := alone("--yes"); code != 1 || out != "" || !strings.Contains(errs, "shard shard_1: ") || strings.Contains(errs, "shard_2") {
		t.Fatalf("with a shard down: exit %d: %s%s", code, out, errs)
	}
	if code, out, errs := alone("--without-shard", "shard_1"); code != 0 || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("without the shard that is down: exit %d: %s%s", code, out, errs)
	}
	if err := c.servers[0].Start(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := cluster.KnownOwnership(last.dir.path + "/" + ledgerDir); err != nil || after.Epoch != before.Epoch {
		t.Fatalf("epoch %s was %s before anything was to be changed, %v", after.Epoch, before.Epoch, err)
	}
	if code, out, errs := alone("--yes"); code != 0 || !strings.Contains(out, handed) || !strings.Contains(out, "start it now") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}

	again := newNode(t, last.cfg, clusterEnv()).open(t)
	now := again.sees(t, "app.orders")
	if got := now.Ranges[now.Owner(low)]; got.Shard != "shard_2" || got.Epoch.Generation != 2 {
		t.Fatalf("%+v", got)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if !again.ledger().IsLeader() {
			return errors.New("it does not lead")
		}
		return nil
	})
	if _, err := again.ledger().Split(ctx, cluster.SplitSpec{Keyspace: made.Name, At: []string{"500"}}); err != nil {
		t.Fatal(err)
	}
	if m := again.ledger().Status(); m.Epoch.Generation != 2 || again.table.Owners().Get().Move(4711).Phase != rib.MoveFlipped {
		t.Fatalf("%+v", m)
	}
}
