// Command bench compares the router with what it stands beside, in one run and in alternation, and prints ratios: absolute
// times of a shared machine prove nothing.
//
// It starts what it measures (PostgreSQL, a node of this repository as a process of its own, and for compare Debian's
// PgBouncer, HAProxy and Pgpool) on free ports of loopback, or for chaos in network namespaces of its own, in one temporary folder, and
// stops it again. Benchmarks of single
// functions are `go test -bench` in their packages.
//
// It measures processes from outside: what the kernel says they used, and what pgbench says it waited. It knows nothing of
// how the node works; but for the loops that time the routing of a statement and, for fib, its dispatch: they call the packages
// that a session calls; and for converge, which runs the gossip of whole clusters in virtual time.
package main
