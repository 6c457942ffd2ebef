package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter"
)

// A client sees one shard's numbers for types and tables, whatever shard answers: see package oids. Where they stand in frames of that kind is known
// to that package; this file says which frames are looked at. On the reference shard, and in databases of one shard, none is.

// maxStrange bounds the numbers that a session has asked for in vain and does not ask for again.
const maxStrange = 64

// described is what a portal's rows are.
type described struct {
	columns []oids.Column // whose values are to be written in the client's numbers
}

// carries is whether a statement's rows may hold numbers of types, in binary.
type carries byte

const (
	carriesUnknown carries = iota
	carriesNothing
	carriesSome
)

// numbers are those of the request in hand.
type numbers struct {
	all      *map[string]*oids.Database // what known was taken from
	known    *oids.Database             // of the session's database; nil: it has one shard, or nobody has told
	types    *oids.Map                  // of the server connection's shard; nil: its numbers are the client's
	rows     described                  // of the Query in hand
	list     []uint32                   // scratch
	learning uint32                     // the number of a type that must be looked for first; 0: none
	inParse  bool                       // the client has sent it; else the server
	sync     bool                       // what ends the segment that waits for it
	unread   bool                       // the catalogs cannot be read: what is not known is told as that
}

// seeTypes brings up to date what the session goes by.
func (c *core) seeTypes() {
	n := &c.numbers
	if all := c.env.types.Load(); all != n.all {
		if n.all, n.known = all, nil; all != nil {
			n.known = (*all)[c.db]
		}
	}
	if n.types = nil; n.known != nil && c.srv != nil && c.coordinator == nil {
		n.types = n.known.Map(c.srvShard)
	}
}

// looksAt reports whether a frame of the server's that answers h must be whole, because of the numbers in it.
func (c *core) looksAt(h *expectation, typ byte) bool {
	n := &c.numbers
	if n.known == nil || c.redo || h.quiet && h.rows == nil {
		return false
	}
	switch typ {
	case 'T':
		return n.types != nil || h.describes() != nil
	case 't':
		return true
	}
	return h.rows != nil && len(h.rows.columns) > 0
}

// describes is the statement of whose rows the answer tells, if that is to be noted.
func (e *expectation) describes() *statement {
	switch {
	case e.kind != 'D':
		return nil
	case e.learn != nil:
		return e.learn
	case e.rows == nil:
		return e.stmt
	}
	return nil
}

// strange reports whether a description that the server has sent holds a type that nobody knows. Then that is looked for first.
func (c *core) strange(frame []byte) bool {
	n, h := &c.numbers, c.head()
	if n.types == nil || n.unread || !c.env.learns || h == nil || !c.looksAt(h, frame[0]) {
		return false
	}
	body := frame[pg.HeaderSize:]
	if n.learning = n.types.UnknownColumn(body, c.sought); frame[0] == 't' {
		n.learning = n.types.UnknownParam(body, c.sought)
	}
	n.inParse = false
	return n.learning != 0
}

// unheard reports whether the segment in hand declares a type that nobody knows: likewise.
func (c *core) unheard(sync bool) bool {
	n := &c.numbers
	c.seeTypes()
	if n.known == nil || !c.env.learns {
		return false
	}
	for i := range c.ops {
		if c.ops[i].typ != 'P' {
			continue
		}
		v, err := pg.DecodeParseView(c.batch[c.ops[i].start+pg.HeaderSize : c.ops[i].end])
		if err != nil {
			return false
		}
		for j := range v.NumOIDs() {
			if oid := v.OID(j); !n.known.Knows(oid) && !c.soughtBefore(oid) {
				n.learning, n.inParse, n.sync = oid, true, sync
				return true
			}
		}
	}
	return false
}

func (c *core) soughtBefore(oid uint32) bool {
	for _, s := range c.sought {
		if s == oid {
			return true
		}
	}
	return false
}

// learned goes on with what has waited. all: the catalogs have been read.
func (c *core) learned(all bool) error {
	n := &c.numbers
	if all || n.inParse {
		if len(c.sought) >= maxStrange {
			c.sought = c.sought[:0]
		}
		c.sought = append(c.sought, n.learning) // found or not, it is not looked for again
	}
	n.learning = 0
	c.seeTypes()
	switch {
	case n.inParse && c.closing:
		c.dropOps()
	case n.inParse:
		c.endSegment(n.sync)
	case c.srv != nil:
		n.unread = !all
		err := c.serverRead(nil)
		c.numbers.unread = false
		return err
	}
	return nil
}

