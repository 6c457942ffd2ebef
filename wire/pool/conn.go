package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/epoll"
	"rangefinder/wire/pg"
)

// Conn is one server connection, lent to one session at a time.
type Conn struct {
	// constant
	ID        uint64 // unique among the connections of these pools; never 0
	Backend   *rib.Backend
	Identity  Identity
	Net       net.Conn
	PID       uint32 // with Secret, the key of a CancelRequest
	Secret    []byte
	Connected time.Time // when its login was over
	home      *backendPool
	shelf     *Shelf
	plain     *epoll.Socket   // Net as a socket of these pools' set; nil: it is none
	watched   *epoll.Socket   // the same, or what stands for a socket below TLS; nil: nobody tells of its end
	raw       syscall.RawConn // nil: no plain socket
	below     net.Conn        // Net, or what is below TLS
	socket    syscall.RawConn // below as a socket; nil: it is none
	peekFn    func(fd uintptr) bool
	jitter    float64 // 0 to 1: see old
	local     Local   // nil: it leads to a backend, and has a home

	// owned by the borrower; by the pool between two borrowers
	Params   map[string]string // what the server last reported (ParameterStatus)
	Applied  string            // fingerprint of the session settings in force; see wire's settings
	Unnamed  uint64            // identity of the unnamed statement that the server holds; 0: none of ours
	Prepared Statements        // by server-side name
	Strict   bool              // its server, while it is a hot standby, takes no transaction that says no isolation: they would be serializable

	Left uint64 // the session that has run code which may have set something unseen; 0: none since it was cleaned

	notified notified // its own guard

	peekN   int
	peekErr error
	since   time.Duration // when it became idle, from home.start on

	// guarded by home.mu
	worn   bool    // to be closed when it comes back: see Pools.Reconnect
	spare  bool    // made in advance, and of no use to anybody yet
	holder *Holder // see HeldBy
}

// Identity is whom a server connection is authenticated as, and for which database.
type Identity struct {
	User     string
	Database string
	Own      bool // the node's own, never lent to a client: what it is authenticated with is no client's

	// Path is the search_path that the connection is begun with, and that RESET comes back to; "" is the server's own. What names mean to
	// a session depends on it, so a session has no connection that was begun with another one, whatever ALTER ROLE has set since.
	Path string
}

func newConn(home *backendPool, b *rib.Backend, id Identity, s *pg.Server) *Conn {
	c := &Conn{
		ID: home.ids.Add(1), Backend: b, Identity: id, Net: s.Conn, PID: s.PID, Secret: s.Secret,
		home: home, Params: s.Params, Strict: s.Strict, Connected: time.Now(), jitter: rand.Float64(),
	}
	c.plug(home.watch)
	return c
}

// plug puts the connection's socket into a set, and finds out what it is.
func (c *Conn) plug(watch *epoll.Set) {
	if c.plain = watch.Adopt(c.Net); c.plain != nil {
		c.Net, c.watched = c.plain, c.plain
	}
	c.below = c.Net
	t, encrypted := c.Net.(*tls.Conn)
	if encrypted {
		c.below = t.NetConn()
	}
	if sc, ok := c.below.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.socket, c.peekFn = raw, c.peek
			if !encrypted {
				c.raw = raw
			}
		}
	}
	if c.watched == nil && c.local == nil {
		c.watched = watch.Watch(c.socket)
	}
	if c.local == nil {
		c.abrupt(true)
	}
}

// abrupt says whether the connection ends by a reset, in whatever way this process gives it up, by its death too. Else the kernel would go on to send
// what the server has not taken, for minutes if the network is cut, and a statement could come there when its range has another owner. Not
// abrupt, the server gets what was written last.
func (c *Conn) abrupt(yes bool) {
	if c.socket == nil {
		return
	}
	linger := &syscall.Linger{}
	if yes {
		linger.Onoff = 1
	}
	_ = c.socket.Control(func(fd uintptr) { _ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, linger) })
}

// Plain is the connection as a socket of Pools.Set; nil if it is none.
func (c *Conn) Plain() *epoll.Socket { return c.plain }

// Raw is the connection as a plain socket; nil if it is none.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

func (c *Conn) peek(fd uintptr) bool {
	var b [1]byte
	c.peekN, _, c.peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return true
}

// pending is what a connection that is no plain socket offers in place of a peek.
type pending interface{ Pending() bool }

// quiet reports whether nothing waits to be read. An idle server connection has nothing to say: bytes or an end of file mean
// that the backend closed it, is about to, or that the last borrower left an answer behind. Over TLS that is so too: session
// tickets came before the login's answers, and PostgreSQL says nothing else by itself.
func (c *Conn) quiet() bool {
	if c.socket == nil {
		if p, ok := c.below.(pending); ok {
			return !p.Pending()
		}
		return true
	}
	if err := c.socket.Read(c.peekFn); err != nil {
		return false
	}
	return c.peekErr == syscall.EAGAIN
}

// usable reports whether the backend has not closed the connection, as far as is known without asking; with sure, the kernel is
// asked: the end may have come a moment ago.
func (c *Conn) usable(sure bool) bool {
	if c.watched != nil && !sure {
		return !c.watched.Ended()
	}
	return c.quiet()
}

// Standby reports whether the server was a replica when it last said which it is. That is at the login, and with the next answer after
// a promotion: of an idle connection it may be out of date in this direction alone.
func (c *Conn) Standby() bool { return c.Params["in_hot_standby"] == "on" }

