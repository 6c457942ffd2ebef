// Package copysplit takes the data of a COPY FROM STDIN apart, row by row, as PostgreSQL does, and tells for each row which key it has:
// so that the rows of one stream can go to the shards that own them. It knows the three formats of COPY with their options, and neither
// shards nor connections: who owns a key, and where bytes go, is its Sink's to say.
//
// Rows are passed on as they came, byte for byte. What the Splitter finds wrong is what would make it unsure of a row's end or
// of its key; all else is for the shard that gets the row to refuse.
//
// Bytes come in pieces of any cut. A row that is not complete yet is kept until it is; one that grows long goes on to its shard as soon as
// its key is known, so what is kept is bounded and values are not.
package copysplit
