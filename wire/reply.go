package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// expectation is one message sent to the server whose answer is due. Answers come in the order of the messages.
type expectation struct {
	kind     byte // the message's type; synthetic: none was sent, the node answers in its turn
	quiet    bool // the client did not ask: its answer stops here
	quietZ   bool // so does the ReadyForQuery
	begin    bool // the client's transaction block is being opened
	settings bool // the session's settings are being brought into force
	remains  bool // the router's own question: what remains of the session on the server
	ours     bool // the router asked for it on its own: that it fails is nobody\'s error
	doubt    bool // the router could not read the text: if the server can, it must not run
	stmt     *statement
	server   string     // stmt's name on the server
	makes    string     // the name of a statement that the server has once this is answered
	closed   string     // the name of a statement that it has no more then
	learn    *statement // whose shape the answer tells
	ahead    bool       // it was sent before the request itself: see lookAhead
	columns  bool       // of a Query: the statement in hand has rows, as the server has said
	ended    bool       // of a Query: one of its statements has come to an end
	use      *use       // what the text of a PREPARE or EXECUTE names
	names    bool       // a Query that names prepared statements: see core.uses
	plan     *sqlkey.Plan
	part     int        // of plan.Parts, whose turn it is
	sets     []assigned // what it sets by set_config, told by its arguments
	synth    []byte
	changes  int       // see op
	fail     *pg.Error // the node's error, for which the server is made to raise one
}

const synthetic = 0

// maxServerFrame bounds the server frames that must be whole before they are read; rows and COPY data need not be.
const maxServerFrame = 16 << 20

func (c *core) push(e expectation) {
	e.changes = c.changes
	if c.expectOff == len(c.expect) {
		c.expect, c.expectOff = c.expect[:0], 0
		if e.kind == synthetic {
			c.out = append(c.out, e.synth...)
			return
		}
	}
	c.expect = append(c.expect, e)
}

func (c *core) head() *expectation {
	if !c.waiting() {
		return nil
	}
	return &c.expect[c.expectOff]
}

// pop ends the first expectation and answers those behind it that are the node's to answer.
func (c *core) pop() {
	c.expectOff++
	for c.waiting() && c.expect[c.expectOff].kind == synthetic {
		c.out = append(c.out, c.expect[c.expectOff].synth...)
		c.expectOff++
	}
	if !c.waiting() {
		clear(c.expect) // drop the pointers
		c.expect, c.expectOff = c.expect[:0], 0
		if !c.redo && !c.retrying && !c.unsent() {
			c.dropOps()
		}
	}
}

// serverRead takes bytes from the server connection. An error means that they are not PostgreSQL's protocol.
func (c *core) serverRead(p []byte) error {
	if len(c.srvIn) > 0 {
		c.srvIn = append(c.srvIn, p...)
		p = c.srvIn
	}
	for len(p) > 0 {
		if c.passing > 0 {
			n := min(c.passing, len(p))
			if !c.passHide {
				c.out = append(c.out, p[:n]...)
			}
			c.passing -= n
			p = p[n:]
			if c.passing == 0 && c.popAfter {
				c.popAfter = false
				c.pop()
			}
			continue
		}
		if len(p) < pg.HeaderSize {
			break
		}
		size := int(uint32(p[1])<<24|uint32(p[2])<<16|uint32(p[3])<<8|uint32(p[4])) + 1
		if size < pg.HeaderSize || size > 1<<30+pg.HeaderSize {
			return fmt.Errorf("frame of type %q with length %d", p[0], size-1)
		}
		switch p[0] {
		case 'D', 'd', 'T', 't', 'V':
			whole, err := c.streamed(p[0])
			if err != nil {
				return err
			}
			if !whole {
				c.said()
				c.passing = size
				continue
			}
		}
		if size > maxServerFrame {
			return fmt.Errorf("frame of type %q with length %d", p[0], size-1)
		}
		if len(p) < size {
			break
		}
		c.said()
		if err := c.serverFrame(p[0], p[:size]); err != nil {
			return err
		}
		p = p[size:]
		if c.srv == nil || c.broken {
			break
		}
	}
	c.srvIn = append(c.srvIn[:0], p...)
	return nil
}

// streamed handles the header of a frame whose body nobody here needs to read. It returns true if somebody does: then the frame is
// needed whole.
func (c *core) streamed(typ byte) (whole bool, err error) {
	h := c.head()
	if h == nil || !h.takes(typ) {
		return false, c.unasked(typ)
	}
	if h.remains && typ == 'D' || h.learn != nil && (typ == 'T' || typ == 't') {
		return true, nil
	}
	c.passHide = h.quiet || c.redo
	// The frame's last byte ends what was asked for; answers of the node's come behind it.
	c.popAfter = typ == 'T' && h.kind == 'D'
	return false, nil
}

