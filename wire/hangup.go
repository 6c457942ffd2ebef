package wire

import (
	"context"
	"net"
	"syscall"
	"time"

	"rangefinder/wire/pool"
)

// hungUp reports whether the client has closed its side. It takes no byte. Of a
// connection that is no socket it knows nothing.
func hungUp(client net.Conn) bool {
	if t, ok := client.(interface{ NetConn() net.Conn }); ok { // TLS
		client = t.NetConn()
	}
	sc, ok := client.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) { gone = peerClosed(int(fd)) })
	return gone || err != nil
}

// streamEnded reports whether the end of the stream is the next thing to be read. Bytes before it hide it.
func streamEnded(fd int) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
}

// goneAfter is how long a statement, or its wait for a connection, has taken before the kernel is asked whether its client is still
// there. Nobody reads from the client meanwhile, so nothing else would tell. Asked twice a second by the sweeper, it costs a
// statement nothing.
//
// A client that closes only its writing side, and waits for the answer, looks to TCP like one that is gone. PostgreSQL runs its statement
// to the end by default, and cancels it if client_connection_check_interval is set, for it asks for the same state (POLLRDHUP);
// PgBouncer ends the client at once. No driver does it, and nodes that stand between thousands of clients and few connections cannot
// let statements go on for nobody: so it is taken as gone here too, but not before a second has passed. It still gets to read that its
// statement was canceled.
const goneAfter = time.Second

// giveUp ends a session's wait for a connection: its client is gone.
func (s *session) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held(errHangup)
	}
}

// abandonLimit bounds how long it may take to cancel what a session leaves behind.
const abandonLimit = 2 * time.Second

// abandon cancels what runs on a connection that is about to be closed: PostgreSQL itself would notice only when it next writes. Nobody
// else gets that connection, so there is nothing else that could be hit.
func (s *session) abandon(conn *pool.Conn) {
	s.server.helpers.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), abandonLimit)
		defer cancel()
		if err := conn.Cancel(ctx); err != nil {
			s.server.log.Info("could not cancel what a session has left behind", "backend", conn.Backend.Name, "err", err)
		}
	})
}

// unanswered reports whether the server may still be at work for the session.
func (c *core) unanswered() bool { return c.waiting() || c.serverOpen || c.copyIn }
