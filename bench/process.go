package main

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
	"strings"
	"syscall"
	"time"
	"unsafe"

	"rangefinder/internal/pgtest"
)

// process is a program under measurement, with its children.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it was waited for
}

// launch starts argv in dir, with its output in dir/log. With a uid other than 0 it runs as that user, if this process may
// change users: PgBouncer does not run as root.
func launch(farm *pgtest.Farm, dir string, uid, gid uint32, env []string, argv ...string) (*process, error) {
	if uid != 0 && os.Geteuid() == 0 {
		// The kernel forgets the parent-death signal when a process changes its user, so it is set once more.
		argv = append([]string{"setpriv", "--reuid", strconv.Itoa(int(uid)), "--regid", strconv.Itoa(int(gid)), "--clear-groups", "--pdeathsig", "KILL", "--"}, argv...)
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
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process with sig, and kills it if that takes too long.
func (p *process) stop(sig syscall.Signal) {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		for _, pid := range p.tree() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		<-p.done
	}
}

// listening waits until something takes connections at addr.
func (p *process) listening(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := pgtest.Wait(ctx, 20*time.Millisecond, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		select {
		case <-p.done:
			cancel()
			return errors.New("it ended")
		default:
			return err
		}
	})
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "log"))
	return fmt.Errorf("%s does not listen at %s: %w: %s", p.cmd.Args[0], addr, err, bytes.TrimSpace(log[max(0, len(log)-2000):]))
}

// tree returns the pids of the process and of all that descend from it.
func (p *process) tree() []int { return tree(p.cmd.Process.Pid) }

func tree(root int) []int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// "pid (name) state ppid ...": the name may hold anything.
		if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// cpu returns what the processes have used so far, in user and kernel mode. It is what /proc/PID/stat gives as utime+stime,
// read through the process's CPU clock instead, which counts nanoseconds where the file counts hundredths of a second.
func cpu(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		const processClock = 2 // CPUCLOCK_SCHED, of all threads
		var ts syscall.Timespec
		_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|processClock), uintptr(unsafe.Pointer(&ts)), 0)
		if errno == 0 {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// busy returns what all processors together have worked since the machine started, for whomever.
func busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// "cpu user nice system idle iowait irq softirq steal guest guest_nice", in hundredths of a second; guests are in user.
	f := strings.Fields(strings.SplitN(string(b), "\n", 2)[0])
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", f)
	}
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum, nil
}

// rss returns the resident memory of the process and its descendants, in bytes.
func (p *process) rss() (int64, error) {
	var sum int64
	for _, pid := range p.tree() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
				kib, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, err
				}
				sum += kib << 10
			}
		}
	}
	if sum == 0 {
		return 0, errors.New("no VmRSS in /proc")
	}
	return sum, nil
}

// raiseFiles lets this process and its children open as many files as they may: thousands of clients want one each.
func raiseFiles() error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return err
	}
	r.Cur = r.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r)
}

func freePorts(n int) ([]int, error) {
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

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
