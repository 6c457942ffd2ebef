package wire

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"rangefinder/wire/epoll"
	"rangefinder/wire/pool"
)

// The raw transport drives a core straight on the sockets: a query costs two writes and two reads, and no goroutine is switched to.
// The sockets of the client and of the server connection are in an epoll set, not in Go's poller, and the set's own goroutine runs the
// session when something has come, as far as that goes without waiting. What has to wait (for a connection, for a primary, for a client
// that does not read) goes on in a goroutine of the session's own, which may. When that has nothing left to do but to wait for bytes, it
// ends, and the set has the session again. A session that waits for bytes has no goroutine.
//
// A session is run by one goroutine at a time: see rawState.word. What happens meanwhile makes it look around once more.

// rawState is the raw transport's part of a session.
type rawState struct {
	// constant
	sock *epoll.Socket  // the client's; nil: the session runs on net.Conns
	self epoll.Listener // the session

	// atomic
	word atomic.Uint32 // running, stirred or parked

	// owned by who runs the session
	lent  *[]byte // session.buf; nil: there is none
	begun int     // bytes of core.out that the client has
	burst int     // what was read in one go

	// the same, while the set runs it together with others
	batch *epoll.Batch  // nil: it reads and writes for itself
	from  *epoll.Socket // what it waits for bytes from
	got   exchanged     // what the batch has read for it
	wrote exchanged     // what the batch has written for it
	due   *epoll.Socket // to where the batch is to write, or has written; nil: nowhere
	full  bool          // the server takes no more for now
}

// The values of rawState.word. Who takes a session from parked to running runs it.
const (
	running uint32 = iota // somebody runs it
	stirred               // the same, and something has happened since it last looked
	parked                // it waits for bytes
)

// outcome is how a session stands when its transport cannot go on at once.
type outcome uint8

const (
	goesOn outcome = iota // it can: ask the core
	writes                // the batch has to write for it first
	waits                 // it waits for bytes
	blocks                // it has to do what may take time, which the set's goroutine must not
	ends                  // it is over
)

// burstMost bounds what a session reads in one go in the set's goroutine, where others wait for their turn. A larger result goes on in a
// goroutine of its own.
const burstMost = 8 * serverBuffer

// clientBurst is how much more a client's bytes count: statements among them may have to be parsed.
const clientBurst = 8

// goRaw has the session run on the client's socket, if that is a plain one.
func (s *session) goRaw() {
	r := &s.raw
	if r.sock = s.server.set.Adopt(s.client); r.sock == nil {
		return
	}
	s.client, s.socket, r.self = r.sock, r.sock, s
	r.sock.Tell(&r.self)
}

// runRaw runs the session until it waits for bytes, has to leave the set's goroutine (inSet), or is over. After waits it may be
// another goroutine's already.
func (s *session) runRaw(inSet bool) outcome {
	r := &s.raw
	for {
		if s.core.inHand == nil {
			s.core.inHand = new(inHand)
		}
		how := goesOn
		if r.begun > 0 {
			how = s.flushRaw(inSet)
		}
		for how == goesOn {
			how = s.step(inSet)
		}
		if r.lent != nil {
			s.server.reads.Put(r.lent)
			r.lent, s.buf = nil, nil
		}
		if how != waits {
			return how
		}
		r.batch = nil
		if r.word.CompareAndSwap(running, parked) {
			return how
		}
		r.word.Store(running) // and look around
		r.burst, r.full = 0, false
	}
}

// step does what the core wants next.
func (s *session) step(inSet bool) outcome {
	c := s.core
	switch want := c.next(); want {
	case readClient:
		return s.readRaw(inSet)
	case readServer:
		return s.serverRaw(inSet)
	case acquire:
		if inSet && !s.borrow() {
			return blocks
		}
		if !inSet {
			s.acquire(s.server.ctx)
		}
	case releaseServer:
		if inSet && !s.shelve() {
			return blocks
		}
		if !inSet {
			s.release(true)
		}
	case finish:
		if inSet && (c.violated || s.inbox != nil) { // there is more to be done than to close
			return blocks
		}
		if how := s.flushRaw(inSet); how != goesOn {
			return how
		}
		return ends
	default:
		if inSet {
			return blocks
		}
		switch want {
		case convene:
			s.convene(s.server.ctx)
		case standAside:
			s.standAside(s.server.ctx)
		case standBy:
			s.standBy(s.server.ctx)
		case discardServer:
			s.release(false)
		case locate:
			s.locate(s.server.ctx)
		case subscribe:
			s.subscribe(s.server.ctx)
		case learn:
			s.learn(s.server.ctx)
		case settle:
			s.settleSchema(s.server.ctx)
		case washServer:
			s.wash()
		}
	}
	return goesOn
}

