package wire

import "rangefinder/wire/pg"

// A node that an operator has drained goes on running. The sessions that it has are to go elsewhere, each as soon as it has nothing open,
// as when the node stops; whoever comes after that is served, for he may have nowhere else to go.

var errDrained = &pg.Error{
	Code: pg.CodeAdminShutdown, Message: "terminating connection: the node is drained",
	Hint: "Connect again: a load balancer takes you to another node.",
}

// Leave has all sessions of now end when they have no transaction open, or takes that back.
func (s *Server) Leave(leave bool) {
	for _, ses := range s.all(nil) {
		ses.leaving.Store(leave)
		if leave {
			ses.wake()
		}
	}
}

// Leaving counts the sessions that are to end, and all others.
func (s *Server) Leaving() (leaving, others int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		if ses.leaving.Load() {
			leaving++
		}
	}
	return leaving, len(s.sessions) - leaving
}

// leaves ends the session if it is to go and could end here without loss.
func (s *session) leaves() bool {
	c := s.core
	switch {
	case !s.server.draining.Load() && !s.leaving.Load() || !c.idle():
		return false
	case s.server.draining.Load():
		c.terminate(errDraining)
	default:
		c.terminate(errDrained)
	}
	return true
}
