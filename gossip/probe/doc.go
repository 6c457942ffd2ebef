// Package probe is the Prober: it observes the PostgreSQL servers near this node and tells a Sink, in production the
// gossip Speaker, what it sees.
//
// One goroutine per backend keeps one connection and runs one real query a second on it: a server that accepts
// connections and cannot answer is down. Between probes it reads from the connection, so the death of the server is
// seen when the kernel closes it and not a second later. Role, timeline, lag and system identifier are what PostgreSQL
// itself says; nothing is derived from configuration.
//
// It also finds out when a backend that this node itself could not reach is back (Suspect, Watch): that evidence is this
// node's own, holds for it alone, and is nobody else's business.
//
// It knows nothing of memberlist, tables or routing.
package probe
