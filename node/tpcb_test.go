package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// tpcbSums must agree at rest.
var tpcbSums = [][2]string{
	{"SELECT coalesce(sum(abalance), 0)::text FROM pgbench_accounts", "SELECT coalesce(sum(delta), 0)::text FROM pgbench_history"},
	{"SELECT coalesce(sum(tbalance), 0)::text FROM pgbench_tellers", "SELECT coalesce(sum(delta), 0)::text FROM pgbench_history"},
	{"SELECT coalesce(sum(bbalance), 0)::text FROM pgbench_branches", "SELECT coalesce(sum(delta), 0)::text FROM pgbench_history"},
}

var (
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	abortedLine   = regexp.MustCompile(`(?m)^pgbench: error: client \d+ (aborted|script \d+ aborted)`)
)

// TestTPCB: pgbench's own script, unchanged, on tables of which each is keyed by its own id, so that nearly every transaction spans shards, while nodes and
// servers are killed. Then the balances agree, and there is a row of history for each transaction that was acknowledged.
func TestTPCB(t *testing.T) {
	w := startTPCC(t)
	w.create(t, "app.pgbench_accounts", "--planned", "--key", "aid", "--type", "int",
		"--table", "app.pgbench_tellers:tid", "--table", "app.pgbench_branches:bid", "--table", "app.pgbench_history:aid")
	w.knows(t, "pgbench_accounts")
	pgbench := func(ctx context.Context, addr string, args ...string) (string, error) {
		host, port, _ := net.SplitHostPort(addr)
		cmd := exec.CommandContext(ctx, filepath.Join(pgtest.Shared(t).Bin(), "pgbench"), append(append([]string{"-h", host, "-p", port, "-U", "app"}, args...), "app")...)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const scale = 2
	if out, err := pgbench(t.Context(), w.at(1).postgres(t), "-i", "-q", "-s", fmt.Sprint(scale)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// A client of pgbench that loses its connection ends: so it is started again and again, for a second each.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var acked, lost atomic.Int64
	var killing atomic.Bool
	for n := range w.nodes {
		wg.Go(func() {
			for turn := 0; ; turn++ {
				select {
				case <-stop:
					return
				default:
				}
				addr := w.at((n + turn) % len(w.nodes)).address()
				if addr == "" {
					select {
					case <-stop:
					case <-time.After(20 * time.Millisecond):
					}
					continue
				}
				calm := !killing.Load()
				ctx, cancel := context.WithTimeout(t.Context(), 2*tpccLimit)
				out, err := pgbench(ctx, addr, "-n", "-M", []string{"simple", "extended", "prepared"}[turn%3], "-c", "2", "-T", "1", "--max-tries", "100")
				late := ctx.Err()
				cancel()
				if m := processedLine.FindStringSubmatch(out); m != nil {
					k, _ := strconv.ParseInt(m[1], 10, 64)
					acked.Add(k)
				}
				lost.Add(int64(len(abortedLine.FindAllString(out, -1))))
				if err != nil && calm && !killing.Load() || late != nil {
					t.Errorf("%v\n%s", err, out)
				}
			}
		})
	}
	w.kill(t, *tpccTime, func() { killing.Store(true) }, func() int { return int(acked.Load()) })
	close(stop)
	wg.Wait()
	w.settled(t)
	w.agree(t, tpcbSums)
	n, _ := strconv.ParseInt(strings.TrimSpace(w.psql(t, "SELECT count(*) FROM pgbench_history;")), 10, 64)
	least, most := acked.Load(), acked.Load()+lost.Load()
	t.Logf("%d acknowledged, %d clients lost their connections, %d rows of history", least, lost.Load(), n)
	if n < least || n > most {
		t.Errorf("%d rows of history, %d transactions were acknowledged, and of %d nobody knows", n, least, lost.Load())
	}
	if out := w.psql(t, "SELECT count(*) FROM pgbench_accounts;"); strings.TrimSpace(out) != fmt.Sprint(scale*100_000) {
		t.Errorf("%s accounts", strings.TrimSpace(out))
	}
}
