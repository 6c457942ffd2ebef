package wire

import (
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// query handles a simple Query.
func (c *core) query(frame []byte) {
	c.kind, c.frame, c.table = 'Q', frame, c.env.fib.Load()
	c.stmts.unnamed = nil // as PostgreSQL does
	c.seg, c.uses, c.completed = segment{sync: true, read: true, undo: c.seg.undo[:0], hints: c.settings.hints}, c.uses[:0], 0
	c.begins()
	c.moves.begin()
	c.seeTypes()
	plan := c.lookupBytes(frame[pg.HeaderSize : len(frame)-1])
	if first, rest := c.endsFirst(plan, frame); first != nil {
		c.behind = rest
		c.query(first)
		return
	}
	if len(plan.Unique) > 0 {
		var e *pg.Error
		if frame, e = c.uniqueQuery(plan, frame); e != nil {
			c.fail(e)
			return
		}
		c.frame = frame
		plan = c.lookupBytes(frame[pg.HeaderSize : len(frame)-1])
	}
	c.plan = plan

	if plan.Statements == 0 && (c.srv == nil || c.tx.open && c.tx.failed) {
		c.out = append(c.out, emptyQuery...)
		c.ready()
		return
	}
	if plan.Statements > 0 {
		if e := c.refusedByState(plan); e != nil {
			c.fail(e)
			return
		}
	}
	if plan.Listen != sqlkey.ListenNone {
		c.listenQuery(plan)
		return
	}
	if plan.Own != sqlkey.OwnNone {
		c.ownQuery(plan)
		return
	}
	if plan.Tx != sqlkey.TxNone || plan.Deallocate {
		if e := c.tooLate(plan); e != nil {
			if plan.Tx == sqlkey.TxBegin {
				c.out = pg.AppendNotice(c.out, alreadyOpen())
			}
			c.fail(e)
			return
		}
		var done bool
		if c.out, done = c.virtual(c.out, plan); done {
			c.seg.undo = nil
			c.ready()
			return
		}
	}
	if len(plan.Names) > 0 && !plan.Deallocate {
		c.queryNames(plan)
		return
	}
	n, e := need{}, (*pg.Error)(nil)
	if plan.MixedTx && (plan.Target == sqlkey.Keyed || len(plan.Tables) > 0) && c.blockMoves() && len(c.catalog.Shards(c.db)) > 1 {
		e = pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed").
			WithDetail("It ends a transaction that has set the search path or the like, and names tables as well.").WithHint("Send its statements one by one.")
	} else if !plan.Syntax {
		n, e = c.route(plan, &c.values)
	}
	if e != nil {
		c.fail(e)
		return
	}
	c.account(plan)
	c.routed()
	c.dispatch(n)
}

var emptyQuery = []byte{'I', 0, 0, 0, 4}

// begins notes when a request has come.
func (c *core) begins() {
	c.came = c.env.now()
	c.served, c.told = c.came, c.came
	c.rows, c.erred, c.asked = 0, false, 1
	c.tally.asked.Store(int64(c.came))
}

// routed tells that the request in hand is about to be sent.
func (c *core) routed() {
	c.env.metrics.Routed(c.seg.reads, c.seg.writes, c.env.now()-c.came)
}

// lookupBytes plans a Query's text, which is in the session's buffer: the planner copies it if it keeps it. The plan's keys are
// made of c.values.
func (c *core) lookupBytes(sql []byte) *sqlkey.Plan {
	c.look()
	plan := c.env.planner.PlanQuery(c.catalog, &c.under, sql, &c.values)
	if plan.Apart && c.apart(plan) {
		plan = c.env.planner.PlanBytes(c.catalog, &c.under, sql)
	}
	return plan
}

// replan plans a statement if it is new, or if what its plan stands on has changed: who owns what, or the search_path.
func (c *core) replan(s *statement) {
	if c.look(); s.era != c.era {
		s.plan, s.era = c.env.planner.PlanTyped(c.catalog, &c.under, s.sql, s.oids), c.era
	}
}

// look brings what plans stand on up to date. As long as nothing has changed it is the same era.
func (c *core) look() {
	catalog := c.env.catalog(c.table)
	hint := c.settings.hints.inForce()
	under := sqlkey.Env{
		Database: c.db, SearchPath: c.searchPath(), User: c.role(),
		Backslashes: c.params.backslashes, Encoding: c.params.encoding,
		HintShard: hint.shard, HintKey: hint.key != "",
	}
	if catalog != c.catalog || under != c.under {
		c.catalog, c.under = catalog, under
		c.era++
	}
}

func notUnderstood() *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the router does not understand this statement").
		WithDetail("The server does, so it may be newer than the router's parser: where the statement belongs cannot be told.").
		WithHint("Send it to the backend itself.")
}

