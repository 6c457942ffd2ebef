package wire

import (
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// enforce brings settings into force on the server connection, on its own, and waits for that: a statement must never run under the settings of
// somebody else. spares: see spare.
func (c *core) enforce(sql string, spares bool) {
	c.toServer = pg.AppendQuery(c.toServer, behindReset(c.srv, unclean(c.srv, c.id), sql))
	c.push(expectation{kind: 'Q', quiet: true, settings: true, spares: spares})
}

// enforced follows that: the request itself goes now, or there is an error for it.
func (c *core) enforced(spares bool) {
	left := unclean(c.srv, c.id)
	if c.lastErr == nil {
		applied := c.wanted().print
		if spares {
			applied = stale
		}
		cleaned(c.srv, left, applied)
		if !spares && c.wanted().strays(c.implied, c.srv.Params) {
			c.insist()
			c.enforce(c.wanted().print, false)
			return
		}
		c.alignParams()
		c.outMark = len(c.out)
		c.emit()
		return
	}
	err := asError(c.lastErr)
	c.lastErr, c.srv.Applied = nil, stale // all of it was undone
	if rest, ok := c.spare(); ok && !spares {
		c.enforce(rest.print, true)
		return
	}
	c.broken = left // what could not be undone of what takes away what was left is not known
	c.failOff(err)
}

// spare returns the settings without those that the request in hand takes away by itself, where the server refuses one of them: a role may have been
// dropped since, and RESET ROLE must still be able to give it up. False: it takes nothing away, or does so among other statements.
func (c *core) spare() (rest settings, ok bool) {
	plan := c.lone()
	if plan == nil || c.tx.open || c.ownConn {
		return rest, false
	}
	if plan.Session == sqlkey.SessReset { // RESET ALL leaves the role. It needs none, and what comes next does not find it in force
		return settings{}, true
	}
	if plan.Session != sqlkey.SessSet {
		return rest, false
	}
	if rest = c.settings.without(plan.Setting); plan.Setting == "session_authorization" {
		rest = rest.without("role") // which begins anew
	}
	return rest, len(rest.list) < len(c.settings.list)
}

// lone is the plan of the request in hand if it is one statement and ends there; else nil.
func (c *core) lone() *sqlkey.Plan {
	plan := c.plan
	switch {
	case c.kind == 'Q' && plan != nil && plan.Statements == 1 && plan.Parts == nil:
		return plan
	case c.kind != 'S' || !c.seg.sync:
		return nil
	}
	plan = nil
	runs := 0
	for i := range c.ops {
		o := &c.ops[i]
		if o.typ == 'E' {
			runs++
		}
		if o.plan == nil {
			continue
		}
		if plan != nil && plan != o.plan {
			return nil
		}
		plan = o.plan
	}
	if runs > 1 {
		return nil
	}
	return plan
}
