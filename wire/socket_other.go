//go:build !linux

package wire

import (
	"net"
	"syscall"
)

// setKeepAlive: whether a connection inherits what its listener has differs between systems.
func setKeepAlive(*Listener, net.KeepAliveConfig) bool { return false }

func readSocket(fd int, p []byte) (int, error) {
	return again(func() (int, error) { return syscall.Read(fd, p) })
}
func writeSocket(fd int, p []byte) (int, error) {
	return again(func() (int, error) { return syscall.Write(fd, p) })
}

// again repeats a system call that a signal interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}
