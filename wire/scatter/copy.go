package scatter

import (
	"rangefinder/wire/pg"
)

// copyIn runs COPY FROM STDIN on one branch. Its Sync comes behind the data, since PostgreSQL ignores one before.
func (c *Coordinator) copyIn(x *execution, b *branch) *pg.Error {
	c.marks0(x, b)
	b.send = pg.AppendFlush(x.appendRun(b.send, x.stmt.sql, "", 0))
	b.begin()
	defer b.done()
	if e := b.flush(); e != nil {
		return c.ended(x, b, e)
	}
	taking := false
	var first *pg.Error
	for done := false; !done; {
		if taking && len(b.in) == b.off && !b.conn.Unread() {
			done = c.feed(b)
			continue
		}
		typ, size, err := b.header()
		if err != nil {
			return c.ended(x, b, b.lost(err))
		}
		switch typ {
		case pg.TypeErrorResponse:
			e, fatal := b.error(size)
			if fatal {
				return c.ended(x, b, e)
			}
			first, done = e, true
		case pg.TypeCommandComplete: // without data: it takes none
			if e := c.relay(x, b, typ, size); e != nil {
				return c.ended(x, b, e)
			}
			done = true
		default:
			own := b.quiet > 0
			if own {
				f, err := b.frame(size)
				if err != nil {
					return c.ended(x, b, b.lost(err))
				}
				if f[0] == pg.TypeCommandComplete {
					b.quiet--
				}
				continue
			}
			if e := c.relay(x, b, typ, size); e != nil {
				return c.ended(x, b, e)
			}
			if typ == pg.TypeCopyInResponse {
				taking, c.copying = true, !x.simple
				_ = c.flush()
			}
		}
	}
	b.send = pg.AppendSync(b.send)
	e := b.flush()
	if e == nil {
		e = b.receive(func(typ byte, size int) *pg.Error { return c.relay(x, b, typ, size) })
	}
	if first != nil {
		e = first
	}
	return c.ended(x, b, e)
}

// feed hands on one message of the session's. It returns true if it was the last.
func (c *Coordinator) feed(b *branch) (done bool) {
	typ, body, err := c.next()
	if err != nil {
		c.gone = err
		b.strike()
		return true
	}
	switch typ {
	case pg.TypeCopyData, pg.TypeCopyDone, pg.TypeCopyFail:
		b.send = append(b.send, c.in[c.off-len(body)-pg.HeaderSize:c.off]...)
		if typ != pg.TypeCopyData || len(b.send) >= readSize || pg.Want(c.in[c.off:]) == 0 {
			if b.flush() != nil {
				return true
			}
		}
		return typ != pg.TypeCopyData
	case pg.TypeSync, pg.TypeFlush: // ignored, as PostgreSQL does
	default: // it belongs to what comes next: the session has given up
		c.off -= pg.HeaderSize + len(body)
		b.strike()
		return true
	}
	return false
}
