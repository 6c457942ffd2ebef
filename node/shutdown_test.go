package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestShutdownWaitsForClients: nobody is accepted any more, and the node is to stop when the last client has left by itself.
func TestShutdownWaitsForClients(t *testing.T) {
	n := startConsole(t)
	last := n.connect(t)
	if out, err := n.consolePsql(t, "ops", opsPassword, "SHUTDOWN WAIT_FOR_CLIENTS;"); err != nil || out != "SHUTDOWN\n" {
		t.Fatalf("%v: %s", err, out)
	}
	if conn, err := net.Dial("tcp", n.pgLn.Addr().String()); err == nil {
		conn.Close()
		t.Error("new clients are still accepted")
	}
	if status, body := n.get(t, "/readyz"); status != 503 || body != "not ready: waiting for the last client to leave\n" {
		t.Errorf("readyz: %d %q", status, body)
	}
	if _, err := last.Exec(t.Context(), "INSERT INTO t (id) VALUES (1)"); err != nil {
		t.Errorf("whoever is there: %v", err)
	}
	select {
	case <-n.Retired():
		t.Fatal("it stops under a client")
	default:
	}
	if err := last.Close(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-n.Retired():
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop after its last client")
	}
}

// TestShutdown of a process, from psql: as SIGTERM does it, and the transaction that is open may finish.
func TestShutdown(t *testing.T) {
	f, binary := newFile(t), buildBinary(t)
	p := startProcess(t, binary, nil, "-c", f.file, "--drain-timeout", "30s")
	addr := p.postgres(t)
	conn := connectWhenReady(t, addr)
	tx, err := conn.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "INSERT INTO t VALUES (1)")
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := psqlAt(t, addr, "ops", opsPassword, "SHOW STATE;\nSHUTDOWN;")
	var said []string // without the notice that the node is stopping: where that stands among the answers is psql's affair
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "FATAL:") && !strings.HasPrefix(line, "HINT:") {
			said = append(said, line)
		}
	}
	if err != nil || !strings.Contains(strings.Join(said, ""), "(3 rows)\nSHUTDOWN\n") {
		t.Fatalf("%v: %s", err, out)
	}
	p.says(t, "msg=draining")
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("commit while draining: %v", err)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestDrainUnderPgbench: pgbench runs through two nodes, and one of them gets SIGTERM. Through the other no transaction fails; through
// the stopped one clients are told so, and nothing that was acknowledged is lost.
func TestDrainUnderPgbench(t *testing.T) {
	f, binary := newFile(t), buildBinary(t)
	ctx := t.Context()
	if err := f.primary.ExecIn(ctx, "app", "CREATE TABLE acked (id bigserial PRIMARY KEY, node text); GRANT ALL ON acked, acked_id_seq TO app"); err != nil {
		t.Fatal(err)
	}
	first := startProcess(t, binary, nil, "-c", f.file, "--drain-timeout", "30s")
	cluster := first.port(t, "cluster_port=")
	second := startProcess(t, binary, nil, "-c", f.file, "--name", "iad-2", "--data-dir", filepath.Join(t.TempDir(), "second"), "--join", cluster, "--drain-timeout", "30s")
	script := filepath.Join(t.TempDir(), "insert.sql")
	if err := os.WriteFile(script, []byte("BEGIN;\nINSERT INTO acked (node) VALUES (:node);\nSELECT count(*) FROM t;\nCOMMIT;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pgbench := func(ctx context.Context, p *process, node int) (string, error) {
		host, port, _ := net.SplitHostPort(p.postgres(t))
		cmd := exec.CommandContext(ctx, filepath.Join(pgtest.Shared(t).Bin(), "pgbench"), "-h", host, "-p", port, "-U", "app", "-n", "-f", script,
			"-D", fmt.Sprintf("node=%d", node), "-c", "4", "-j", "2", "-T", "12", "app")
		cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	connectWhenReady(t, first.postgres(t))
	connectWhenReady(t, second.postgres(t))
	type result struct {
		out string
		err error
	}
	through := [2]chan result{make(chan result, 1), make(chan result, 1)}
	for i, p := range []*process{first, second} {
		go func() {
			out, err := pgbench(ctx, p, i+1)
			through[i] <- result{out, err}
		}()
	}
	rows := func(node int) (n int) {
		conn, err := f.primary.ConnTo(ctx, "app", "")
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT count(*) FROM acked WHERE node = $1", fmt.Sprint(node)).Scan(&n)
			conn.Close(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if a, b := rows(1), rows(2); a < 50 || b < 50 {
			return fmt.Errorf("%d and %d transactions yet", a, b)
		}
		return nil
	})
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := second.exit(t); code != 0 {
		t.Errorf("the stopped node: exit %d", code)
	}
	stopped, kept := <-through[1], <-through[0]
	if !strings.Contains(stopped.out, "the node is stopping") {
		t.Errorf("clients of the stopped node are not told so:\n%s", stopped.out)
	}
	if kept.err != nil || !strings.Contains(kept.out, "number of failed transactions: 0 (0.000%)") {
		t.Errorf("through the other node: %v\n%s", kept.err, kept.out)
	}
	for i, r := range []result{kept, stopped} {
		m := regexp.MustCompile(`number of transactions actually processed: (\d+)`).FindStringSubmatch(r.out)
		if m == nil {
			t.Fatalf("no count in\n%s", r.out)
		}
		if got := rows(i + 1); fmt.Sprint(got) != m[1] {
			t.Errorf("node %d: pgbench counts %s transactions, the table %d", i+1, m[1], got)
		}
		t.Logf("node %d: %s transactions, all there", i+1, m[1])
	}
	if code := func() int { _ = first.cmd.Process.Signal(syscall.SIGTERM); return first.exit(t) }(); code != 0 {
		t.Errorf("the other node: exit %d", code)
	}
}
