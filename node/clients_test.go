package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// world is three regions, each with a node, the primary of one shard and a streaming replica of the two others. Delays keep
// them apart, so that every node has a closest copy of every shard: the one in its own region.
type world struct {
	*testCluster
	farm   *pgtest.Farm
	copies [3][3]*pgtest.Server // by shard, by region
	script string               // file of keyedReads
}

// worldRows is the number of rows of orders: customer_id 1 to worldRows, each with one row whose note can be checked.
const worldRows = 300

func startWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w := &world{testCluster: new(testCluster), farm: pgtest.Shared(t), script: filepath.Join(t.TempDir(), "reads.sql")}
	if err := os.WriteFile(w.script, []byte(keyedReads), 0o600); err != nil {
		t.Fatal(err)
	}
	bind := func(region int) string { return fmt.Sprintf("127.0.%d.1", region+1) }
	for shard := range testRegions {
		p := pgtest.NewPrimary(t, pgtest.Options{Name: fmt.Sprintf("shard_%d", shard+1), Bind: bind(shard), Auth: "scram-sha-256"})
		if err := errors.Join(
			p.CreateUser(ctx, "app", appPassword, ""), p.CreateUser(ctx, "probe", probePassword, ""),
			p.Exec(ctx, "CREATE DATABASE app OWNER app"),
		); err != nil {
			t.Fatal(err)
		}
		if err := p.ExecIn(ctx, "app", schema); err != nil {
			t.Fatal(err)
		}
		w.servers = append(w.servers, p)
		for region := range testRegions {
			w.copies[shard][region] = p
			if region != shard {
				w.copies[shard][region] = pgtest.NewReplica(t, p, pgtest.Options{Bind: bind(region), Auth: "scram-sha-256"})
			}
		}
	}
	var join []string
	for region, name := range testRegions {
		cfg := testConfig(t, name, join...)
		cfg.Bind = bind(region)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		for shard := range testRegions {
			cfg.Backends = append(cfg.Backends, Backend{
				Name: fmt.Sprintf("shard_%d-%s", shard+1, name), Shard: fmt.Sprintf("shard_%d", shard+1), Address: w.copies[shard][region].Addr(),
			})
		}
		for other := range testRegions {
			if other != region {
				cfg.Lab = append(cfg.Lab, Lab{Net: fmt.Sprintf("127.0.%d.0/24", other+1), RTT: Duration{time.Duration(10*(other+region)) * time.Millisecond}})
			}
		}
		cfg.Pool.Connect = Duration{time.Minute} // nothing is out of reach here: a busy machine takes its time
		n := newNode(t, cfg, clusterEnv()).open(t)
		w.nodes = append(w.nodes, n)
		join = []string{w.nodes[0].port().Addr()}
	}
	for _, n := range w.nodes {
		n.settled(t, 3, 3)
	}
	status, body := w.follower(t).post(t, "/api/v1/keyspaces", `{"name": "app.orders", "key": ["customer_id"], "types": ["bigint"], "method": "hash", "shards": ["shard_1", "shard_2", "shard_3"]}`)
	if status/100 != 2 {
		t.Fatalf("keyspace: %d %s", status, body)
	}
	for _, n := range w.nodes {
		n.sees(t, "app.orders")
	}
	conn := w.nodes[0].connect(t)
	for k := 1; k <= worldRows; k++ {
		if _, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, note) VALUES ($1, 1, $2)", k, fmt.Sprint("note ", k)); err != nil {
			t.Fatal(err)
		}
	}
	for shard := range w.copies {
		for region := range w.copies[shard] {
			if region != shard {
				if err := w.copies[shard][region].CaughtUp(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for region := range w.nodes {
		pgtest.Eventually(t, 20*time.Second, func() error {
			for k := range 20 {
				if at := w.servedIn(t, region, k+1); at != region {
					return fmt.Errorf("%s reads customer %d in %s", testRegions[region], k+1, testRegions[at])
				}
			}
			return nil
		})
	}
	return w
}

// servedIn asks, through a region's node, which region's server answers a read.
func (w *world) servedIn(t *testing.T, region, key int) int {
	t.Helper()
	var addr string
	conn := w.nodes[region].connect(t)
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT host(inet_server_addr()) FROM orders WHERE customer_id = $1", key).Scan(&addr); err != nil {
		t.Fatalf("%s: %v", testRegions[region], err)
	}
	return int(net.ParseIP(addr).To4()[2]) - 1
}

func (w *world) tool(ctx context.Context, name string, node *testNode, args ...string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(node.pgLn.Addr().String())
	cmd := exec.CommandContext(ctx, filepath.Join(w.farm.Bin(), name), append([]string{"-h", host, "-p", port, "-U", "app"}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword, "LC_ALL=C", "PSQLRC=/dev/null")
	return cmd
}

// keyedReads is a pgbench script whose every answer is checked: a missing row fails at \gset, a wrong one at the division.
const keyedReads = `\set k random(1, 300)
SELECT substr(note, 6)::int AS v FROM orders WHERE customer_id = :k \gset
\set checked 1 / (case when :v = :k then 1 else 0 end)
`

var failedLine = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)

// pgbench fails the test unless every transaction of every client went through.
func (w *world) pgbench(t *testing.T, node *testNode, mode string, seconds int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds+120)*time.Second)
	defer cancel()
	out, err := w.tool(ctx, "pgbench", node, "-n", "-M", mode, "-c", "8", "-j", "2", "-T", fmt.Sprint(seconds), "-f", w.script, "app").CombinedOutput()
	m := failedLine.FindSubmatch(out)
	if err != nil || bytes.Contains(out, []byte("aborted")) || m == nil || string(m[1]) != "0" {
		t.Errorf("pgbench -M %s through %s: %v\n%s", mode, node.cfg.Name, err, out)
	}
}