// PreparedLimit is how many prepared statements the connection may keep, see Limits.
func (c *Conn) PreparedLimit() int {
	if c.home == nil || c.home.limits.Load().Prepared == 0 { // without a pool in tests of who uses it
		return math.MaxInt
	}
	return c.home.limits.Load().Prepared
}

// Release gives the connection back. It must be idle: outside a transaction, every answer read.
func (c *Conn) Release() {
	if c.local != nil {
		c.Discard()
		return
	}
	c.home.release(c)
}

// Shelve does what Release does, if that takes no time: it returns false, and has done nothing, if the connection is to be closed.
func (c *Conn) Shelve() bool { return c.local == nil && c.home.shelve(c) }

// Discard closes the connection: its state is unknown, or was somebody's own.
func (c *Conn) Discard() {
	if c.local != nil {
		c.Net.Close()
		c.local.Closed()
		return
	}
	c.close()
	c.home.forget(c)
}

func (c *Conn) close() {
	c.forgetEvents()
	c.Net.Close()
}

// forgetEvents is called before a connection is closed.
func (c *Conn) forgetEvents() {
	if c.plain == nil {
		c.home.watch.Forget(c.watched)
	}
}

// Bye closes the connection and says so: it is in order, and not needed any more.
func (c *Conn) Bye() {
	c.retire()
	c.home.forget(c)
}

// Cancel asks the backend to cancel the statement that runs on c. It returns when the backend has taken the request, so that
// a caller who keeps c until then cannot hit the next borrower's statement. An
// ErrUnheard means that the request may still arrive, at any time: then c has no next borrower.
func (c *Conn) Cancel(ctx context.Context) error {
	if c.local != nil {
		return c.local.Cancel(ctx)
	}
	cfg := c.home.cfg
	nc, err := cfg.Dial(ctx, "tcp", c.Backend.Addr)
	if err != nil {
		return err
	}
	if err = pg.Cancel(ctx, nc, cfg.tls(c.Backend.Addr), c.PID, c.Secret); err != nil {
		c.home.mu.Lock()
		c.worn = true
		c.home.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnheard, err)
	}
	return nil
}

// Silent reports whether nobody answers any more where the connection leads to: neither a server nor its machine, as it does by
// refusing one more connection. It makes one, at the same address, without a login, and waits for as long as ctx lets it. Only
// the lack of an answer counts: whatever else may go wrong with the attempt says nothing of a server.
func (c *Conn) Silent(ctx context.Context) bool {
	if c.local != nil {
		return false
	}
	nc, err := c.home.cfg.Dial(ctx, "tcp", c.Net.RemoteAddr().String())
	if err == nil {
		err = pg.Knock(ctx, nc)
	}
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// Unread reports whether bytes from the backend wait to be read. It may be called while the borrower waits for them.
func (c *Conn) Unread() bool {
	n := 0
	if c.socket != nil {
		_ = c.socket.Control(func(fd uintptr) {
			var b [1]byte
			n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		})
	}
	return n > 0
}

// ErrUnheard is that a backend has been sent a cancel request, and not said that it has it.
var ErrUnheard = errors.New("pool: no answer to a cancel request")

// Statements is the set of prepared statements that a server connection holds under names of ours, oldest use first out.
type Statements struct {
	byName map[string]*statement
	head   statement // ring; head.next is the most recently used
}

type statement struct {
	name       string
	shape      Shape
	prev, next *statement
}

// Shape sums up what the server says of a statement's parameters and result; 0 is unknown.
type Shape struct{ Params, Result uint64 }

// Shape returns what is known of a statement, and whether it is prepared.
func (s *Statements) Shape(name string) (Shape, bool) {
	st, ok := s.byName[name]
	if !ok {
		return Shape{}, false
	}
	return st.shape, true
}

// Describe records what the server has said of a statement, where that is not 0.
func (s *Statements) Describe(name string, params, result uint64) {
	if st, ok := s.byName[name]; ok {
		if params != 0 {
			st.shape.Params = params
		}
		if result != 0 {
			st.shape.Result = result
		}
	}
}

// Has reports whether name is prepared, and marks it as used.
func (s *Statements) Has(name string) bool {
	st, ok := s.byName[name]
	if ok {
		st.unlink()
		s.push(st)
	}
	return ok
}

// Add records that name is prepared now.
func (s *Statements) Add(name string) {
	if s.byName == nil {
		s.byName = make(map[string]*statement)
		s.head.prev, s.head.next = &s.head, &s.head
	}
	if s.Has(name) {
		return
	}
	st := &statement{name: name}
	s.byName[name] = st
	s.push(st)
}

// Remove records that name is not prepared any more.
func (s *Statements) Remove(name string) {
	if st, ok := s.byName[name]; ok {
		st.unlink()
		delete(s.byName, name)
	}
}

// Oldest returns the name used longest ago, "" if there is none.
func (s *Statements) Oldest() string {
	if len(s.byName) == 0 {
		return ""
	}
	return s.head.prev.name
}

// Len returns how many statements are prepared.
func (s *Statements) Len() int { return len(s.byName) }

// Clear forgets all of them, as DISCARD ALL does on the server.
func (s *Statements) Clear() { *s = Statements{} }

func (s *Statements) push(st *statement) {
	st.prev, st.next = &s.head, s.head.next
	st.prev.next, st.next.prev = st, st
}

func (st *statement) unlink() {
	st.prev.next, st.next.prev = st.next, st.prev
}
