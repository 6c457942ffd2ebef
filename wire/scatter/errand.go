package scatter

import (
	"bytes"
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"rangefinder/wire/pg"
)

// errand is something that a branch is asked by the coordinator for a statement of the session's.
type errand struct {
	b      *branch
	send   []byte // messages without their Sync
	writes bool
	row    func(frame []byte) *pg.Error // takes a row's frame, in the errand's goroutine; nil: there are none
	memory *ration                      // what a row is counted in before it is read; nil: none is kept

	// what has come
	desc []byte // the body of the RowDescription; nil: none
	oids []uint32
	tag  string
	err  *pg.Error
}

// errands has branches, each no more than once, do what they are asked, at once. Once a row is not taken no more are, and all are canceled. The error
// is that row's, else the first of the list's.
func (c *Coordinator) errands(x *execution, list []*errand) *pg.Error {
	var wg sync.WaitGroup
	var enough refusal
	for _, r := range list {
		r.b.wrote = r.b.wrote || r.writes
		r.b.opaque = r.b.opaque || x.stmt.plan.Opaque
		wg.Go(func() { r.err = c.guard(func() *pg.Error { return r.run(c, &enough) }) })
	}
	wg.Wait()
	c.mu.Lock()
	c.out = append(c.out, c.notices...)
	c.notices = c.notices[:0]
	c.mu.Unlock()
	if r := enough.by.Load(); r != nil {
		return c.ended(x, r.b, r.err)
	}
	for _, r := range list {
		if r.err != nil {
			return c.ended(x, r.b, r.err)
		}
	}
	return nil
}

// refusal is that of the first errand that has not taken a row.
type refusal struct {
	by atomic.Pointer[errand]
}

// refuse says that r takes no more rows, whose error is to be told, and cancels what the others do. It reports whether r is the first.
func (r *errand) refuse(c *Coordinator, enough *refusal) {
	if enough.by.CompareAndSwap(nil, r) {
		c.cancelLive()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cancelLimit)
	defer cancel()
	_ = r.b.cancel(ctx) // it had not begun by then. What is not heard runs to its end
}

// take takes the row whose frame is next. One that there is no memory for is not kept, not even for a moment.
func (r *errand) take(size int) (*pg.Error, error) {
	if r.memory != nil {
		if e := r.memory.take(size); e != nil {
			return e, r.b.skip(size)
		}
	}
	f, err := r.b.frame(size)
	if err != nil {
		return nil, err
	}
	return r.row(f), nil
}

func (r *errand) run(c *Coordinator, enough *refusal) *pg.Error {
	b := r.b
	b.conn.Unnamed = 0
	b.begin()
	defer b.done()
	b.send = pg.AppendSync(append(b.send, r.send...))
	if e := b.flush(); e != nil {
		return e
	}
	full := false
	return b.receive(func(typ byte, size int) *pg.Error {
		if typ == pg.TypeDataRow && r.row != nil {
			if full {
				return b.lostIf(b.skip(size))
			}
			if full = enough.by.Load() != nil; full {
				r.refuse(c, enough)
				return b.lostIf(b.skip(size))
			}
			e, err := r.take(size)
			if full = e != nil; full {
				r.refuse(c, enough)
			}
			if err != nil {
				return b.lost(err)
			}
			return e
		}
		f, err := b.frame(size)
		if err != nil {
			return b.lost(err)
		}
		switch typ {
		case pg.TypeRowDescription:
			r.desc = bytes.Clone(f[pg.HeaderSize:])
		case pg.TypeParameterDescription:
			r.oids, err = pg.DecodeParameterDescription(f[pg.HeaderSize:])
			if err != nil {
				return b.lost(err)
			}
		case pg.TypeCommandComplete:
			r.tag = string(pg.CommandTag(f[pg.HeaderSize:]))
		case pg.TypeNoticeResponse:
			c.notice(f)
		case pg.TypeParameterStatus:
			b.parameter(f)
		}
		return nil
	})
}

// typed are which of the parameters of x a text mentions, and the types of these, and of arrays of text behind them.
func (x *execution) typed(sql string, arrays int) (keep []bool, oids []uint32) {
	n := x.bind.NumParams()
	keep, oids = mentioned(sql, n), make([]uint32, n+arrays)
	copy(oids[:n], x.stmt.oids)
	for i := range oids {
		switch {
		case i >= n:
			oids[i] = oidTextArray
		case !keep[i]:
			oids[i] = oidText
		}
	}
	return keep, oids
}

// appendAsk appends what has a shard carry out a text that may have the parameters of x, and behind these arrays of text, in binary form. results are the formats of
// its columns; nil: those of x.
func (x *execution) appendAsk(dst []byte, sql string, arrays [][]byte, results []int16) []byte {
	keep, oids := x.typed(sql, len(arrays))
	dst = pg.AppendParse(dst, "", sql, oids)
	dst = pg.AppendBindWith(dst, x.bind, keep, arrays, pg.FormatBinary, results)
	dst = pg.AppendDescribe(dst, pg.KindPortal, "")
	return pg.AppendExecute(dst, "", 0)
}

// typesOf are the names of a description's types, without modifiers, as the shard of b has them.
func (c *Coordinator) typesOf(x *execution, b *branch, desc []byte, ends []int) ([]string, *pg.Error) {
	names := make([]string, len(ends))
	ask, where := "SELECT", []int(nil)
	for i, end := range ends {
		oid := typeAt(desc, end)
		if name, ok := commonTypes[oid]; ok {
			names[i] = "pg_catalog." + name
			continue
		}
		if len(where) > 0 {
			ask += ","
		}
		ask += " pg_catalog.format_type(" + strconv.FormatUint(uint64(b.local(oid)), 10) + ", -1)"
		where = append(where, i)
	}
	if len(where) == 0 {
		return names, nil
	}
	row, e := c.ask(b, x, ask)
	if e != nil {
		return nil, e
	}
	for j, i := range where {
		if j >= len(row) || !isType(row[j]) {
			return nil, unknownType()
		}
		names[i] = row[j]
	}
	return names, nil
}

// isType tells whether what format_type says is the name of a type that values can have.
func isType(name string) bool { return name != "-" && name != "???" && name != "unknown" }

func unknownType() *pg.Error {
	return pg.NewError(pg.CodeUndefinedObject, "a shard does not know the type of a column")
}

// tagged is the number at the end of a command tag.
func tagged(tag string) (n int) {
	for i, scale := len(tag)-1, 1; i >= 0 && tag[i] >= '0' && tag[i] <= '9'; i, scale = i-1, scale*10 {
		n += int(tag[i]-'0') * scale
	}
	return n
}
