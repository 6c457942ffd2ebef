package scatter

import (
	"cmp"
	"encoding/binary"

	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// copyOut is one COPY TO STDOUT of several shards. All make their rows at the same time; the session gets one shard's after the other's.
type copyOut struct {
	c    *Coordinator
	x    *execution
	copy *sqlkey.Copy
	tag  string

	// of the shard in hand
	first   bool          // it is the first one: what it says goes to the session
	fresh   bool          // nothing of its data has come yet
	columns []oids.Column // whose values hold numbers of types
}

// binaryTrailer ends data in binary format.
const binaryTrailer = "\xff\xff"

// copyOut runs COPY TO STDOUT on several shards.
func (c *Coordinator) copyOut(x *execution) *pg.Error {
	plan := x.stmt.plan
	shares, e := c.shares(plan, x)
	if e != nil {
		return e
	}
	columns, e := c.copied(x, shares)
	if e != nil {
		return e
	}
	branches := make([]*branch, len(shares))
	for i := range shares {
		b, e := c.branch(shares[i].Slot, c.writeFor(plan))
		if e != nil {
			abandon(branches[:i])
			return e
		}
		branches[i] = b
		if e := c.lost(c.ctx); e != nil {
			abandon(branches[:i])
			return e
		}
		c.marks0(x, b)
		b.send = pg.AppendSync(x.appendRun(b.send, cmp.Or(shares[i].SQL, x.stmt.sql), "", 0))
		b.begin()
		if e := b.flush(); e != nil {
			abandon(branches[:i])
			b.done()
			return c.ended(x, b, e)
		}
	}
	o := &copyOut{c: c, x: x, copy: plan.Fan.Copy}
	for i, b := range branches {
		if o.first, o.fresh = i == 0, true; columns != nil {
			o.columns = columns[i]
		}
		e := b.receive(func(typ byte, size int) *pg.Error { return o.frame(b, typ, size) })
		b.done()
		if e == nil && c.gone != nil {
			e = gone()
		}
		if e != nil {
			abandon(branches[i+1:])
			return c.ended(x, b, e)
		}
	}
	if o.copy.Format == sqlkey.CopyBinary {
		c.out = append(c.out, pg.TypeCopyData, 0, 0, 0, 4+byte(len(binaryTrailer)))
		c.out = append(c.out, binaryTrailer...)
	}
	c.out = pg.AppendCopyDone(c.out)
	c.complete(x, o.tag)
	return nil
}

// copyNamed carries out a COPY of a table without a list of columns as the one with all that it has: their order may be another one on each shard.
func (c *Coordinator) copyNamed(x *execution) *pg.Error {
	plan := x.stmt.plan
	slot, e := c.cfg.Host.Describes(plan)
	if e != nil {
		return e
	}
	b, e := c.branch(slot, c.writeFor(plan))
	if e != nil {
		return e
	}
	columns, e := c.columnsOf(b, plan.Fan.Copy.Schema, plan.Fan.Copy.Name, false)
	if e != nil {
		return e
	}
	sql, err := sqlkey.NameCopied(x.stmt.sql, columns)
	if err != nil {
		return pg.NewError(pg.CodeFeatureNotSupported, "the columns of the COPY cannot be named").WithDetail(err.Error() + ".").WithHint("Name them: COPY table (column, ...) TO STDOUT.")
	}
	return c.executeAs(x, sql)
}

// abandon gives up branches that still have rows which nobody wants.
func abandon(branches []*branch) {
	for _, b := range branches {
		b.done()
		b.strike()
		b.broken = true
	}
}

// frame takes one frame of a shard's answer.
func (o *copyOut) frame(b *branch, typ byte, size int) *pg.Error {
	switch typ {
	case pg.TypeCopyData:
		return o.data(b, size)
	case pg.TypeNoticeResponse, pg.TypeParameterStatus:
		return o.c.relay(o.x, b, typ, size)
	case pg.TypeCommandComplete:
		f, err := b.frame(size)
		if err != nil {
			return b.lost(err)
		}
		o.tag = sum(o.tag, string(pg.CommandTag(f[pg.HeaderSize:])))
		return nil
	}
	if o.first && typ != pg.TypeCopyDone {
		return o.c.relay(o.x, b, typ, size)
	}
	if _, err := b.frame(size); err != nil {
		return b.lost(err)
	}
	return nil
}

// data takes one message of rows. What begins and ends the data is for the session once.
func (o *copyOut) data(b *branch, size int) *pg.Error {
	fresh := o.fresh
	o.fresh = false
	switch binaryFormat := o.copy.Format == sqlkey.CopyBinary; {
	case binaryFormat && (fresh || len(o.columns) > 0): // with a first row, which may be large
		memory := ration{of: &o.c.cfg.Shared.Memory}
		if _, e := memory.takeRow(b, size); e != nil {
			return e
		}
		defer memory.drop()
		f, err := b.frame(size)
		if err != nil {
			return b.lost(err)
		}
		if !fresh {
			return o.tuple(b, f)
		}
		return o.binary(b, f[pg.HeaderSize:])
	case binaryFormat && size == pg.HeaderSize+len(binaryTrailer), fresh && !o.first && o.copy.Header:
		if _, err := b.frame(size); err != nil {
			return b.lost(err)
		}
		return nil
	}
	read, written := b.pass(size, o.c.emit)
	if written == nil && !b.buffered() {
		written = o.c.flush()
	}
	if written != nil {
		b.strike()
	}
	if read != nil {
		return b.lost(read)
	}
	return nil
}

// binary takes a shard's first message in binary format: the header, and the first row or the trailer.
func (o *copyOut) binary(b *branch, data []byte) *pg.Error {
	const fixed = 19 // bytes of a header without its extension
	if len(data) < fixed {
		return pg.NewError(pg.CodeProtocolViolation, "a shard's data in binary format have no header")
	}
	header := fixed + int(binary.BigEndian.Uint32(data[fixed-4:]))
	if header < fixed || header > len(data) {
		return pg.NewError(pg.CodeProtocolViolation, "a shard's data in binary format have a header without an end")
	}
	rest := data[header:]
	if string(rest) == binaryTrailer {
		rest = nil
	}
	if e := o.row(b, rest); e != nil {
		return e
	}
	if o.first {
		data = data[:header+len(rest)]
	} else if data = rest; len(data) == 0 {
		return nil
	}
	o.c.out = append(o.c.out, pg.TypeCopyData)
	o.c.out = binary.BigEndian.AppendUint32(o.c.out, uint32(4+len(data)))
	if o.c.emit(data) != nil {
		return gone()
	}
	return nil
}

// tuple takes a row, or what ends the data, of which the frame is given.
func (o *copyOut) tuple(b *branch, frame []byte) *pg.Error {
	if string(frame[pg.HeaderSize:]) == binaryTrailer {
		return nil
	}
	if e := o.row(b, frame[pg.HeaderSize:]); e != nil {
		return e
	}
	if o.c.emit(frame) != nil {
		return gone()
	}
	return nil
}
