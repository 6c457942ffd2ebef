package wire

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"

	"rangefinder/wire/pg"
)

// The raw transport drives a core straight on the sockets: a query costs two writes, two reads, and one read that finds
// nothing. One goroutine lives inside the RawConn.Read callback of the client's socket from login to end; for each request it enters the
// callback of the server's socket inside that.
//
// Go's poller tells of a socket's readiness once (edge-triggered), and forgets what it has told when RawConn.Read is entered.
// Inside one RawConn.Read nothing is forgotten. Hence the shape of it:
//
//   - the client's callback never returns true before the session ends: what arrives while a statement runs is not missed;
//   - a request is written inside the server's callback: its answer cannot come before the poller listens for it, so the
//     next thing to do is to wait, not to read.
//
// Nothing in a callback may use the same connection by its own methods in the same direction, or close it: they would wait for
// the callback to end.
//
// Everywhere else a read must find nothing before the wait, even after one that did not fill its buffer: the end of the
// stream may have come with those bytes, and would not be told of again.

// rawState is the raw transport's part of a session. It is owned by the session's goroutine.
type rawState struct {
	client   syscall.RawConn
	drive    func(fd uintptr) bool // driveClient and driveServer, as values made once
	driveSrv func(fd uintptr) bool
	clientFD int
	asked    bool // a request has just been written to the server: there is nothing to read yet
	over     bool
	ctx      context.Context
}

// goRaw has the session run on the client's socket, if that is a plain one.
func (s *session) goRaw() {
	sc, ok := s.client.(syscall.Conn)
	if !ok {
		return
	}
	r := &s.raw
	r.client, _ = sc.SyscallConn()
	r.ctx, r.drive, r.driveSrv = s.server.ctx, s.driveClient, s.driveServer
}

// runRaw runs the session on the client's socket, and tells whether it sleeps now; else it is over.
func (s *session) runRaw() (asleep bool) {
	r := &s.raw
	for {
		err := r.client.Read(r.drive)
		switch {
		case r.over:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The ear woke us, or the sweeper, or Shutdown: to sleep, to end at once, or to end where the session next waits for its
			// client.
			if !s.goesOn() {
				s.farewell()
				return false
			}
			if s.sleeps() {
				return true
			}
		default: // closed by Shutdown
			return false
		}
	}
}

// driveClient goes on with the session until it has to wait for its client (false) or is over (true).
func (s *session) driveClient(fd uintptr) bool {
	c, r := s.core, &s.raw
	r.clientFD = int(fd)
	for {
		switch c.next() {
		case readClient:
			if s.flushServer() && s.flushRaw() && !s.readRaw() {
				return false
			}
		case readServer:
			s.serverRaw()
		case acquire:
			s.acquire(r.ctx)
		case standBy:
			s.standBy(r.ctx)
		case releaseServer:
			s.release(true)
		case discardServer:
			s.release(false)
		case locate:
			s.locate(r.ctx)
		case subscribe:
			s.subscribe(r.ctx)
		case washServer:
			s.wash()
		case finish:
			s.flushRaw()
			r.over = true
			return true
		}
	}
}

// readRaw reads what the client has sent. It returns false if there is nothing yet: wait.
func (s *session) readRaw() bool {
	c, r := s.core, &s.raw
	if s.leaves() || s.hear() || s.notified() {
		return true
	}
	c.unpark(&s.server.buffers)
	space := c.clientSpace()
	n, err := readSocket(r.clientFD, space)
	switch {
	case n > 0:
		c.clientRead(n)
	case err == syscall.EAGAIN:
		if s.expire() {
			return true
		}
		s.listen()
		c.shrink()
		c.park(&s.server.buffers)
		return false
	default: // end of file, or the client is gone
		c.closing = true
	}
	return true
}

// serverRaw exchanges bytes with the server until the core wants something else.
func (s *session) serverRaw() {
	c, r := s.core, &s.raw
	conn := c.srv
	raw := conn.Raw()
	if raw == nil || s.ear != nil {
		if s.flushServer() && s.flushRaw() {
			s.readServer()
		}
		return
	}
	buf := s.server.reads.Get().(*[]byte)
	s.buf = *buf
	// After a request its answer is all there is to wait for. In a COPY the server may have said something before that.
	r.asked = len(c.toServer) > 0 && !c.copied
	err := raw.Read(r.driveSrv)
	s.buf = nil
	s.server.reads.Put(buf)
	if err != nil && c.srv == conn && !c.broken {
		c.serverLost(s.why(err))
	}
}