// readRaw reads what the client has sent.
func (s *session) readRaw(inSet bool) outcome {
	c, r := s.core, &s.raw
	if how := s.flushBoth(inSet); how != goesOn {
		return how
	}
	if s.leaves() || s.hear() || s.notified() {
		return goesOn
	}
	if c.listens() && c.srv.Plain() != nil && c.srv.Plain().Readable() {
		if how := s.takeServer(c.srv.Plain()); how != waits {
			return how
		}
	}
	if len(c.toServer) > 0 && c.srv != nil { // no more than that is kept
		r.from = nil
		return waits
	}
	if inSet && (r.burst >= burstMost || r.sock.Readable() && len(c.in)-c.inOff >= serverBuffer) { // the end of a large message may be next
		return blocks
	}
	if !r.sock.Readable() {
		return s.restRaw()
	}
	c.unpark(&s.server.buffers)
	switch n, err := r.sock.TryRead(c.clientSpace()); {
	case err == syscall.EAGAIN:
		return s.restRaw()
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The ear woke us, or the sweeper, or Shutdown: to sleep, to end at once, or to end where the session next waits for its
		// client.
		if inSet {
			return blocks
		}
		if !s.goesOn() {
			s.farewell()
			return ends
		}
	default:
		s.gotRaw(n, err)
	}
	return goesOn
}

// gotRaw takes what was read from the client.
func (s *session) gotRaw(n int, err error) {
	switch {
	case n > 0:
		s.raw.burst += clientBurst * n
		s.core.clientRead(n)
	case err != syscall.EAGAIN: // end of file, or the client is gone
		s.core.closing = true
	}
}

// restRaw has the session wait for its client.
func (s *session) restRaw() outcome {
	c := s.core
	if s.expire() {
		return goesOn
	}
	s.listen()
	c.shrink()
	c.park(&s.server.buffers)
	s.sleep()
	s.raw.from = s.raw.sock
	return waits
}

// serverRaw exchanges bytes with the server.
func (s *session) serverRaw(inSet bool) outcome {
	c, r := s.core, &s.raw
	plain := c.srv.Plain()
	if plain == nil {
		if inSet {
			return blocks
		}
		if s.flushServer() && s.flushRaw(false) == goesOn {
			s.readServer()
		}
		return goesOn
	}
	if how := s.flushBoth(inSet); how != goesOn {
		return how
	}
	if c.srv == nil || c.broken || c.closing { // something could not be written
		return goesOn
	}
	if inSet && r.burst >= burstMost {
		return blocks
	}
	return s.takeServer(plain)
}

// lend has the session have a buffer for what the server sends.
func (s *session) lend() {
	switch {
	case s.buf != nil:
	case s.raw.sock == nil:
		s.buf = make([]byte, serverBuffer)
	default: // until it next waits
		s.raw.lent = s.server.reads.Get().(*[]byte)
		s.buf = *s.raw.lent
	}
}

// takeServer reads what the server has sent.
func (s *session) takeServer(plain *epoll.Socket) outcome {
	if plain.Readable() {
		s.lend()
		if n, err := plain.TryRead(s.buf); err != syscall.EAGAIN {
			s.tookServer(n, err)
			return goesOn
		}
	}
	s.raw.from = plain
	return waits
}

// tookServer takes what was read from the server into the session's buffer.
func (s *session) tookServer(n int, err error) {
	switch {
	case n > 0:
		s.raw.burst += n
		if e := s.core.serverRead(s.buf[:n]); e != nil {
			s.brokeProtocol(e)
		}
	case err == syscall.EAGAIN:
	case err == nil:
		s.core.serverLost(errEOF)
	default:
		s.core.serverLost(s.why(err))
	}
}

// flushBoth writes what is due to the server and to the client. What the server does not take at once stays in core.toServer: it may
// have to write itself before it reads all of that.
func (s *session) flushBoth(inSet bool) outcome {
	c := s.core
	if len(c.toServer) > 0 && c.srv != nil {
		if how := s.feed(inSet); how != goesOn {
			return how
		}
	}
	return s.flushRaw(inSet)
}

