package wire

import (
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// GRANT, COMMENT and ALTER TABLE name tables, views and sequences alike. A table of no keyspace is on the home shard alone, and a session that is tied to its
// connection there may alter it; views, sequences and whatever else may be on all shards, of which such a session reaches one. Which of them a name
// means only a server can tell, so it is asked, before the request is sent.

// perhapsLocal reports whether a statement may be about what is on the session's own connection, or on its shard alone. In the midst of an implicit
// transaction that cannot be asked.
func (c *core) perhapsLocal(plan *sqlkey.Plan) bool {
	f := plan.Fan
	return f.Local && f.Probe != "" && !c.serverOpen && (c.remains&sqlkey.RemainTemp != 0 || c.srvShard == f.Home)
}

// asksLocal asks the server of each statement of the request that is sent there as a local one. It reports whether there is any.
func (c *core) asksLocal() bool {
	c.unlocal = 0
	if c.pinned == "" {
		return false
	}
	if c.kind == 'Q' {
		c.askLocal(c.plan)
	} else if c.kind == 'S' {
		for i := range c.ops {
			if s := c.ops[i].stmt; s != nil && c.ops[i].typ == 'E' && !c.ops[i].virtual && c.ops[i].fail == nil {
				c.askLocal(s.plan)
			}
		}
	}
	return c.unlocal > 0
}

func (c *core) askLocal(plan *sqlkey.Plan) {
	if plan == nil || plan.Target != sqlkey.Many || !plan.Fan.Local || c.itsOwn(plan.Fan.Names) {
		return
	}
	c.unlocal++
	c.toServer = pg.AppendQuery(c.toServer, plan.Fan.Probe)
	own := sqlkey.ProbeOwn
	if c.srvShard == plan.Fan.Home {
		own += sqlkey.ProbeTable
	}
	c.push(expectation{kind: 'Q', quiet: true, quietZ: true, ours: true, local: own})
	c.srv.Unnamed = 0
}

// localRow takes the server's answer.
func (c *core) localRow(body []byte) error {
	values, err := pg.DecodeDataRow(body)
	if err != nil {
		return err
	}
	if len(values) == 1 && len(values[0]) > 0 && strings.Trim(string(values[0]), c.head().local) == "" {
		c.unlocal--
	}
	return nil
}

// notLocal is the error for a statement that is about something else.
func (c *core) notLocal() *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the statement may concern several shards, but this session is tied to "+c.srvShard).
		WithDetail("What it names is no table of that shard alone, and no temporary one. The session is tied to its connection: " + c.pinned + ".").
		WithHint("Run it in another session: there it changes all shards that have it, in one transaction.")
}
