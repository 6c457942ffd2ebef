//go:build !linux

package epoll

import (
	"net"
	"syscall"
)

// Set is not to be had here: every method says so.
type Set struct{}

// Socket is nothing here.
type Socket struct{ net.Conn }

// Batch is nothing here.
type Batch struct{}

// Write does nothing.
func (*Batch) Write(Runner, *Socket, []byte) {}

// Open returns nil.
func Open(bool) *Set { return nil }

// Close does nothing.
func (*Set) Close() {}

// Accept returns an error.
func (*Set) Accept(syscall.RawConn, net.Addr) (*Socket, error) { return nil, syscall.ENOTSUP }

// Adopt returns nil.
func (*Set) Adopt(net.Conn) *Socket { return nil }

// Watch returns nil.
func (*Set) Watch(syscall.RawConn) *Socket { return nil }

// Forget does nothing.
func (*Set) Forget(*Socket) {}

// Leave does nothing.
func (*Socket) Leave() {}

// Tell does nothing.
func (*Socket) Tell(*Listener) {}

// Readable returns false.
func (*Socket) Readable() bool { return false }

// Late returns false.
func (*Socket) Late() bool { return false }

// Ended returns false.
func (*Socket) Ended() bool { return false }

// TryRead returns an error.
func (*Socket) TryRead([]byte) (int, error) { return -1, syscall.ENOTSUP }

// TryWrite returns an error.
func (*Socket) TryWrite([]byte) (int, error) { return -1, syscall.ENOTSUP }

// SyscallConn returns an error.
func (*Socket) SyscallConn() (syscall.RawConn, error) { return nil, syscall.ENOTSUP }
