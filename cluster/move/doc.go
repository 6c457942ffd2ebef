// Package move carries ranges from one shard to another while clients go on writing.
//
// The Mover runs where the ledger's leader is. It takes each move of the table through its steps: look for obstacles, copy, follow, freeze,
// fence, flip, clean up; and when something fails before the flip, it aborts the move and cleans up all the same. All that decides is in the
// ledger; what the next leader needs to go on is the move's phase and its note. Every step can be done again, by another leader too.
//
// It sees PostgreSQL through the interface Servers. Postgres is the real one; simulations have their own.
//
// Why the shard itself refuses (the fence) and leases are not enough: a node that is cut off, or slow by a few seconds, goes on sending
// writes to the old owner by what it last knew. Leases make that seldom; only the shard can make it impossible.
//
// The package does not know the ledger's log, nor gossip: it is handed what it needs of both.
package move
