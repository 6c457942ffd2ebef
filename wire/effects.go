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
		c.srv.Prepared.Clear()
		c.srv.Unnamed, c.srv.Left = 0, 0
		c.unpin()
		c.dropChannels()
		c.fixAll()
	}
}
