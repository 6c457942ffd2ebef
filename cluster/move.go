package cluster

import (
	"slices"

	"rangefinder/rib"
)

// Moves, as commands are applied: pure, and checked again here, whoever has checked before. Each returns the move as it is then.

// changeID is the number of a move or a loan that begins at an epoch. A new generation may count its log from the beginning.
func changeID(e rib.Epoch) uint64 {
	id := e.Index
	if e.Generation > 1 {
		id |= uint64(e.Generation-1) << 40
	}
	return id
}

func startMove(next *draft, c *moveCommand) (rib.Move, error) {
	ks := next.KeyspaceByName(c.Keyspace)
	if ks == nil {
		return rib.Move{}, reject(ErrNoKeyspace, "there is no keyspace named %s", c.Keyspace)
	}
	p := next.part(ks.ID)
	from, err := checkHandover(next, ks, p, c.Low, c.High, c.From, c.To)
	if err != nil {
		return rib.Move{}, err
	}
	switch {
	case from == "":
		return rib.Move{}, reject(ErrOwner, "range %s of keyspace %s belongs to nobody: there is nothing to move", ks.FormatInterval(c.Low, c.High), ks.Name)
	case len(next.Moves) >= rib.MaxMoves:
		return rib.Move{}, reject(ErrTooMany, "%d moves are under way, and no more may be: wait until one is over", len(next.Moves))
	case p.n+2 > MaxKeyspaceRanges:
		return rib.Move{}, reject(ErrInvalid, "keyspace %s has %d ranges, the most that there may be: merge some", ks.Name, p.n)
	case !c.Until.IsZero() && len(next.Loans)+len(next.Moves) >= rib.MaxLoans: // each move may become one
		return rib.Move{}, reject(ErrTooMany, "%d ranges are lent to other shards, and no more may be", len(next.Loans))
	case len(c.Note) > MaxNote:
		return rib.Move{}, reject(ErrInvalid, "a move's note has at most %d bytes, not %d", MaxNote, len(c.Note))
	}
	m := rib.Move{
		ID: changeID(next.Epoch), Keyspace: ks.ID, Low: c.Low, High: c.High, From: from, To: c.To,
		Phase: rib.MovePrepare, Epoch: next.Epoch, Until: wholeMillis(c.Until), Note: c.Note,
	}
	next.Moves = append(slices.Clip(next.Moves), m)
	return m, nil
}

// editMove returns a move of next that may be changed.
func editMove(next *draft, id uint64) (*rib.Move, error) {
	if next.Move(id) == nil {
		return nil, reject(ErrNoMove, "there is no move %d: it is over, or never was", id)
	}
	next.Moves = slices.Clone(next.Moves)
	return next.Move(id), nil
}

// advanceMove takes a move to its next phase. Where it is there already, nothing changes.
func advanceMove(next *draft, c *moveCommand) (m rib.Move, changed bool, err error) {
	move, err := editMove(next, c.ID)
	if err != nil {
		return m, false, err
	}
	if !c.Phase.Ahead() || c.Next != c.Phase+1 {
		return m, false, reject(ErrInvalid, "a move goes from prepare to frozen and from frozen to flipped, not from %s to %s", c.Phase, c.Next)
	}
	if len(c.Note) > MaxNote {
		return m, false, reject(ErrInvalid, "a move's note has at most %d bytes, not %d", MaxNote, len(c.Note))
	}
	switch move.Phase {
	case c.Phase:
	case c.Next:
		return *move, false, nil
	default:
		return m, false, reject(ErrPhase, "move %d is %s and not %s: it cannot become %s", move.ID, move.Phase, c.Phase, c.Next)
	}
	if c.Next == rib.MoveFlipped {
		if err := flip(next, move); err != nil {
			return m, false, err
		}
	}
	move.Phase, move.Epoch = c.Next, next.Epoch
	if len(c.Note) > 0 {
		move.Note = c.Note
	}
	return *move, true, nil
}

// thawMove takes a frozen move back to where it is prepared: the range has its owner as before, and transactions on it go on. Where that is so already, nothing
// changes.
func thawMove(next *draft, c *moveCommand) (m rib.Move, changed bool, err error) {
	move, err := editMove(next, c.ID)
	if err != nil {
		return m, false, err
	}
	if len(c.Note) > MaxNote {
		return m, false, reject(ErrInvalid, "a move's note has at most %d bytes, not %d", MaxNote, len(c.Note))
	}
	switch move.Phase {
	case rib.MovePrepare:
		return *move, false, nil
	case rib.MoveFrozen:
	default:
		return m, false, reject(ErrPhase, "move %d is %s and not frozen: it cannot go back to be prepared", move.ID, move.Phase)
	}
	move.Phase, move.Epoch = rib.MovePrepare, next.Epoch
	if len(c.Note) > 0 {
		move.Note = c.Note
	}
	return *move, true, nil
}

// flip gives the range to its new owner.
func flip(next *draft, m *rib.Move) error {
	ks, p, err := next.edit(nameOf(&next.Ownership, m.Keyspace))
	if err != nil {
		return err
	}
	if owner, err := soleOwner(ks, *p, m.Low, m.High); err != nil || owner != m.From {
		return reject(ErrOwner, "the range of move %d does not belong to shard %s alone", m.ID, m.From)
	}
	*p = (*p).assign(m.Low, m.High, m.To, next.Epoch)
	return lend(next, rib.Loan{ID: m.ID, Keyspace: ks.ID, Low: m.Low, High: m.High, From: m.From, To: m.To, Until: m.Until})
}

func noteMove(next *draft, c *moveCommand) (rib.Move, error) {
	move, err := editMove(next, c.ID)
	if err != nil {
		return rib.Move{}, err
	}
	if len(c.Note) > MaxNote {
		return rib.Move{}, reject(ErrInvalid, "a move's note has at most %d bytes, not %d", MaxNote, len(c.Note))
	}
	if c.Cleared && move.Phase != rib.MoveFlipped {
		return rib.Move{}, reject(ErrPhase, "move %d is %s: rows are deleted at the old owner once it has flipped", move.ID, move.Phase)
	}
	move.Note, move.Cleared = c.Note, move.Cleared || c.Cleared
	return *move, nil
}

// abortMove has the range stay where it is. Where that is so already, nothing changes.
func abortMove(next *draft, c *moveCommand, why string) (m rib.Move, changed bool, err error) {
	move, err := editMove(next, c.ID)
	if err != nil {
		return m, false, err
	}
	switch {
	case move.Phase == rib.MoveAborted:
		return *move, false, nil
	case !move.Phase.Ahead():
		return m, false, reject(ErrPhase, "move %d is %s: the range belongs to shard %s, and the move only goes forward from here; to have it back, move it back", move.ID, move.Phase, move.To)
	}
	move.Phase, move.Epoch, move.Why = rib.MoveAborted, next.Epoch, why
	return *move, true, nil
}

// finishMove takes a move of which nothing is left out of the table.
func finishMove(next *draft, c *moveCommand) (rib.Move, error) {
	move := next.Move(c.ID)
	if move == nil {
		return rib.Move{}, reject(ErrNoMove, "there is no move %d: it is over, or never was", c.ID)
	}
	if move.Phase.Ahead() {
		return rib.Move{}, reject(ErrPhase, "move %d is %s: it is over when it has flipped or was aborted, and nothing of it is left", move.ID, move.Phase)
	}
	over := *move
	next.Moves = slices.DeleteFunc(slices.Clone(next.Moves), func(m rib.Move) bool { return m.ID == c.ID })
	if len(next.Moves) == 0 {
		next.Moves = nil
	}
	return over, nil
}
