package scatter

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

// Committer ends transactions that have written on more than one shard: everywhere, or nowhere. It is a *twophase.Manager.
type Committer interface {
	// Commit commits on all of these, or on none, as twophase.Manager does. The error is the client's answer, a *pg.Error: nothing has taken
	// effect, or, with SQLSTATE 08007, what has is not known. It may be called by many goroutines at once.
	Commit(ctx context.Context, database string, all []twophase.Participant) error
}

// participant is a branch as a Committer sees it: a twophase.Branch.
type participant struct {
	c *Coordinator
	b *branch
}

// Shard is twophase.Branch's.
func (p participant) Shard() string { return p.b.slot.Shard() }

// Exec is twophase.Branch's.
func (p participant) Exec(ctx context.Context, sql string) (tag string, _ error) {
	e := p.c.guard(func() (e *pg.Error) {
		tag, e = p.b.command(ctx, sql, true)
		return e
	})
	switch {
	case e == nil:
		return tag, nil
	case p.b.broken, p.c.crashed.Load():
		return tag, errors.New(e.Message)
	}
	return tag, e
}

// Wrote is a shard that a committed transaction has written to, and where.
type Wrote struct {
	Slot    *fib.Slot
	Hop     *fib.NextHop
	Unknown bool // nobody knows whether it was committed
}

// noteWrite remembers one for Coordinator.Wrote.
func (c *Coordinator) noteWrite(w Wrote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote = append(c.wrote, w)
}

// Wrote are the shards that have been written to since the last call: what the session's reads must see.
func (c *Coordinator) Wrote() []Wrote {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wrote
	c.wrote = nil
	return w
}

// open are the branches, sorted by shard.
func (c *Coordinator) open() []*branch {
	list := make([]*branch, 0, len(c.branches))
	for _, b := range c.branches {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *branch) int { return cmp.Compare(a.slot.Shard(), b.slot.Shard()) })
	return list
}

// commit commits on all branches, and gives them back. A request to cancel that comes before is its error. One that comes meanwhile the servers
// are told of: they know whether it is too late.
func (c *Coordinator) commit(ctx context.Context) *pg.Error {
	if ctx.Err() != nil {
		c.rollback(ctx)
		return asError(context.Cause(ctx))
	}
	ctx = context.WithoutCancel(ctx)
	list := c.open()
	var writers, readers []*branch
	for _, b := range list {
		if b.wrote {
			writers = append(writers, b)
		} else {
			readers = append(readers, b)
		}
	}
	var e *pg.Error
	switch {
	case len(writers) < 2:
		// First where it only read: nothing is lost there, but one that is serializable may fail at its end, and nothing may be committed then.
		if e = c.carryOut(ctx, readers, "COMMIT"); e == nil && len(writers) == 1 {
			e = c.commitOne(ctx, writers[0])
		}
	case c.cfg.Committer == nil: // which mayWrite should have refused
		e = refuseWriters(shardsOf(writers))
	default:
		all := make([]twophase.Participant, len(list))
		for i, b := range list {
			all[i] = twophase.Participant{Branch: participant{c, b}, Wrote: b.wrote}
		}
		if err := c.cfg.Committer.Commit(ctx, c.cfg.Identity.Database, all); err != nil {
			e = asError(err)
		}
	}
	if unknown := e != nil && e.Code == pg.CodeTransactionResolutionUnknown; e == nil || unknown {
		for _, b := range writers {
			c.noteWrite(Wrote{b.slot, b.hop, unknown})
		}
	}
	if e != nil {
		if why := c.brokenBy(e); why != nil {
			e = why
		}
		c.rollback(ctx)
		return e
	}
	c.giveBack()
	return nil
}

// commitOne commits on the one branch that has written.
func (c *Coordinator) commitOne(ctx context.Context, b *branch) *pg.Error {
	tag, e := b.command(ctx, "COMMIT", false)
	switch {
	case e != nil && b.broken:
		return pg.NewError(pg.CodeTransactionResolutionUnknown, "the connection to backend "+b.conn.Backend.Name+" was lost while the transaction was committed: whether it took effect is unknown").
			WithDetail(e.Message + ".").WithHint("Look before you try again.")
	case e == nil && tag == "ROLLBACK":
		return pg.NewError(pg.CodeTransactionRollback, "shard "+b.slot.Shard()+" has rolled the transaction back")
	}
	return e
}

// writes tells whether a statement may change something where it runs.
func writes(plan *sqlkey.Plan) bool { return plan.Intent == sqlkey.Write && !plan.Locks }

// mayWrite refuses a statement that would have the transaction write on several shards, if it must not.
func (c *Coordinator) mayWrite(plan *sqlkey.Plan, on []Share) *pg.Error {
	if c.cfg.Committer != nil || !writes(plan) {
		return nil
	}
	var names []string
	for _, b := range c.open() {
		if b.wrote {
			names = append(names, b.slot.Shard())
		}
	}
	for _, s := range on {
		if !slices.Contains(names, s.Slot.Shard()) {
			names = append(names, s.Slot.Shard())
		}
	}
	switch {
	case len(names) < 2:
		return nil
	case len(on) > 1 && plan.Fan != nil && plan.Fan.Refusal != nil: // the statement by itself: it says what it lacks
		e := *plan.Fan.Refusal
		e.Hint = strings.TrimSpace(e.Hint + ` Or set cross_shard_writes = "2pc" for the database.`)
		return &e
	}
	return refuseWriters(names)
}

func shardsOf(list []*branch) (names []string) {
	for _, b := range list {
		names = append(names, b.slot.Shard())
	}
	return names
}

func refuseWriters(names []string) *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the transaction would write on several shards").
		WithDetail("These are " + strings.Join(names, ", ") + ".").
		WithHint(`Use one transaction for each shard, or set cross_shard_writes = "2pc" for the database.`)
}

// rollbackLimit bounds how long a rollback may take before its connections are closed.
const rollbackLimit = 10 * time.Second

// rollback rolls back on all branches, and gives them back.
func (c *Coordinator) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit) // also of what was canceled
	defer cancel()
	_ = c.carryOut(ctx, c.open(), "ROLLBACK") // a branch that does not answer is closed, which rolls back as well
	c.giveBack()
}

// carryOut has those branches of a list that have an open transaction carry out a command, at once. The error is the first of them.
func (c *Coordinator) carryOut(ctx context.Context, list []*branch, sql string) (first *pg.Error) {
	errs := make([]*pg.Error, len(list))
	var wg sync.WaitGroup
	for i, b := range list {
		if b.broken || b.status == pg.StatusIdle {
			continue
		}
		wg.Go(func() { errs[i] = c.commands(ctx, b, sql) })
	}
	wg.Wait()
	for _, e := range errs {
		if first == nil {
			first = e
		}
	}
	return first
}

// report tells the session which of its parameters have other values now, in the words of one branch: all have the same.
func (c *Coordinator) report(list []*branch) {
	told := false
	for _, b := range list {
		if !told && !b.broken {
			c.out, told = append(c.out, b.reports...), true
		}
		b.reports = nil
	}
}

// giveBack gives all branches back to their pools.
func (c *Coordinator) giveBack() {
	c.report(c.open())
	c.unwatch()
	for shard, b := range c.branches {
		delete(c.branches, shard)
		c.release(b)
	}
}
