package fib

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// watchdogPause lies between two rounds of a Watchdog, and between two looks at whether they go on.
const watchdogPause = 500 * time.Millisecond

// Watchdog goes the way of a statement again and again: it loads the table that statements read, looks up a key of each
// keyspace, and picks backends; and it asks the Maintainer whether it still takes news. If one round does not come back in
// time, or finds another owner than the ledger gave, it says so, once. What to do then is for the process to decide: one that
// cannot dispatch is better replaced than mended.
//
// It counts its own ticks, and does not read the clock: a process that was stopped for an hour is not stuck when it goes on.
type Watchdog struct {
	// constant
	handle     *Handle
	maintainer *Maintainer
	limit      func() time.Duration
	stuck      func(why string)
	stop       chan struct{}
	wg         sync.WaitGroup

	// atomic
	rounds atomic.Uint64
	doing  atomic.Pointer[string]

	// guarded by once
	open, close, bark sync.Once
}

// NewWatchdog makes a Watchdog, which is at rest until Open. limit is how long one round may take, and is asked again and
// again; 0: as long as it likes. stuck is called once at most, and may end the process.
func NewWatchdog(h *Handle, m *Maintainer, limit func() time.Duration, stuck func(why string)) *Watchdog {
	return &Watchdog{handle: h, maintainer: m, limit: limit, stuck: stuck, stop: make(chan struct{})}
}

// Open begins. The Maintainer must be open.
func (w *Watchdog) Open() {
	w.open.Do(func() {
		w.wg.Go(w.walk)
		w.wg.Go(w.watch)
	})
}

// Close stops and waits. Close it before the Maintainer.
func (w *Watchdog) Close() {
	w.open.Do(func() {}) // an Open after Close does nothing
	w.close.Do(func() { close(w.stop) })
	w.wg.Wait()
}

// Rounds is how many rounds have come back.
func (w *Watchdog) Rounds() uint64 { return w.rounds.Load() }

// walk makes the rounds.
func (w *Watchdog) walk() {
	tick := time.NewTicker(watchdogPause)
	defer tick.Stop()
	for {
		if wrong := w.round(); wrong != "" {
			w.bark.Do(func() { w.stuck(wrong) })
			return
		}
		w.rounds.Add(1)
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
	}
}

// round dispatches once for each keyspace, and tells what came out wrong.
func (w *Watchdog) round() (wrong string) {
	w.does("dispatching")
	t := w.handle.Load()
	for i := range t.ownership.Keyspaces {
		k := &t.ownership.Keyspaces[i]
		w.does("dispatching in keyspace " + k.Name)
		want := &k.Ranges[rand.IntN(len(k.Ranges))]
		owner, ok := t.Lookup(k.ID, want.From)
		if !ok {
			return fmt.Sprintf("keyspace %s is not in the table", k.Name)
		}
		if owner.Slot == nil {
			if want.Shard != "" {
				return fmt.Sprintf("keyspace %s: the key %x goes to nobody, and belongs to %s", k.Name, []byte(want.From), want.Shard)
			}
			continue
		}
		if shard := owner.Slot.Shard(); owner.Range.Shard != want.Shard || shard != want.Shard {
			return fmt.Sprintf("keyspace %s: the key %x goes to %s, and belongs to %s", k.Name, []byte(want.From), shard, want.Shard)
		}
		c := owner.Slot.Candidates()
		astray := func(what string, hop *NextHop) string {
			if hop.Backend.Shard == want.Shard {
				return ""
			}
			return fmt.Sprintf("keyspace %s: a %s of the key %x goes to backend %s, which is %s's and not %s's", k.Name, what, []byte(want.From),
				hop.Backend.Name, hop.Backend.Shard, want.Shard)
		}
		if first := c.PickRead(rand.Uint32()); first >= 0 {
			wrong = astray("read", &c.Reads[first])
		}
		if len(c.Writes) > 0 && wrong == "" {
			wrong = astray("write", &c.Writes[0])
		}
		if wrong != "" {
			return wrong
		}
	}
	w.does("asking whether the table is kept up to date")
	select {
	case w.maintainer.alive <- struct{}{}:
	case <-w.maintainer.done:
	case <-w.stop:
	}
	return ""
}

// does notes what would be stuck.
func (w *Watchdog) does(what string) { w.doing.Store(&what) }

// watch sees to it that the rounds go on.
func (w *Watchdog) watch() {
	tick := time.NewTicker(watchdogPause)
	defer tick.Stop()
	waited, last := time.Duration(0), w.rounds.Load()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		waited += watchdogPause
		if rounds := w.rounds.Load(); rounds != last {
			waited, last = 0, rounds
		}
		if limit := w.limit(); limit > 0 && waited > limit { // the round may have begun a pause after the last one ended
			w.bark.Do(func() { w.stuck(fmt.Sprintf("stuck for more than %s while %s", limit, *w.doing.Load())) })
			return
		}
	}
}
