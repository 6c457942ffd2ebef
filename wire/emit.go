package wire

import "rangefinder/wire/pg"

// emitSegment sends the planned messages to the server connection: statements under the names that they have there, those
// that it lacks prepared first.
func (c *core) emitSegment() {
	c.hazy = false
	defer func() { c.hazy = false }()
	for i := range c.ops {
		o := &c.ops[i]
		frame := c.batch[o.start:o.end]
		c.changes = o.changes
		switch {
		case o.fail != nil:
			c.refuse(o.fail)
			continue
		case o.virtual:
			c.push(expectation{kind: synthetic, synth: o.answer})
			continue
		}
		switch o.typ {
		case 'P':
			c.emitParse(o.stmt, false)
			continue
		case 'B':
			if o.use != nil {
				c.emitOuter(o.use)
				start := len(c.toServer)
				if err := c.bind.Decode(frame[pg.HeaderSize:]); err == nil { // it was decoded before
					c.toServer = pg.AppendBindRenamed(c.toServer, &c.bind, "")
				}
				c.emitBound(i, start, expectation{kind: 'B', stmt: o.stmt, use: o.use})
				continue
			}
			name := c.emitPrepared(o.stmt)
			start := len(c.toServer)
			if name != "" || o.stmt.anew {
				if err := c.bind.Decode(frame[pg.HeaderSize:]); err == nil { // it was decoded before
					c.toServer = pg.AppendBindRenamed(c.toServer, &c.bind, name)
				}
			} else {
				c.toServer = append(c.toServer, frame...)
			}
			c.emitBound(i, start, expectation{kind: 'B', stmt: o.stmt, server: name})
			continue
		case 'E':
			c.hazy = c.hazy || c.sways(o.plan, o.sets)
			if o.use != nil {
				c.emitUse(o, frame)
				continue
			}
		case 'D':
			if o.use != nil && o.stmt != nil {
				c.emitOuter(o.use)
				c.toServer = pg.AppendDescribe(c.toServer, 'S', "")
				c.push(expectation{kind: 'D', stmt: o.stmt, use: o.use})
				continue
			}
			if o.stmt != nil {
				name := c.emitPrepared(o.stmt)
				c.toServer = pg.AppendDescribe(c.toServer, 'S', name)
				e := expectation{kind: 'D', stmt: o.stmt, server: name}
				if name != "" && (o.stmt.shape.Params == 0 || o.stmt.shape.Result == 0) {
					e.learn = o.stmt
				}
				c.push(e)
				continue
			}
			if o.portal != nil && o.portal.shape.Result == 0 {
				c.toServer = append(c.toServer, frame...)
				c.push(expectation{kind: 'D', learn: o.portal, rows: c.describedRows(o)})
				continue
			}
		}
		c.toServer = append(c.toServer, frame...)
		c.push(expectation{kind: o.typ, plan: o.plan, use: o.use, sets: o.sets, rows: c.describedRows(o)})
	}
	switch {
	case c.seg.sync:
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S'})
	case !c.seg.runs && !c.serverOpen && (c.status == 'I' || c.status == 'T' && c.numbers.types != nil), c.seg.apart:
		// Only prepared and described, or see cut: end it here, so that what is bound later may go to another shard. In a block that is for what reads the
		// catalogs: see toReference.
		c.toServer = pg.AppendSync(c.toServer)
		c.push(expectation{kind: 'S', quietZ: true})
	default:
		c.toServer = pg.AppendFlush(c.toServer)
		c.serverOpen = true
	}
}

// emitParse prepares s on the server connection, or answers for it if it is prepared there already. Hidden: the client has
// its ParseComplete.
func (c *core) emitParse(s *statement, hidden bool) {
	name := c.serverName(s)
	types, e := c.declares(s)
	if e != nil {
		c.refuseFor(s, e)
		return
	}
	switch {
	case name == "":
		c.srv.Unnamed = s.id
	case c.srv.Prepared.Has(name):
		// Prepared before its tables were changed, perhaps: the client's Parse means them as they are now.
		c.unprepare(name)
		c.srv.Prepared.Add(name)
	default:
		c.makeRoom(1)
		c.srv.Prepared.Add(name)
	}
	if s.tail != "" {
		c.emitPrepare(s, name)
		return
	}
	c.toServer = pg.AppendParse(c.toServer, name, s.sql, types)
	c.push(expectation{kind: 'P', quiet: hidden, stmt: s, server: name, makes: name})
}

// makeRoom closes statements of the server connection, those first that were not used for longest, so that n more can be
// prepared.
func (c *core) makeRoom(n int) {
	for c.srv.Prepared.Len() > 0 && c.srv.Prepared.Len() > c.srv.PreparedLimit()-n {
		c.unprepare(c.srv.Prepared.Oldest())
	}
}

// unprepare closes a statement of the server connection.
func (c *core) unprepare(name string) {
	c.srv.Prepared.Remove(name)
	c.toServer = pg.AppendClose(c.toServer, 'S', name)
	c.push(expectation{kind: 'C', quiet: true, closed: name})
}

// emitPrepared makes sure that s is prepared on the server connection, and returns its name there.
func (c *core) emitPrepared(s *statement) string {
	name := c.serverName(s)
	if name == "" && c.srv.Unnamed != s.id || name != "" && !c.srv.Prepared.Has(name) {
		c.emitParse(s, true)
	}
	return name
}
