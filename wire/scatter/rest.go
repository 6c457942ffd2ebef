package scatter

import (
	"strconv"
	"strings"

	"rangefinder/wire/pg"
)

// complete ends the answer to a statement.
func (c *Coordinator) complete(x *execution, tag string) {
	if x.simple {
		c.held = pg.AppendCommandComplete(c.held[:0], tag)
		return
	}
	c.out = pg.AppendCommandComplete(c.out, tag)
}

// rest are rows that the session has not asked for yet: those of a portal that it runs in parts.
type rest struct {
	rows   []byte
	at     int
	left   int64
	tag    string
	memory *ration
}

func (c *Coordinator) newRest() *rest { return &rest{memory: &ration{of: &c.cfg.Shared.Memory}} }

func (r *rest) add(frame []byte) *pg.Error {
	if e := r.memory.take(len(frame)); e != nil {
		return e
	}
	r.rows = append(r.rows, frame...)
	return nil
}

func (r *rest) drop() {
	r.memory.drop()
	r.rows = nil
}

// more hands on what is left of such a portal.
func (c *Coordinator) more(x *execution) *pg.Error {
	r := x.portal.rest
	if x.columns {
		return pg.NewError(pg.CodeFeatureNotSupported, "a portal over several shards cannot be described while it is suspended")
	}
	sent := int64(0)
	for r.left > 0 && (x.max == 0 || sent < int64(x.max)) {
		n := pg.Want(r.rows[r.at:])
		_ = c.emit(r.rows[r.at : r.at+n])
		r.at += n
		r.left--
		sent++
	}
	if r.left > 0 {
		c.out = pg.AppendPortalSuspended(c.out)
		return nil
	}
	r.drop()
	c.complete(x, strings.TrimRight(r.tag, "0123456789")+strconv.FormatInt(sent, 10))
	return nil
}
