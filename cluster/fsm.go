package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// fsm is Raft's view of the state machine. Raft calls its methods from one goroutine.
type fsm struct {
	log     *slog.Logger // constant
	publish func()       // constant: there is a newer draft

	st *state // owned by Raft's goroutine for the state machine

	applied atomic.Uint64             // index of the last command applied
	current atomic.Pointer[draft]     // st.now, for readers
	stamp   atomic.Pointer[time.Time] // the latest stamp, for proposers
	past    atomic.Pointer[[]Event]   // the history, for readers
	stalled atomic.Pointer[string]    // why no more commands are applied; nil: they are
	steps   steps                     // the last commands, for those who follow
}

var _ raft.FSM = (*fsm)(nil)

func newFSM(log *slog.Logger, publish func()) *fsm {
	f := &fsm{log: log, publish: publish, st: newState()}
	f.current.Store(f.st.now)
	return f
}

// Apply carries out a committed command and returns a result.
func (f *fsm) Apply(l *raft.Log) any {
	if why := f.stalled.Load(); why != nil {
		return result{err: errors.New(*why)}
	}
	c, err := decodeCommand(l.Data)
	if err != nil {
		// Going on without this command would give this node another table than the others have.
		why := fmt.Sprintf("command %d: %v", l.Index, err)
		f.stalled.Store(&why)
		f.log.Error("the ledger stopped on this node; it serves what it knows", slog.String("why", why))
		return result{err: err}
	}
	x := step{before: f.st.now.Epoch, nextID: f.st.nextID, stamp: f.st.stamp, data: l.Data}
	r := f.st.apply(l.Index, c, l.Data)
	f.applied.Store(l.Index)
	if r.changed {
		x.after = f.st.now.Epoch
		f.steps.add(x)
		f.show()
		f.publish()
	}
	return r
}

// show gives the state to readers.
func (f *fsm) show() {
	past := f.st.history.last()
	stamp := f.st.stamp
	f.past.Store(&past)
	f.stamp.Store(&stamp)
	f.current.Store(f.st.now)
}

// Snapshot returns the state as it is now.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if why := f.stalled.Load(); why != nil {
		// A snapshot would claim the commands that were not applied.
		return nil, errors.New(*why)
	}
	return &fsmSnapshot{f.st.copyForSnapshot()}, nil
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxEncoded+1))
	if err != nil {
		return err
	}
	s, err := decodeState(b)
	if err != nil {
		return fmt.Errorf("restore the ledger from a snapshot: %w", err)
	}
	f.st = s
	f.stalled.Store(nil)
	f.show()
	f.applied.Store(s.now.Epoch.Index)
	f.publish()
	return nil
}

type fsmSnapshot struct{ st *state }

// Persist writes the snapshot.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	b, err := s.st.encode()
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: the garbage collector does.
func (s *fsmSnapshot) Release() {}
