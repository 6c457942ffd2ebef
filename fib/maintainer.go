package fib

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"rangefinder/rib"
)

// Maintainer keeps a Handle's table up to date with a rib.Table. One goroutine does both flips and compiles, each on the
// newest snapshot, so changes that arrive meanwhile coalesce.
type Maintainer struct {
	// constant
	source *rib.Table
	handle *Handle
	logger *slog.Logger
	build  func(*rib.Snapshot, *Table) (*Table, error) // build, but in tests
	stop   chan struct{}
	done   chan struct{}
	alive  chan struct{} // is received from between two updates: see Watchdog

	// owned by the goroutine (by Open before it runs)
	table *Table            // in the handle
	tried *rib.Ownership    // was last compiled: what fails is not tried again until it changes
	why   error             // how that ended
	split map[string]bool   // shards whose split brain has been logged
	past  map[string]string // by shard: the last Candidates.Past

	// atomic
	alarm    atomic.Pointer[string]
	compile  atomic.Uint64
	failures atomic.Uint64
	flips    atomic.Uint64

	// guarded by once
	open, close sync.Once
	opened      bool
}

// NewMaintainer makes a Maintainer, which is at rest until Open. A nil logger logs nothing.
func NewMaintainer(t *rib.Table, h *Handle, logger *slog.Logger) *Maintainer {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Maintainer{
		source: t, handle: h, logger: logger, build: build,
		stop: make(chan struct{}), done: make(chan struct{}), alive: make(chan struct{}),
		split: map[string]bool{}, past: map[string]string{},
	}
}

// Open brings the handle up to date before it returns, and keeps it so until Close.
func (m *Maintainer) Open() {
	m.open.Do(func() {
		m.opened = true
		m.update()
		go m.run()
	})
}

// Close stops and waits. The handle keeps the last table.
func (m *Maintainer) Close() {
	m.open.Do(func() {}) // an Open after Close does nothing
	m.close.Do(func() { close(m.stop) })
	if m.opened {
		<-m.done
	}
}

// Alarm is why the table in the handle is not that of the newest beliefs; "" if it is.
func (m *Maintainer) Alarm() string {
	if s := m.alarm.Load(); s != nil {
		return *s
	}
	return ""
}

// MaintainerStats counts what a Maintainer did.
type MaintainerStats struct {
	Compiles uint64 // tables made from a new ownership
	Failures uint64 // times that a table could not be made or brought up to date, and the last good one stayed
	Flips    uint64 // candidate lists swapped
}

// Stats is safe to call at any time.
func (m *Maintainer) Stats() MaintainerStats {
	return MaintainerStats{Compiles: m.compile.Load(), Failures: m.failures.Load(), Flips: m.flips.Load()}
}

func (m *Maintainer) run() {
	defer close(m.done)
	for {
		select {
		case <-m.stop:
			return
		case <-m.alive:
		case <-m.source.Changed():
			m.update()
		}
	}
}

// update brings the table up to the newest snapshot, or leaves the last good one in place and raises the alarm.
func (m *Maintainer) update() {
	s := m.source.Snapshot()
	if m.tried != s.Ownership {
		m.tried, m.why = s.Ownership, m.attempt("compile the ranges", func() error { return m.ranges(s) })
	}
	err := m.why
	// Health goes on even if the new ranges do not compile.
	if e := m.attempt("choose candidates", func() error { return m.health(s) }); err == nil {
		err = e
	}
	before := m.Alarm()
	if err == nil {
		if before != "" {
			m.logger.Info("the routing table is up to date again")
			m.alarm.Store(nil)
		}
		return
	}
	now := err.Error()
	if now != before { // the log tells first: who sees the alarm finds the reason there
		m.failures.Add(1)
		m.logger.Error("the routing table is not up to date: the last good one stays", "error", err)
	}
	m.alarm.Store(&now)
}

// attempt turns a panic into an error: a table that cannot be made must not take down the one that routes.
func (m *Maintainer) attempt(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot %s: panic: %v", what, p)
			if m.Alarm() == "" { // once, not with every change that follows
				m.logger.Error("panic in the routing table's maintenance", "doing", what, "panic", p, "stack", string(debug.Stack()))
			}
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

// ranges makes a table of the snapshot's ownership.
func (m *Maintainer) ranges(s *rib.Snapshot) error {
	t, err := m.build(s, m.table)
	if err != nil {
		return fmt.Errorf("epoch %s: %w", s.Ownership.Epoch, err)
	}
	m.table = t
	m.compile.Add(1)
	return nil
}

// health swaps the candidate lists that changed, and puts a new table into the handle once its slots are filled.
func (m *Maintainer) health(s *rib.Snapshot) error {
	if m.table == nil {
		return nil
	}
	if !m.table.knows(s) {
		m.table = m.table.withShards(s)
	}
	if swapped := m.table.flip(s, m.swaps); swapped > 0 || m.handle.Load() != m.table {
		m.handle.Store(m.table) // who waits for a change is woken by one
	}
	return nil
}

// swaps counts a list that is about to be swapped in, and logs what an operator must hear of it. The log tells first: who
// sees the list finds the reason there.
func (m *Maintainer) swaps(shard string, c *Candidates) {
	m.flips.Add(1)
	if c.SplitBrain && !m.split[shard] {
		m.logger.Error("split brain", "shard", shard, "reason", c.WritesReason)
	}
	m.split[shard] = c.SplitBrain
	if c.Past != "" && m.past[shard] != c.Past {
		m.logger.Error("two primaries", "shard", shard, "reason", c.Past)
	}
	m.past[shard] = c.Past
}
