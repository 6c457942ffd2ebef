package scatter

import (
	"iter"
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
	tag := strings.TrimRight(r.tag, "0123456789")
	if tag != r.tag {
		tag += strconv.FormatInt(sent, 10)
	}
	c.complete(x, tag)
	return nil
}

// sink takes the rows of a statement that the coordinator itself has made, or had made one by one: what is beyond the limit of its portal is kept.
type sink struct {
	c    *Coordinator
	x    *execution
	sent int64 // to the session
	keep *rest // nil: nothing is kept
}

// take takes a row's frame.
func (s *sink) take(frame []byte) *pg.Error {
	if s.x.max == 0 || s.sent < int64(s.x.max) {
		s.sent++
		if s.c.emit(frame) != nil {
			return gone()
		}
		return nil
	}
	if s.keep == nil {
		s.keep = s.c.newRest()
	}
	if e := s.keep.add(frame); e != nil {
		return e
	}
	s.keep.left++
	return nil
}

// end ends the answer to the statement, or the first part of it.
func (s *sink) end(tag string) {
	x, keep := s.x, s.keep
	if s.keep = nil; x.max == 0 {
		s.c.complete(x, tag)
		return
	}
	if x.portal.rest = keep; keep == nil {
		x.portal.rest = s.c.newRest()
	}
	if x.portal.rest.tag = tag; keep != nil {
		s.c.out = pg.AppendPortalSuspended(s.c.out)
		return
	}
	s.c.complete(x, tag)
}

// returns tells the session what RETURNING has given, the frames of its rows, and ends the answer. desc are its columns; nil: there is none.
func (c *Coordinator) returns(x *execution, desc []byte, tag string, rows iter.Seq[[]byte]) *pg.Error {
	if desc == nil {
		c.complete(x, tag)
		return nil
	}
	out := &sink{c: c, x: x}
	defer out.drop()
	for row := range rows {
		if e := out.take(row); e != nil {
			return e
		}
	}
	out.end(tag)
	return nil
}

// rowsIn are the frames of a run of them.
func rowsIn(frames []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(frames) > 0 {
			n := pg.Want(frames)
			if !yield(frames[:n]) {
				return
			}
			frames = frames[n:]
		}
	}
}

// drop gives up what was kept, unless end has made it the portal's.
func (s *sink) drop() {
	if s.keep != nil {
		s.keep.drop()
	}
}
