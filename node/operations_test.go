package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

// procedure is a section of docs/operations.md with its commands.
type procedure struct {
	title  string
	blocks []string
}

// procedures reads the commands of a document: what stands in blocks of the kind sh.
func procedures(t *testing.T, file string) (list []procedure) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "## "):
			list = append(list, procedure{title: strings.TrimSpace(line[3:])})
		case strings.HasPrefix(line, "```"):
			if inside = strings.TrimSpace(line) == "```sh"; inside {
				last := &list[len(list)-1]
				last.blocks = append(last.blocks, "")
			}
		case inside:
			last := &list[len(list)-1]
			last.blocks[len(last.blocks)-1] += line
		}
	}
	return list
}

// operator is somebody who follows docs/operations.md with the binary that users have, on three nodes and on fra-9, a fourth one, which is a process.
type operator struct {
	*testCluster
	ninth   *process
	addr    string // where clients connect to fra-9
	admin   string // the node that is asked
	dir     string // with the binary, and fra-9's configuration, keys and data
	env     []string
	secret  string // the key that the cluster has
	entries int    // made in the ledger to see that it goes on
}

// The files of dir.
const (
	ninthConfig = "fra.toml"
	ninthKeys   = "cluster.key"
)

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir(), secret: clusterEnv()["CLUSTER_KEY"]}
	binary, err := program.Build(t.Context(), o.dir)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(binary) != "rangefinder" {
		t.Fatalf("the document's commands would not find %s", binary)
	}
	o.write(t, ninthKeys, o.secret+"\n")
	ports, err := program.FreePorts(3 * 4)
	if err != nil {
		t.Fatal(err)
	}
	next := func() Ports {
		p := Ports{Postgres: ports[0], Cluster: ports[1], HTTP: ports[2]}
		ports = ports[3:]
		return p
	}
	o.testCluster = startMovable(t, func(cfg *Config) { // a restart finds its ports and the others' again
		cfg.Ports, cfg.ClusterKeyEnv, cfg.ClusterKeyFile = next(), "", filepath.Join(o.dir, ninthKeys)
	})
	own := next()
	o.addr, o.admin = program.Loopback(own.Postgres), "http://"+program.Loopback(own.HTTP)
	o.write(t, ninthConfig, fmt.Sprintf(`region = "fra"
name = "fra-9"
data_dir = "data"
join = [%q]
cluster_key_file = %q
[ports]
postgres = %d
cluster = %d
http = %d
[probe]
user = "probe"
password_env = "PROBE_PASSWORD"
[[databases]]
name = "app"
shard = "shard_1"
[[users]]
name = "app"
password_env = "APP_PASSWORD"
`, o.nodes[0].port().Addr(), ninthKeys, own.Postgres, own.Cluster, own.HTTP))
	o.env = append(os.Environ(), "PATH="+o.dir+":"+os.Getenv("PATH"), "CONFIG="+filepath.Join(o.dir, ninthConfig), "KEYS="+filepath.Join(o.dir, ninthKeys))
	for k, v := range clusterEnv() {
		o.env = append(o.env, k+"="+v)
	}
	o.start(t, `rangefinder start --config "$CONFIG"`)
	for _, n := range o.nodes {
		n.settled(t, 4, 3)
	}
	return o
}

func (o *operator) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// shell is a block of the document in the hands of a shell.
func (o *operator) shell(ctx context.Context, block string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", block)
	cmd.Env = append(o.env, "RANGEFINDER_ADMIN="+o.admin)
	return cmd
}

