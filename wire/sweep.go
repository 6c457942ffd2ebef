package wire

import (
	"context"
	"errors"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
)

// Timeouts bound how long a session may do what it does. No timer runs for a statement: sessions note in an atomic what they do, and
// one goroutine looks at all of them, at least twenty times in the shortest timeout and twice a second. So a timeout strikes up to a
// tenth of itself late, by 20 ms at least and by a second at most.
type Timeouts struct {
	Statement         time.Duration // of a Query, or of all up to a Sync, on a backend; without the wait for a connection; 0: none
	Idle              time.Duration // of a client outside a transaction; 0: none
	IdleInTransaction time.Duration // of a client in one; 0: none
}

const (
	sweepShort = 10 * time.Millisecond
	sweepLong  = 500 * time.Millisecond
	sweepParts = 20

	// maxCutters bounds the cancel requests under way at a time: that many statements may overrun at one stroke.
	maxCutters = 16
	// strikeAgain is when a timeout strikes again if the session has not noticed the first time: a cancel request may have come
	// before its statement, or not at all.
	strikeAgain = 5 * time.Second
	// maxCuts is how many cancel requests a statement may not heed before its connection is closed.
	maxCuts = 2
)

// shortest is the shortest of the timeouts; 0 if there is none.
func (t Timeouts) shortest() (least time.Duration) {
	for _, d := range [...]time.Duration{t.Statement, t.Idle, t.IdleInTransaction} {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}

// What cutting says.
const (
	calm     uint32 = iota
	underWay        // a cancel request for an earlier statement may still be under way
	deaf            // the server connection has been given up: see deaf.go
	vanished        // the client was found to be gone
)

// sweepEvery is how often sessions must be looked at: for their timeouts, and for who may go to sleep.
func (s *Server) sweepEvery() time.Duration {
	l := &s.live.Load().Limits
	least := l.Timeouts.shortest()
	for _, t := range l.DatabaseTimeouts {
		if d := t.shortest(); d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	every := min(sweepLong, s.sleepAfter/4)
	if least > 0 {
		every = min(every, max(least/sweepParts, sweepShort))
	}
	return every
}

func (l *Limits) timeouts(database string) Timeouts {
	if t, ok := l.DatabaseTimeouts[database]; ok {
		return t
	}
	return l.Timeouts
}

// sweepLoop looks at the sessions until the server has ended them.
func (s *Server) sweepLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var list []*session
	var relief relief
	asked := make(map[place]time.Time)
	for {
		timer.Stop()
		timer.Reset(s.sweepEvery())
		select {
		case <-s.ctx.Done():
			return
		case <-s.changed:
		case <-timer.C:
			list = s.sweep(list[:0])
			s.lookDown(s.cfg.FIB.Load(), list, asked, time.Now())
			clear(list)
			if relief.due(s.dozed.Load(), time.Now()) {
				relief.give()
			}
		}
	}
}

// sweep looks at every session once. It returns the list it was given, for the next time.
func (s *Server) sweep(list []*session) []*session {
	list = s.all(list)
	now, l := time.Now(), &s.live.Load().Limits
	for _, ses := range list {
		ses.look(now, l.timeouts(ses.id.Database))
		if conn := ses.has.Load(); conn != nil && conn.IsLocal() {
			conn.Local().(*scatter.Coordinator).Tend(now)
		}
	}
	return list
}

// all appends all sessions to list.
func (s *Server) all(list []*session) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		list = append(list, ses)
	}
	return list
}

// moment tells what a session does from what it does next: as long as it is the same, the same statement runs, or the same wait
// for the client goes on.
type moment struct {
	turn    uint64
	queries uint64
	conn    *pool.Conn
}

func (s *session) moment() moment {
	return moment{s.core.tally.turn.Load(), s.core.tally.queries.Load(), s.has.Load()}
}

// sighting is what the sweeper remembers of a session.
type sighting struct {
	moment
	since time.Time
	again time.Time // not before this
	cuts  int       // how often its statement was cut
	sent  bool      // to sleep
}

// look finds out whether a session has done for too long what it does.
func (s *session) look(now time.Time, t Timeouts) {
	at := s.moment()
	if at != s.seen.moment {
		s.seen = sighting{moment: at, since: now}
		return
	}
	var limit time.Duration
	switch doing(at.turn) & allDoing {
	case busy:
		if at.conn != nil && at.conn != s.server.queue {
			limit = t.Statement
		}
	case idle:
		limit = t.Idle
	case inBlock:
		limit = t.IdleInTransaction
	}
	took := now.Sub(s.seen.since)
	over := limit > 0 && took >= limit && !now.Before(s.seen.again)
	switch {
	case doing(at.turn)&allDoing == busy:
		s.lookBusy(at, now, took >= goneAfter && !now.Before(s.seen.again), over)
	case over:
		s.seen.again = now.Add(strikeAgain)
		s.expired.Store(at.turn)
		s.wake() // it lifts the deadline, and goes if it still waits: see expire
	case doing(at.turn)&allDoing == idle && took >= s.server.sleepAfter && !s.seen.sent && s.raw.sock != nil:
		s.seen.sent = true
		s.drowsy.Store(true)
		s.wake()
	}
}

