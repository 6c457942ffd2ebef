package wire

import (
	"context"
	"errors"
	"slices"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// This file is about statements whose shard has no primary that takes them: it is dead, it has become a replica, or nobody knows one
// yet. Nothing of them has been sent, or they are plain reads of which the client has seen nothing; so they wait for the next primary,
// which is usually promoted within seconds: outside the gate, so that PAUSE need not wait for them, and without a connection. The
// forwarding table says when there is one. A write that was on its way when the old primary died is not sent again: its fate is unknown.

var (
	// errStandby is that the backend which gets the shard's writes is a replica, by its own word at a login a moment ago.
	errStandby = errors.New("it is a replica by now")
	// errPassed is that the shard has got another primary while a connection to this one was waited for.
	errPassed = errors.New("another backend has become the primary")
	// errBroken is that the connection was lost before the request itself was sent on it.
	errBroken = errors.New("the connection was lost before anything of the statement was sent")
)

// primaryRetry is when a primary that the table thinks well of is tried again although nothing new is known of it.
const primaryRetry = time.Second

// noPrimary reports whether a write that could not have its connection for that reason may wait for another primary.
func noPrimary(err error) bool {
	var ce *pool.ConnectError
	return errors.As(err, &ce) && ce.Elsewhere() || errors.Is(err, errStandby) || errors.Is(err, errPassed) || errors.Is(err, errBroken)
}

// stall has the request in hand wait for its shard's next primary; e is its answer if none comes.
func (c *core) stall(e *pg.Error) { c.noPrimary = e }

// hasPrimary reports whether the shard has a primary to go on with. One that has just been tried is not, as long as nothing new is
// known of it, unless it is to be tried again.
func (c *core) hasPrimary(again bool) bool {
	slot := c.slotNow(c.env.fib.Load())
	if slot == nil {
		return false
	}
	list := slot.For(c.db)
	return len(list.Writes) > 0 && list.Writes[0].Healthy && (again || list != c.list)
}

// slotNow is the slot that the request in hand needs, in a newer table.
func (c *core) slotNow(t *fib.Table) *fib.Slot { return t.Slot(c.srvShard) }

// resume has the request that waits go on.
func (c *core) resume() {
	c.noPrimary = nil
	before := c.list.Writes
	c.anew()
	if len(before) > 0 && c.wanting && c.hop.Backend.Name != before[0].Backend.Name {
		c.env.metrics.Failover(before[0].Backend.Name)
	}
}

// anew has the request in hand look for its way again, in the newest table.
func (c *core) anew() {
	before := c.table.Ownership()
	c.table = c.env.fib.Load()
	if c.moves.keyed && c.table.Ownership() != before { // its range may be another shard's by now, and its moves may be over
		c.goOnMoved()
		return
	}
	n := c.need
	if n.slot != nil {
		n.slot = c.slotNow(c.table)
	}
	c.dispatch(n)
}

// standDown ends the wait without a primary: err says why, nil that there was no time left.
func (c *core) standDown(err error) {
	e := c.noPrimary
	c.noPrimary = nil
	if err != nil {
		e = c.refusal(err)
	}
	c.fail(e)
}

// standBy waits for the shard's next primary. As with the wait for a connection, a CancelRequest ends it, and so does the end of the
// client.
func (s *session) standBy(ctx context.Context) {
	c := s.core
	wait := s.server.live.Load().FailoverWait
	left := c.patience(wait)
	if left == 0 {
		return
	}
	s.flushFirst()
	if c.closing {
		c.standDown(errHangup)
		return
	}
	s.has.Store(s.server.queue)
	held, free := s.hold(ctx)
	err := s.server.awaitPrimary(held, c, left)
	free()
	s.has.Store(nil)
	if errors.Is(err, errHangup) {
		s.clientGone()
	}
	c.stoodBy(wait, err)
}

// patience is for how long the request in hand may still wait for a primary; 0: not at all, and it has its answer.
func (c *core) patience(wait time.Duration) time.Duration {
	left := c.came + wait - c.env.now()
	if wait == 0 || left <= 0 {
		if wait > 0 {
			c.outOfPatience(wait)
		}
		c.standDown(nil)
		return 0
	}
	return left
}

// stoodBy has it go on after the wait, which has ended with err.
func (c *core) stoodBy(wait time.Duration, err error) {
	switch {
	case err == nil:
		c.resume()
	case errors.Is(err, errWaited):
		c.outOfPatience(wait)
		c.standDown(nil)
	default:
		c.standDown(err)
	}
}

// outOfPatience says in the answer how long the request has waited.
func (c *core) outOfPatience(wait time.Duration) {
	c.env.metrics.Limited(RefusedFailover)
	c.noPrimary = c.noPrimary.WithDetail(c.noPrimary.Detail + " No other primary was there within " + wait.String() + " (failover_wait).")
}

var errWaited = errors.New("no primary has come")

// awaitPrimary returns nil when there is a primary for c's request to try, and what has ended the wait else.
func (s *Server) awaitPrimary(held context.Context, c *core, left time.Duration) error {
	over, retry := time.NewTimer(left), time.NewTicker(primaryRetry)
	defer over.Stop()
	defer retry.Stop()
	for {
		changed := s.cfg.FIB.Changed()
		if c.hasPrimary(false) {
			return nil
		}
		select {
		case <-changed:
		case <-retry.C:
			if c.hasPrimary(true) {
				return nil
			}
		case <-over.C:
			return errWaited
		case <-held.Done():
			return context.Cause(held)
		case <-s.stopping.Done():
			return errDraining.WithSeverity("ERROR")
		}
	}
}

// primary gets a connection for a write in place of conn, whose server was a replica when it last said what it is. It may have been
// promoted since, which a new connection tells.
func (s *session) primary(ctx context.Context, conn *pool.Conn) (*pool.Conn, error) {
	began := time.Now()
	for conn.Standby() {
		if conn.Connected.After(began) {
			s.server.cfg.Recheck(conn.Backend.Name)
			conn.Release()
			return nil, errStandby
		}
		conn.Discard()
		var err error
		if conn, err = s.await(ctx); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// headFor says that the session waits for a connection to this backend of the shard.
func (s *session) headFor(shard *fib.Slot, hop *fib.NextHop, toWrite bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound, s.goal, s.toWrite = shard, hop, toWrite
	s.rethink()
}

// rethink ends a write's wait for a connection if its shard has got another primary, and a read's if its backend is down and there is
// a better one: connecting to what is dead may take for ever. mu is held.
func (s *session) rethink() {
	if s.held == nil || s.bound == nil {
		return
	}
	c := s.bound.Candidates()
	if s.toWrite {
		if w := c.Writes; len(w) > 0 && w[0].Healthy && *w[0].Backend != *s.goal.Backend {
			s.held(errPassed)
		}
		return
	}
	down := slices.ContainsFunc(c.Down, func(b *rib.Backend) bool { return *b == *s.goal.Backend })
	if r := s.bound.For(s.core.db).Reads; down && len(r) > 0 && r[0].Healthy && *r[0].Backend != *s.goal.Backend {
		s.held(errDeaf)
	}
}

// lookout is what heraldLoop knew of a shard when it last looked.
type lookout struct {
	primary *rib.Backend
	down    []*rib.Backend
}

// heraldLoop has sessions that wait for a connection hear of another primary, and of backends that are down.
func (s *Server) heraldLoop() {
	known := make(map[*fib.Slot]lookout)
	for {
		changed := s.cfg.FIB.Changed()
		if s.news(known) {
			s.herald()
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

// news reports whether any shard has another primary than the map says, or another backend that is down, and brings that up to date.
func (s *Server) news(known map[*fib.Slot]lookout) (some bool) {
	slots := s.cfg.FIB.Load().Slots()
	if len(known) > len(slots) { // shards that are gone
		clear(known)
	}
	for _, slot := range slots {
		c, was := slot.Candidates(), known[slot]
		now := lookout{was.primary, c.Down}
		if w := c.Writes; len(w) > 0 && w[0].Healthy && (was.primary == nil || *was.primary != *w[0].Backend) {
			now.primary, some = w[0].Backend, true
		}
		for _, b := range c.Down {
			some = some || !slices.ContainsFunc(was.down, func(o *rib.Backend) bool { return *o == *b })
		}
		known[slot] = now
	}
	return some
}

func (s *Server) herald() {
	for _, ses := range s.all(nil) { // without the lock: a cancel request may be under way for one
		if ses.mu.TryLock() { // whoever has it has a connection, or is about to look for itself
			ses.rethink()
			ses.mu.Unlock()
		}
	}
}
