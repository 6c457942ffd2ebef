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
	phrase *regexp.Regexp // in message or detail; the first that fits counts
}{
	{"not joined by the key", "rows of one shard would have to meet rows of another: only tables that are joined by their keys can be", regexp.MustCompile(`not joined by their keys`)},
	{"set operation", "its parts are not of a sort that can be put together again", regexp.MustCompile(`set operation|INTERSECT and EXCEPT over several shards`)},
	{"writes in WITH", "what is written on several shards is known when all have written", regexp.MustCompile(`changes rows in WITH|of WITH changes rows`)},
	{"locks", "rows that are put together of others cannot be locked", regexp.MustCompile(`it locks rows, and its result is made`)},
	{"not to be gathered", "its rows cannot be told apart and put together again", regexp.MustCompile(`cannot be gathered|\* stands among|GROUP BY counts columns|GROUP BY .* may mean several outputs|aggregate of the rows around|compared with an aggregate`)},
	{"volatile", "a function that may have effects would be called on each shard", regexp.MustCompile(`it may be volatile`)},
	{"INSERT ... SELECT", "the rows would have to move from one shard to another", regexp.MustCompile(`INSERT \.\.\. SELECT into a sharded table|rows that it inserts are made of rows of several shards`)},
	{"LIMIT in INSERT", "rows of all shards together are counted, and each shard is given its own", regexp.MustCompile(`LIMIT or OFFSET counts the rows of all shards together`)},
	{"numbers of tables", "each shard has numbered its tables for itself: names are alike", regexp.MustCompile(`ableoid is another number on each shard`)},
	{"rows without a type", "a value like ROW(a, b) cannot be made again of its text", regexp.MustCompile(`whose type has no name`)},
	{"settings", "with such settings a shard does not tell the whole of an array, a range or a composite", regexp.MustCompile(`a shard does not tell the whole of`)},
	{"no key in INSERT", "a row without a key belongs to no shard", regexp.MustCompile(`INSERT gives no|How many \* stands for`)},
	{"UPDATE of the key", "what the row becomes is not known before it is where it belongs: DELETE it and INSERT it anew", regexp.MustCompile(`(?:UPDATE|ON CONFLICT DO UPDATE) sets the sharding key`)},
	{"MERGE", "the key of what it inserts is known neither by a constant nor by the key of a table that it reads", regexp.MustCompile(`MERGE (inserts|sets|with)`)},
	{"EXECUTE", "the argument that is the key is an expression", regexp.MustCompile(`of EXECUTE .* is the sharding key, and no constant`)},
	{"cursors that go back", "a cursor over several shards goes back only if its rows are ordered or put together, and ends with its transaction", regexp.MustCompile(`[aA] cursor over several shards has no`)},
	{"keys of several shards", "rows of one shard would have to meet rows of another", regexp.MustCompile(`keys belong to different shards`)},
	{"several statements in one text", "one text is for one shard: send them one by one, or in a pipeline", regexp.MustCompile(`Its statements belong to different places`)},
	{"tables of two keyspaces", "rows of one shard would have to meet rows of another", regexp.MustCompile(`names tables of two keyspaces`)},
	{"sharded and unsharded tables", "rows of one shard would have to meet rows of another; a reference table is on all of them", regexp.MustCompile(`which no keyspace holds, together with a sharded table`)},
	{"computed in a reference table", "each copy must get the same, and a function might give others on each shard", regexp.MustCompile(`a write to it must do the same on every shard`)},
	{"part of a text that writes a reference table", "such a write is a statement of its own", regexp.MustCompile(`all of them would be written`)},
	{"reference and sharded tables in a write", "each shard would write other rows", regexp.MustCompile(`a write to it names a sharded table as well`)},
	{"no key", "nothing says on which shard, and several cannot be asked", regexp.MustCompile(`no condition says which|is compared by .*, not by =|gives no key|compared with a subquery|may give several keys|` +
		`gives a range, not one key|is part of an expression|not compared by a plain =|expression that only PostgreSQL can evaluate|column of which no value is known|is of type numeric|renames its columns`)},
	{"computed of parameters", "it is not certain that every server computes the same of these", regexp.MustCompile(`cannot be computed from these parameters`)},
	{"transaction", "it is not for a transaction over several shards", regexp.MustCompile(`transaction over several shards`)},
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
