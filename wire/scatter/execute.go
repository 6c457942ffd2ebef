package scatter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// execution is one statement that is to be carried out.
type execution struct {
	stmt    *stmt
	bind    *pg.Bind
	portal  *portal   // nil: of a Query
	columns bool      // the session wants the columns described first
	simple  bool      // it came in a Query
	max     uint32    // rows; 0: all
	alone   bool      // nothing else is in its transaction, which ends with it
	declare string    // what stands before Fan.Final, which is then a cursor's query; "": it is carried out
	made    *copyMade // takes the rows; nil: they are the session's
}

func (c *Coordinator) executePortal(p *portal, most uint32, columns, alone bool) *pg.Error {
	switch {
	case p.ran && p.stmt.plan.Intent == sqlkey.Read:
		c.out = pg.AppendCommandComplete(c.out, "SELECT 0")
		return nil
	case p.ran:
		return pg.NewError(pg.CodeObjectNotInPrerequisiteState, "portal "+strconv.Quote(string(p.bind.Portal))+" cannot be run").
			WithDetail("It has been run to its end.")
	}
	steps := p.stmt.plan.Fan != nil && p.stmt.plan.Fan.Steps // it has no rows to be limited
	p.ran = most == 0 && p.branch == nil && p.rest == nil
	e := c.execute(&execution{stmt: p.stmt, bind: p.bind, portal: p, columns: columns, max: most, alone: alone && (most == 0 || steps)})
	p.ran = p.ran || e == nil && p.branch == nil && p.rest == nil
	return e
}

// args are the statement's arguments, for its plan.
func (x *execution) args() *pg.Arguments { return &pg.Arguments{Bind: x.bind, OIDs: x.stmt.oids} }

// formatOf is the format in which a Bind wants a column.
func formatOf(b *pg.Bind, column int) int16 {
	switch n := b.NumResults(); {
	case n == 1:
		return b.Result(0)
	case column < n:
		return b.Result(column)
	}
	return pg.FormatText
}

func (c *Coordinator) execute(x *execution) *pg.Error {
	plan := x.stmt.plan
	if e := c.refuses(plan); e != nil {
		return e
	}
	c.shaped = c.shaped || plan.Shapes()
	if plan.Fan != nil && plan.Fan.Makes != "" && len(c.unseen) < maxJournal {
		c.unseen = append(c.unseen, plan.Fan.Makes)
	}
	if plan.Target == sqlkey.Unsharded {
		for _, name := range c.unseen {
			if sqlkey.Mentions(x.stmt.sql, name) {
				return pg.NewError(pg.CodeFeatureNotSupported, "relation "+strconv.Quote(name)+" was made in this transaction").
					WithDetail("It is one of sharded tables: on one shard it would have that shard's rows alone, and how it depends on them is known once it is committed.").
					WithHint("COMMIT first, or name the sharded tables themselves.")
			}
		}
	}
	switch {
	case x.portal != nil && x.portal.rest != nil:
		return c.more(x)
	case plan.Statements == 0:
		if x.columns && !x.simple {
			c.out = pg.AppendNoData(c.out)
		}
		c.out = pg.AppendEmptyQuery(c.out)
		return nil
	case plan.Syntax:
		if e := c.check(x.stmt); e != nil {
			return e
		}
		return pg.NewError(pg.CodeFeatureNotSupported, "the router does not understand this statement")
	case plan.Tx != sqlkey.TxNone:
		return c.transactional(x)
	case len(plan.Names) > 0:
		return c.named(x)
	case plan.Cursor != nil:
		return c.cursor(x)
	case plan.Session == sqlkey.SessSet || plan.Session == sqlkey.SessReset:
		return c.everySession(x)
	case plan.Target == sqlkey.Many:
		return c.many(x)
	}
	b, e := c.branchFor(plan, x.args())
	if e != nil {
		return e
	}
	if e := c.mayWrite(plan, []Share{{Slot: b.slot}}); e != nil {
		return e
	}
	if plan.CopyIn {
		return c.copyIn(x, b)
	}
	return c.single(x, b)
}

