package pool

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/epoll"
	"rangefinder/wire/pg"
)

type backendPool struct {
	// constant
	cfg   *Config
	pools *Pools
	name  string
	addr  string
	ids   *atomic.Uint64
	watch *epoll.Set
	start time.Time // of all pools

	// atomic
	limits   *atomic.Pointer[Limits] // of all pools
	share    *atomic.Int64           // the same
	connects atomic.Uint64
	failures atomic.Uint64
	refusals atomic.Uint64
	resting  atomic.Bool // see Rest

	making  sync.WaitGroup  // connections that are being made
	ctx     context.Context // of them; constant
	cancel  context.CancelFunc
	backend *rib.Backend // constant

	// guarded by mu
	mu       sync.Mutex
	shelves  map[Identity]*Shelf // of all who have a connection, or are about to
	idleN    int
	total    int // idle, lent out and being connected
	queue    queue
	hopes    map[Identity]*hope
	underway map[*login]struct{}
	closed   bool
	conns    map[*Conn]struct{} // idle and lent out
	logins   map[Identity]int   // being connected
	waited   map[string]time.Duration
	renewals uint64                 // calls of Reconnect
	known    map[Identity]struct{}  // who has had connections here
	shunned  map[Identity]time.Time // whose standbys could not be made, until when none is tried

	connecting int // places in which a connection is being made, or is about to be
	down       *down
	full       map[Identity]*full
}

// bound is how many connections there may be.
func (bp *backendPool) bound() int {
	size := bp.limits.Load().Size
	if share := int(bp.share.Load()); share >= 0 {
		return min(size, share)
	}
	return size
}

func (bp *backendPool) get(ctx context.Context, b *rib.Backend, id Identity, claim Claim) (*Conn, error) {
	var deadline time.Time // of the wait in line, from its beginning on
	var old *Conn
	for place := false; ; {
		bp.mu.Lock()
		if bp.closed {
			if place {
				bp.connecting--
				bp.leave(id)
			}
			bp.mu.Unlock()
			if old != nil {
				old.close()
			}
			return nil, ErrClosed
		}
		if !place {
			if c := bp.lend(bp.shelves[id]); c != nil {
				bp.mu.Unlock()
				if c.usable(claim.Sure) {
					claim.placed()
					return c, nil
				}
				c.Discard()
				continue
			}
			if err := bp.unreachable(id); err != nil {
				bp.mu.Unlock()
				return nil, err
			}
			old, place = bp.place(id)
		}
		w := &waiter{id: id, by: claim.By, grant: make(chan grant, 1)}
		if place {
			bp.hope(ctx, b, w, old)
		} else {
			again := !deadline.IsZero()
			if !again {
				deadline = time.Now().Add(bp.limits.Load().Wait)
			}
			bp.queue.push(w, again || claim.By.holds())
		}
		bp.mu.Unlock()

		if place {
			claim.placed()
		}
		since := time.Now()
		g, err := bp.wait(ctx, w, deadline)
		took := time.Since(since)
		bp.mu.Lock()
		bp.waited[id.Database] += took
		bp.mu.Unlock()
		if err == errQueue {
			place, old = false, nil
			continue
		}
		if err != nil {
			return nil, err
		}
		claim.placed()
		if g.conn != nil {
			return g.conn, nil
		}
		place, old = true, g.old
	}
}

// place takes one for a login, if there is any and nobody is in line for it; old has to go for it. mu is held.
func (bp *backendPool) place(id Identity) (old *Conn, ok bool) {
	if bp.queue.lines[id] != nil || !bp.mayConnect() || bp.isFull(id) {
		return nil, false
	}
	if old, ok = bp.room(id); ok {
		bp.take(id)
	}
	return old, ok
}

// wait is for a grant: until the deadline for who stands in line, and for as long as it takes for who hopes, whose login has a bound of its own.
func (bp *backendPool) wait(ctx context.Context, w *waiter, deadline time.Time) (grant, error) {
	var late <-chan time.Time
	var looks <-chan time.Time
	if w.login == nil {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
		if w.by != nil {
			tick := time.NewTicker(jamLook)
			defer tick.Stop()
			looks = tick.C
		}
	}
	var err error
	for done := false; !done; {
		select {
		case g, ok := <-w.grant:
			return granted(g, ok)
		case <-looks:
			if bp.pools.jams(w.by) {
				err, done = ErrJam, true
			}
		case <-late:
			done = true
		case <-ctx.Done():
			err, done = ctx.Err(), true
		}
	}
	bp.mu.Lock()
	defer bp.mu.Unlock()
	select {
	case g, ok := <-w.grant: // granted at the last moment: take it after all
		return granted(g, ok)
	default:
	}
	if w.login != nil {
		bp.despair(w)
		return grant{}, err
	}
	bp.queue.remove(w)
	if err == nil {
		err = &ExhaustedError{Backend: bp.name, Size: bp.bound(), Wait: bp.limits.Load().Wait, Full: bp.words(w.id)}
	}
	return grant{}, err
}

