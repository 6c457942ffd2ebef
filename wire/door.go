package wire

import (
	"errors"
	"net"
	"time"

	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// This file is about connections that have not logged in yet. They have a bound of their own, apart from sessions; beyond it the
// oldest one goes. So who opens thousands of connections and says nothing keeps nobody out: to be pushed out before it has logged
// in, a client would have to be slower than a whole bound's worth of newer connections.

// knocks notes a new connection, and returns those that have to go for it. The caller holds mu.
func (s *Server) knocks(conn net.Conn) (evicted []net.Conn) {
	s.conns[conn] = s.handshakes.PushBack(conn)
	for most := s.live.Load().Limits.Handshakes; most > 0 && s.handshakes.Len() > most; {
		old := s.handshakes.Remove(s.handshakes.Front()).(net.Conn)
		delete(s.conns, old)
		evicted = append(evicted, old)
	}
	return evicted
}

// loggedIn ends the handshake of a connection. It returns false if the connection has had to go.
func (s *Server) loggedIn(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.conns[conn]
	if ok {
		s.handshakes.Remove(el)
		s.conns[conn] = nil
	}
	return ok
}

// adopted notes that a connection goes on as another one.
func (s *Server) adopted(conn, as net.Conn) {
	if as == conn {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	s.conns[as] = nil
}

// goes forgets a connection that is over.
func (s *Server) goes(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.conns[conn]; el != nil {
		s.handshakes.Remove(el)
	}
	delete(s.conns, conn)
}

// mayLogIn is pg.AcceptConfig.Login.
func (s *Server) mayLogIn(remote net.Addr) error {
	err := s.logins.allow(remote, s.live.Load().Limits.Logins, time.Now())
	if err != nil {
		s.refusedBy(RefusedLogin)
	}
	return err
}

// mayTry is pg.AcceptConfig.Admit: nobody needs to prove a password to be told that the node is full. Who may use the console is
// not told to somebody who has proved nothing.
func (s *Server) mayTry(_, database string) error {
	if database == console.Name {
		return nil
	}
	if e := s.seats.full(&s.live.Load().Limits, 0); e != nil {
		s.refusedBy(RefusedClients)
		return e
	}
	return nil
}

// quietly reports whether a client was turned away in a way that is counted, and would only fill the log.
func quietly(err error) bool {
	var e *pg.Error
	return errors.Is(err, errHush) || errors.As(err, &e) && e.Code == pg.CodeTooManyConnections
}
