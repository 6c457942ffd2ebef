// Package probe is the Prober: it looks at the PostgreSQL servers that this node lists or is an observer of (Assign), and tells a
// Sink, in production the gossip Speaker, what it sees.
//
// One goroutine per backend keeps one connection and runs one real query a second on it: a server that accepts
// connections and cannot answer is down. Between probes it reads from the connection, so the death of the server is
// seen when the kernel closes it and not a second later. Role, timeline, lag and system identifier are what PostgreSQL
// itself says; nothing is derived from configuration.
//
// What it cannot reach is evidence for this node alone (Lost, Recovered), beside what it says to others; it also finds out when a
// backend is back that somebody else here could not reach (Suspect, Watch). When most backends fall silent at one stroke it
// suspects itself, and calls them unknown instead of down for a while.
//
// It knows nothing of memberlist, tables or routing.
package probe
