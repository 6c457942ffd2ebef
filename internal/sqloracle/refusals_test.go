package sqloracle

import (
	"regexp"

	"github.com/jackc/pgx/v5/pgconn"
)

// refusals are the kinds of statements that the router refuses with 0A000, each with the reason why that is right, or not yet otherwise.
// A refusal of no listed kind is a failure.
var refusals = []struct {
	kind   string
	why    string
	phrase *regexp.Regexp // in message or detail
}{
	{"several shards", "several shards are not asked yet", regexp.MustCompile(`over several shards are not run yet`)},
	{"EXECUTE", "what SQL's PREPARE has prepared is on one shard", regexp.MustCompile(`EXECUTE of the prepared statement .* needs several shards`)},
	{"computed in a reference table", "each copy must get the same, and a function might give others on each shard", regexp.MustCompile(`a write to it must do the same on every shard`)},
	{"several statements in one text", "one text is taken for one shard", regexp.MustCompile(`Its statements belong to different places`)},
	{"write to a reference table", "several shards are not asked yet", regexp.MustCompile(`all of them would be written`)},
	{"reference and sharded tables in a write", "each shard would write other rows", regexp.MustCompile(`a write to it names a sharded table as well`)},
	{"no key", "nothing says on which shard, and several are not asked yet", regexp.MustCompile(`no condition says which|is compared by .*, not by =|gives no key|compared with a subquery|` +
		`is part of an expression|not compared by a plain =|expression that only PostgreSQL can evaluate|column of which no value is known|is of type numeric|renames its columns`)},
	{"no key in INSERT", "a row without a key belongs to no shard", regexp.MustCompile(`INSERT gives no|INSERT names no columns`)},
	{"MERGE", "it is not routed yet", regexp.MustCompile(`MERGE is not routed`)},
	{"several keys", "several shards are not asked yet", regexp.MustCompile(`may give several keys|gives a range, not one key`)},
	{"keys of several shards", "several shards are not asked yet", regexp.MustCompile(`keys belong to different shards`)},
	{"tables of two keyspaces", "rows of one shard would have to meet rows of another", regexp.MustCompile(`names tables of two keyspaces`)},
	{"sharded and unsharded tables", "rows of one shard would have to meet rows of another", regexp.MustCompile(`which no keyspace holds, together with a sharded table`)},
	{"INSERT ... SELECT", "where its rows go is known when they have been read", regexp.MustCompile(`INSERT \.\.\. SELECT into a sharded table`)},
	{"UPDATE of the key", "it may move the row to another shard", regexp.MustCompile(`UPDATE sets the sharding key`)},
	{"EXECUTE over several shards", "the protocol's prepared statements do", regexp.MustCompile(`EXECUTE of the prepared statement .* needs several shards`)},
	{"transaction of several shards", "it wrote on several without two-phase commit", regexp.MustCompile(`transaction`)},
}

// refused returns the kind of a refusal; "" with ok: it is none that is listed.
func refused(e *pgconn.PgError) (kind string, ok bool) {
	if e == nil || e.Code != "0A000" {
		return "", false
	}
	for _, r := range refusals {
		if r.phrase.MatchString(e.Message) || r.phrase.MatchString(e.Detail) {
			return r.kind, true
		}
	}
	return "", true
}
