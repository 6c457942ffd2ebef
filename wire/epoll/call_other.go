//go:build !linux

package epoll

import "syscall"

// Recv reads what there is. The error is EAGAIN if there is nothing.
func Recv(fd int, p []byte) (int, error) {
	return again(func() (int, error) { return syscall.Read(fd, p) })
}

// Send writes as much of p as the socket takes. The error is EAGAIN if it takes nothing.
func Send(fd int, p []byte) (int, error) {
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
