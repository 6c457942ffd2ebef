package node

import (
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watchEvery is how often files are looked at: when what is in them is asked for, and not more often than this.
const watchEvery = time.Second

// watched is what was made of some files, made anew when they change. New files that are no good leave the old in force.
// Its methods are safe for concurrent use.
type watched[T any] struct {
	// constant
	what  string // for the log
	files []string
	load  func() (T, error)
	log   *slog.Logger
	now   func() time.Time
	begun time.Time

	// atomic
	current atomic.Pointer[T]
	next    atomic.Int64 // when to look again: nanoseconds since begun

	// guarded by mu
	mu      sync.Mutex
	seen    []os.FileInfo // of the files that current was made of
	failure string        // why the newest files are no good; "": they are
}

// watch loads for the first time: then files that are no good are an error.
func watch[T any](what string, files []string, log *slog.Logger, now func() time.Time, load func() (T, error)) (*watched[T], error) {
	w := &watched[T]{what: what, files: files, load: load, log: log, now: now, begun: now()}
	seen, err := w.look()
	if err != nil {
		return nil, err
	}
	v, err := load()
	if err != nil {
		return nil, err
	}
	w.current.Store(&v)
	w.seen = seen
	w.next.Store(int64(watchEvery))
	return w, nil
}

// Get returns what the files hold, or held when they were last good.
func (w *watched[T]) Get() T {
	since := int64(w.now().Sub(w.begun))
	// One caller looks; the others have no reason to wait for it.
	if since >= w.next.Load() && w.mu.TryLock() {
		if since >= w.next.Load() {
			w.reload()
			w.next.Store(since + int64(watchEvery))
		}
		w.mu.Unlock()
	}
	return *w.current.Load()
}

// reload makes it anew if a file has changed. mu is held.
func (w *watched[T]) reload() {
	seen, err := w.look() // before they are read: what changes meanwhile is seen next time
	if err == nil && w.same(seen) {
		w.failure = ""
		return
	}
	var v T
	if err == nil {
		v, err = w.load()
	}
	if err != nil {
		if w.failure != err.Error() {
			w.failure = err.Error()
			w.log.Error("the new files are no good, the old stay in force: "+w.what, "error", err)
		}
		return
	}
	w.current.Store(&v)
	w.seen, w.failure = seen, ""
	w.log.Info("read again: "+w.what, "files", w.files)
}

func (w *watched[T]) look() ([]os.FileInfo, error) {
	seen := make([]os.FileInfo, 0, len(w.files))
	for _, f := range w.files {
		info, err := os.Stat(f)
		if err != nil {
			return nil, err
		}
		seen = append(seen, info)
	}
	return seen, nil
}

func (w *watched[T]) same(seen []os.FileInfo) bool {
	for i, info := range seen {
		old := w.seen[i]
		if !os.SameFile(old, info) || !old.ModTime().Equal(info.ModTime()) || old.Size() != info.Size() {
			return false
		}
	}
	return true
}
