package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// session is the buffered transport of one core: one goroutine that reads and writes whole buffers on net.Conns. Like a
// PostgreSQL backend it looks at one side at a time; core never has both sides wait for each other.
type session struct {
	// constant
	server *Server
	client net.Conn
	socket net.Conn // client, or what is below its TLS
	id     pool.Identity
	pid    uint32 // with secret, the key of a CancelRequest
	secret []byte
	gate   *gate

	connected time.Time

	// owned by the session's goroutine
	core    *core
	buf     []byte     // server bytes
	writing chan error // a large write to the server that is under way
	ear     *ear       // nil: nobody listens to the server while the session waits for its client
	raw     rawState   // of the raw transport
	inbox   *inbox     // nil: it has never listened

	// atomic
	killed  atomic.Bool               // to end at once
	leaving atomic.Bool               // to end when it has no transaction open
	has     atomic.Pointer[pool.Conn] // the server connection; the server's queue while there is none yet
	expired atomic.Uint64             // the turn in which the session has waited for its client for too long
	drowsy  atomic.Bool               // it may go to sleep
	aside   atomic.Bool               // it waits for a range to change hands, without a connection
	ended   atomic.Bool               // it is over
	cutting atomic.Uint32             // calm, or why no further statement may be sent

	// owned by the sweeper
	seen sighting

	// guarded by mu
	mu      sync.Mutex
	running *pool.Conn              // what a CancelRequest would cancel
	struck  bool                    // the server connection has a deadline that has passed, and no next borrower
	held    context.CancelCauseFunc // or this: the wait for RESUME, for a connection, or for a primary
	bound   *fib.Slot               // that is the wait for a connection to one of the shard's backends; nil: it is not
	goal    *fib.NextHop            // and to this one
	toWrite bool                    // which is its primary
}

const (
	serverBuffer = 16 << 10
	// Below this a write to the server fits its socket buffers, and cannot block on the server's own writing.
	inlineWrite = 32 << 10
	// Answers are written to the client when this much is there, or when there is nothing left to read.
	clientFlush = 64 << 10
)

// errEOF is how a server connection ends that is just closed.
var errEOF = errors.New("end of file")

var errDraining = &pg.Error{Code: pg.CodeAdminShutdown, Message: "terminating connection: the node is stopping", Hint: "Connect again: another node takes over."}

// goOn runs the session until it is over, or waits without a goroutine. A panic ends this session and no other.
func (s *session) goOn() {
	how := ends
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
		}
		if how != waits {
			s.over()
		}
	}()
	if s.raw.sock == nil {
		s.run(s.server.ctx)
		return
	}
	how = s.runRaw(false)
}

func (s *session) panicked(with any) {
	s.server.log.Error("session panicked", "client", s.client.RemoteAddr(), "panic", with, "stack", stack())
}

// over is the end of the session.
func (s *session) over() {
	s.dropServer()
	s.core.leaveRanges()
	s.ended.Store(true)
	s.server.pools.Leave(s.id)
	s.unsubscribe()
	if s.core.violated {
		lastWords(s.client)
	}
	s.client.Close() // over TLS with a farewell, by which the client knows that nothing was cut off
	s.server.mu.Lock()
	delete(s.server.sessions, s.pid)
	s.core.tally.addTo(s.server.ended[s.id.Database])
	s.server.mu.Unlock()
	s.server.seats.leave(s.id.User, s.id.Database)
	s.server.gone(s.socket)
}

// lastWords lets a client hear why its connection is about to be closed, although it is still sending: no longer than a second, and
// 64 MiB, which is more than the largest message that could be meant well.
func lastWords(client net.Conn) { pg.Linger(client, time.Second, 64<<20) }

func (s *session) run(ctx context.Context) {
	for {
		switch s.core.next() {
		case readClient:
			if s.flushServer() && s.flushClient() && !s.readClient() {
				return
			}
		case readServer:
			if s.flushServer() && s.flushClient() {
				s.readServer()
			}
		case acquire:
			s.acquire(ctx)
		case convene:
			s.convene(ctx)
		case standAside:
			s.standAside(ctx)
		case standBy:
			s.standBy(ctx)
		case releaseServer:
			s.release(true)
		case discardServer:
			s.release(false)
		case locate:
			s.locate(ctx)
		case subscribe:
			s.subscribe(ctx)
		case learn:
			s.learn(ctx)
		case settle:
			s.settleSchema(ctx)
		case washServer:
			s.wash()
		case finish:
			s.flushClient()
			return
		}
	}
}

