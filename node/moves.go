package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// carrier carries out moves while this node leads.
type carrier interface {
	// Status lists the moves of the table; what another node carries out is known by its phase alone.
	Status() []MoveView
	// Check names all that stands against a move, and changes nothing.
	Check(ctx context.Context, ks *rib.Keyspace, m rib.Move) ([]ObstacleView, error)
	// Pause has a move stop before its next step that costs something, or go on, as somebody wants it.
	Pause(ctx context.Context, id uint64, paused bool, o cluster.Origin) error
	// Abort has a move that the ledger has aborted stop what it does.
	Abort(id uint64)
	// Kick has it look at the table now.
	Kick()
}

// MoveView is a range on its way to another shard.
type MoveView struct {
	ID       uint64     `json:"id"`
	Keyspace string     `json:"keyspace"`
	Range    string     `json:"range"`
	From     string     `json:"from"`
	To       string     `json:"to"`
	Phase    string     `json:"phase"`        // prepare, frozen, flipped (the target owns the range) or aborted; over: nothing of it is left
	Step     string     `json:"step"`         // within the phase: check, copy, follow, fence, thaw, detach, delete, wait, clean
	Paused   bool       `json:"paused"`       //
	Rows     int64      `json:"rows"`         // copied, or removed, in this step
	Bytes    int64      `json:"bytes"`        // the same, as text
	Part     float64    `json:"part"`         // of the rows that are copied, or removed, from 0 to 1; 1 in the steps behind that too
	LeftMS   int64      `json:"left_ms"`      // estimated, of the step; 0: not known
	LagMS    int64      `json:"lag_ms"`       // of the target, when it was last looked at
	Changed  int        `json:"changed_rows"` // at the source, and not compared yet
	Missing  []string   `json:"missing"`      // nodes that have not said yet that they know the move, before it copies, that nothing runs on the range, in the freeze, or that they know the new owner, at its end
	Thawed   int        `json:"thawed"`       // how often the range was frozen, and let go again as it could not be handed over in time
	Problem  string     `json:"problem"`      // why it does not go on; ""
	Why      string     `json:"why"`          // aborted: the reason
	AgeMS    int64      `json:"age_ms"`       // since the node that leads took it over
	Until    *time.Time `json:"until,omitempty"`
}

// ObstacleView is one thing that keeps a range from being moved.
type ObstacleView struct {
	Shard   string `json:"shard"`
	Table   string `json:"table,omitempty"`
	Problem string `json:"problem"` // with what to do about it
	Rows    int64  `json:"rows,omitempty"`
}

// MovesAnswer is the answer of GET /api/v1/moves.
type MovesAnswer struct {
	Moves []MoveView `json:"moves"`
}

