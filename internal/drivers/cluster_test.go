package drivers

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// direct leaves the nodes out: the drivers speak to shard_1 itself. So one sees whether it is the driver that behaves in some way,
// or the router. The steps in which the router refuses something fail then.
var direct = flag.Bool("direct", false, "let the drivers speak to PostgreSQL itself")

const (
	database = "app"
	user     = "app"
	password = "s3cret of 'app' \\ \"quoted\" é"
)

// schema is what both shards hold. orders is sharded by customer_id; whatever else a driver makes lives on shard_1. running shows
// what runs on shard_1, and a statement that names table one runs there: so a driver knows when its slow statement has begun. felt is sharded as orders are.
const schema = `
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE feeling AS (m mood, n int);
CREATE TABLE felt (customer_id bigint, id int, m mood, l mood[], p feeling, PRIMARY KEY (customer_id, id));
CREATE TABLE orders (customer_id bigint, id int, note text, data bytea, PRIMARY KEY (customer_id, id));
CREATE TABLE one AS SELECT 1 AS n;
CREATE VIEW running AS SELECT pid, query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid();
GRANT ALL ON ALL TABLES IN SCHEMA public TO app`

// cluster is two nodes, each in a region of its own beside the primary of one of two shards. Clients must use TLS.
type cluster struct {
	bin    string // folder of PostgreSQL's programs
	shards [2]*pgtest.Server
	nodes  [2]*node
	root   string // file of the authority that signed the nodes' certificate
	wrong  string // file of another one
}