// wash cleans the connection of a session that ends, and gives it back.
func (s *session) wash() {
	conn := s.core.srv
	s.mu.Lock()
	s.running = nil // a CancelRequest comes too late
	struck := s.struck
	s.mu.Unlock()
	err := s.joinWriter()
	if struck {
		err = errDeaf
	}
	if s.ear != nil {
		conn.Net.SetReadDeadline(longAgo)
		h := <-s.ear.said
		s.stopListening()
		if !errors.Is(h.err, os.ErrDeadlineExceeded) {
			err = errors.New("it has said something, or is gone") // what, nobody has looked at
		}
	}
	if err == nil {
		err = wash(conn)
	}
	s.release(err == nil)
}

// acquire gets the connection that the core wants, or tells it why there is none.
func (s *session) acquire(ctx context.Context) {
	s.has.Store(s.server.queue)
	if !s.pass(ctx) {
		s.has.Store(nil)
		return
	}
	conn, err := s.ready(), error(nil)
	if conn == nil {
		conn, err = s.await(ctx)
	}
	if err == nil && s.core.need.write && conn.Standby() {
		conn, err = s.primary(ctx, conn)
	}
	if err != nil {
		s.has.Store(nil)
		s.gate.leave()
		s.core.refused(err)
		return
	}
	s.borrowed(ctx, conn)
}

// borrowed has the session go on with the connection that it wanted.
func (s *session) borrowed(ctx context.Context, conn *pool.Conn) {
	s.hearOf(conn, &s.raw.self)
	s.has.Store(conn)
	s.mu.Lock()
	s.running = conn
	if ctx.Err() != nil || s.killed.Load() { // cut off meanwhile, by somebody who did not see this connection
		s.strike()
	}
	s.mu.Unlock()
	s.core.acquired(conn)
}

// ready gets a connection that is idle; nil if there is none.
func (s *session) ready() *pool.Conn {
	b, write, known := s.core.hop.Backend, s.core.need.write, &s.core.shelves
	if conn := known.of(b).Ready(write); conn != nil {
		return conn
	}
	conn := s.server.pools.Ready(b, s.id, write)
	if conn != nil {
		known.put(b, conn.Shelf())
	}
	return conn
}

// shelves are those a session has got connections from lately.
type shelves struct {
	list [8]struct {
		backend *rib.Backend
		shelf   *pool.Shelf
	}
	next int
}

func (l *shelves) of(b *rib.Backend) *pool.Shelf {
	for i := range l.list {
		if l.list[i].backend == b {
			return l.list[i].shelf
		}
	}
	return nil
}

func (l *shelves) put(b *rib.Backend, s *pool.Shelf) {
	for i := range l.list {
		if l.list[i].backend == b {
			l.list[i].shelf = s
			return
		}
	}
	l.list[l.next].backend, l.list[l.next].shelf = b, s
	l.next = (l.next + 1) % len(l.list)
}

// await gets a connection that is not there yet. A CancelRequest ends the wait, and so does the end of the client.
func (s *session) await(ctx context.Context) (*pool.Conn, error) {
	held, free := s.hold(ctx)
	defer free()
	s.headFor(s.core.slot, s.core.hop, s.core.need.write)
	conn, err := s.server.pools.Get(held, s.core.hop.Backend, s.id, s.core.need.write)
	if err != nil && held.Err() != nil {
		if err = context.Cause(held); errors.Is(err, errHangup) {
			s.clientGone()
		}
	}
	return conn, err
}

// hold returns a context for a wait that others may end: see held. free is to be called after it.
func (s *session) hold(ctx context.Context) (held context.Context, free func()) {
	held, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.held = cancel
	s.mu.Unlock()
	if s.killed.Load() { // by somebody who has not seen that it waits
		cancel(errKilled.WithSeverity("ERROR"))
	}
	return held, func() {
		s.mu.Lock()
		s.held, s.bound, s.goal = nil, nil, nil
		s.mu.Unlock()
		cancel(nil)
		s.core.served = s.core.env.now()
	}
}

// release ends the loan of the server connection. A CancelRequest that is being delivered is waited for: it must not hit the
// next borrower.
func (s *session) release(clean bool) {
	conn := s.core.srv
	s.mu.Lock()
	s.running = nil
	clean = clean && !s.struck && s.ear == nil
	left := s.struck && s.cutting.CompareAndSwap(deaf, calm) // it may go on with what it has not answered
	s.struck = false
	s.mu.Unlock()
	s.has.Store(nil)
	s.hearOf(conn, nil)
	if !clean {
		if left || s.core.unanswered() {
			s.abandon(conn)
		}
		conn.Discard()
		if s.ear != nil {
			<-s.ear.said
			s.stopListening()
		}
	}
	if err := s.joinWriter(); err != nil && clean {
		clean = false
		conn.Discard()
	}
	if clean {
		conn.Release()
	}
	s.gate.leave()
	s.core.returned()
}

