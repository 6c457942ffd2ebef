package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// appPassword and probePassword must be in no log.
const (
	appPassword   = "s3cret-of-app"
	probePassword = "s3cret-of-probe"
)

// clusterEnv is the environment that the nodes' secrets come from.
func clusterEnv() map[string]string {
	return map[string]string{"APP_PASSWORD": appPassword, "PROBE_PASSWORD": probePassword, "CLUSTER_KEY": strings.Repeat("5c", 32)}
}

// testCluster is three nodes in three regions, each beside the primary of one shard.
type testCluster struct {
	nodes   []*testNode
	servers []*pgtest.Server // shard_1 to shard_3
}

var testRegions = [...]string{"iad", "fra", "syd"}

const schema = `
CREATE TABLE orders (customer_id bigint, id int, note text, PRIMARY KEY (customer_id, id));
CREATE TABLE order_lines (customer bigint, line int, PRIMARY KEY (customer, line));
CREATE TABLE accounts (id bigint PRIMARY KEY, balance int);
CREATE TABLE misplaced (k text PRIMARY KEY);
CREATE TABLE settings (name text PRIMARY KEY, value text);
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO probe`

func startCluster(t *testing.T) *testCluster {
	t.Helper()
	return startClusterOf(t, nil, "", false)
}

// startClusterOf starts three nodes beside three shards, whose servers have these parameters. rights are the probe role's; reloads: the nodes can
// read their configuration again; change may alter it beforehand.
func startClusterOf(t *testing.T, params map[string]string, rights string, reloads bool, change ...func(*Config)) *testCluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var options []pgtest.Options
	for i := range testRegions {
		options = append(options, pgtest.Options{Name: fmt.Sprintf("shard_%d", i+1), Auth: "scram-sha-256", Params: params})
	}
	c := &testCluster{servers: pgtest.NewPrimaries(t, options...)}
	errs := make([]error, len(c.servers))
	var wg sync.WaitGroup
	for i, s := range c.servers {
		wg.Go(func() {
			errs[i] = errors.Join(
				s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, rights),
				s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.ExecIn(ctx, "app", schema),
			)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var join []string
	for i, region := range testRegions {
		cfg := testConfig(t, region, join...)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		cfg.Backends = []Backend{{Name: region + "-db", Shard: fmt.Sprintf("shard_%d", i+1), Address: c.servers[i].Addr()}}
		cfg.Pool.Connect, cfg.Limits.StartupTimeout = Duration{time.Minute}, Duration{time.Minute} // nothing is out of reach here: a busy machine takes its time
		for _, f := range change {
			f(&cfg)
		}
		env := clusterEnv()
		o := Options{Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
		if reloads {
			o.Load = func() (Config, error) { return cfg, nil }
		}
		c.nodes = append(c.nodes, newNodeWith(t, cfg, o).open(t))
		join = []string{c.nodes[0].port().Addr()}
	}
	for _, n := range c.nodes {
		n.settled(t, 3, 3)
	}
	return c
}

// settled waits until the node sees all members, and a primary for writes on each of the shards.
func (n *testNode) settled(t *testing.T, members, shards int) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		if got := len(n.speaker().Members()); got != members {
			return fmt.Errorf("%s sees %d members, want %d", n.cfg.Name, got, members)
		}
		writable := 0
		for _, slot := range n.fib.Load().Slots() {
			if len(slot.Candidates().Writes) == 1 && slot.Candidates().Writes[0].Healthy {
				writable++
			}
		}
		if writable != shards {
			return fmt.Errorf("%s can write to %d shards, want %d; alarms %v", n.cfg.Name, writable, shards, n.View().Alarms)
		}
		return nil
	})
}

// dsn is where a client of this node connects.
func (n *testNode) dsn(password string) string {
	return fmt.Sprintf("postgres://app:%s@%s/app?sslmode=disable", password, n.pgLn.Addr())
}

