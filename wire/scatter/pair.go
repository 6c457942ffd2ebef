package scatter

import (
	"net"
	"os"
	"syscall"
)

// Pair makes two connected sockets: one for a Coordinator, one for its session.
func Pair() (coordinator, session net.Conn, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "scatter")
		nc, e := net.FileConn(f) // a descriptor of its own
		f.Close()
		ends[i] = nc
		if e != nil {
			err = e
		}
	}
	if err != nil {
		for _, nc := range ends {
			if nc != nil {
				nc.Close()
			}
		}
		return nil, nil, err
	}
	return ends[0], ends[1], nil
}
