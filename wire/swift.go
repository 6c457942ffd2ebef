package wire

import (
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
func (s *swift) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := epoll.Read(s.raw, p)
	return n, s.fault("read", err)
}

// Write is net.Conn's.
func (s *swift) Write(p []byte) (int, error) {
	n, err := epoll.Write(s.raw, p)
	return n, s.fault("write", err)
}

// fault tells what the kernel says in net's words.
func (s *swift) fault(op string, err error) error {
	if _, ok := err.(syscall.Errno); !ok {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
