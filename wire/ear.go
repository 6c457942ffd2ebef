package wire

import (
	"io"
	"syscall"

	"rangefinder/wire/epoll"
)

// ear listens to the server connection while the session waits for its client, or writes to the server: a COPY may fail long
// before its data ends, or raise so many notices that the server reads no further until they are taken; and a session that is
// tied to its connection may be sent notifications, or lose it. One goroutine makes one read; the session takes what came.
type ear struct {
	buf  []byte
	said chan heard    // capacity 1
	woke chan struct{} // closed once the wait for the client has been ended
}

type heard struct {
	n   int
	err error
}

// listens reports whether the server may have something to say before the client has.
func (c *core) listens() bool {
	return c.srv != nil && !c.broken && (c.copyIn || c.looseSync || c.pinned != "")
}

// listen is called before the session waits for its client. It begins to listen, if there may be something to hear.
func (s *session) listen() {
	s.core.rest()
	if s.ear != nil || !s.core.listens() || s.raw.sock != nil && s.core.srv.Plain() != nil { // whose events the session is told of
		return
	}
	e, server, client := &ear{buf: make([]byte, serverBuffer), said: make(chan heard, 1), woke: make(chan struct{})}, s.core.srv.Net, s.client
	s.ear = e
	go func() {
		n, err := server.Read(e.buf)
		e.said <- heard{n, err}
		client.SetReadDeadline(longAgo) // the session's goroutine lifts it again
		close(e.woke)
	}()
}

// hear gives the core what was heard, if anything was. It reports whether it did.
func (s *session) hear() bool {
	if s.ear == nil {
		return false
	}
	select {
	case h := <-s.ear.said:
		s.took(h)
		return true
	default:
		return false
	}
}

// took gives the core what the server said.
func (s *session) took(h heard) {
	buf := s.stopListening()
	s.fromServer(buf[:h.n], h.err)
}

// stopListening ends the goroutine, whose read has ended, and returns its buffer.
func (s *session) stopListening() []byte {
	e := s.ear
	<-e.woke
	s.ear = nil
	if !s.goesOn() { // that may have been the deadline that ends the session
		s.client.SetReadDeadline(longAgo)
	}
	return e.buf
}

// readOrHear is a read of the server connection by whoever is to make it.
func (s *session) readOrHear() ([]byte, error) {
	if s.ear != nil {
		h := <-s.ear.said
		return s.stopListening()[:h.n], h.err
	}
	s.lend()
	n, err := s.core.srv.Net.Read(s.buf)
	return s.buf[:n], err
}

// fromServer gives the core what a read of the server connection has returned.
func (s *session) fromServer(p []byte, err error) {
	c := s.core
	if len(p) > 0 {
		if e := c.serverRead(p); e != nil {
			s.brokeProtocol(e)
			return
		}
	}
	if err != nil && len(p) == 0 {
		if err == io.EOF {
			err = errEOF
		}
		c.serverLost(s.why(err))
	}
}

// writeCopy writes COPY data to the server and listens to it meanwhile. It returns false if the core must be asked again.
func (s *session) writeCopy() bool {
	c := s.core
	s.listen()
	if raw := c.srv.Raw(); raw != nil {
		var n int
		var err error
		if e := raw.Write(func(fd uintptr) bool {
			n, err = epoll.Send(int(fd), c.toServer)
			return true
		}); e != nil {
			err = e
		}
		switch {
		case err == nil && n == len(c.toServer):
			c.sent()
			return true
		case err != nil && err != syscall.EAGAIN:
			c.sent()
			return s.lostOnWrite(err)
		}
		c.toServer = c.toServer[max(n, 0):]
	}
	s.writeLater(c.toServer)
	for {
		select {
		case err := <-s.writing:
			s.writing = nil
			if err != nil {
				return s.lostOnWrite(err)
			}
			return true
		case h := <-s.ear.said:
			s.took(h)
			if !c.listens() || !s.flushClient() {
				return false
			}
			s.listen()
		}
	}
}
