package sqlkey

// Fan is how a statement with the target Many runs: what each shard is asked, and how their answers become the client's. The
// package scatter carries it out. Parameters keep the client's numbers in all texts.
type Fan struct {
	// Keys bound the statement to the shards that own them; nil: to every shard that owns a part of Plan.Keyspace. Each shard is asked
	// the same, since on it only the keys that it owns have rows.
	Keys []KeyRef
	// SQL is what each shard is asked; "" is the statement itself.
	SQL string
	// Hidden is how many of the last columns of the shards' rows the client does not see. Merging or Final needs them.
	Hidden int
	// Order is by which columns each shard's rows come sorted; merging keeps that order. nil: as they come.
	Order []FanOrder
	// Offset rows are left out after merging, and then Limit rows are the client's. Each shard is asked for no fewer than their sum.
	Offset, Limit FanCount
	// Final is a query over the gathered rows of all shards, which PostgreSQL itself carries out on one of them: so it has grouping,
	// collations and numbers as PostgreSQL has them. "": merging in the order of Order is enough. FinalRows in it stands for the rows as a
	// relation with the columns c1, c2, ...; FinalType with a column's number and "}" for the name of that column's type. With Order it
	// is what is done if a column of Order is of a type, or has a collation, whose order only PostgreSQL knows.
	Final string
	// Writes: rows of shards may change. Command tags are added up, and rows of RETURNING are the client's as they come.
	Writes bool
	// Everywhere: it writes reference tables, which are whole on all shards of Plan.Keyspace. All of them do the same in one transaction,
	// and the client hears one of them: its rows and its command tag.
	Everywhere bool
	// Why it needs several shards, for people: "no condition on customer_id".
	Why string
}

// What Fan.Final stands on.
const (
	FinalRows = "{rows}"
	FinalType = "{type " // and the number of a column, from 1, and "}"
)

// FanOrder is one column of an order.
type FanOrder struct {
	Column     int // of the shards' rows, from 0
	Desc       bool
	NullsFirst bool // else they come last
	// Bytes: its values are text that is compared byte by byte (COLLATE "C"). Of other text only PostgreSQL knows the order.
	Bytes bool
}

// FanCount is LIMIT's or OFFSET's number of rows.
type FanCount struct {
	Set   bool
	Value uint64 // if Param is 0
	Param int    // the parameter's number, from 1
}
