package node

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

type moveCmd struct {
	Start  moveStartCmd  `cmd:"" help:"Move a range with its rows to another shard."`
	Status moveStatusCmd `cmd:"" help:"Show the moves under way, or one of them."`
	Pause  movePauseCmd  `cmd:"" help:"Have a move stop before its next step that costs something."`
	Resume moveResumeCmd `cmd:"" help:"Have a paused move go on."`
	Abort  moveAbortCmd  `cmd:"" help:"End a move with the range where it was. Nothing of it is left on any server."`
}

type moveStartCmd struct {
	adminFlags
	reasonFlag
	Keyspace string         `arg:"" help:"The keyspace."`
	Range    string         `arg:"" help:"The range: 1000-2000, ..1000 or 2000.. ; of the hash method positions, as range list shows them."`
	To       string         `required:"" placeholder:"SHARD" help:"The shard that is to own it."`
	TTL      *time.Duration `name:"ttl" placeholder:"TIME" help:"For how long; then it goes back, unless it holds rows. Default: for good."`
	Watch    bool           `short:"w" help:"Show how it goes, until it is over."`
}

// Help is shown by `rangefinder move start --help`.
func (moveStartCmd) Help() string {
	return "Rows are copied while clients read and write them; then new transactions on the range wait for a moment, the shard that had it refuses writes\n" +
		"to it, and the other one has it. All that stands against a move (a table without the key in its primary key, wal_level, rights, ...) is named\n" +
		"before anything is touched. What fails before the range has changed hands leaves nothing behind.\n\nExamples:\n\n" +
		"  rangefinder move start app.orders 1000-2000 --to shard_3 --watch\n" +
		"  rangefinder move status\n" +
		"  rangefinder move abort 17\n\n" +
		"Ctrl-C ends the watching, not the move. With --json and --watch there is a line for each change of it, as GET /api/v1/moves/{id} has it then."
}

// Run begins a move.
func (c *moveStartCmd) Run(e *env) error {
	req := cluster.MoveRequest{Keyspace: c.Keyspace, Range: c.Range, To: c.To, Origin: c.origin()}
	if c.TTL != nil {
		if *c.TTL < time.Second {
			return &usageError{message: fmt.Sprintf("--ttl %s is less than a second", *c.TTL), hint: "For example 90s or 1h"}
		}
		req.Until = time.Now().Add(*c.TTL)
	}
	var m MoveView
	if c.Watch && c.JSON {
		if err := c.quiet().call(e, "/api/v1/moves", req, &m); err != nil {
			return err
		}
		return c.watchLines(e, &m)
	}
	if err := c.call(e, "/api/v1/moves", req, &m); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(e.stdout, "move %d: range %s of %s, from %s to %s\n", m.ID, m.Range, m.Keyspace, m.From, m.To)
	if !c.Watch {
		fmt.Fprintf(e.stdout, "see how it goes: rangefinder move status %d --watch\n", m.ID)
		return nil
	}
	return watchMove(e, c.adminFlags, m.ID)
}

type moveStatusCmd struct {
	adminFlags
	ID    uint64 `arg:"" optional:"" help:"The move's number; without one, all that are not over."`
	Watch bool   `short:"w" help:"Show how it goes, until it is over."`
}

// Run prints moves.
func (c *moveStatusCmd) Run(e *env) error {
	if c.ID != 0 {
		switch {
		case c.Watch && c.JSON:
			return c.watchLines(e, &MoveView{ID: c.ID})
		case c.Watch:
			return watchMove(e, c.adminFlags, c.ID)
		}
		var m MoveView
		if err := c.call(e, fmt.Sprintf("/api/v1/moves/%d", c.ID), nil, &m); err != nil || c.JSON {
			return err
		}
		return printMoves(e.stdout, []MoveView{m})
	}
	if c.Watch {
		return &usageError{message: "--watch needs a move's number", hint: "For example rangefinder move status 17 --watch"}
	}
	var v MovesAnswer
	if err := c.call(e, "/api/v1/moves", nil, &v); err != nil || c.JSON {
		return err
	}
	return printMoves(e.stdout, v.Moves)
}

