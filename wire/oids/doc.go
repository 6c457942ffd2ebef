// Package oids translates the numbers that PostgreSQL servers give to types and tables.
//
// A server numbers what its users make by a counter of its own, so an enum has another number (OID) on each shard; what PostgreSQL itself brings has
// the same everywhere (below First). Clients go by these numbers, in descriptions of rows and parameters and inside of binary arrays and
// composites. So one shard of each database is the reference, the one on which catalogs are read, and clients see its numbers alone.
//
// A Database is made of what the catalogs of all shards say: types and tables belong together by schema and name, arrays by their elements. A
// type that the reference does not have gets a number that is made of its name: the same for all shards and nodes, and in no catalog. A type
// that is in no catalog anybody has read (it was made a moment ago, or belongs to a session) is told as what it is to the client:
// PostgreSQL's own type "unknown".
//
// The package does no I/O (Read asks by a function that it is given), and all that it makes is immutable. It knows the protocol's bodies and nothing of sessions.
package oids
