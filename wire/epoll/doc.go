// Package epoll tells of sockets that no goroutine waits for. Go's own poller can only wake a goroutine that waits, and that is two
// switches for every query. A Set has its own goroutines, and they call whoever listens to a socket themselves.
//
// It knows nothing of the protocol, and of what a socket is for. Elsewhere than on Linux there is no Set, and users do without.
package epoll