// feed writes what is due to the server.
func (s *session) feed(inSet bool) outcome {
	c := s.core
	plain := c.srv.Plain()
	switch {
	case inSet && (plain == nil || s.cutting.Load() != calm): // to heed that may mean to wait
		return blocks
	case plain == nil:
		s.flushServer()
		return goesOn
	case !inSet && !s.heed():
		return goesOn
	}
	if plain.Late() { // it has been struck: nothing is to be sent there
		c.serverLost(s.why(os.ErrDeadlineExceeded))
		return goesOn
	}
	if s.raw.batch != nil {
		if !s.raw.full {
			return s.leave(plain, c.toServer)
		}
		return goesOn
	}
	n, err := plain.TryWrite(c.toServer)
	s.fed(plain, n, err)
	return goesOn
}

// fed tells how much the server has taken.
func (s *session) fed(plain *epoll.Socket, n int, err error) {
	c := s.core
	switch {
	case err == nil && n == len(c.toServer):
		c.sent()
	case err == nil:
		c.toServer, s.raw.full = c.toServer[n:], true
	case err == syscall.EAGAIN:
		s.raw.full = true
	default:
		c.toServer = c.toServer[:0]
		s.lostRaw(plain, err)
	}
}

// flushFirst writes what is due to the client before a wait of its own: with what came before it the client need not wait.
func (s *session) flushFirst() {
	if s.raw.sock != nil {
		s.flushRaw(false)
	} else {
		s.flushClient()
	}
}

// lostRaw handles a failed write, as lostOnWrite does. It does not wait.
func (s *session) lostRaw(plain *epoll.Socket, err error) {
	c := s.core
	for c.srv != nil && !c.broken {
		if how := s.takeServer(plain); how == waits { // it has said nothing more
			c.serverLost(s.why(err))
			return
		}
	}
}

// flushRaw writes what is due to the client, however long the client takes to read it. A client that is gone ends the session at the
// core's next step.
func (s *session) flushRaw(inSet bool) outcome {
	c, r := s.core, &s.raw
	if len(c.out) == 0 || r.begun == 0 && c.holds() {
		return goesOn
	}
	if r.batch != nil {
		return s.leave(r.sock, c.out[r.begun:])
	}
	n, err := r.sock.TryWrite(c.out[r.begun:])
	return s.flushedRaw(n, err, inSet)
}

// flushedRaw tells how much the client has taken, and has it take the rest.
func (s *session) flushedRaw(n int, err error, inSet bool) outcome {
	c, r := s.core, &s.raw
	if err == nil {
		r.begun += n
	}
	if err == syscall.EAGAIN || err == nil && r.begun < len(c.out) {
		if inSet {
			return blocks
		}
		_, err = r.sock.Write(c.out[r.begun:]) // it waits for the client
	}
	r.begun = 0
	c.written()
	if err != nil {
		s.clientGone()
	}
	return goesOn
}

// borrow is acquire if it takes no time. It returns false, and has done nothing, if it does.
func (s *session) borrow() bool {
	if s.gate.enter() != nil {
		return false
	}
	conn := s.ready()
	if conn != nil && s.core.need.write && conn.Standby() {
		if !conn.Shelve() { // to close it takes time
			go conn.Release()
		}
		conn = nil
	}
	if conn == nil {
		s.gate.leave()
		return false
	}
	s.borrowed(s.server.ctx, conn)
	return true
}

// shelve is release if it takes no time. It returns false, and has done nothing, if it does.
func (s *session) shelve() bool {
	conn := s.core.srv
	if s.ear != nil || s.writing != nil || !s.mu.TryLock() { // a cancel request is being delivered
		return false
	}
	defer s.mu.Unlock()
	if s.struck {
		return false
	}
	s.running = nil
	s.has.Store(nil)
	s.hearOf(conn, nil)
	if !conn.Shelve() {
		s.running = conn
		s.has.Store(conn)
		s.hearOf(conn, &s.raw.self)
		return false
	}
	s.gate.leave()
	s.core.returned()
	return true
}

// hearOf has l told of a server connection's events.
func (s *session) hearOf(conn *pool.Conn, l *epoll.Listener) {
	if plain := conn.Plain(); plain != nil && s.raw.sock != nil {
		plain.Tell(l)
	}
}
