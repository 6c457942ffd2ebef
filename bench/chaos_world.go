package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
	"rangefinder/rib"
)

const (
	chaosProber    = "prober" // whom nodes look at servers as; clients are benchUser
	nodesPerRegion = 2
	serverHost     = 1  // address of a region's servers
	firstNodeHost  = 11 // of its first node
	chaosPool      = 20 // a node's connections to one backend
)

var (
	chaosRegions = []string{"fra", "iad", "syd"}
	chaosShards  = []string{"shard_1", "shard_2"}
	chaosTables  = []string{"ledger", "registers", "accounts"} // each with a keyspace by key
)

// chaosWorld is a cluster of nodes and PostgreSQL servers in three regions.
type chaosWorld struct {
	// constant
	net     *chaosNet
	farms   []*pgtest.Farm // by region
	shards  []*chaosShard
	nodes   []*chaosNode
	binary  string
	preload string // what has a server go by its clock, in its environment
}

// chaosNode is a node, alive or not.
type chaosNode struct {
	// constant
	world  *chaosWorld
	region *region
	name   string
	addr   string // of clients
	admin  string // URL, within its region
	dir    string
	farm   *pgtest.Farm
	http   *http.Client
	clock  *chaosClock

	// guarded by mu
	mu      sync.Mutex
	process *program.Process // nil: it was killed
}

// newChaosWorld starts everything. What it has started it returns with an error too.
func newChaosWorld(ctx context.Context, keys int, race bool) (w *chaosWorld, err error) {
	w = new(chaosWorld)
	hosts := []int{serverHost}
	for i := range nodesPerRegion {
		hosts = append(hosts, firstNodeHost+i)
	}
	if w.net, err = newChaosNet(ctx, chaosRegions, hosts); err != nil {
		return w, err
	}
	for _, r := range w.net.regions {
		farm, err := pgtest.OpenIn(ctx, "", r)
		if err != nil {
			return w, err
		}
		w.farms = append(w.farms, farm)
	}
	if w.preload, err = clockLibrary(ctx, w.farms[0].Dir()); err != nil {
		return w, err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(chaosShards)+1)
	for i, r := range rib.EvenRanges(chaosShards) {
		s := &chaosShard{world: w, name: r.Shard, primary: i}
		w.shards = append(w.shards, s)
		wg.Go(func() { errs[i] = s.start(ctx, 5441+i, r, keys) })
	}
	wg.Go(func() {
		overlay, err := timeOverlay(ctx, w.farms[0].Dir())
		flags := []string{overlay}
		if race {
			flags = append(flags, "-race")
		}
		if err == nil {
			w.binary, err = program.Build(ctx, w.farms[0].Dir(), flags...)
		}
		errs[len(chaosShards)] = err
	})
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return w, err
	}
	return w, w.startNodes(ctx)
}

func (w *chaosWorld) close() (err error) {
	for _, n := range w.nodes {
		err = errors.Join(err, n.kill())
	}
	for _, f := range w.farms {
		err = errors.Join(err, f.Close())
	}
	for _, c := range w.clocks() {
		err = errors.Join(err, c.close())
	}
	if w.net != nil {
		err = errors.Join(err, w.net.close())
	}
	return err
}

