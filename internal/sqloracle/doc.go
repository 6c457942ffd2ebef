// Package sqloracle has tests alone: the same schema and the same rows on one plain PostgreSQL and on three shards behind a node of the
// built binary, and every statement is asked of both. What they answer must be alike as the protocol gives it: descriptions of rows,
// values, order where there is one, command tags, SQLSTATEs; and after writes the tables must hold the same rows, each on the shard
// that owns it. Every difference is a bug, or a refusal that is listed with its reason.
//
// Statements come from three places: a generator (seeded; what fails is made smaller before it is shown), the files of testdata, by
// theme, and the table of docs/sql.md, which is written from what was seen here.
//
// Between node and shards stands a relay that counts what each shard is asked. So nothing is believed of the node but what a client
// and the shards see.
package sqloracle
