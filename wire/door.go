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

// handshake is a connection that has not logged in yet. Server.mu guards it.
type handshake struct {
	conn  net.Conn
	begun bool // its client has said what it wants
}

// knocks notes a new connection, and returns those that have to go for it. The caller holds mu.
func (s *Server) knocks(conn net.Conn) (evicted []net.Conn) {
	s.conns[conn] = s.handshakes.PushBack(&handshake{conn: conn})
	for most := s.live.Load().Limits.Handshakes; most > 0 && s.handshakes.Len() > most; {
		old := s.handshakes.Remove(s.handshakes.Front()).(*handshake).conn
		delete(s.conns, old)
		evicted = append(evicted, old)
	}
	return evicted
}

// begins is pg.AcceptConfig.Begun.
func (s *Server) begins(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.conns[conn]; el != nil {
		el.Value.(*handshake).begun = true
	}
}

// hasBegun reports whether a connection that has not logged in has said what it wants.
func (s *Server) hasBegun(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.conns[conn]
	return el != nil && el.Value.(*handshake).begun
}

// closeStrangers closes connections that have not said yet what they want: they might never, and nothing of theirs is lost. The caller holds mu.
func (s *Server) closeStrangers() {
	for el := s.handshakes.Front(); el != nil; el = el.Next() {
		if h := el.Value.(*handshake); !h.begun {
			h.conn.Close()
		}
	}
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

// turnedAway has the log tell of a connection that was not let in. Of those that have said nothing, or nothing that a client says, or no more after
// a while, it tells of one a second, and how many others there were: somebody may open thousands.
func (s *Server) turnedAway(conn net.Conn, err error) {
	var e *pg.Error
	switch {
	case errors.Is(err, pg.ErrHandshake) && !errors.Is(err, net.ErrClosed): // which has not failed: it had to go
		s.distrusts(conn, err)
	case quietly(err):
		s.log.Debug("client refused", "client", conn.RemoteAddr(), "err", err)
	case errors.As(err, &e) && s.hasBegun(conn):
		s.log.Info("client refused", "client", conn.RemoteAddr(), "err", err)
	default:
		if others, due := s.doorLog.due(time.Since(s.made)); due {
			s.log.Info("client refused", "client", conn.RemoteAddr(), "err", err, "others", others)
		}
	}
}

// quietly reports whether a client was turned away in a way that is counted, and would only fill the log.
func quietly(err error) bool {
	var e *pg.Error
	return errors.Is(err, errHush) || errors.As(err, &e) && e.Code == pg.CodeTooManyConnections
}