// run runs a block to its end.
func (o *operator) run(t *testing.T, block string) (status int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := o.shell(ctx, block)
	text, err := cmd.CombinedOutput()
	t.Logf("%s%s", block, text)
	if ctx.Err() != nil || cmd.ProcessState == nil {
		t.Fatalf("%v; %v", err, context.Cause(ctx))
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// start starts fra-9 by a block that is one line, and waits until it serves.
func (o *operator) start(t *testing.T, block string) {
	t.Helper()
	line := strings.TrimSpace(block)
	if !strings.HasPrefix(line, "rangefinder start ") || strings.Contains(line, "\n") {
		t.Fatalf("a node is not started by\n%s", block)
	}
	o.ninth = startCommand(t, o.shell(context.Background(), "exec "+line))
	o.ninth.says(t, "msg=serving")
}

// begin connects to fra-9 and opens a transaction.
func (o *operator) begin(t *testing.T) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsnAt(o.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	tx, err := conn.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "UPDATE accounts SET balance = balance + 1 WHERE id = 10")
	}
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// commit ends a transaction that has to have outlived what happened to the node.
func commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("the transaction that was open: %v", err)
	}
}

// ends has a process of fra-9 end by itself.
func (p *process) ends(t *testing.T) {
	t.Helper()
	if code := p.exit(t); code != 0 {
		t.Errorf("process %d: exit %d", p.cmd.Process.Pid, code)
	}
}

// round restarts the nodes, one after the other, as the document says of each round of a new key. At each moment all see each other, and the ledger goes on.
func (o *operator) round(t *testing.T) {
	t.Helper()
	for i, old := range o.nodes {
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		o.nodes[i] = newNodeWith(t, old.cfg, old.options).open(t)
		for _, n := range o.nodes {
			n.settled(t, 3, 3)
		}
		pgtest.Eventually(t, time.Minute, func() error {
			o.entries++
			if code, out, errs := o.nodes[i].admin("range", "split", "app.accounts", fmt.Sprint(3000+o.entries)); code != 0 {
				return fmt.Errorf("%s: exit %d: %s%s", old.cfg.Name, code, out, errs)
			}
			return nil
		})
	}
}

// keys are the lines of the file.
func (o *operator) keys(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.dir, ninthKeys))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// around is what belongs to a block of the document beside its commands, as the document says around it.
type around struct {
	status int  // that the block ends with
	starts bool // it starts fra-9, and goes on for as long as that runs
	before func(t *testing.T, block string)
	after  func(t *testing.T, out string)
}

