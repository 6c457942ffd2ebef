package move

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// flipped removes what is left, the source's rows last. A recovery makes moves that have flipped with the note of any step, or none: only
// those behind Detach say that something is done already.
func (w *worker) flipped(ctx context.Context, j *Job) error {
	servers := w.m.cfg.Servers
	if s := w.step(); s != stepDelete && s != stepWait {
		err := servers.Detach(ctx, j)
		if err == nil {
			err = w.to(ctx, stepDelete)
		}
		if err != nil {
			return err
		}
	}
	if w.step() == stepDelete {
		err := w.resumed(ctx)
		if err == nil {
			err = servers.Delete(ctx, j, w.report)
		}
		if err == nil {
			err = w.to(ctx, stepWait)
		}
		if err != nil {
			return err
		}
	}
	if err := w.await(ctx, func() []string { return w.m.cfg.Leases.Acknowledged(j.Move.Epoch) }); err != nil {
		return err
	}
	if err := w.passed(ctx, j); err != nil {
		return err
	}
	if err := servers.RemoveFence(ctx, j); err != nil {
		return err
	}
	return w.m.cfg.Ledger.FinishMove(ctx, w.id)
}

// atRest is how much longer than at its quickest the source may take to answer, at least, before it counts as having stood still.
const atRest = 250 * time.Millisecond

// standing is how long a look at the source may take at least before the connection is given up, and all begins anew.
const standing = 30 * time.Second

// left is what of held is at work now, as it is seen now.
func left(held, now []Work) []Work {
	return slices.DeleteFunc(now, func(n Work) bool {
		return !slices.ContainsFunc(held, func(h Work) bool { return h.goesOn(n) })
	})
}

// passed returns when nothing runs at the source, or is on its way there, that was sent before all nodes had said that they know the new owner.
// They answer for what they wait for, and not for what they have given up, nor for what processes had sent that have died: of that the server
// knows nothing but that it runs, once it has come. So what is on its way gets the time to come, during which the source has to answer all along (who stands
// still has not looked at what has come); then all has to end that had begun by then.
func (w *worker) passed(ctx context.Context, j *Job) error {
	late := w.m.cfg.Late
	slow, longest := max(late/4, atRest), max(3*late, standing)
	var quickest time.Duration
	var since time.Time // it answers since then; zero: it has not answered yet
	var came bool       // all that was on its way
	var held []Work     // what was at work then, and has not ended
	for {
		asked := time.Now()
		limited, cancel := context.WithTimeoutCause(ctx, longest, fmt.Errorf("shard %s has not answered for %s", j.Move.From, longest))
		works, err := w.m.cfg.Servers.AtWork(limited, j)
		if err != nil && limited.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		cancel()
		took := time.Since(asked)
		first, than := since.IsZero(), quickest
		if first {
			than = took
		}
		quickest = min(than, took)
		switch {
		case err != nil:
			return err
		case first, took-than > slow, than-took > slow: // much quicker: it had stood still at each look so far
			since, came, held = time.Now(), false, nil
		case came:
			held = left(held, works)
		case asked.Sub(since) >= late:
			came, held = true, works
		}
		if came && len(held) == 0 {
			return nil
		}
		if !came {
			w.say(fmt.Sprintf("what was sent to shard %s before all nodes had said that they know the new owner has %s to come (moves.late)", j.Move.From, late))
		} else {
			w.say(fmt.Sprintf("the fence waits for %d statements on shard %s that began before all nodes had said that they know the new owner", len(held), j.Move.From))
		}
		if err := sleep(ctx, min(w.m.cfg.Round, late/4)); err != nil {
			return err
		}
	}
}
