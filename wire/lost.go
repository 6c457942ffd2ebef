package wire

import (
	"bytes"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// maxParting bounds the notice that is held back; PostgreSQL's has some 400 bytes.
const maxParting = 8 << 10

// parts reports whether a notice says that the server is about to end the connection. PostgreSQL sends such a warning instead of a
// FATAL error when another of its processes has crashed, when it shuts down immediately, or when its postmaster is gone. To the
// client it would be a part of the answer, and a read that it has seen a part of is not sent to another backend: so it is held back
// until the connection ends, or more comes.
func parts(body []byte) bool {
	if len(body) > maxParting {
		return false
	}
	return bytes.Contains(body, []byte("\x00C"+pg.CodeCrashShutdown+"\x00")) || bytes.Contains(body, []byte("\x00C"+pg.CodeAdminShutdown+"\x00"))
}

// said notes that a frame has come. A notice that was held back was not the server's last.
func (c *core) said() {
	c.silent = false
	if len(c.parting) > 0 {
		c.out, c.parting = append(c.out, c.parting...), c.parting[:0]
	}
}

// serverLost tells that the server connection has broken, or that what came from it is not PostgreSQL's protocol.
func (c *core) serverLost(err error) {
	if c.fatal == nil && len(c.parting) > 0 {
		c.fatal, _ = pg.DecodeError(c.parting[pg.HeaderSize:])
	}
	code := pg.CodeConnectionFailure
	if c.fatal != nil {
		code = c.fatal.Code
	}
	c.backendError(code)
	name := c.srv.Backend.Name
	idle := !c.waiting() && !c.copyIn && !c.serverOpen && len(c.toServer) == 0
	midFrame := c.passing > 0 && !c.passHide
	ahead := c.waiting() && c.expect[len(c.expect)-1].ahead
	settings := c.head() != nil && c.head().settings || ahead && !c.tx.inServer
	others := c.left != 0 || c.follows()                                         // that has the primary left
	retry := (others || c.need.write) && (settings || c.seg.retry && !c.flushed) // there is one primary, and may be another soon
	wrote := c.tx.wrote && c.coordinator == nil
	c.tx.wrote = false // nobody was told that it has taken effect
	wasIn := c.onServer() && !c.scratch || c.tx.inServer
	synced := (settings || ahead) && c.seg.sync // the request itself has not been sent yet
	for i := c.expectOff; i < len(c.expect); i++ {
		synced = synced || c.expect[i].kind == 'S' && !c.expect[i].ahead
	}
	pinned := c.pinned
	ends, commits := c.ending()
	if wasIn || !idle {
		c.failChannels()
	}
	if c.status == 'I' && !idle && !settings {
		c.settings = c.unsynced
	}
	c.expect, c.expectOff, c.toServer, c.ahead = c.expect[:0], 0, c.toServer[:0], nil
	c.unlocal = 0
	c.broken, c.status, c.serverOpen, c.copyIn = true, 'I', false, false
	c.srvIn, c.passing = c.srvIn[:0], 0

	if retry && !idle {
		c.out = c.out[:c.outMark]
		c.retrying = true
		if others {
			c.env.metrics.Failover(name)
		}
		return
	}
	if midFrame { // the client has half a row: there is no way to tell it anything but by ending
		c.closing = true
		c.tx = transaction{}
		return
	}
	c.behind = nil
	c.out, c.parting = append(c.out, c.parting...), c.parting[:0]
	e := c.lostError(name, err, wasIn, commits)
	if wrote && e.Code == pg.CodeTransactionResolutionUnknown {
		c.noteWriteOn(c.srvShard, c.slot, c.srvHop, true)
	}
	if idle {
		e = pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+name+" was lost").WithDetail(e.Detail)
	}
	if pinned != "" {
		c.terminate(e.WithDetail(e.Detail + " The session was tied to that connection: " + pinned + "."))
		return
	}
	if idle { // the client waits for nothing: it learns of its transaction when it next asks something
		if wasIn {
			e = pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+name+" was lost: the transaction was rolled back").
				WithDetail(e.Detail).WithHint("Start the transaction again.")
			c.tx = transaction{open: true, failed: true, saved: c.tx.saved, lost: e}
		}
		return
	}
	if c.tx.inServer || wasIn {
		// The block is gone; the client learns it as it would of any failed one.
		c.tx = transaction{open: true, failed: true, saved: c.tx.saved}
		if ends {
			c.settings, c.tx = c.tx.saved, transaction{}
		}
	}
	if c.tx.open {
		c.tx.failed = true
	}
	if c.kind == 'S' {
		c.undoFrom(0)
		c.dropOps()
		c.out = pg.AppendError(c.out, e)
		if !synced {
			c.skip = true
			return
		}
		c.ready()
		return
	}
	c.undoNames()
	c.out = pg.AppendError(c.out, e)
	c.ready()
}

// backendError counts an error that the backend answered with or was lost with. Those that are about the server and not about the
// statement speak against it.
func (c *core) backendError(code string) {
	if c.coordinator != nil { // which has told of it
		return
	}
	c.env.metrics.BackendError(c.srv.Backend.Name, code)
	if c.srvHop != nil && pg.OfServer(code) {
		c.srvHop.Gauge.Failed()
	}
}

// ending reports whether something that the server has not answered yet was to end the transaction block, and whether that was a COMMIT, which it
// may have carried out. It is not always the request's last statement.
func (c *core) ending() (ends, commits bool) {
	see := func(p *sqlkey.Plan) {
		mixed := p.MixedTx && p.Parts == nil // a text that is not taken apart
		commits = commits || mixed || p.Tx == sqlkey.TxCommit
		ends = ends || commits || p.Tx == sqlkey.TxRollback
	}
	for i := c.expectOff; i < len(c.expect); i++ {
		switch e := &c.expect[i]; {
		case e.plan == nil || e.kind != 'E' && e.kind != 'Q':
		case e.plan.Parts == nil:
			see(e.plan)
		default:
			for _, p := range e.plan.Parts[min(e.part, len(e.plan.Parts)):] {
				see(p)
			}
		}
	}
	if c.plan != nil {
		see(c.plan)
	}
	return ends, commits
}

// lostError says what the loss of a server connection means for the request in hand.
func (c *core) lostError(backend string, err error, wasIn, commits bool) *pg.Error {
	detail := ""
	if c.fatal != nil {
		detail = "Its last words: " + c.fatal.Message + "."
	} else if err != nil {
		detail = "The connection ended with: " + err.Error() + "."
	}
	switch {
	case wasIn && commits, !c.seg.read && !wasIn:
		return pg.NewError(pg.CodeTransactionResolutionUnknown, "the connection to backend "+backend+" was lost while the statement ran: whether it took effect is unknown").
			WithDetail(detail).WithHint("Look before you try again.")
	case wasIn:
		return pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+backend+" was lost: the transaction was rolled back").
			WithDetail(detail).WithHint("Start the transaction again.")
	}
	return pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+backend+" was lost while the statement ran").
		WithDetail(detail).WithHint("It was a read: it can be tried again.")
}
