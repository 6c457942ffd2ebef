package wire

import (
	"syscall"
	"unsafe"
)

// readSocket and writeSocket are recv and send on a socket that never blocks. They go to the kernel without telling Go's
// scheduler: it would prepare for a call that blocks, and wake a thread of its own to watch it, at every query anew.

func readSocket(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
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

func writeSocket(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EAGAIN:
			return -1, syscall.EAGAIN
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}