// driveServer returns true when the core wants something else than to read the server, false to wait for it.
func (s *session) driveServer(fd uintptr) bool {
	c, r := s.core, &s.raw
	for {
		if c.next() != readServer {
			return true
		}
		if len(c.toServer) > 0 && !s.writeServerRaw(int(fd)) {
			return true
		}
		s.flushRaw()
		if r.asked {
			r.asked = false
			return false
		}
		n, err := readSocket(int(fd), s.buf)
		switch {
		case n > 0:
			if e := c.serverRead(s.buf[:n]); e != nil {
				s.brokeProtocol(e)
				return true
			}
		case err == syscall.EAGAIN:
			return false
		case err == nil:
			c.serverLost(errEOF)
			return true
		default:
			c.serverLost(err)
			return true
		}
	}
}

// writeServerRaw writes what is due to the server. What its socket does not take at once is written in the background,
// while this goroutine reads: the server may have to write before it has read all of it. False: the connection is lost, or the client.
func (s *session) writeServerRaw(fd int) bool {
	c := s.core
	if !s.heed() {
		return false
	}
	if err := s.joinWriter(); err != nil {
		return s.lostRaw(fd, err)
	}
	n, err := writeSocket(fd, c.toServer)
	switch {
	case err == nil && n == len(c.toServer):
		c.sent()
		return true
	case err != nil && err != syscall.EAGAIN:
		c.toServer = c.toServer[:0]
		return s.lostRaw(fd, err)
	}
	s.writeLater(c.toServer[max(n, 0):])
	return true
}

// lostRaw handles a failed write, as lostOnWrite does. It must not wait: this is the callback of that very socket.
func (s *session) lostRaw(fd int, err error) bool {
	c := s.core
	if n, _ := readSocket(fd, s.buf); n > 0 {
		if e := c.serverRead(s.buf[:n]); e != nil {
			err = e
		}
	}
	if !c.broken {
		c.serverLost(s.why(err))
	}
	return false
}

// flushRaw writes what is due to the client, however long the client takes to read it. It always returns true: a client
// that is gone ends the session at the core's next step.
func (s *session) flushRaw() bool {
	c, r := s.core, &s.raw
	if len(c.out) == 0 || c.holds() {
		return true
	}
	n, err := writeSocket(r.clientFD, c.out)
	if err == syscall.EAGAIN || err == nil && n < len(c.out) {
		_, err = writeAll(r.client, c.out[max(n, 0):]) // it waits for the client
	}
	c.written()
	if err != nil {
		s.clientGone()
	}
	return true
}

// buffers are what a session needs while bytes are in hand. A session that waits for its client holds none.
type buffers struct{ in, out, toServer, batch []byte }

// largestKept bounds a buffer that is kept for the next session.
const largestKept = 64 << 10

// shrink drops large buffers that nothing is in.
func (c *core) shrink() {
	if len(c.in) > c.inOff || len(c.ops) > 0 {
		return
	}
	if cap(c.in) > largestKept {
		c.in, c.inOff, c.frame = nil, 0, nil
	}
	if cap(c.batch) > largestKept {
		c.batch, c.bind = nil, pg.Bind{} // which is a view of it
	}
	if c.plan != nil && len(c.plan.SQL) > largestKept && !c.waiting() && !c.copyIn {
		c.plan = nil // the text is as large as the buffer that it came in
		clear(c.expect[:cap(c.expect)])
	}
	if cap(c.ops) > 1000 {
		c.ops = nil
	}
	if cap(c.expect) > 1000 && !c.waiting() {
		c.expect, c.expectOff = nil, 0
	}
}

// park gives the buffers back, if nothing is in them.
func (c *core) park(pool *sync.Pool) {
	if c.held == nil || len(c.in) > c.inOff || len(c.out)+len(c.toServer)+len(c.batch) > 0 {
		return
	}
	b := c.held
	for _, x := range [...]struct {
		kept *[]byte
		used []byte
	}{{&b.in, c.in}, {&b.out, c.out}, {&b.toServer, c.toServer}, {&b.batch, c.batch}} {
		*x.kept = x.used[:0]
		if cap(x.used) > largestKept {
			*x.kept = nil
		}
	}
	c.in, c.inOff, c.out, c.toServer, c.batch, c.held = nil, 0, nil, nil, nil, nil
	pool.Put(b)
}

// unpark gets buffers for what is about to come.
func (c *core) unpark(pool *sync.Pool) {
	if c.held != nil {
		return
	}
	b := pool.Get().(*buffers)
	// What the core has of its own by now (a greeting, for one) stays.
	c.in, c.out = append(b.in[:0], c.in[c.inOff:]...), append(b.out[:0], c.out...)
	c.toServer, c.batch = append(b.toServer[:0], c.toServer...), append(b.batch[:0], c.batch...)
	c.inOff, c.held = 0, b
}
