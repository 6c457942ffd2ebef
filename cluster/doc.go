// Package cluster is the ledger: who owns which range of keys, agreed by Raft, and nothing else.
//
// A few nodes (voters: three, spread over the regions) hold a Raft log whose commands make keyspaces and record which
// PostgreSQL cluster is which shard. Every command is checked again when it is applied, so a command that no longer fits is
// refused on every voter alike and changes nothing. All other nodes follow: gossip tells them that there is a newer epoch, and
// they pull the whole table from any peer. Voters and followers write the same half of the RIB (rib.Owners), which keeps the
// newer of two tables; both keep the last table on disk, so a node that starts alone serves what it last knew.
//
// The package does not know gossip: members are told to it (Reconcile), and that an epoch is newer elsewhere is noticed by the
// node, which then calls Pull on a stream of its choice. It does not open connections either: Raft runs over a given stream
// layer, pulls over a given connection, checks over given PostgreSQL connections. So whole clusters run in virtual time.
//
// Why Raft and not gossip for this: two nodes that disagree about a backend's health serve a slower read; two that disagree
// about a range's owner lose a write.
package cluster