// takes reports whether a frame of that type may be part of the answer. What a server has said unasked before lies in front of the
// answer, and would be taken for its beginning: then everybody would get the answer of whoever had the connection before. No server
// that is in order does that, and a whole answer too many cannot be told from the right one; all else can.
func (e *expectation) takes(typ byte) bool {
	switch typ {
	case 'T':
		e.columns = true
		return e.kind == 'Q' || e.kind == 'D'
	case 'D':
		return e.kind == 'E' || e.columns
	case 'd':
		return e.kind == 'E' || e.kind == 'Q'
	case 't':
		return e.kind == 'D'
	case 'V':
		return e.kind == 'F'
	}
	return true
}

// unasked is the error for a frame that has no place.
func (c *core) unasked(typ byte) error {
	if h := c.head(); h != nil {
		return fmt.Errorf("frame of type %q as the answer to %q", typ, h.kind)
	}
	return fmt.Errorf("frame of type %q that nobody asked for", typ)
}

// serverFrame handles one whole frame.
func (c *core) serverFrame(typ byte, frame []byte) error {
	h := c.head()
	body := frame[pg.HeaderSize:]
	switch typ {
	case 'S':
		return c.parameterStatus(body, h)
	case 'N', 'A':
		switch {
		case h != nil && h.quiet:
		case typ == 'N' && parts(body):
			c.parting = append(c.parting, frame...)
		default:
			c.out = append(c.out, frame...)
		}
		return nil
	case 'E':
		return c.serverError(frame, body)
	}
	if h == nil && typ == 'Z' && c.looseSync {
		c.looseSync, c.skip = false, false
		c.push(expectation{kind: 'S'})
		h = c.head()
	}
	if h == nil {
		return c.unasked(typ)
	}
	quiet := h.quiet || c.redo
	if h.learn != nil && (typ == 't' || typ == 'T' || typ == 'n') {
		if err := c.described(h, typ, body); err != nil {
			return err
		}
	}
	switch typ {
	case 'Z':
		return c.readyForQuery(body, h)
	case 'D':
		return c.remainsRow(body)
	case 'C':
		if h.kind != 'Q' && h.kind != 'E' {
			return c.unasked(typ)
		}
		h.columns, h.ended = false, true
		c.lastTag = append(c.lastTag[:0], pg.CommandTag(body)...)
		c.doubt = c.doubt || c.pinned != "" && string(c.lastTag) == "ROLLBACK"
		c.defined(h.plan)
		if h.plan != nil && !h.quiet {
			if h.kind == 'E' {
				c.used(h.plan, pg.TagRows(c.lastTag))
			} else {
				c.rows += pg.TagRows(c.lastTag)
			}
			if parts := h.plan.Parts; parts == nil {
				c.sessionDone(h.plan, h.sets)
			} else if h.part < len(parts) {
				c.partDone(parts[h.part])
				h.part++
			}
		}
		if string(c.lastTag) == "DEALLOCATE ALL" { // among other statements: see deallocate
			c.srv.Prepared.Clear()
			if !h.names {
				c.stmts.clearNamed()
			}
		}
		if h.names {
			c.nameDone()
		}
		if !quiet {
			c.out = append(c.out, frame...)
		}
		if h.kind == 'E' {
			c.looseSync = false
			c.pop()
		}
		return nil
	case 'G':
		if quiet {
			return fmt.Errorf("COPY that nobody asked for")
		}
		c.copyIn, c.copied, c.copyExt = true, true, h.kind == 'E'
		if c.copyExt && c.expectOff+1 < len(c.expect) && c.expect[c.expectOff+1].kind == 'S' {
			// The server ignores a Sync while it takes COPY data; the client sends another behind it.
			c.expect = append(c.expect[:c.expectOff+1], c.expect[c.expectOff+2:]...)
			c.looseSync = true
		}
		c.seg.retry = false
	case 'W':
		return fmt.Errorf("replication data")
	}
	switch {
	case h.doubt:
		c.out = pg.AppendError(c.out, notUnderstood())
	case !quiet:
		c.out = append(c.out, frame...)
	}
	switch {
	case typ == 't' && h.learn != nil:
	case typ == 'T' && h.learn != nil, typ == '1' && h.kind == 'P', typ == '2' && h.kind == 'B', typ == '3' && h.kind == 'C', typ == 'n' && h.kind == 'D':
		c.pop()
	case (typ == 'I' || typ == 's') && h.kind == 'E':
		c.pop()
	case (typ == 'I' || typ == 'K' || typ == 'n') && h.kind == 'Q':
		h.ended = true
	case typ == 'G', typ == 'H', typ == 'c':
	default:
		return c.unasked(typ)
	}
	return nil
}

