package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

// router is one node of the cluster: a process of its own.
type router struct {
	region  region
	host    string
	ports   ports
	dir     string // a folder of its own, with its log
	process *program.Process
}

func (r *router) log() string { return filepath.Join(r.dir, "log") }

type ports struct{ postgres, cluster, http int }

func (r *router) addr(port int) string { return fmt.Sprintf("%s:%d", r.host, port) }

func (r *router) url(path string) string { return "http://" + r.addr(r.ports.http) + path }

// choosePorts takes the default ports on the node's own address, or free ones if any of those is taken.
func choosePorts(host string) (ports, error) {
	p := ports{6432, 7946, 8080}
	if portIfFree(host, p.postgres) != 0 && portIfFree(host, p.cluster) != 0 && portIfFree(host, p.http) != 0 {
		return p, nil
	}
	for _, port := range []*int{&p.postgres, &p.cluster, &p.http} {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return p, err
		}
		defer func() { _ = ln.Close() }() // all are held until all are chosen
		*port = ln.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// startNodes starts the three nodes; the first makes the cluster, the others join it.
func (d *demo) startNodes(ctx context.Context) error {
	d.report.step("Start three nodes: iad makes the cluster, fra and syd join it")
	d.report.say("delays: iad-fra %v, iad-syd %v, fra-syd %v", rtt(regions[0], regions[1]), rtt(regions[0], regions[2]), rtt(regions[1], regions[2]))
	key, err := exec.CommandContext(ctx, d.binary, "key").Output()
	if err != nil {
		return fmt.Errorf("%s key: %w", d.binary, err)
	}
	for name, secret := range map[string]string{"cluster.key": string(key), "app.password": d.appPassword, "node.password": d.nodePassword} {
		if err := os.WriteFile(d.file(name), []byte(secret), 0o600); err != nil {
			return err
		}
	}
	for _, region := range regions {
		host := d.net.node(region)
		p, err := choosePorts(host)
		if err != nil {
			return err
		}
		r := &router{region: region, host: host, ports: p, dir: d.file(region.name)}
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			return err
		}
		d.routers = append(d.routers, r)
		if err := os.WriteFile(d.file(region.name+".toml"), []byte(d.config(r)), 0o600); err != nil {
			return err
		}
		args := []string{"start", "--config", d.file(region.name + ".toml")}
		if r != d.routers[0] {
			args = append(args, "--join", d.routers[0].addr(d.routers[0].ports.cluster))
		}
		if r.process, err = program.Launch(d.farm, r.dir, program.User{}, nil, append([]string{d.binary}, args...)...); err != nil {
			return err
		}
		d.report.say("%s", strings.Join(append([]string{"rangefinder"}, args...), " "))
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	for _, r := range d.routers {
		d.report.check(true, "node %s: Postgres %s, cluster %s, %s", r.region.name, r.addr(r.ports.postgres), r.addr(r.ports.cluster), r.url("/debug"))
	}
	return nil
}

// config is a node's configuration file. But for region, addresses and backends it is the same on all nodes.
func (d *demo) config(r *router) string {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f("region = %q", r.region.name)
	f("name = %q", r.region.name+"-1")
	f("bind = %q", r.host)
	f("data_dir = %q", filepath.Join(r.dir, "data"))
	f("cluster_key_file = %q", d.file("cluster.key"))
	f("drain_timeout = \"2s\"")
	f("\n[ports]\npostgres = %d\ncluster = %d\nhttp = %d", r.ports.postgres, r.ports.cluster, r.ports.http)
	f("\n[probe]\nuser = %q\npassword_file = %q", nodeUser, d.file("node.password"))
	f("\n[[databases]]\nname = %q\nshard = %q", database, shardName(1))
	f("\n[[users]]\nname = %q\npassword_file = %q", appUser, d.file("app.password"))
	for shard := 1; shard <= shards; shard++ {
		be := d.backend(shard, r.region)
		f("\n[[backends]]\nname = %q\nshard = %q\naddress = %q", be.name, shardName(shard), be.Addr())
	}
	for _, rule := range d.net.delays(r.region) {
		f("\n[[lab]]\nnet = %q\nrtt = %q", rule.Net, rule.RTT)
	}
	return b.String()
}

// alive returns an error with the end of the log if the node has ended.
func (r *router) alive() error {
	select {
	case <-r.process.Done():
		return fmt.Errorf("node %s has ended; its log ends:\n%s", r.region.name, tail(r.log(), 15))
	default:
		return nil
	}
}

// ready waits until every node serves, and sees all nodes, all shards and all backends.
func (d *demo) ready(ctx context.Context) error {
	return d.until(ctx, 60*time.Second, func() error {
		for _, r := range d.routers {
			var ok string
			if err := get(ctx, r.url("/readyz"), &ok); err != nil {
				return fmt.Errorf("node %s: %w", r.region.name, err)
			}
			var v struct {
				Members  []struct{ Name string }
				Shards   []struct{ Name string }
				Backends []struct {
					Name  string
					ForUs string `json:"for_us"`
				}
			}
			if err := get(ctx, r.url("/debug/cluster"), &v); err != nil {
				return fmt.Errorf("node %s: %w", r.region.name, err)
			}
			up := 0
			for _, b := range v.Backends {
				if b.ForUs == "up" {
					up++
				}
			}
			if len(v.Members) != len(regions) || len(v.Shards) != shards || up != len(d.backends) {
				return fmt.Errorf("node %s sees %d of %d nodes, %d of %d shards recorded, %d of %d backends up",
					r.region.name, len(v.Members), len(regions), len(v.Shards), shards, up, len(d.backends))
			}
		}
		return nil
	})
}

// route is a node's answer to where a statement would go.
type route struct {
	Shard      string
	Candidates []struct {
		Backend string
		Addr    string
		Region  string
		Role    string
		Reason  string
	}
	Error *struct{ Message string }
}

// route asks a node where a statement would go.
func (d *demo) route(ctx context.Context, r *router, sql string) (a route, err error) {
	err = get(ctx, r.url("/debug/route?"+url.Values{"sql": {sql}, "database": {database}, "user": {appUser}}.Encode()), &a)
	if err == nil && a.Error != nil {
		err = errors.New(a.Error.Message)
	}
	if err == nil && len(a.Candidates) == 0 {
		err = errors.New("no candidate")
	}
	if err != nil {
		err = fmt.Errorf("node %s, route of %q: %w", r.region.name, sql, err)
	}
	return a, err
}

// until polls a condition, and gives up early when a node has ended.
func (d *demo) until(ctx context.Context, timeout time.Duration, condition func() error) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dead error
	err := pgtest.Wait(bounded, 50*time.Millisecond, func() error {
		for _, r := range d.routers {
			if dead = r.alive(); dead != nil {
				return nil
			}
		}
		return condition()
	})
	switch {
	case dead != nil:
		return dead
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("not within %v: %w", timeout, err)
	}
	return nil
}

// get fetches a URL into a string or, decoded from JSON, into anything else.
func get(ctx context.Context, address string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	if text, ok := into.(*string); ok {
		*text = string(body)
		return nil
	}
	return json.Unmarshal(body, into)
}

// run runs the command line, shown as a person would type it, and returns what it printed.
func (d *demo) run(ctx context.Context, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.ContainsAny(a, " *$'\"") {
			shown[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	d.report.say("rangefinder %s", strings.Join(shown, " "))
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "RANGEFINDER_ADMIN="+d.routers[0].url(""))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("rangefinder %s: %w:\n%s", args[0], err, bytes.TrimSpace(out))
	}
	d.report.say("%s", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n   "))
	return nil
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