// MoveOrder is the body of what changes a move that is under way.
type MoveOrder struct {
	Reason    string `json:"reason,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// What can be done to a move.
const (
	movePause  = "pause"
	moveResume = "resume"
	moveAbort  = "abort"
)

// moveWaits is the step in which a move waits for the nodes that Missing names.
const moveWaits = "wait"

// phaseOver is that of a move of which nothing is left.
const phaseOver = "over"

// StartMove begins to move a range, after all that stands against it was looked for.
func (n *Node) StartMove(ctx context.Context, r cluster.MoveRequest) (MoveView, error) {
	sign(ctx, &r.Origin)
	return onLeader(ctx, n, "/api/v1/moves", r, func(ctx context.Context) (v MoveView, err error) {
		if err := n.leads(); err != nil {
			return v, err
		}
		ks := n.table.Owners().Get().KeyspaceByName(r.Keyspace)
		if ks == nil {
			return v, noKeyspace(r.Keyspace)
		}
		low, high, err := ks.ParseInterval(r.Range)
		if err != nil {
			return v, badRange(ks, r.Range, err)
		}
		if err := n.shardNamed(r.To); err != nil {
			return v, err
		}
		if left := time.Until(r.Until); !r.Until.IsZero() && n.ledger().Requested(r.RequestID) == nil && (left <= 0 || left > time.Duration(longestTTL)*time.Second) {
			return v, &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
				Code: codeTTL, Error: fmt.Sprintf("until is %s: a range goes back in the future, and within %d seconds", r.Until.Format(time.RFC3339), longestTTL),
				Hint: "Leave it out for a range that is to stay. Nothing was changed.",
			}}
		}
		m, err := n.begin(ctx, ks, low, high, r)
		if err != nil {
			return v, err
		}
		if n.table.Owners().Get().Move(m.ID) == nil { // a repetition, and the move is over
			return n.Move(ctx, m.ID)
		}
		return n.moveView(m), nil
	})
}

// begin starts a move that is well formed. Repeated with the same id it returns the same move.
func (n *Node) begin(ctx context.Context, ks *rib.Keyspace, low, high rib.Key, r cluster.MoveRequest) (m rib.Move, err error) {
	c := n.carries()
	if c == nil {
		return m, &apiError{Status: http.StatusServiceUnavailable, RetryAfter: retryLeader, ErrorView: ErrorView{Error: "this node does not carry out moves yet", Hint: "Nothing was changed. Ask again in a moment."}}
	}
	if n.ledger().Requested(r.RequestID) == nil {
		if err := n.canBegin(ctx, c, ks, low, high, r.To); err != nil && n.ledger().Requested(r.RequestID) == nil {
			return m, err
		} // else the same request, which came over another node, has begun meanwhile
	}
	if m, err = n.ledger().StartMove(ctx, r); err != nil {
		return m, err
	}
	n.log.Info("a move begins", "move", m.ID, "keyspace", ks.Name, "range", ks.FormatInterval(low, high), "from", m.From, "to", m.To, "by", r.Author, "why", r.Reason)
	c.Kick()
	return m, nil
}

// canBegin says what stands against a move that nobody has asked for yet.
func (n *Node) canBegin(ctx context.Context, c carrier, ks *rib.Keyspace, low, high rib.Key, to string) error {
	if err := n.healthyShard(to); err != nil {
		return unhealthy(err)
	}
	owners := owners(ks, low, high)
	if len(owners) != 1 || owners[0] == to || slices.ContainsFunc(n.table.Owners().Get().Moves, func(m rib.Move) bool {
		return m.Keyspace == ks.ID && m.Meets(low, high)
	}) {
		return nil // the ledger says what is wrong
	}
	obstacles, err := c.Check(ctx, ks, rib.Move{Keyspace: ks.ID, Low: low, High: high, From: owners[0], To: to})
	if err == nil && len(obstacles) > 0 {
		err = obstructed(ks.FormatInterval(low, high), obstacles)
	}
	return err
}

// owners are the shards that own parts of a range, in its order.
func owners(ks *rib.Keyspace, low, high rib.Key) (list []string) {
	for i := range ks.Ranges {
		if r := &ks.Ranges[i]; rib.Meet(r.From, r.To, low, high) && !slices.Contains(list, r.Shard) {
			list = append(list, r.Shard)
		}
	}
	return list
}

func unhealthy(err error) *apiError {
	return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code: codeUnhealthy, Error: err.Error(), Hint: "Nothing was changed. 'rangefinder status' shows the shard's backends; ask again when its primary is up.",
	}}
}

func obstructed(what string, obstacles []ObstacleView) *apiError {
	e := &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code: codeObstacles, Error: fmt.Sprintf("range %s cannot be moved: %d obstacles", what, len(obstacles)), Obstacles: obstacles,
		Hint: "Nothing was touched. Mend what is named, and ask again.",
	}}
	var lines []string
	for _, o := range obstacles {
		e.Rows += o.Rows
		line := "on " + o.Shard
		if o.Table != "" {
			line += ", table " + o.Table
		}
		lines = append(lines, line+": "+o.Problem)
	}
	e.Detail = strings.Join(lines, "\n")
	return e
}

// moveView is a move as the table has it, with what its carrier says if this node has one.
func (n *Node) moveView(m rib.Move) MoveView {
	v := moveView(n.table.Owners().Get(), &m)
	if c := n.carries(); c != nil {
		for _, s := range c.Status() {
			if s.ID == m.ID {
				s.Until = v.Until
				return s
			}
		}
	}
	return v
}

func moveView(o *rib.Ownership, m *rib.Move) MoveView {
	v := MoveView{ID: m.ID, From: m.From, To: m.To, Phase: m.Phase.String(), Why: m.Why, Missing: []string{}}
	if ks := o.Keyspace(m.Keyspace); ks != nil {
		v.Keyspace, v.Range = ks.Name, ks.FormatInterval(m.Low, m.High)
	}
	if o.Move(m.ID) == nil {
		v.Phase = phaseOver
	}
	if !m.Until.IsZero() {
		v.Until = &m.Until
	}
	return v
}

// Moves lists the moves that are not over, with how far they are, as the leader has it. Without a leader it is as this node knows it.
func (n *Node) Moves(ctx context.Context) (MovesAnswer, error) {
	here := func() MovesAnswer {
		o, v := n.table.Owners().Get(), MovesAnswer{Moves: []MoveView{}}
		for i := range o.Moves {
			v.Moves = append(v.Moves, n.moveView(o.Moves[i]))
		}
		return v
	}
	if n.ledger().IsLeader() || passedOn(ctx) {
		return here(), nil
	}
	v, err := tryLeader(ctx, n, "/api/v1/moves", nil, func(context.Context) (MovesAnswer, error) { return here(), nil })
	if err != nil {
		return here(), nil
	}
	return v, nil
}

// Move is one move: as Moves has it, or, when it is over, as the history has it.
func (n *Node) Move(ctx context.Context, id uint64) (MoveView, error) {
	list, err := n.Moves(ctx)
	if err != nil {
		return MoveView{}, err
	}
	for _, m := range list.Moves {
		if m.ID == id {
			return m, nil
		}
	}
	past, err := n.History(ctx, HistoryQuery{Move: id, Limit: moveEvents})
	if err != nil {
		return MoveView{}, err
	}
	if len(past.Events) == 0 {
		return MoveView{}, noMove(id)
	}
	return pastMove(id, past.Events), nil
}

// moveEvents is how many of a move's changes of phase are looked at, the last ones.
const moveEvents = 20

// pastMove is a move that is over, by what the history tells of it, the newest first.
func pastMove(id uint64, events []EventView) MoveView {
	last := events[0]
	v := MoveView{ID: id, Keyspace: last.Keyspace, Range: last.Range, From: last.From, To: last.To, Phase: phaseOver, Step: rib.MoveFlipped.String(), Part: 1, Missing: []string{}}
	for _, e := range events {
		if e.Phase == rib.MoveAborted.String() {
			v.Step = e.Phase
			if e.Reason != "" {
				v.Why = e.Reason
			}
		}
	}
	return v
}

// movingHint says what can be done about a move that stands in the way; nil: which one is not known.
func movingHint(m *rib.Move) string {
	switch {
	case m == nil:
		return "Nothing was changed. 'rangefinder move status' shows the moves under way."
	case m.Phase.Ahead():
		return fmt.Sprintf("Nothing was changed. Wait until the move is over ('rangefinder move status %d'), or end it: 'rangefinder move abort %d'.", m.ID, m.ID)
	case m.Phase == rib.MoveAborted:
		return fmt.Sprintf("Nothing was changed. The move is aborted, and what it has left is being removed: ask again when 'rangefinder move status %d' says that it is over.", m.ID)
	}
	return fmt.Sprintf("Nothing was changed. %s has the range by now, so the move cannot be aborted any more: 'rangefinder move status %d' says what it waits for. Ask again when it is over; to have the range back, move it back then.", m.To, m.ID)
}

// noMoveNow says why a move cannot be changed that is not in the table.
func (n *Node) noMoveNow(ctx context.Context, id uint64) error {
	past, err := n.historyHere(ctx, HistoryQuery{Move: id, Limit: moveEvents})
	if err != nil {
		return err
	}
	if len(past.Events) == 0 {
		return noMove(id)
	}
	e := &apiError{Status: http.StatusConflict, ErrorView: ErrorView{Code: codePhase, Error: fmt.Sprintf("move %d is over", id)}}
	v := pastMove(id, past.Events)
	if v.Step == rib.MoveAborted.String() {
		e.ErrorView.Error += ": it was aborted"
		e.Hint = fmt.Sprintf("Nothing was changed, and nothing is left of it: %s has the range.", v.From)
		return e
	}
	e.Hint = fmt.Sprintf("Nothing was changed. %s has the range; to have it back, move it back: rangefinder move start %s %s --to %s", v.To, v.Keyspace, v.Range, v.From)
	return e
}

func noMove(id uint64) *apiError {
	return &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{Error: fmt.Sprintf("there is no move %d", id), Hint: "'rangefinder move status' lists those under way, 'rangefinder range history' those that are over."}}
}

// ChangeMove pauses, resumes or aborts a move.
func (n *Node) ChangeMove(ctx context.Context, id uint64, what string, order MoveOrder) (MoveView, error) {
	o := cluster.Origin{Reason: order.Reason, RequestID: order.RequestID}
	sign(ctx, &o)
	order.RequestID = o.RequestID
	return onLeader(ctx, n, fmt.Sprintf("/api/v1/moves/%d/%s", id, what), order, func(ctx context.Context) (v MoveView, err error) {
		if err := n.leads(); err != nil {
			return v, err
		}
		m := n.table.Owners().Get().Move(id)
		if m == nil {
			return v, n.noMoveNow(ctx, id)
		}
		switch what {
		case moveAbort:
			if o.Reason == "" {
				o.Reason = "by " + o.Author
			}
			aborted, err := n.ledger().AbortMove(ctx, id, o)
			if err != nil {
				return v, err
			}
			m = &aborted
			if c := n.carries(); c != nil {
				c.Abort(id)
			}
		default:
			if err := n.pauseMove(ctx, id, what == movePause, o); err != nil {
				return v, err
			}
		}
		n.log.Info("a move is changed", "move", id, "what", what, "by", o.Author, "why", o.Reason)
		return n.moveView(*m), nil
	})
}

// pauseMove has a move stop, or go on. What was done under the same request id is not done again: the move may have been resumed since. The history has one kind for both: so the reason
// begins with which it was.
func (n *Node) pauseMove(ctx context.Context, id uint64, paused bool, o cluster.Origin) error {
	c := n.carries()
	if c == nil {
		return errNotCarried
	}
	why := "resumed"
	if paused {
		why = "paused"
	}
	if o.Reason != "" {
		why += ": " + o.Reason
	}
	o.Reason = why
	if done, err := n.ledger().Noted(id, o); done || err != nil {
		return err
	}
	err := c.Pause(ctx, id, paused, o)
	if errors.Is(err, cluster.ErrRequestReused) { // the same request, which came over another node, may have been carried out meanwhile
		if done, _ := n.ledger().Noted(id, o); done {
			return nil
		}
	}
	return err
}

var errNotCarried = errors.New("nobody carries out moves on this node")
