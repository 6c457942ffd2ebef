package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/moving"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// This file is about statements on ranges that change hands (package moving counts them). While a range is frozen, a new transaction on
// it waits, without a connection and outside the database's gate; one that is on it already goes on to its end; and one that is open and comes
// to it only now gets 40001, for what it has done elsewhere cannot be taken along. All of these are decided by the table the statement was
// routed by; whoever has waited is routed again.
//
// A node that has not heard of a move is refused by the shard itself, with RF001. Outside a transaction that proves that nothing took effect: the
// node asks for the newest table and runs the statement again, at the new owner.

// codeFenced is the error of a shard that does not own the row's key any more, or not for this moment.
const codeFenced = "RF001"

// fencedAgain is when a statement that a shard has refused is tried again although the table says nothing new: the shard may be ahead of
// it, or behind.
const fencedAgain = 250 * time.Millisecond

// errPatience ends the wait for a range that changes hands.
var errPatience = errors.New("the range has not changed hands in time")

// inMoves is what a core knows of moves for the request in hand.
type inMoves struct {
	touched moving.Touched
	keyed   bool         // it is about sharded tables
	outrun  bool         // a range that it touches has changed hands since the transaction in which it comes began
	seen    *moving.View // when it was last held back
	waits   *pg.Error    // it is held back, and has this error if that lasts too long; nil: it is not
	fenced  bool         // a shard has refused it: it waits for a newer table, and is run again
}

// begin makes it ready for the next request.
func (m *inMoves) begin() {
	if m.keyed {
		m.touched.Clear()
		m.keyed, m.fenced, m.outrun = false, false, false
	}
}

// touches notes which moves a statement's keys are on.
func (c *core) touches(plan *sqlkey.Plan, args sqlkey.Args) {
	moves, t := c.table.Ownership().Moves, &c.moves.touched
	switch {
	case plan.Target == sqlkey.Keyed:
		t.On(moves, plan.Keyspace)
		for i := range plan.Keys {
			if key, err := c.appendKey(plan, i, args); err == nil {
				_ = t.Key(key) // never fails
			}
		}
	case plan.Target == sqlkey.Many && (plan.Fan.Everywhere || plan.Fan.Apart || plan.Fan.Copy != nil):
		for _, id := range append(slices.Clone(plan.Fan.Keyspaces), plan.Keyspace) {
			t.On(moves, id)
			_ = t.Range(nil, nil)
		}
	case plan.Target == sqlkey.Many:
		t.On(moves, plan.Keyspace)
		buf, err := plan.Shards(t, c.keyBuf[:0], args, c.clientUTF8())
		if c.keyBuf = buf; err != nil {
			_ = t.Range(nil, nil)
		}
		if plan.Fan.Rekey != nil { // it also writes where the rows' new keys belong
			key, known := plan.NewKey(c.keyBuf[:0], args, c.clientUTF8())
			if c.keyBuf = key; known {
				_ = t.Key(key)
			} else {
				_ = t.Range(nil, nil)
			}
		}
	case plan.Hint != "" && plan.Target == sqlkey.Unsharded: // its keys are not known
		t.At(moves, plan.Shard)
	}
}

// holdsBack reports whether the request in hand has to wait for a range to change hands, or has its answer because of that.
func (c *core) holdsBack() bool {
	ids, m := c.moves.touched.IDs(), c.env.moves
	if len(ids) == 0 || m == nil {
		return false
	}
	view := m.View()
	begun := c.srv != nil && (c.status != 'I' || c.serverOpen)
	for _, id := range ids {
		move, x := c.table.Ownership().Move(id), view.Crossing(id)
		inside := x != nil && slices.Contains(c.crossed, x)
		switch move.Phase {
		case rib.MovePrepare:
			if inside {
				continue
			}
			if x != nil && x.Enter() {
				c.crossed = append(c.crossed, x)
				continue
			}
		case rib.MoveFrozen:
			switch {
			case inside && c.seg.chains && !c.chainsLast(): // what comes after that would be a new transaction on the range
				c.fail(lateForMove(move))
				return true
			case inside:
				continue
			case x != nil && !begun && c.seg.read && !c.seg.opens && !c.env.leased(): // it serves what it knows, and nobody waits for it
				continue
			case x != nil && begun:
				c.fail(lateForMove(move))
				return true
			}
		case rib.MoveFlipped:
			if !inside {
				continue
			}
			c.fail(lateForMove(move)) // it was on the range where that was, and would now read it elsewhere
			return true
		default:
			continue
		}
		if !begun {
			c.leaveRanges()
		}
		c.moves.seen, c.moves.waits = view, moveTooLong(move)
		return true
	}
	return false
}

