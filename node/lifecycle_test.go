package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// logBuffer collects a node's log for a test to read.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// testConfig is a node on free ports of loopback, without backends.
func testConfig(t *testing.T, region string, join ...string) Config {
	t.Helper()
	cfg := Defaults()
	cfg.Region, cfg.Name, cfg.Join, cfg.DataDir = region, region+"-1", join, filepath.Join(t.TempDir(), "data")
	cfg.Ports = Ports{}
	cfg.DrainTimeout = Duration{2 * time.Second}
	cfg.Probe.Interval = Duration{100 * time.Millisecond}
	cfg.Moves.Late = Duration{100 * time.Millisecond}
	return cfg
}

// testNode is a node with its log.
type testNode struct {
	*Node
	cfg Config
	log *logBuffer
}

// newNode makes a node; env holds its secrets.
func newNode(t *testing.T, cfg Config, env map[string]string) *testNode {
	t.Helper()
	return newNodeWith(t, cfg, Options{Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }})
}

// newNodeWith makes a node with options; the log is its own.
func newNodeWith(t *testing.T, cfg Config, o Options) *testNode {
	t.Helper()
	log := new(logBuffer)
	o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("%s: close: %v", cfg.Name, err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", cfg.Name, log)
		}
	})
	return &testNode{Node: n, cfg: cfg, log: log}
}

func (n *testNode) open(t *testing.T) *testNode {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := n.Open(ctx); err != nil {
		t.Fatalf("%s: open: %v\n%s", n.cfg.Name, err, n.log)
	}
	return n
}

func (n *testNode) url() string { return "http://" + n.httpLn.Addr().String() }

// get reads a page of the node's HTTP port.
func (n *testNode) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(n.url() + path)
	return answerOf(t, resp, err)
}

// answerOf reads what a call was answered with.
func answerOf(t *testing.T, resp *http.Response, err error) (status int, body string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// post sends JSON to the node's HTTP port.
func (n *testNode) post(t *testing.T, path, body string) (status int, answer string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(n.url()+path, "application/json", strings.NewReader(body))
	return answerOf(t, resp, err)
}

func TestFirstNodeMakesAClusterAndARestartKeepsIt(t *testing.T) {
	cfg := testConfig(t, "iad")
	first := newNode(t, cfg, nil).open(t)
	id := first.state.ClusterID
	if len(id) != 32 || first.table.Owners().Get().ClusterID != id {
		t.Fatalf("cluster id %q, ledger %q", id, first.table.Owners().Get().ClusterID)
	}
	if status, body := first.get(t, "/readyz"); status != 200 {
		t.Errorf("readyz = %d %s", status, body)
	}
	for _, path := range []string{"/debug", "/debug/cluster", "/debug/rib", "/debug/fib", "/metrics", "/healthz", "/api/v1/keyspaces", "/api/v1/ranges", "/debug/pprof/"} {
		if status, body := first.get(t, path); status != 200 || body == "" {
			t.Errorf("%s = %d %.200s", path, status, body)
		}
	}
	epoch := first.ledger().Epoch()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	again := newNode(t, cfg, nil).open(t)
	if again.state.ClusterID != id || again.ledger().ClusterID() != id || again.ledger().Epoch().Compare(epoch) < 0 {
		t.Errorf("after a restart: cluster %q and epoch %v, want %q and at least %v", again.state.ClusterID, again.ledger().Epoch(), id, epoch)
	}
	if again.state.Incarnation != 2 {
		t.Errorf("incarnation = %d, want 2", again.state.Incarnation)
	}
}

// TestCrashBetweenStateAndLedger leaves what a crash right after the state file leaves: an id and no ledger.
func TestCrashBetweenStateAndLedger(t *testing.T) {
	cfg := testConfig(t, "iad")
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Save(State{Node: "iad-1", ClusterID: "0123456789abcdef0123456789abcdef", Incarnation: 1, Bootstrap: true, Region: "iad"}); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	n := newNode(t, cfg, nil).open(t)
	if got := n.table.Owners().Get().ClusterID; got != "0123456789abcdef0123456789abcdef" {
		t.Errorf("the ledger's cluster is %q", got)
	}
	if n.state.Bootstrap {
		t.Error("the bootstrap is still pending")
	}
}

func TestLedgerWithoutStateIsRefused(t *testing.T) {
	cfg := testConfig(t, "iad")
	first := newNode(t, cfg, nil).open(t)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.DataDir, stateFile)); err != nil {
		t.Fatal(err)
	}
	if err := newNode(t, cfg, nil).Open(t.Context()); !errors.Is(err, ErrState) {
		t.Errorf("open = %v, want ErrState", err)
	}
}

func TestAnotherNameInTheSameDirectoryIsRefused(t *testing.T) {
	cfg := testConfig(t, "iad")
	if err := newNode(t, cfg, nil).open(t).Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Name = "other"
	if err := newNode(t, cfg, nil).Open(t.Context()); err == nil || !strings.Contains(err.Error(), `belongs to node "iad-1"`) {
		t.Errorf("open = %v", err)
	}
}

func TestTwoNodesCannotShareADirectory(t *testing.T) {
	cfg := testConfig(t, "iad")
	newNode(t, cfg, nil).open(t)
	if err := newNode(t, cfg, nil).Open(t.Context()); !errors.Is(err, ErrLocked) {
		t.Errorf("open = %v, want ErrLocked", err)
	}
}

