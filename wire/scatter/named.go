package scatter

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unicode/utf8"

	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// SQL's PREPARE, EXECUTE and DEALLOCATE are carried out here: what they name is among the statements of the protocol, and no shard knows it.

// named carries out a statement that names a prepared one.
func (c *Coordinator) named(x *execution) *pg.Error {
	u := &x.stmt.plan.Names[0]
	switch u.Op {
	case sqlkey.NamePrepare:
		if e := c.prepare(x.stmt, u); e != nil {
			return e
		}
		c.taken(x.stmt)
		c.tell(x, "PREPARE")
		return nil
	case sqlkey.NameDeallocate:
		c.taken(x.stmt)
		tag := "DEALLOCATE"
		switch {
		case u.Name == "":
			clear(c.stmts)
			tag = "DEALLOCATE ALL"
		case c.stmts[u.Name] == nil:
			return noStatement(u.Name)
		}
		delete(c.stmts, u.Name)
		c.tell(x, tag)
		return nil
	}
	run := *x
	run.alone = false
	if p := x.portal; p != nil && p.inner != nil { // it goes on
		run.stmt, run.bind = p.inner, p.args
	} else {
		var e *pg.Error
		if run.stmt, run.bind, e = c.executes(x.stmt, u, x.bind); e != nil {
			return e
		}
		if p != nil {
			p.inner, p.args = run.stmt, run.bind
		}
	}
	inner := run.stmt
	c.taken(x.stmt)
	if of := x.stmt.plan.Explains; of != nil {
		if e := c.refuses(inner.plan); e != nil {
			return e
		}
		return c.explain(&run, of, inner.plan, inner.sql)
	}
	return c.execute(&run)
}

func noStatement(name string) *pg.Error {
	return pg.NewError(pg.CodeInvalidStatementName, "prepared statement "+strconv.Quote(name)+" does not exist")
}

// prepare adds what a PREPARE prepares, once a shard has found it right.
func (c *Coordinator) prepare(s *stmt, u *sqlkey.NameUse) *pg.Error {
	if c.stmts[u.Name] != nil {
		return pg.NewError(pg.CodeDuplicateStatement, "prepared statement "+strconv.Quote(u.Name)+" already exists")
	}
	inner := &stmt{name: u.Name, sql: u.Inner, oids: append([]uint32(nil), u.Types...), plan: c.cfg.Host.Plan(u.Inner, u.Types)}
	for i, oid := range inner.oids {
		if oid != sqlkey.OtherType {
			continue
		}
		inner.oids[i] = 0
		b, e := c.describer(inner.plan)
		if e != nil {
			return e
		}
		row, e := c.ask(b, &execution{stmt: s, bind: noArguments}, "SELECT "+rib.QuoteLiteral(u.TypeNames[i])+"::pg_catalog.regtype::pg_catalog.oid")
		if e != nil {
			return e
		}
		if n, err := strconv.ParseUint(strings.Join(row, ""), 10, 32); err == nil && n < oids.First { // others differ between shards: the text tells
			inner.oids[i] = uint32(n)
		}
	}
	if e := c.check(inner); e != nil {
		if at, err := strconv.Atoi(e.Position); err == nil { // it is one in the whole text
			out := *e
			out.Position = strconv.Itoa(at + utf8.RuneCountInString(s.sql[:u.End]+u.Tail[:len(u.Tail)-len(u.Inner)]))
			e = &out
		}
		return e
	}
	c.stmts[u.Name] = inner
	return nil
}

// executable is what an EXECUTE runs.
func (c *Coordinator) executable(u *sqlkey.NameUse) (*stmt, *pg.Error) {
	inner := c.stmts[u.Name]
	switch {
	case inner == nil:
		return nil, noStatement(u.Name)
	case u.Creates:
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "CREATE TABLE AS EXECUTE cannot be part of a transaction over several shards").
			WithHint("Make the table first, and insert what a SELECT returns.")
	}
	return inner, nil
}