// lookBusy finds out whether what a session does is for nobody (if it has taken long enough to ask), or has taken too long.
func (s *session) lookBusy(at moment, now time.Time, ask, over bool) {
	switch {
	case at.conn == nil:
	case at.conn == s.server.queue:
		if ask && hungUp(s.client) {
			s.giveUp()
		}
	case ask && hungUp(s.client):
		s.cutLater(at, now, true)
	case over:
		s.cutLater(at, now, false)
	}
}

// cutLater has the statement of that moment cut, if not too many are at once.
func (s *session) cutLater(at moment, now time.Time, gone bool) {
	select {
	case s.server.cutters <- struct{}{}:
		s.seen.again = now.Add(strikeAgain)
		unheeded := s.seen.cuts >= maxCuts
		s.seen.cuts++
		s.server.helpers.Go(func() {
			defer func() { <-s.server.cutters }()
			s.cut(at, gone, unheeded)
		})
	default: // next time
	}
}

// cut cancels the statement that runs in that moment, and no other one. The session says that its next statement begins before it
// looks at cutting, and here it is the other way round: so one of them sees the other. As with a client's cancel request, mu keeps
// the connection from its next borrower until the backend has taken the request. A server process that heeds no request, because its disk
// does not answer for example, loses its connection.
func (s *session) cut(at moment, gone, unheeded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.cutting.Swap(underWay)
	after := before
	if gone {
		after = vanished
	}
	defer s.cutting.Store(after)
	if s.running == nil || s.moment() != at {
		return
	}
	if gone && before == vanished { // the server does not heed the request, or the session cannot write to a client that does not read
		s.client.SetWriteDeadline(longAgo)
		s.strike()
		return
	}
	if unheeded {
		s.server.log.Warn("a statement goes on though it was canceled: its connection is closed", "backend", s.running.Backend.Name, "user", s.id.User, "database", s.id.Database)
		s.strike()
		return
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, cancelTimeout)
	defer cancel()
	if !gone {
		s.core.tally.overran.Store(at.turn)
	}
	if err := s.running.Cancel(ctx); err != nil {
		s.server.log.Warn("could not cancel a statement that runs for too long, or for nobody", "backend", s.running.Backend.Name, "user", s.id.User, "database", s.id.Database, "err", err)
		if gone || errors.Is(err, pool.ErrUnheard) { // then nothing else may run there, the session's next statement neither
			s.strike()
		}
		return
	}
	if gone {
		s.server.log.Debug("client gone: its statement is canceled", "client", s.client.RemoteAddr(), "backend", s.running.Backend.Name)
		return
	}
	s.server.refusedBy(RefusedStatement)
}

// heed waits until a cancel request that was meant for an earlier statement has been delivered. It is called before anything is sent
// to the server. False: the client was found to be gone, or the server, and nothing is to be sent.
func (s *session) heed() bool {
	if s.cutting.Load() == calm {
		return true
	}
	s.mu.Lock() // for as long as the request is under way
	now := s.cutting.Load()
	s.mu.Unlock()
	s.core.tally.anew()
	switch now {
	case vanished:
		s.clientGone()
		s.core.broken = true
	case deaf:
		s.core.serverLost(errDeaf)
	}
	return now == calm
}

// expire ends the session if it has waited for its client for too long. It is called when the client has sent nothing.
func (s *session) expire() bool {
	v := s.expired.Load()
	if v == 0 || v != s.core.tally.turn.Load() {
		return false
	}
	t := s.server.live.Load().Limits.timeouts(s.id.Database)
	if doing(v)&allDoing == idle {
		s.server.refusedBy(RefusedIdle)
		s.core.terminate(pg.NewError(pg.CodeIdleSessionTimeout, "terminating connection due to idle-session timeout").
			WithDetail("The client has sent nothing for " + t.Idle.String() + ".").
			WithHint("Have the client close connections that it does not use, or raise idle_timeout in [limits] or [[databases]]."))
		return true
	}
	s.server.refusedBy(RefusedInBlock)
	s.core.terminate(pg.NewError(pg.CodeIdleInTransactionSessionTimeout, "terminating connection due to idle-in-transaction timeout").
		WithDetail("The client has sent nothing for " + t.IdleInTransaction.String() + ": the transaction is rolled back.").
		WithHint("End transactions before doing something else, or raise idle_in_transaction_timeout in [limits] or [[databases]]."))
	return true
}

// rest notes that the session waits for its client. COPY data that it waits for is part of a statement.
func (c *core) rest() {
	switch {
	case c.copyIn:
	case c.tx.open || c.srv != nil && (c.status != 'I' || c.serverOpen):
		if c.srv == nil && len(c.crossed) > 0 { // it has got no connection, and its block has failed
			c.leaveRanges()
		}
		c.tally.rest(inBlock)
	default:
		if len(c.crossed) > 0 {
			c.leaveRanges()
		}
		c.tally.rest(idle)
	}
}