// hiddenParams are reported by servers and mean nothing to a client that may be on another server with its next statement.
func hiddenParam(name string) bool { return name == "in_hot_standby" }

func (c *core) parameterStatus(body []byte, h *expectation) error {
	name, value, err := pg.DecodeParameterStatus(body)
	if err != nil {
		return err
	}
	c.srv.Params[name] = value
	if h == nil || !h.settings {
		c.reported(name)
	}
	if hiddenParam(name) || h != nil && h.settings || c.params.get(name) == value {
		return nil
	}
	if x, ok := c.base.get(sqlkey.LowerASCII(name)); ok && c.hushed {
		value = x.value // what the session has begun with is its default
	}
	c.tell(name, value)
	return nil
}

// tell has the client know a parameter's value. A block that no server has opened, and that is rolled back, takes it back: see untell.
func (c *core) tell(name, value string) {
	was := c.params.get(name)
	if was == value {
		return
	}
	if _, ok := c.tx.told[name]; c.tx.open && !ok {
		if c.tx.told == nil {
			c.tx.told = make(map[string]string)
		}
		c.tx.told[name] = was
	}
	c.params.set(name, value)
	c.out = pg.AppendParameterStatus(c.out, name, value)
}

// alignParams tells the client of parameters that differ on this server connection from what the client was told last.
func (c *core) alignParams() {
	for name, was := range c.params.all() {
		if now, ok := c.srv.Params[name]; ok && now != was && !hiddenParam(name) && name != "server_version" {
			c.tell(name, now)
		}
	}
}

func (c *core) readyForQuery(body []byte, h *expectation) error {
	status, err := pg.DecodeReady(body)
	if err != nil {
		return err
	}
	if h.kind != 'S' && h.kind != 'F' && (h.kind != 'Q' || !h.ended) {
		return fmt.Errorf("ReadyForQuery as the answer to %q", h.kind)
	}
	e := *h
	c.statusChanged(status)
	if e.settings { // it was all that was sent: the request itself comes now
		c.expect, c.expectOff = c.expect[:0], 0
		if c.lastErr != nil {
			err := asError(c.lastErr)
			c.lastErr, c.broken = nil, true
			c.failOff(err)
			return nil
		}
		c.srv.Applied = c.wanted().print
		c.alignParams()
		c.outMark = len(c.out)
		c.emit()
		return nil
	}
	if e.ahead {
		c.lookedAhead()
		return nil
	}
	c.hushed = false
	if c.redo {
		c.out = c.out[:c.outMark]
		c.expect, c.expectOff = c.expect[:0], 0
		return nil
	}
	if e.remains {
		c.pop()
		return nil
	}
	notified := c.notified && status == 'I'
	if status == 'I' && (len(c.reports) > 0 || len(c.explains) > 0 || c.explained) {
		c.takeOver(string(c.lastTag) != "ROLLBACK")
	}
	if status == 'I' && c.asks != "" {
		c.pin(0, c.asks)
		c.asks, c.doubt = "", true
	}
	if notified {
		if c.notified = false; string(c.lastTag) == "ROLLBACK" {
			c.srv.NotNotified(c.pid)
			notified = false
		}
	}
	c.tally.answered(status, !e.quietZ)
	if status == 'I' && len(c.crossed) > 0 {
		c.leaveRanges()
	}
	if e.kind == 'Q' && e.plan != nil && !c.erred {
		c.used(e.plan, c.rows)
	}
	if c.ownConn && c.need.slot != nil && c.pinned == "" && c.coordinator == nil {
		c.pin(sqlkey.RemainUnknown, pinOfMode)
	}
	if !e.quietZ {
		if status == 'I' {
			if status = c.virtualStatus(); status == 'I' {
				c.endChannels()
			}
		}
		if notified && status == 'I' && c.lis != nil && len(c.lis.heard) > 0 && c.coordinator == nil {
			c.lis.barrier = c.srvShard // what it has sent itself it is told before, as PostgreSQL does
		} else if status == 'I' && c.settles() {
			c.settling = true
		} else {
			c.out = pg.AppendReady(c.out, status)
		}
	}
	c.pop()
	return nil
}

