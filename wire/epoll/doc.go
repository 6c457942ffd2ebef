// Package epoll tells of sockets that nobody waits for: idle server connections that their backend closes, and sessions that
// sleep without a goroutine until their client sends something. Go's own poller can only wake a goroutine that waits.
//
// It knows nothing of the protocol, and of what a socket is for. Elsewhere than on Linux there is no Set, and users do without.
package epoll
