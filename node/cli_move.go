package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
		"Ctrl-C ends the watching, not the move."
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

// watchMoveEach is the time between two looks at a move.
const watchMoveEach = 250 * time.Millisecond

// fencePatience is how long a move is watched that only waits for nodes to know the new owner.
const fencePatience = 10 * time.Second

// watchMove shows a move until it is over. An aborted one is a failure. One that waits for nodes is done: its rows are where they should be.
func watchMove(e *env, flags adminFlags, id uint64) error {
	flags.JSON = false
	last := ""
	var waits time.Time // since when it waits for nodes; zero: it does not
	for {
		var m MoveView
		if err := flags.call(e, fmt.Sprintf("/api/v1/moves/%d", id), nil, &m); err != nil {
			return err
		}
		if line := progress(&m); line != last {
			fmt.Fprintln(e.stdout, line)
			last = line
		}
		if m.Phase == phaseOver {
			if m.Step == rib.MoveAborted.String() {
				return &Failure{Message: fmt.Sprintf("move %d was aborted: %s", id, orNone(m.Why)), Hint: "The range is where it was, and nothing of the move is left.", Err: errAborted}
			}
			return nil
		}
		switch {
		case m.Phase != rib.MoveFlipped.String() || m.Step != moveWaits || len(m.Missing) == 0:
			waits = time.Time{}
		case waits.IsZero():
			waits = time.Now()
		case time.Since(waits) >= fencePatience:
			_, err := fmt.Fprintf(e.stdout, "the range and its rows are at %s; the fence on %s stays until these nodes have said that they know: %s\n"+
				"of one that is gone for good: rangefinder cluster forget NODE\n", m.To, m.From, strings.Join(m.Missing, ", "))
			return err
		}
		if !pause(e.ctx, watchMoveEach) {
			return &Failure{Message: "no longer watched; the move goes on", Hint: fmt.Sprintf("rangefinder move status %d", id)}
		}
	}
}

// errAborted is the end of a move that did not take the range along.
var errAborted = errors.New("the move was aborted")

// barWidth is that of a progress bar, in characters.
const barWidth = 24

// progress is how far a move is, in a line.
func progress(m *MoveView) string {
	part := max(0, min(1, m.Part))
	full := int(part * barWidth)
	line := fmt.Sprintf("[%s%s] %3.0f%%  %s %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), part*100, m.Phase, m.Step)
	if m.Rows > 0 {
		line += fmt.Sprintf(", %d rows", m.Rows)
	}
	if m.Bytes > 0 {
		line += ", " + showBytes(m.Bytes)
	}
	if m.LeftMS > 0 {
		line += ", " + (time.Duration(m.LeftMS) * time.Millisecond).Round(time.Second).String() + " left"
	}
	if m.Phase == rib.MovePrepare.String() && m.Step == "follow" {
		line += fmt.Sprintf(", %d ms behind, %d rows to compare", m.LagMS, m.Changed)
	}
	if m.Thawed == 1 {
		line += ", frozen once in vain"
	} else if m.Thawed > 1 {
		line += fmt.Sprintf(", frozen %d times in vain", m.Thawed)
	}
	if m.Paused {
		line += ", paused"
	}
	if len(m.Missing) > 0 {
		line += ", waits for " + strings.Join(m.Missing, ", ")
	}
	if m.Problem != "" {
		line += "; " + oneLine(m.Problem)
	}
	if m.Why != "" {
		line += "; " + oneLine(m.Why)
	}
	return line
}

// showBytes writes a size for people.
func showBytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return strconv.FormatInt(n, 10) + " B"
}

type moveStatusCmd struct {
	adminFlags
	ID    uint64 `arg:"" optional:"" help:"The move's number; without one, all that are not over."`
	Watch bool   `short:"w" help:"Show how it goes, until it is over."`
}

// Run prints moves.
func (c *moveStatusCmd) Run(e *env) error {
	if c.ID != 0 {
		if c.Watch && !c.JSON {
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
			row(m.ID, m.Keyspace, m.Range, m.From, m.To, progress(m))
		}
	})
}

// moveOrderCmd is what the commands about one move have in common.
type moveOrderCmd struct {
	adminFlags
	reasonFlag
	ID uint64 `arg:"" optional:"" help:"The move's number, as rangefinder move status shows it; may be left out if there is only one."`
}

func (c *moveOrderCmd) order(e *env, what string) error {
	if c.ID == 0 {
		quiet := c.adminFlags
		quiet.JSON = false
		var v MovesAnswer
		if err := quiet.call(e, "/api/v1/moves", nil, &v); err != nil {
			return err
		}
		if len(v.Moves) != 1 {
			return &usageError{message: fmt.Sprintf("%d moves are under way: which one?", len(v.Moves)), hint: "rangefinder move status lists them."}
		}
		c.ID = v.Moves[0].ID
	}
	text, err := c.ask(e, fmt.Sprintf("/api/v1/moves/%d/%s", c.ID, what), MoveOrder{Reason: c.Reason, RequestID: randomHex(16)})
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := e.stdout.Write(append(bytes.TrimRight(text, "\n"), '\n'))
		return err
	}
	var m MoveView
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	return printMoves(e.stdout, []MoveView{m})
}

type movePauseCmd struct{ moveOrderCmd }

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
	if err := c.order(e, moveAbort); err != nil || !c.Watch || c.JSON {
		return err
	}
	if err := watchMove(e, c.adminFlags, c.ID); !errors.Is(err, errAborted) {
		return err
	}
	return nil // as it was to be
}
