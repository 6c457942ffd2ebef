package wire

import (
	"net"
	"syscall"
)

// hungUp reports whether the client has closed its side. It takes no byte, and may be called inside a RawConn's callback. Of a
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
