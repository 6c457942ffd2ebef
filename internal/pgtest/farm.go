package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrClosed is returned by a Farm that was closed.
var ErrClosed = errors.New("the farm of PostgreSQL servers is closed")

// Farm owns a temporary folder and the PostgreSQL servers in it. Its methods may be called concurrently.
type Farm struct {
	// constant
	dir   string
	bin   string
	cred  *syscall.Credential // of the servers; nil: this process's own
	lock  *os.File            // held while this process lives: others remove folders whose lock is free
	start *starter
	net   Network // nil: this process's own

	template template // guarded by its own mu

	// guarded by mu
	mu      sync.Mutex
	servers []*Server
	count   int // of servers ever made: names their folders
	closed  bool
}

// Folders are made under the first name and renamed once their lock is held, so a folder of the second name with a free
// lock belongs to a dead process.
const (
	newFolder  = "rangefinder-new-"
	farmFolder = "rangefinder-pg-"
)

// Network is another network than this process's own: a namespace of the kernel's.
type Network interface {
	// Enter moves the calling thread there, for good.
	Enter() error
	// Dial connects from there.
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// Open finds PostgreSQL and makes a folder for its servers inside dir. "" is a place in memory if there is plenty of it, else
// the system's temporary folder; the environment's TMPDIR overrides that. Folders and servers left behind there by processes
// that died are removed. The error is ErrNotInstalled if there is no PostgreSQL.
func Open(ctx context.Context, dir string) (*Farm, error) { return OpenIn(ctx, dir, nil) }

// OpenIn is Open for servers and programs that live in another network; nil is this process's own. There each server must be given its
// address and port.
func OpenIn(ctx context.Context, dir string, network Network) (*Farm, error) {
	bin, err := BinDir()
	if err != nil {
		return nil, err
	}
	cred, err := serverUser()
	if err != nil {
		return nil, err
	}
	parent, err := parentFolder(dir, cred)
	if err != nil {
		return nil, err
	}
	sweep(parent)
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	fresh, err := os.MkdirTemp(parent, newFolder)
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(fresh)
	if err != nil {
		_ = os.RemoveAll(fresh)
		return nil, err
	}
	final := filepath.Join(parent, farmFolder+strings.TrimPrefix(filepath.Base(fresh), newFolder))
	if err = os.Chmod(fresh, 0o711); err == nil { // #nosec: the server's user must enter it
		err = os.Rename(fresh, final)
	}
	if err != nil {
		_ = lock.Close()
		_ = os.RemoveAll(fresh)
		return nil, err
	}
	enter := func() error { return nil }
	if network != nil {
		enter = network.Enter
	}
	start, err := newStarter(enter)
	if err != nil {
		_ = lock.Close()
		_ = os.RemoveAll(final)
		return nil, fmt.Errorf("enter the network: %w", err)
	}
	return &Farm{dir: final, bin: bin, cred: cred, lock: lock, start: start, net: network, template: template{password: rand.Text()}}, nil
}

// Dir returns the farm's folder. It is removed by Close.
func (f *Farm) Dir() string { return f.dir }

// Bin returns the folder of PostgreSQL's programs.
func (f *Farm) Bin() string { return f.bin }

// Close kills every server at once, without a shutdown, and removes the folder. It waits until no process is left.
func (f *Farm) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	servers := f.servers
	f.mu.Unlock()

	var errs []error
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, s := range servers {
		wg.Go(func() {
			if err := s.Kill(); err != nil && !errors.Is(err, ErrNotRunning) {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// What Kill cannot know of: a program cut off in the middle, a child that was orphaned.
	errs = append(errs, killInside(f.dir))
	f.start.close()
	errs = append(errs, os.RemoveAll(f.dir), f.lock.Close())
	return errors.Join(errs...)
}

// immediateShutdown is what PostgreSQL takes as: end now, with all children. It ends its other programs, too.
const immediateShutdown = syscall.SIGQUIT

// Start starts another program beside the servers, as this process's user: it is killed when this process dies, and, if its
// working folder is inside Dir, at the latest by Close. The caller waits for cmd.
func (f *Farm) Start(cmd *exec.Cmd) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	return f.start.start(cmd, nil, syscall.SIGKILL)
}

// lockFolder takes the lock that says that folder's owner lives. It is given back by closing the file, or by death.
func lockFolder(folder string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", folder, err)
	}
	return file, nil
}

// sweep removes what dead processes left in parent. Whatever goes wrong, the next one tries again.
func sweep(parent string) {
	folders, _ := filepath.Glob(filepath.Join(parent, farmFolder+"*"))
	for _, folder := range folders {
		lock, err := lockFolder(folder)
		if err != nil {
			continue
		}
		if killInside(folder) == nil {
			pids, _ := filepath.Glob(filepath.Join(folder, "*", "data", "postmaster.pid"))
			for _, p := range pids {
				removeSharedMemory(filepath.Dir(p))
			}
			_ = os.RemoveAll(folder)
		}
		_ = lock.Close()
	}
	// Half-made ones hold nothing but a lock file and live for an instant.
	folders, _ = filepath.Glob(filepath.Join(parent, newFolder+"*"))
	for _, folder := range folders {
		if info, err := os.Stat(folder); err == nil && time.Since(info.ModTime()) > 10*time.Minute {
			_ = os.RemoveAll(folder)
		}
	}
}

// register reserves a name and a folder, owned by the servers' user, for a new server.
func (f *Farm) register(kind string, s *Server) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	f.count++
	if s.name == "" {
		s.name = fmt.Sprintf("%s_%d", kind, f.count)
	}
	s.dir = filepath.Join(f.dir, fmt.Sprintf("%d-%s", f.count, kind))
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	f.servers = append(f.servers, s)
	return f.own(s.dir)
}

// FixedAddresses has all servers that are started from now on keep the same code and data at the same addresses of theirs, for measurements.
// Processors predict branches by address: of two servers that take turns on one processor, each with addresses of its own, PostgreSQL's
// processes need up to a fifth more time for a statement than where there is one server, as on a machine of its own. A kernel may forbid it.
func (f *Farm) FixedAddresses() error { return f.start.fixedAddresses() }

// own gives a file or folder to the servers' user.
func (f *Farm) own(path string) error {
	if f.cred == nil {
		return nil
	}
	return os.Chown(path, int(f.cred.Uid), int(f.cred.Gid))
}

// run runs one of PostgreSQL's programs to its end. The error holds what it printed.
func (f *Farm) run(ctx context.Context, dir string, env []string, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(f.bin, program), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = dir
	cmd.Env = append(environment(), env...)
	cmd.WaitDelay = 5 * time.Second
	if err := f.start.start(cmd, f.cred, immediateShutdown); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// environment is what PostgreSQL's programs get to see: nothing of PG*, which would change what they do.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}
