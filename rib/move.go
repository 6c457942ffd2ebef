package rib

import (
	"fmt"
	"strconv"
	"time"
)

// MovePhase is how far a range has come on its way to another shard: prepare, frozen, flipped; or from one of the first two to aborted. A range that cannot
// be handed over in time goes from frozen back to prepare; all else only goes forward.
type MovePhase uint8

// The phases of a move. Zero: it is no longer in the table, or never was.
const (
	// MovePrepare: the target is being filled. The source owns the range, and statements go on as ever.
	MovePrepare MovePhase = iota + 1
	// MoveFrozen: the source owns the range still, and nodes hold back new transactions on it.
	MoveFrozen
	// MoveFlipped: the target owns the range. What the move has left on the servers is being removed.
	MoveFlipped
	// MoveAborted: the source owns the range, as before. What the move has left on the servers is being removed.
	MoveAborted
)

// String is what users and logs call the phase.
func (p MovePhase) String() string {
	switch p {
	case 0:
		return "gone"
	case MovePrepare:
		return "prepare"
	case MoveFrozen:
		return "frozen"
	case MoveFlipped:
		return "flipped"
	case MoveAborted:
		return "aborted"
	}
	return "phase " + strconv.Itoa(int(p))
}

// MarshalText writes the phase as String does.
func (p MovePhase) MarshalText() ([]byte, error) {
	if p > MoveAborted {
		return nil, fmt.Errorf("%s of a move is not known", p)
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (p *MovePhase) UnmarshalText(b []byte) error {
	for q := range MoveAborted + 1 {
		if q.String() == string(b) {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("phase %q of a move is not known", b)
}

// Ahead tells whether the range has still its old owner, and the move may be aborted.
func (p MovePhase) Ahead() bool { return p == MovePrepare || p == MoveFrozen }

// Move is a range on its way to another shard. It is in the table from its start until nothing of it is left on any server.
type Move struct {
	// ID is the Raft index of the command that began it; after a recovery, the generation stands above it: never the same twice.
	ID        uint64
	Keyspace  KeyspaceID
	Low, High Key // the half-open range, as in Range: empty is open
	From, To  string
	Phase     MovePhase
	Cleared   bool      // flipped, and From holds no row of the range any more
	Epoch     Epoch     // of the last change of phase
	Until     time.Time // when the range is to go back, in UTC and whole milliseconds; zero: it stays
	Why       string    // aborted: the reason
	Note      []byte    // what whoever carries it out needs to go on, and nobody else understands
}

// MaxMoves bounds the moves of a table at one time, those that still clean up included.
const MaxMoves = 64

// Holds tells whether the key is in the range that moves.
func (m *Move) Holds(k Key) bool {
	return m.Low.Compare(k) <= 0 && (len(m.High) == 0 || k.Compare(m.High) < 0)
}

// Meets tells whether the range that moves and [from, to) have keys in common; an empty bound is open.
func (m *Move) Meets(from, to Key) bool { return Meet(from, to, m.Low, m.High) }

// Move finds a move by ID; nil if there is none.
func (o *Ownership) Move(id uint64) *Move {
	for i := range o.Moves {
		if o.Moves[i].ID == id {
			return &o.Moves[i]
		}
	}
	return nil
}

// Loan is a range that is to go back to the shard that it came from. It ends when the range changes hands again; when a part does, the rest goes back all the same.
type Loan struct {
	ID        uint64 // of the command that lent it, or that cut it off another, as Move.ID
	Keyspace  KeyspaceID
	Low, High Key
	From, To  string    // the shard that it goes back to, and the one that has it
	Until     time.Time // in UTC and whole milliseconds
	Due       bool      // that time has come, by the ledger's stamps
	Why       string    // due, and it stays where it is nevertheless: the reason; empty: it goes back
}

// MaxLoans bounds the loans of a table.
const MaxLoans = 1024

// Loan finds a loan by ID; nil if there is none.
func (o *Ownership) Loan(id uint64) *Loan {
	for i := range o.Loans {
		if o.Loans[i].ID == id {
			return &o.Loans[i]
		}
	}
	return nil
}

// Meet tells whether two half-open ranges have keys in common; an empty bound is open.
func Meet(from, to, low, high Key) bool {
	return (len(to) == 0 || low.Compare(to) < 0) && (len(high) == 0 || from.Compare(high) < 0)
}

// Link is a command's place in the chain of all commands: Hash is made of the one before and of the command. Two tables with the same link
// have come from the same commands.
type Link struct {
	Epoch Epoch
	Hash  [16]byte
}

// MaxLinks is how many links a table keeps, the newest ones.
const MaxLinks = 256
