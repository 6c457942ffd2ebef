// Package port is the one cluster port of a node: gossip packets over UDP, and TCP streams of several kinds (gossip, Raft,
// pulls of the ownership table, forwarded API calls, hellos) over one TCP port of the same number.
//
// With a cluster key every TCP stream is TLS 1.3 with certificates on both sides. Nobody runs a certificate authority for
// this: the authority's Ed25519 key is derived from the cluster key, each process signs itself a leaf that lives as long as
// the process, and both sides accept what that authority signed and nothing else. So knowing the key is what makes a node
// a member, and one key protects gossip (as memberlist's AES key, derived for that purpose), Raft, pulls and forwarding
// alike. Without a key the streams are plain; refusing that anywhere but on loopback is the caller's rule.
//
// A stream begins with one byte that names its kind. It comes inside TLS rather than as ALPN, so that plain and protected
// ports speak the same protocol and a stranger learns nothing of what a port serves.
//
// The package knows nothing of routes, ranges or PostgreSQL, and does not decide what a node does with a stream. Everything
// a stranger can reach is bounded: handshakes in progress (in all, and for one address), their time, and the size of a hello.
package port
