package scatter

import (
	"fmt"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// op is one message of the extended protocol that waits for its Sync or Flush, in Coordinator.batch.
type op struct {
	typ        byte
	start, end int
}

// stmt is a statement that the session has prepared.
type stmt struct {
	name string
	sql  string
	oids []uint32
	plan *sqlkey.Plan
	sure bool // a server has taken it
}

// portal is a bound statement.
type portal struct {
	stmt   *stmt
	bind   *pg.Bind
	branch *branch // where it is suspended; nil: nowhere
	name   string  // its name there
	depth  int     // how many savepoints there were when it was bound
	ran    bool    // it was run to its end at once
	rest   *rest   // what is left of the rows of several shards; nil: it has not begun

	// Of an EXECUTE that has begun: what it runs, and its arguments, which are evaluated once. nil: it is none, or has not begun.
	inner *stmt
	args  *pg.Bind
}

// pending is an answer that the session gets as soon as it is known that the statement is in order: servers are asked when it is
// executed or described.
type pending struct {
	answer []byte
	stmt   *stmt
}

// noArguments is the Bind of a statement that came in a Query: no parameters, all results as text.
var noArguments = func() *pg.Bind {
	b := new(pg.Bind)
	_ = b.Decode(make([]byte, 8))
	return b
}()

var (
	parseComplete = pg.AppendParseComplete(nil)
	bindComplete  = pg.AppendBindComplete(nil)
	closeComplete = pg.AppendCloseComplete(nil)
)

// segment runs the messages that have come since the last Sync, Flush or Query.
func (c *Coordinator) segment(sync bool) {
	defer func() { c.ops, c.batch = c.ops[:0], c.batch[:0] }()
	if len(c.ops) == 0 {
		return
	}
	executes := 0
	for i := range c.ops {
		if c.ops[i].typ == pg.TypeExecute {
			executes++
		}
	}
	must, runs := c.mustWrite()
	c.writes = c.writes || !sync && runs || must
	alone := sync && executes == 1 && !c.block
	for i := 0; i < len(c.ops); i++ {
		n, e := 0, c.settleBefore(c.runs(i))
		if e == nil {
			n, e = c.op(i, alone && len(c.branches) == 0) // what was described has a branch
		}
		if e != nil {
			if c.settlePending(); !c.skip {
				c.fail(e)
			}
			c.skip = true
			return
		}
		i += n
	}
	if !sync { // what is sent before a Flush is answered before it ends
		c.settlePending()
	}
}

// mustWrite reports whether something in the segment must run on a primary: then everything does that runs in its transaction. runs: it executes
// something that servers carry out at once.
func (c *Coordinator) mustWrite() (must, runs bool) {
	var b pg.Bind
	parsed, bound := make(map[string]*sqlkey.Plan), make(map[string]*sqlkey.Plan)
	for i := range c.ops {
		body := c.batch[c.ops[i].start:c.ops[i].end]
		switch c.ops[i].typ {
		case pg.TypeParse:
			if v, err := pg.DecodeParseView(body); err == nil {
				parsed[string(v.Name)] = c.cfg.Host.Plan(string(v.SQL), nil)
			}
		case pg.TypeBind:
			if b.Decode(body) != nil {
				continue
			}
			plan := parsed[string(b.Statement)]
			if s := c.stmts[string(b.Statement)]; plan == nil && s != nil {
				plan = s.plan
			}
			if bound[string(b.Portal)] = plan; plan != nil && c.cfg.Host.MustWrite(plan) {
				return true, true
			}
		case pg.TypeExecute:
			x, err := pg.DecodeExecute(body)
			if err != nil {
				continue
			}
			plan, here := bound[string(x.Portal)]
			if p := c.portals[string(x.Portal)]; !here && p != nil {
				plan = p.stmt.plan
			}
			runs = runs || plan == nil || !own(plan)
		}
	}
	return false, runs
}

// op carries out one message. It returns how many of those behind it are done with it.
func (c *Coordinator) op(i int, alone bool) (more int, _ *pg.Error) {
	o := &c.ops[i]
	body := c.batch[o.start:o.end]
	switch o.typ {
	case pg.TypeParse:
		return 0, c.parse(body)
	case pg.TypeBind:
		return 0, c.bind(body)
	case pg.TypeClose:
		m, err := pg.DecodeClose(body)
		if err != nil {
			return 0, asError(err)
		}
		if m.Kind == pg.KindPortal {
			if p := c.portals[string(m.Name)]; p != nil {
				c.forget(p)
				delete(c.portals, string(m.Name))
			}
		} else {
			delete(c.stmts, string(m.Name))
		}
		c.answer(closeComplete, nil)
		return 0, nil
	case pg.TypeDescribe:
		m, err := pg.DecodeDescribe(body)
		if err != nil {
			return 0, asError(err)
		}
		if m.Kind == pg.KindStatement {
			return 0, c.describeStatement(string(m.Name))
		}
		p := c.portals[string(m.Name)]
		if p == nil {
			return 0, noPortal(m.Name)
		}
		if i+1 < len(c.ops) && c.ops[i+1].typ == pg.TypeExecute { // as a rule both come together
			x, err := pg.DecodeExecute(c.batch[c.ops[i+1].start:c.ops[i+1].end])
			if err == nil && string(x.Portal) == string(m.Name) {
				return 1, c.executePortal(p, x.MaxRows, true, alone)
			}
		}
		return 0, c.describePortal(p)
	}
	x, err := pg.DecodeExecute(body)
	if err != nil {
		return 0, asError(err)
	}
	p := c.portals[string(x.Portal)]
	if p == nil {
		return 0, noPortal(x.Portal)
	}
	return 0, c.executePortal(p, x.MaxRows, false, alone)
}

func noPortal(name []byte) *pg.Error {
	return pg.NewError(pg.CodeInvalidCursorName, fmt.Sprintf("portal %q does not exist", name))
}

// answer is the node's own answer to a message. s is the statement that it depends on; nil: none.
func (c *Coordinator) answer(p []byte, s *stmt) {
	if s == nil && len(c.pending) == 0 || s != nil && s.sure && len(c.pending) == 0 {
		c.out = append(c.out, p...)
		return
	}
	c.pending = append(c.pending, pending{p, s})
}

// taken tells that a server has taken a statement: what the session was to be told of it can be told.
func (c *Coordinator) taken(s *stmt) {
	s.sure = true
	for len(c.pending) > 0 && (c.pending[0].stmt == nil || c.pending[0].stmt.sure) {
		c.out = append(c.out, c.pending[0].answer...)
		c.pending = c.pending[1:]
	}
}

// refused tells that no server takes s: of it nothing is told.
func (c *Coordinator) refused(s *stmt) {
	for i := range c.pending {
		if c.pending[i].stmt == s {
			c.pending = c.pending[:i]
			break
		}
	}
	for _, p := range c.pending {
		c.out = append(c.out, p.answer...)
	}
	c.pending = c.pending[:0]
}

// runs is the statement that a message has described or executed; nil: it does neither, or there is none.
func (c *Coordinator) runs(i int) *stmt {
	body := c.batch[c.ops[i].start:c.ops[i].end]
	var p *portal
	switch c.ops[i].typ {
	case pg.TypeDescribe:
		m, err := pg.DecodeDescribe(body)
		if err != nil {
			return nil
		}
		if m.Kind == pg.KindStatement {
			return c.stmts[string(m.Name)]
		}
		p = c.portals[string(m.Name)]
	case pg.TypeExecute:
		if x, err := pg.DecodeExecute(body); err == nil {
			p = c.portals[string(x.Portal)]
		}
	}
	if p == nil {
		return nil
	}
	return p.stmt
}

// settleBefore asks servers about the statements whose answers are due before those of s, which is about to run: its rows come behind them.
func (c *Coordinator) settleBefore(s *stmt) *pg.Error {
	for s != nil && len(c.pending) > 0 && c.pending[0].stmt != s {
		if before := c.pending[0].stmt; before != nil && !before.sure {
			if e := c.check(before); e != nil {
				c.refused(before)
				return e
			}
			before.sure = true
		}
		c.taken(&stmt{})
	}
	return nil
}

// settlePending asks servers about statements that have been prepared or bound, and not described or executed.
func (c *Coordinator) settlePending() {
	for len(c.pending) > 0 && !c.skip {
		s := c.pending[0].stmt
		if s != nil && !s.sure {
			if e := c.check(s); e != nil {
				c.refused(s)
				c.fail(e)
				c.skip = true
				return
			}
		}
		c.taken(&stmt{})
	}
}

func (c *Coordinator) parse(body []byte) *pg.Error {
	v, err := pg.DecodeParseView(body)
	if err != nil {
		return asError(err)
	}
	m := v.Copy()
	s := &stmt{name: m.Name, sql: m.SQL, oids: m.OIDs, plan: c.cfg.Host.Plan(m.SQL, m.OIDs)}
	if e := c.refuses(s.plan); e != nil {
		return e
	}
	s.sure = own(s.plan)
	c.stmts[m.Name] = s
	c.answer(parseComplete, s)
	return nil
}

func (c *Coordinator) bind(body []byte) *pg.Error {
	b := new(pg.Bind)
	if err := b.Decode(append([]byte(nil), body...)); err != nil {
		return asError(err)
	}
	s := c.stmts[string(b.Statement)]
	if s == nil {
		return pg.NewError(pg.CodeInvalidStatementName, fmt.Sprintf("prepared statement %q does not exist", b.Statement))
	}
	if old := c.portals[string(b.Portal)]; old != nil {
		c.forget(old)
	}
	c.portals[string(b.Portal)] = &portal{stmt: s, bind: b, depth: len(c.marks)}
	c.answer(bindComplete, s)
	return nil
}

// refuses is why a statement cannot run, as things stand.
func (c *Coordinator) refuses(plan *sqlkey.Plan) *pg.Error {
	ends := plan.Tx == sqlkey.TxCommit || plan.Tx == sqlkey.TxRollback || plan.Tx == sqlkey.TxRollbackTo
	switch {
	case c.failed && !ends:
		return pg.NewError(pg.CodeInFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
	case plan.Target == sqlkey.None:
		return plan.Err
	case plan.Session == sqlkey.SessPin || plan.Listen != sqlkey.ListenNone:
		return Pins(plan.WhyPin)
	}
	return nil
}

// Pins is the error for what would tie a session to one connection, in a transaction over several shards. Sessions say the same.
func Pins(why string) *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be part of a transaction over several shards").
		WithDetail("It would tie the session to one connection: " + why + ".").
		WithHint("Use it in a transaction on one shard, or outside of transactions.")
}

// forget gives up a portal.
func (c *Coordinator) forget(p *portal) {
	if p.rest != nil {
		p.rest.drop()
		p.rest = nil
	}
	p.branch = nil
}

func asError(err error) *pg.Error {
	if e, ok := err.(*pg.Error); ok {
		return e
	}
	return pg.NewError(pg.CodeInternalError, err.Error())
}
