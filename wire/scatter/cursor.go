package scatter

import (
	"cmp"
	"math"
	"strconv"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Cursors of SQL live on servers. What comes as the shards send it has one on each, of which one after the other is fetched from. What must be put
// together is gathered when it is declared, and the cursor is PostgreSQL's over Fan.Final.

// sqlCursor is one that was declared here.
type sqlCursor struct {
	parts  []*branch // where it is, in the order in which they are fetched from
	writes bool      // it may change something
	depth  int       // how many savepoints there were
	spread bool      // the following holds: it is one on each of several shards

	at     int   // among parts; their number: there are no more rows
	offset int64 // rows that are still to be left out
	limit  int64 // rows that are left; -1: no limit
}

// describer is a branch that knows it.
func (cur *sqlCursor) describer() *branch { return cur.parts[min(cur.at, len(cur.parts)-1)] }

// fetchedFrom is a branch that knows the cursor that a statement fetches from; nil if it does not fetch, or there is none.
func (c *Coordinator) fetchedFrom(plan *sqlkey.Plan) *branch {
	if plan.Cursor == nil || plan.Cursor.Op != sqlkey.CursorFetch {
		return nil
	}
	if cur := c.cursors[plan.Cursor.Name]; cur != nil {
		return cur.describer()
	}
	return c.adopted
}

func (c *Coordinator) cursor(x *execution) *pg.Error {
	plan := x.stmt.plan
	of := plan.Cursor
	switch of.Op {
	case sqlkey.CursorDeclare:
		if c.cursors[of.Name] != nil {
			return pg.NewError(pg.CodeDuplicateCursor, "cursor "+strconv.Quote(of.Name)+" already exists")
		}
		if x.alone && !c.block {
			return pg.NewError(pg.CodeNoActiveTransaction, "DECLARE CURSOR can only be used in transaction blocks")
		}
		cur, e := c.declares(x)
		if e == nil {
			cur.depth = len(c.marks)
			c.cursors[of.Name] = cur
		}
		return e
	case sqlkey.CursorClose:
		return c.closes(x)
	}
	cur := c.cursors[of.Name]
	switch {
	case cur == nil && c.adopted != nil: // it may have been declared before
		return c.onCursor(x, c.adopted, c.adopted.wrote)
	case cur == nil:
		return noCursor(of.Name)
	case !cur.spread:
		return c.onCursor(x, cur.parts[0], cur.writes)
	case !of.Forward:
		return pg.NewError(pg.CodeObjectNotInPrerequisiteState, "cursor can only scan forward").
			WithHint("A cursor over several shards goes ahead only: FETCH NEXT, FORWARD n or ALL.")
	}
	return c.fetch(x, cur)
}

func noCursor(name string) *pg.Error {
	return pg.NewError(pg.CodeInvalidCursorName, "cursor "+strconv.Quote(name)+" does not exist")
}

// onCursor has a branch carry out a statement about a cursor.
func (c *Coordinator) onCursor(x *execution, b *branch, writes bool) *pg.Error {
	wrote := b.wrote
	e := c.single(x, b)
	b.wrote = wrote || writes
	return e
}

// declares declares a cursor.
func (c *Coordinator) declares(x *execution) (*sqlCursor, *pg.Error) {
	plan := x.stmt.plan
	fan := plan.Fan
	if plan.Target != sqlkey.Many {
		b, e := c.branchFor(plan, x.args())
		if e == nil {
			e = c.mayWrite(plan, []Share{{Slot: b.slot}})
		}
		if e != nil {
			return nil, e
		}
		return &sqlCursor{parts: []*branch{b}, writes: writes(plan)}, c.onCursor(x, b, writes(plan))
	}
	shares, e := c.shares(plan, x)
	if e == nil {
		e = c.cfg.Host.Scatter(plan, x.stmt.sql, len(shares))
	}
	if e != nil {
		return nil, e
	}
	inner := *x.stmt
	inner.sql = plan.Cursor.SQL
	run := *x
	run.stmt, run.alone = &inner, false
	begins := "DECLARE " + rib.QuoteIdent(plan.Cursor.Name) + " "
	if fan.Final != "" { // PostgreSQL knows whether it can go back
		run.declare = begins + plan.Cursor.Scroll + "CURSOR FOR "
		if e := c.fan(&run, shares, gathered); e != nil {
			return nil, e
		}
		c.taken(x.stmt)
		c.tell(x, "DECLARE CURSOR")
		return &sqlCursor{parts: []*branch{c.branches[c.homeOf(shares)]}}, nil
	}
	cur := &sqlCursor{spread: true}
	if cur.offset, cur.limit, e = counts(fan, x.args()); e != nil {
		return nil, e
	}
	var list []*errand
	for _, s := range shares {
		b, e := c.branch(s.Slot, true)
		if e != nil {
			return nil, e
		}
		cur.parts = append(cur.parts, b)
		sql := cmp.Or(s.SQL, fan.SQL, inner.sql)
		_, oids := run.typed(sql, 0)
		ask := pg.AppendDescribe(pg.AppendParse(nil, "", sql, oids), pg.KindStatement, "")
		list = append(list, &errand{b: b, send: run.appendAsk(ask, begins+"NO SCROLL CURSOR FOR "+sql, nil, []int16{})})
	}
	if e := c.lost(c.ctx); e != nil {
		return nil, e
	}
	if e := c.errands(&run, list); e != nil {
		return nil, e
	}
	for i := range list {
		if !alike(list[0].desc, list[i].desc) {
			return nil, driftBetween(shares[0].Slot, shares[i].Slot)
		}
	}
	c.taken(x.stmt)
	c.tell(x, "DECLARE CURSOR")
	return cur, nil
}

// homeOf is the one of the shards on which Fan.Final runs.
func (c *Coordinator) homeOf(shares []Share) string {
	for _, s := range shares {
		if s.Slot.Shard() == c.cfg.Host.Home() {
			return s.Slot.Shard()
		}
	}
	return shares[0].Slot.Shard()
}

// fetch hands on the next rows of a cursor that is one on each shard.
func (c *Coordinator) fetch(x *execution, cur *sqlCursor) *pg.Error {
	of := x.stmt.plan.Cursor
	for cur.offset > 0 && cur.at < len(cur.parts) {
		got, e := c.advance(x, cur, "MOVE", cur.offset, nil, nil)
		if e != nil {
			return e
		}
		cur.offset -= got
	}
	word := "FETCH"
	if of.Move {
		word = "MOVE"
	}
	done, told := int64(0), of.Move
	to := &sink{c: c, x: x}
	defer to.drop()
	for {
		want := of.Count
		if want != math.MaxInt64 {
			want -= done
		}
		if cur.limit >= 0 {
			want = min(want, cur.limit)
		}
		if cur.limit == 0 && cur.at < len(cur.parts) { // what is left is nobody's
			cur.at = len(cur.parts) - 1
			if _, e := c.advance(x, cur, "MOVE", math.MaxInt64, nil, nil); e != nil {
				return e
			}
		}
		if (want == 0 || cur.at >= len(cur.parts)) && told {
			break
		}
		got, e := c.advance(x, cur, word, max(want, 1), &told, to)
		if e != nil {
			return e
		}
		done += got
		if cur.limit > 0 {
			cur.limit -= got
		}
	}
	c.taken(x.stmt)
	if of.Move && x.columns && !x.simple {
		c.out = pg.AppendNoData(c.out)
	}
	to.end(word + " " + strconv.FormatInt(done, 10))
	return nil
}

// advance has the shard whose turn it is go ahead, and hands on its rows to to, with what its columns are unless that has been told. Once it has no more
// rows it is the next shard's turn.
func (c *Coordinator) advance(x *execution, cur *sqlCursor, word string, rows int64, told *bool, to *sink) (got int64, _ *pg.Error) {
	how := strconv.FormatInt(rows, 10)
	if rows == math.MaxInt64 {
		how = "ALL"
	}
	ask := &errand{b: cur.describer(), memory: &ration{of: &c.cfg.Shared.Memory}}
	ask.send = x.appendAsk(nil, word+" FORWARD "+how+" FROM "+rib.QuoteIdent(x.stmt.plan.Cursor.Name), nil, nil)
	tell := func() {
		if told == nil || *told {
			return
		}
		c.taken(x.stmt)
		if *told = true; x.columns {
			c.out = pg.AppendFrame(c.out, pg.TypeRowDescription, ask.desc)
		}
	}
	ask.row = func(frame []byte) *pg.Error {
		defer ask.memory.give(len(frame))
		tell()
		return to.take(frame)
	}
	if e := c.errands(x, []*errand{ask}); e != nil {
		return 0, e
	}
	tell()
	if got = int64(tagged(ask.tag)); got < rows {
		cur.at = min(cur.at+1, len(cur.parts))
	}
	return got, nil
}

// closes closes a cursor, or all of them.
func (c *Coordinator) closes(x *execution) *pg.Error {
	of := x.stmt.plan.Cursor
	cur := c.cursors[of.Name]
	switch {
	case of.Name == "":
		clear(c.cursors)
		if e := c.onAll(c.open(), "CLOSE ALL"); e != nil {
			return e
		}
		c.taken(x.stmt)
		c.tell(x, "CLOSE CURSOR ALL")
		return nil
	case cur == nil && c.adopted != nil:
		return c.onCursor(x, c.adopted, false)
	case cur == nil:
		return noCursor(of.Name)
	}
	delete(c.cursors, of.Name)
	if e := c.onAll(cur.parts, "CLOSE "+rib.QuoteIdent(of.Name)); e != nil {
		return e
	}
	c.taken(x.stmt)
	c.tell(x, "CLOSE CURSOR")
	return nil
}
