// Package demo starts a whole cluster on one machine and shows what it does: three regions with the delays between them, three
// shards of real PostgreSQL with a copy in every region, three nodes as processes of their own. Every step says what it
// expected and what it saw; a step that saw something else makes the demo fail.
//
// It stands outside of what it shows. It drives the nodes as a person would: by the command line, by HTTP and by a Postgres
// driver, and it asks PostgreSQL itself who served a statement. So it imports nothing of Rangefinder but the servers and
// delays of internal/pgtest and internal/lab.
//
// The delays are added in user space by the nodes (gossip, Raft, probes, statements), for what they send to another region.
// Replication between the PostgreSQL servers is not delayed.
package demo