// failOff answers the request in hand with an error while its connection is about to be closed, outside any transaction.
func (c *core) failOff(e *pg.Error) {
	c.status, c.serverOpen = 'I', false
	c.fail(e)
}

// serverError handles an ErrorResponse.
func (c *core) serverError(frame, body []byte) error {
	e, err := pg.DecodeError(body)
	if err != nil {
		return err
	}
	if e.Severity == "FATAL" || e.Severity == "PANIC" {
		c.fatal = e // the connection ends; serverLost says what that means for the client
		return errors.New(e.Message)
	}
	h := c.head()
	if h == nil {
		return fmt.Errorf("an error that nobody asked for: %s", e.Message)
	}
	h.ended = true
	if h.ours {
		return nil // all stays as it was
	}
	if c.copyIn && c.copyExt {
		c.serverOpen = true // it discards what comes before a Sync
		c.worn = c.looseSync
	}
	c.copyIn = false
	c.doubt = c.pinned != "" // what was to remain may be undone
	c.failChannels()
	c.lastTag = append(c.lastTag[:0], "ROLLBACK"...)
	if h.fail == nil {
		c.backendError(e.Code)
	}
	if e.Code == pg.CodeReadOnlyTransaction && c.need.write && c.srv.Params["in_hot_standby"] != "off" {
		c.env.recheck(c.srv.Backend.Name) // a read-only transaction on a primary says the same
	}
	switch {
	case h.fail != nil && !h.quiet:
		c.env.metrics.Refused(h.fail.Code)
		frame = pg.AppendError(nil, h.fail)
	case h.settings:
		c.lastErr = e
		return nil
	case h.begin && h.kind != 'Q':
		c.tx.unopened = true
		c.out = append(c.out, frame...)
		if c.kind != 'S' {
			c.discarded()
			return nil
		}
	case h.begin:
		// The block could not be opened: this error is the answer, and what follows it is not.
		c.tx.failed = c.tx.open
		c.out = append(c.out, frame...)
		for i := c.expectOff + 1; i < len(c.expect); i++ {
			c.expect[i].quiet = true
			if c.expect[i].kind == synthetic {
				c.expect[i].synth = nil
			}
		}
		return nil
	case e.Code == codeFenced && c.refence(h): // nothing took effect: it is run again where the row belongs by then
	case e.Code == codeFenced && c.seg.commits && c.status == 'I' && !c.seg.opens:
		e = fencedBehind(e)
		frame = pg.AppendError(nil, e)
	case e.Code == codeFenced:
		e = fencedWithin(e)
		frame = pg.AppendError(nil, e)
	case e.Code == pg.CodeReadOnlyTransaction && c.seg.retry && !c.flushed && !c.need.write:
		c.redo = true // it was no plain read after all: nothing took effect, so the primary may have it
	case h.names && outdated(e) && c.heldBefore(c.uses):
		c.worn = true
		c.redo = c.seg.again && !c.flushed && c.plan.Statements == 1
	case h.use != nil && outdated(e) && c.heldBefore([]use{*h.use}):
		c.worn = true
		c.redo = c.seg.again && !c.flushed && !c.answered('E', "") && (h.kind == 'D' || c.parsedHere(h.use.outer))
	case h.server != "" && h.makes == "" && outdated(e) && !c.answered('P', h.server):
		// It was prepared on this connection before its tables were changed.
		c.worn = true
		c.redo = c.seg.again && !c.flushed && !c.answered('E', "") && (h.kind == 'D' || c.parsedHere(h.stmt))
	}
	switch {
	case h.server != "":
		frame = renamed(frame, h.server, h.stmt.name)
		if at, err := strconv.Atoi(e.Position); err == nil && h.stmt.tail != "" {
			e.Message = strings.ReplaceAll(e.Message, h.server, h.stmt.name)
			frame = pg.AppendError(nil, e.WithPosition(at-h.stmt.shift(h.server)))
		}
	case h.use != nil:
		frame = pg.AppendError(nil, c.inClientNames(e, h.use.outer.sql, []use{*h.use}, 0))
	case h.names:
		frame = pg.AppendError(nil, c.inClientNames(e, c.plan.SQL, c.uses, c.completed))
		if !c.redo {
			c.undoNames()
		}
	}
	if c.status == 'I' {
		c.settings.hints, c.settings.made = c.unsynced.hints, c.unsynced.made
	}
	if c.status == 'I' && c.settings.print != c.unsynced.print {
		c.settings, c.srv.Applied = c.unsynced, stale // it was one transaction
	}
	if !h.quiet && !c.redo && h.fail == nil {
		c.misused(h)
	}
	if (!h.quiet || h.stmt != nil) && !c.redo { // what is prepared unasked is asked for by what comes behind it
		c.out = append(c.out, frame...)
		if c.tx.open {
			c.tx.failed = true
		}
	}
	if h.kind == 'Q' || h.kind == 'F' {
		return nil
	}
	if c.kind != 'S' && h.stmt != nil {
		c.undoFrom(0)
		c.discarded()
		return nil
	}
	// The server discards up to the Sync.
	if !c.redo {
		c.undoFrom(h.changes)
	}
	end := c.expectOff
	for end < len(c.expect) && c.expect[end].kind != 'S' {
		end++
	}
	c.dropUntil(end)
	if c.redo {
		if !c.waiting() {
			c.toServer = pg.AppendSync(c.toServer)
			c.push(expectation{kind: 'S', quiet: true})
		}
		return nil
	}
	if !c.waiting() || c.expect[c.expectOff].quietZ {
		c.skip = true
	}
	if !c.waiting() {
		c.expect, c.expectOff = c.expect[:0], 0
		c.dropOps()
	}
	return nil
}

