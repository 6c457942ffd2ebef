package cluster

import (
	"errors"
	"fmt"

	"rangefinder/rib"
)

// Reasons for refusing a command. They come wrapped in a *RejectedError whose text says what to change.
var (
	ErrInvalid       = errors.New("the request cannot work as it stands") // the specification itself is wrong
	ErrNameTaken     = errors.New("the keyspace name is taken")
	ErrTableTaken    = errors.New("the table belongs to a keyspace already")
	ErrValueTaken    = errors.New("the value is listed already")
	ErrNoKeyspace    = errors.New("there is no such keyspace")
	ErrUnknownShard  = errors.New("the shard is not known to the cluster")
	ErrShardConflict = errors.New("the shard and the system identifier do not belong together")
	ErrRequestReused = errors.New("the request id was used for another command")
	ErrNoMove        = errors.New("there is no such move")
	ErrMoving        = errors.New("the range is under a move")
	ErrPhase         = errors.New("the move is in another phase")
	ErrOwner         = errors.New("the range has another owner")
	ErrNoLoan        = errors.New("there is no such loan")
	ErrNotDue        = errors.New("the loan is not due yet")
	ErrTooMany       = errors.New("there are too many")
	ErrNoNode        = errors.New("there is no such node")
	ErrAlive         = errors.New("the node may be alive")
	ErrUnhealthy     = errors.New("the shard has no healthy primary")
)

// Other errors that a caller tells apart.
var (
	ErrHasState      = errors.New("this node's data directory belongs to a cluster already")
	ErrOtherCluster  = errors.New("that is another cluster")
	ErrNotOpen       = errors.New("the ledger is not open")
	ErrNoCluster     = errors.New("this node belongs to no cluster yet")
	ErrCorrupt       = errors.New("the table's encoding is damaged")
	ErrDiverged      = errors.New("the other side's table has come from other commands")
	ErrPullVersion   = errors.New("the other side speaks another version of the pull protocol")
	ErrPullTooLarge  = errors.New("the table is larger than a pull may be")
	ErrTooBusy       = errors.New("the leader is too busy to take the command; nothing was done, try again")
	errStalled       = errors.New("the log holds a command of a newer version of Rangefinder: upgrade this node")
	errUnknownFormat = errors.New("unknown format")
)

// RejectedError is a command that was refused: nothing changed.
type RejectedError struct {
	Reason error  // one of the sentinels, for errors.Is
	Text   string // for people: what is wrong and what to do
	// Move is the one that stands against it; nil unless the reason is ErrMoving. It is not changed any more.
	Move *rib.Move
}

// Error returns the text for people.
func (e *RejectedError) Error() string { return e.Text }

// Unwrap returns the reason.
func (e *RejectedError) Unwrap() error { return e.Reason }

func reject(reason error, format string, args ...any) *RejectedError {
	return &RejectedError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// NotLeaderError says that another node must be asked. Nothing was done here.
type NotLeaderError struct {
	Leader string // its name; empty: not known now
	Addr   string // its cluster port, host:port; empty: not known now
}

// Error names the leader, if it is known.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "this node is not the leader, and no leader is known now; try again in a moment"
	}
	return fmt.Sprintf("this node is not the leader; the leader is %s at %s", e.Leader, e.Addr)
}

// OutcomeUnknownError says that a command was under way when this node lost the leadership, was stopped, or the caller's time ran
// out: it may take effect or not. Repeating it with the same request id is safe.
type OutcomeUnknownError struct {
	RequestID string
	Cause     error
}

// Error says what to do.
func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("it is unknown whether the command took effect (%v): list the keyspaces, or repeat it with request_id %q, which is safe", e.Cause, e.RequestID)
}

// Unwrap returns the cause.
func (e *OutcomeUnknownError) Unwrap() error { return e.Cause }
