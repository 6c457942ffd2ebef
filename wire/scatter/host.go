package scatter

import (
	"context"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// Host is the session that a Coordinator works for. Its methods go by the table, the catalog and the settings by which the session has
// planned the request that the Coordinator has in hand. All but Choose and Failed are called by the Coordinator's goroutine alone.
type Host interface {
	// Plan plans a text, whose parameters have been declared with these types, as the session does. It never returns nil.
	Plan(sql string, types []uint32) *sqlkey.Plan
	// Route is the shard of a statement with the target Keyed, Unsharded or Any; of Any it is nil if any shard will do.
	Route(plan *sqlkey.Plan, args sqlkey.Args) (*fib.Slot, *pg.Error)
	// Anywhere is the closest shard that could run a statement with the target Any.
	Anywhere(plan *sqlkey.Plan, write bool) (*fib.Slot, *pg.Error)
	// Shards are those that a statement with the target Many needs, sorted by name; at least one. Where they cannot be told without a lease, one that has
	// ended a moment ago is waited for, until ctx ends.
	Shards(ctx context.Context, plan *sqlkey.Plan, args sqlkey.Args) ([]Share, *pg.Error)
	// Lost reports whether the node has lost its lease since the last call of Shards: ranges may change hands without it, and what it has made of the
	// statement may meet rows twice. First it waits a moment for the lease to return, until ctx ends. It is safe for concurrent use, but not
	// beside Shards.
	Lost(ctx context.Context) bool
	// Moved reports whether a range that a statement may touch has changed hands, or been cleaned up after that, since the transaction began. What one
	// snapshot holds of its rows may then be too old for what is asked now. With the target Many that is any range of its keyspace.
	Moved(plan *sqlkey.Plan, args sqlkey.Args) bool
	// Unique makes a number for rangefinder.unique_id(). It does not block.
	Unique() (int64, error)
	// Owner is the shard that owns a key of plan.Keyspace.
	Owner(plan *sqlkey.Plan, key rib.Key) (*fib.Slot, *pg.Error)
	// Describes is a shard that has the tables of a statement with the target Keyed or Many.
	Describes(plan *sqlkey.Plan) (*fib.Slot, *pg.Error)
	// Changed is the error for a prepared statement of which the session was told other columns than these, a RowDescription's body; nil: it was not.
	Changed(name string, desc []byte) *pg.Error
	// Scatter is asked before a statement is run on several shards, and says why it is not to be; nil: it is.
	Scatter(plan *sqlkey.Plan, sql string, shards int) *pg.Error
	// Home is the name of the shard by whose numbers for types the client goes.
	Home() string
	// Types is how the numbers of a shard become those that the client sees; nil: they are these. It is safe for concurrent use.
	Types(shard string) *oids.Map
	// Carries reports whether binary values of a type, by the number that the client sees, may hold numbers of types.
	Carries(oid uint32) bool
	// Learn returns when what Types goes by has been read anew, or cannot be. It is safe for concurrent use.
	Learn(ctx context.Context)
	// MustWrite tells that a statement must run on a primary.
	MustWrite(plan *sqlkey.Plan) bool
	// Choose begins to look for a connection to a shard: to its primary (write), or to the closest copy that the session may read. The
	// Chooser is used by one goroutine at a time.
	Choose(slot *fib.Slot, write bool) Chooser
	// Failed tells of an error that a backend has answered with, or was lost with.
	Failed(hop *fib.NextHop, sqlstate string)
}

// Share is what a shard has to do with a statement.
type Share struct {
	Slot *fib.Slot
	Rows []int // of sqlkey.Fan.Split that belong there
	// SQL is what it is asked in the place of sqlkey.Fan's text, or of the statement itself: that leaves out rows which another shard owns. "": it has none,
	// as far as the node knows.
	SQL string
}

// Chooser finds connections to one shard.
type Chooser interface {
	// Next gets a connection with the session's settings in force, outside any transaction. Each further call means that the last one
	// has failed. The claim's Placed is also called when there is something else to wait for first than one's turn.
	Next(ctx context.Context, claim pool.Claim) (Link, *pg.Error)
}

// Link is a connection to a backend, and the way it was found by. The Coordinator counts it in Hop.Gauge.
type Link struct {
	Conn *pool.Conn
	Hop  *fib.NextHop
}
