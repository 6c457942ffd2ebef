package wire

import (
	"cmp"
	"io"
	"net"
	"os"
	"syscall"

	"rangefinder/wire/epoll"
)

// swift is a client's TCP connection, for its login and for what TLS reads and writes below a session: its calls of the kernel are
// those of epoll.Recv and epoll.Send. It has all else of the connection itself.
type swift struct {
	*net.TCPConn
	raw syscall.RawConn
}

// quicken makes a TCP connection swift; others stay as they are.
func quicken(conn net.Conn) net.Conn {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return conn
	}
	return &swift{t, raw}
}

// Read is net.Conn's.
func (s *swift) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	e := s.raw.Read(func(fd uintptr) bool {
		n, err = epoll.Recv(int(fd), p)
		return err != syscall.EAGAIN
	})
	switch {
	case e != nil:
		return 0, e
	case err != nil:
		return 0, s.fault("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write is net.Conn's.
func (s *swift) Write(p []byte) (int, error) {
	n, err := writeAll(s.raw, p)
	if _, ok := err.(syscall.Errno); ok {
		return n, s.fault("write", err)
	}
	return n, err
}

// writeAll writes p, and waits for whoever has to read it. n is how much the socket has taken.
func writeAll(raw syscall.RawConn, p []byte) (n int, err error) {
	failed := raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var m int
			if m, err = epoll.Send(int(fd), p[n:]); err != nil {
				return err != syscall.EAGAIN
			}
			n += m
		}
		return true
	})
	return n, cmp.Or(failed, err)
}

func (s *swift) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
