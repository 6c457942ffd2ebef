package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// Processes of one node that others have taken over from still have sessions, which route by an old table, and nobody hears from them any
// more. So each process locks a file of its own, from before it has a session until after its last one, and the next one knows by the locks
// who is left. They end with the process, however it ends; and one that starts after a crash finds also those before the crashed one.
const elderFiles = "serving-*.lock"

// elders are the older processes of this node that live. It is owned by one goroutine at a time: Open's, then leaseLoop's.
type elders struct {
	locks []*os.File // each locked by another process, when it was last looked at
}

// lockServing locks this process's own file, and finds the elders. The data directory is locked by the caller, so nobody else looks for files.
func lockServing(dir string) (own *os.File, e elders, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, e, err
	}
	for _, entry := range entries {
		if ours, _ := filepath.Match(elderFiles, entry.Name()); !ours { // the pattern is well formed
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, entry.Name()), os.O_RDWR, 0)
		if err != nil {
			e.close()
			return nil, e, fmt.Errorf("is another process of this node alive? %w", err)
		}
		e.locks = append(e.locks, f)
	}
	e.living()
	if own, err = os.CreateTemp(dir, elderFiles); err == nil {
		if err = tryLock(own); err != nil {
			_ = os.Remove(own.Name())
			_ = own.Close()
		}
	}
	if err != nil {
		e.close()
		return nil, e, fmt.Errorf("lock a file in data_dir: %w", err)
	}
	return own, e, nil
}

// living returns how many are left.
func (e *elders) living() int {
	e.locks = slices.DeleteFunc(e.locks, func(f *os.File) bool {
		if tryLock(f) != nil { // for whatever reason: to take one for dead that lives would lose rows
			return false
		}
		_ = os.Remove(f.Name())
		_ = f.Close()
		return true
	})
	return len(e.locks)
}

func (e *elders) close() {
	for _, f := range e.locks {
		_ = f.Close()
	}
	e.locks = nil
}

// openElders is for openDir.
func (n *Node) openElders() error {
	own, elders, err := lockServing(n.dir.path)
	if err != nil {
		return err
	}
	n.elders = elders
	n.opened("serving", func() error {
		n.elders.close()
		_ = os.Remove(own.Name())
		return own.Close()
	})
	if left := n.elders.living(); left > 0 {
		n.log.Info("older processes of this node have sessions: ranges that change hands keep their fences until those have ended", "processes", left)
	}
	return nil
}

// acknowledge is what this node says with each question for a lease. As long as an older process of it lives, by whose table statements are
// still routed, nothing is settled.
func (n *Node) acknowledge() cluster.Acknowledgement {
	s := n.moves.Say()
	a := cluster.Acknowledgement{Applied: s.Applied, Settled: s.Settled, Drained: s.Drained, Aware: s.Aware}
	if before := len(n.elders.locks); before > 0 {
		if n.elders.living() > 0 {
			a.Settled = rib.Epoch{}
		} else {
			n.log.Info("the last of the older processes of this node has ended", "processes", before)
		}
	}
	return a
}
