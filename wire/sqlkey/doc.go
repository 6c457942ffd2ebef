// Package sqlkey turns the text of a statement into a Plan: which tables it names, which values of the sharding key it is
// bound to, whether a replica may run it, and what it does to the session or the transaction. What cannot be routed is
// refused with its reason and a hint: a wrong route is worse than an error.
//
// Statements are read by PostgreSQL's own parser (pg_query_go), because nothing else reads SQL as PostgreSQL does. It is C:
// a text is bounded in length and depth before it gets there. Plans are cached by exact text, those of Query messages, which
// hold their values as constants, by normal form: the text with its constants replaced by their classes. A hit costs neither
// a lock nor an allocation. A plan stands on a Catalog (which tables have keys) and an Env (whose names mean what), and on
// nothing else: it knows no shard that owns a key, no backend and no connection, so it outlives every change of these.
//
// # When a key is a key
//
// A statement may run on one shard alone if, for each reference to a sharded table, rows with other keys could not change
// the result. So every reference on every query level needs an equality of its key with a constant (see computed) or a parameter (see formula) that
// holds for all rows of it that can reach that level's result: in WHERE, in the condition of an inner join, in that of an
// outer join for the side that may be missing, directly or by way of other key columns (a.k = b.k). The tests hold this
// promise against a real server: each generated statement gives on its shard what it gives on all rows together.
//
// # When all shards together are right
//
// A query level is what its shards give, taken together, if it could run on one shard were there a condition more: that the key of
// one of its tables is a certain one (see spread). For then, whatever that key is, rows with others change nothing, and each row of
// the result has one key. So the analysis is made again with that condition, for a key of which nothing is known, and the statement
// may be asked of several shards if all references are bound to it. What is above the rows (ORDER BY, LIMIT, GROUP BY, DISTINCT,
// windows) is left to the shards where the key is in it, and else done over their rows: in Go where rows are merged in their order,
// and by PostgreSQL (Fan.Final) where it takes grouping, collations or numbers. Aggregates that can be made of those of parts are made by
// the shards first; of all others the columns are gathered that the query needs. All texts are written by PostgreSQL's own deparser, and
// read back before they are used. The tests ask shards and the whole the same, and put the shards' rows together by hand.
//
// Conditions on the key that are no equality (IN, = ANY, OR, bounds of a range keyspace) say which shards are asked: Fan.Within.
//
// # What it cannot know
//
// Only sharded tables are in the catalog, and what is known to depend on them (see Dependent). Any other name is an unsharded
// table, wherever it would be found; so an unsharded table, view or temporary table in an earlier schema of the search path hides
// a sharded one of the same name on the server and not here. (Temporary tables that would do so are refused.) Functions, rules
// and triggers are taken for what they are called: what they touch is not seen. User-defined operators and casts are taken to be what
// PostgreSQL's own are. The search path must be the one that the backends use: a default set by ALTER ROLE or ALTER
// DATABASE is not seen here.
package sqlkey
