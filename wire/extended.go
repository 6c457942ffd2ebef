package wire

import (
	"fmt"
	"slices"

	"rangefinder/fib"
	"rangefinder/rib"
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

// segment is what is known of the messages up to a Sync or Flush once they are planned; of a simple Query likewise.
type segment struct {
	sync     bool           // it ends in a Sync, not in a Flush
	read     bool           // plain reads only
	wrote    bool           // something in it may write
	sets     bool           // something in it changes the session's settings
	opens    bool           // it opens the client's transaction block on the server
	pin      string         // why something in it needs the connection to be kept
	remain   sqlkey.Remains // what may remain of it on the server
	makes    []*sqlkey.Plan // of what makes, or takes away, what may be the session's own; see sqlkey.Plan.Made
	asks     string         // why the server is to be asked what remains of it; "": it need not be
	opaque   bool           // something in it may have set what nobody can see
	commits  bool           // something in it may have committed when it fails
	frees    bool           // something in it may take that away
	notifies int            // statements in it that send notifications
	retry    bool           // may be sent to another backend if this one dies before anything reached the client
	again    bool           // may be sent again if an error proves that nothing of it has run
	server   bool           // something in it must go to a server
	runs     bool           // something in it is executed or bound, not just prepared
	keeps    bool           // a portal that it binds may be executed by a later segment
	bound    bool           // it has bound a portal that it has not run to its end yet
	home     *sqlkey.Plan   // what tells where its statements can be prepared
	reads    int            // statements that are run, by what they may do
	writes   int
	undo     []change
	hints    *hints // before it
}

// change is a Parse or Close that the client's registry has in it already; it is undone if an error comes before it.
type change struct {
	stmt    *statement
	removed bool
}

// endSegment handles a Sync or a Flush: what came since the last one is planned as a whole and sent to one server.
func (c *core) endSegment(sync bool) {
	defer func() {
		if !c.unsent() && !c.waiting() && !c.awaitsChannels() {
			c.dropOps()
		}
	}()
	if c.skip || len(c.ops) == 0 {
		c.dropOps()
		c.emptySegment(sync)
		return
	}
	c.kind, c.table, c.plan = 'S', c.env.fib.Load(), nil
	c.seg = segment{sync: sync, read: true, undo: c.seg.undo[:0], hints: c.settings.hints}
	c.begins()
	c.moves.begin()
	if c.lis != nil {
		c.lis.mark = len(c.lis.pending)
	}
	var n need
	for i := range c.ops {
		before := c.seg
		c.ops[i].changes = len(c.seg.undo)
		o, e := c.planOp(&c.ops[i])
		if e == nil {
			n.merge(o)
			continue
		}
		c.undoFrom(c.ops[i].changes)
		before.undo = c.seg.undo
		c.seg, c.ops = before, c.ops[:i+1]
		if c.locates.shard != "" && !c.seg.server {
			c.ops = c.ops[:i]
			c.deferred = deferral{waits: true, failed: e}
			return
		}
		if !c.seg.server {
			c.answerOps(c.ops[:i])
			c.failExtended(e)
			return
		}
		c.ops[i].fail = e // what comes before it runs, and is rolled back as PostgreSQL does
		break
	}
	if c.awaitsChannels() { // first
		c.lis.deferred, c.lis.sync = n, sync
		return
	}
	c.sendSegment(n, sync)
}

// sendSegment sends the planned segment on its way, or answers it.
func (c *core) sendSegment(n need, sync bool) {
	if c.locates.shard != "" {
		c.deferred = deferral{waits: true, need: n, sync: sync}
		return
	}
	if !c.seg.server {
		c.answerOps(c.ops)
		if sync {
			c.emptySegment(true)
		}
		return
	}
	switch {
	case !c.seg.runs:
		n.write = false // preparing and describing changes nothing
	case c.tx.open && (c.seg.keeps || c.seg.bound || !sync):
		// What it leaves behind lives in the client's transaction: that must be open where the portal is.
		c.seg.opens, n.write = true, n.write || !c.tx.readOnly
	case !sync && c.srv == nil:
		n.write = true // what comes before the Sync runs on the same server, and may write
	}
	if n.slot == nil && c.srv == nil && c.seg.home != nil {
		n.slot = c.homeOf(c.seg.home)
	}
	c.routed()
	c.dispatch(n)
}

// answerOps gives the client the answers to messages that the node answers.
func (c *core) answerOps(ops []op) {
	for i := range ops {
		c.out = append(c.out, ops[i].answer...)
	}
}

func (c *core) dropOps() { c.ops, c.batch = c.ops[:0], c.batch[:0] }

// emptySegment answers a Sync or Flush with nothing before it that a server must hear of.
func (c *core) emptySegment(sync bool) {
	switch {
	case !sync:
		if c.serverOpen && !c.skip {
			c.toServer = pg.AppendFlush(c.toServer)
		}
	case c.serverOpen:
		c.kind, c.seg = 'S', segment{sync: true}
		c.skip = false
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S'})
	default:
		c.skip = false
		c.ready()
	}
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
	if known && p.virtual && p.plan.Listen != sqlkey.ListenNone {
		if e := c.listen(p.plan); e != nil {
			return need{}, e
		}
		o.virtual, o.answer = true, pg.AppendCommandComplete(nil, p.plan.Tag)
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
		var done bool
		if o.answer, done = c.virtual(nil, p.plan); done {
			o.virtual = true
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
		return c.parsed(o)
	}
	m := v.Copy()
	if m.Name != "" && c.stmts.find([]byte(m.Name)) != nil {
		return need{}, duplicateStatement(m.Name)
	}
	s := &statement{name: m.Name, sql: m.SQL, oids: m.OIDs}
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
	if e := c.refusedByState(plan); e != nil {
		return need{}, e
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

// prepareHome notes where a statement can be prepared: any shard that has its tables, if nothing else in the segment says where
// to go.
func (c *core) prepareHome(plan *sqlkey.Plan) {
	c.seg.server = true
	if c.seg.home == nil && (plan.Target == sqlkey.Unsharded || plan.Target == sqlkey.Keyed || plan.Target == sqlkey.Many && !plan.Fan.Apart || plan.Copies != nil) {
		c.seg.home = plan
	}
}

// homeOf picks a shard that has the tables of a plan.
func (c *core) homeOf(plan *sqlkey.Plan) *fib.Slot {
	if plan.Target == sqlkey.Any {
		return c.anySlot(need{copies: plan.Copies})
	}
	if plan.Target == sqlkey.Unsharded {
		return c.table.Slot(plan.Shard)
	}
	if len(plan.Keys) > 0 && plan.Keys[0].Literal != nil {
		if owner, ok := c.table.Lookup(plan.Keyspace, plan.Keys[0].Literal); ok && owner.Slot != nil {
			return owner.Slot // of a schema, no other has its tables
		}
	}
	if plan.Target == sqlkey.Many { // by whose numbers for types its rows will be described
		if s := c.table.Slot(c.catalog.CatalogShard(c.db)); s != nil && c.owns(s, plan.Keyspace) && len(s.For(c.db).Reads) > 0 && s.For(c.db).Reads[0].Healthy {
			return s
		}
	}
	return c.anyOf(plan.Keyspace)
}

// owns reports whether a shard owns a part of a keyspace.
func (c *core) owns(s *fib.Slot, id rib.KeyspaceID) bool {
	keyspace := c.table.Ownership().Keyspace(id)
	return keyspace != nil && slices.ContainsFunc(keyspace.Ranges, func(r rib.Range) bool { return r.Shard == s.Shard() })
}

// anyOf picks a shard of a keyspace that can be asked now. A statement must not fail because a shard is down that it will never
// run on.
func (c *core) anyOf(id rib.KeyspaceID) *fib.Slot {
	var fallback *fib.Slot
	keyspace := c.table.Ownership().Keyspace(id)
	if keyspace == nil {
		return nil
	}
	for i := range keyspace.Ranges {
		s := c.table.Slot(keyspace.Ranges[i].Shard)
		if s == nil {
			continue
		}
		if reads := s.For(c.db).Reads; len(reads) > 0 && reads[0].Healthy {
			return s
		}
		if fallback == nil {
			fallback = s
		}
	}
	return fallback
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
	if c.deallocates(s.plan) || s.plan.Own != sqlkey.OwnNone || s.plan.Listen != sqlkey.ListenNone || c.answersTx(s.plan) && !c.seg.runs {
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

// emitSegment sends the planned messages to the server connection: statements under the names that they have there, those
// that it lacks prepared first.
func (c *core) emitSegment() {
	for i := range c.ops {
		o := &c.ops[i]
		frame := c.batch[o.start:o.end]
		c.changes = o.changes
		switch {
		case o.fail != nil:
			c.refuse(o.fail)
			continue
		case o.virtual:
			c.push(expectation{kind: synthetic, synth: o.answer})
			continue
		}
		switch o.typ {
		case 'P':
			c.emitParse(o.stmt, false)
			continue
		case 'B':
			if o.use != nil {
				c.emitOuter(o.use)
				if err := c.bind.Decode(frame[pg.HeaderSize:]); err == nil { // it was decoded before
					c.toServer = pg.AppendBindRenamed(c.toServer, &c.bind, "")
				}
				c.push(expectation{kind: 'B', stmt: o.stmt, use: o.use})
				continue
			}
			name := c.emitPrepared(o.stmt)
			if name != "" || o.stmt.anew {
				if err := c.bind.Decode(frame[pg.HeaderSize:]); err == nil { // it was decoded before
					c.toServer = pg.AppendBindRenamed(c.toServer, &c.bind, name)
				}
			} else {
				c.toServer = append(c.toServer, frame...)
			}
			c.push(expectation{kind: 'B', stmt: o.stmt, server: name})
			continue
		case 'E':
			if o.use != nil {
				c.emitUse(o, frame)
				continue
			}
		case 'D':
			if o.use != nil && o.stmt != nil {
				c.emitOuter(o.use)
				c.toServer = pg.AppendDescribe(c.toServer, 'S', "")
				c.push(expectation{kind: 'D', stmt: o.stmt, use: o.use})
				continue
			}
			if o.stmt != nil {
				name := c.emitPrepared(o.stmt)
				c.toServer = pg.AppendDescribe(c.toServer, 'S', name)
				e := expectation{kind: 'D', stmt: o.stmt, server: name}
				if name != "" && (o.stmt.shape.Params == 0 || o.stmt.shape.Result == 0) {
					e.learn = o.stmt
				}
				c.push(e)
				continue
			}
			if o.portal != nil && o.portal.shape.Result == 0 {
				c.toServer = append(c.toServer, frame...)
				c.push(expectation{kind: 'D', learn: o.portal})
				continue
			}
		}
		c.toServer = append(c.toServer, frame...)
		c.push(expectation{kind: o.typ, plan: o.plan, use: o.use, sets: o.sets})
	}
	switch {
	case c.seg.sync:
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S'})
	case !c.seg.runs && !c.serverOpen && c.status == 'I':
		// Only prepared and described: end it here, so that what is bound later may go to another shard.
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S', quietZ: true})
	default:
		c.toServer = pg.AppendFlush(c.toServer)
		c.serverOpen = true
	}
}

// emitParse prepares s on the server connection, or answers for it if it is prepared there already. Hidden: the client has
// its ParseComplete.
func (c *core) emitParse(s *statement, hidden bool) {
	name := c.serverName(s)
	switch {
	case name == "":
		c.srv.Unnamed = s.id
	case c.srv.Prepared.Has(name):
		// Prepared before its tables were changed, perhaps: the client's Parse means them as they are now.
		c.unprepare(name)
		c.srv.Prepared.Add(name)
	default:
		c.makeRoom(1)
		c.srv.Prepared.Add(name)
	}
	if s.tail != "" {
		c.emitPrepare(s, name)
		return
	}
	c.toServer = pg.AppendParse(c.toServer, name, s.sql, s.oids)
	c.push(expectation{kind: 'P', quiet: hidden, stmt: s, server: name, makes: name})
}

// makeRoom closes statements of the server connection, those first that were not used for longest, so that n more can be
// prepared.
func (c *core) makeRoom(n int) {
	for c.srv.Prepared.Len() > 0 && c.srv.Prepared.Len() > c.srv.PreparedLimit()-n {
		c.unprepare(c.srv.Prepared.Oldest())
	}
}

// unprepare closes a statement of the server connection.
func (c *core) unprepare(name string) {
	c.srv.Prepared.Remove(name)
	c.toServer = pg.AppendClose(c.toServer, 'S', name)
	c.push(expectation{kind: 'C', quiet: true, closed: name})
}

// emitPrepared makes sure that s is prepared on the server connection, and returns its name there.
func (c *core) emitPrepared(s *statement) string {
	name := c.serverName(s)
	if name == "" && c.srv.Unnamed != s.id || name != "" && !c.srv.Prepared.Has(name) {
		c.emitParse(s, true)
	}
	return name
}

// failExtended answers the segment in hand with an error of the node's own. Nothing of it was sent.
func (c *core) failExtended(e *pg.Error) {
	c.undoFrom(0)
	c.undoChannels()
	c.undoHints()
	c.out = pg.AppendError(c.out, e)
	sync := c.seg.sync
	c.dropOps()
	if c.onServer() || c.serverOpen {
		c.abortServer()
		c.serverOpen = true
		c.skip = true
		if sync {
			c.emptySegment(true)
		} else {
			c.toServer = pg.AppendFlush(c.toServer)
		}
		return
	}
	if c.tx.open {
		c.tx.failed = true
	}
	c.skip = true
	if sync {
		c.emptySegment(true)
	}
}

// undoFrom takes back what the segment in hand has changed in the client's registry, from the n-th change on.
func (c *core) undoFrom(n int) {
	for i := len(c.seg.undo) - 1; i >= n; i-- {
		ch := c.seg.undo[i]
		if ch.removed {
			c.stmts.put(ch.stmt)
		} else {
			c.stmts.remove(ch.stmt)
		}
	}
	c.seg.undo = c.seg.undo[:min(n, len(c.seg.undo))]
}
