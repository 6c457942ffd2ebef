package move

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rangefinder/rib"
)

// Job is one move as the servers need it.
type Job struct {
	Move     rib.Move
	Keyspace *rib.Keyspace
	Term     uint64   // of whoever carries it out: servers refuse one that is lower than what they have seen
	Identity Identity // of the servers, as Copy has found them; zero before that
}

// Identity tells which servers a move is between. A shard whose primary changes is another one: what was replicated to the old one may be lost.
type Identity struct {
	Source Server `json:"source"`
	Target Server `json:"target"`
}

// Server is a primary in one life of its shard.
type Server struct {
	SystemID uint64 `json:"system_id"`
	Timeline uint32 `json:"timeline"` // a promotion makes another one; a restart does not
}

// Obstacle is one thing that keeps a range from being moved.
type Obstacle struct {
	Shard   string `json:"shard"`
	Table   string `json:"table,omitempty"` // as SQL writes it; empty: the shard as a whole
	Problem string `json:"problem"`         // with what to do about it
	Rows    int64  `json:"rows,omitempty"`
}

// Servers do on the shards what a move needs. Each method may be called again after it has failed, or after whoever called it has died, and
// goes on from what it finds. A method that finds a higher term than the job's returns ErrDeposed and changes nothing.
type Servers interface {
	// Check looks for all that stands against the move, and changes nothing.
	Check(ctx context.Context, j *Job) ([]Obstacle, error)
	// Copy has the target hold all rows of the range, and begin to follow what is written to them at the source. It begins anew, whatever an
	// earlier call has left. report is told of progress, now and then, by one goroutine at a time.
	Copy(ctx context.Context, j *Job, report func(Copied)) (Identity, error)
	// Follow tells how far the target is behind, and compares what has changed since it was last called.
	Follow(ctx context.Context, j *Job) (Lag, error)
	// Behind names a replica that would keep a freeze from its end, as it is far behind or cannot be asked; "": none would.
	Behind(ctx context.Context, j *Job) (who string, err error)
	// Fence has the source refuse writes to the range, by whomever. When it returns, none is under way.
	Fence(ctx context.Context, j *Job) error
	// Complete returns when the target has all that the source had accepted, compared, and the replicas of both have what they need: those of
	// the source the fence, those of the target the rows.
	Complete(ctx context.Context, j *Job) error
	// Thaw has the source accept writes to the range again, for a move that goes on later. When it returns, nothing comes any more of what Fence or Complete had
	// begun. It returns ErrFilled if the target may have let others write to the range: then what it has is no copy any more.
	Thaw(ctx context.Context, j *Job) error
	// Unfence has the source accept writes to the range again. It is called for a move that is aborted.
	Unfence(ctx context.Context, j *Job) error
	// Clean removes all that an aborted move has left on both servers, the copied rows too.
	Clean(ctx context.Context, j *Job, report func(Copied)) error
	// Detach ends the replication, and makes sure that it has ended. It is called for a move that has flipped.
	Detach(ctx context.Context, j *Job) error
	// Delete removes the range's rows at the source.
	Delete(ctx context.Context, j *Job, report func(Copied)) error
	// AtWork tells what runs at the source, of whomever. Two calls have asked the same server if all since the first of them have succeeded.
	AtWork(ctx context.Context, j *Job) ([]Work, error)
	// RemoveFence removes the last that is left.
	RemoveFence(ctx context.Context, j *Job) error
}

// Work is a statement that runs. Times are only ever held against each other: the server's clock may be set.
type Work struct {
	Backend     string // which of the server's processes, in which life
	Statement   string // since when, as the server writes it; "": it does not tell, and then all that it does counts as one
	Transaction string // the same of the transaction; "": it does not tell
}

// goesOn tells whether what ran then is still at work if that process does something else now. A procedure may begin transactions, a transaction
// has statements, and the messages of one statement are each seen as one.
func (w Work) goesOn(now Work) bool {
	return w.Backend == now.Backend && (w.Statement == "" || now.Statement == "" || w.Statement == now.Statement || w.Transaction != "" && w.Transaction == now.Transaction)
}

// Copied is how far a copy, or a removal of rows, has come.
type Copied struct {
	Rows  int64
	Bytes int64   // as text
	Part  float64 // of the whole, from 0 to 1
	Waits string  // for what it waits, when that takes long; "": for nothing
}

// Lag is how far the target is behind the source.
type Lag struct {
	Time       time.Duration // from a write at the source to its being seen at the target
	Unverified int           // rows that have changed and were not found alike yet
	Open       time.Duration // for how long the oldest transaction is open that has used the keyspace's tables on the source; 0: there is none
	Whose      string        // that one, as people read it; "": there is none
}

// Errors that decide what becomes of a move.
var (
	// ErrDeposed says that another leader carries out the move.
	ErrDeposed = errors.New("another leader carries out the move")
	// ErrPromoted says that a shard has another primary than when the copy began.
	ErrPromoted = errors.New("the shard has had another primary promoted")
	// ErrDiffers says that the target does not hold what the source does.
	ErrDiffers = errors.New("source and target differ")
	// ErrFilled says that the target may have rows by now that the source has not.
	ErrFilled = errors.New("the target let writes to the range through before it was given up")
	// errLate says that a range cannot be handed over in the time that is left of a freeze.
	errLate = errors.New("not in time")
	// ErrBroken says that the replication is gone, or has failed for good.
	ErrBroken = errors.New("the replication is broken")
)

// ObstacleError lists every obstacle that was found.
type ObstacleError struct {
	Obstacles []Obstacle
}

// Error lists the obstacles, a line each.
func (e *ObstacleError) Error() string {
	var b strings.Builder
	b.WriteString("the range cannot be moved:")
	for _, o := range e.Obstacles {
		fmt.Fprintf(&b, "\n- on %s", o.Shard)
		if o.Table != "" {
			fmt.Fprintf(&b, ", table %s", o.Table)
		}
		fmt.Fprintf(&b, ": %s", o.Problem)
	}
	return b.String()
}

// final tells whether an error stays however often a step is tried again. A server that does not take a row (classes 22 and 23: there is no partition for it, a domain
// has another condition) will not take it the next time.
func final(err error) bool {
	var o *ObstacleError
	code := sqlState(err)
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || errors.As(err, &o) || errors.Is(err, ErrPromoted) || errors.Is(err, ErrDiffers) || errors.Is(err, ErrFilled) || errors.Is(err, ErrBroken)
}
