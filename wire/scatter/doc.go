// Package scatter runs what needs more than one shard: statements that several shards answer, and transactions that reach over shards.
//
// A Coordinator is a PostgreSQL server inside the process. It speaks the server's side of the protocol, from after the login on, on one
// end of a socket pair; the session has the other end as a server connection like any other (pool.Pools.Local), so whatever sessions do
// for a real backend, they do for this one: prepared statements under names of their own, settings, COPY, cancel requests, errors, the
// transaction's status. It plans each statement once more with the session's planner, and runs it on its branches: ordinary connections of
// the pools, one for each shard, which it gets when a statement first needs the shard, with the transaction's BEGIN, its settings and its
// savepoints repeated there. It is made for one transaction, or for one statement outside of one, and ends with it; its branches go back to
// their pools clean, or are closed. A statement on one shard, outside of such a transaction, never comes near it.
//
// # How a statement of several shards runs
//
// sqlkey.Fan says what each shard is asked. All are asked at once, and their rows go to the client as they come (concat). Memory is bounded:
// a shard whose rows nobody takes is not read from. The first error ends the statement everywhere and is the client's.
//
// # How a transaction of several shards ends
//
// One that wrote on no shard or on one is committed there first, and then where it only read. One that wrote on several goes to a Committer,
// which has it take effect everywhere or nowhere (commit.go; twophase.Manager is one); without one it is rolled back, and refused.
//
// The package knows neither sessions nor configuration: what it has to ask the session for is Host.
package scatter
