// Command bench compares the router with what it stands beside, in one run and in alternation, and prints ratios: absolute
// times of a shared machine prove nothing.
//
// It starts what it measures (PostgreSQL, a node of this repository as a process of its own) on free ports of loopback, and
// stops it again. Benchmarks of single functions are `go test -bench` in their packages.
package main
