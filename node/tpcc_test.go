package node

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

var (
	tpccTime = flag.Duration("tpcc.time", 10*time.Second, "for how long TestTPCC runs its load; half a minute and more: a primary and a node are killed on the way, again and again")
	tpccSeed = flag.Uint64("tpcc.seed", 1, "what the load of TestTPCC is drawn from")
)

// tpccInvariants must have no rows at rest: TPC-C's consistency conditions 1 to 4 and 8 for each warehouse, asked of all shards at once, and beyond
// them what transactions over several shards leave by halves if they are not one: payments by customers, and stock of other warehouses.
var tpccInvariants = map[string]string{
	"1: W_YTD = sum(D_YTD)":          "SELECT w_id, w_ytd, sum(d_ytd) FROM warehouse JOIN district ON d_w_id = w_id GROUP BY w_id, w_ytd HAVING w_ytd <> sum(d_ytd)",
	"2: D_NEXT_O_ID - 1 = max(O_ID)": "SELECT d_w_id, d_id, d_next_o_id, max(o_id) FROM district LEFT JOIN orders ON o_w_id = d_w_id AND o_d_id = d_id GROUP BY d_w_id, d_id, d_next_o_id HAVING d_next_o_id - 1 <> coalesce(max(o_id), 0)",
	"2: the newest is not beyond":    "SELECT d_w_id, d_id, d_next_o_id, max(no_o_id) FROM district JOIN new_order ON no_w_id = d_w_id AND no_d_id = d_id GROUP BY d_w_id, d_id, d_next_o_id HAVING max(no_o_id) > d_next_o_id - 1",
	"3: new orders have no gap":      "SELECT no_w_id, no_d_id, min(no_o_id), max(no_o_id), count(*) FROM new_order GROUP BY no_w_id, no_d_id HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)",
	"4: sum(O_OL_CNT) = lines":       "SELECT o_w_id, o_d_id, o_id, o_ol_cnt, count(ol_number) FROM orders LEFT JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id GROUP BY o_w_id, o_d_id, o_id, o_ol_cnt HAVING o_ol_cnt <> count(ol_number)",
	"8: W_YTD = sum(H_AMOUNT)":       "SELECT w_id, w_ytd, sum(h_amount) FROM warehouse LEFT JOIN history ON h_w_id = w_id GROUP BY w_id, w_ytd HAVING w_ytd <> coalesce(sum(h_amount), 0)",
}

// tpccSums are numbers that must agree, in pairs.
var tpccSums = [][2]string{
	{"SELECT sum(c_ytd_payment)::text FROM customer", "SELECT sum(h_amount)::text FROM history"},
	{"SELECT sum(c_payment_cnt)::text FROM customer", "SELECT count(*)::text FROM history"},
	{"SELECT sum(s_ytd)::text FROM stock", "SELECT sum(ol_quantity)::text FROM order_line"},
	{"SELECT sum(s_order_cnt)::text FROM stock", "SELECT count(*)::text FROM order_line"},
	{"SELECT sum(s_remote_cnt)::text FROM stock", "SELECT count(*)::text FROM order_line WHERE ol_supply_w_id <> ol_w_id"},
	{"SELECT sum(c_balance + c_ytd_payment)::text FROM customer", "SELECT sum(ol_amount)::text FROM order_line WHERE ol_delivery_d IS NOT NULL"},
}

// tpcc is three nodes, each a process, and three shards.
type tpcc struct {
	*bank  // its servers alone
	dir    string
	binary string
	env    []string

	// guarded by mu
	mu    sync.Mutex
	nodes [3]*process
}

