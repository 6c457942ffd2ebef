// Package node is the process: configuration, state on disk, lifecycle, admin API, debug page and command line.
//
// It is the only place where gossip, ledger and wire meet. Nothing is decided here that a statement waits for: what routes
// is in rib and fib, what agrees is in cluster, what is heard is in gossip; node starts them in the right order, carries
// events from one to the other, shows what they believe, and stops them again. Nobody imports node but main, so whatever
// another package needs of it must be handed to that package when it is built.
//
// One Node holds no package-level state: a test runs ten of them in one process.
package node
