//go:build !linux

package epoll

import "syscall"

// Events to be told of.
const (
	Ended uint32 = 1 // the other side has ended its stream
	Input uint32 = 2 // there is something to read, be it the end
)

// Set is not to be had here: every method says so.
type Set struct{}

// Listener is told of a socket's event.
type Listener interface{ Told() }

// Open returns nil.
func Open() *Set { return nil }

// Close does nothing.
func (*Set) Close() {}

// Watch returns -1.
func (*Set) Watch(syscall.RawConn, uint32, Listener) int32 { return -1 }

// Await returns -1.
func (*Set) Await(syscall.RawConn, uint32, Listener) int32 { return -1 }

// Forget does nothing.
func (*Set) Forget(int32, Listener) {}
