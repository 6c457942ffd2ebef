package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"rangefinder/rib"
)

// worker carries out one move, in one term.
type worker struct {
	// constant
	m      *Mover
	id     uint64
	term   uint64
	ctx    context.Context
	cancel context.CancelFunc
	log    *slog.Logger
	began  time.Time

	// owned by the worker's goroutine
	failing time.Time // since when the step has failed; zero: it has not
	waits   time.Time // since when an open transaction is all that is in the way of a freeze; zero: it is not
	thawed  time.Time // when the range was last frozen in vain, as far as this worker knows; zero: it was not

	writing sync.Mutex // one note at a time, held over the ledger's answer

	// guarded by mu
	mu       sync.Mutex
	note     note
	stepping context.CancelCauseFunc // ends the step under way
	copied   Copied
	first    Copied    // the first of the step that has come some way
	since    time.Time // of the first
	lag      Lag
	missing  []string
	problem  string
}

func newWorker(m *Mover, mv *rib.Move, term uint64) *worker {
	ctx, cancel := context.WithCancel(m.ctx)
	w := &worker{m: m, id: mv.ID, term: term, ctx: ctx, cancel: cancel, log: m.cfg.Logger.With("move", mv.ID), began: time.Now(), note: decodeNote(mv.Note)}
	if w.note.Thawed > 0 {
		w.thawed = w.began
	}
	return w
}

// run carries the move on until it is over, or this term is.
func (w *worker) run() {
	// The first command of a new leader: when it is applied, all that was decided before is known here.
	for {
		err := w.change(w.ctx, func(n *note) { n.Leader = w.term })
		if err == nil {
			break
		}
		if w.gone() || !w.pause(w.m.cfg.Retry) {
			return
		}
		w.fail(err)
	}
	for w.ctx.Err() == nil {
		mv := w.move()
		if mv == nil {
			return
		}
		err := w.phase(mv)
		switch {
		case err == nil:
			w.failing = time.Time{}
			w.say("")
			continue
		case w.ctx.Err() != nil, errors.Is(err, errAborted):
			continue
		case errors.Is(err, ErrDeposed):
			w.say(err.Error())
			if !w.pause(w.m.cfg.Retry) {
				return
			}
			continue
		}
		w.fail(err)
		if !w.pause(w.m.cfg.Retry) {
			return
		}
	}
}

// fail notes why a step has failed.
func (w *worker) fail(err error) {
	if w.failing.IsZero() {
		w.failing = time.Now()
	}
	w.mu.Lock()
	w.problem, w.copied.Waits = err.Error(), ""
	w.mu.Unlock()
	w.log.Warn("a move's step failed", "error", err)
}

// phase does what is next in the phase that the table says. It returns when the phase is over, or a step has failed.
func (w *worker) phase(mv *rib.Move) error {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	w.mu.Lock()
	w.stepping = cancel
	w.mu.Unlock()
	if now := w.move(); now == nil || now.Phase != mv.Phase {
		return nil // aborted a moment ago: whoever did it found no step to end
	}
	job, err := w.job(mv)
	if err != nil {
		return err
	}
	switch mv.Phase {
	case rib.MovePrepare:
		err = w.prepare(ctx, job)
	case rib.MoveFrozen:
		return w.frozen(ctx, job)
	case rib.MoveFlipped:
		err = w.flipped(ctx, job)
	case rib.MoveAborted:
		err = w.aborted(ctx, job)
	default:
		err = fmt.Errorf("%s of a newer version of Rangefinder: upgrade this node", mv.Phase)
	}
	if err != nil && errors.Is(context.Cause(ctx), errAborted) {
		return errAborted
	}
	return err
}

// prepare fills the target, and freezes the range when it can keep up.
func (w *worker) prepare(ctx context.Context, j *Job) error {
	err := w.fill(ctx, j)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, ErrDeposed):
		return err
	case final(err), !w.failing.IsZero() && time.Since(w.failing) >= w.m.cfg.Patience:
		return w.abort(err)
	}
	return err
}

