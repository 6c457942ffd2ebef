package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotInstalled means that no PostgreSQL server was found on this machine.
var ErrNotInstalled = errors.New("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin or PATH " +
	"(`make test` and `make demo` install it; by hand: apt-get install postgresql)")

// BinDir returns the folder of the newest PostgreSQL server's programs: of /usr/lib/postgresql/*/bin where Debian keeps
// them, else where PATH finds initdb. The error is ErrNotInstalled.
func BinDir() (string, error) { return binDir("/usr/lib/postgresql/*/bin", exec.LookPath) }

func binDir(pattern string, lookPath func(string) (string, error)) (string, error) {
	dirs, _ := filepath.Glob(pattern)
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range dirs {
		if complete(dir) {
			return dir, nil
		}
	}
	if path, err := lookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && complete(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	return "", ErrNotInstalled
}

// complete tells whether dir holds everything that a Farm runs.
func complete(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_basebackup"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// serverUser returns the user that servers must run as, nil meaning this process's own. PostgreSQL refuses to run as root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and this machine has neither a user postgres nor nobody")
}

// parentFolder returns the folder that a farm's own folder is made in. dir is the caller's wish, empty for a folder in memory
// if there is plenty, else the system's temporary one. As root the servers run as another user, who must be able to enter all the way down.
func parentFolder(dir string, cred *syscall.Credential) (string, error) {
	candidates := []string{dir}
	if dir == "" {
		candidates = []string{os.TempDir(), "/tmp", "/var/tmp"}
		if os.Getenv("TMPDIR") == "" && roomInMemory() {
			candidates = append([]string{memoryFolder}, candidates...)
		}
	}
	var last error
	for _, c := range candidates {
		abs, err := filepath.Abs(c)
		if err != nil {
			last = err
			continue
		}
		if last = enterable(abs, cred); last == nil {
			return abs, nil
		}
	}
	return "", last
}

// memoryFolder is where Linux offers a file system in memory. Nine servers are some 250 MB, all of it dirty pages: on a slow disk the
// kernel's writing them back delays everybody's fsync (a Raft log's, say) by seconds, and their removal as well.
const memoryFolder = "/dev/shm"

// roomInMemory tells whether memoryFolder has so much room that servers may live there without anybody missing it.
func roomInMemory() bool {
	var fs syscall.Statfs_t
	const tmpfs, gib = 0x01021994, 1 << 30
	if syscall.Statfs(memoryFolder, &fs) != nil || fs.Type != tmpfs || fs.Bavail*uint64(fs.Bsize) < 4*gib {
		return false
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return false
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	return err == nil && kib<<10 >= 8*gib
}

// enterable returns an error naming the first folder on the way to dir that cred's user may not enter.
func enterable(dir string, cred *syscall.Credential) error {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is not a folder", at)
		}
		if cred != nil && info.Mode().Perm()&0o001 == 0 {
			if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != cred.Uid {
				return fmt.Errorf("PostgreSQL cannot run as root, and its user (uid %d) may not enter %s: choose another folder", cred.Uid, at)
			}
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}