// steps are those of the procedures that are more than commands, block by block.
func (o *operator) steps() map[string][]around {
	n := o.nodes[1]
	drained := func(t *testing.T, want bool) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			if status, body := o.nodes[2].get(t, "/readyz"); (status == 503) != want {
				return fmt.Errorf("syd's node is ready: %d %s", status, body)
			}
			if _, out := o.run(t, "rangefinder status"); strings.Contains(out, "new switches") != want {
				return fmt.Errorf("the status shows no drain, or still one:\n%s", out)
			}
			return nil
		})
	}
	var tx pgx.Tx
	var old *process
	return map[string][]around{
		"Make a keyspace": {{after: func(t *testing.T, _ string) { // for what comes after it
			n.sees(t, "app.orders")
			for _, k := range []int{10, 1100, 1600, 1700, 2500} {
				if _, err := n.connect(t).Exec(t.Context(), "INSERT INTO accounts (id, balance) VALUES ($1, 1)", k); err != nil {
					t.Fatal(err)
				}
			}
		}}},
		"Drain": {
			{status: 1, after: func(t *testing.T, out string) {
				if !strings.Contains(out, "all that can move has moved") || !strings.Contains(out, "left:") || !strings.Contains(out, "syd-db") {
					t.Errorf("what cannot move, the only server of shard_3, is not named:\n%s", out)
				}
				drained(t, true)
			}},
			{after: func(t *testing.T, _ string) { drained(t, false) }},
		},
		"Restart a node, upgrade": {
			{},
			{starts: true, before: func(t *testing.T, _ string) {
				tx = o.begin(t)
				old = o.ninth
				if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				old.says(t, "asked to stop")
				commit(t, tx)
				old.ends(t)
			}},
			{},
			{starts: true, before: func(t *testing.T, _ string) {
				old = o.ninth
				tx = o.begin(t)
			}, after: func(t *testing.T, _ string) {
				commit(t, tx)
				if err := tx.Conn().Close(t.Context()); err != nil {
					t.Error(err)
				}
				old.ends(t)
			}},
			{after: func(t *testing.T, out string) {
				if !strings.Contains(out, "node fra-9 in fra: ready") {
					t.Errorf("it took over, and is not ready:\n%s", out)
				}
			}},
		},
		"A node is gone for good": {{
			before: func(t *testing.T, block string) {
				if status, out := o.run(t, block); status != 1 || !strings.Contains(out, "node fra-9 lives") {
					t.Errorf("while it runs: exit %d: %s", status, out)
				}
				if err := o.ninth.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				o.ninth.exit(t)
				o.admin = n.url()
				for _, n := range o.nodes {
					n.settled(t, 3, 3)
				}
			},
			after: func(t *testing.T, _ string) {
				for _, n := range o.nodes {
					pgtest.Eventually(t, 30*time.Second, func() error {
						if o := n.table.Owners().Get(); !o.Forgot("fra-9") {
							return fmt.Errorf("%s waits for %v", n.cfg.Name, o.Nodes)
						}
						return nil
					})
				}
			},
		}},
		"Rotate the cluster key": {
			{after: func(t *testing.T, _ string) {
				if k := o.keys(t); len(k) != 2 || k[0] != o.secret || k[1] == o.secret {
					t.Fatal("the new key does not stand below the old one")
				}
				o.round(t)
			}},
			{after: func(t *testing.T, _ string) {
				k := o.keys(t)
				if len(k) != 2 || k[0] == o.secret || k[1] != o.secret {
					t.Fatal("the two are not swapped")
				}
				o.round(t)
			}},
			{after: func(t *testing.T, _ string) {
				if k := o.keys(t); len(k) != 1 || k[0] == o.secret {
					t.Fatal("the old key is still there")
				}
				o.round(t)
				stranger := testConfig(t, "fra", o.nodes[0].port().Addr())
				stranger.Name, stranger.ClusterKeyEnv = "fra-8", "CLUSTER_KEY"
				if err := newNode(t, stranger, clusterEnv()).Open(t.Context()); err == nil || err.Error() != "the cluster key does not match" {
					t.Errorf("a node with the old key: %v", err)
				}
			}},
		},
	}
}

// TestTheProceduresOfTheDocument runs every command of docs/operations.md, in its order, and looks whether what it says there comes true.
func TestTheProceduresOfTheDocument(t *testing.T) {
	o := newOperator(t)
	steps, ran := o.steps(), 0
	list := procedures(t, "../docs/operations.md")
	if len(list) < 10 {
		t.Fatalf("%d procedures", len(list))
	}
	for _, p := range list {
		known := steps[p.title]
		delete(steps, p.title)
		if len(known) > len(p.blocks) {
			t.Errorf("%s: %d blocks, want %d", p.title, len(p.blocks), len(known))
		}
		for i, block := range p.blocks {
			var s around
			if i < len(known) {
				s = known[i]
			}
			if s.before != nil {
				s.before(t, block)
			}
			status, out := 0, ""
			if s.starts {
				o.start(t, block)
			} else {
				status, out = o.run(t, block)
			}
			if status != s.status {
				t.Fatalf("%s: exit %d, want %d", p.title, status, s.status)
			}
			if s.after != nil {
				s.after(t, out)
			}
			ran++
		}
	}
	for title := range steps {
		t.Errorf("the document has no procedure %q", title)
	}
	if ran < 20 {
		t.Errorf("%d blocks of commands", ran)
	}
	n := o.nodes[1]
	var count int
	if err := n.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM accounts").Scan(&count); err != nil || count != 5 {
		t.Errorf("%d accounts, want 5; %v", count, err)
	}
	if all, _ := o.countOn(t, n.sees(t, "app.accounts"), "accounts", "id", 1); all != 0 {
		t.Errorf("shard_2 was emptied and has %d accounts", all)
	}
}
