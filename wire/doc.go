// Package wire serves client connections: from the bytes of an ordinary PostgreSQL client to a backend and back.
//
// The session is a state machine that does no I/O (core): bytes and server connections are handed to it, and it says what it
// wants next: client bytes, server bytes, a connection to one of these backends, or an end. A transport (session) does what it
// asks for. So everything that is hard to get right, which frame means what after which, when a connection may be given back,
// what may be sent twice, can be tested without a socket, and another transport changes none of it.
//
// There are two transports. Sessions on plain sockets are run by the goroutine of an epoll set, as far as that goes without waiting
// (raw.go): no goroutine is switched to for a query, and none stands by an idle client. Everything else, TLS above all, goes through
// net.Conn (session.go).
//
// The package reads the forwarding table and never writes it; it knows nothing of gossip, Raft, or configuration files.
package wire
