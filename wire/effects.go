package wire

import "rangefinder/wire/sqlkey"

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
		c.changedBehind()
		c.nothingPrepared()
		c.srv.Unnamed = 0
		if !c.seg.opaque {
			c.srv.Left = 0
		}
		if c.unpin(); c.seg.pin != "" { // what is behind it in the same pipeline needs the connection anew
			c.pin(c.seg.remain, c.seg.pin)
			c.makes()
		}
		c.dropChannels()
		c.fixAll()
	}
}

// nothingPrepared follows a statement that takes away all that is prepared on the server connection. What was noted when it was sent
// behind that statement is still to come.
func (c *core) nothingPrepared() {
	c.srv.Prepared.Clear()
	for i := c.expectOff + 1; i < len(c.expect); i++ {
		switch e := &c.expect[i]; {
		case e.closed != "":
			c.srv.Prepared.Remove(e.closed)
		case e.makes != "":
			c.srv.Prepared.Add(e.makes)
		}
	}
}

// changedBehind makes those changes in the client's registry again that are of messages behind the one that is answered now, which has
// taken all away.
func (c *core) changedBehind() {
	if c.kind != 'S' || !c.waiting() {
		return
	}
	for _, ch := range c.seg.undo[min(c.head().changes, len(c.seg.undo)):] {
		if ch.removed {
			c.stmts.remove(ch.stmt)
		} else {
			c.stmts.put(ch.stmt)
		}
	}
}
