// Package pool keeps server connections: for each backend a bounded number, shared by all sessions of this node.
//
// It knows how to connect, how long to wait, when to close, and what a connection remembers between two borrowers (prepared
// statements, settings). It does not know which backend a statement should go to, and it never sends a client's bytes: the
// session does both. One pool a backend, whoever the user is, because it is the backend that runs out of connections.
package pool