// renumber writes the numbers in a description as the client sees them, and notes what there is to note of it.
func (c *core) renumber(h *expectation, typ byte, body []byte) {
	n := &c.numbers
	if typ == 't' {
		if n.types != nil {
			n.types.Params(body)
		}
		if h.stmt != nil {
			h.stmt.params = nil
			if oids.Made(body) {
				h.stmt.params, _ = pg.DecodeParameterDescription(body)
			}
		}
		return
	}
	if n.types != nil {
		rows := h.rows
		if h.kind == 'Q' {
			rows = &n.rows
		}
		if rows != nil {
			rows.columns = n.types.Columns(body, rows.columns[:0])
		} else {
			n.types.Columns(body, nil) // of a statement: no values come
		}
		if h.rows = rows; h.kind == 'Q' && len(rows.columns) == 0 {
			h.rows = nil
		}
	}
	if s := h.describes(); s != nil {
		s.carries = carriesNothing
		if n.known.CarriesAny(body) {
			s.carries = carriesSome
		}
	}
}

// row hands on a row, its numbers as the client sees them.
func (c *core) row(h *expectation, frame []byte) error {
	if h.rows == nil || c.numbers.types == nil {
		return c.unasked('D')
	}
	if err := c.numbers.types.Row(frame[pg.HeaderSize:], h.rows.columns); err != nil {
		return fmt.Errorf("a row: %w", err)
	}
	c.out = append(c.out, frame...)
	return nil
}

// localTypes are types that a client has declared as the server connection's shard numbers them. They hold until the next call.
func (c *core) localTypes(declared []uint32) ([]uint32, *pg.Error) {
	n := &c.numbers
	if n.types == nil {
		return declared, nil
	}
	for i, oid := range declared {
		if oid < oids.First {
			continue
		}
		n.list = append(n.list[:0], declared...)
		for ; i < len(n.list); i++ {
			local, ok := n.types.Local(n.list[i])
			if !ok {
				return nil, scatter.UnknownType(n.list[i], c.srvShard)
			}
			n.list[i] = local
		}
		return n.list, nil
	}
	return declared, nil
}

// declares are the types that a statement is prepared with on the server connection: those that its client has declared. A coordinator is also told what
// the client has been told, as far as it has to know them to read values.
func (c *core) declares(s *statement) ([]uint32, *pg.Error) {
	n := &c.numbers
	if c.coordinator == nil {
		return c.localTypes(s.oids)
	}
	if n.known == nil || s.params == nil || s.tail != "" {
		return s.oids, nil
	}
	n.list = n.list[:0]
	for i := range s.params {
		oid := s.typeOf(i)
		if i >= len(s.oids) || s.oids[i] == 0 {
			if !n.known.Carries(oid) {
				oid = 0
			}
		}
		n.list = append(n.list, oid)
	}
	return n.list, nil
}

// typeOf is the type of a parameter, from 0, by its number for clients; 0: nobody has said.
func (s *statement) typeOf(i int) uint32 {
	if i < len(s.oids) && s.oids[i] != 0 {
		return s.oids[i]
	}
	if i < len(s.params) {
		return s.params[i]
	}
	return 0
}

// emitBound follows a Bind of s, the i-th message of the segment, that stands in toServer from start on: its values are written in the shard's numbers, and
// if its rows may hold numbers, the server is asked for their description, unless the client asks itself.
func (c *core) emitBound(i, start int, e expectation) {
	n := &c.numbers
	if n.types == nil {
		if len(c.stmts.rows) > 0 && c.bind.Decode(c.toServer[start+pg.HeaderSize:]) == nil {
			c.stmts.describes(c.bind.Portal, nil)
		}
		c.push(e)
		return
	}
	if err := c.bind.Decode(c.toServer[start+pg.HeaderSize:]); err != nil { // it was decoded before
		c.push(e)
		return
	}
	if refused := c.localParams(e.stmt); refused != nil {
		c.toServer = c.toServer[:start]
		c.refuse(refused)
		return
	}
	c.push(e)
	if e.stmt.carries == carriesNothing && e.use == nil || !c.wantsBinary() {
		c.stmts.describes(c.bind.Portal, nil)
		return
	}
	rows := new(described)
	c.stmts.describes(c.bind.Portal, rows)
	if i+1 < len(c.ops) && c.ops[i+1].typ == 'D' && !c.ops[i+1].virtual {
		if d, err := pg.DecodeDescribe(c.batch[c.ops[i+1].start+pg.HeaderSize : c.ops[i+1].end]); err == nil && d.Kind == pg.KindPortal && string(d.Name) == string(c.bind.Portal) {
			return
		}
	}
	c.toServer = pg.AppendDescribe(c.toServer, pg.KindPortal, string(c.bind.Portal))
	c.push(expectation{kind: 'D', quiet: true, stmt: e.stmt, rows: rows})
}

