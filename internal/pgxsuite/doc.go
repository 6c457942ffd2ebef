// Command pgxsuite runs pgx's own test suite twice, against PostgreSQL alone and through a node in transaction mode on an
// unsharded database, and prints what differs. DIFFERENCES.md says why.
package main
