package wire

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// Clients keep what a named statement was described as: the types of its parameters and the columns of its result. On
// PostgreSQL itself that stays true, because a statement whose result would change is refused from then on. Here a statement may
// be prepared anew after its tables were changed, or another session may have done so; so what a client was told is compared
// with what the server has before anything is bound. Unnamed statements live too shortly for that.

// note notes what the client has been told of the statement; 0 is nothing. What FETCH returns is its cursor's, which may be another one each time.
func (s *statement) note(params, result uint64) {
	if params != 0 {
		s.shape.Params = params
	}
	if fetches := s.plan.Cursor != nil && s.plan.Cursor.Op == sqlkey.CursorFetch; result != 0 && !fetches {
		s.shape.Result = result
	}
}

// paramsOf sums up a ParameterDescription. It is never 0.
func paramsOf(body []byte) uint64 {
	h := fnv.New64a()
	for i := 2; i+4 <= len(body); i += 4 {
		writeType(h.Write, binary.BigEndian.Uint32(body[i:]))
	}
	return h.Sum64() | 1
}

// resultOf sums up a RowDescription by what PostgreSQL compares: names, types and modifiers. An empty body is NoData. It is never 0.
func resultOf(body []byte) (uint64, error) {
	h := fnv.New64a()
	for body = body[min(2, len(body)):]; len(body) > 0; {
		end := 0
		for end < len(body) && body[end] != 0 {
			end++
		}
		if len(body) < end+19 {
			return 0, fmt.Errorf("a RowDescription of %d bytes too few", end+19-len(body))
		}
		h.Write(body[:end+1])
		rest := body[end+1:]
		writeType(h.Write, binary.BigEndian.Uint32(rest[6:])) // behind the table and its column
		h.Write(rest[12:16])                                  // the modifier
		body = rest[18:]
	}
	return h.Sum64() | 1, nil
}

func writeType(write func([]byte) (int, error), oid uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], min(oid, oids.First))
	write(b[:])
}

// described takes what a server says of a statement that is to be learned or compared.
func (c *core) described(h *expectation, typ byte, body []byte) error {
	var params, result uint64
	switch typ {
	case 't':
		params = paramsOf(body)
	default:
		var err error
		if result, err = resultOf(body); err != nil {
			return err
		}
	}
	if h.kind != 'D' {
		return fmt.Errorf("frame of type %q as the answer to %q", typ, h.kind)
	}
	name := h.server
	if name == "" { // of a portal: as its statement was bound
		name = h.learn.server
	}
	c.srv.Prepared.Describe(name, params, result)
	if !h.ahead {
		h.learn.note(params, result)
	}
	return nil
}

// fits reports whether a statement is on the server connection as the client was told. known is false if the server must be
// asked.
func fits(told, has pool.Shape) (fit, known bool) {
	if told.Params != 0 && has.Params == 0 || told.Result != 0 && has.Result == 0 {
		return false, false
	}
	return (told.Params == 0 || told.Params == has.Params) && (told.Result == 0 || told.Result == has.Result), true
}

// lookAhead has the server prepare and describe what the request in hand binds and its client has been told the shape of, if the
// server connection lacks it. The request itself is sent when that is known. It returns false if nothing is to be asked.
func (c *core) lookAhead() bool {
	if c.serverOpen || c.coordinator != nil { // in the midst of an implicit transaction nothing may end it
		return false
	}
	c.changes = 0
	asked := c.asksLocal()
	for i := range c.ops {
		s := c.ops[i].stmt
		if c.kind != 'S' || s == nil || s.shape == (pool.Shape{}) || c.ops[i].virtual || c.ops[i].fail != nil || c.ops[i].use != nil || c.ops[i].typ == 'P' {
			continue
		}
		name := c.serverName(s)
		has, ok := c.srv.Prepared.Shape(name)
		if fit, known := fits(s.shape, has); ok && known {
			if !fit && c.ahead == nil {
				c.ahead = changedResult()
			}
			continue
		}
		if !ok {
			c.emitParse(s, true)
		} else if c.awaits('D', name) {
			continue
		}
		c.toServer = pg.AppendDescribe(c.toServer, 'S', name)
		c.push(expectation{kind: 'D', quiet: true, ahead: true, stmt: s, learn: s, server: name})
		asked = true
	}
	if !asked && c.ahead == nil {
		return false
	}
	c.toServer = pg.AppendSync(c.toServer)
	c.push(expectation{kind: 'S', quiet: true, quietZ: true, ahead: true})
	return true
}

// awaits reports whether such an answer is due already.
func (c *core) awaits(kind byte, server string) bool {
	for i := c.expectOff; i < len(c.expect); i++ {
		if c.expect[i].kind == kind && c.expect[i].server == server {
			return true
		}
	}
	return false
}

// lookedAhead goes on with the request when the server has answered, unless something is wrong with it.
func (c *core) lookedAhead() {
	c.expect, c.expectOff = c.expect[:0], 0
	e := c.ahead
	c.ahead = nil
	if c.unlocal > 0 {
		e, c.unlocal = c.notLocal(), 0
	}
	for i := range c.ops {
		s := c.ops[i].stmt
		if e != nil || s == nil || c.ops[i].use != nil {
			continue
		}
		if has, ok := c.srv.Prepared.Shape(c.serverName(s)); ok && s.shape != (pool.Shape{}) {
			if fit, known := fits(s.shape, has); known && !fit {
				e = changedResult()
			}
		}
	}
	failed := c.skip || c.seg.opens && c.status == 'I' // with an error of the server's, which the client has
	if e == nil && !failed {
		c.silent = true
		c.emitRequest()
		return
	}
	sync := c.seg.sync
	if c.kind == 'Q' {
		if failed {
			c.ready()
		} else {
			c.fail(e)
		}
		return
	}
	switch {
	case failed || !c.onServer():
	case c.scratch: // the client's block is open nowhere
	default:
		c.failExtended(e)
		return
	}
	if c.scratch {
		c.toServer = pg.AppendQuery(c.toServer, "ROLLBACK")
		c.push(expectation{kind: 'Q', quiet: true, quietZ: true})
	}
	if !failed {
		c.undoFrom(0)
		c.out = pg.AppendError(c.out, e)
		c.tx.failed = c.tx.open
	}
	c.dropOps()
	c.skip = !sync
	if sync {
		c.carried = false
		status := c.virtualStatus()
		if c.onServer() && !c.scratch {
			status = c.status
		}
		c.endAnswer(status)
	}
}

// changedResult is PostgreSQL's own error: by it clients know that they must prepare the statement again.
func changedResult() *pg.Error {
	e := pg.NewError(pg.CodeFeatureNotSupported, "cached plan must not change result type")
	e.Routine = "RevalidateCachedQuery" // by which JDBC tells it from others, and prepares anew
	return e
}
