package moving

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

const (
	// Patience is how long a new transaction waits for a frozen range.
	Patience = 5 * time.Second
	// MaxWaiting bounds the transactions of a node that wait at one time.
	MaxWaiting = 4096
	// lookAgain is when what was at work before a move was known is looked at again.
	lookAgain = 10 * time.Millisecond
)

// Work is something that was at work at a moment: a session's request or transaction.
type Work interface {
	// Over reports whether it has ended, so that what its owner does next is routed by a newer table.
	Over() bool
}

// Config is what Moves need.
type Config struct {
	FIB    *fib.Handle
	AtWork func() []Work // all that is at work, at some moment after the call; nil: nothing ever is
	News   func()        // what Say would say has changed; must not block; nil: nobody wants to know
}

// Moves are the moves that a node knows. Its methods are safe for concurrent use.
type Moves struct {
	// constant
	fib  *fib.Handle
	news func()
	left chan struct{} // capacity 1: somebody has left a range on which no new transaction begins

	// atomic
	atWork  atomic.Pointer[func() []Work]
	view    atomic.Pointer[View]
	waiting atomic.Int64
	held    atomic.Uint64 // transactions that have waited so far

	// guarded by mu
	mu      sync.Mutex
	changed chan struct{} // closed with the next view; nil: nobody waits for it
	settled rib.Epoch
	said    Said
}

// View is the moves as one table tells of them. It is immutable but for its crossings.
type View struct {
	epoch     rib.Epoch
	crossings []*Crossing
}

// Crossing is one move as this node sees it.
type Crossing struct {
	// constant
	ID    uint64
	moves *Moves

	// atomic
	phase   atomic.Uint32 // a rib.MovePhase: of the newest table; 0: gone
	running atomic.Int64  // transactions on its range

	before []Work // guarded by Moves.mu: what was at work when it became known, as far as it is not known to be over
}

// Said is what a node says of itself to the leader.
type Said struct {
	Applied rib.Epoch // of the table by which statements are routed
	Settled rib.Epoch // nothing that was routed by an older table is at work on a range that has changed hands since
	Drained []uint64  // moves, frozen or flipped, on whose range nothing of before runs any more
	Aware   []uint64  // moves that whatever is at work was routed with, at whatever phase
}

// New makes Moves that know of none.
func New(cfg Config) *Moves {
	if cfg.News == nil {
		cfg.News = func() {}
	}
	m := &Moves{fib: cfg.FIB, news: cfg.News, left: make(chan struct{}, 1)}
	m.view.Store(&View{})
	if cfg.AtWork != nil {
		m.atWork.Store(&cfg.AtWork)
	}
	return m
}

// Serve has the moves ask for what is at work from now on, before anything is.
func (m *Moves) Serve(atWork func() []Work) { m.atWork.Store(&atWork) }

// Run follows the table until ctx ends.
func (m *Moves) Run(ctx context.Context) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		changed := m.fib.Changed()
		m.Follow()
		if m.unsettled() {
			again.Reset(lookAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-m.left:
		case <-again.C:
		}
	}
}

// Follow brings the moves up to date with the table.
func (m *Moves) Follow() {
	m.mu.Lock()
	news := m.follow()
	m.mu.Unlock()
	if news {
		m.news()
	}
}

// follow reports whether there is something new to say. mu is held.
func (m *Moves) follow() bool {
	o := m.fib.Load().Ownership()
	old := m.view.Load()
	if o.Epoch != old.epoch {
		next := &View{epoch: o.Epoch}
		var work []Work
		asked := false
		for i := range o.Moves {
			move := &o.Moves[i]
			x := old.Crossing(move.ID)
			if x == nil {
				x = &Crossing{ID: move.ID, moves: m}
				// The table that tells of the move is in force: whoever is not at work now will know of it.
				if f := m.atWork.Load(); f != nil && !asked {
					work, asked = (*f)(), true
				}
				x.before = slices.Clone(work)
			}
			x.phase.Store(uint32(move.Phase))
			next.crossings = append(next.crossings, x)
		}
		for _, x := range old.crossings {
			if next.Crossing(x.ID) == nil {
				x.phase.Store(0)
			}
		}
		m.view.Store(next)
		if m.changed != nil {
			close(m.changed)
			m.changed = nil
		}
	}
	said := m.say()
	if said.Applied == m.said.Applied && said.Settled == m.said.Settled && slices.Equal(said.Drained, m.said.Drained) && slices.Equal(said.Aware, m.said.Aware) {
		return false
	}
	m.said = said
	return true
}

// unsettled reports whether there are moves of which it is not known yet whether something of before is at work on their range.
func (m *Moves) unsettled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.view.Load().crossings, func(x *Crossing) bool { return len(x.before) > 0 })
}

// say works out what there is to say. mu is held.
func (m *Moves) say() Said {
	v := m.view.Load()
	s := Said{Applied: v.epoch}
	settled := true
	for _, x := range v.crossings {
		if x.before = slices.DeleteFunc(x.before, Work.Over); len(x.before) == 0 {
			s.Aware = append(s.Aware, x.ID)
		}
		switch p := x.Phase(); {
		case p != rib.MoveFrozen && p != rib.MoveFlipped:
		case len(x.before) == 0 && x.running.Load() == 0:
			s.Drained = append(s.Drained, x.ID)
		case p == rib.MoveFlipped:
			settled = false
		}
	}
	if settled {
		m.settled = v.epoch
	}
	s.Settled = m.settled
	return s
}

// Say returns what there is to say at this moment.
func (m *Moves) Say() Said {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow()
	return m.said
}

// View returns the moves as they are known now.
func (m *Moves) View() *View { return m.view.Load() }

// Changed is closed when the view is no longer this one.
func (m *Moves) Changed(v *View) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.view.Load() != v {
		over := make(chan struct{})
		close(over)
		return over
	}
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// Wait notes that a transaction is about to wait; false: too many do. Every true is followed by a Waited.
func (m *Moves) Wait() bool {
	if m.waiting.Add(1) > MaxWaiting {
		m.waiting.Add(-1)
		return false
	}
	m.held.Add(1)
	return true
}

// Waited notes that it waits no more.
func (m *Moves) Waited() { m.waiting.Add(-1) }

// Waiting is how many transactions wait now, and how many have so far.
func (m *Moves) Waiting() (now int64, ever uint64) { return m.waiting.Load(), m.held.Load() }

// Crossing finds a move by its ID; nil if the view has none.
func (v *View) Crossing(id uint64) *Crossing {
	for _, x := range v.crossings {
		if x.ID == id {
			return x
		}
	}
	return nil
}

// Phase is that of the newest table; 0: the move is over.
func (x *Crossing) Phase() rib.MovePhase { return rib.MovePhase(x.phase.Load()) }

// Running is how many transactions are on the range.
func (x *Crossing) Running() int64 { return x.running.Load() }

// Enter counts a transaction that is about to run on the range, by a table that says that the move is being prepared. False: it is not
// any more, and the table is out of date.
func (x *Crossing) Enter() bool {
	x.running.Add(1)
	if x.Phase() == rib.MovePrepare {
		return true
	}
	x.Leave()
	return false
}

// Leave notes that such a transaction has ended.
func (x *Crossing) Leave() {
	if x.running.Add(-1) == 0 && x.Phase() != rib.MovePrepare {
		select {
		case x.moves.left <- struct{}{}:
		default:
		}
	}
}
