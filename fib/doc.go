// Package fib is what dispatch reads: the Forwarding Information Base, compiled from one rib.Snapshot.
//
// A statement loads the table from its Handle once, looks its key up (Table.Lookup: key -> range -> slot of a shard), loads
// the slot's candidates and goes through them in order. None of that takes a lock, allocates or calls the system.
//
// Two things change at very different rates, so they are kept apart. Who owns a range changes seldom and costs an index
// over all ranges: a new Table behind the Handle's pointer. Which backend of a shard is best changes with every breath of
// the network: it swaps one list behind one pointer in that shard's slot, and touches no index. One goroutine, the
// Maintainer, does both, so that neither loses the other's work.
//
// Compile is a pure function of a snapshot: no clock, no goroutine, no log. So a table can be made and asked anywhere, and
// Explain can run the very comparator that routes. The package knows no sockets and no statements; it imports rib alone.
// There is no cache in front of it: a cache would have a lock or an age, and the table is faster than either.
package fib
