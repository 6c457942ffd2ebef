package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// starter starts processes from one OS thread that lives as long as the starter. The kernel sends the parent-death signal
// when the thread that forked ends, not the process; Go moves goroutines between threads and ends idle ones, so a server
// started from any goroutine could be shut down at any time.
type starter struct {
	calls chan func()
	done  chan struct{}
}

// newStarter's thread does enter first: it may go into another network, and whatever is started there with it.
func newStarter(enter func() error) (*starter, error) {
	s := &starter{calls: make(chan func()), done: make(chan struct{})}
	entered := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := enter()
		if entered <- err; err != nil {
			return
		}
		for call := range s.calls {
			call()
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	return s, nil
}

// start starts cmd, which gets the signal atDeath when this process ends. It has a session of its own, so that Ctrl-C at the
// terminal reaches this process alone, which knows in which order to stop things.
func (s *starter) start(cmd *exec.Cmd, cred *syscall.Credential, atDeath syscall.Signal) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: atDeath, Credential: cred}
	result := make(chan error)
	s.calls <- func() { result <- cmd.Start() }
	return <-result
}

// fixedAddresses has every process that is started from now on be loaded at the addresses it would have without randomization.
func (s *starter) fixedAddresses() error {
	const (
		ask           = 0xffffffff // changes nothing
		noRandomizing = 0x0040000  // ADDR_NO_RANDOMIZE of <sys/personality.h>
	)
	result := make(chan error)
	s.calls <- func() {
		old, _, errno := syscall.Syscall(syscall.SYS_PERSONALITY, ask, 0, 0)
		if errno == 0 {
			_, _, errno = syscall.Syscall(syscall.SYS_PERSONALITY, old|noRandomizing, 0, 0)
		}
		if errno != 0 {
			result <- fmt.Errorf("personality: %w", errno)
			return
		}
		result <- nil
	}
	return <-result
}

func (s *starter) close() {
	close(s.calls)
	<-s.done
}

// family returns the pids of the postmaster pid and of its children, the postmaster first. A process group would not do:
// every PostgreSQL child calls setsid. The postmaster should be stopped, or it may fork meanwhile.
func family(pid int) []int {
	pids := []int{pid}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent := procStat(child); parent == pid {
			pids = append(pids, child)
		}
	}
	return pids
}

// procStat returns the state letter of a process ('R', 'S', 'T', 'Z', ...; 0 if there is none) and its parent.
func procStat(pid int) (state byte, parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// "pid (name) state ppid ...": the name may hold anything, so count from its closing parenthesis.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 || len(fields[0]) != 1 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1])
	return fields[0][0], parent
}

// alive tells whether a process still runs. A zombie does not.
func alive(pid int) bool {
	state, _ := procStat(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// stopFamily stops the postmaster and then all its children, and returns them. None can be born meanwhile.
func stopFamily(pid int) ([]int, error) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("stop postmaster %d: %w", pid, err)
	}
	// The signal is asynchronous: the postmaster may be in the middle of a fork.
	err := waitFor(5*time.Second, func() error {
		if state, _ := procStat(pid); state != 'T' && alive(pid) {
			return fmt.Errorf("postmaster %d does not stop", pid)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pids := family(pid)
	for _, p := range pids[1:] {
		_ = syscall.Kill(p, syscall.SIGSTOP)
	}
	return pids, nil
}

// signalAll sends sig to every pid, ignoring those that are gone.
func signalAll(pids []int, sig syscall.Signal) {
	for _, p := range pids {
		_ = syscall.Kill(p, sig)
	}
}

// gone waits until none of pids runs.
func gone(pids []int, timeout time.Duration) error {
	return waitFor(timeout, func() error {
		for _, p := range pids {
			if alive(p) {
				return fmt.Errorf("process %d still runs", p)
			}
		}
		return nil
	})
}

// killInside kills every process whose working folder is dir or below: PostgreSQL's processes stand in their data folder.
func killInside(dir string) error {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && strings.HasPrefix(cwd, dir+string(filepath.Separator)) {
			pids = append(pids, pid)
		}
	}
	signalAll(pids, syscall.SIGKILL)
	return gone(pids, 10*time.Second)
}

// removeSharedMemory removes the System V segment that a killed server leaves behind (a small interlock; a machine has only
// 4096 of them). Line 7 of postmaster.pid holds its key and id.
func removeSharedMemory(data string) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 {
		return
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return
	}
	if id, err := strconv.Atoi(fields[1]); err == nil {
		const ipcRemove = 0 // IPC_RMID
		_, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, uintptr(id), ipcRemove, 0)
	}
}
