package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/node/port"
	"rangefinder/rib"
	"rangefinder/wire"
)

func TestCancelFrames(t *testing.T) {
	for _, secret := range []string{"1234", strings.Repeat("s", 32), strings.Repeat("x", 256)} {
		pid, got, err := readCancel(bytes.NewReader(appendCancel(nil, 77, []byte(secret))))
		if err != nil || pid != 77 || string(got) != secret {
			t.Errorf("%q: %d %q, %v", secret, pid, got, err)
		}
	}
	for name, frame := range map[string][]byte{
		"another version": {2, 0, 4, 0, 0, 0, 1, 1, 2, 3, 4},
		"no secret":       {1, 0, 0, 0, 0, 0, 1},
		"too long":        append([]byte{1, 1, 1, 0, 0, 0, 1}, make([]byte, 257)...),
		"64 KiB":          {1, 255, 255, 0, 0, 0, 1},
	} {
		if _, _, err := readCancel(bytes.NewReader(frame)); !errors.Is(err, errCancel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, short := range [][]byte{nil, {1}, {1, 0, 4, 0, 0, 0, 1, 1, 2}} {
		if _, _, err := readCancel(bytes.NewReader(short)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%x: %v", short, err)
		}
	}
}

func TestCancelTargets(t *testing.T) {
	// Two names with one hash: found by trying, as every node finds its own.
	byHash := map[uint32]string{}
	var a, b string
	for i := 0; a == ""; i++ {
		name := fmt.Sprintf("n%d", i)
		if other, ok := byHash[wire.CancelNode(name)]; ok {
			a, b = other, name
		}
		byHash[wire.CancelNode(name)] = name
	}
	members := []rib.Member{{Name: a, Addr: "a:1"}, {Name: b, Addr: "b:1"}, {Name: "other", Addr: "c:1"}}
	pid := wire.CancelNode(a)<<19 | 5
	names := func(self string) string {
		var out []string
		for _, m := range cancelTargets(members, self, pid) {
			out = append(out, m.Name)
		}
		return strings.Join(out, " ")
	}
	if got, want := names("other"), a+" "+b; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	if got := names(a); got != b {
		t.Errorf("asked %q, want %q", got, b)
	}
	if got := cancelTargets(members, "other", pid^1<<30); len(got) != 0 {
		t.Errorf("asked %v about a key of nobody", got)
	}
	for i := range 10 {
		members = append(members, rib.Member{Name: a, Addr: fmt.Sprint("d:", i)})
	}
	if got := cancelTargets(members, "other", pid); len(got) != maxCancelDial {
		t.Errorf("asked %d", len(got))
	}
}

// TestCancelThroughAnyNode has two nodes under a cluster key: whichever gets a cancel request, the right statement ends and no other.
func TestCancelThroughAnyNode(t *testing.T) {
	dir := t.TempDir()
	pair := writePair(t, dir, pgtest.NewAuthority(t).Issue(t, time.Time{}, "localhost"))
	key := func(cfg *Config) {
		cfg.ClusterKeyEnv, cfg.TLS = "CLUSTER_KEY", pair
		cfg.TLS.Require = true
	}
	first, _ := startBeside(t, pgtest.Options{}, key)
	cfg := testConfig(t, "iad", first.port().Addr())
	cfg.Databases, cfg.Users, cfg.Probe = first.cfg.Databases, first.cfg.Users, first.cfg.Probe
	key(&cfg)
	second := newNode(t, cfg, clusterEnv()).open(t)
	first.settled(t, 2, 1)
	second.settled(t, 2, 1)

	connect := func(t *testing.T, n *testNode, options string) *pgconn.PgConn {
		t.Helper()
		conn, err := pgconn.Connect(t.Context(), "postgres://app:"+appPassword+"@"+n.pgLn.Addr().String()+"/app?sslmode=require"+options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	for name, options := range map[string]string{"3.0": "", "3.2": "&max_protocol_version=3.2"} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, first, options)
			if want := map[string]int{"3.0": 4, "3.2": 32}[name]; len(conn.SecretKey()) != want {
				t.Errorf("the secret has %d bytes, want %d", len(conn.SecretKey()), want)
			}
			first.cancelled(t, first, conn)
			first.cancelled(t, second, conn)
			if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
				t.Errorf("the session did not live on: %v", err)
			}
		})
	}
	t.Run("wrong keys are dropped", func(t *testing.T) {
		conn := connect(t, second, "")
		ended := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "SELECT pg_sleep(1)").ReadAll()
			ended <- err
		}()
		wrong := bytes.Clone(conn.SecretKey())
		wrong[0] ^= 1
		for _, n := range []*testNode{first, second} {
			n.sendCancel(t, conn.PID(), wrong)
			n.sendCancel(t, conn.PID(), bytes.Repeat(wrong, 64))
			n.sendCancel(t, conn.PID()^1, conn.SecretKey())
			n.sendCancel(t, conn.PID()^1<<30, conn.SecretKey()) // of a node that nobody knows
		}
		if err := <-ended; err != nil {
			t.Errorf("a wrong key ended it: %v", err)
		}
	})
	t.Run("noise on the cluster port", func(t *testing.T) {
		conn, err := first.port().Dial(t.Context(), port.KindCancel, second.port().Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte{1, 255, 255, 0, 0, 0, 1, 1}); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(conn); len(b) != 0 {
			t.Errorf("answered %x", b)
		}
	})
	t.Run("psql, Control-C", func(t *testing.T) { first.interruptPsql(t) })
}

// interruptPsql has psql cancel over the only way it knows: a second connection, in clear text also where TLS is required.
func (n *testNode) interruptPsql(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	host, number, err := net.SplitHostPort(n.pgLn.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	began := filepath.Join(t.TempDir(), "began")
	cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-v", "VERBOSITY=verbose", "-c", `\! touch `+began, "-c", "SELECT pg_sleep(15)",
		fmt.Sprintf("user=app hostaddr=%s port=%s dbname=app sslmode=require", host, number))
	cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pgtest.Eventually(t, 15*time.Second, func() error {
		if _, err := os.Stat(began); err != nil {
			return err
		}
		running := false
		for _, p := range n.pools.Stats() {
			running = running || p.InUse > 0
		}
		if running { // before that, a signal would end psql itself
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
		select {
		case <-ended:
			return nil
		default:
			return errors.New("psql runs on")
		}
	})
	if !strings.Contains(out.String(), "57014") {
		t.Errorf("psql said %s", &out)
	}
}
