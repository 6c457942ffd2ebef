package scatter

import (
	"encoding/binary"
	"strconv"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// check has a server look at a statement, and not run it.
func (c *Coordinator) check(s *stmt) *pg.Error {
	return c.describe(s, nil, false)
}

func (c *Coordinator) describeStatement(name string) *pg.Error {
	s := c.stmts[name]
	if s == nil {
		return pg.NewError(pg.CodeInvalidStatementName, "prepared statement "+strconv.Quote(name)+" does not exist")
	}
	if own(s.plan) {
		c.taken(s)
		c.out = pg.AppendNoData(pg.AppendNoParameters(c.out))
		return nil
	}
	return c.describe(s, nil, true)
}

func (c *Coordinator) describePortal(p *portal) *pg.Error {
	if own(p.stmt.plan) {
		c.taken(p.stmt)
		c.out = pg.AppendNoData(c.out)
		return nil
	}
	return c.describe(p.stmt, p.bind, true)
}

// own reports whether the coordinator itself carries out a statement.
func own(plan *sqlkey.Plan) bool { return plan.Tx != sqlkey.TxNone || plan.Statements == 0 }

// describe asks a shard that has the statement's tables about it: by the statement itself, whose columns and parameters are the
// session's whatever the shards are asked.
func (c *Coordinator) describe(s *stmt, bind *pg.Bind, tell bool) *pg.Error {
	if len(s.plan.Names) > 0 {
		return c.describeNamed(s, bind, tell)
	}
	b, e := c.describer(s.plan)
	if e != nil {
		return e
	}
	b.send = pg.AppendParse(b.send, "", s.sql, s.oids)
	switch {
	case bind != nil:
		b.send = pg.AppendDescribe(pg.AppendBindAs(b.send, bind, "", ""), pg.KindPortal, "")
	case tell:
		b.send = pg.AppendDescribe(b.send, pg.KindStatement, "")
	}
	b.send = pg.AppendSync(b.send)
	b.conn.Unnamed = 0
	b.begin()
	defer b.done()
	if e = b.flush(); e == nil {
		e = b.receive(func(typ byte, size int) *pg.Error {
			f, err := b.frame(size)
			switch {
			case err != nil:
				return b.lost(err)
			case typ == pg.TypeParseComplete:
				c.taken(s)
			case typ == pg.TypeParameterDescription && tell:
				if types, err := pg.DecodeParameterDescription(f[pg.HeaderSize:]); err == nil {
					s.told(types, c.cfg.Host)
				}
				c.out = append(c.out, f...)
			case typ != pg.TypeBindComplete && tell || typ == pg.TypeNoticeResponse:
				c.out = append(c.out, f...)
			}
			return nil
		})
	}
	if e != nil && !s.sure {
		c.refused(s)
	}
	return e
}

// describer is a branch that knows the statement's tables.
func (c *Coordinator) describer(plan *sqlkey.Plan) (*branch, *pg.Error) {
	if b := c.fetchedFrom(plan); b != nil {
		return b, nil
	}
	switch plan.Target {
	case sqlkey.Keyed, sqlkey.Many:
		slot, e := c.cfg.Host.Describes(plan)
		if e != nil {
			return nil, e
		}
		return c.branch(slot, c.writeFor(plan))
	}
	return c.branchFor(plan, nil)
}

// columnsOf is the number of columns of a RowDescription, and where in its body each of them begins and ends.
func columnsOf(body []byte) (ends []int, ok bool) {
	if len(body) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	at := 2
	for range n {
		for at < len(body) && body[at] != 0 {
			at++
		}
		if at += 1 + 18; at > len(body) {
			return nil, false
		}
		ends = append(ends, at)
	}
	return ends, at == len(body)
}