// node is a process of the built binary.
type node struct {
	region   string
	log      string // file
	postgres string // address
	peers    string // address of the cluster port
	http     string // address
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	farm, dir := pgtest.Shared(t), t.TempDir()
	c := &cluster{bin: farm.Bin()}
	ca := pgtest.NewAuthority(t)
	pair := ca.Issue(t, time.Time{}, "localhost", "127.0.0.1")
	var wg sync.WaitGroup
	var errs [3]error
	for i := range c.shards {
		c.shards[i] = pgtest.NewPrimary(t, pgtest.Options{Name: fmt.Sprintf("shard_%d", i+1), Auth: "scram-sha-256", TLS: pair})
		wg.Go(func() {
			s := c.shards[i]
			errs[i] = errors.Join(s.CreateUser(ctx, user, password, ""), s.Exec(ctx, "CREATE DATABASE app OWNER app"))
			for range i { // so that types have other numbers on the second shard
				errs[i] = errors.Join(errs[i], s.ExecIn(ctx, database, "CREATE TYPE other AS ENUM ('x')", "DROP TYPE other"))
			}
			errs[i] = errors.Join(errs[i], s.ExecIn(ctx, database, schema))
		})
	}
	var binary string
	wg.Go(func() { binary, errs[2] = build(ctx, dir) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c.root, c.wrong = file("root.crt", ca.PEM), file("wrong.crt", pgtest.NewAuthority(t).PEM)
	if *direct {
		c.nodes = [2]*node{{postgres: c.shards[0].Addr()}, {postgres: c.shards[0].Addr()}}
		return c
	}
	cert, key := file("node.crt", pair.Cert), file("node.key", pair.Key)
	join := ""
	for i, region := range []string{"iad", "fra"} {
		config := fmt.Sprintf(`
region = %[1]q
name = "%[1]s-1"
data_dir = %[2]q
cluster_key_env = "CLUSTER_KEY"
join = [%[3]s]
ports = { postgres = 0, cluster = 0, http = 0 }
log = { format = "json" }
probe = { user = "app", password_env = "APP_PASSWORD", interval = "200ms" }
admin = { user = "app", password_env = "APP_PASSWORD" }
tls = { cert_file = %[4]q, key_file = %[5]q, require = true }
pool = { size = 40 }
databases = [{ name = "app", shard = "shard_1" }]
users = [{ name = "app", password_env = "APP_PASSWORD" }]
backends = [{ name = "%[1]s-db", shard = %[6]q, address = %[7]q }]
`, region, filepath.Join(dir, region+"-data"), join, cert, key, c.shards[i].Name(), c.shards[i].Addr())
		own := filepath.Join(dir, region)
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		n := &node{region: region, log: filepath.Join(own, "log")}
		n.start(t, farm, binary, file(region+".toml", []byte(config)))
		c.nodes[i] = n
		join = fmt.Sprintf("%q", n.peers)
	}
	c.makeKeyspace(t)
	return c
}

// build builds the binary as this test was built: under the race detector it has one too.
func build(ctx context.Context, dir string) (string, error) {
	if raceDetector {
		return program.Build(ctx, dir, "-race")
	}
	return program.Build(ctx, dir)
}

// start starts the node and waits until it serves. At the test's end it must stop within its time, with no data race seen.
func (n *node) start(t *testing.T, farm *pgtest.Farm, binary, config string) {
	t.Helper()
	env := []string{"APP_PASSWORD=" + password, "CLUSTER_KEY=" + strings.Repeat("5c", 32)}
	p, err := program.Launch(farm, filepath.Dir(n.log), program.User{}, env, binary, "start", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code := p.Stop(syscall.SIGINT); code != 0 {
			t.Errorf("%s did not end well: exit code %d", n.region, code)
		}
		text, _ := os.ReadFile(n.log)
		for _, bad := range []string{"DATA RACE", "panic", password} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%q is in the log of %s", bad, n.region)
			}
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", n.region, text[max(0, len(text)-8000):])
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	err = p.Until(ctx, func() error {
		text, err := os.ReadFile(n.log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var record struct {
				Msg, Postgres, Debug string
				Peers                string `json:"cluster_port"`
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "serving" {
				n.postgres, n.peers = record.Postgres, record.Peers
				n.http = strings.TrimSuffix(record.Debug, "/debug")
				return nil
			}
		}
		return errors.New("it does not serve yet")
	})
	if err != nil {
		t.Fatalf("%s: %v", n.region, err)
	}
}

// makeKeyspace shards orders over both shards and waits until both nodes route by that.
func (c *cluster) makeKeyspace(t *testing.T) {
	t.Helper()
	const spec = `{"name": "app.orders", "key": ["customer_id"], "types": ["bigint"], "method": "hash", "shards": ["shard_1", "shard_2"], "also": ["app.felt"]}`
	pgtest.Eventually(t, 30*time.Second, func() error { // the shards may not have been seen yet
		answer, err := call(http.MethodPost, c.nodes[0].http+"/api/v1/keyspaces", spec)
		if err != nil && !strings.Contains(answer, "already") {
			return fmt.Errorf("%w: %s", err, answer)
		}
		return nil
	})
	for _, n := range c.nodes {
		pgtest.Eventually(t, 30*time.Second, func() error {
			var shards string // of keys 1 to 8, which are not all on one
			for key := 1; key <= 8; key++ {
				answer, err := call(http.MethodGet, fmt.Sprintf("%s/debug/route?sql=DELETE+FROM+orders+WHERE+customer_id=%d", n.http, key), "")
				if err != nil {
					return err
				}
				var route struct {
					Shard, Keyspace string
					Candidates      []struct{ Healthy bool }
				}
				if err := json.Unmarshal([]byte(answer), &route); err != nil {
					return err
				}
				if route.Keyspace != "" && len(route.Candidates) == 1 && route.Candidates[0].Healthy {
					shards += route.Shard + " "
				}
			}
			if !strings.Contains(shards, "shard_1") || !strings.Contains(shards, "shard_2") || strings.Count(shards, " ") != 8 {
				return fmt.Errorf("%s does not route by the keyspace to both shards: %q", n.region, shards)
			}
			return nil
		})
	}
}

func call(method, url, body string) (answer string, err error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

// balance listens as a balancer that knows nothing of Postgres: connections go to the nodes in turn. A driver that connects and then
// cancels has its cancel request taken to the other node. It ends with the test.
func (c *cluster) balance(t *testing.T) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for turn := 0; ; turn++ {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", c.nodes[turn%len(c.nodes)].postgres)
				if err != nil {
					return
				}
				defer server.Close()
				back := make(chan struct{})
				go func() {
					defer close(back)
					_, _ = io.Copy(client, server)
					client.Close()
				}()
				_, _ = io.Copy(server, client)
				server.Close()
				<-back
			})
		}
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}
