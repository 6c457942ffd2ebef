package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	window = 1 << 20                // bytes under way or unread before a writer waits
	rto    = 200 * time.Millisecond // first retransmission, as Linux has it at least
)

// retransmission returns the time that loss costs a stream's segment: TCP's timeout, doubling.
func retransmission(f *fate) (d time.Duration) {
	if !f.lost {
		return 0
	}
	d, step := rto, rto
	for i := 0; i < 6 && f.luck() < 0.25; i++ {
		step *= 2
		d += step
	}
	return d
}

// Listener accepts streams on one port of a host. It implements net.Listener.
type Listener struct {
	// constant
	host    *Host
	port    int
	backlog chan net.Conn
	closed  chan struct{}

	once sync.Once
}

// Accept waits for the next stream.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.backlog:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close frees the port and resets the streams that wait.
func (l *Listener) Close() error {
	l.once.Do(func() {
		n := l.host.net
		n.mu.Lock()
		if l.host.listeners[l.port] == l {
			delete(l.host.listeners, l.port)
		}
		n.mu.Unlock()
		close(l.closed)
		drain(l.backlog)
	})
	return nil
}

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.host.tcp(l.port) }

// Conn is one end of a stream. It implements net.Conn with deadlines, and CloseWrite.
type Conn struct {
	// constant
	host          *Host
	local, remote *net.TCPAddr
	in, out       *half
}

var _ net.Conn = (*Conn)(nil)

// connect makes both ends; the caller hands out the far one.
func (n *Net) connect(from, to *Host, port int) (near, far *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	src := from.tcp(from.portLocked())
	dst := to.tcp(port)
	there := &half{net: n, from: from, to: to, changed: make(chan struct{})}
	back := &half{net: n, from: to, to: from, changed: make(chan struct{})}
	near = &Conn{host: from, local: src, remote: dst, in: back, out: there}
	far = &Conn{host: to, local: dst, remote: src, in: there, out: back}
	from.conns[near] = struct{}{}
	to.conns[far] = struct{}{}
	return near, far
}

// half is one direction: written by one end, read by the other.
type half struct {
	// constant
	net      *Net
	from, to *Host

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change that a waiting reader or writer must see
	segs     []segment
	size     int       // bytes in segs
	last     time.Time // arrival of the last segment: streams keep their order
	wclosed  bool      // the writing end has closed
	rclosed  bool      // the reading end has closed
	rdl, wdl time.Time // deadlines of the reading and of the writing end
}

// segment arrives at a time; the zero time means that the link is cut and the segment waits for it to heal.
type segment struct {
	data []byte
	err  error // io.EOF or ECONNRESET, once data is read
	at   time.Time
	left time.Time // when what arrives was sent, for the last time
}

func (h *half) signal() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// arrival decides when something sent now arrives, and when it is sent for the last time; zero if the link is cut. It needs mu.
func (h *half) arrival() (at, left time.Time) {
	h.net.mu.Lock()
	f := h.net.fateLocked(h.from, h.to)
	h.net.mu.Unlock()
	if f.cut || (len(h.segs) > 0 && h.segs[len(h.segs)-1].at.IsZero()) {
		return time.Time{}, time.Time{}
	}
	left = time.Now().Add(retransmission(&f))
	if at = left.Add(f.delay); at.Before(h.last) {
		at = h.last
	}
	h.last = at
	return at, left
}

// restart gives stalled segments their time, if the link is whole.
func (h *half) restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.segs {
		if h.segs[i].at.IsZero() {
			stalled := append([]segment(nil), h.segs[i:]...)
			h.segs = h.segs[:i]
			for _, s := range stalled {
				s.at, s.left = h.arrival()
				h.segs = append(h.segs, s)
			}
			break
		}
	}
	h.signal()
}

// push appends a segment; it needs mu.
func (h *half) push(data []byte, err error) {
	at, left := h.arrival()
	h.segs = append(h.segs, segment{data: data, err: err, at: at, left: left})
	h.size += len(data)
	h.signal()
}

// cutOff forgets what was written and is not on its way; it needs mu.
func (h *half) cutOff() {
	now := time.Now()
	for i, s := range h.segs {
		if s.at.IsZero() || s.left.After(now) {
			for _, s := range h.segs[i:] {
				h.size -= len(s.data)
			}
			h.segs = h.segs[:i]
			return
		}
	}
}

// wait unlocks mu, waits for a change, for the time or for the deadline, and locks again.
func (h *half) wait(until, deadline time.Time) {
	if until.IsZero() || (!deadline.IsZero() && deadline.Before(until)) {
		until = deadline
	}
	ch := h.changed
	h.mu.Unlock()
	defer h.mu.Lock()
	if until.IsZero() {
		<-ch
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-ch:
	case <-t.C:
	}
}

func expired(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	h := c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.rclosed:
			return 0, c.fail("read", net.ErrClosed)
		case expired(h.rdl):
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		var next time.Time
		if len(h.segs) > 0 {
			s := &h.segs[0]
			if !s.at.IsZero() && !time.Now().Before(s.at) {
				if s.err == nil {
					n := copy(p, s.data)
					s.data = s.data[n:]
					h.size -= n
					if len(s.data) == 0 {
						h.segs = h.segs[1:]
					}
					h.signal()
					return n, nil
				}
				if s.err == io.EOF {
					return 0, io.EOF
				}
				return 0, c.fail("read", s.err)
			}
			next = s.at
		}
		h.wait(next, h.rdl)
	}
}

// Write implements net.Conn. It waits while a mebibyte is under way or unread.
func (c *Conn) Write(p []byte) (int, error) {
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	written := 0
	for {
		switch {
		case h.wclosed:
			return written, c.fail("write", net.ErrClosed)
		case h.rclosed:
			return written, c.fail("write", syscall.EPIPE)
		case expired(h.wdl):
			return written, c.fail("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return written, nil
		}
		if n := min(window-h.size, len(p)); n > 0 {
			h.push(append([]byte(nil), p[:n]...), nil)
			c.host.streamBytes.Add(uint64(n))
			written += n
			p = p[n:]
			continue
		}
		h.wait(time.Time{}, h.wdl)
	}
}

// CloseWrite ends what this end sends; it can still read.
func (c *Conn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.wclosed {
		return c.fail("close", net.ErrClosed)
	}
	c.out.wclosed = true
	c.out.push(nil, io.EOF)
	return nil
}

// Close implements net.Conn: the other end reads what was written and then EOF.
func (c *Conn) Close() error {
	if !c.shut(io.EOF) {
		return c.fail("close", net.ErrClosed)
	}
	return nil
}

// Reset closes the connection as a socket does that does not linger: what has left still arrives, what has not, or was lost, never does. The other end
// gets ECONNRESET.
func (c *Conn) Reset() { c.shut(syscall.ECONNRESET) }

func (c *Conn) shut(why error) (first bool) {
	c.in.mu.Lock()
	first = !c.in.rclosed
	c.in.rclosed = true
	c.in.segs, c.in.size = nil, 0
	c.in.signal()
	c.in.mu.Unlock()

	c.out.mu.Lock()
	if !c.out.wclosed {
		c.out.wclosed = true
		if why != io.EOF {
			c.out.cutOff()
		}
		c.out.push(nil, why)
	}
	c.out.mu.Unlock()

	n := c.host.net
	n.mu.Lock()
	delete(c.host.conns, c)
	n.mu.Unlock()
	return first
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.rdl = t
	c.in.signal()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.wdl = t
	c.out.signal()
	return nil
}

func (c *Conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