func (w *chaosWorld) startNodes(ctx context.Context) error {
	key, err := exec.CommandContext(ctx, w.binary, "key").Output()
	if err != nil {
		return fmt.Errorf("rangefinder key: %w", err)
	}
	for i := range nodesPerRegion {
		for j, r := range w.net.regions {
			n := &chaosNode{
				world: w, region: r, name: fmt.Sprintf("%s-%d", r.name, i+1), addr: r.host(firstNodeHost+i, 6432), admin: fmt.Sprintf("http://127.0.0.1:%d", 8081+i), farm: w.farms[j],
				http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: r.Dial, DisableKeepAlives: true}},
			}
			if n.clock, err = newChaosClock(n.farm.Dir(), n.name, n.says); err != nil {
				return err
			}
			n.dir = filepath.Join(n.farm.Dir(), n.name)
			if err := os.Mkdir(n.dir, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(n.dir, "cluster.key"), key, 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(n.dir, "node.toml"), []byte(w.config(n, i, j)), 0o600); err != nil {
				return err
			}
			w.nodes = append(w.nodes, n)
			if err := n.start(); err != nil {
				return err
			}
			if len(w.nodes) > 1 {
				continue
			}
			if err := pgtest.Wait(ctx, 20*time.Millisecond, func() error { return n.answers(ctx) }); err != nil { // it makes the cluster
				return err
			}
		}
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := pgtest.Wait(ready, 100*time.Millisecond, func() error { return w.whole(ready, false) }); err != nil {
		return fmt.Errorf("the cluster does not become whole: %w", err)
	}
	for _, table := range chaosTables {
		err := pgtest.Wait(ready, 200*time.Millisecond, func() error {
			out, err := w.nodes[0].run(ready, "keyspace", "create", benchDatabase+"."+table, "--key", "key", "--type", "int", "--method", "hash", "--shards", strings.Join(chaosShards, ","))
			if err != nil && !strings.Contains(out, "already") {
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, c := range w.clocks() {
		if err := c.try(ctx); err != nil {
			return err
		}
	}
	return pgtest.Wait(ready, 100*time.Millisecond, func() error { return w.whole(ready, true) })
}

// clocks are those of all nodes and servers.
func (w *chaosWorld) clocks() (all []*chaosClock) {
	for _, n := range w.nodes {
		all = append(all, n.clock)
	}
	for _, s := range w.shards {
		all = append(all, s.clocks...)
	}
	return all
}

// config is the configuration of the i-th node of the j-th region. Only first nodes reach other regions by plain sockets: the others have
// delays injected, so that both ways of carrying bytes are tried.
func (w *chaosWorld) config(n *chaosNode, i, j int) string {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f("region = %q\nname = %q\nbind = %q\ndata_dir = %q\ncluster_key_file = %q", n.region.name, n.name, n.region.ip(firstNodeHost+i), filepath.Join(n.dir, "data"), filepath.Join(n.dir, "cluster.key"))
	if len(w.nodes) > 0 {
		var join []string
		for _, r := range w.net.regions {
			if h := r.host(firstNodeHost, 7946); r != n.region || i > 0 {
				join = append(join, fmt.Sprintf("%q", h))
			}
		}
		f("join = [%s]", strings.Join(join, ", "))
	}
	f("[ports]\npostgres = 6432\ncluster = 7946\nhttp = %d", 8081+i)
	f("[probe]\nuser = %q\npassword_env = \"PROBER_PASSWORD\"", chaosProber)
	f("[pool]\nsize = %d", chaosPool)
	f("[[databases]]\nname = %q\nshard = %q\nread_consistency = \"session\"\ncross_shard_writes = \"2pc\"", benchDatabase, chaosShards[0])
	f("[[users]]\nname = %q\npassword_env = \"BENCH_PASSWORD\"", benchUser)
	for _, s := range w.shards {
		f("[[backends]]\nname = %q\nshard = %q\naddress = %q", s.servers[j].Name(), s.name, s.servers[j].Addr())
	}
	for _, r := range w.net.regions {
		if i > 0 && r != n.region {
			f("[[lab]]\nnet = %q\nrtt = \"%dms\"", r.ip(0)+"/24", 4*(n.region.number+r.number))
		}
	}
	return b.String()
}

func (n *chaosNode) start() error {
	p, err := program.Launch(n.farm, n.dir, program.User{}, []string{"PROBER_PASSWORD=" + benchPassword, "BENCH_PASSWORD=" + benchPassword, "GORACE=halt_on_error=1", n.clock.env()},
		n.world.binary, "start", "--config", filepath.Join(n.dir, "node.toml"))
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	return nil
}

// kill ends it as a crash would. One that is dead already is none that failed.
func (n *chaosNode) kill() error {
	n.mu.Lock()
	p := n.process
	n.process = nil
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	err := n.alive(p)
	p.Stop(syscall.SIGKILL)
	return err
}

func (n *chaosNode) signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return fmt.Errorf("node %s does not run", n.name)
	}
	return syscall.Kill(n.process.PID(), sig)
}

// ended is an error if the node has ended by itself.
func (n *chaosNode) ended() error {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	return n.alive(p)
}

func (n *chaosNode) alive(p *program.Process) error {
	select {
	case <-p.Done():
		log, _ := os.ReadFile(filepath.Join(n.dir, "log"))
		return fmt.Errorf("node %s has ended by itself; its log ends with:\n%s", n.name, log[max(0, len(log)-4000):])
	default:
		return nil
	}
}

// request asks the node's HTTP port. The caller closes the answer's body.
func (n *chaosNode) request(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.name, err)
	}
	return resp, nil
}

