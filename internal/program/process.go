package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
)

// Process is a program that was started.
type Process struct {
	// constant
	cmd  *exec.Cmd
	done chan struct{} // closed when it was waited for
}

// User is whom a program runs as. The zero value is this process's own user.
type User struct{ UID, GID uint32 }

// Launch starts argv in dir, which is inside the farm's folder, with its output at the end of the file log there. Another user is
// taken only if this process may change users.
func Launch(farm *pgtest.Farm, dir string, as User, env []string, argv ...string) (*Process, error) {
	if as.UID != 0 && os.Geteuid() == 0 {
		// The kernel forgets the parent-death signal when a process changes its user, so it is set once more.
		argv = append([]string{"setpriv", "--reuid", strconv.Itoa(int(as.UID)), "--regid", strconv.Itoa(int(as.GID)), "--clear-groups", "--pdeathsig", "KILL", "--"}, argv...)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), log, log
	if err := farm.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// stopTimeout is how long a program may take to end when it is told to.
const stopTimeout = 20 * time.Second

// Stop ends the process with sig, and kills it if that takes longer than 20 s. It returns its exit code; -1: a signal has ended it.
// What the process itself has started and not ended goes with it where that asks the kernel to.
func (p *Process) Stop(sig syscall.Signal) (code int) {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// Until waits until condition returns nil. The error is condition's, with the end of the log; it comes at once if the process ends.
func (p *Process) Until(ctx context.Context, condition func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := pgtest.Wait(ctx, 20*time.Millisecond, func() error {
		err := condition()
		select {
		case <-p.done:
			cancel(errors.New("it has ended"))
		default:
		}
		return err
	})
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "log"))
	return fmt.Errorf("%s: %w: %s", filepath.Base(p.cmd.Args[0]), err, bytes.TrimSpace(log[max(0, len(log)-2000):]))
}

// Listening waits until something takes connections at addr.
func (p *Process) Listening(ctx context.Context, addr string) error {
	return p.Until(ctx, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// FreePorts returns n ports of loopback that nobody listens on now.
func FreePorts(n int) ([]int, error) {
	var listeners []net.Listener
	defer func() {
		for _, ln := range listeners { // all at the end: no port twice
			ln.Close()
		}
	}()
	var out []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
		out = append(out, ln.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

// Loopback is the address of a port there.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