func printMoves(w io.Writer, list []MoveView) error {
	return table(w, func(row func(...any)) {
		row("MOVE", "KEYSPACE", "RANGE", "FROM", "TO", "PROGRESS")
		for i := range list {
			m := &list[i]
			row(m.ID, m.Keyspace, m.Range, m.From, m.To, progress(*m))
		}
	})
}

// moveOrderCmd is what the commands about one move have in common.
type moveOrderCmd struct {
	adminFlags
	reasonFlag
	ID uint64 `arg:"" optional:"" help:"The move's number, as rangefinder move status shows it; may be left out if there is only one, or only one that this can be done to."`
}

func (c *moveOrderCmd) order(e *env, what string) error {
	if err := c.which(e, what); err != nil {
		return err
	}
	var m MoveView
	if err := c.call(e, movePath(c.ID, what), c.body(), &m); err != nil || c.JSON {
		return err
	}
	return printMoves(e.stdout, []MoveView{m})
}

// which finds the move that is meant: the only one, or else the only one of which it makes sense. One whose range has changed hands waits for seconds, or as long as
// an old statement runs, and nobody means that one who aborts the move that he has just begun.
func (c *moveOrderCmd) which(e *env, what string) error {
	if c.ID != 0 {
		return nil
	}
	var v MovesAnswer
	if err := c.quiet().call(e, "/api/v1/moves", nil, &v); err != nil {
		return err
	}
	list := v.Moves
	if len(list) > 1 {
		list = slices.DeleteFunc(slices.Clone(list), func(m MoveView) bool { return !meant(&m, what) })
	}
	switch {
	case len(list) == 1:
		c.ID = list[0].ID
		return nil
	case len(v.Moves) == 0:
		return &usageError{message: "no move is under way", hint: "rangefinder move start begins one; rangefinder range history lists those that are over."}
	case len(list) == 0:
		list = v.Moves
	}
	var numbers []string
	for i := range list {
		numbers = append(numbers, strconv.FormatUint(list[i].ID, 10))
	}
	return &usageError{message: fmt.Sprintf("%d moves are under way: which one? %s", len(v.Moves), strings.Join(numbers, ", ")), hint: "rangefinder move status shows them."}
}

// meant: whoever gives this order without a number may mean this move.
func meant(m *MoveView, what string) bool {
	if what == moveResume {
		return m.Paused
	}
	ahead := m.Phase == rib.MovePrepare.String() || m.Phase == rib.MoveFrozen.String()
	return ahead && (what == moveAbort || !m.Paused)
}

func (c *moveOrderCmd) body() MoveOrder { return MoveOrder{Reason: c.Reason, RequestID: randomHex(16)} }

// movePath is the call that changes a move.
func movePath(id uint64, what string) string { return fmt.Sprintf("/api/v1/moves/%d/%s", id, what) }

type movePauseCmd struct{ moveOrderCmd }

// Help is shown by `rangefinder move pause --help`.
func (movePauseCmd) Help() string {
	return "It does not begin to copy, to freeze its range, or to delete rows. A copy that is under way goes on to its end: stopped, it would have to begin anew, and the source would keep all of\nits log until then. What is copied follows the source for as long as the move is paused. To have the servers to themselves now, abort it."
}

// Run pauses.
func (c *movePauseCmd) Run(e *env) error { return c.order(e, movePause) }

type moveResumeCmd struct{ moveOrderCmd }

// Run has the move go on.
func (c *moveResumeCmd) Run(e *env) error { return c.order(e, moveResume) }

type moveAbortCmd struct {
	moveOrderCmd
	Watch bool `short:"w" help:"Wait until nothing of it is left."`
}

// Run aborts.
func (c *moveAbortCmd) Run(e *env) error {
	err := c.abort(e)
	if errors.Is(err, errAborted) {
		return nil // as it was to be
	}
	return err
}

func (c *moveAbortCmd) abort(e *env) error {
	if c.Watch && c.JSON {
		err := c.which(e, moveAbort)
		var m MoveView
		if err == nil {
			err = c.quiet().call(e, movePath(c.ID, moveAbort), c.body(), &m)
		}
		if err != nil {
			return err
		}
		return c.watchLines(e, &m)
	}
	if err := c.order(e, moveAbort); err != nil || !c.Watch {
		return err
	}
	return watchMove(e, c.adminFlags, c.ID)
}