func granted(g grant, ok bool) (grant, error) {
	if !ok {
		return g, ErrClosed
	}
	return g, g.err
}

func (bp *backendPool) release(c *Conn) {
	switch {
	case bp.shelve(c):
	case c.usable(false):
		c.Bye()
	default: // its backend has closed it meanwhile
		c.Discard()
	}
}

// shelve gives a connection to who waits for it, or keeps it. It returns false if it is to be closed: if somebody waits, its place is
// what he gets then.
func (bp *backendPool) shelve(c *Conn) bool {
	now := time.Since(bp.start)
	bp.mu.Lock()
	defer bp.mu.Unlock()
	if bp.closed || c.worn || bp.total > bp.bound() || c.old(now, bp.limits.Load().Lifetime) {
		return false
	}
	if bp.queue.n > 0 {
		if !c.usable(false) {
			return false
		}
		if bp.pass(c) {
			return true
		}
	}
	if h := bp.hopes[c.Identity]; h != nil && len(h.waiters) > 0 && c.usable(false) {
		bp.lent(c)
		h.serve(h.waiters[0], grant{conn: c})
		return true
	}
	if bp.resting.Load() { // and nobody has use for it
		return false
	}
	c.since = now
	c.shelf.idle = append(c.shelf.idle, c)
	bp.idleN++
	return true
}

// forget gives up the place of a connection that is gone.
func (bp *backendPool) forget(c *Conn) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	bp.lose(c)
	delete(bp.full, c.Identity) // there may be room now
	bp.fill()
}

// popIdle takes the connection that was used last from s, which may be nil. mu is held.
func (bp *backendPool) popIdle(s *Shelf) *Conn {
	if s == nil || len(s.idle) == 0 {
		return nil
	}
	last := len(s.idle) - 1
	c := s.idle[last]
	s.idle[last] = nil
	s.idle = s.idle[:last]
	bp.idleN--
	return c
}

// lend takes the connection that was used last from s, which may be nil, for somebody who has use for it. mu is held.
func (bp *backendPool) lend(s *Shelf) *Conn {
	c := bp.popIdle(s)
	if c != nil {
		bp.lent(c)
	}
	return c
}

// lent notes that somebody has use for a connection. mu is held.
func (bp *backendPool) lent(c *Conn) {
	if c.spare {
		c.spare = false
		bp.known[c.Identity] = struct{}{}
	}
}

func (bp *backendPool) popAnyIdle() *Conn {
	if bp.idleN == 0 {
		return nil
	}
	for _, s := range bp.shelves {
		if c := bp.popIdle(s); c != nil {
			return c
		}
	}
	return nil
}

// reap closes what is too old, was idle for too long, or was closed by its backend.
func (bp *backendPool) reap(t *tending) {
	now, limits := time.Since(bp.start), bp.limits.Load()
	bp.mu.Lock()
	var gone, spare []*Conn
	for id, s := range bp.shelves {
		most, l := s.held, s.idle // most: that may go for being idle
		if t.present(id) {
			most -= bp.least(id, t.standby[place{bp, id}])
		}
		kept := l[:0]
		for _, c := range l { // the one that was idle for longest is first
			switch {
			case !c.quiet():
				gone = append(gone, c)
			case c.old(now, limits.Lifetime):
				spare = append(spare, c)
			case most > 0 && c.spare && !t.standby[place{bp, id}]: // it stands by for nothing any more, or takes what others need
				bp.shunned[id] = time.Now().Add(shunFor)
				spare = append(spare, c)
			case most > 0 && limits.Idle > 0 && now-c.since > limits.Idle:
				spare = append(spare, c)
			default:
				kept = append(kept, c)
				continue
			}
			most--
		}
		clear(l[len(kept):])
		s.idle = kept
	}
	bp.idleN -= len(gone) + len(spare)
	for id, f := range bp.full {
		if time.Since(f.until) > time.Minute && bp.queue.lines[id] == nil {
			delete(bp.full, id)
		}
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.Discard()
	}
	farewell(spare)
}

func (bp *backendPool) close() {
	bp.mu.Lock()
	bp.closed = true
	bp.cancel() // who hopes hears that it is closed
	var gone []*Conn
	for _, s := range bp.shelves {
		gone = append(gone, s.idle...)
		s.idle = nil
	}
	bp.idleN = 0
	for el := bp.queue.turns.Front(); el != nil; el = bp.queue.turns.Front() {
		w := el.Value.(*line).waiters.Front().Value.(*waiter)
		bp.queue.remove(w)
		close(w.grant)
	}
	bp.mu.Unlock()
	for _, c := range gone {
		c.abrupt(false)
		c.Net.SetWriteDeadline(time.Now().Add(goodbye))
		c.Net.Write(pg.AppendTerminate(nil))
		c.Discard()
	}
}