// executes is what an EXECUTE runs, with its arguments, which are evaluated. The results come as bind has it.
func (c *Coordinator) executes(s *stmt, u *sqlkey.NameUse, bind *pg.Bind) (*stmt, *pg.Bind, *pg.Error) {
	inner, e := c.executable(u)
	if e != nil {
		return nil, nil, e
	}
	values := make([][]byte, len(u.Args))
	for i, a := range u.Args {
		if !a.Null {
			values[i] = append([]byte{}, a.Text...)
		}
	}
	if u.Ask != "" {
		b, e := c.describer(inner.plan)
		if e != nil {
			return nil, nil, e
		}
		if e = c.evaluate(b, s, u.Ask, values); e != nil {
			return nil, nil, e
		}
	}
	out := new(pg.Bind)
	if err := out.Decode(pg.AppendBindWith(nil, bind, make([]bool, bind.NumParams()), values, pg.FormatText, nil)[pg.HeaderSize:]); err != nil {
		return nil, nil, asError(err)
	}
	return inner, out, nil
}

// evaluate has a shard evaluate expressions.
func (c *Coordinator) evaluate(b *branch, s *stmt, sql string, values [][]byte) *pg.Error {
	if e := c.mayWrite(s.plan, []Share{{Slot: b.slot}}); e != nil {
		return e
	}
	x := &execution{stmt: s, bind: noArguments}
	got := 0
	about := &errand{b: b, send: pg.AppendDescribe(pg.AppendParse(nil, "", sql, nil), pg.KindStatement, "")}
	if e := c.errands(x, []*errand{about}); e != nil {
		return e
	}
	ends, ok := columnsOf(about.desc)
	if !ok || len(ends) != len(values) {
		return malformed()
	}
	as := formats(about.desc, ends)
	ask := &errand{b: b, writes: writes(s.plan), send: x.appendAsk(nil, sql, nil, as)}
	ask.row = func(frame []byte) *pg.Error {
		row, err := pg.DecodeDataRow(frame[pg.HeaderSize:])
		if err != nil || len(row) != len(values) {
			return malformed()
		}
		for i, v := range row {
			switch values[i] = nil; {
			case v == nil:
			case as[i] == pg.FormatBinary:
				values[i] = appendExact([]byte{}, typeAt(about.desc, ends[i]), v)
			default:
				values[i] = append([]byte{}, v...)
			}
		}
		got++
		return nil
	}
	if e := c.errands(x, []*errand{ask}); e != nil {
		return e
	}
	if got != 1 {
		return malformed()
	}
	return nil
}

// describeNamed tells what comes of a statement that names a prepared one.
func (c *Coordinator) describeNamed(s *stmt, bind *pg.Bind, tell bool) *pg.Error {
	u := &s.plan.Names[0]
	c.taken(s)
	if !tell {
		return nil
	}
	if bind == nil {
		c.out = pg.AppendNoParameters(c.out)
	}
	if u.Op != sqlkey.NameExecute {
		c.out = pg.AppendNoData(c.out)
		return nil
	}
	inner, e := c.executable(u)
	if e != nil {
		return e
	}
	if of := s.plan.Explains; of != nil {
		c.out = explainColumns(c.out, of)
		return nil
	}
	return c.describeInner(inner, bind)
}

// describeInner tells the columns of what an EXECUTE runs. Its arguments are not evaluated for that: so only the statement can be described, and in
// which format the columns come the Bind says; nil: as text.
func (c *Coordinator) describeInner(inner *stmt, bind *pg.Bind) *pg.Error {
	b, e := c.describer(inner.plan)
	if e != nil {
		return e
	}
	x := &execution{stmt: inner, bind: noArguments}
	ask := &errand{b: b, send: pg.AppendDescribe(pg.AppendParse(nil, "", inner.sql, inner.oids), pg.KindStatement, "")}
	if e := c.errands(x, []*errand{ask}); e != nil {
		return e
	}
	if ask.desc == nil {
		c.out = pg.AppendNoData(c.out)
		return nil
	}
	ends, ok := columnsOf(ask.desc)
	if !ok {
		return malformed()
	}
	for i, end := range ends {
		if bind != nil {
			binary.BigEndian.PutUint16(ask.desc[end-2:], uint16(formatOf(bind, i)))
		}
	}
	c.out = pg.AppendFrame(c.out, pg.TypeRowDescription, ask.desc)
	return nil
}
