// Package memnet is a network in memory for tests: hosts in regions, packets and streams between them, with latency,
// jitter, loss, cuts and heals.
//
// It exists so that whole clusters, with memberlist and Raft as they run in production, can be tested in virtual time:
// everything blocks on channels and timers alone, which testing/synctest can see through, and never on a socket. A Net
// must be made inside the bubble that uses it. Real sockets would block the bubble's clock, and memberlist's own
// MockTransport hangs when it is torn down.
//
// Packets are lost, delayed and reordered. Streams keep their order as TCP does: loss costs them a retransmission's
// time, and a cut stalls them until it heals or a deadline passes.
//
// What happens to the n-th packet from one host to another is a function of the seed, the two names and n alone, so one
// link's luck does not depend on how goroutines of other hosts were scheduled.
package memnet