// opens reports whether a statement makes the client's transaction block real: all but those that could run anywhere and
// leave nothing behind. Where there is one shard, nothing is gained by waiting for a statement that tells which; and of the catalogs, transactions
// that want one snapshot have to see the same as long as they last.
func (c *core) opens(plan *sqlkey.Plan) bool {
	if !c.tx.open || c.tx.failed { // of a failed block servers see only what is no statement
		return false
	}
	harmless := plan.Target == sqlkey.Any && plan.Intent == sqlkey.Read && plan.Tx == sqlkey.TxNone &&
		(plan.Copies == nil || c.tx.plain) && // rows are seen as the block is to see them
		!(plan.Catalogs && c.tx.oneSnapshot()) && len(c.catalog.Shards(c.db)) != 1
	return !harmless && (plan.Session != sqlkey.SessSet || len(plan.Sets) > 0 && !plan.SetsOnly || len(c.tx.deferred) >= maxDeferred)
}

// repeatable reports whether a statement changes nothing but, at most, the session's settings, so that any backend can run it.
func repeatable(plan *sqlkey.Plan) bool {
	return plan.Intent == sqlkey.Read || plan.Target == sqlkey.Any && (plan.Session == sqlkey.SessSet || plan.Session == sqlkey.SessReset)
}

// account adds a statement that will run to what is known of the request.
func (c *core) account(plan *sqlkey.Plan) {
	c.seg.server, c.seg.runs = true, true
	if plan.Intent == sqlkey.Read {
		c.seg.reads++
	} else {
		c.seg.writes++
	}
	c.seg.read = c.seg.read && repeatable(plan)
	writes := !repeatable(plan) && plan.Tx == sqlkey.TxNone
	c.seg.wrote, c.seg.changes = c.seg.wrote || writes, c.seg.changes || writes && !plan.Unchanging
	c.seg.sets = c.seg.sets || plan.Session != sqlkey.SessNone || plan.Parts != nil
	c.seg.opaque = c.seg.opaque || plan.Opaque
	c.tx.shaped = c.tx.shaped || plan.Shapes()
	c.seg.commits = c.seg.commits || plan.Commits
	c.seg.chain(plan)
	opens := c.opens(plan)
	c.seg.opens = c.seg.opens || opens
	sets := plan.Session == sqlkey.SessReset || plan.Session == sqlkey.SessSet && plan.Setting != "" // by SET or RESET, which take no snapshot
	c.tx.queried = c.tx.queried || c.tx.open && !opens && !plan.Shows && !sets
	switch {
	case plan.Session != sqlkey.SessPin:
	case plan.Remains == 0:
		c.seg.asks = plan.WhyPin
	default:
		c.seg.pin, c.seg.remain = plan.WhyPin, c.seg.remain|plan.Remains
	}
	c.seg.frees = c.seg.frees || plan.Frees
	if plan.Made != "" || plan.Unmade != nil || plan.UnmadeMore {
		c.seg.makes = append(c.seg.makes, plan)
	}
	if plan.Notifies {
		c.seg.notifies++
	}
}