// lateForMove is the error of a transaction that comes to a range while that changes hands.
func lateForMove(m *rib.Move) *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "the transaction came to a range of keys while that changes hands").
		WithDetail(fmt.Sprintf("Move %d takes it from %s to %s.", m.ID, m.From, m.To)).
		WithHint("Nothing of the transaction has taken effect: run it again. One that begins now waits until the range has its new owner.")
}

// moveTooLong is the error of a statement that has waited for too long. It is 40001, which clients try again on the same connection; of
// 57P03 many pools take the connection for broken.
func moveTooLong(m *rib.Move) *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "the statement's range of keys is changing hands").
		WithDetail(fmt.Sprintf("Move %d takes it from %s to %s.", m.ID, m.From, m.To)).
		WithHint("Nothing was sent: try it again.")
}

// fencedOff is the error of a statement that a shard has refused for longer than it may wait.
func fencedOff(shard string) *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "shard "+shard+" refuses the row: its range of keys has moved, or is about to").
		WithDetail("This node does not know the new owner yet.").
		WithHint("Nothing has taken effect: try it again. If it stays so, see with 'rangefinder status' whether the node has lost the cluster.")
}

// fencedWithin is the error of a transaction in which a shard has refused a row.
func fencedWithin(e *pg.Error) *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "a row's range of keys has moved to another shard, or is about to").
		WithDetail("The shard says: " + e.Message).
		WithHint("Nothing of the transaction takes effect: run it again. The node has asked for the newest owners.")
}

// fencedBehind is the error of a statement that may have committed something before a shard has refused a row.
func fencedBehind(e *pg.Error) *pg.Error {
	return pg.NewError(pg.CodeStatementCompletionUnknown, "a row's range of keys has moved to another shard, or is about to").
		WithDetail("The shard says: " + e.Message + ". What the statement had committed before that stays.").
		WithHint("The node has asked for the newest owners. Look what is done before you run the statement again: it may COMMIT within.")
}

// refence has the request in hand run again if the shard's refusal proves that nothing of it took effect. It reports whether it does.
func (c *core) refence(h *expectation) bool {
	c.env.fenced()
	again := c.env.moves != nil && c.seg.again && !c.seg.commits && !c.flushed && c.coordinator == nil && !c.redo && h.fail == nil
	if c.kind == 'S' {
		again = again && !c.answered('E', "")
	} else {
		again = again && c.plan != nil && !c.plan.MixedTx && c.plan.Parts == nil // they are one transaction
	}
	if again {
		c.redo, c.moves.fenced = true, true
	}
	return again
}

// awaitOwner has the request in hand, which a shard has refused, wait for the newest table.
func (c *core) awaitOwner() {
	c.redo = false
	c.moves.seen, c.moves.waits = c.env.moves.View(), fencedOff(c.srvShard)
}

// chain notes whether a statement of the request ends a transaction so that another one begins at once.
func (s *segment) chain(plan *sqlkey.Plan) {
	s.chained = plan.Chain
	if n := len(plan.Parts); n > 0 {
		s.chained = plan.Parts[n-1].Chain
		for _, p := range plan.Parts {
			s.chains = s.chains || p.Chain
		}
	}
	s.chains = s.chains || s.chained
}

// chainsLast reports whether all that the request in hand has of a transaction that AND CHAIN begins is its beginning.
func (c *core) chainsLast() bool { return c.seg.chained && (c.kind != 'S' || c.seg.sync) }

// chainEnded notes that a transaction has ended, and the next one has begun with nothing in it: that is on no range yet, though it has the server connection.
func (c *core) chainEnded() {
	c.tally.transactions.Add(1)
	c.leaveRanges()
}

// leaveRanges notes that the session's transaction is over, or has not begun.
func (c *core) leaveRanges() {
	for i, x := range c.crossed {
		x.Leave()
		c.crossed[i] = nil
	}
	c.crossed = c.crossed[:0]
}

// goOnMoved has the request that was held back, or waited for a primary, look for its way again, by the newest table.
func (c *core) goOnMoved() {
	c.moves.waits, c.moves.fenced = nil, false
	n, e := c.reroute()
	if e != nil {
		c.fail(e)
		return
	}
	c.dispatch(n)
}

