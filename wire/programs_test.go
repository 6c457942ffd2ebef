package wire_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// program runs one of PostgreSQL's programs against the node.
func (r *rig) program(t *testing.T, stdin, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(ctxOf(t), filepath.Join(pgtest.Shared(t).Bin(), name), append(args, "-d", r.dsn())...)
	if name == "pgbench" {
		cmd.Args = append(cmd.Args[:len(cmd.Args)-2], r.dsn())
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pgbench makes its tables on all shards and fills them, and its own script runs on them: the sums of balances agree.
func TestPgbenchOnShards(t *testing.T) {
	keyed := make([]rib.KeyedTable, 0, 4)
	for table, column := range map[string]string{"pgbench_accounts": "aid", "pgbench_branches": "bid", "pgbench_tellers": "tid", "pgbench_history": "aid"} {
		keyed = append(keyed, rib.KeyedTable{Schema: "public", Name: table, Columns: []string{column}})
	}
	r := newRig(t, rigOptions{across: true, keyed: keyed})
	for _, args := range [][]string{{"-i", "-s", "1"}, {"-n", "-c", "4", "-j", "2", "-t", "25"}} {
		if out, err := r.program(t, "", "pgbench", args...); err != nil {
			t.Fatalf("pgbench %v: %v\n%s", args, err, out)
		}
	}
	each, n := r.onShards(t, "SELECT count(*) FROM pgbench_accounts")
	if n != 100_000 || each[0] < 40_000 || each[1] < 40_000 {
		t.Fatalf("accounts: %v", each)
	}
	_, accounts := r.onShards(t, "SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts")
	for _, sum := range []string{"sum(tbalance), 0) FROM pgbench_tellers", "sum(bbalance), 0) FROM pgbench_branches", "sum(delta), 0) FROM pgbench_history"} {
		if _, n := r.onShards(t, "SELECT coalesce("+sum); n != accounts {
			t.Errorf("%s: %d, accounts have %d", sum, n, accounts)
		}
	}
	if _, n := r.onShards(t, "SELECT count(*) FROM pgbench_history"); n != 100 {
		t.Errorf("%d transactions", n)
	}
	r.busy(t, 0)
}

// psql's \copy works through the node, and so does what pg_dump does to get a sharded table's rows.
func TestPsqlCopiesShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	out, err := r.program(t, rowsToCopy(0, 500)+"\\.\n", "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", `\copy orders from stdin`)
	if err != nil || !strings.Contains(out, "COPY 500") {
		t.Fatalf("%v: %s", err, out)
	}
	dump := "BEGIN;\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;\nLOCK TABLE public.orders IN ACCESS SHARE MODE;\nCOPY public.orders (customer_id, id, item) TO stdout;\nROLLBACK;\n"
	for _, args := range [][]string{{"-c", `\copy orders to stdout`}, {"-f", "-"}} {
		out, err := r.program(t, dump, "psql", append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1"}, args...)...)
		if err != nil || sorted(out) != sorted(rowsToCopy(0, 500)) {
			t.Fatalf("%v: %v: %.300s", args, err, out)
		}
	}
	r.busy(t, 0)
}
