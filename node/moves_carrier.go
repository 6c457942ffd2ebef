package node

import (
	"context"
	"errors"
	"net/http"

	"rangefinder/cluster"
	"rangefinder/cluster/move"
	"rangefinder/rib"
)

// carries is what carries out moves; nil before that is there.
func (n *Node) carries() carrier {
	if n.Mover() == nil {
		return nil
	}
	return realCarrier{n}
}

// realCarrier is the mover in the API's words.
type realCarrier struct{ n *Node }

// Status lists the moves of the table.
func (c realCarrier) Status() []MoveView {
	var list []MoveView
	for _, p := range c.n.Mover().Status() {
		list = append(list, MoveView{
			ID: p.ID, Keyspace: p.Keyspace, Range: p.Range, From: p.From, To: p.To, Phase: p.Phase.String(), Step: p.Step, Paused: p.Paused, Rows: p.Rows, Bytes: p.Bytes,
			Part: p.Part, LeftMS: p.LeftMS, LagMS: p.LagMS, Changed: p.Changed, Missing: orEmpty(p.Missing), Thawed: p.Thawed, Problem: p.Problem, Why: p.Why, AgeMS: p.AgeMS,
		})
	}
	return list
}

// Check names all that stands against a move.
func (c realCarrier) Check(ctx context.Context, ks *rib.Keyspace, m rib.Move) ([]ObstacleView, error) {
	obstacles, err := c.n.CheckMove(ctx, ks, m)
	var found *move.ObstacleError
	if errors.As(err, &found) {
		obstacles, err = found.Obstacles, nil
	}
	if err != nil {
		return nil, unhealthy(err)
	}
	var list []ObstacleView
	for _, o := range obstacles {
		list = append(list, ObstacleView(o))
	}
	return list, nil
}

// Pause has a move stop, or go on.
func (c realCarrier) Pause(ctx context.Context, id uint64, paused bool, o cluster.Origin) error {
	return c.told(ctx, id, c.n.Mover().Pause(ctx, id, paused, func(ctx context.Context, note []byte) error {
		return c.n.ledger().NoteMove(ctx, id, note, move.Cleared(note), o)
	}))
}

// Abort has a move stop what it does.
func (c realCarrier) Abort(id uint64) { c.n.Mover().Aborted(id) }

// told is an error for whoever has asked.
func (c realCarrier) told(ctx context.Context, id uint64, err error) error {
	if errors.Is(err, move.ErrNotHere) {
		if c.n.table.Owners().Get().Move(id) == nil {
			return c.n.noMoveNow(ctx, id)
		}
		return &apiError{Status: http.StatusServiceUnavailable, RetryAfter: retryLeader, ErrorView: ErrorView{Error: "the node that leads has not taken up the move yet", Hint: "Ask again in a moment."}}
	}
	return err
}

// Kick has the mover look at the table.
func (c realCarrier) Kick() { c.n.Mover().Kick() }