// reroute finds again where the request in hand must run, by the newest table.
func (c *core) reroute() (need, *pg.Error) {
	c.table = c.env.fib.Load()
	c.moves.touched.Clear()
	c.moves.outrun = false
	n := c.need
	n.slot, n.many, n.copies = nil, false, nil
	switch c.kind {
	case 'Q':
		if len(c.uses) == 0 {
			c.plan = c.lookupBytes(c.frame[pg.HeaderSize : len(c.frame)-1])
		}
		o, e := c.route(c.plan, &c.values)
		if e != nil {
			return n, e
		}
		n.merge(o)
		for i := range c.uses {
			if e := c.rerouteUse(&n, &c.uses[i], c.plan); e != nil {
				return n, e
			}
		}
	case 'S':
		for i := range c.ops {
			o := &c.ops[i]
			if o.typ != 'B' || o.virtual || o.fail != nil || o.stmt == nil {
				continue
			}
			if err := c.bind.Decode(c.batch[o.start+pg.HeaderSize : o.end]); err != nil {
				return n, asError(err)
			}
			c.replan(o.stmt)
			o.plan, c.plan = o.stmt.plan, o.stmt.plan
			m, e := c.route(o.plan, c.argsOf(o.stmt))
			if e != nil {
				return n, e
			}
			n.merge(m)
			if o.use != nil {
				if e := c.rerouteUse(&n, o.use, o.plan); e != nil {
					return n, e
				}
			}
		}
	default:
		return c.need, nil
	}
	if n.slot == nil && c.srv == nil && c.seg.home != nil {
		n.slot = c.homeOf(c.seg.home)
	}
	return n, nil
}

// rerouteUse adds what an EXECUTE needs.
func (c *core) rerouteUse(n *need, u *use, outer *sqlkey.Plan) *pg.Error {
	if u.Op != sqlkey.NameExecute || u.stmt == nil {
		return nil
	}
	o, _, e := c.useExecute(u, outer)
	if e == nil {
		n.merge(o)
	}
	return e
}

// standAside waits until the request in hand may go on. As with the wait for a primary, a CancelRequest ends it, and so does the end of the
// client.
func (s *session) standAside(ctx context.Context) {
	c := s.core
	moves := s.server.cfg.Moves
	left := c.came + moving.Patience - c.env.now()
	if left <= 0 {
		c.moveRefused(errPatience)
		return
	}
	if !moves.Wait() {
		c.moves.waits = c.moves.waits.WithDetail(fmt.Sprintf("%s %d statements wait on this node for ranges that change hands, and no more may.", c.moves.waits.Detail, moving.MaxWaiting))
		c.moveRefused(errPatience)
		return
	}
	defer moves.Waited()
	s.flushFirst()
	if c.closing {
		c.moveRefused(errHangup)
		return
	}
	if c.srv == nil {
		s.has.Store(s.server.queue)
		s.aside.Store(true)
	}
	held, free := s.hold(ctx)
	err := s.server.awaitMove(held, c, left)
	free()
	if c.srv == nil {
		s.aside.Store(false)
		s.has.Store(nil)
	}
	switch {
	case err == nil:
		c.goOnMoved()
		return
	case errors.Is(err, errHangup):
		s.clientGone()
	case errors.Is(err, errPatience):
		c.moves.waits = c.moves.waits.WithDetail(c.moves.waits.Detail + " It has waited for " + moving.Patience.String() + ".")
	}
	c.moveRefused(err)
}

// moveRefused ends the wait: err says why.
func (c *core) moveRefused(err error) {
	e := c.moves.waits
	c.moves.waits, c.moves.fenced = nil, false
	if !errors.Is(err, errPatience) {
		e = c.refusal(err)
	}
	c.fail(e)
}

// awaitMove returns nil when c's request is to look for its way again, and what has ended the wait else.
func (s *Server) awaitMove(held context.Context, c *core, left time.Duration) error {
	by := c.table.Ownership()
	if c.env.fib.Load().Ownership() != by { // there is a newer table by now
		return nil
	}
	over := time.NewTimer(left)
	defer over.Stop()
	var again <-chan time.Time
	if c.moves.fenced {
		retry := time.NewTimer(min(left, fencedAgain))
		defer retry.Stop()
		again = retry.C
	}
	select {
	case <-s.cfg.Moves.Changed(c.moves.seen):
		return nil
	case <-again:
		return nil
	case <-over.C:
		return errPatience
	case <-held.Done():
		return context.Cause(held)
	case <-s.stopping.Done():
		return errDraining.WithSeverity("ERROR")
	}
}

// atWork is a session that was doing something at a moment: a moving.Work.
type atWork struct {
	session            *session
	turn, transactions uint64
}

// Over is moving.Work's. A session that is idle, or waits for a range, or has no connection within a transaction, routes whatever comes next by
// a newer table.
func (w *atWork) Over() bool {
	s := w.session
	t := &s.core.tally
	switch now := t.turn.Load(); {
	case s.ended.Load(), s.aside.Load(), doing(now)&allDoing == idle, t.transactions.Load() != w.transactions:
		return true
	case doing(now)&allDoing == inBlock:
		return s.has.Load() == nil
	}
	return false
}

// working returns the sessions that are at work.
func (s *Server) working() (list []moving.Work) {
	for _, ses := range s.all(nil) {
		w := &atWork{ses, ses.core.tally.turn.Load(), ses.core.tally.transactions.Load()}
		if !w.Over() {
			list = append(list, w)
		}
	}
	return list
}