// wantsBinary reports whether the Bind in hand asks for a column in binary.
func (c *core) wantsBinary() bool {
	for i := range c.bind.NumResults() {
		if c.bind.Result(i) == pg.FormatBinary {
			return true
		}
	}
	return false
}

// localParams writes the numbers in the values of the Bind in hand, in place.
func (c *core) localParams(s *statement) *pg.Error {
	for i := range c.bind.NumParams() {
		v, format, null := c.bind.Param(i)
		if null || format != pg.FormatBinary {
			continue
		}
		if e := scatter.LocalValue(c.numbers.types, c.srvShard, s.typeOf(i), v, i+1); e != nil {
			return e
		}
	}
	return nil
}

// describedRows are those of the portal that a Describe or Execute names.
func (c *core) describedRows(o *op) *described {
	if len(c.stmts.rows) == 0 {
		return nil
	}
	body := c.batch[o.start+pg.HeaderSize : o.end]
	switch o.typ {
	case 'E':
		if m, err := pg.DecodeExecute(body); err == nil {
			return c.stmts.rows[string(m.Portal)]
		}
	case 'D':
		if m, err := pg.DecodeDescribe(body); err == nil && m.Kind == pg.KindPortal {
			return c.stmts.rows[string(m.Name)]
		}
	}
	return nil
}

// describes notes what a portal's rows are; nil: nothing in them needs to be looked at.
func (r *registry) describes(portal []byte, rows *described) {
	if rows == nil {
		delete(r.rows, string(portal))
		return
	}
	if r.rows == nil {
		r.rows = make(map[string]*described)
	}
	r.rows[string(portal)] = rows
}

// foreignFunction is the error for a FunctionCall whose function has another number where the session's transaction is; nil: it has not.
func (c *core) foreignFunction(frame []byte) *pg.Error {
	c.seeTypes()
	if len(frame) < pg.HeaderSize+4 || c.numbers.types == nil || binary.BigEndian.Uint32(frame[pg.HeaderSize:]) < oids.First {
		return nil
	}
	return pg.NewError(pg.CodeFeatureNotSupported, "a function of the database's own cannot be called by its OID in a transaction on shard "+c.srvShard).
		WithDetail("Functions have other OIDs on each shard, and clients see those of " + c.numbers.known.Reference() + ".").
		WithHint("Call the function by SELECT.")
}

// learn has the node read the catalogs, and waits for it. As with the wait for a connection, a CancelRequest ends it, and so does the end of the client.
func (s *session) learn(ctx context.Context) {
	c := s.core
	held, free := s.hold(ctx)
	bounded, cancel := context.WithTimeout(held, scatter.LearnLimit)
	whole := s.server.cfg.Learn(bounded, s.id.Database)
	cancel()
	if held.Err() != nil && errors.Is(context.Cause(held), errHangup) {
		s.clientGone()
	}
	free()
	if err := c.learned(whole); err != nil {
		s.brokeProtocol(err)
	}
}

// toReference has a statement that reads the catalogs run where the client's numbers are the server's, also if its transaction is open elsewhere: that
// goes on there too. In one that has made tables of its own, what it has made is looked for first.
func (c *core) toReference(n *need) {
	if !n.catalogs || n.slot != nil || n.many || n.copies != nil || c.numbers.types == nil || c.tx.shaped || c.seg.pin != "" || c.seg.asks != "" || !c.handsOver() {
		return
	}
	n.slot = c.table.Slot(c.numbers.known.Reference())
}

// refuseFor is refuse, of what must be prepared before the request in hand.
func (c *core) refuseFor(s *statement, e *pg.Error) {
	c.toServer = pg.AppendDescribe(c.toServer, pg.KindStatement, refusedStatement)
	c.push(expectation{kind: 'D', stmt: s, fail: e})
}