// writeFor reports whether a statement's branches must be primaries.
func (c *Coordinator) writeFor(plan *sqlkey.Plan) bool {
	return c.cfg.Write || c.writes || c.block && !c.readOnly || c.cfg.Host.MustWrite(plan)
}

// branchFor is the branch on which a statement of one shard runs, in the session's transaction. If its range has changed hands since that began, a snapshot
// that is there already must not be older.
func (c *Coordinator) branchFor(plan *sqlkey.Plan, args sqlkey.Args) (*branch, *pg.Error) {
	slot, e := c.cfg.Host.Route(plan, args)
	if e != nil {
		return nil, e
	}
	if slot == nil && plan.Catalogs && plan.Copies == nil && !c.shaped { // the session's numbers are that server's
		if slot, e = c.cfg.Host.Anywhere(plan, c.writeFor(plan)); e != nil {
			return nil, e
		}
	}
	if slot == nil {
		for _, b := range c.open() { // what its transaction has made, if anything, is more likely to be there
			if plan.Copies == nil || slices.Contains(plan.Copies, b.slot.Shard()) {
				return b, nil
			}
		}
		if slot, e = c.cfg.Host.Anywhere(plan, c.writeFor(plan)); e != nil {
			return nil, e
		}
	}
	if b := c.branches[slot.Shard()]; b != nil && (plan.Target == sqlkey.Keyed || plan.Hint != "") && c.cfg.Host.Moved(plan, args) {
		return b, c.renews(b)
	}
	return c.branch(slot, c.writeFor(plan))
}

// branch is the session's branch on a shard. If there is none yet, it is opened.
func (c *Coordinator) branch(slot *fib.Slot, write bool) (*branch, *pg.Error) {
	if b := c.branches[slot.Shard()]; b != nil {
		return b, nil
	}
	b, e := c.connect(c.ctx, slot, c.cfg.Host.Choose(slot, write), write, nil)
	if e != nil {
		return nil, e
	}
	c.join(b)
	return b, nil
}

// join makes a new branch part of the transaction: what opens that there goes before whatever is sent next.
func (c *Coordinator) join(b *branch) {
	c.branches[b.slot.Shard()] = b
	c.watch()
	begin := c.begin
	if begin == "" {
		begin = "BEGIN"
	}
	b.send = appendCommand(b.send, begin)
	for _, sql := range c.journal {
		b.send = appendCommand(b.send, sql)
	}
	b.quiet, b.stale = 1+len(c.journal), b.stale || len(c.journal) > 0
	b.status = pg.StatusInTx // as soon as anything is sent
}

// connect gets a connection to a shard, outside of any transaction. placed, which may be nil, is called when it does not stand in line for it.
func (c *Coordinator) connect(ctx context.Context, slot *fib.Slot, by Chooser, write bool, placed func()) (*branch, *pg.Error) {
	l, e := by.Next(ctx, pool.Claim{By: c.holder, Placed: placed})
	if e != nil {
		return nil, e
	}
	l.Conn.HeldBy(c.holder)
	b := &branch{slot: slot, conn: l.Conn, hop: l.Hop, write: write, status: pg.StatusIdle, numbers: numbers{types: c.cfg.Host.Types(slot.Shard()), of: c.cfg.Host}}
	l.Hop.Gauge.InFlight.Add(1)
	l.Conn.Unnamed = 0
	c.mu.Lock()
	c.live[b] = struct{}{}
	if c.closed {
		b.strike()
	}
	c.mu.Unlock()
	return b, nil
}

// appendCommand appends what carries out a statement without parameters, in the extended protocol and without a Sync: if it fails, the
// server discards what comes behind it.
func appendCommand(dst []byte, sql string) []byte {
	dst = pg.AppendParse(dst, "", sql, nil)
	dst = pg.AppendBindAs(dst, noArguments, "", "")
	return pg.AppendExecute(dst, "", 0)
}

// appendRun appends the statement itself, from Parse to Execute.
func (x *execution) appendRun(dst []byte, sql, portal string, most uint32) []byte {
	dst = pg.AppendParse(dst, "", sql, x.stmt.oids)
	dst = pg.AppendBindAs(dst, x.bind, portal, "")
	dst = pg.AppendDescribe(dst, pg.KindPortal, portal)
	return pg.AppendExecute(dst, portal, most)
}

