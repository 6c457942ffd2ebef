package move

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rangefinder/rib"
)

// ready tells whether the range is to be frozen now, and what is in the way of that if people can do something about it.
func (w *worker) ready(j *Job, lag Lag) (ok bool, problem string) {
	n := w.noted()
	switch {
	case n.Paused:
		w.waits = time.Time{}
		return false, ""
	case lag.Time >= w.m.cfg.MaxLag || lag.Unverified > w.m.cfg.MaxChanged:
		return false, ""
	case n.Thawed > 0:
		if left := w.m.cfg.Again<<min(n.Thawed-1, 10) - time.Since(w.thawed); left > 0 {
			return false, fmt.Sprintf("the range was frozen and could not be handed over in time: %s. It is frozen again in %s", n.Problem, left.Round(time.Second))
		}
	}
	if lag.Open < w.m.cfg.Freeze/2 {
		w.waits = time.Time{}
		return true, ""
	}
	// If it is on the range, a freeze would be in vain. It may be on another one: so not for ever.
	if w.waits.IsZero() {
		w.waits = time.Now()
	}
	if left := w.m.cfg.Standing - time.Since(w.waits); left > 0 {
		return false, fmt.Sprintf("the range would not be left in time: on shard %s %s. It is waited for, %s more; end it, or pause the move", j.Move.From, lag.Whose, left.Round(time.Second))
	}
	return true, ""
}

// frozen hands the range over. Statements wait meanwhile, so what does not come to its end in time is given up, and done again later; but a server that was
// restarted, and is back before they have waited for too long, is as good as before.
func (w *worker) frozen(ctx context.Context, j *Job) error {
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, w.m.cfg.Freeze, fmt.Errorf("the range was frozen for %s, which is as long as statements may wait", w.m.cfg.Freeze))
	defer cancel()
	var took handing
	err := w.handOver(limited, j, &took)
	for err != nil && !final(err) && !errors.Is(err, ErrDeposed) && !errors.Is(err, errLate) && lost(err) {
		w.say(err.Error())
		if sleep(limited, w.m.cfg.Round/10) != nil {
			break
		}
		err = w.handOver(limited, j, &took)
	}
	switch {
	case err == nil:
	case w.ctx.Err() != nil, errors.Is(err, ErrDeposed):
		return err
	case errors.Is(context.Cause(ctx), errAborted):
		return errAborted
	case final(err):
		return w.abort(err)
	default:
		if limited.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		return w.thaw(ctx, j, began, err)
	}
	// From here on nobody may abort before it is known that the flip was not done.
	complete := time.Now()
	err = w.advance(w.ctx, rib.MoveFrozen, rib.MoveFlipped, stepDetach)
	if err == nil {
		w.log.Info("a range has moved", "from", j.Move.From, "to", j.Move.To, "frozen", time.Since(began), "drained", took.drained, "fenced", took.fenced, "completed", took.completed,
			"flipped", time.Since(complete))
	}
	return err
}

// thaw has statements on the range go on at the source, with the copy as it is, so that the range can be frozen again later. After some times it is aborted.
func (w *worker) thaw(ctx context.Context, j *Job, began time.Time, why error) error {
	times := w.noted().Thawed + 1
	if times >= w.m.cfg.Freezes {
		return w.abort(fmt.Errorf("the range was frozen %d times, and could not be handed over in time. The last time: %w", times, why))
	}
	w.log.Warn("a range is not frozen any more, as it could not be handed over in time", "error", why)
	w.say(why.Error())
	// A fence that can be opened at once refuses nobody when the nodes send again. If it cannot be, that comes first thing after this.
	if left := w.m.cfg.Freeze + w.m.cfg.Round - time.Since(began); left > 0 {
		limited, cancel := context.WithTimeout(ctx, min(left, w.m.cfg.Round/2))
		err := w.m.cfg.Servers.Thaw(limited, j)
		cancel()
		if err != nil && final(err) {
			return w.abort(errors.Join(why, err))
		}
	}
	problem := shorten(why.Error())
	err := w.turn(w.ctx, rib.MovePrepare, func(n *note) { n.Step, n.Thawed, n.Problem = stepThaw, times, problem },
		func(ctx context.Context, note []byte) error { return w.m.cfg.Ledger.ThawMove(ctx, w.id, problem, note) })
	w.thawed = time.Now()
	return err
}

// maxProblem bounds what a note says of a problem, in bytes.
const maxProblem = 1000

// shorten is the beginning of a text, of whole characters.
func shorten(s string) string {
	if len(s) <= maxProblem {
		return s
	}
	return strings.ToValidUTF8(s[:maxProblem], "")
}

// handing is what the time of a freeze was spent with.
type handing struct {
	drained   time.Duration // until no node sent anything to the range any more
	fenced    time.Duration // until the source refused writes, and none was under way
	completed time.Duration // until the target had all
}

func (w *worker) handOver(ctx context.Context, j *Job, took *handing) error {
	began := time.Now()
	for {
		missing := w.m.cfg.Leases.Undrained(j.Move.ID)
		w.wait(missing)
		if len(missing) == 0 {
			break
		}
		if err := sleep(ctx, w.m.cfg.Poll); err != nil {
			w.wait(nil)
			return fmt.Errorf("not every node has said that nothing runs on the range any more: %s has not; transactions that are open there on its keys have to end first: %w", strings.Join(missing, ", "), err)
		}
	}
	drained := time.Now()
	if err := w.m.cfg.Servers.Fence(ctx, j); err != nil {
		return err
	}
	fenced := time.Now()
	if err := w.m.cfg.Servers.Complete(ctx, j); err != nil {
		return err
	}
	*took = handing{drained: drained.Sub(began), fenced: fenced.Sub(drained), completed: time.Since(fenced)}
	return nil
}