func TestClients(t *testing.T) {
	w := startWorld(t)
	t.Run("psql", func(t *testing.T) { w.testPsql(t) })
	t.Run("pgbench", func(t *testing.T) { w.testPgbench(t) })
	t.Run("another replica dies", func(t *testing.T) { w.testReplicaDies(t, 2) })
	t.Run("its own replica dies", func(t *testing.T) { w.testReplicaDies(t, 1) })
	t.Run("the closest replica dies", func(t *testing.T) { w.testClosestDies(t) })
}

func (w *world) testPsql(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, c := range []struct {
		name, in string
		want     []string
		fails    bool
	}{
		{"a row", "SELECT note FROM orders WHERE customer_id = 7;", []string{"note 7"}, false},
		{"describe a sharded table", `\d orders`, []string{`Table "public.orders"`, "customer_id", "orders_pkey"}, false},
		{"describe an unsharded table", `\d settings`, []string{`Table "public.settings"`, "settings_pkey"}, false},
		{"list tables", `\dt`, []string{"orders", "settings", "(5 rows)"}, false},
		{"list databases", `\l`, []string{"app"}, false},
		{"list functions", `\df pg_catalog.hashint8extended`, []string{"hashint8extended"}, false},
		{"a variable", "\\set k 9\nSELECT note FROM orders WHERE customer_id = :k;", []string{"note 9"}, false},
		{"a transaction", "BEGIN;\nINSERT INTO orders (customer_id, id) VALUES (1, 99);\nSELECT count(*) FROM orders WHERE customer_id = 1;\nROLLBACK;", []string{"BEGIN", "INSERT 0 1", " 2", "ROLLBACK"}, false},
		{"copy", "\\copy settings FROM STDIN\na\t1\nb\t2\n\\.\nSELECT 'n=' || count(*) FROM settings;\n\\copy settings TO STDOUT\nDELETE FROM settings;", []string{"COPY 2", "n=2", "a\t1"}, false},
		{"a syntax error", "SELCT 1;", []string{`ERROR:  syntax error at or near "SELCT"`, "LINE 1: SELCT 1;"}, true},
		{"no key", "SELECT * FROM orders ORDER BY customer_id, id LIMIT 3;\nUPDATE orders SET note = 'all';", []string{"(3 rows)", "ERROR:", "customer_id", "HINT:", "cross_shard_writes"}, true},
		{"another shard in a transaction", "BEGIN;\nSELECT note FROM orders WHERE customer_id = 1 FOR UPDATE;\nSELECT note FROM orders WHERE customer_id = 2 FOR UPDATE;\nSELECT note FROM orders WHERE customer_id = 3 FOR UPDATE;\nSELECT note FROM orders WHERE customer_id = 4 FOR UPDATE;\nSELECT note FROM orders WHERE customer_id = 5 FOR UPDATE;\nROLLBACK;", []string{"ROLLBACK"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := w.tool(ctx, "psql", w.nodes[1], "-X", "-v", "ON_ERROR_STOP=1", "-d", "app")
			cmd.Stdin = strings.NewReader(c.in + "\n")
			out, err := cmd.CombinedOutput()
			if (err != nil) != c.fails {
				t.Errorf("psql: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
	wrong := w.tool(ctx, "psql", w.nodes[1], "-X", "-d", "app", "-c", "SELECT 1")
	wrong.Env = append(wrong.Env, "PGPASSWORD=wrong")
	if out, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(out), `password authentication failed for user "app"`) {
		t.Errorf("a wrong password: %v %s", err, out)
	}
}

func (w *world) testPgbench(t *testing.T) {
	for _, mode := range []string{"simple", "extended", "prepared"} {
		var wg sync.WaitGroup
		for _, n := range w.nodes {
			wg.Go(func() { w.pgbench(t, n, mode, 2) })
		}
		wg.Wait()
	}
}

// A replica of shard_1 is killed under fra's load, one that fra does not read from or its own: nobody notices. (Of its own it may
// be noticed by a client whose answer was cut off half-way, which takes an answer of more than one packet.)
func (w *world) testReplicaDies(t *testing.T, region int) {
	const shard, fra = 0, 1
	victim := w.copies[shard][region]
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.pgbench(t, w.nodes[fra], "prepared", 5)
	}()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if w.nodes[fra].server.Stats().Sessions < 8 {
			return errors.New("pgbench has not begun")
		}
		return nil
	})
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	w.restart(t, shard, region)
}

// restart brings a killed server back and waits until its region's node reads from it again.
func (w *world) restart(t *testing.T, shard, region int) {
	t.Helper()
	if err := w.copies[shard][region].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("shard_%d-%s", shard+1, testRegions[region])
	pgtest.Eventually(t, 2*time.Minute, func() error {
		for _, n := range w.nodes {
			reads := n.fib.Load().Slot(fmt.Sprintf("shard_%d", shard+1)).Candidates().Reads
			found := false
			for _, hop := range reads {
				found = found || hop.Backend.Name == name && hop.Healthy
			}
			if !found {
				return fmt.Errorf("%s does not use %s again", n.cfg.Name, name)
			}
		}
		return nil
	})
}

// The replicas that fra reads from die one after another under load. Only clients with a statement in flight may see an
// error, each of them one, and trying again works at once.
func (w *world) testClosestDies(t *testing.T) {
	const clients = 8
	const fra = 1
	for _, shard := range []int{0, 2} {
		var answers, wrong, failed, failedAgain atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		read := func(conn *pgx.Conn, k int) error {
			var note string
			err := conn.QueryRow(context.Background(), "SELECT note FROM orders WHERE customer_id = $1", k).Scan(&note)
			if err == nil && note != fmt.Sprint("note ", k) {
				wrong.Add(1)
			}
			return err
		}
		for i := range clients {
			conn := w.nodes[fra].connect(t)
			wg.Go(func() {
				for k := i; !stop.Load(); k++ {
					key := k%worldRows + 1
					err := read(conn, key)
					if err == nil {
						answers.Add(1)
						continue
					}
					failed.Add(1)
					var pe *pgconn.PgError
					if !errors.As(err, &pe) {
						t.Errorf("not an error of the protocol: %v", err)
						return
					}
					t.Logf("in flight: %v", err)
					if err := read(conn, key); err != nil {
						failedAgain.Add(1)
						t.Logf("again: %v", err)
					}
				}
			})
		}
		end := func() { stop.Store(true); wg.Wait() }
		more := func(n int64) {
			t.Helper()
			from := answers.Load()
			defer func() {
				if t.Failed() {
					end()
				}
			}()
			pgtest.Eventually(t, 3*time.Minute, func() error {
				if got := answers.Load() - from; got < n {
					return fmt.Errorf("%d answers, want %d", got, n)
				}
				return nil
			})
		}
		more(2000)
		if err := w.copies[shard][fra].Kill(); err != nil {
			t.Fatal(err)
		}
		more(2000)
		end()
		if wrong.Load() != 0 || failedAgain.Load() != 0 || failed.Load() > clients {
			t.Errorf("shard_%d: %d wrong answers, %d errors of %d clients, %d of them again when tried again", shard+1, wrong.Load(), failed.Load(), clients, failedAgain.Load())
		}
		t.Logf("shard_%d: %d answers, %d errors, %d after a second try", shard+1, answers.Load(), failed.Load(), failedAgain.Load())
		w.restart(t, shard, fra)
	}
}
