package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
)

// The targets' names in the results.
const (
	direct      = "direct"
	rangefinder = "rangefinder"
	pgbouncer   = "pgbouncer"
	haproxy     = "haproxy"
	pgpool      = "pgpool"
)

// poolSize is each pooler's number of connections to one server: none of them ever waits for one.
const poolSize = maxClients

// target is what pgbench connects to.
type target struct {
	name     string
	addr     string
	idle     string // where idle clients connect to, if they can be had in thousands; "" if not
	admin    string // the node's HTTP port
	prepared bool   // it can do named prepared statements of the protocol
	signal   syscall.Signal
	start    func(ctx context.Context) (*process, error) // nil: PostgreSQL itself
	process  *process
}

// pids are the target's processes; none if there is nothing beside PostgreSQL.
func (t *target) pids() []int {
	if t.process == nil {
		return nil
	}
	return t.process.tree()
}

// add starts a target and puts it among the others.
func (s *scenario) add(ctx context.Context, t *target, err error) (*target, error) {
	if err != nil {
		return nil, err
	}
	if t.start != nil {
		if t.process, err = t.start(ctx); err != nil {
			return nil, err
		}
	}
	s.targets = append(s.targets, t)
	return t, nil
}

// restart gives a target fresh processes: what an earlier load has left in memory would hide what the next one takes.
func (t *target) restart(ctx context.Context) (err error) {
	t.process.stop(t.signal)
	t.process = nil
	t.process, err = t.start(ctx)
	return err
}

func (s *scenario) target(name string) *target {
	for _, t := range s.targets {
		if t.name == name {
			return t
		}
	}
	return nil
}

func (s *scenario) direct() *target {
	return &target{name: direct, addr: s.whole.Addr(), prepared: true}
}

// node builds the router and starts it the way an operator would, with a keyspace over both shards.
func (s *scenario) node(ctx context.Context) (*target, error) {
	dir, err := s.folder("node")
	if err != nil {
		return nil, err
	}
	binary, err := build(ctx, dir)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
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
[[hba]]
address = "127.0.0.1"
method = "trust"
[pool]
size = %d
[limits]
clients = %d
`, filepath.Join(dir, "data"), ports[0], ports[1], ports[2], benchUser, benchDatabase, benchUser, poolSize, idleClients+1000)
	for _, half := range s.halves {
		config += fmt.Sprintf("[[backends]]\nname = \"%[1]s-here\"\nshard = \"%[1]s\"\naddress = %[2]q\n", half.Name(), half.Addr())
	}
	file := filepath.Join(dir, "node.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	t := &target{name: rangefinder, addr: loopback(ports[0]), admin: "http://" + loopback(ports[2]), prepared: true, signal: syscall.SIGTERM}
	t.idle = t.addr
	env := []string{"BENCH_PASSWORD=" + benchPassword, "RANGEFINDER_ADMIN=" + t.admin}
	made := false
	t.start = func(ctx context.Context) (*process, error) {
		p, err := launch(s.farm, dir, 0, 0, env, binary, "start", "--config", file)
		if err != nil {
			return nil, err
		}
		if err = s.ready(ctx, p, t, made, env, binary); err != nil {
			p.stop(t.signal)
			return nil, err
		}
		made = true
		return p, nil
	}
	return t, nil
}

// ready waits until the node is, makes the keyspace unless it was made before, and waits until it routes by it.
func (s *scenario) ready(ctx context.Context, p *process, t *target, made bool, env []string, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.listening(ctx, t.addr); err != nil {
		return err
	}
	if err := pgtest.Wait(ctx, 50*time.Millisecond, func() error { return get(ctx, t.admin+"/readyz") }); err != nil {
		return fmt.Errorf("the node does not become ready: %w", err)
	}
	if !made {
		err := makeKeyspace(ctx, binary, env, "pgbench_accounts", "aid")
		if err != nil {
			return err
		}
	}
	return pgtest.Wait(ctx, 50*time.Millisecond, func() error { return s.answers(ctx, t.addr) })
}

// answers connects and checks some rows: of two shards, each has some of them.
func (s *scenario) answers(ctx context.Context, addr string) error {
	c, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for aid := 1; aid <= 20; aid++ {
		if err := checkRow(ctx, c, aid); err != nil {
			return err
		}
	}
	return nil
}

// installed says where a program is that Debian may have put where only root looks.
func installed(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", program)
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
		return path, nil
	}
	return "", fmt.Errorf("%w: %s", errMissing, program)
}

var errMissing = errors.New("not installed")

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