func startTPCC(t *testing.T) *tpcc {
	t.Helper()
	w := &tpcc{bank: new(bank), dir: t.TempDir(), binary: buildBinary(t), env: []string{"APP_PASSWORD=" + appPassword, "PROBE_PASSWORD=" + probePassword, "CLUSTER_KEY=" + strings.Repeat("5c", 32)}}
	w.serve(t, 100, 100, 100)
	for _, s := range w.servers {
		if err := s.ExecIn(t.Context(), "app", "DROP TABLE orders, order_lines", "ALTER SCHEMA public OWNER TO app"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range w.nodes {
		w.nodes[i] = w.start(t, i, true)
	}
	return w
}

// start starts a node; first: it has never run.
func (w *tpcc) start(t *testing.T, i int, first bool) *process {
	t.Helper()
	file := filepath.Join(w.dir, testRegions[i]+".toml")
	if first {
		join := ""
		if i > 0 {
			join = fmt.Sprintf("%q", w.nodes[0].port(t, "cluster_port="))
		}
		text := fmt.Sprintf(`region = %q
name = "%[1]s-1"
data_dir = %[2]q
cluster_key_env = "CLUSTER_KEY"
join = [%[3]s]
ports = { postgres = 0, cluster = 0, http = 0 }
failover_wait = "1m"
probe = { user = "probe", password_env = "PROBE_PASSWORD", interval = "100ms" }
databases = [{ name = "app", shard = "shard_1", cross_shard_writes = "2pc" }]
users = [{ name = "app", password_env = "APP_PASSWORD" }]
backends = [{ name = "%[1]s-db", shard = "shard_%[4]d", address = %[5]q }]
`, testRegions[i], filepath.Join(w.dir, testRegions[i]), join, i+1, w.servers[i].Addr())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return startProcess(t, w.binary, w.env, "-c", file)
}

// node is a node that runs, or did a moment ago.
func (w *tpcc) at(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[i]
}

// address is where a node takes clients; "": it does not yet.
func (p *process) address() string {
	for l := range strings.Lines(p.log.String()) {
		if strings.Contains(l, "msg=serving") {
			_, rest, _ := strings.Cut(l, "postgres=")
			addr, _, _ := strings.Cut(rest, " ")
			return addr
		}
	}
	return ""
}

func (w *tpcc) psql(t *testing.T, in string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(pgtest.Shared(t).Bin(), "psql"), append([]string{"-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsnAt(w.nodes[1].postgres(t))}, args...)...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return string(out)
}

// TestTPCC: a load like TPC-C's through three nodes, with transactions that span shards; then all adds up.
func TestTPCC(t *testing.T) {
	w := startTPCC(t)
	admin := func(args ...string) {
		t.Helper()
		pgtest.Eventually(t, time.Minute, func() error { // the shards may not have been seen yet
			if code, out, errs := runCLI(append(append([]string{"keyspace"}, args...), "--admin", w.nodes[0].admin(t))...); code != 0 {
				return fmt.Errorf("exit %d: %s%s", code, out, errs)
			}
			return nil
		})
	}
	create := []string{"create", "app.warehouse", "--planned", "--key", "w_id", "--type", "int", "--shards", "shard_1,shard_2,shard_3"}
	for _, table := range tpccTables {
		create = append(create, "--table", "app."+table)
	}
	admin(create...)
	admin("create", "app.item", "--planned", "--reference", "--shards", "shard_1,shard_2,shard_3")
	for i := range w.nodes {
		pgtest.Eventually(t, 30*time.Second, func() error {
			code, out, errs := runCLI("route", "SELECT * FROM item", "--admin", w.nodes[i].admin(t))
			if code != 0 || !strings.Contains(out, "app.item") {
				return fmt.Errorf("exit %d: %s%s", code, out, errs)
			}
			return nil
		})
	}
	w.psql(t, tpccSchema)
	w.psql(t, tpccRows())

	// The load: two terminals at each node.
	stop := time.Now().Add(*tpccTime)
	var mu sync.Mutex
	done, repeated, failed, problems := map[string]int{}, 0, 0, []string{}
	kills := *tpccTime >= 30*time.Second
	var wg sync.WaitGroup
	for n := range 2 * len(w.nodes) {
		wg.Go(func() {
			x := &terminal{r: rand.New(rand.NewPCG(*tpccSeed, uint64(n))), mode: []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}[n%3]}
			for turn := 0; time.Now().Before(stop); turn++ {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				var err error
				if x.conn == nil || x.conn.IsClosed() {
					addr := w.at((n + turn) % len(w.nodes)).address()
					if x.conn, err = pgx.Connect(ctx, dsnAt(addr)); err != nil {
						x.conn = nil
						cancel()
						continue
					}
				}
				name, err := x.transaction(ctx)
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					done[name]++
				case repeats(err):
					repeated++
				case kills: // whatever it was, at rest all must add up
					failed++
				default:
					problems = append(problems, fmt.Sprintf("%s: %v", name, err))
				}
				mu.Unlock()
				if err != nil && !repeats(err) && x.conn != nil {
					x.conn.Close(context.Background())
				}
			}
			if x.conn != nil {
				x.conn.Close(context.Background())
			}
		})
	}
	if kills {
		w.kill(t, stop.Add(-15*time.Second), func() int {
			mu.Lock()
			defer mu.Unlock()
			return done["new order"]
		})
	}
	wg.Wait()
	t.Logf("%v, %d repeated, %d failed", done, repeated, failed)
	for _, p := range problems[:min(len(problems), 5)] {
		t.Error(p)
	}
	if done["new order"] < 20 || done["payment"] < 20 || done["delivery"] == 0 || done["order status"] == 0 || done["stock level"] == 0 {
		t.Errorf("too little was done to tell anything: %v", done)
	}
	w.audit(t)
}

// kill kills primaries and nodes in turn, each when the load has gone on since the last, and starts them again, until the time has come.
func (w *tpcc) kill(t *testing.T, until time.Time, orders func() int) {
	t.Helper()
	for turn := 0; time.Now().Before(until); turn++ {
		before := orders()
		pgtest.Eventually(t, 2*time.Minute, func() error {
			if n := orders(); n < before+20 {
				return fmt.Errorf("%d orders since the last kill", n-before)
			}
			return nil
		})
		i := turn / 2 % 3
		if turn%2 == 0 {
			if err := w.servers[i].Kill(); err != nil {
				t.Fatal(err)
			}
			if err := w.servers[i].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		victim := w.at(i)
		_ = victim.cmd.Process.Kill()
		<-victim.ended
		p := w.start(t, i, false)
		w.mu.Lock()
		w.nodes[i] = p
		w.mu.Unlock()
		p.postgres(t)
	}
}

// audit waits until nothing is left prepared, and looks whether all adds up.
func (w *tpcc) audit(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		for i := range w.servers {
			if n := w.on(t, i, "SELECT count(*)::int FROM pg_prepared_xacts")[0]; n > 0 {
				return fmt.Errorf("%s: %d prepared", w.servers[i].Name(), n)
			}
		}
		return nil
	})
	for what, sql := range tpccInvariants {
		if out := w.psql(t, sql+";"); out != "" {
			t.Errorf("condition %s does not hold:\n%s", what, out)
		}
	}
	for _, pair := range tpccSums {
		a, b := w.psql(t, pair[0]+";"), w.psql(t, pair[1]+";")
		if strings.TrimSpace(a) == "" || a != b {
			t.Errorf("%s: %s%s: %s", pair[0], a, pair[1], b)
		}
	}
	if out := w.psql(t, "SELECT count(*) > 0 FROM order_line WHERE ol_supply_w_id <> ol_w_id;"); strings.TrimSpace(out) != "t" {
		t.Error("no line came from another warehouse")
	}
	spread := 0
	for i := range w.servers {
		if w.on(t, i, "SELECT count(*)::int FROM orders")[0] > 0 {
			spread++
		}
	}
	if spread < 2 {
		t.Error("all orders are on one shard")
	}
}
