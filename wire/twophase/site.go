package twophase

import (
	"context"
	"time"
)

// Sites are the shards' primaries, seen by the node itself.
type Sites interface {
	// Open connects to the primary of a shard, whichever server that is now. database is where; "": anywhere, for Prepared alone.
	Open(ctx context.Context, shard, database string) (Site, error)
}

// Site is one shard's primary. An error of any of its methods may mean that what was asked for has been done all the same.
type Site interface {
	// Ready makes sure that decisions can be kept in the database: it makes the schema rangefinder there if it is missing.
	Ready(ctx context.Context) error
	// Prepared lists what is prepared there, in all databases, under names that begin alike.
	Prepared(ctx context.Context, prefix string) (Found, error)
	// Decision looks for a decision; nil: there is none.
	Decision(ctx context.Context, gid string) (*Decision, error)
	// Refuse keeps the decision to roll back, unless there is a decision already. If there is about to be one, it waits for that.
	Refuse(ctx context.Context, gid string) error
	// Finish commits what is prepared, or rolls it back. It is no error that nothing is prepared under that name: then ended is false.
	Finish(ctx context.Context, gid string, commit bool) (ended bool, err error)
	// Decisions lists those to commit that are older than an age, the oldest first, and no more than limit.
	Decisions(ctx context.Context, age time.Duration, limit int) ([]Decision, error)
	// Forget removes decisions to commit.
	Forget(ctx context.Context, gids []string) error
	// ForgetRefusals removes decisions to roll back that are older than an age, and since which all transactions have ended that were open there then.
	ForgetRefusals(ctx context.Context, age time.Duration) error
	// Waits lists who waits for locks there, in all databases.
	Waits(ctx context.Context) ([]Wait, error)
	// Close closes the connection.
	Close()
}

// Found is what a shard's primary says of itself.
type Found struct {
	Max      int // its max_prepared_transactions; 0: it cannot prepare
	Prepared []Prepared
}

// Prepared is one prepared transaction.
type Prepared struct {
	GID      string
	Database string
	Owner    string        // role that has prepared it
	Age      time.Duration // by the server's clock
}

// Decision is one row of rangefinder.decision.
type Decision struct {
	GID          string
	Commit       bool     // false: to roll back
	Participants []string // shards, where Commit is true
	By           string   // role that has decided
}
