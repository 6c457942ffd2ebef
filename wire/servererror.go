package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

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
	if !h.settings { // the request itself may yet be sent
		c.behind = nil
	}
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
			c.expect[i].quiet, c.expect[i].told = true, true
			if c.expect[i].kind == synthetic {
				c.expect[i].synth = nil
			}
		}
		return nil
	case e.Code == pg.CodeQueryCanceled && c.tally.overran.Load() == c.tally.turn.Load():
		e = pg.NewError(e.Code, "canceling statement due to statement timeout").
			WithHint("Have the statement do less, or raise statement_timeout in [limits] or [[databases]] of the node's configuration.")
		frame = pg.AppendError(nil, e)
	case e.Code == codeFenced && c.refence(h): // nothing took effect: it is run again where the row belongs by then
	case e.Code == codeFenced && c.seg.commits && c.status == 'I' && !c.seg.opens:
		e = fencedBehind(e)
		frame = pg.AppendError(nil, e)
	case e.Code == codeFenced:
		e = fencedWithin(e)
		frame = pg.AppendError(nil, e)
	case e.OfStandby():
		c.srv.Strict = true // since it was connected to
		c.redo = c.seg.retry && !c.flushed && !c.need.write
	case e.Code == pg.CodeReadOnlyTransaction && c.seg.retry && !c.flushed && !c.need.write:
		c.redo, c.seg.wrote, c.seg.changes = true, true, true // it was no plain read after all: nothing took effect, so the primary may have it
	case e.Code == pg.CodeObjectNotInPrerequisiteState && c.srv.Standby() && c.seg.retry && !c.flushed && !c.need.write:
		c.redo = true // "recovery is in progress", which the primary does not say
	case c.taken(h, e):
		c.worn = true
		c.redo = c.seg.again && !c.flushed && !c.answered('E', "") && (!h.names || c.plan.Statements == 1)
		if !c.redo {
			e = nameTaken()
			frame = pg.AppendError(nil, e)
		}
	case h.names && outdated(e) && c.heldBefore(c.uses):
		c.worn = true
		c.redo = c.seg.again && !c.flushed && c.plan.Statements == 1
	case h.use != nil && outdated(e) && c.heldBefore([]use{*h.use}):
		c.worn = true
		c.redo = c.seg.again && !c.flushed && !c.answered('E', "") && (h.kind == 'D' || c.parsedHere(h.use.outer))
	case h.server != "" && h.makes == "" && outdated(e) && !c.answered('P', h.server):
		// It was prepared on this connection before its tables were changed.
		c.worn = true
		gone := e.Code == pg.CodeInternalError && h.stmt.shape != (pool.Shape{}) // a type of its parameters: elsewhere it is compared with what the client was told
		c.redo = c.seg.again && !c.flushed && !c.answered('E', "") && (h.kind == 'D' || gone || c.parsedHere(h.stmt))
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
		c.recall()
	}
	if !h.quiet && !c.redo && h.fail == nil {
		c.misused(h)
	}
	if (!h.quiet || h.stmt != nil && !h.told) && !c.redo { // what is prepared unasked is asked for by what comes behind it
		c.out = append(c.out, frame...)
		if c.tx.open {
			c.tx.failed = true
		}
		if c.host != nil {
			c.tellsOfLoss(e)
		}
	}
	if h.kind == 'Q' || h.kind == 'F' {
		return nil
	}
	if c.kind != 'S' && h.stmt != nil {
		if !c.redo {
			c.undoFrom(0)
		}
		c.discarded()
		return nil
	}
	// The server discards up to the Sync.
	if !c.redo {
		if c.undoFrom(h.changes); h.kind == 'P' && h.stmt != nil && h.stmt.name == "" && !h.quiet { // PostgreSQL drops the old one first
			c.stmts.unnamed = nil
		}
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
