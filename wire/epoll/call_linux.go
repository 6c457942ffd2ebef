package epoll

import (
	"syscall"
	"unsafe"
)

// Recv and Send are the calls of the kernel on a socket that never blocks. They are made without telling Go's scheduler: it would
// prepare for a call that blocks, and wake a thread of its own to watch it, at every query anew.

// Recv reads what there is. The error is EAGAIN if there is nothing.
func Recv(fd int, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// Send writes as much of p as the socket takes. The error is EAGAIN if it takes nothing.
func Send(fd int, p []byte) (int, error) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func call(trap uintptr, fd int, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EAGAIN:
			return -1, syscall.EAGAIN // a constant: no allocation
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}

// wait is epoll_wait that does not wait. It returns how many events there are.
func wait(fd int, events []syscall.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			return 0
		}
	}
}
