package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Files of a data directory. The ledger keeps its own beside them, in ledgerDir.
const (
	stateFile   = "state.json"
	lockFile    = "lock"
	ledgerDir   = "ledger"
	stateFormat = 1
	maxState    = 1 << 20 // bytes of state.json
	maxPeers    = 256     // remembered for a restart

	peersKept = 24 * time.Hour // for which peers that only the process before has met are kept
)

// State is what a node must still know after a restart. It is small and written whole.
type State struct {
	Format      int      `json:"format"`      // of this file; 1
	Node        string   `json:"node"`        // this node's name
	ClusterID   string   `json:"cluster_id"`  // 32 hex digits, made once by the first node
	Incarnation uint32   `json:"incarnation"` // boots counted; what gossip says about this node is ordered by it
	Bootstrap   bool     `json:"bootstrap"`   // this node made the cluster and has not yet written the ledger's first entry
	Peers       []string `json:"peers"`       // cluster ports last seen, host:port
	Region      string   `json:"region"`      // as of the last start, to notice a data directory that was moved
}

// Errors of a data directory.
var (
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrState: state.json is there but cannot be trusted. It is never taken for a first start: that could make a second cluster.
	ErrState = errors.New("state file is damaged")
)

// dataDir is an open data directory: locked, with its state in hand. One goroutine at a time writes it.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory if it is missing and locks it for this process. The lock ends with the process, however it ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, &Failure{Message: fmt.Sprintf("cannot use data_dir: %v", err), Hint: "Set data_dir (or --data-dir) to a directory that this user may write.", Err: err}
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &Failure{Message: fmt.Sprintf("cannot use data_dir: %v", err), Hint: "Set data_dir (or --data-dir) to a directory that this user may write.", Err: err}
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &Failure{
				Message: fmt.Sprintf("%v: %s", ErrLocked, path),
				Hint:    "Another rangefinder runs with this data_dir: stop it, or give this node a directory of its own.",
				Err:     ErrLocked,
			}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

// tryLock locks a file for this process, until it is closed.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// Close gives the directory up.
func (d *dataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	return err
}

// Reopen locks the directory again after a Close. It is ErrLocked as long as somebody else has it.
func (d *dataDir) Reopen() error {
	again, err := openDataDir(d.path)
	if err == nil {
		d.lock = again.lock
	}
	return err
}

// Load reads the state. found is false before the first start; whatever is there but cannot be read is ErrState.
func (d *dataDir) Load() (s State, found bool, err error) {
	f, err := os.Open(filepath.Join(d.path, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return s, false, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if err := json.Unmarshal(text, &s); err != nil || len(text) > maxState || s.Format != stateFormat || s.Node == "" || s.ClusterID == "" {
		detail := fmt.Sprintf("%s cannot be read: %v", f.Name(), err)
		switch {
		case err == nil && s.Format > stateFormat:
			detail = fmt.Sprintf("%s has format %d, this version knows %d", f.Name(), s.Format, stateFormat)
		case err == nil:
			detail = f.Name() + " lacks the node's name or the cluster's id"
		}
		return State{}, false, &Failure{
			Message: ErrState.Error(),
			Detail:  detail,
			Hint:    "Restore the file from a backup, or empty the whole data_dir and start again with --join: this node then joins as a new one.",
			Err:     ErrState,
		}
	}
	return s, true, nil
}

// keptFile begins each file of what other nodes say again: it may be lost, but must not be another cluster's.
type keptFile struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
}

// check refuses what another version has written, or a node of another cluster.
func (k keptFile) check(want keptFile) error {
	switch {
	case k.Format != want.Format:
		return fmt.Errorf("it has format %d, this version knows %d", k.Format, want.Format)
	case k.ClusterID != want.ClusterID:
		return fmt.Errorf("it is of cluster %q, not of %q", k.ClusterID, want.ClusterID)
	}
	return nil
}

// readKept reads such a file up to a size. found is false if there is none.
func (d *dataDir) readKept(name string, most int64) (text []byte, found bool, err error) {
	f, err := os.Open(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, most))
	return text, err == nil, err
}

// Save writes the state so that after a crash at any point either the old or the new one is there, whole.
func (d *dataDir) Save(s State) error {
	s.Format = stateFormat
	if len(s.Peers) > maxPeers {
		s.Peers = s.Peers[:maxPeers]
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return writeFileAtomic(filepath.Join(d.path, stateFile), append(text, '\n'))
}

// HasLedger reports whether the directory holds a ledger, whatever state.json says.
func (d *dataDir) HasLedger() bool {
	entries, err := os.ReadDir(filepath.Join(d.path, ledgerDir))
	return err == nil && len(entries) > 0
}

// writeFileAtomic replaces a file by way of a temporary one: written, synced, renamed, and the directory synced.
func writeFileAtomic(path string, text []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // fails, as it should, once the rename is done
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// newClusterID makes the id that keeps strangers' clusters apart.
func newClusterID() string { return randomHex(16) }

// newNodeName is a region and four hex digits, for nodes that were given no name.
func newNodeName(region string) string { return region + "-" + randomHex(2) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails; crypto/rand crashes the process if the system has no randomness
	return hex.EncodeToString(b)
}
