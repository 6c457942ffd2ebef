package wire

import (
	"net"
	"syscall"
	"time"
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

// setKeepAlive sets TCP's keepalive on a listening socket for what it accepts. It returns false if that has to be told itself.
func setKeepAlive(ln *Listener, cfg net.KeepAliveConfig) bool {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	set := true
	err = raw.Control(func(fd uintptr) {
		option := func(level, name, value int) {
			set = set && syscall.SetsockoptInt(int(fd), level, name, value) == nil
		}
		if !cfg.Enable {
			option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 0)
			return
		}
		option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		for name, d := range map[int]time.Duration{syscall.TCP_KEEPIDLE: cfg.Idle, syscall.TCP_KEEPINTVL: cfg.Interval} {
			if d > 0 {
				option(syscall.IPPROTO_TCP, name, int((d+time.Second-1)/time.Second))
			}
		}
	})
	return err == nil && set
}
