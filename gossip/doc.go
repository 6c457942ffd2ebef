// Package gossip is the Speaker: it tells the cluster what this node believes about backends, hears what others believe,
// and writes both into the health half of the node's rib.Table, of which it is the only writer.
//
// It runs on hashicorp/memberlist, which brings membership, failure detection and packets that carry our broadcasts. On
// top of it come, in the order in which they usually get a record there:
//
//   - eager push: a flip (a backend's state or role, or a newer ownership epoch) goes at once to four random nodes, and
//     so from whoever hears it first; and an echo of it from whoever hears it for the second time, to four nodes that
//     are always the same, so that each node is looked after by four;
//   - the queue: every record rides on memberlist's gossip, six times log(n) transmissions;
//   - sums: every memberlist ping is answered with a sum over all records the node holds. Two nodes whose sums differ
//     for a second exchange digests (per observer: newest stamp and sum) and pull what they lack, over streams, in
//     chunks. Push/pull carries the same digest and never the records.
//
// A record names backends and nodes by 64-bit hashes; the names are learned from announcements and members. Records are
// ordered by their author's (incarnation, sequence), never by a clock. Whatever the version of a peer or the wish of a
// liar with the cluster key, unknown kinds are counted and ignored and every table here has a bound.
//
// How far behind replicas are is told in large steps and within a budget, but at once where it crosses the operator's bounds: see lag.go.
//
// It knows nothing of ranges: of ownership it carries the epoch alone and tells the node, which asks the ledger. It opens
// no sockets: node hands it a transport. Records are hand-packed rather than msgpack because 32 bytes against some 150
// is what keeps thousands of them in one packet round, and because what a stranger sent is then checked field by field.
package gossip