// suspended is the name of a portal on a server that is not run to its end at once.
func (c *Coordinator) suspended(p *portal) string {
	for name, q := range c.portals {
		if p == q {
			return "rf_" + name
		}
	}
	return "rf_"
}

// single runs a statement on one branch, and hands on what that says.
func (c *Coordinator) single(x *execution, b *branch) *pg.Error {
	c.marks0(x, b)
	name := ""
	if x.max > 0 {
		name = c.suspended(x.portal)
	}
	resumes := x.portal != nil && x.portal.branch == b
	begins := toldNothing
	switch {
	case resumes:
		if x.columns || b.types != nil { // of what its rows are, nothing is kept
			b.send = pg.AppendDescribe(b.send, pg.KindPortal, x.portal.name)
		} else {
			begins = toldRows
		}
		b.send = pg.AppendExecute(b.send, x.portal.name, x.max)
	case name != "":
		b.send = x.appendRun(pg.AppendClose(b.send, pg.KindPortal, name), x.stmt.sql, name, x.max)
		x.portal.branch, x.portal.name = b, name
	default:
		b.send = x.appendRun(b.send, x.stmt.sql, "", 0)
	}
	b.send = pg.AppendSync(b.send)
	b.begin()
	e := b.flush()
	if e == nil {
		changed := false
		e = b.receiveAll(begins, func(typ byte, size int) *pg.Error {
			switch {
			case changed && (typ == pg.TypeDataRow || typ == pg.TypeCommandComplete):
				if _, err := b.frame(size); err != nil {
					return b.lost(err)
				}
				return nil
			case typ != pg.TypeRowDescription || x.simple:
				return c.relay(x, b, typ, size)
			}
			f, err := b.frame(size)
			if err != nil {
				return b.lost(err)
			}
			if e := c.cfg.Host.Changed(x.stmt.name, f[pg.HeaderSize:]); e != nil {
				changed = true
				return e
			}
			if x.columns {
				_ = c.emit(f)
			}
			return nil
		})
	}
	b.done()
	return c.ended(x, b, e)
}

// marks0 notes what a statement may do to a branch before it is sent.
func (c *Coordinator) marks0(x *execution, b *branch) {
	plan := x.stmt.plan
	b.wrote = b.wrote || writes(plan)
	b.opaque = b.opaque || plan.Opaque
	b.conn.Unnamed = 0
}

// ended follows the end of a statement on a branch.
func (c *Coordinator) ended(x *execution, b *branch, e *pg.Error) *pg.Error {
	if e == nil {
		return nil
	}
	if why := c.brokenBy(e); why != nil {
		return why
	}
	e = c.misfit(x, e)
	c.cfg.Host.Failed(b.hop, e.Code)
	if !x.stmt.sure {
		c.refused(x.stmt)
	}
	if b.broken && e.Hint == "" && (c.block || b.wrote) {
		return e.WithHint("The transaction was rolled back: try it again.")
	}
	return e
}

// misfit is a server's error as it would be if the server had the statement prepared since the session was told its columns: their formats are for these.
func (c *Coordinator) misfit(x *execution, e *pg.Error) *pg.Error {
	if e.Code == pg.CodeProtocolViolation && strings.HasPrefix(e.Message, "bind message has ") && !x.simple {
		if changed := c.cfg.Host.Changed(x.stmt.name, nil); changed != nil {
			return changed
		}
	}
	return e
}

