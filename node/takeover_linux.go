package node

import (
	"net"
	"syscall"
)

// peerUID is the user of the process at the other end of a Unix socket.
func peerUID(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	uid = -1
	if e := raw.Control(func(fd uintptr) {
		var c *syscall.Ucred
		if c, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid = int(c.Uid)
		}
	}); e != nil {
		return -1, e
	}
	return uid, err
}
