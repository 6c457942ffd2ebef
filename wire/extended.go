package wire

import (
	"fmt"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// op is one message of the extended protocol that waits for its Sync or Flush, in core.batch from start to end.
type op struct {
	typ        byte
	start, end int
	stmt       *statement // Parse, Bind, Describe and Close of a statement
	plan       *sqlkey.Plan
	portal     *statement // Describe of a portal: of which named statement
	use        *use       // Bind and Execute of PREPARE and EXECUTE, Describe of EXECUTE
	answer     []byte     // if the node answers it: the answer
	shows      bool       // the answer is still to be found: see deferral
	virtual    bool
	changes    int        // how many changes of the registry came before it in the segment
	sets       []assigned // of Execute: see assign
	fail       *pg.Error  // the node refuses it, once what comes before it has run
}

// planOp finds out what one message asks for, and changes the client's registry as the message says.
func (c *core) planOp(o *op) (need, *pg.Error) {
	body := c.batch[o.start+pg.HeaderSize : o.end]
	switch o.typ {
	case 'P':
		return c.planParse(o, body)
	case 'B':
		return c.planBind(o, body)
	case 'D', 'C':
		return c.planNamed(o, body)
	}
	m, err := pg.DecodeExecute(body)
	if err != nil {
		return need{}, asError(err)
	}
	name := m.Portal
	p, known := c.stmts.portal(name)
	o.plan = p.plan
	if known && p.ran {
		return need{}, cannotRun(name)
	}
	if known && p.virtual && p.plan.Listen != sqlkey.ListenNone {
		if e := c.listen(p.plan); e != nil {
			return need{}, e
		}
		o.virtual, o.answer = true, pg.AppendCommandComplete(nil, p.plan.Tag)
		c.stmts.hasRun(name)
		return need{}, nil
	}
	if known && p.virtual && p.plan.Own != sqlkey.OwnNone {
		var e *pg.Error
		o.virtual = true
		if p.lines != nil {
			o.answer = appendLines(nil, *p.lines, p.plan)
			return need{}, nil
		}
		if c.locates.shard == "" {
			o.answer, e = c.answerOwn(nil, p.plan, false)
		}
		o.shows = c.locates.shard != ""
		return need{}, e
	}
	if known && p.virtual {
		if e := c.tooLate(p.plan); e != nil {
			if p.plan.Tx == sqlkey.TxBegin {
				o.answer = pg.AppendNotice(nil, alreadyOpen())
			}
			return need{}, e
		}
		var done bool
		if o.answer, done = c.virtual(nil, p.plan); done {
			o.virtual = true
			c.stmts.hasRun(name)
			return need{}, nil
		}
		return need{}, pg.NewError(pg.CodeInvalidStatementName, "portal does not exist any more: the transaction has changed since it was bound")
	}
	if !known && c.srv == nil {
		return need{}, pg.NewError(pg.CodeInvalidCursorName, fmt.Sprintf("portal %q does not exist", name))
	}
	if p.sets != nil {
		o.sets = *p.sets
	}
	if p.use != nil {
		if e := c.executeNames(o, p.use); e != nil {
			return need{}, e
		}
	}
	c.seg.server, c.seg.runs = true, true
	c.seg.moved = c.seg.moved || p.plan != nil && c.movesMeaning(p.plan, p.sets)
	c.seg.ends = c.seg.ends || p.plan != nil && (p.plan.Tx == sqlkey.TxCommit || p.plan.Tx == sqlkey.TxRollback)
	if m.MaxRows == 0 {
		c.seg.bound = false
	} else {
		c.seg.keeps = true
	}
	return need{}, nil
}

func (c *core) planParse(o *op, body []byte) (need, *pg.Error) {
	v, err := pg.DecodeParseView(body)
	if err != nil {
		return need{}, asError(err)
	}
	if s := c.stmts.unnamed; s != nil && len(v.Name) == 0 && s.is(&v) { // as many drivers do: the same again
		o.stmt = s
		c.replan(s)
		s.carries = carriesUnknown // its tables may have changed
		return c.parsed(o)
	}
	m := v.Copy()
	if m.Name != "" && c.stmts.find([]byte(m.Name)) != nil {
		return need{}, duplicateStatement(m.Name)
	}
	s := &statement{name: counted(m.Name), sql: m.SQL, oids: m.OIDs}
	if m.Name != "" && c.stmts.full(s) {
		return need{}, tooManyStatements()
	}
	c.replan(s)
	if e := c.uniqueParse(s); e != nil {
		return need{}, e
	}
	c.stmts.nextID++
	s.id, o.stmt = c.stmts.nextID, s
	return c.parsed(o)
}

// parsed puts the statement of a Parse into the registry, unless it must not be prepared.
func (c *core) parsed(o *op) (need, *pg.Error) {
	plan := o.stmt.plan
	o.plan = plan
	if plan.Statements > 0 { // else there is nothing in it that could fail
		if e := c.refusedByState(plan); e != nil {
			return need{}, e
		}
	}
	if plan.Target == sqlkey.None {
		return need{}, plan.Err
	}
	if plan.Listen == sqlkey.ListenSeveral {
		return need{}, pg.NewError(pg.CodeSyntaxError, "cannot insert multiple commands into a prepared statement")
	}
	c.addStatement(o.stmt)
	if c.answersTx(plan) || plan.Own != sqlkey.OwnNone || plan.Listen != sqlkey.ListenNone || len(plan.Names) > 0 && plan.Statements == 1 {
		o.virtual, o.answer = true, parseComplete
		return need{}, nil
	}
	c.prepareHome(plan)
	return need{}, nil
}

func (c *core) planBind(o *op, body []byte) (need, *pg.Error) {
	if err := c.bind.Decode(body); err != nil {
		return need{}, asError(err)
	}
	s := c.stmts.find(c.bind.Statement)
	if s == nil {
		return need{}, unknownStatement(c.bind.Statement)
	}
	c.replan(s)
	s, e := c.uniqueBind(s)
	if e != nil {
		return need{}, e
	}
	o.stmt, o.plan, c.plan = s, s.plan, s.plan
	if e := c.refusedByState(s.plan); e != nil {
		return need{}, e
	}
	if c.deallocates(s.plan) || s.plan.Own != sqlkey.OwnNone || s.plan.Listen != sqlkey.ListenNone || c.answersTx(s.plan) && !c.seg.server { // what a server may refuse comes first
		if s.plan.Own == sqlkey.OwnNone && c.bind.NumParams() != declared(s) { // the node's own statements look for themselves
			return need{}, wrongNumber(&c.bind, s)
		}
		o.virtual, o.answer = true, bindComplete
		p := portal{plan: s.plan, virtual: true}
		if s.plan.OwnParam != 0 {
			var e *pg.Error
			if p.plan, e = c.hintArgument(s.plan, c.argsOf(s)); e != nil {
				return need{}, e
			}
		}
		if s.plan.Own == sqlkey.OwnExplain { // now, as long as its arguments are here
			lines, e := c.explainRoute(s.plan, c.argsOf(s), c.bind.NumParams())
			if e != nil {
				return need{}, e
			}
			p.lines = &lines
		}
		if !c.stmts.setPortal(c.bind.Portal, p) {
			return need{}, tooManyPortals()
		}
		return need{}, nil
	}
	if len(s.plan.Names) > 0 {
		return c.bindNames(o, s)
	}
	n, e := c.route(s.plan, c.argsOf(s))
	if e != nil && e.Code == pg.CodeUndefinedParameter {
		return n, wrongNumber(&c.bind, s)
	}
	if e != nil {
		return n, e
	}
	p := portal{plan: s.plan}
	if s.name != "" {
		p.stmt = s
	}
	if len(s.plan.Sets) > 0 {
		sets, ok := c.assign(s.plan, c.argsOf(s))
		if p.sets = &sets; !ok {
			c.seg.pin, c.seg.remain = "function set_config", c.seg.remain|sqlkey.RemainUnknown
		}
	}
	if !c.stmts.setPortal(c.bind.Portal, p) {
		return n, tooManyPortals()
	}
	c.seg.bound, c.seg.keeps = true, c.seg.keeps || len(c.bind.Portal) > 0
	c.account(s.plan)
	return n, nil
}

// planNamed handles Describe and Close.
func (c *core) planNamed(o *op, body []byte) (need, *pg.Error) {
	m, err := pg.DecodeDescribe(body)
	if o.typ == 'C' {
		var closes pg.Close
		closes, err = pg.DecodeClose(body)
		m = pg.Describe(closes)
	}
	if err != nil {
		return need{}, asError(err)
	}
	name := m.Name
	if m.Kind == pg.KindPortal {
		p, ok := c.stmts.portal(name)
		if ok && p.virtual {
			o.virtual, o.answer = true, describeOwn(nil, p.plan)
			if o.typ == 'C' {
				o.answer = closeComplete
			}
			return need{}, nil
		}
		if o.typ == 'C' && c.srv == nil && !c.seg.runs { // its transaction is over, and the portal with it
			o.virtual, o.answer = true, closeComplete
			return need{}, nil
		}
		c.seg.server, c.seg.runs = true, true
		if o.typ == 'D' {
			o.use, o.portal = p.use, p.stmt
		}
		return need{}, nil
	}
	s := c.stmts.find(name)
	if o.typ == 'C' { // the statement stays on the servers, for whoever prepares the same text
		o.virtual, o.answer = true, closeComplete
		if s != nil {
			c.forget(s)
		}
		return need{}, nil
	}
	if s == nil {
		return need{}, unknownStatement(name)
	}
	o.stmt, o.plan = s, s.plan
	if len(s.plan.Names) > 0 && s.plan.Names[0].Op == sqlkey.NameExecute {
		if inner := c.stmts.named[s.plan.Names[0].Name]; inner != nil {
			o.use = &use{NameUse: &s.plan.Names[0], stmt: inner, outer: s}
			c.prepareHome(inner.plan)
			return need{}, nil
		}
	}
	if s.plan.Own != sqlkey.OwnNone {
		o.virtual, o.answer = true, describeOwn(describeParams(s), s.plan)
		return need{}, nil
	}
	if s.plan.Tx != sqlkey.TxNone || s.plan.Listen != sqlkey.ListenNone || len(s.plan.Names) > 0 {
		o.virtual, o.answer = true, describeNothing
		return need{}, nil
	}
	c.prepareHome(s.plan)
	return need{}, nil
}

func tooManyPortals() *pg.Error {
	return pg.NewError(pg.CodeProgramLimitExceeded, "too many portals in one transaction").
		WithHint("Portals end with their transaction: use the unnamed portal, or end the transaction more often.")
}

// wrongNumber is PostgreSQL's answer to a Bind with more or fewer parameters than its statement has: here, where no server is asked, or where the key is not
// among them.
func wrongNumber(b *pg.Bind, s *statement) *pg.Error {
	return pg.Errorf(pg.CodeProtocolViolation, "bind message supplies %d parameters, but prepared statement \"%s\" requires %d", b.NumParams(), b.Statement, declared(s))
}

// declared is how many parameters a statement has: those that its Parse gives types to, even if the text uses fewer.
func declared(s *statement) int { return max(s.plan.NumParams, len(s.oids)) }

// cannotRun is PostgreSQL's answer to the Execute of a portal that has run to its end and has no rows.
func cannotRun(portal []byte) *pg.Error {
	return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "portal \"%s\" cannot be run", portal)
}

func unknownStatement(name []byte) *pg.Error {
	if len(name) == 0 {
		return pg.NewError(pg.CodeInvalidStatementName, "unnamed prepared statement does not exist")
	}
	return pg.NewError(pg.CodeInvalidStatementName, fmt.Sprintf("prepared statement %q does not exist", name))
}

// argsOf are those of the Bind in hand.
func (c *core) argsOf(s *statement) *pg.Arguments {
	c.args = pg.Arguments{Bind: &c.bind, OIDs: s.oids} // a field: nothing is allocated
	return &c.args
}

var (
	parseComplete   = []byte{'1', 0, 0, 0, 4}
	bindComplete    = []byte{'2', 0, 0, 0, 4}
	closeComplete   = []byte{'3', 0, 0, 0, 4}
	noData          = []byte{'n', 0, 0, 0, 4}
	describeNothing = []byte{'t', 0, 0, 0, 6, 0, 0, 'n', 0, 0, 0, 4}
)
