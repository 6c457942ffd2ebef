// Package wire serves client connections: from the bytes of an ordinary PostgreSQL client to a backend and back.
//
// The session is a state machine that does no I/O (core): bytes and server connections are handed to it, and it says what it
// wants next: client bytes, server bytes, a connection to one of these backends, or an end. A transport (session) does what it
// asks for. So everything that is hard to get right, which frame means what after which, when a connection may be given back,
// what may be sent twice, can be tested without a socket, and another transport changes none of it.
//
// There are two transports. Plain sockets are driven inside the callbacks of their RawConn (raw.go), which saves system calls
// and holds no buffer while a client is idle; everything else, TLS above all, goes through net.Conn (session.go).
//
// The package reads the forwarding table and never writes it; it knows nothing of gossip, Raft, or configuration files.
package wire
