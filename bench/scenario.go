package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
)

const (
	benchUser     = "bench"
	benchPassword = "bench"
	benchDatabase = "bench"
)

// endpoint is where pgbench connects to.
type endpoint struct {
	name string
	addr string
}

// scenario is one PostgreSQL server and one node in front of it.
type scenario struct {
	farm   *pgtest.Farm
	dir    string
	node   *process
	direct endpoint
	routed endpoint
}

func newScenario(ctx context.Context, farm *pgtest.Farm, scale int) (s *scenario, err error) {
	s = &scenario{farm: farm}
	if s.dir, err = os.MkdirTemp("", "rangefinder-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	pg, err := farm.Primary(ctx, pgtest.Options{Params: map[string]string{"shared_buffers": "256MB", "max_connections": "200"}})
	if err != nil {
		return nil, err
	}
	s.direct = endpoint{"PostgreSQL", pg.Addr()}
	if err = pg.CreateUser(ctx, benchUser, benchPassword, ""); err != nil {
		return nil, err
	}
	if err = pg.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser); err != nil {
		return nil, err
	}
	if out, e := s.command(ctx, s.direct, "-i", "-q", "-s", strconv.Itoa(scale)).CombinedOutput(); e != nil {
		return nil, fmt.Errorf("pgbench -i: %w: %s", e, out)
	}
	if err = s.startNode(ctx, pg.Addr()); err != nil {
		return nil, err
	}
	return s, nil
}

// startNode builds the router and starts it the way an operator would.
func (s *scenario) startNode(ctx context.Context, backend string) error {
	binary := filepath.Join(s.dir, "rangefinder")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "rangefinder").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`region = "here"
data_dir = %q
[ports]
postgres = %d
cluster = %d
http = %d
[log]
level = "warn"
[probe]
user = %q
password_env = "BENCH_PASSWORD"
[[databases]]
name = %q
shard = "shard_1"
[[users]]
name = %q
password_env = "BENCH_PASSWORD"
[[backends]]
name = "shard_1-here"
shard = "shard_1"
address = %q
[pool]
size = 64
`, filepath.Join(s.dir, "data"), ports[0], ports[1], ports[2], benchUser, benchDatabase, benchUser, backend)
	file := filepath.Join(s.dir, "node.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	env := append(os.Environ(), "BENCH_PASSWORD="+benchPassword, fmt.Sprintf("RANGEFINDER_ADMIN=http://127.0.0.1:%d", ports[2]))
	cmd := exec.Command(binary, "start", "--config", file)
	cmd.Env, cmd.Stderr = env, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.node = &process{cmd: cmd}
	s.routed = endpoint{"the node", fmt.Sprintf("127.0.0.1:%d", ports[0])}

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ready := fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[2])
	if err := pgtest.Wait(ctx, 50*time.Millisecond, func() error { return get(ctx, ready) }); err != nil {
		return fmt.Errorf("the node does not become ready: %w", err)
	}
	return pgtest.Wait(ctx, 200*time.Millisecond, func() error {
		keyspace := exec.CommandContext(ctx, binary, "keyspace", "create", benchDatabase+".pgbench_accounts",
			"--key", "aid", "--type", "int", "--method", "hash", "--shards", "shard_1")
		keyspace.Env = env
		if out, err := keyspace.CombinedOutput(); err != nil {
			return fmt.Errorf("keyspace create: %w: %s", err, out)
		}
		return nil
	})
}

func (s *scenario) close() {
	if s.node != nil {
		s.node.stop()
	}
	os.RemoveAll(s.dir)
}

func (s *scenario) command(ctx context.Context, e endpoint, args ...string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(e.addr)
	cmd := exec.CommandContext(ctx, filepath.Join(s.farm.Bin(), "pgbench"), append(args, "-h", host, "-p", port, "-U", benchUser, benchDatabase)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+benchPassword)
	return cmd
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// pgbench runs the select-only script and returns transactions a second. A failed or aborted transaction is an error.
func (s *scenario) pgbench(ctx context.Context, e endpoint, mode string, clients, seconds int) (float64, error) {
	out, err := s.command(ctx, e, "-n", "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(seconds)).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if bytes.Contains(out, []byte("aborted")) || !bytes.Contains(out, []byte("number of failed transactions: 0")) {
		return 0, fmt.Errorf("transactions failed: %s", out)
	}
	m := tpsLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no tps line in: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// process is a node that runs as a process of its own.
type process struct{ cmd *exec.Cmd }

// rss returns the resident memory in bytes.
func (p *process) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	timer.Stop()
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // all at the end: no port twice
		out = append(out, ln.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
