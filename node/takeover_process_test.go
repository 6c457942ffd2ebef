package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// process is a node as users run it.
type process struct {
	cmd   *exec.Cmd
	log   *logBuffer
	ended chan error
}

// buildBinary makes the program that the process tests run.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "rangefinder")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "rangefinder")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func startProcess(t *testing.T, binary string, env []string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"start"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	return startCommand(t, cmd)
}

// startCommand starts a command that is a node.
func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: new(logBuffer), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		p.ended <- p.cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("log of process %d:\n%s", p.cmd.Process.Pid, p.log)
		}
	})
	return p
}

// says waits for a text in the log, and returns the line.
func (p *process) says(t *testing.T, text string) (line string) {
	t.Helper()
	pgtest.Eventually(t, 60*time.Second, func() error {
		for l := range strings.Lines(p.log.String()) {
			if strings.Contains(l, text) {
				line = l
				return nil
			}
		}
		return fmt.Errorf("process %d does not say %q", p.cmd.Process.Pid, text)
	})
	return line
}

// port waits until the process serves, and returns an address that it names then.
func (p *process) port(t *testing.T, what string) string {
	t.Helper()
	_, rest, _ := strings.Cut(p.says(t, "msg=serving"), what)
	addr, _, _ := strings.Cut(rest, " ")
	return addr
}

func (p *process) postgres(t *testing.T) string {
	t.Helper()
	return p.port(t, "postgres=")
}

func dsnAt(addr string) string {
	return fmt.Sprintf("postgres://app:%s@%s/app?sslmode=disable", appPassword, addr)
}

// connectWhenReady waits until rows can be read: the first node of a cluster does not know its shards at once.
func connectWhenReady(t *testing.T, addr string) (conn *pgx.Conn) {
	t.Helper()
	pgtest.Eventually(t, 30*time.Second, func() (err error) {
		if conn, err = pgx.Connect(t.Context(), dsnAt(addr)); err == nil {
			if _, err = conn.Exec(t.Context(), "SELECT 1 FROM t FOR UPDATE"); err != nil {
				conn.Close(context.Background())
			}
		}
		return err
	})
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// exit waits for the end of the process, and returns its exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.ended:
		var e *exec.ExitError
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(60 * time.Second):
		t.Fatalf("process %d does not end", p.cmd.Process.Pid)
	}
	return -1
}

// TestTakeoverOfProcesses: a process with a bad configuration, one that is killed in the middle, and one that gets there. Clients
// come and go all the while.
func TestTakeoverOfProcesses(t *testing.T) {
	f, binary := newFile(t), buildBinary(t)
	first := startProcess(t, binary, nil, "-c", f.file)
	addr := first.postgres(t)
	conn := connectWhenReady(t, addr)
	l := startLoad(t, insertT, dsnAt(addr))
	l.more(t, 20)
	tx, err := conn.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "INSERT INTO t VALUES (-1)")
	}
	if err != nil {
		t.Fatal(err)
	}

	f.change(t, `size = 5`, `size = 0`)
	bad := startProcess(t, binary, nil, "-c", f.file, "--takeover")
	if code := bad.exit(t); code != 1 || !strings.Contains(bad.log.String(), "node.toml:20:1: pool.size must be at least 1, not 0") {
		t.Errorf("a bad configuration: exit %d: %s", code, bad.log)
	}
	f.change(t)
	l.more(t, 10)

	// One that hangs after the first process has let go: it asks a node of its join list that never answers.
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	hung := startProcess(t, binary, nil, "-c", f.file, "--takeover", "--join", deaf.Addr().String())
	hung.says(t, "the running process has left the cluster")
	if err := hung.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	hung.exit(t)
	if strings.Contains(hung.log.String(), "msg=serving") {
		t.Fatal("it was killed too late")
	}
	first.says(t, `msg="everything is as before"`)
	l.more(t, 10)

	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	second := startProcess(t, binary, []string{"NOTIFY_SOCKET=" + told.LocalAddr().String()}, "-c", f.file, "--takeover")
	second.says(t, "msg=serving")
	var state [200]byte
	_ = told.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := told.Read(state[:])
	if want := fmt.Sprintf("READY=1\nMAINPID=%d", second.cmd.Process.Pid); string(state[:n]) != want {
		t.Errorf("systemd was told %q, %v; want %q", state[:n], err, want)
	}
	l.more(t, 20)
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("the transaction that was open all the while: %v", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	l.stop()
	l.more(t, 0)
	t.Logf("%d logins, %d statements", l.logins.Load(), l.statements.Load())
	if code := first.exit(t); code != 0 {
		t.Errorf("the first process: exit %d", code)
	}
	if err := second.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	second.says(t, "msg=reloaded by=SIGHUP")
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := second.exit(t); code != 0 {
		t.Errorf("the second process: exit %d", code)
	}
}
