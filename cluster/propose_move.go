package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
	"unicode/utf8"

	"rangefinder/rib"
)

// Origin says who wants a change and why. Both go into the history.
type Origin struct {
	// RequestID makes repeating the request safe; empty: one is made.
	RequestID string `json:"request_id,omitempty"`
	Author    string `json:"author,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// SplitSpec asks for bounds within ranges. Its JSON form is the API's body, as of the others here.
type SplitSpec struct {
	Keyspace string   `json:"keyspace"` // its name
	At       []string `json:"at"`       // where new ranges begin, as bounds are written: "1000", or a position "0x8000000000000000"
	Origin
}

// MergeSpec asks for all ranges within an interval, which have one owner, to be one.
type MergeSpec struct {
	Keyspace string `json:"keyspace"`
	Range    string `json:"range"` // as rib.Keyspace.ParseInterval reads it
	Origin
}

// ReassignSpec gives a range that holds no row, and gets none meanwhile, another owner. What holds rows is moved instead.
type ReassignSpec struct {
	Keyspace string    `json:"keyspace"`
	Range    string    `json:"range"`
	From     string    `json:"from,omitempty"` // empty: whoever owns it now
	To       string    `json:"to"`
	Until    time.Time `json:"until,omitzero"` // when it is to go back; zero: it stays
	Origin
}

// MoveRequest asks for a range to be moved.
type MoveRequest struct {
	Keyspace string    `json:"keyspace"`
	Range    string    `json:"range"`
	From     string    `json:"from,omitempty"` // empty: whoever owns it now
	To       string    `json:"to"`
	Until    time.Time `json:"until,omitzero"` // when it is to go back; zero: it stays
	// TTL is how long after the request the range is to go back, in place of Until; 0: Until counts. It is counted from when the ledger's leader was first asked
	// under the request's id: repeated later, it is the same request.
	TTL  time.Duration `json:"-"`
	Note []byte        `json:"-"` // see rib.Move
	Origin
}

// Split puts bounds into ranges and returns the keyspace with them. Errors and the rest are as for CreateKeyspace; so for all here.
func (l *Ledger) Split(ctx context.Context, s SplitSpec) (*rib.Keyspace, error) {
	ks, err := l.keyspace(s.Keyspace)
	if err != nil {
		return nil, err
	}
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	c := &rangeCommand{Keyspace: s.Keyspace}
	for _, at := range s.At {
		key, err := m.ParseBound(ks.Types, at)
		if err != nil {
			return nil, reject(ErrInvalid, "split %q: %v", at, err)
		}
		if rib.Lowest(m, ks.Types, key) {
			return nil, reject(ErrInvalid, "split %q: there is no key below it", at)
		}
		c.At = append(c.At, key)
	}
	return l.proposeRange(ctx, kindSplit, c, s.Origin)
}

// Merge makes one range of several.
func (l *Ledger) Merge(ctx context.Context, s MergeSpec) (*rib.Keyspace, error) {
	low, high, err := l.interval(s.Keyspace, s.Range)
	if err != nil {
		return nil, err
	}
	return l.proposeRange(ctx, kindMerge, &rangeCommand{Keyspace: s.Keyspace, Low: low, High: high}, s.Origin)
}

// Reassign gives a range another owner. That no row is in it, and that nobody writes one, is for the caller to see to.
func (l *Ledger) Reassign(ctx context.Context, s ReassignSpec) (*rib.Keyspace, error) {
	low, high, err := l.interval(s.Keyspace, s.Range)
	if err != nil {
		return nil, err
	}
	if err := l.checkTarget(s.To); err != nil {
		return nil, err
	}
	return l.proposeRange(ctx, kindReassign, &rangeCommand{Keyspace: s.Keyspace, Low: low, High: high, From: s.From, To: s.To, Until: wholeMillis(s.Until)}, s.Origin)
}

// StartMove begins a move, in phase MovePrepare. Repeated, it returns the move as it is by then; one that is over has its number alone.
func (l *Ledger) StartMove(ctx context.Context, s MoveRequest) (rib.Move, error) {
	low, high, err := l.interval(s.Keyspace, s.Range)
	if err != nil {
		return rib.Move{}, err
	}
	if l.Requested(s.RequestID) == nil { // what has begun does not depend on how the shard is now
		if err := l.checkTarget(s.To); err != nil {
			return rib.Move{}, err
		}
	}
	c := &moveCommand{Keyspace: s.Keyspace, Low: low, High: high, From: s.From, To: s.To, Until: wholeMillis(s.Until), Note: s.Note}
	r, err := l.proposeTimed(ctx, s.Origin, func(at time.Time) *command {
		if s.TTL > 0 {
			c.Until = wholeMillis(at.Add(s.TTL))
		}
		return &command{Kind: kindMoveStart, Move: c}
	})
	return r.move, err
}

// proposeTimed proposes a command in which a time stands that is counted from when it is asked for. Of a repetition that is when it was asked for first: it has to be
// the same command.
func (l *Ledger) proposeTimed(ctx context.Context, o Origin, at func(time.Time) *command) (result, error) {
	for {
		asked, first := wholeMillis(time.Now()), l.Requested(o.RequestID)
		if first != nil {
			asked = first.At
		}
		r, err := l.proposeAt(ctx, at(asked), o, asked)
		if first != nil || !errors.Is(err, ErrRequestReused) || l.Requested(o.RequestID) == nil {
			return r, err
		} // else the other one came first, a moment ago
	}
}

// AdvanceMove takes a move from a phase to the next; with MoveFlipped the range has its new owner. A move that is there already is
// left as it is. An empty note leaves the old one. Loans of which it takes a part are cut before the range is frozen, or at the latest before it changes hands; of that
// nodes of older versions know nothing, and apply nothing more until they are upgraded.
func (l *Ledger) AdvanceMove(ctx context.Context, id uint64, from, to rib.MovePhase, note []byte) (rib.Move, error) {
	if err := l.cutLoans(ctx, id); err != nil {
		return rib.Move{}, err
	}
	return l.proposeMove(ctx, kindMoveAdvance, &moveCommand{ID: id, Phase: from, Next: to, Note: note}, Origin{})
}

// ThawMove takes a move back from MoveFrozen to MovePrepare, with the range where it is: it could not be handed over in the time that statements may wait.
// An empty note leaves the old one; of the origin's reason the beginning is kept, as with AbortMove. Nodes of a version without it apply nothing more until they are upgraded.
func (l *Ledger) ThawMove(ctx context.Context, id uint64, note []byte, o Origin) (rib.Move, error) {
	o.Reason = cutReason(o.Reason)
	return l.proposeMove(ctx, kindMoveThaw, &moveCommand{ID: id, Note: note}, o)
}

// NoteMove writes what whoever carries out the move needs to go on after a crash, up to MaxNote bytes. cleared: the old owner of a flipped
// range holds no row of it any more. A note that somebody has asked for, as its origin says, is in the history; of a long reason the beginning is kept, as with AbortMove. It is
// written as it is when it is asked for: whoever may repeat a request asks Noted first.
func (l *Ledger) NoteMove(ctx context.Context, id uint64, note []byte, cleared bool, o Origin) error {
	o.Reason = cutReason(o.Reason)
	_, err := l.proposeMove(ctx, kindMoveNote, &moveCommand{ID: id, Note: note, Cleared: cleared}, o)
	return err
}

// Noted tells whether NoteMove has been called with this origin, by its request id. ErrRequestReused: that was used for another command. It is for the leader.
func (l *Ledger) Noted(id uint64, o Origin) (bool, error) {
	done := l.Requested(o.RequestID)
	switch {
	case done == nil:
		return false, nil
	case done.Kind != kindMoveNote || done.Move != id || done.Author != o.Author || done.Reason != cutReason(o.Reason):
		return false, reject(ErrRequestReused, "request id %.100q was used for another command: use a new one", o.RequestID)
	}
	return true, nil
}

// AbortMove has the range stay where it is: the move is in phase MoveAborted then, until its remains are removed and FinishMove says so.
// A range that is frozen must not stay so for there being much to say: of a reason of more than MaxReason bytes the beginning is kept.
func (l *Ledger) AbortMove(ctx context.Context, id uint64, o Origin) (rib.Move, error) {
	o.Reason = cutReason(o.Reason)
	return l.proposeMove(ctx, kindMoveAbort, &moveCommand{ID: id}, o)
}

// cutReason is the beginning of a text, of whole characters, in at most MaxReason bytes.
func cutReason(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	end := MaxReason
	for end > MaxReason-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// FinishMove takes a move out of the table: it has flipped or was aborted, and nothing of it is left on any server.
func (l *Ledger) FinishMove(ctx context.Context, id uint64) error {
	_, err := l.proposeMove(ctx, kindMoveFinish, &moveCommand{ID: id}, Origin{})
	return err
}

func (l *Ledger) keyspace(name string) (*rib.Keyspace, error) {
	ks := l.cfg.Owners.Get().KeyspaceByName(name)
	if ks == nil {
		return nil, reject(ErrNoKeyspace, "there is no keyspace named %s", name)
	}
	return ks, nil
}

func (l *Ledger) interval(keyspace, text string) (low, high rib.Key, err error) {
	ks, err := l.keyspace(keyspace)
	if err != nil {
		return nil, nil, err
	}
	if low, high, err = ks.ParseInterval(text); err != nil {
		return nil, nil, reject(ErrInvalid, "range %q: %v", text, err)
	}
	return low, high, nil
}

// checkTarget asks whether a shard can be given a range now, which only the node knows.
func (l *Ledger) checkTarget(shard string) error {
	if err := l.leads(); err != nil {
		return err
	}
	if l.cfg.CheckShard == nil || l.cfg.Owners.Get().Shard(shard) == nil { // what is not known is refused by the log
		return nil
	}
	if err := l.cfg.CheckShard(shard); err != nil {
		return reject(ErrUnhealthy, "%v", err)
	}
	return nil
}

func (l *Ledger) proposeRange(ctx context.Context, kind string, c *rangeCommand, o Origin) (*rib.Keyspace, error) {
	r, err := l.proposeSigned(ctx, &command{Kind: kind, Range: c}, o)
	if err != nil {
		return nil, err
	}
	if r.keyspace == nil {
		return nil, reject(ErrRequestReused, "request id %q belongs to another command: use a new one", o.RequestID)
	}
	return r.keyspace, nil
}

func (l *Ledger) proposeMove(ctx context.Context, kind string, c *moveCommand, o Origin) (rib.Move, error) {
	r, err := l.proposeSigned(ctx, &command{Kind: kind, Move: c}, o)
	return r.move, err
}

func (l *Ledger) proposeSigned(ctx context.Context, c *command, o Origin) (result, error) {
	return l.proposeAt(ctx, c, o, time.Now())
}

// proposeAt proposes a command that says who wants it, why, and since when.
func (l *Ledger) proposeAt(ctx context.Context, c *command, o Origin, at time.Time) (result, error) {
	if len(o.RequestID) > MaxName {
		return result{}, reject(ErrInvalid, "request_id is longer than %d bytes", MaxName)
	}
	c.Request = o.RequestID
	if c.Request == "" {
		c.Request = rand.Text()
	}
	c.By = &signature{Author: o.Author, Reason: o.Reason, At: wholeMillis(at)}
	return l.propose(ctx, c)
}
