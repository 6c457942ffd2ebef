package lab

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is a connection at the near end of two delay lines. It does not embed the far one: nothing may go around the lines.
type conn struct {
	// constant
	inner         net.Conn
	in, out       *line
	readDeadline  *deadline
	writeDeadline *deadline
	closed        chan struct{} // closed by Close
	broken        chan struct{} // closed by the sender when inner takes no more

	readMu  sync.Mutex // one reader at a time
	writeMu sync.Mutex // one writer at a time: a Write is not interleaved

	// guarded by mu
	mu       sync.Mutex
	ending   bool  // Close or CloseWrite was called
	writeErr error // set before broken is closed
}

// errHalfClosed travels down the outgoing line as the end of what is written.
var errHalfClosed = errors.New("closed for writing")

// lastWords bounds how long a closed connection's last bytes may take to be taken by the other side.
const lastWords = 2 * time.Second

func newConn(inner net.Conn, oneWay time.Duration) *conn {
	c := &conn{
		inner:         inner,
		in:            newLine(oneWay),
		out:           newLine(oneWay),
		readDeadline:  newDeadline(),
		writeDeadline: newDeadline(),
		closed:        make(chan struct{}),
		broken:        make(chan struct{}),
	}
	go c.receive()
	go c.send()
	return c
}

// receive moves what inner gives into the line, until it ends or the connection is closed.
func (c *conn) receive() {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.inner.Read(buf)
		if n > 0 && !c.arrive(append([]byte(nil), buf[:n]...), nil) {
			return
		}
		if err != nil {
			c.arrive(nil, err)
			return
		}
	}
}

func (c *conn) arrive(data []byte, err error) bool {
	for !c.in.put(data, err) {
		select {
		case <-c.in.space:
		case <-c.closed:
			return false
		}
	}
	return true
}

// send moves what is due out of the line into inner. After Close it still delivers what was written before, as the kernel
// does, and then closes inner.
func (c *conn) send() {
	defer func() { _ = c.inner.Close() }()
	for {
		p, ok := c.out.first()
		if !ok {
			select {
			case <-c.out.data:
			case <-c.closed:
				if _, more := c.out.first(); !more {
					return
				}
			}
			continue
		}
		until(nil, p.due)
		if p.err != nil {
			if half, ok := c.inner.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			<-c.closed
			return
		}
		if _, err := c.inner.Write(p.data); err != nil {
			c.mu.Lock()
			c.writeErr = err
			c.mu.Unlock()
			close(c.broken)
			<-c.closed
			return
		}
		c.out.take(len(p.data))
	}
}

// Read returns bytes that came in at least half a round trip ago.
func (c *conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		expired := c.readDeadline.over()
		select {
		case <-c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case <-expired:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		default:
		}
		p, ok := c.in.first()
		if ok && !time.Now().Before(p.due) {
			if p.err != nil { // stays in the line: every later Read gets it, too
				if errors.Is(p.err, io.EOF) {
					return 0, io.EOF
				}
				return 0, p.err
			}
			n := copy(b, p.data)
			if n > 0 {
				c.in.take(n)
			}
			return n, nil
		}
		var due <-chan time.Time
		var timer *time.Timer
		if ok {
			timer = time.NewTimer(time.Until(p.due))
			due = timer.C
		}
		select {
		case <-c.in.data:
		case <-due:
		case <-expired:
		case <-c.closed:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// Write sends bytes on their way. As with any connection, no error does not mean that they arrived.
func (c *conn) Write(b []byte) (written int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	const chunk = 64 << 10
	for {
		expired := c.writeDeadline.over()
		select {
		case <-c.closed:
			return written, c.opError("write", net.ErrClosed)
		case <-expired:
			return written, c.opError("write", os.ErrDeadlineExceeded)
		case <-c.broken:
			c.mu.Lock()
			defer c.mu.Unlock()
			return written, c.writeErr
		default:
		}
		if len(b) == 0 {
			return written, nil
		}
		n := min(len(b), chunk)
		ok, err := c.put(append([]byte(nil), b[:n]...), nil)
		if err != nil {
			return written, err
		}
		if ok {
			written += n
			b = b[n:]
			continue
		}
		select {
		case <-c.out.space:
		case <-expired:
		case <-c.closed:
		case <-c.broken:
		}
	}
}

// put adds to the outgoing line unless the connection was closed, also for writing only.
func (c *conn) put(data []byte, end error) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false, c.opError("write", net.ErrClosed)
	}
	return c.out.put(data, end), nil
}

// CloseWrite ends the writing side: the peer reads an end of file after all that was written.
func (c *conn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for {
		ok, err := c.put(nil, errHalfClosed)
		if err != nil {
			return err
		}
		if ok {
			c.mu.Lock()
			c.ending = true
			c.mu.Unlock()
			return nil
		}
		select {
		case <-c.out.space:
		case <-c.closed:
		case <-c.broken:
			return nil
		}
	}
}

// Close closes the connection. What was written is still delivered, after its delay; the goroutines end with it.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return c.opError("close", net.ErrClosed)
	default:
	}
	c.ending = true
	close(c.closed)
	_ = c.inner.SetReadDeadline(time.Unix(1, 0)) // wakes receive
	_ = c.inner.SetWriteDeadline(time.Now().Add(c.out.delay + lastWords))
	return nil
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.inner.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *conn) LocalAddr() net.Addr  { return c.inner.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

func (c *conn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}

// Pending reports whether Read would return at once. Who keeps an idle connection asks, to see whether it was closed.
func (c *conn) Pending() bool {
	p, ok := c.in.first()
	return ok && !time.Now().Before(p.due)
}
