package program

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"rangefinder/internal/pgtest"
)

// NodeConfig says what a node is to be like.
type NodeConfig struct {
	Dir      string           // a folder of its own, which exists
	User     string           // logs in to the node, and with the node's probes to the servers
	Password string           // of that user, on both
	Database string           // what clients name; its tables without a keyspace are on shard_1
	Servers  []*pgtest.Server // named by their shards, with something behind a hyphen if a shard has several: shard_1-replica
	More     string           // further tables of the configuration
}

// Node is a node that has its binary and its configuration. It is the only one of its cluster.
type Node struct {
	// constant
	Addr   string   // where clients connect to
	Admin  string   // URL of its HTTP port
	Binary string   // file
	Log    string   // file
	Env    []string // what the binary is to find in its environment, as a node and as a command

	cfg    NodeConfig
	ports  []int
	config string // file
}

// Build makes a node's binary in a folder, and returns its file. flags are for go build.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	binary := filepath.Join(dir, "rangefinder")
	args := append(append([]string{"build"}, flags...), "-o", binary, "rangefinder")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
}

// PrepareNode builds the binary and writes the configuration. The node is not started.
func PrepareNode(ctx context.Context, cfg NodeConfig) (*Node, error) {
	binary, err := Build(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	ports, err := FreePorts(3)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Addr: Loopback(ports[0]), Admin: "http://" + Loopback(ports[2]), Binary: binary, Log: filepath.Join(cfg.Dir, "log"),
		cfg: cfg, ports: ports, config: filepath.Join(cfg.Dir, "node.toml"),
	}
	n.Env = []string{"NODE_PASSWORD=" + cfg.Password, "RANGEFINDER_ADMIN=" + n.Admin}
	return n, n.Configure(cfg.More)
}

// Configure writes the configuration anew, with other further tables. A node that runs takes them with a reload.
func (n *Node) Configure(more string) error {
	var b strings.Builder
	fmt.Fprintf(&b, `region = "here"
data_dir = %q
[ports]
postgres = %d
cluster = %d
http = %d
[probe]
user = %q
password_env = "NODE_PASSWORD"
[[databases]]
name = %q
shard = "shard_1"
[[users]]
name = %q
password_env = "NODE_PASSWORD"
`, filepath.Join(n.cfg.Dir, "data"), n.ports[0], n.ports[1], n.ports[2], n.cfg.User, n.cfg.Database, n.cfg.User)
	for _, s := range n.cfg.Servers {
		shard, _, _ := strings.Cut(s.Name(), "-")
		fmt.Fprintf(&b, "[[backends]]\nname = %q\nshard = %q\naddress = %q\n", s.Name(), shard, s.Addr())
	}
	return os.WriteFile(n.config, []byte(b.String()+more), 0o600)
}

// Start starts the node and waits until it serves. It may be started again once it has been stopped.
func (n *Node) Start(ctx context.Context, farm *pgtest.Farm) (*Process, error) {
	p, err := Launch(farm, n.cfg.Dir, User{}, n.Env, n.Binary, "start", "--config", n.config)
	if err != nil {
		return nil, err
	}
	if err = p.Until(ctx, func() error { return n.ready(ctx) }); err == nil {
		err = p.Listening(ctx, n.Addr)
	}
	if err != nil {
		p.Stop(syscall.SIGKILL)
		return nil, fmt.Errorf("the node does not become ready: %w", err)
	}
	return p, nil
}

func (n *Node) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", resp.Status)
	}
	return nil
}