func (s *session) dropServer() {
	if s.core.srv != nil {
		s.core.redo, s.core.retrying = false, false
		s.release(false)
	}
}

// flushServer writes what is due to the server. It returns false if the core must be asked again.
func (s *session) flushServer() bool {
	c := s.core
	if len(c.toServer) == 0 || c.srv == nil {
		return true
	}
	if !s.heed() {
		return false
	}
	if err := s.joinWriter(); err != nil {
		c.serverLost(s.why(err))
		return false
	}
	if c.copyIn {
		return s.writeCopy()
	}
	if len(c.toServer) <= inlineWrite {
		_, err := c.srv.Net.Write(c.toServer)
		c.sent()
		if err != nil {
			return s.lostOnWrite(err)
		}
		return true
	}
	// The server may have to write before it has read all of this: read meanwhile.
	s.writeLater(c.toServer)
	return true
}

// writeLater writes p, the end of toServer, in the background. The buffer goes with it.
func (s *session) writeLater(p []byte) {
	conn, done := s.core.srv.Net, make(chan error, 1)
	s.core.toServer = nil
	s.writing = done
	go func() {
		_, err := conn.Write(p)
		done <- err
	}()
}

// lostOnWrite handles a failed write. The server may have said why before it closed: that is read first.
func (s *session) lostOnWrite(err error) bool {
	c := s.core
	c.srv.Net.SetReadDeadline(time.Now().Add(time.Second))
	if p, _ := s.readOrHear(); len(p) > 0 {
		if e := c.serverRead(p); e != nil {
			err = e
		}
	}
	if c.srv != nil && !c.broken {
		c.serverLost(s.why(err))
	}
	return false
}

func (s *session) joinWriter() error {
	if s.writing == nil {
		return nil
	}
	err := <-s.writing
	s.writing = nil
	return err
}

func (s *session) flushClient() bool {
	c := s.core
	if len(c.out) == 0 || c.holds() {
		return true
	}
	_, err := s.client.Write(c.out)
	c.written()
	if cap(c.out) > 2*clientFlush {
		c.out = nil
	}
	if err != nil {
		s.clientGone()
	}
	return true
}

// clientGone: nobody is there to hear the answers. What runs on the server is canceled when its connection is closed: see abandon.
func (s *session) clientGone() {
	c := s.core
	c.closing = true
	c.inOff, c.in = 0, nil
	if s.raw.sock == nil {
		s.client.Close()
	}
}

// readClient returns false if the session is over.
func (s *session) readClient() bool {
	c := s.core
	for {
		if s.leaves() || s.hear() || s.notified() {
			return true
		}
		s.listen()
		c.shrink()
		n, err := s.client.Read(c.clientSpace())
		c.clientRead(n)
		switch {
		case n > 0:
			return true
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The ear woke us, or the sweeper, or Shutdown: go if nothing is under way, else go on.
			if !s.goesOn() {
				s.farewell()
				c.closing = true
				return true
			}
			if s.expire() {
				return true
			}
		case err != nil:
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.server.log.Debug("client gone", "client", s.client.RemoteAddr(), "err", err)
			}
			c.closing = true
			return true
		}
	}
}

// goesOn takes back the deadline that woke the session, unless the session is to end at once.
func (s *session) goesOn() bool {
	s.client.SetReadDeadline(time.Time{})
	return s.server.ctx.Err() == nil && !s.killed.Load() // asked last: whoever ends it sets the deadline after that
}

func (s *session) readServer() {
	s.fromServer(s.readOrHear())
}

// brokeProtocol ends a server connection on which a FATAL error came, or what is not PostgreSQL's protocol.
func (s *session) brokeProtocol(err error) {
	if s.core.fatal == nil {
		s.server.log.Warn("backend broke the protocol", "backend", s.core.srv.Backend.Name, "err", err)
	}
	s.core.serverLost(err)
}

// cancel cancels what runs for the client, if something does.
func (s *session) cancel(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held(errWaitCanceled)
	}
	if s.running == nil {
		return
	}
	if err := s.running.Cancel(ctx); err != nil {
		s.server.log.Warn("could not pass on a cancel request", "backend", s.running.Backend.Name, "err", err)
	}
}
