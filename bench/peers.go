package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"rangefinder/internal/program"
)

// peer makes a target of a program that needs a few files and its arguments. Files are named relative to its folder.
func (s *scenario) peer(t *target, files map[string]string, argv ...string) (*target, error) {
	var err error
	t.start, err = s.launcher(t, t.name, t.doors[:], files, argv...)
	return t, err
}

// launcher writes a program's files, and returns what starts it and waits until it listens at the doors.
func (s *scenario) launcher(t *target, folder string, doors []door, files map[string]string, argv ...string) (func(context.Context) ([]*program.Process, error), error) {
	dir, err := s.folder(folder)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := s.give(dir); err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]*program.Process, error) {
		p, err := program.Launch(s.farm, dir, s.owner, nil, argv...)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		for _, d := range doors {
			if err := p.Listening(ctx, d.addr); err != nil {
				p.Stop(t.signal)
				return nil, err
			}
		}
		return []*program.Process{p}, nil
	}, nil
}

var bouncerVersion = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// pgbouncer pools by transaction. It gets the verifier of the password, not the password, so that it need not derive one from
// the other at each login; nor does the node. Neither logs connections. Each server is a database of its own to it.
func (s *scenario) pgbouncer(context.Context) (*target, error) {
	binary, err := installed("pgbouncer")
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(binary, "--version").Output()
	m := bouncerVersion.FindSubmatch(out)
	if err != nil || m == nil {
		return nil, fmt.Errorf("pgbouncer --version: %w: %q", err, out)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	ports, err := program.FreePorts(1)
	if err != nil {
		return nil, err
	}
	addr := program.Loopback(ports[0])
	t := &target{name: pgbouncer, doors: s.doors(addr, addr), signal: syscall.SIGTERM}
	config := "[databases]\n"
	for i := range t.doors {
		t.doors[i].database = fmt.Sprintf("half_%d", i+1)
		config += fmt.Sprintf("%s = host=127.0.0.1 port=%d dbname=%s\n", t.doors[i].database, s.servers[i].Port(), plainDatabase)
	}
	t.idle = t.doors[:]
	config += fmt.Sprintf(`[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = users.txt
pool_mode = transaction
default_pool_size = %d
max_client_conn = %d
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
`, ports[0], poolSize, idleClients+1000)
	if t.prepared = major > 1 || minor >= 21; t.prepared {
		config += "max_prepared_statements = 200\n"
	}
	users := fmt.Sprintf("%q %q\n", benchUser, s.secret)
	return s.peer(t, map[string]string{"pgbouncer.ini": config, "users.txt": users}, binary, "pgbouncer.ini")
}

// haproxy relays bytes and pools nothing. As each of its clients has a PostgreSQL process of its own, idle ones get a
// listener that takes logins and does nothing.
func (s *scenario) haproxy(ctx context.Context) (*target, error) {
	binary, err := installed("haproxy")
	if err != nil {
		return nil, err
	}
	ports, err := program.FreePorts(3)
	if err != nil {
		return nil, err
	}
	sink, err := greeter(ctx)
	if err != nil {
		return nil, err
	}
	t := &target{name: haproxy, doors: s.doors(program.Loopback(ports[0]), program.Loopback(ports[1])), prepared: true, signal: syscall.SIGTERM}
	t.idle = []door{{addr: program.Loopback(ports[2])}}
	return s.peer(t, map[string]string{"haproxy.cfg": fmt.Sprintf(`global
  maxconn %d
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen half_1
  bind %s
  server postgres %s
listen half_2
  bind %s
  server postgres %s
listen idle
  bind %s
  server idle %s
`, idleClients+1000, t.doors[0].addr, s.servers[0].Addr(), t.doors[1].addr, s.servers[1].Addr(), t.idle[0].addr, sink)}, binary, "-db", "-f", "haproxy.cfg")
}

// pgpool has a process for each client, and pools by session. One Pgpool is one copy of the data to its clients, so there is one for
// each server.
func (s *scenario) pgpool(context.Context) (*target, error) {
	binary, err := installed("pgpool")
	if err != nil {
		return nil, err
	}
	ports, err := program.FreePorts(4)
	if err != nil {
		return nil, err
	}
	t := &target{name: pgpool, doors: s.doors(program.Loopback(ports[0]), program.Loopback(ports[1])), prepared: true, signal: syscall.SIGINT}
	var starts [2]func(context.Context) ([]*program.Process, error)
	for i := range starts {
		starts[i], err = s.launcher(t, fmt.Sprintf("pgpool_%d", i+1), t.doors[i:i+1], map[string]string{"pcp.conf": "", "pool_hba.conf": "", "pgpool.conf": fmt.Sprintf(`
backend_clustering_mode = 'raw'
listen_addresses = '127.0.0.1'
port = %d
socket_dir = '.'
pcp_listen_addresses = '127.0.0.1'
pcp_port = %d
pcp_socket_dir = '.'
backend_hostname0 = '127.0.0.1'
backend_port0 = %d
backend_weight0 = 1
enable_pool_hba = off
num_init_children = %d
max_pool = 1
child_max_connections = 0
pid_file_name = 'pgpool.pid'
logdir = '.'
health_check_period = 0
sr_check_period = 0
`, ports[i], ports[2+i], s.servers[i].Port(), maxClients/2+8)},
			binary, "-n", "-f", "pgpool.conf", "-F", "pcp.conf", "-a", "pool_hba.conf")
		if err != nil {
			return nil, err
		}
	}
	t.start = func(ctx context.Context) ([]*program.Process, error) {
		first, err := starts[0](ctx)
		if err != nil {
			return nil, err
		}
		second, err := starts[1](ctx)
		if err != nil {
			first[0].Stop(t.signal)
			return nil, err
		}
		return append(first, second...), nil
	}
	return t, nil
}

// greeter logs everybody in who says anything, and then waits for them to leave.
func greeter(ctx context.Context) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	// AuthenticationOk, BackendKeyData, ReadyForQuery.
	const welcome = "R\x00\x00\x00\x08\x00\x00\x00\x00" + "K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02" + "Z\x00\x00\x00\x05I"
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 1024)); err == nil {
					io.WriteString(c, welcome)
					io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	return ln.Addr().String(), nil
}