// refusedByState refuses what a failed transaction block must refuse.
func (c *core) refusedByState(plan *sqlkey.Plan) *pg.Error {
	if e := c.tx.lost; e != nil && plan.Tx != sqlkey.TxRollback {
		c.tx.lost = nil
		if plan.Tx == sqlkey.TxCommit {
			c.settings, c.tx = c.tx.saved, transaction{}
		}
		return e
	}
	ends := plan.Tx == sqlkey.TxCommit || plan.Tx == sqlkey.TxRollback || plan.Tx == sqlkey.TxRollbackTo // of which the server, or tooLate, knows more
	onServer := c.onServer() && c.status == 'E' && !c.seg.ends
	if ends || !onServer && (!c.tx.open || !c.tx.failed) || plan.Syntax { // which a server says first
		return nil
	}
	return pg.NewError(pg.CodeInFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
}

// ready tells the client that the node has answered its request.
func (c *core) ready() {
	status := c.virtualStatus()
	if c.onServer() {
		status = c.status
	}
	if status == 'I' {
		c.endChannels()
	}
	c.carried = false
	if c.behind == nil {
		c.tally.queries.Add(1)
	}
	c.endAnswer(status)
}

// fail answers the request in hand with an error of the node's own.
func (c *core) fail(e *pg.Error) {
	c.env.metrics.Refused(e.Code)
	c.behind = nil
	c.failChannels()
	c.locates, c.deferred, c.unlocated = location{}, deferral{}, false
	if c.kind == 'S' {
		c.failExtended(e)
		return
	}
	c.undoFrom(0)
	c.out = pg.AppendError(c.out, e)
	if c.onServer() || c.serverOpen { // the messages before it are in the same transaction
		c.abortServer()
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S'})
		return
	}
	if c.tx.open {
		c.tx.failed = true
	}
	c.ready()
}

// refusedStatement is a name that no server knows. To describe it fails, and so brings the transaction into the state that the
// client has been told of; the name is what the server's log shows.
const refusedStatement = "refused by the router"

// refuse has the node's error reach the client in its turn: behind the answers to what came before it.
func (c *core) refuse(e *pg.Error) {
	c.toServer = pg.AppendDescribe(c.toServer, 'S', refusedStatement)
	c.push(expectation{kind: 'D', fail: e})
}

// abortServer makes the server's transaction fail, as the client's has. The caller sends the Sync.
func (c *core) abortServer() {
	c.toServer = pg.AppendDescribe(c.toServer, 'S', refusedStatement)
	c.push(expectation{kind: 'D', quiet: true, fail: &pg.Error{}})
}

// functionCall handles the FunctionCall message. It names no table, and what it does is unknown: it goes where unsharded
// writes go.
func (c *core) functionCall(frame []byte) {
	c.kind, c.frame, c.table = 'F', frame, c.env.fib.Load()
	c.plan, c.seg, c.uses = nil, segment{}, c.uses[:0]
	c.begins()
	c.moves.begin()
	if c.tx.open && c.tx.failed {
		c.fail(pg.NewError(pg.CodeInFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block"))
		return
	}
	if e := c.foreignFunction(frame); e != nil {
		c.fail(e)
		return
	}
	// What the function leaves behind nobody sees: see CALL.
	c.seg = segment{sync: true, wrote: true, opens: c.tx.open, hints: c.settings.hints, opaque: true, asks: "a function called by its number", frees: true}
	c.dispatch(need{write: true})
}

// emit sends the request in hand to the server connection.
func (c *core) emit() {
	if c.seg.pin != "" {
		c.pin(c.seg.remain, c.seg.pin)
	}
	c.doubt = c.doubt || c.seg.frees && c.pinned != ""
	if c.seg.asks != "" {
		c.asks = c.seg.asks
	}
	if c.seg.opaque {
		c.srv.Left = c.id
	}
	if c.seg.wrote {
		c.tx.wrote = true
	}
	if c.seg.notifies > 0 {
		c.notifies()
	}
	if c.status == 'I' && !c.serverOpen {
		if !c.carried {
			c.unsynced, c.unsyncedIn = c.settings, c.srv.Applied
		}
		c.unsynced.hints = c.seg.hints // the node has carried out already what the request says of them
		if c.carried = c.seg.apart && !c.tx.open; c.carried {
			c.unsyncedIn = stale // the server keeps what this sets, whatever becomes of the rest
		}
	}
	c.makes()
	c.silent = true
	c.seg.again = c.status == 'I' && !c.serverOpen && !c.seg.opens && c.pinned == ""
	if c.coordinator != nil {
		c.host.see(c)
	}
	c.seg.retry = c.seg.read && c.status == 'I' && !c.serverOpen && !c.seg.opens && c.pinned == ""
	if c.coordinator != nil { // it tries again itself
		c.seg.again, c.seg.retry = false, false
	}
	if c.seg.opens && c.tx.open {
		c.openBlock()
		if len(c.tx.deferred) > 0 {
			c.explain("")
		}
		c.tx.open, c.tx.inServer, c.tx.applied = false, true, c.srv.Applied
		c.opened = c.tx.told
		c.srv.Applied = c.settings.print // what the block has set is set again in it
		c.srv.Unnamed = 0
	}
	c.scratch = c.tx.open && (c.seg.runs && !c.seg.sets && (!c.tx.plain || len(c.tx.deferred) > 0) || !c.seg.runs && c.tx.locals != "")
	if c.scratch {
		// The statement leaves nothing behind, but it may look at what the block was begun with (SHOW does).
		c.toServer = pg.AppendQuery(c.toServer, c.tx.opening())
		c.push(expectation{kind: 'Q', quiet: true, quietZ: true, begin: true})
		c.srv.Unnamed, c.seg.retry, c.seg.again = 0, false, false
	}
	if !c.lookAhead() {
		c.emitRequest()
	}
}

// emitRequest sends the request itself, when all that must go before it has gone.
func (c *core) emitRequest() {
	if c.scratch {
		defer func() {
			c.toServer = pg.AppendQuery(c.toServer, "ROLLBACK")
			c.push(expectation{kind: 'Q', quiet: true, quietZ: true})
		}()
	}
	if c.kind == 'S' {
		c.emitSegment()
		return
	}
	if c.plan != nil && c.plan.Syntax {
		// For the server's own words on what is wrong with it. A newer server may understand it: it is parsed, and not run.
		c.toServer = pg.AppendParse(c.toServer, "", c.plan.SQL, nil)
		c.push(expectation{kind: 'P', doubt: true})
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S'})
		return
	}
	if len(c.uses) > 0 {
		c.emitNames()
		return
	}
	c.toServer = append(c.toServer, c.frame...)
	c.push(expectation{kind: c.kind, plan: c.plan})
	c.srv.Unnamed = 0
}

// searchPath is the setting in force for the client, as sqlkey.Env takes it.
func (c *core) searchPath() string {
	switch {
	case len(c.settings.local) > 0:
		if x, ok := c.settings.inForce("search_path"); ok && x.value != "" {
			return x.value
		} else if ok {
			return `""`
		}
		return c.freshPath
	case !c.settings.paths:
		return c.freshPath
	case c.settings.path == "":
		return `""`
	}
	return c.settings.path
}

// role is whom "$user" in a search_path means.
func (c *core) role() string {
	role, set := c.settings.inForce("role")
	who, another := c.settings.inForce("session_authorization")
	switch {
	case set && role.value != "none" && role.value != "":
		return role.value
	case another && who.value != "none" && who.value != "":
		return who.value
	case !set && c.freshRole != "":
		return c.freshRole
	}
	return c.user
}