// get is the body of an answer.
func (n *chaosNode) get(ctx context.Context, path string) ([]byte, error) {
	resp, err := n.request(ctx, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("node %s: %s: %s: %s", n.name, path, resp.Status, body)
	}
	return body, err
}

// says is what time it is for the node: it dates its answers.
func (n *chaosNode) says(ctx context.Context) (time.Time, error) {
	resp, err := n.request(ctx, "/healthz")
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}

// answers is nil when the node serves.
func (n *chaosNode) answers(ctx context.Context) error {
	if err := n.ended(); err != nil {
		return err
	}
	_, err := n.get(ctx, "/readyz")
	return err
}

// run runs the command line against the node, in its region.
func (n *chaosNode) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.region.ns, n.world.binary}, args...)...)
	cmd.Env = append(os.Environ(), "RANGEFINDER_ADMIN="+n.admin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("rangefinder %s on %s: %w: %s", args[0], n.name, err, out)
	}
	return string(out), err
}

// chaosView is what is looked at of /debug/cluster.
type chaosView struct {
	Members  []struct{ Name string }
	Backends []struct {
		Name   string
		Role   string
		ForAll string `json:"for_all"`
		ForUs  string `json:"for_us"`
	}
	Keyspaces []struct{ Name string }
	Pools     []struct {
		Backend string
		InUse   int `json:"in_use"`
		Idle    int
		Waiting int
	}
	Sessions struct{ Open int }
	Alarms   []string
}

func (n *chaosNode) view(ctx context.Context) (v chaosView, err error) {
	body, err := n.get(ctx, "/debug/cluster")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(body, &v)
}

// whole is nil when every node serves, knows all the others, takes all backends for well and worries about nothing.
func (w *chaosWorld) whole(ctx context.Context, keyspaces bool) error {
	for _, n := range w.nodes {
		if err := n.answers(ctx); err != nil {
			return err
		}
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		primaries := 0
		for _, b := range v.Backends {
			if b.ForAll != "up" || b.ForUs != "up" {
				return fmt.Errorf("node %s: %s is %s for all, %s for it", n.name, b.Name, b.ForAll, b.ForUs)
			}
			if b.Role == "primary" {
				primaries++
			}
		}
		if len(v.Members) != len(w.nodes) || len(v.Backends) != len(w.shards)*len(w.net.regions) || primaries != len(w.shards) {
			return fmt.Errorf("node %s knows %d nodes, %d backends and %d primaries", n.name, len(v.Members), len(v.Backends), primaries)
		}
		if keyspaces && len(v.Keyspaces) != len(chaosTables) {
			return fmt.Errorf("node %s knows %d keyspaces", n.name, len(v.Keyspaces))
		}
		if len(v.Alarms) > 0 {
			return fmt.Errorf("node %s has alarms: %q", n.name, v.Alarms)
		}
	}
	return nil
}

// inRegion are the nodes that clients of a region use.
func (w *chaosWorld) inRegion(r *region) []*chaosNode {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *chaosNode) bool { return n.region != r })
}
