package wire

import (
	"fmt"
	"slices"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// A session is tied to its server connection, pinned, as long as something of it lives there that cannot be made anew
// elsewhere. What that is the statements' plans say; that it is there no more, only the server can: so it is asked, with one
// query, when a statement may have taken something away and nothing else is under way.

// pinOfMode is the reason in databases whose connections are the sessions' own.
const pinOfMode = `pool_mode = "session"`

// mostMade bounds the names of its own objects that a session is known by. The others are looked for on all shards, which it cannot
// ask while it is tied to one: so it is told.
const mostMade = 1000

// askable is what the server can be asked for.
const askable = sqlkey.RemainLocks | sqlkey.RemainTemp | sqlkey.RemainCursors

// remainsQuery has one row of one number: the bits of what remains. It depends on neither search_path nor operators of the
// client's. All that is in a schema depends on it.
const remainsQuery = `SELECT (CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) THEN 1 ELSE 0 END)
 OPERATOR(pg_catalog.+) (CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN 2 ELSE 0 END)
 OPERATOR(pg_catalog.+) (CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 4 ELSE 0 END)`

// pin ties the session to its server connection.
func (c *core) pin(what sqlkey.Remains, why string) {
	c.remains |= what
	if c.pinned == "" {
		c.setPin(why)
	}
}

// itsOwn reports whether all that a statement names was made on the session's own connection, as a temporary view is.
func (c *core) itsOwn(names []string) bool {
	return c.pinned != "" && len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(c.settings.made, name) })
}

// makes notes what the request in hand makes that may be the session's own, and what it takes away: by their names it is known what the session
// means. It is a part of the settings: what a transaction has made ends with its rollback.
func (c *core) makes() {
	if c.pinned == "" {
		return
	}
	for _, plan := range c.seg.makes {
		list := c.settings.made
		own := !plan.Renames || c.itsOwn(plan.Unmade)
		if plan.Unmade != nil {
			list = slices.DeleteFunc(slices.Clone(list), func(name string) bool { return slices.Contains(plan.Unmade, name) })
		}
		if plan.UnmadeMore { // which of them, nobody knows
			list = nil
		}
		if plan.Made != "" && own && len(list) < mostMade {
			list = append(slices.Clip(list), plan.Made)
		}
		c.settings.made = list
	}
}

// unpin unties the session, for nothing of it remains.
func (c *core) unpin() {
	c.remains, c.doubt, c.settings.made = 0, false, nil
	c.setPin("")
	if c.ownConn && c.srv != nil {
		c.pin(sqlkey.RemainUnknown, pinOfMode)
	}
}

func (c *core) setPin(reason string) {
	if c.pinned == reason {
		return
	}
	c.pinned = reason
	if reason == "" {
		c.tally.pin.Store(nil)
		return
	}
	why := reason // the parameter itself would be allocated at every call
	c.tally.pin.Store(&why)
}

// doubts reports whether the server is to be asked what remains.
func (c *core) doubts() bool {
	return c.doubt && c.pinned != "" && c.remains&^askable == 0 && c.idleServer() && !c.broken && !c.worn && !c.redo && !c.retrying
}

// askRemains asks the server.
func (c *core) askRemains() {
	c.doubt = false
	c.changes = 0
	c.toServer = pg.AppendQuery(c.toServer, remainsQuery)
	c.push(expectation{kind: 'Q', quiet: true, quietZ: true, remains: true, ours: true})
	c.srv.Unnamed = 0
}

// remainsRow takes the server's answer.
func (c *core) remainsRow(body []byte) error {
	if len(body) < 7 { // the number of columns, one length, one digit at least
		return fmt.Errorf("an answer of %d bytes to the router's own query", len(body))
	}
	n := 0
	for _, d := range body[6:] {
		if d < '0' || d > '9' {
			return fmt.Errorf("an answer to the router's own query that is no number")
		}
		n = n*10 + int(d-'0')
	}
	was := c.remains
	c.remains = sqlkey.Remains(n) & askable
	switch {
	case c.remains == 0:
		c.unpin()
	case c.remains != was:
		c.setPin(remainsName(c.remains))
	}
	return nil
}

// remainsName is for people.
func remainsName(what sqlkey.Remains) string {
	switch {
	case what&sqlkey.RemainTemp != 0:
		return "a temporary table"
	case what&sqlkey.RemainLocks != 0:
		return "an advisory lock"
	}
	return "a cursor WITH HOLD"
}

// washable reports whether the connection of a session that ends can be cleaned for others.
func (c *core) washable() bool {
	return c.idleServer() && !c.worn && c.remains&sqlkey.RemainForever == 0 && len(c.toServer)+len(c.srvIn) == 0 && c.passing == 0
}

// washLimit bounds how long the end of a session takes for it.
const washLimit = 5 * time.Second

// wash takes away all that a session has left on a connection. Nothing may be under way there.
func wash(conn *pool.Conn) error {
	conn.Net.SetDeadline(time.Now().Add(washLimit))
	conn.Applied = stale
	if _, err := ask(conn, "DISCARD ALL"); err != nil {
		return err
	}
	conn.Prepared.Clear()
	conn.Applied, conn.Unnamed, conn.Left = "", 0, 0
	conn.Net.SetDeadline(time.Time{})
	return nil
}