func (w *worker) fill(ctx context.Context, j *Job) error {
	servers := w.m.cfg.Servers
	if w.step() == stepCheck {
		obstacles, err := servers.Check(ctx, j)
		if err == nil && len(obstacles) > 0 {
			err = &ObstacleError{obstacles}
		}
		if err == nil {
			err = w.to(ctx, stepCopy)
		}
		if err != nil {
			return err
		}
	}
	if w.step() == stepCopy {
		if err := w.resumed(ctx); err != nil {
			return err
		}
		// From the first copied row on both servers have rows of the range: whoever asks both has to know.
		if err := w.await(ctx, func() []string { return w.m.cfg.Leases.Unaware(j.Move.ID) }); err != nil {
			return err
		}
		var all Copied
		identity, err := servers.Copy(ctx, j, func(c Copied) {
			all = c
			w.report(c)
		})
		if err == nil {
			err = w.change(ctx, func(n *note) { n.Identity, n.Step = identity, stepFollow })
		}
		if err != nil {
			return err
		}
		j.Identity = identity
		w.log.Info("a move's rows are copied", "rows", all.Rows, "bytes", all.Bytes)
	}
	if s := w.step(); s == stepThaw || s == stepFence { // the note of a leader that did not hear what became of its command may be the one before
		limited, cancel := context.WithTimeout(ctx, followTime)
		err := servers.Thaw(limited, j)
		cancel()
		if err == nil {
			err = w.to(ctx, stepFollow)
		}
		if err != nil {
			return err
		}
	}
	for {
		lag, err := servers.Follow(ctx, j)
		if err != nil {
			return err
		}
		w.failing = time.Time{}
		ready, problem := w.ready(j, lag)
		if ready {
			behind, err := servers.Behind(ctx, j)
			if err != nil {
				return err
			}
			if ready = behind == ""; !ready {
				problem = "the range would not be handed over in time, and is not frozen yet: " + behind
			}
		}
		w.mu.Lock()
		w.lag, w.problem = lag, problem
		w.mu.Unlock()
		if ready {
			break
		}
		if err := sleep(ctx, w.m.cfg.Round); err != nil {
			return err
		}
	}
	began := time.Now()
	err := w.advance(ctx, rib.MovePrepare, rib.MoveFrozen, stepFence)
	if err == nil {
		w.log.Info("a range is frozen", "took", time.Since(began))
	}
	return err
}

// await returns when nobody is missing any more.
func (w *worker) await(ctx context.Context, who func() []string) error {
	for pause := w.m.cfg.Poll; ; pause = min(2*pause, w.m.cfg.Round) {
		missing := who()
		w.wait(missing)
		if len(missing) == 0 {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			w.wait(nil)
			return err
		}
	}
}

// wait notes who is waited for.
func (w *worker) wait(missing []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missing = missing
}

// aborted lets writes through again, and removes what the move has left.
func (w *worker) aborted(ctx context.Context, j *Job) error {
	if w.touched() {
		servers := w.m.cfg.Servers
		err := servers.Unfence(ctx, j)
		if errors.Is(err, ErrDeposed) || ctx.Err() != nil {
			return err
		}
		w.begin(stepClean)
		if err := errors.Join(err, servers.Clean(ctx, j, w.report)); err != nil { // the target can be cleaned up while the source is away
			return err
		}
	}
	return w.m.cfg.Ledger.FinishMove(ctx, w.id)
}

// advance takes the move to its next phase.
func (w *worker) advance(ctx context.Context, from, to rib.MovePhase, at step) error {
	return w.turn(ctx, to, func(n *note) { n.Step = at }, func(ctx context.Context, note []byte) error {
		return w.m.cfg.Ledger.AdvanceMove(ctx, w.id, from, to, note)
	})
}

// turn changes the phase, and the note with it. That it is not known whether it was is no reason to do anything else first.
func (w *worker) turn(ctx context.Context, to rib.MovePhase, f func(*note), propose func(ctx context.Context, note []byte) error) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	before := w.noted()
	n := before
	f(&n)
	if err := propose(ctx, n.encode()); err != nil {
		// Whatever was in the log before this note has been applied when it has.
		for w.ctx.Err() == nil && !w.gone() {
			if again := w.m.cfg.Ledger.NoteMove(w.ctx, w.id, before.encode()); again == nil {
				break
			} else if !w.pause(w.m.cfg.Poll) {
				break
			}
		}
		if mv := w.move(); mv == nil || mv.Phase != to {
			return err
		}
		if err := w.m.cfg.Ledger.NoteMove(w.ctx, w.id, n.encode()); err != nil {
			return err
		}
	}
	w.set(n)
	return nil
}