// TestJoinWaitsAndSaysSo starts the joiner first: it must not make a cluster of its own, and must say what it waits for.
func TestJoinWaitsAndSaysSo(t *testing.T) {
	// The port of a node that is closed again is free for the node that comes later.
	probe := newNode(t, testConfig(t, "tmp"), nil).open(t)
	addr := probe.port().Addr()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	joiner := newNode(t, testConfig(t, "fra", addr), nil)
	opened := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	go func() { opened <- joiner.Open(ctx) }()
	pgtest.Eventually(t, 10*time.Second, func() error {
		if !strings.Contains(joiner.log.String(), "cannot join yet, trying on") {
			return errors.New("no progress in the log")
		}
		return nil
	})
	if status, body := joiner.get(t, "/readyz"); status != 503 || !strings.Contains(body, "joining: no answer yet from "+addr) {
		t.Errorf("readyz = %d %q", status, body)
	}
	if status, _ := joiner.get(t, "/healthz"); status != 200 {
		t.Errorf("healthz = %d", status)
	}
	if status, body := joiner.get(t, "/debug/cluster"); status != 503 || !strings.Contains(body, "the node is starting") {
		t.Errorf("/debug/cluster = %d %q", status, body)
	}
	cfg := testConfig(t, "iad")
	if _, err := fmt.Sscanf(addr, "127.0.0.1:%d", &cfg.Ports.Cluster); err != nil {
		t.Fatal(err)
	}
	first := newNode(t, cfg, nil).open(t)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if joiner.state.ClusterID != first.state.ClusterID {
		t.Errorf("the joiner is in cluster %q, want %q", joiner.state.ClusterID, first.state.ClusterID)
	}
}

func TestStrangersAndWrongKeysAreRefused(t *testing.T) {
	key := func(digit string) map[string]string { return map[string]string{"KEY": strings.Repeat(digit, 64)} }
	keyed := func(region string, join ...string) Config {
		cfg := testConfig(t, region, join...)
		cfg.ClusterKeyEnv = "KEY"
		return cfg
	}
	home := newNode(t, keyed("iad"), key("a")).open(t)
	addr := home.port().Addr()

	t.Run("another key", func(t *testing.T) {
		err := newNode(t, keyed("fra", addr), key("b")).Open(t.Context())
		var f *Failure
		if !errors.As(err, &f) || f.Message != "the cluster key does not match" || !strings.Contains(f.Hint, "--cluster-key-file") {
			t.Errorf("open = %v", err)
		}
	})
	t.Run("no key", func(t *testing.T) {
		err := newNode(t, testConfig(t, "fra", addr), nil).Open(t.Context())
		if err == nil || err.Error() != "the cluster key does not match" {
			t.Errorf("open = %v", err)
		}
	})
	t.Run("another cluster", func(t *testing.T) {
		cfg := keyed("fra")
		if err := newNode(t, cfg, key("a")).open(t).Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Join = []string{addr}
		stranger := newNode(t, cfg, key("a"))
		err := stranger.Open(t.Context())
		var f *Failure
		if !errors.As(err, &f) || !strings.Contains(f.Detail, "a node never changes its cluster") {
			t.Errorf("open = %v", err)
		}
	})
	t.Run("the same name", func(t *testing.T) {
		cfg := keyed("fra", addr)
		cfg.Name = "iad-1"
		err := newNode(t, cfg, key("a")).Open(t.Context())
		var f *Failure
		if !errors.As(err, &f) || !strings.Contains(f.Detail, "every node needs a name of its own") {
			t.Errorf("open = %v", err)
		}
	})
	t.Run("the name of a voter that is away, without its data", func(t *testing.T) {
		cfg := keyed("fra", addr)
		fra := newNode(t, cfg, key("a")).open(t)
		pgtest.Eventually(t, 20*time.Second, func() error {
			if got := home.ledger().Voters(); len(got) != 2 {
				return fmt.Errorf("voters %v", got)
			}
			return nil
		})
		if err := fra.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		err := newNode(t, cfg, key("a")).Open(t.Context())
		var f *Failure
		if !errors.As(err, &f) || !strings.Contains(f.Detail, "start it with the old data_dir, or under another name") {
			t.Errorf("open = %v", err)
		}
	})
	for _, secret := range []string{strings.Repeat("a", 64), strings.Repeat("b", 64)} {
		if strings.Contains(home.log.String(), secret) {
			t.Error("the cluster key is in the log")
		}
	}
	if len(home.speaker().Members()) != 1 {
		t.Errorf("members = %v, want this node alone", home.speaker().Members())
	}
}

func TestPortTakenNamesTheKey(t *testing.T) {
	first := newNode(t, testConfig(t, "iad"), nil).open(t)
	cfg := testConfig(t, "fra", first.port().Addr())
	if _, err := fmt.Sscanf(first.pgLn.Addr().String(), "127.0.0.1:%d", &cfg.Ports.Postgres); err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if err := newNode(t, cfg, nil).Open(t.Context()); !errors.As(err, &f) || !strings.Contains(f.Hint, "ports.postgres") {
		t.Errorf("open = %v", err)
	}
}
