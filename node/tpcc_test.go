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
	tpccTime = flag.Duration("tpcc.time", 0, "for how long TestTPCC and TestTPCB go on killing servers and nodes; 0: each once, and both at once")
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
	var said strings.Builder // a node that has just come back may warn that it has no lease yet
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("psql: %v\n%s%s", err, out, said.String())
	}
	return string(out)
}

// create makes a keyspace.
func (w *tpcc) create(t *testing.T, args ...string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error { // the shards may not have been seen yet
		if code, out, errs := runCLI(append(append([]string{"keyspace", "create"}, args...), "--shards", "shard_1,shard_2,shard_3", "--admin", w.nodes[0].admin(t))...); code != 0 {
			return fmt.Errorf("exit %d: %s%s", code, out, errs)
		}
		return nil
	})
}

// knows waits until all nodes know a sharded table.
func (w *tpcc) knows(t *testing.T, table string) {
	t.Helper()
	for i := range w.nodes {
		pgtest.Eventually(t, 30*time.Second, func() error {
			code, out, errs := runCLI("route", "SELECT * FROM "+table, "--admin", w.nodes[i].admin(t))
			if code != 0 || !strings.Contains(out, "app."+table) {
				return fmt.Errorf("exit %d: %s%s", code, out, errs)
			}
			return nil
		})
	}
}

// TestTPCC: a load like TPC-C's through three nodes, with transactions that span shards, while nodes and servers are killed; then all adds up, and each transaction has
// had the fate that its client was told.
func TestTPCC(t *testing.T) {
	w := startTPCC(t)
	create := []string{"app.warehouse", "--planned", "--key", "w_id", "--type", "int"}
	for _, table := range tpccTables {
		create = append(create, "--table", "app."+table)
	}
	w.create(t, create...)
	w.create(t, "app.item", "--planned", "--reference")
	w.knows(t, "item")
	w.psql(t, tpccSchema)
	w.psql(t, tpccRows())

	// The load: two terminals at each node. First nothing is in its way, and no client may be told of anything but what it has to repeat.
	b := newBook()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range 2 * len(w.nodes) {
		wg.Go(func() {
			x := &terminal{n: n, r: rand.New(rand.NewPCG(*tpccSeed, uint64(n))), mode: []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}[n%3]}
			w.terminal(t.Context(), x, b, stop)
		})
	}
	w.kill(t, *tpccTime, b.kills, func() int { return b.count("new order") })
	close(stop)
	wg.Wait()
	b.report(t)
	for what, least := range map[string]int{"new order": 20, "payment": 20, "delivery": 1, "order status": 1, "stock level": 1} {
		if b.count(what) < least {
			t.Errorf("too little was done to tell anything: %d of %s", b.count(what), what)
		}
	}
	w.settled(t)
	for what, sql := range tpccInvariants {
		if out := w.psql(t, sql+";"); out != "" {
			t.Errorf("condition %s does not hold:\n%s", what, out)
		}
	}
	w.agree(t, tpccSums)
	b.check(t, w.psql(t, "SELECT h_data FROM history; SELECT format('order %s/%s/%s', o_w_id, o_d_id, o_id) FROM orders;"), "order ")
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

// terminal has one run transactions until it is told to stop. When its connection has ended it goes to the next node.
func (w *tpcc) terminal(ctx context.Context, x *terminal, b *book, stop <-chan struct{}) {
	for at := x.n % len(w.nodes); ; {
		select {
		case <-stop:
			if x.conn != nil {
				x.conn.Close(context.WithoutCancel(ctx))
			}
			return
		default:
		}
		ctx, cancel := context.WithTimeout(ctx, tpccLimit)
		if x.conn == nil {
			var err error
			if x.conn, err = pgx.Connect(ctx, dsnAt(w.at(at).address())); err != nil {
				x.conn = nil
				at = (at + 1) % len(w.nodes)
				select {
				case <-stop:
				case <-time.After(20 * time.Millisecond): // it may be the only one that runs
				}
			}
		} else if err := x.transaction(ctx, b); err != nil && !repeats(err) {
			x.conn.Close(ctx)
			x.conn, at = nil, (at+1)%len(w.nodes)
		}
		cancel()
	}
}

// tpccLimit is the most that a transaction may take, whatever is killed: what it waits for is not to be held for ever.
const tpccLimit = time.Minute

// kill lets the load run undisturbed for a while, and then kills servers and nodes, one of each by turns and then both at once, and starts them again, each when the
// load has gone on since the last, until the time is over and each way to do it has had its turn. It says so by begins.
func (w *tpcc) kill(t *testing.T, lasts time.Duration, begins func(), orders func() int) {
	t.Helper()
	until := time.Now().Add(lasts)
	goesOn := func(n int) {
		t.Helper()
		before := orders()
		pgtest.Eventually(t, 2*time.Minute, func() error {
			if now := orders(); now < before+n {
				return fmt.Errorf("%d transactions since the last kill", now-before)
			}
			return nil
		})
	}
	goesOn(50)
	begins()
	for turn := 0; turn < 3 || time.Now().Before(until); turn++ {
		at := turn / 3 % len(w.nodes)
		if turn%3 != 1 {
			if err := w.servers[at].Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if turn%3 != 0 {
			victim := w.at(at)
			_ = victim.cmd.Process.Kill()
			<-victim.ended
			p := w.start(t, at, false)
			w.mu.Lock()
			w.nodes[at] = p
			w.mu.Unlock()
			p.postgres(t)
		}
		if turn%3 != 1 {
			if err := w.servers[at].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		goesOn(20)
	}
}

// settled waits until nothing is left prepared, and no transaction open.
func (w *tpcc) settled(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, 2*time.Minute, func() error {
		for i := range w.servers {
			if n := w.on(t, i, "SELECT count(*)::int FROM pg_prepared_xacts UNION ALL SELECT count(*)::int FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'"); n[0]+n[1] > 0 {
				return fmt.Errorf("%s: %d prepared, %d open", w.servers[i].Name(), n[0], n[1])
			}
		}
		return nil
	})
}

// agree fails the test for numbers that are not the same.
func (w *tpcc) agree(t *testing.T, pairs [][2]string) {
	t.Helper()
	for _, pair := range pairs {
		a, b := w.psql(t, pair[0]+";"), w.psql(t, pair[1]+";")
		if strings.TrimSpace(a) == "" || a != b {
			t.Errorf("%s: %s%s: %s", pair[0], a, pair[1], b)
		}
	}
}
