package epoll

import (
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Accept waits for the next connection of a listening TCP socket, whose address is at, and takes it into the set. It never was in Go's
// poller, which Adopt would have to take it out of: of what a login costs the kernel that is a tenth.
//
// ln is of a file that is the listening socket: that of a net.Listener does not wait. The connection has what it inherits from the listening socket, TCP_NODELAY too. The error is net.ErrClosed if the listener or the set
// is closed.
func (s *Set) Accept(ln syscall.RawConn, at net.Addr) (*Socket, error) {
	if s == nil {
		return nil, net.ErrClosed
	}
	for {
		fd, remote, err := accept(ln)
		if err != nil {
			if errno, ok := err.(syscall.Errno); ok {
				err = &net.OpError{Op: "accept", Net: "tcp", Addr: at, Err: os.NewSyscallError("accept4", errno)}
			}
			return nil, err
		}
		sock := &Socket{set: s, fd: fd, own: true, local: at, remote: remote}
		if s.add(sock, syscall.EPOLLIN|syscall.EPOLLRDHUP) {
			return sock, nil
		}
		syscall.Close(fd)
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
	}
}

// accept is accept4 that waits with Go's poller.
func accept(ln syscall.RawConn) (fd int, remote *net.TCPAddr, err error) {
	var from syscall.RawSockaddrAny
	failed := ln.Read(func(listening uintptr) bool {
		for {
			size := uint32(syscall.SizeofSockaddrAny)
			n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, listening, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)),
				syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
			switch errno {
			case 0:
				fd = int(n)
				return true
			case syscall.EAGAIN:
				return false
			case syscall.EINTR, syscall.ECONNABORTED: // it has gone before anybody took it: the next one
			default:
				err = errno
				return true
			}
		}
	})
	if failed != nil { // nothing but the end of the file, which says so in words of its own
		return -1, nil, net.ErrClosed
	}
	if err != nil {
		return -1, nil, err
	}
	return fd, tcpAddr(&from), nil
}

// tcpAddr is an address of the kernel's as net has it.
func tcpAddr(a *syscall.RawSockaddrAny) *net.TCPAddr {
	switch a.Addr.Family {
	case syscall.AF_INET:
		v4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(a))
		return &net.TCPAddr{IP: net.IPv4(v4.Addr[0], v4.Addr[1], v4.Addr[2], v4.Addr[3]), Port: port(v4.Port)}
	case syscall.AF_INET6:
		v6 := (*syscall.RawSockaddrInet6)(unsafe.Pointer(a))
		return &net.TCPAddr{IP: append(net.IP(nil), v6.Addr[:]...), Port: port(v6.Port), Zone: zone(v6.Scope_id)}
	}
	return &net.TCPAddr{}
}

// port is a port that the kernel has in the network's order.
func port(p uint16) int {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return int(binary.BigEndian.Uint16(b[:]))
}

// zone is the interface of a link's own address.
func zone(index uint32) string {
	if index == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(index))
}

// LocalAddr is net.Conn's. A listener of all addresses does not tell which of them a client has come to: the kernel is asked.
func (s *Socket) LocalAddr() net.Addr {
	a, ok := s.local.(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return s.local
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var own syscall.RawSockaddrAny
	size := uint32(syscall.SizeofSockaddrAny)
	if s.closed {
		return a
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(s.fd), uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return a
	}
	return tcpAddr(&own)
}
