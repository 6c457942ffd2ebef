package wire

import (
	"slices"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// segment is what is known of the messages up to a Sync or Flush once they are planned; of a simple Query likewise.
type segment struct {
	sync     bool           // it ends in a Sync, not in a Flush
	read     bool           // plain reads only
	wrote    bool           // something in it may write
	changes  bool           // and not just for where it has to run
	sets     bool           // something in it changes the session's settings
	opens    bool           // it opens the client's transaction block on the server
	pin      string         // why something in it needs the connection to be kept
	remain   sqlkey.Remains // what may remain of it on the server
	makes    []*sqlkey.Plan // of what makes, or takes away, what may be the session's own; see sqlkey.Plan.Made
	asks     string         // why the server is to be asked what remains of it; "": it need not be
	opaque   bool           // something in it may have set what nobody can see
	commits  bool           // something in it may have committed when it fails
	chains   bool           // something in it ends a transaction with AND CHAIN
	chained  bool           // and nothing in it comes after that
	frees    bool           // something in it may take that away
	notifies int            // statements in it that send notifications
	retry    bool           // may be sent to another backend if this one dies before anything reached the client
	again    bool           // may be sent again if an error proves that nothing of it has run
	server   bool           // something in it must go to a server
	runs     bool           // something in it is executed or bound, not just prepared
	keeps    bool           // a portal that it binds may be executed by a later segment
	bound    bool           // it has bound a portal that it has not run to its end yet
	moved    bool           // something in it may change what the texts behind it mean
	apart    bool           // it is the part of a segment before such texts, and sent with a Sync of its own; see cut
	ends     bool           // it has ended the transaction block that it began in
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
	was     *statement // the unnamed one before it, if stmt is unnamed
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
	if c.unheard(sync) {
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
		if c.seg.moved && c.readsText(&c.ops[i]) {
			c.cut(i, sync)
			sync = false
			break
		}
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
			if o := &c.ops[i]; o.typ == 'E' && o.plan != nil && o.plan.Tx == sqlkey.TxBegin {
				c.out = append(c.out, o.answer...) // its warning
			}
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

// cut ends the segment before its i-th message, for what that means depends on what the server makes of those before it: a search_path
// that they set, say. The rest is read again behind their answers. Where it can, what is before ends in a Sync that the client does not hear
// of, so that the rest may go to another shard; if that fails, what has been set is taken back, as it was one transaction for the client.
func (c *core) cut(i int, sync bool) {
	rest := append([]byte{}, c.batch[c.ops[i].start:]...)
	if rest = pg.AppendFlush(rest); sync {
		rest = pg.AppendSync(rest[:len(rest)-pg.HeaderSize])
	}
	c.in, c.inOff = append(rest, c.in[c.inOff:]...), 0
	c.batch, c.ops = c.batch[:c.ops[i].start], c.ops[:i]
	c.seg.sync = false
	tied := c.ownConn || c.pinned != "" || c.seg.pin != "" // the rest goes to the same connection, where nobody takes back what has been set
	last := c.ops[i-1].plan
	ended := last != nil && (last.Tx == sqlkey.TxCommit || last.Tx == sqlkey.TxRollback) && !last.Chain // the rest is in another transaction
	c.seg.apart = !tied && !c.seg.keeps && !c.seg.bound && !c.serverOpen && (c.seg.read || ended || c.onServer() && !c.scratch)
}

// readsText reports whether a message has a statement's text read, by the node or by a server.
func (c *core) readsText(o *op) bool {
	return o.typ == 'P' || o.typ == 'B' || o.typ == 'D' && o.end > o.start+pg.HeaderSize && c.batch[o.start+pg.HeaderSize] == pg.KindStatement
}

// movesMeaning reports whether a statement that runs on a server may change what the texts behind it mean.
func (c *core) movesMeaning(plan *sqlkey.Plan, sets *[]assigned) bool {
	switch plan.Tx {
	case sqlkey.TxNone:
	case sqlkey.TxCommit, sqlkey.TxRollback, sqlkey.TxRollbackTo:
		return c.blockMoves() || c.blockFailed() // what is behind it may belong elsewhere, where a failed block cannot be carried to
	default:
		return c.movesTexts(plan.Setting)
	}
	switch {
	case plan.Session == sqlkey.SessReset:
		c.seg.keeps = c.seg.keeps || plan.Setting != "DISCARD ALL" && slices.ContainsFunc(c.settings.list, func(x setting) bool { // as movesTexts
			was, _ := c.base.get(x.name)
			return x != was && reportable(x.name) && !movesNames(x.name)
		})
		return true
	case len(plan.Sets) > 0:
		return sets == nil || slices.ContainsFunc(*sets, func(x assigned) bool {
			c.seg.keeps = c.seg.keeps || x.local && !c.tx.open && !c.onServer() // else it would end with a Sync of its own
			return c.movesTexts(x.name)
		})
	case plan.Session == sqlkey.SessSet:
		return c.movesTexts(plan.Setting)
	}
	return false
}

// movesTexts reports whether a parameter decides where a text belongs. Of those that clients are told of at their Sync, what is behind goes to the
// same server: so they are told then.
func (c *core) movesTexts(name string) bool {
	told := name == "standard_conforming_strings" || name == "client_encoding"
	c.seg.keeps = c.seg.keeps || told
	return told || movesNames(name)
}

// blockMoves reports whether the end of the session's transaction may change what texts mean, for something has been set in it.
func (c *core) blockMoves() bool {
	return len(c.settings.local) > 0 || c.tx.locals != "" || c.carried || (c.tx.inServer || c.tx.open) && !c.settings.sameNames(c.tx.saved)
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
	case c.tx.open && (c.seg.keeps || c.seg.bound || !sync && !c.seg.apart):
		// What it leaves behind lives in the client's transaction: that must be open where the portal is.
		c.seg.opens, n.write = true, n.write || !c.tx.readOnly
	case !sync && !c.seg.apart && c.srv == nil:
		n.write = true // what comes before the Sync runs on the same server, and may write
	}
	if n.slot == nil && c.srv == nil && c.seg.home != nil {
		n.slot = c.homeOf(c.seg.home)
	}
	c.routed()
	c.dispatch(n)
}

// answerOps gives the client the answers to messages that the node answers. What it has been told stands, whatever comes behind.
func (c *core) answerOps(ops []op) {
	for i := range ops {
		c.out = append(c.out, ops[i].answer...)
	}
	c.seg.undo = c.seg.undo[:0]
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

// failExtended answers the segment in hand with an error of the node's own. Nothing of it was sent.
func (c *core) failExtended(e *pg.Error) {
	c.undoFrom(0)
	if c.status == 'I' && !c.serverOpen {
		if c.carried {
			c.recall()
		}
		c.settings = c.uncarried()
	}
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
			continue
		}
		if c.stmts.remove(ch.stmt); ch.was != nil && c.stmts.unnamed == nil {
			c.stmts.unnamed = ch.was
		}
	}
	c.seg.undo = c.seg.undo[:min(n, len(c.seg.undo))]
}