// relay hands on one frame of a statement's answer.
func (c *Coordinator) relay(x *execution, b *branch, typ byte, size int) *pg.Error {
	keep := true
	switch typ {
	case pg.TypeParseComplete:
		c.taken(x.stmt)
		keep = false
	case pg.TypeBindComplete, pg.TypeCloseComplete, pg.TypeParameterDescription:
		keep = false
	case pg.TypeRowDescription:
		keep = x.columns
	case pg.TypeNoData:
		keep = x.columns && !x.simple
	case pg.TypeCommandComplete, pg.TypeParameterStatus:
		f, err := b.frame(size)
		switch {
		case err != nil:
			return b.lost(err)
		case typ == pg.TypeParameterStatus:
			b.parameter(f)
			c.out = append(c.out, f...)
		case x.simple:
			c.held = append(c.held[:0], f...)
		default:
			c.out = append(c.out, f...)
		}
		return nil
	case pg.TypeDataRow, pg.TypeNoticeResponse, pg.TypeNotification, pg.TypeEmptyQuery, pg.TypePortalSuspended,
		pg.TypeCopyInResponse, pg.TypeCopyOutResponse, pg.TypeCopyData, pg.TypeCopyDone:
	default: // the session is not to hear of it
		return b.lost(fmt.Errorf("frame of type %q as the answer to a statement", typ))
	}
	take := func(p []byte) error {
		if !keep {
			return nil
		}
		return c.emit(p)
	}
	var read, written error
	if b.renumbers(typ) {
		var f []byte
		if f, read = b.frame(size); read == nil {
			written = take(f)
		}
	} else {
		read, written = b.pass(size, take)
	}
	if written == nil && !b.buffered() && typ == pg.TypeDataRow {
		written = c.flush()
	}
	if written != nil {
		b.strike()
	}
	if read != nil {
		return b.lost(read)
	}
	return nil
}

// tell answers a statement that the node itself has carried out.
func (c *Coordinator) tell(x *execution, tag string) {
	if x.columns && !x.simple {
		c.out = pg.AppendNoData(c.out)
	}
	c.complete(x, tag)
}

// everySession carries out a statement that sets something for the session: on all branches, and on those to come.
func (c *Coordinator) everySession(x *execution) *pg.Error {
	plan := x.stmt.plan
	if x.bind.NumParams() > 0 {
		return pg.NewError(pg.CodeFeatureNotSupported, "set_config with parameters cannot be part of a transaction over several shards").
			WithHint("Use constants, or SET.")
	}
	if len(c.journal) >= maxJournal {
		return tooMuch()
	}
	first, e := c.branchFor(plan, x.args())
	if e != nil {
		return e
	}
	others := make([]*branch, 0, len(c.branches))
	for _, b := range c.open() {
		if b.stale = true; b != first {
			others = append(others, b)
		}
	}
	if e := c.single(x, first); e != nil {
		return e
	}
	first.wrote = first.wrote && plan.Session == sqlkey.SessNone
	e = c.onAll(others, x.stmt.sql)
	for _, b := range others { // first has said it
		b.reports = nil
	}
	if e != nil {
		return e
	}
	c.journal = append(c.journal, x.stmt.sql)
	return nil
}

// onAll has branches carry out a command, at once.
func (c *Coordinator) onAll(list []*branch, sql string) (first *pg.Error) {
	errs := make([]*pg.Error, len(list))
	var wg sync.WaitGroup
	for i, b := range list {
		wg.Go(func() { errs[i] = c.commands(c.ctx, b, sql) })
	}
	wg.Wait()
	for i, e := range errs {
		if e != nil {
			c.cfg.Host.Failed(list[i].hop, e.Code)
			if first == nil {
				first = e
			}
		}
	}
	return first
}

// commands has a branch carry out a command, in a goroutine of its own.
func (c *Coordinator) commands(ctx context.Context, b *branch, sql string) *pg.Error {
	return c.guard(func() *pg.Error {
		_, e := b.command(ctx, sql, false)
		return e
	})
}

// sum adds up command tags: "INSERT 0 2" and "INSERT 0 1" are "INSERT 0 3". Tags without a number stay as they are.
func sum(total, tag string) string {
	if total == "" {
		return tag
	}
	cut := len(tag)
	for cut > 0 && tag[cut-1] >= '0' && tag[cut-1] <= '9' {
		cut--
	}
	n, err := strconv.ParseUint(tag[cut:], 10, 64)
	if err != nil || len(total) < cut {
		return total
	}
	m, err := strconv.ParseUint(total[cut:], 10, 64)
	if err != nil {
		return total
	}
	return tag[:cut] + strconv.FormatUint(n+m, 10)
}