func (n *testNode) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), n.dsn(appPassword))
	if err != nil {
		t.Fatalf("%s: %v", n.cfg.Name, err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// follower is a node that does not lead the ledger.
func (c *testCluster) follower(t *testing.T) *testNode {
	t.Helper()
	for _, n := range c.nodes {
		if !n.ledger().IsLeader() {
			return n
		}
	}
	t.Fatal("every node leads")
	return nil
}

// sees waits until the node routes by a keyspace.
func (n *testNode) sees(t *testing.T, keyspace string) *rib.Keyspace {
	t.Helper()
	var found *rib.Keyspace
	pgtest.Eventually(t, time.Minute, func() error {
		if found = n.fib.Load().Ownership().KeyspaceByName(keyspace); found == nil {
			return fmt.Errorf("%s does not know keyspace %s", n.cfg.Name, keyspace)
		}
		return nil
	})
	return found
}

// countOn counts a table's rows on a shard: all, and those that the shard owns as PostgreSQL itself computes it.
// column may be several, with commas between them.
func (c *testCluster) countOn(t *testing.T, ks *rib.Keyspace, table, column string, shard int) (all, own int) {
	t.Helper()
	method, err := rib.MethodByName(ks.Method)
	if err != nil {
		t.Fatal(err)
	}
	conditions := []string{"false"}
	for _, r := range ks.Ranges {
		if r.Shard == fmt.Sprintf("shard_%d", shard+1) {
			conditions = append(conditions, "("+method.Predicate(strings.Split(column, ","), ks.Types, r.From, r.To)+")")
		}
	}
	conn, err := c.servers[shard].ConnTo(t.Context(), "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	sql := fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s) FROM %s", strings.Join(conditions, " OR "), table)
	if err := conn.QueryRow(t.Context(), sql).Scan(&all, &own); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all, own
}

// admin runs the command line against a node.
func (n *testNode) admin(args ...string) (code int, stdout, stderr string) {
	return runCLI(append(args, "--admin", n.url())...)
}

func TestClusterOnRealPostgreSQL(t *testing.T) {
	c, outer := startCluster(t), t // nodes that are started in a step live on after it

	t.Run("three nodes are one cluster with three voters", func(t *testing.T) {
		pgtest.Eventually(t, 30*time.Second, func() error {
			for _, n := range c.nodes {
				v := n.View()
				if v.ClusterID != c.nodes[0].state.ClusterID || len(v.Raft.Voters) != 3 || v.Raft.Leader == "" {
					return fmt.Errorf("%s: cluster %s, voters %v, leader %q", n.cfg.Name, v.ClusterID, v.Raft.Voters, v.Raft.Leader)
				}
			}
			return nil
		})
	})

	t.Run("keyspaces are made through a node that does not lead", func(t *testing.T) {
		n := c.follower(t)
		code, out, errs := n.admin("keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3", "--table", "app.order_lines:customer")
		if code != 0 || !strings.Contains(out, "keyspace app.orders is made: 3 ranges by hash of bigint") {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		code, out, errs = n.admin("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range",
			"--range", "..1000=shard_1", "--range", "1000-2000=shard_2", "--range", "2000..=shard_3")
		if code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		for _, n := range c.nodes {
			n.sees(t, "app.orders")
			n.sees(t, "app.accounts")
		}
		if code, out, _ := n.admin("range", "list", "--keyspace", "app.accounts"); code != 0 || !strings.Contains(out, "app.accounts  1000  2000  shard_2") {
			t.Errorf("range list: exit %d\n%s", code, out)
		}
	})

	t.Run("rows go through every node to the shard that owns them and no other", func(t *testing.T) {
		const each = 100
		for i, n := range c.nodes {
			conn := n.connect(t)
			for k := i * each; k < (i+1)*each; k++ {
				if _, err := conn.Exec(t.Context(), "INSERT INTO orders (customer_id, id, note) VALUES ($1, 1, $2)", int64(k*7919-50000), n.cfg.Region); err != nil {
					t.Fatalf("%s: insert %d: %v", n.cfg.Name, k, err)
				}
				if _, err := conn.Exec(t.Context(), fmt.Sprintf("INSERT INTO accounts (id, balance) VALUES (%d, %d)", k*10, k)); err != nil {
					t.Fatalf("%s: insert %d: %v", n.cfg.Name, k, err)
				}
			}
		}
		for _, n := range c.nodes { // each node reads what all have written
			conn := n.connect(t)
			for k := range 3 * each {
				var note string
				var balance int
				if err := conn.QueryRow(t.Context(), "SELECT note FROM orders WHERE customer_id = $1", int64(k*7919-50000)).Scan(&note); err != nil || note != testRegions[k/each] {
					t.Fatalf("%s: order %d = %q, %v", n.cfg.Name, k, note, err)
				}
				if err := conn.QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = $1", int64(k*10)).Scan(&balance); err != nil || balance != k {
					t.Fatalf("%s: account %d = %d, %v", n.cfg.Name, k, balance, err)
				}
			}
		}
		for _, table := range []struct{ keyspace, name, column string }{{"app.orders", "orders", "customer_id"}, {"app.accounts", "accounts", "id"}} {
			ks, total := c.nodes[0].sees(t, table.keyspace), 0
			for shard := range c.servers {
				all, own := c.countOn(t, ks, table.name, table.column, shard)
				if all != own || all == 0 {
					t.Errorf("shard_%d holds %d rows of %s and owns %d of them", shard+1, all, table.name, own)
				}
				total += all
			}
			if total != 3*each {
				t.Errorf("%s has %d rows in all, want %d", table.name, total, 3*each)
			}
		}
	})

	t.Run("unsharded tables live on their database's shard", func(t *testing.T) {
		if _, err := c.nodes[2].connect(t).Exec(t.Context(), "INSERT INTO settings VALUES ('a', 'b')"); err != nil {
			t.Fatal(err)
		}
		var value string
		if err := c.nodes[1].connect(t).QueryRow(t.Context(), "SELECT value FROM settings WHERE name = 'a'").Scan(&value); err != nil || value != "b" {
			t.Errorf("settings = %q, %v", value, err)
		}
	})

	t.Run("route explains what a session would do", func(t *testing.T) {
		code, out, errs := c.nodes[1].admin("route", "--arg", "1500", "SELECT * FROM accounts WHERE id = $1")
		if code != 0 || !strings.Contains(out, "shard     shard_2") || !strings.Contains(out, "fra-db") {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		for sql, want := range map[string]string{"SELECT 1": "target    any shard", "SELECT * FROM settings": "target    unsharded"} {
			if code, out, errs := c.nodes[1].admin("route", sql); code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "\n1    ") {
				t.Errorf("%s: exit %d\n%s%s", sql, code, out, errs)
			}
		}
		code, out, errs = c.nodes[1].admin("route", "SELECT * FROM accounts")
		if code != 0 || !strings.Contains(out, "shard_1") || !strings.Contains(out, "shard_3") {
			t.Errorf("without a key: exit %d\n%s%s", code, out, errs)
		}
		code, _, errs = c.nodes[1].admin("route", "SELECT * FROM accounts CROSS JOIN orders")
		if code != 1 || !strings.Contains(errs, "0A000") {
			t.Errorf("two keyspaces: exit %d\n%s", code, errs)
		}
		code, _, errs = c.nodes[1].admin("route", "SELECT * FROM accounts WHERE id = $1")
		if code != 1 || !strings.Contains(errs, "add --arg") {
			t.Errorf("without an argument: exit %d\n%s", code, errs)
		}
	})

	t.Run("a wrong password is refused as PostgreSQL does", func(t *testing.T) {
		_, err := pgx.Connect(t.Context(), c.nodes[0].dsn("wrong"))
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "28P01" {
			t.Errorf("connect = %v, want SQLSTATE 28P01", err)
		}
		_, err = pgx.Connect(t.Context(), strings.Replace(c.nodes[0].dsn(appPassword), "/app?", "/nope?", 1))
		if !errors.As(err, &e) || e.Code != "3D000" {
			t.Errorf("an unknown database: %v, want SQLSTATE 3D000", err)
		}
	})

	t.Run("keyspaces that cannot work are refused with what to mend", func(t *testing.T) {
		n := c.follower(t)
		epoch := c.nodes[0].ledger().Epoch()
		if err := c.servers[0].ExecIn(t.Context(), "app", "INSERT INTO misplaced SELECT 'key ' || i FROM generate_series(1, 90) i; CREATE TABLE only_here (id bigint PRIMARY KEY)"); err != nil {
			t.Fatal(err)
		}
		var elsewhere int
		conn, err := c.servers[0].ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		// Three shards split the unsigned positions evenly: the first third is [0, 2^64/3).
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM misplaced WHERE NOT (hashtextextended(k, 0) >= 0 AND hashtextextended(k, 0) < 6148914691236517205)").Scan(&elsewhere); err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct {
			name string
			args []string
			want []string
		}{
			{"rows on the wrong shard", []string{"app.misplaced", "--key", "k", "--type", "text", "--shards", "shard_1,shard_2,shard_3"},
				[]string{fmt.Sprintf("%d of its rows would belong to another shard", elsewhere), "on shard_1, table", "Nothing was changed"}},
			{"a table that is not on the shards", []string{"app.nowhere", "--key", "id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3"},
				[]string{"on shard_1, shard_2, shard_3, table", "it does not exist"}},
			{"a table that is on one shard", []string{"app.only_here", "--key", "id", "--type", "bigint", "--shards", "shard_1,shard_2"},
				[]string{"on shard_2, table", "it does not exist"}},
			{"another column type", []string{"app.settings", "--key", "name", "--type", "bigint", "--shards", "shard_1,shard_2"},
				[]string{"column name is text, keyspace says bigint: use --type text"}},
			{"ranges that overlap", []string{"app.settings", "--key", "name", "--type", "bigint", "--method", "range", "--range", "..2000=shard_1", "--range", "1000..=shard_2"},
				[]string{`ranges "..2000" (shard_1) and "1000.." (shard_2) overlap`}},
			{"ranges with a gap", []string{"app.settings", "--key", "name", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "2000..=shard_2"},
				[]string{"no range holds the keys from 1000 to 2000"}},
			{"a shard that nobody knows", []string{"app.settings", "--key", "name", "--type", "text", "--shards", "shard_1,shard_9"},
				[]string{"shard_9: no node has announced a backend of it", "shard_1, shard_2, shard_3"}},
			{"a table that has a keyspace", []string{"app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3"},
				[]string{"app.orders"}},
			{"a database that is not configured", []string{"nope.public.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1"},
				[]string{`database "nope" is not configured`}},
		} {
			code, out, errs := n.admin(append([]string{"keyspace", "create"}, x.args...)...)
			if code != 1 || out != "" {
				t.Errorf("%s: exit %d, stdout %q", x.name, code, out)
			}
			for _, want := range x.want {
				if !strings.Contains(errs, want) {
					t.Errorf("%s: want %q in\n%s", x.name, want, errs)
				}
			}
		}
		if now := c.nodes[0].ledger().Epoch(); now != epoch {
			t.Errorf("a refusal changed the ledger: epoch %v, was %v", now, epoch)
		}
	})

	t.Run("every page shows the cluster", func(t *testing.T) {
		var v ClusterView
		_, body := c.nodes[2].get(t, "/debug/cluster")
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		if len(v.Members) != 3 || len(v.Backends) != 3 || len(v.Keyspaces) != 2 || v.RangesTotal != 6 || len(v.Shards) != 3 || len(v.Alarms) != 0 {
			t.Errorf("/debug/cluster: %d members, %d backends, %d keyspaces, %d ranges, %d shards, alarms %v", len(v.Members), len(v.Backends), len(v.Keyspaces), v.RangesTotal, len(v.Shards), v.Alarms)
		}
		for path, want := range map[string]string{
			"/debug": "iad-db", "/debug/rib": `"distances_ms"`, "/debug/fib": `"writes"`, "/metrics": "rangefinder_members 3",
			"/debug/route?sql=SELECT+*+FROM+accounts+WHERE+id=7": `"shard": "shard_1"`, "/readyz": "ready",
		} {
			if status, body := c.nodes[2].get(t, path); status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s = %d without %q: %.500s", path, status, want, body)
			}
		}
	})

	t.Run("a node that restarts comes back to the same cluster", func(t *testing.T) {
		old := c.nodes[2]
		id := old.state.ClusterID
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		c.nodes[0].settled(t, 2, 3) // what shard_3's primary is outlives the node that announced it
		again := newNode(outer, old.cfg, clusterEnv()).open(t)
		c.nodes[2] = again
		if again.state.ClusterID != id || again.state.Incarnation != old.state.Incarnation+1 {
			t.Errorf("cluster %q incarnation %d, want %q and %d", again.state.ClusterID, again.state.Incarnation, id, old.state.Incarnation+1)
		}
		for _, n := range c.nodes {
			n.settled(t, 3, 3)
		}
		var balance int
		if err := again.connect(t).QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = 2500").Scan(&balance); err != nil || balance != 250 {
			t.Errorf("account 2500 = %d, %v", balance, err)
		}
	})

	t.Run("when the leader goes another one leads", func(t *testing.T) {
		var others []*testNode
		leader := -1
		pgtest.Eventually(t, 20*time.Second, func() error {
			for i, n := range c.nodes {
				if n.ledger().IsLeader() {
					leader = i
					return nil
				}
			}
			return errors.New("nobody leads")
		})
		for i, n := range c.nodes {
			if i != leader {
				others = append(others, n)
			}
		}
		gone := c.nodes[leader]
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 40*time.Second, func() error {
			code, out, errs := others[0].admin("keyspace", "create", "app.misplaced", "--key", "k", "--type", "text", "--shards", "shard_1")
			if code != 0 && !strings.Contains(errs, "app.misplaced already") {
				return fmt.Errorf("exit %d: %s%s", code, out, errs)
			}
			return nil
		})
		others[1].sees(t, "app.misplaced")
		c.nodes[leader] = newNode(outer, gone.cfg, clusterEnv()).open(t)
		c.nodes[leader].sees(t, "app.misplaced")
		for _, n := range c.nodes {
			n.settled(t, 3, 3)
		}
	})

	t.Run("a node that finds nobody serves what it last knew", func(t *testing.T) {
		alone := c.nodes[1]
		for _, n := range c.nodes {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
		cfg := alone.cfg
		n := newNode(t, cfg, clusterEnv()).open(t)
		n.settled(t, 1, 3) // the servers beside the other nodes too
		for _, id := range []int{907, 1907, 2907} {
			if tag, err := n.connect(t).Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES ($1, 1)", id); err != nil || tag.RowsAffected() != 1 {
				t.Errorf("account %d: %v, %v", id, tag, err)
			}
		}
		var balance int
		if err := n.connect(t).QueryRow(t.Context(), "SELECT balance FROM accounts WHERE id = 1500").Scan(&balance); err != nil || balance != 150 {
			code, out, errs := n.admin("route", "SELECT balance FROM accounts WHERE id = 1500")
			t.Errorf("account 1500 = %d, %v; route: exit %d\n%s%s", balance, err, code, out, errs)
		}
		body := fmt.Sprintf(`{"name": "app.settings", "key": ["name"], "types": ["text"], "method": "hash", "shards": ["shard_2"], "request_id": "%s"}`, randomHex(8))
		if status, text := n.post(t, "/api/v1/keyspaces", body); status != 503 {
			t.Errorf("without a leader: %d %s", status, text)
		}
	})

	for _, n := range c.nodes {
		for _, secret := range []string{appPassword, probePassword, clusterEnv()["CLUSTER_KEY"]} {
			if strings.Contains(n.log.String(), secret) {
				t.Errorf("a secret is in the log of %s", n.cfg.Name)
			}
		}
	}
}
