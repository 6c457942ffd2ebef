package wire

import (
	"slices"
	"time"

	"rangefinder/wire/pg"
)

var errKilled = &pg.Error{Code: pg.CodeAdminShutdown, Message: "terminating connection due to administrator command", Detail: "KILL, in the console."}

// Halted names the databases that are paused or disabled.
func (s *Server) Halted() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, g := range s.gates {
		if g.pause.Load() != nil || g.disabled.Load() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// kill pauses a database and ends its sessions and server connections at once. Statements under way may or may not have been
// done, as when a connection breaks.
func (s *Server) kill(database string) {
	g := s.gateOf(database)
	g.close() // if it is paused already, it stays so
	s.mu.Lock()
	var list []*session
	for _, ses := range s.sessions {
		if ses.id.Database == database {
			list = append(list, ses)
		}
	}
	s.mu.Unlock()
	for _, ses := range list { // without the lock: a cancel request may be under way for one
		ses.kill()
	}
	s.suspend(database, g.pause.Load())
}

// kill wakes the session wherever it is; it sees that it is to end. Its sockets are not closed under it: see cutOff.
func (s *session) kill() {
	s.killed.Store(true)
	s.client.SetDeadline(longAgo)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held(errKilled.WithSeverity("ERROR"))
	}
	if s.running != nil {
		s.strike()
	}
}

// farewell tells a client that waits for nothing why its session ends. The transport is between two calls.
func (s *session) farewell() {
	e := errKilled
	switch {
	case s.server.ctx.Err() != nil: // the time for it is over, and it is in a transaction, or has a connection of its own
		e = errDraining.WithDetail("It was waited for as long as drain_timeout says. What it had not committed is rolled back.")
	case !s.killed.Load():
		return
	}
	s.client.SetWriteDeadline(time.Now().Add(time.Second))
	s.client.Write(pg.AppendError(nil, e.Fatal()))
}