// abort leaves the range where it was.
func (w *worker) abort(why error) error {
	w.log.Warn("a move is aborted", "error", why)
	w.say(why.Error())
	return w.m.cfg.Ledger.AbortMove(w.ctx, w.id, why.Error())
}

// change changes the note, here and in the ledger, as nobody has asked for.
func (w *worker) change(ctx context.Context, f func(*note)) error {
	return w.changeBy(ctx, f, func(ctx context.Context, note []byte) error { return w.m.cfg.Ledger.NoteMove(ctx, w.id, note) })
}

// changeBy does so where propose writes the note to the ledger.
func (w *worker) changeBy(ctx context.Context, f func(*note), propose func(ctx context.Context, note []byte) error) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	n := w.noted()
	f(&n)
	if err := propose(ctx, n.encode()); err != nil {
		return err
	}
	w.set(n)
	return nil
}

// to begins a step.
func (w *worker) to(ctx context.Context, s step) error {
	return w.change(ctx, func(n *note) { n.Step, n.Touched = s, true })
}

// set takes a note that is in the ledger.
func (w *worker) set(n note) {
	w.mu.Lock()
	was := w.note.Step
	w.note = n
	w.mu.Unlock()
	if was != n.Step {
		w.begin(n.Step)
	}
}

// begin counts anew for a step.
func (w *worker) begin(s step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note.Step, w.copied, w.first, w.problem = s, Copied{}, Copied{}, ""
}

func (w *worker) noted() note {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.note
}

func (w *worker) step() step    { return w.noted().Step }
func (w *worker) touched() bool { return w.noted().Touched }

// resumed returns when the move is not paused.
func (w *worker) resumed(ctx context.Context) error {
	for w.noted().Paused {
		if err := sleep(ctx, w.m.cfg.Round); err != nil {
			return err
		}
	}
	return nil
}

// report takes a copy's progress.
func (w *worker) report(c Copied) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first.Part == 0 || c.Part < w.first.Part { // what was waited for before, or was done by a try that has failed, tells nothing of the pace
		w.first, w.since = c, time.Now()
	}
	w.copied = c
}

func (w *worker) say(problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problem = problem
}

// interrupt ends the step under way.
func (w *worker) interrupt(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stepping != nil {
		w.stepping(cause)
	}
}

// describe adds what this worker knows.
func (w *worker) describe(p *Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Rows, p.Bytes, p.Part = w.copied.Rows, w.copied.Bytes, w.copied.Part
	switch w.note.Step {
	case stepFollow, stepFence, stepThaw, stepWait: // behind what is measured
		p.Part = 1
	}
	if p.Part > 0 && p.Part < 1 {
		if done := p.Part - w.first.Part; done > 0 {
			p.LeftMS = int64(float64(time.Since(w.since).Milliseconds()) * (1 - p.Part) / done)
		}
	}
	if w.note.Step != "" {
		p.Step = string(w.note.Step)
	}
	p.LagMS, p.Changed, p.Problem = w.lag.Time.Milliseconds(), w.lag.Unverified, cmp.Or(w.copied.Waits, w.problem)
	p.Missing = append(p.Missing, w.missing...)
	p.AgeMS = time.Since(w.began).Milliseconds()
}

// move is the move as the table has it now; nil: it is over.
func (w *worker) move() *rib.Move { return w.m.cfg.Owners().Move(w.id) }

func (w *worker) gone() bool { return w.move() == nil }

// job is what the servers are told.
func (w *worker) job(mv *rib.Move) (*Job, error) {
	ks := w.m.cfg.Owners().Keyspace(mv.Keyspace)
	if ks == nil {
		return nil, fmt.Errorf("keyspace %d of move %d is not known", mv.Keyspace, mv.ID)
	}
	return &Job{Move: *mv, Keyspace: ks, Term: w.term, Identity: w.noted().Identity}, nil
}

// pause waits, and reports false if the term is over.
func (w *worker) pause(d time.Duration) bool { return sleep(w.ctx, d) == nil }

// sleep waits, or returns why not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
