package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
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

// door is where clients connect to.
type door struct {
	addr     string
	database string
	from, to int // rows that can be asked for there; both 0: none
}

// target is what pgbench connects to.
type target struct {
	name      string
	doors     [2]door // half of the clients come to each: behind each is one server, or, of the node, both are behind either
	idle      []door  // where idle clients connect to, if they can be had in thousands
	admin     string  // the node's HTTP port
	prepared  bool    // it can do named prepared statements of the protocol
	signal    syscall.Signal
	start     func(ctx context.Context) ([]*program.Process, error) // nil: PostgreSQL itself
	processes []*program.Process                                    // none: PostgreSQL itself
}

// pids are the target's processes and all that descend from them; none if there is nothing beside PostgreSQL.
func (t *target) pids() (pids []int) {
	for _, p := range t.processes {
		pids = append(pids, tree(p.PID())...)
	}
	return pids
}

func (t *target) stop() {
	for _, p := range t.processes {
		p.Stop(t.signal)
	}
	t.processes = nil
}

// add starts a target and puts it among the others.
func (s *scenario) add(ctx context.Context, t *target, err error) (*target, error) {
	if err != nil {
		return nil, err
	}
	if t.start != nil {
		if t.processes, err = t.start(ctx); err != nil {
			return nil, err
		}
	}
	s.targets = append(s.targets, t)
	return t, nil
}

// restart gives a target fresh processes: what an earlier load has left in memory would hide what the next one takes.
func (t *target) restart(ctx context.Context) (err error) {
	t.stop()
	t.processes, err = t.start(ctx)
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
	return &target{name: direct, doors: s.doors(s.servers[0].Addr(), s.servers[1].Addr()), prepared: true}
}

// doors are those of a target that has an address for each server.
func (s *scenario) doors(addrs ...string) (doors [2]door) {
	for i := range doors {
		from, to := half(i)
		doors[i] = door{addrs[i], plainDatabase, from, to}
	}
	return doors
}

// node builds the router and starts it the way an operator would, with a keyspace over both shards.
func (s *scenario) node(ctx context.Context) (*target, error) {
	dir, err := s.folder("node")
	if err != nil {
		return nil, err
	}
	node, err := program.PrepareNode(ctx, program.NodeConfig{
		Dir: dir, User: benchUser, Password: benchPassword, Database: benchDatabase, Servers: s.servers[:],
		More: fmt.Sprintf(`[log]
level = "warn"
[[hba]]
address = "127.0.0.1"
method = "trust"
[pool]
size = %d
[limits]
clients = %d
`, poolSize, idleClients+1000),
	})
	if err != nil {
		return nil, err
	}
	all := door{node.Addr, benchDatabase, 1, tableRows}
	t := &target{name: rangefinder, doors: [2]door{all, all}, idle: []door{all}, admin: node.Admin, prepared: true, signal: syscall.SIGTERM}
	made := false
	t.start = func(ctx context.Context) ([]*program.Process, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		p, err := node.Start(ctx, s.farm)
		if err != nil {
			return nil, err
		}
		if !made {
			err = makeKeyspace(ctx, node, "pgbench_accounts", "aid")
		}
		if err == nil {
			err = pgtest.Wait(ctx, 50*time.Millisecond, func() error { return t.answers(ctx) }) // it routes by the keyspace
		}
		if err != nil {
			p.Stop(t.signal)
			return nil, err
		}
		made = true
		return []*program.Process{p}, nil
	}
	return t, nil
}

// answers connects to both doors and checks some rows: of two shards, each has some of them.
func (t *target) answers(ctx context.Context) error {
	for _, d := range t.doors {
		c, err := connect(ctx, d)
		if err != nil {
			return err
		}
		for i := 0; i < 20 && err == nil; i++ {
			err = checkRow(ctx, c, d.from+i)
		}
		c.Close(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// installed says where a program is that Debian may have put where only root looks.
func installed(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", name)
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
		return path, nil
	}
	return "", fmt.Errorf("%w: %s", errMissing, name)
}

var errMissing = errors.New("not installed")
