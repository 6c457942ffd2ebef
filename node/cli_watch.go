package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"rangefinder/rib"
)

// watchMoveEach is the time between two looks at a move, and boundsEach that between two looks at whether it may go on.
const (
	watchMoveEach = 250 * time.Millisecond
	boundsEach    = 2 * time.Second
)

// fencePatience is how long a move is watched that only waits for nodes to know the new owner.
const fencePatience = 10 * time.Second

// moveWatch looks at a move until it is over.
type moveWatch struct {
	admin  adminFlags // without --json
	id     uint64
	show   func(m *MoveView) error  // shows a change; nil: prints a line
	passed func() (stop, err error) // says why the move should not go on; nil: it is to go on whatever comes

	width int       // of the terminal that is drawn on, in columns; 0: it is none
	drawn string    // the step of which the line is under the cursor; "": there is none
	rows  int       // of the terminal that it goes on for, behind the first
	last  string    // line that was shown
	waits time.Time // since when it waits for nodes; zero: it does not
	asked time.Time // when it was last asked whether it may go on
	stop  error     // why it should not have gone on: it was aborted then, unless it was too late for that
	ended bool      // it has been told to abort
}

// watchMove shows a move until it is over.
func watchMove(e *env, flags adminFlags, id uint64) error {
	return (&moveWatch{admin: flags.quiet(), id: id}).run(e)
}

// watchLines prints how a move was, and then a line of JSON for each change of it, until it is over.
func (a adminFlags) watchLines(e *env, m *MoveView) error {
	w := &moveWatch{admin: a.quiet(), id: m.ID, show: func(m *MoveView) error { return a.printLine(e, m) }}
	if m.Phase != "" {
		if err := w.shown(e, m); err != nil {
			return err
		}
	}
	return w.run(e)
}

// run shows the move until it is over. An aborted one is a failure. One that waits for nodes is done: its rows are where they should be.
func (w *moveWatch) run(e *env) error {
	w.asked, w.width = time.Now(), terminalWidth(e.stdout)
	defer w.leave(e)
	for {
		var m MoveView
		if err := w.admin.call(e, fmt.Sprintf("/api/v1/moves/%d", w.id), nil, &m); err != nil {
			return err
		}
		if err := w.shown(e, &m); err != nil {
			return err
		}
		if m.Phase == phaseOver {
			if m.Step == rib.MoveAborted.String() {
				return &Failure{Message: fmt.Sprintf("move %d was aborted: %s", w.id, orNone(m.Why)), Hint: "The range is where it was, and nothing of the move is left.", Err: errAborted}
			}
			return nil
		}
		if w.waited(&m) {
			if w.show != nil {
				return nil
			}
			w.leave(e)
			_, err := fmt.Fprintf(e.stdout, "the range and its rows are at %s; the fence on %s stays until these nodes have said that they know: %s\n"+
				"of one that is gone for good: rangefinder cluster forget NODE\n", m.To, m.From, strings.Join(m.Missing, ", "))
			return err
		}
		if err := w.bounded(e, &m); err != nil {
			return err
		}
		if !pause(e.ctx, watchMoveEach) {
			return &Failure{Message: "no longer watched; the move goes on", Hint: fmt.Sprintf("rangefinder move status %d", w.id)}
		}
	}
}

// shown shows how the move is, if that is news.
func (w *moveWatch) shown(e *env, m *MoveView) (err error) {
	line := progress(*m)
	switch {
	case line == w.last:
	case w.show != nil:
		err = w.show(m)
	case w.width == 0:
		_, err = fmt.Fprintln(e.stdout, line)
	default:
		err = w.draw(e, m.Phase+" "+m.Step, line)
	}
	w.last = line
	return err
}

// draw writes a line of a step on a terminal: in the place of the last one, if that was of the same step.
func (w *moveWatch) draw(e *env, step, line string) error {
	to := "" // where the cursor goes, from which all is cleared
	switch {
	case w.drawn != step:
		w.leave(e)
	case w.rows > 0:
		to = fmt.Sprintf("\x1b[%dA\r\x1b[J", w.rows)
	default:
		to = "\r\x1b[J"
	}
	w.drawn, w.rows = step, (utf8.RuneCountInString(line)-1)/w.width
	_, err := io.WriteString(e.stdout, to+line)
	return err
}

// leave ends the line that is drawn, which stays.
func (w *moveWatch) leave(e *env) {
	if w.drawn != "" {
		w.drawn = ""
		_, _ = fmt.Fprintln(e.stdout)
	}
}

// terminalWidth is that of a terminal, in columns; 0: it is none, or cannot be drawn on.
func terminalWidth(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// waited tells whether nothing has been left for a while but to wait for nodes.
func (w *moveWatch) waited(m *MoveView) bool {
	switch {
	case m.Phase != rib.MoveFlipped.String() || m.Step != moveWaits || len(m.Missing) == 0:
		w.waits = time.Time{}
	case w.waits.IsZero():
		w.waits = time.Now()
	}
	return !w.waits.IsZero() && time.Since(w.waits) >= fencePatience
}

// bounded looks now and then whether the move may go on, and aborts it if not: as long as it is before its freeze, for what comes then is short. One that is frozen may be let go again, and
// is aborted then.
func (w *moveWatch) bounded(e *env, m *MoveView) (err error) {
	if w.passed != nil && w.stop == nil && time.Since(w.asked) >= boundsEach {
		w.asked = time.Now()
		if w.stop, err = w.passed(); err != nil {
			return err
		}
	}
	if w.stop == nil || w.ended || m.Phase != rib.MovePrepare.String() {
		return nil
	}
	var now MoveView
	err = w.admin.call(e, movePath(w.id, moveAbort), MoveOrder{Reason: oneLine(w.stop.Error()), RequestID: randomHex(16)}, &now)
	if refused := (*apiError)(nil); errors.As(err, &refused) && refused.Code == codePhase {
		return nil // it has gone on meanwhile
	}
	w.ended = err == nil
	return err
}

// errAborted is the end of a move that did not take the range along.
var errAborted = errors.New("the move was aborted")

// barWidth is that of a progress bar, in characters.
const barWidth = 24

// progress is how far a move is, in a line.
func progress(m MoveView) string {
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
	switch {
	case m.Paused && m.Phase == rib.MovePrepare.String() && m.Step == "copy" && m.Part > 0:
		line += ", paused: the copy goes on to its end, and nothing is frozen"
	case m.Paused && m.Phase != rib.MovePrepare.String() && m.Phase != rib.MoveFrozen.String():
		line += ", paused: it goes on to its end, for what it is to be is decided"
	case m.Paused:
		line += ", paused"
	}
	if len(m.Missing) > 0 {
		line += ", waits for " + strings.Join(m.Missing, ", ")
		switch m.Phase { // for what of theirs
		case rib.MovePrepare.String():
			line += " (until what runs there since before the move has ended: sessions with open transactions, or the node is away)"
		case rib.MoveFrozen.String():
			line += " (until what runs there on the range has ended)"
		case rib.MoveFlipped.String():
			line += " (until the node has said that it knows the new owner)"
		}
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
