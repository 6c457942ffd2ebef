package wire

import (
	"fmt"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// maxServerFrame bounds the server frames that must be whole before they are read; rows and COPY data need not be.
const maxServerFrame = 16 << 20

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
		if len(p) < size || (p[0] == 'T' || p[0] == 't') && c.strange(p[:size]) {
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
	if h == nil || c.copyIn || !h.takes(typ) {
		return false, c.unasked(typ)
	}
	if (h.remains || h.local != "") && typ == 'D' || h.learn != nil && (typ == 'T' || typ == 't') || c.looksAt(h, typ) {
		return true, nil
	}
	c.passHide = h.quiet || c.redo
	// The frame's last byte ends what was asked for; answers of the node's come behind it.
	c.popAfter = typ == 'T' && h.kind == 'D'
	return false, nil
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
	if h == nil || c.copyIn || !h.takes(typ) { // while a server takes data, it has nothing to say but the above
		return c.unasked(typ)
	}
	quiet := h.quiet || c.redo
	if h.learn != nil && (typ == 't' || typ == 'T' || typ == 'n') {
		if err := c.described(h, typ, body); err != nil {
			return err
		}
	}
	if (typ == 'T' || typ == 't') && c.looksAt(h, typ) {
		c.renumber(h, typ, body)
	}
	switch typ {
	case 'Z':
		return c.readyForQuery(body, h)
	case 'D':
		switch {
		case h.local != "":
			return c.localRow(body)
		case !h.remains:
			return c.row(h, frame)
		}
		return c.remainsRow(body)
	case 'C':
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
				if tx := h.plan.Tx; h.kind == 'E' && (tx == sqlkey.TxCommit || tx == sqlkey.TxRollback) {
					c.status = 'I' // the server tells that at the Sync; what comes before it is not in the block
					if h.plan.Chain {
						c.status = 'T'
					}
				}
			} else if h.part < len(parts) {
				c.partDone(parts[h.part])
				h.part++
			}
		}
		if string(c.lastTag) == "DEALLOCATE ALL" && !h.settings { // among other statements: see deallocate
			c.nothingPrepared()
			if !h.names {
				c.stmts.clearNamed()
				c.changedBehind()
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
	}
	switch {
	case h.doubt:
		c.out = pg.AppendError(c.out, notUnderstood())
	case !quiet:
		c.out = append(c.out, frame...)
	}
	switch {
	case typ == 't', typ == 'T' && h.kind == 'Q':
	case typ == 'T', typ == '1' && h.kind == 'P', typ == '2' && h.kind == 'B', typ == '3' && h.kind == 'C', typ == 'n' && h.kind == 'D':
		c.pop()
	case (typ == 'I' || typ == 's') && h.kind == 'E':
		c.pop()
	case typ == 'I':
		h.ended = true
	}
	return nil
}

func (c *core) readyForQuery(body []byte, h *expectation) error {
	status, err := pg.DecodeReady(body)
	if err != nil {
		return err
	}
	if h.kind != 'S' && (h.kind != 'Q' && h.kind != 'F' || !h.ended) {
		return fmt.Errorf("ReadyForQuery as the answer to %q", h.kind)
	}
	e := *h
	c.statusChanged(status)
	if c.expectOff+1 == len(c.expect) { // in a block, too, nothing that was sent waits for a Sync
		c.serverOpen = false
	}
	if e.settings { // it was all that was sent: the request itself comes now
		c.expect, c.expectOff = c.expect[:0], 0
		c.enforced(e.spares)
		return nil
	}
	if e.ahead && !c.redo {
		c.lookedAhead()
		return nil
	}
	c.hushed = false
	if c.redo {
		c.out = c.out[:c.outMark]
		c.expect, c.expectOff = c.expect[:0], 0
		return nil
	}
	if e.remains || e.local != "" {
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
	c.tally.answered(status, !e.quietZ && c.behind == nil)
	switch {
	case status == 'T' && c.seg.chains && c.chainsLast() && !e.quietZ && !c.erred:
		c.chainEnded()
	case status == 'I' && len(c.crossed) > 0:
		c.leaveRanges()
	}
	if e.kind == 'Q' && e.plan != nil && !c.erred {
		c.used(e.plan, c.rows)
	}
	if c.ownConn && c.need.slot != nil && c.pinned == "" && c.coordinator == nil {
		c.pin(sqlkey.RemainUnknown, pinOfMode)
	}
	if !e.quietZ {
		c.carried = false
		if c.host != nil {
			c.takeDoubts()
		}
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
			c.endAnswer(status)
		}
	}
	c.pop()
	return nil
}

// failOff answers the request in hand with an error while its connection is about to be closed or given back, outside any transaction.
func (c *core) failOff(e *pg.Error) {
	c.status, c.serverOpen = 'I', false
	c.fail(e)
}
