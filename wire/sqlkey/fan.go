package sqlkey

import (
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Fan is how a statement with the target Many runs: what each shard is asked, and how their answers become the client's. The
// package scatter carries it out. Parameters keep the client's numbers in all texts but those of Split, so a text may lack some of
// them: their types, and the result's columns, are those of the statement itself, which any shard can be asked to describe.
type Fan struct {
	// Within bound the statement to the shards that own a key of each of the sets; nil: to every shard that owns a part of
	// Plan.Keyspace. See Plan.Shards. Each shard is asked the same, since on it only the keys that it owns have rows.
	Within []KeySet
	// SQL is what each shard is asked; "" is the statement itself.
	SQL string
	// Hidden is how many of the last columns of the shards' rows the client does not see. Merging or Final needs them.
	Hidden int
	// Order is by which columns each shard's rows come sorted; merging keeps that order. nil: as they come.
	Order []FanOrder
	// Offset rows are left out after merging, and then Limit rows are the client's. Each shard is asked for no fewer than their sum.
	// Not for Final, which has its own.
	Offset, Limit FanCount
	// Final is a query over the gathered rows of all shards, which PostgreSQL itself carries out on one of them: so it has grouping,
	// collations and numbers as PostgreSQL has them. "": merging in the order of Order is enough. See FinalRows for what in it
	// is to be replaced. With Order it is what is done if a column of Order is of a type, or has a collation, whose order only
	// PostgreSQL knows; it then gives the client's columns in the order of Order, with Offset and Limit taken.
	Final string
	// Outputs are names in GROUP BY that SQL takes for those of the result's columns. If a table has a column of that name after all, each shard says
	// that it is ambiguous (42702): the plan is not the statement's.
	Outputs []string
	// Writes: rows of shards may change. Command tags are added up, and rows of RETURNING are the client's as they come.
	Writes bool
	// Query, with Writes: it is a SELECT that changes rows in WITH. Its rows are a query's, and so is its tag.
	Query bool
	// Unasked, with Query, is SQL without its changes: it has the same columns, and is never run.
	Unasked string
	// Everywhere: it writes reference tables, which are whole on all shards of Plan.Keyspace. All of them do the same in one transaction,
	// and the client hears one of them: its rows and its command tag.
	Everywhere bool
	// Lead, of a write to reference tables, is the shard that carries it out before the others do. "" of everything else.
	Lead string
	// Times, with Lead, are the parameters that are cast to a date or time: a text may be another one each time.
	Times []int
	// Apart: it is a text of several statements that do not all run on one shard. They are planned and run one by one, in one transaction;
	// nothing else here is set but Why and Refusal.
	Apart bool
	// Keyspaces and Copies, of a statement about sharded tables as such, or about what all shards of the database have, with Everywhere: all
	// shards of these keyspaces, and these, run it.
	Keyspaces []rib.KeyspaceID
	Copies    []string
	// Probe, of a statement about something that is no table, is a question that tells what of it a shard has: a row with a "t" or "f" for each
	// thing, or ProbeTable for a table. Only those run it that have something; if none has, or if it is a table of Home, Home does. "": all run it.
	Probe, Home string
	// Names, with Probe, are those of the relations that the statement names, as Plan.Made has them: they may be the session's own.
	Names []string
	// Local, with Probe: it may be about a table, and so about one of a session's own connection if there is one. Such a session asks there first.
	Local bool
	// Furthest, with Probe: each shard that runs it answers for itself, and the client's row is the one that comes first in Order.
	Furthest bool
	// Makes, with Everywhere, is the name of a relation that it makes of sharded tables: no catalog tells others of it before it is committed.
	Makes string
	// Fills, of a statement that makes columns of reference tables, or a domain of such, is a question: which of these each server would fill for itself,
	// because the type does. The answer is a list of names, or NULL. "": there is nothing to be asked.
	Fills string
	// Locks: it is LOCK TABLE, which PostgreSQL runs in transaction blocks alone.
	Locks bool
	// Steps: PostgreSQL refuses it in a transaction: it runs on one shard after the other, each by itself.
	Steps bool
	// Unnamed, of an INSERT without a list of columns: it is planned again with the names that a shard tells. nil: it is none.
	Unnamed *Unnamed
	// Rekey, of an UPDATE that sets key columns: rows may have to move. nil: it sets none.
	Rekey *Rekey
	// Deal, of an INSERT whose rows only a server can make: they are made once, and go where their keys belong. nil: it is none.
	Deal *Deal
	// Once, with Everywhere, of a write that the servers would each evaluate otherwise: one does. nil: all do the same.
	Once *Once
	// Split, of an INSERT of several rows: each shard gets a statement of its own, with its rows. nil: all are asked the same.
	Split *Split
	// Copy, of a COPY between the client and the shards: its data are to be split, or put together. nil: it is none.
	Copy *Copy
	// Why it needs several shards, for people: "no condition on customer_id".
	Why string
	// Refusal is what the client hears where statements over several shards are not run. It is never nil.
	Refusal *pg.Error

	leave *lazyLeave // see Planner.Leave; nil: it is made anew each time

	together *Plan // of a statement with several keys of its own: if they belong to one shard. See onOne
}

// Alike tells whether it writes the rows of reference tables: all copies must then be changed alike.
func (f *Fan) Alike() bool { return f.Lead != "" }

// What is to be replaced in Fan.Final. Nothing else in it looks like that.
const (
	// FinalRows stands where a table may in FROM: for the gathered rows as a relation named rows, with the columns c1, c2, ...
	FinalRows = "{rows}"
	// FinalColumns is the list of all columns that are not hidden, each under the name that the shards give it:
	// rows.c1 AS "id", rows.c2 AS "note".
	FinalColumns = "{columns}"
	// FinalType, then a column's number from 1 and "}", stands for the name of that column's type.
	FinalType = "{type "
	// FinalHidden, then the number of a hidden column from 1 and "}", stands for its name: c9.
	FinalHidden = "{hidden "
)

// ProbeTable is what Fan.Probe gives for a thing that is a table: it is where it is.
const ProbeTable = "h"

// ProbeOwn is what it gives for a temporary relation: it is the session's own.
const ProbeOwn = "s"

// FanOrder is one column of an order.
type FanOrder struct {
	Column     int // of the shards' rows, from 0; of the hidden ones if it is Hidden
	Hidden     bool
	Desc       bool
	NullsFirst bool // else they come last
	// Bytes: its values are text that is compared byte by byte (COLLATE "C"). Of other text only PostgreSQL knows the order.
	Bytes bool
}

// FanCount is LIMIT's or OFFSET's number of rows. NULL is none, and below zero is an error (2201W, 2201X), as in PostgreSQL.
type FanCount struct {
	Set   bool
	Value uint64 // if Param is 0
	Param int    // the parameter's number, from 1
}

// KeySet are keys of which a row must have one.
type KeySet struct {
	Keys   []KeyRef    // each is one
	Lists  []KeyRef    // parameters that are arrays: each of its elements is one
	Bounds []KeyBounds // all keys within are
	Text   string      // the condition, for messages

	row int // of a column in a list of rows: which list, from 1, whose Keys are in the order of the rows; 0: it is none
}

// KeyBounds are all keys from one to another, of a keyspace whose method keeps order.
type KeyBounds struct {
	From, To           *KeyRef // nil: no bound
	FromOpen, ToClosed bool    // FromOpen: From itself is left out. ToClosed: To itself belongs to it
}

// Shards is what Plan.Shards tells its findings to: a set of shards, as the caller knows them.
type Shards interface {
	// Begin begins one more set of keys: a shard is needed if it is in all of them.
	Begin()
	// Key adds the shard that owns a key to the set. The key is the caller's until it returns.
	Key(k rib.Key) error
	// Range adds the shards that own a part of [from, to); an empty bound is open.
	Range(from, to rib.Key) error
}

// Split makes the statements of an INSERT whose rows belong to several shards.
type Split struct {
	// Rows are the keys of the rows. Each may stand for several columns, as those of Plan.Keys.
	Rows []KeyRef

	// Whole: the text is too long to be taken apart, so the rows must all belong to one shard.
	Whole bool

	head, tail []piece   // what stands before and after the rows
	rows       [][]piece // as they are written
}
