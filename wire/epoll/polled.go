package epoll

import (
	"cmp"
	"io"
	"syscall"
)

// Read and Write are for a socket that Go's poller waits for. Their errors are the kernel's own (syscall.Errno), or what raw says of a
// deadline or its end.

// Read waits until there is something to read. At the end the error is io.EOF. p is not empty.
func Read(raw syscall.RawConn, p []byte) (n int, err error) {
	failed := raw.Read(func(fd uintptr) bool {
		n, err = Recv(int(fd), p)
		return err != syscall.EAGAIN
	})
	if err = cmp.Or(failed, err); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write writes p, and waits for whoever has to read it. n is how much the socket has taken.
func Write(raw syscall.RawConn, p []byte) (n int, err error) {
	failed := raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var m int
			if m, err = Send(int(fd), p[n:]); err != nil {
				return err != syscall.EAGAIN
			}
			n += m
		}
		return true
	})
	return n, cmp.Or(failed, err)
}
