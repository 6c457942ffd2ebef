package wire

import (
	"errors"
	"math/bits"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// setHop points at the candidate whose turn it is: the first choice, then the others in their order. left must not be empty.
func (c *core) setHop() {
	i := c.first
	if c.left&(1<<i) == 0 {
		i = bits.TrailingZeros64(c.left)
	}
	if c.follows() && c.leads(&c.hops[i]) {
		c.toPrimary()
		i = 0
	}
	c.left &^= 1 << i
	c.hop = &c.hops[i]
}

// acquired takes the connection that the transport got for hop.
func (c *core) acquired(conn *pool.Conn) {
	c.wanting, c.lastErr = false, nil
	c.srv, c.srvHop, c.status = conn, c.hop, 'I'
	c.seeTypes()
	c.srvHop.Gauge.InFlight.Add(1)
	conn.Unnamed = 0 // whatever the last borrower left there
	if c.unproven(conn) {
		c.retrying = true // when it is given back
		c.slot.Wrote()
		return
	}
	if c.shuns(conn) {
		c.retrying, c.unfit, c.worn = true, true, c.worn || outgrown(conn)
		return
	}
	want := c.wanted()
	inForce := conn.Applied == want.print && !unclean(conn, c.id)
	if inForce && want.strays(c.implied, conn.Params) {
		c.insist()
		inForce = false
	}
	if !inForce {
		c.enforce(c.wanted().print, false)
		return
	}
	c.emit()
}

// wanted is what must be in force before the request in hand is sent. A block that it opens begins with what was set before it.
func (c *core) wanted() *settings {
	if c.seg.opens && c.tx.open {
		return &c.tx.saved
	}
	return &c.settings
}

// refused tells that hop could not be had. The next candidate is tried if that may help.
func (c *core) refused(err error) {
	var ce *pool.ConnectError
	// A replica that is behind may lack the role or the database that another copy has.
	if errors.As(err, &ce) && (ce.Elsewhere() || !c.need.write) && (c.left != 0 || c.follows()) {
		c.nextHop()
		c.env.metrics.Failover(ce.Backend)
		return
	}
	if errors.Is(err, errDeaf) { // the newest list has a better one in front
		c.env.metrics.Failover(c.hop.Backend.Name)
		c.wanting, c.convening = false, false
		c.anew()
		return
	}
	c.wanting, c.convening = false, false
	if c.need.write && noPrimary(err) {
		c.stall(c.refusal(err))
		return
	}
	c.fail(c.refusal(err))
}

func (c *core) refusal(err error) *pg.Error {
	if e := loginRefused(err); e != nil {
		return e
	}
	var ee *pool.ExhaustedError
	var ce *pool.ConnectError
	var pe *pg.Error
	if errors.As(err, &ee) {
		c.env.metrics.Limited(RefusedWait)
	}
	if errors.As(err, &ce) {
		if e := misbehaved(ce.Backend, ce.Err); e != nil {
			return e
		}
	}
	switch {
	case errors.As(err, &ee) && ee.Full != nil:
		return pg.NewError(pg.CodeTooManyConnections, ee.Error()).WithDetail("It says: " + ee.Full.Message + ".").
			WithHint("Raise the backend's max_connections or the role's CONNECTION LIMIT, or lower pool.size or pool.budget on the nodes.")
	case errors.As(err, &ee):
		return pg.NewError(pg.CodeTooManyConnections, ee.Error()).
			WithHint("Raise pool.size (and pool.budget, if it is set), or look for transactions that stay open: /debug shows each pool.")
	case errors.As(err, &ce) && errors.As(ce.Err, &pe):
		return pg.NewError(pe.Code, "backend "+ce.Backend+" refused the connection: "+pe.Message).WithDetail(pe.Detail).WithHint(pe.Hint)
	case errors.As(err, &ce):
		return pg.NewError(pg.CodeCannotConnectNow, "no backend of shard "+c.srvShard+" that could run this can be reached").
			WithDetail(ce.Error()).
			WithHint("Nothing was sent: the statement can be tried again." + c.leftAlone() + c.bound())
	case errors.As(err, &pe):
		return pe
	case noPrimary(err):
		return pg.NewError(pg.CodeCannotConnectNow, "the primary of shard "+c.srvShard+" cannot be used").
			WithDetail("Of backend " + c.hop.Backend.Name + ": " + err.Error() + ".").
			WithHint("Nothing was sent: the statement can be tried again." + c.bound())
	}
	return pg.NewError(pg.CodeCannotConnectNow, err.Error())
}

// bound goes on in a hint: that it is a read, and how it may run on another copy than the primary. "": it is none.
func (c *core) bound() string {
	if !c.need.follows {
		return ""
	}
	if c.own.consistency() == Primary {
		return " The session's reads go to primaries; SET rangefinder.read_consistency = 'eventual' has them take any copy."
	}
	return " It has to see what the session wrote, or may have written; SET rangefinder.read_consistency = 'eventual' has reads take any copy."
}

// leftAlone goes on in a hint: that the shard has more copies than the database's reads may go to. "": it has none.
func (c *core) leftAlone() string {
	if c.need.write || c.slot == nil || len(forQuestions(c.slot, c.db)) == len(c.list.Reads) {
		return ""
	}
	return " Reads of database " + c.db + " are pinned to its regions; other copies of the shard are left alone (regions and pinned of the database in the nodes' configuration)."
}

// nextHop goes on to the next candidate. A read that must see a write, and has no replica left, goes to the primary.
func (c *core) nextHop() {
	if c.left == 0 {
		c.toPrimary()
	}
	if c.left == 0 {
		c.wanting = false
		c.stall(c.headless())
		return
	}
	c.setHop()
}

// returned tells that the server connection was given back or closed.
func (c *core) returned() {
	if hop := c.srvHop; hop != nil {
		hop.Gauge.InFlight.Add(-1)
		if !c.need.write && !c.broken && !c.redo && !c.retrying {
			hop.Gauge.Read(c.env.now() - c.served)
		}
	}
	old := c.broken && c.srv.Connected.Sub(c.env.made) < c.came // it was there before the request
	c.srv, c.srvHop, c.reigns, c.broken, c.status = nil, nil, nil, false, 'I'
	c.coordinator, c.host = nil, nil
	c.numbers.types, c.numbers.learning = nil, 0
	c.unpin()
	c.serverOpen, c.copyIn, c.scratch, c.fatal = false, false, false, nil
	c.asks, c.fixes, c.reports = "", nil, c.reports[:0]
	renew := c.worn
	c.worn, c.looseSync = false, false
	c.toServer = c.toServer[:0]
	c.srvIn, c.passing, c.parting = c.srvIn[:0], 0, c.parting[:0]
	c.leaveRanges()
	switch {
	case c.redo && c.moves.fenced:
		c.awaitOwner()
	case c.redo:
		n := c.need
		n.write = n.write || !renew
		c.dispatch(n)
	case c.unfit:
		c.retrying, c.unfit, c.wanting, c.served = false, false, true, c.env.now()
		c.nextHop()
	case c.retrying && c.left == 0 && !c.follows() && old: // it may have broken long ago, and tells nothing of the backend
		c.retrying, c.wanting, c.served = false, true, c.env.now()
	case c.retrying && c.left == 0 && !c.follows():
		c.retrying = false
		e := c.refusal(errBroken)
		if c.seg.retry {
			e = pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+c.hop.Backend.Name+" was lost while the statement ran").
				WithHint("It was a read: it can be tried again.")
		}
		c.stall(e)
	case c.retrying:
		c.retrying, c.wanting, c.served = false, true, c.env.now()
		c.nextHop()
	}
}