// dropUntil takes back what was noted for the expectations before end, the last first: one may close what another prepares again.
func (c *core) dropUntil(end int) {
	for i := end - 1; i >= c.expectOff; i-- {
		c.dropped(&c.expect[i])
	}
	c.expectOff = end
}

// dropped takes back what was noted of the connection when the message was sent: the server has not carried it out.
func (c *core) dropped(e *expectation) {
	switch {
	case e.closed != "":
		c.srv.Prepared.Add(e.closed)
	case e.makes != "":
		c.srv.Prepared.Remove(e.makes)
	case e.kind == 'P' && e.stmt != nil:
		c.srv.Unnamed = 0
	}
}

// discarded follows an error before the Query or FunctionCall in hand, which the server discards as well. It has no Sync of its
// own.
func (c *core) discarded() {
	c.dropUntil(len(c.expect))
	c.toServer = pg.AppendSync(c.toServer)
	c.push(expectation{kind: 'S'})
}

// partDone is sessionDone for one of several statements in a text. The transaction's status is told at the text's end only.
func (c *core) partDone(plan *sqlkey.Plan) {
	c.sessionDone(plan, nil)
	switch {
	case plan.Listen != sqlkey.ListenNone: // UNLISTEN. The bound that it could meet is not for texts of a hundred statements
		_ = c.listen(plan)
	case plan.Tx == sqlkey.TxBegin:
		c.status = 'T'
	case plan.Tx == sqlkey.TxCommit && !plan.Chain, plan.Tx == sqlkey.TxRollback && !plan.Chain:
		c.status = 'I'
	}
}

// sessionDone follows what a statement that the server has carried out does to the session. sets is what it has set by
// set_config, if that was told by its arguments.
func (c *core) sessionDone(plan *sqlkey.Plan, sets []assigned) {
	switch {
	case plan.Tx != sqlkey.TxNone:
		c.txStatementDone(plan)
	case plan.MixedTx && string(c.lastTag) == "COMMIT": // a text that is not taken apart
		c.txEnded(false)
	}
	switch plan.Session {
	case sqlkey.SessSet:
		switch {
		case plan.Setting == "":
			if sets == nil {
				sets, _ = c.assign(plan, nil)
			}
			for _, x := range sets {
				c.explain(x.name)
			}
			c.setsDone(sets)
		case plan.Default:
			c.explain(plan.Setting)
			c.resetDone(plan.Setting, plan.SQL)
		default:
			c.explain(plan.Setting)
			c.setDone(plan.Setting, plan.Value, plan.SQL)
		}
	case sqlkey.SessReset:
		c.explain("")
		c.again(plan.SQL)
		c.own.reset()
		if plan.Setting != "DISCARD ALL" {
			c.resetAllDone()
			return
		}
		c.change(c.base, len(c.base.list) == 0)
		c.stmts.clear()
		c.srv.Prepared.Clear()
		c.srv.Unnamed, c.srv.Left = 0, 0
		c.unpin()
		c.dropChannels()
		c.fixAll()
	}
}

// stale marks a server connection whose settings are not known: they are set anew before it is used.
const stale = "?"
