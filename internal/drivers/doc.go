// Package drivers has tests alone: real Postgres clients, each against two nodes of the built binary in front of real PostgreSQL.
//
// Every driver goes through the same steps, in a program of its own in testdata/ or, for Go's drivers, in a test file: connect
// over TLS with verify-full, transactions, prepared statements, pipelines, COPY, cancel, LISTEN, errors, binary results, settings,
// large values, eight connections at once. What a driver has its own way for is done in that way. After each one the test itself
// looks at the shards: every row lies where its key belongs.
//
// A driver that is not installed is a failure that says `make drivers`, never a reason to skip. The package starts the binary instead of
// a node in process: it knows nothing of Rangefinder but what a client and an operator see.
package drivers
