package scatter

import (
	"bytes"
	"strings"
	"sync"

	"rangefinder/fib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
)

// part is one shard's part of it.
type part struct {
	f       *fanout
	slot    *fib.Slot
	request []byte        // if its rows are not gathered
	sql     string        // if they are
	chooser Chooser       // nil: it has a branch already
	placed  chan struct{} // closed when it does not stand in line for a connection any more, or not yet

	once sync.Once // guards the closing of placed

	// owned by its goroutine, and by the coordinator's when that has ended
	b         *branch
	described chan struct{} // closed when desc is there, or will not be
	desc      []byte        // the body of the RowDescription; nil: no rows
	none      bool          // it has no rows
	iso       bool          // dates come in ISO 8601
	asIs      bool          // text comes in the server's own encoding
	encoding  string        // of text
	told      bool
	begun     bool // rows of it have been handed on
	writes    bool // a replica has refused it: it writes, though it does not look so
	tag       string
	err       *pg.Error
	rows      chan batch // constant
	given     []int      // constant; asWritten: the numbers of the rows that it inserts, ascending

	// owned by the coordinator's goroutine
	checked bool
	sum     uint64 // of a write to copies of a reference table: of hashes of its rows, or how many they are
}

// batch is some rows of a part, as whole frames.
type batch struct {
	p     *part
	rows  *[]byte
	large int  // bytes of them that are counted
	end   bool // it was the last
}

// spent gives back what a batch has taken. Its rows are not to be used any more.
func (f *fanout) spent(bt batch) {
	if bt.rows != nil {
		free(bt.rows)
	}
	if bt.large > 0 {
		f.memory.give(bt.large)
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, readSize); return &b }}

// run has the part's shard carry out its part, in a goroutine of its own.
func (p *part) run() {
	f := p.f
	p.err = f.c.guard(p.tries)
	if f.alone && p.b != nil {
		f.c.drop(p)
	}
	p.place()
	if p.err != nil {
		select {
		case f.bad <- p.err:
		default: // another one was first
		}
	}
	p.tell(nil, false)
	select {
	case p.rows <- batch{p: p, end: true}:
	case <-f.stop:
	}
}

// tries asks the shard, and if need be another copy of it.
func (p *part) tries() *pg.Error {
	f := p.f
	for {
		p.err = p.try()
		if p.err == nil || !f.alone || p.begun || !p.elsewhere() {
			break
		}
		f.c.drop(p)
	}
	if p.writes && p.err == nil {
		f.c.noteWrite(Wrote{Slot: p.slot, Hop: p.b.hop})
	}
	return p.err
}

// place says that the part does not stand in line.
func (p *part) place() { p.once.Do(func() { close(p.placed) }) }

// elsewhere reports whether another copy may do better: the connection has broken before anything was heard, or a replica says that it is
// no plain read after all, or that it runs nothing that is serializable, or not this since it recovers. What a primary says of these stands.
func (p *part) elsewhere() bool {
	if p.b == nil || p.f.ctx.Err() != nil {
		return false
	}
	if p.err.OfStandby() {
		p.b.conn.Strict = true // since it was connected to
	}
	writes := p.err.Code == pg.CodeReadOnlyTransaction
	if (writes || p.err.Code == pg.CodeObjectNotInPrerequisiteState || p.err.OfStandby()) && p.b.conn.Standby() && !p.f.write {
		p.chooser, p.writes = p.f.c.cfg.Host.Choose(p.slot, true), writes
		return true
	}
	return p.b.broken && p.err.Code == pg.CodeConnectionFailure
}

// drop gives up a part's connection.
func (c *Coordinator) drop(p *part) {
	c.release(p.b)
	p.b = nil
}

// tell says what the part's columns are. none: it has no rows.
func (p *part) tell(desc []byte, none bool) {
	if !p.told {
		p.told, p.desc, p.none = true, desc, none
		close(p.described)
	}
}

// try asks the shard and hands on its rows.
func (p *part) try() *pg.Error {
	f, c := p.f, p.f.c
	if p.b == nil {
		b, e := c.connect(f.ctx, p.slot, p.chooser, f.write, p.place)
		if e != nil {
			return e
		}
		if !f.alone {
			c.joins(b)
		}
		p.b = b
	}
	b := p.b
	b.begin()
	defer b.done()
	if f.ctx.Err() != nil { // then nothing of it has run there
		return c.stopped()
	}
	if e := c.lost(f.ctx); e != nil {
		return e
	}
	c.marks0(f.x, b)
	request, e := p.request, (*pg.Error)(nil)
	if f.how == gathered {
		request, e = p.gathers()
	}
	if e == nil {
		b.send = append(b.send, request...)
		e = p.receive()
	}
	if e == nil {
		return nil
	}
	if why := c.brokenBy(e); why != nil {
		return why
	}
	c.cfg.Host.Failed(b.hop, e.Code)
	switch {
	case !b.broken || e.Hint != "":
	case f.alone:
		e = e.WithHint("It was a read: it can be tried again.")
	default:
		e = e.WithHint("The transaction was rolled back: try it again.")
	}
	return e
}

// receive sends what is due to the shard, and hands on its rows.
func (p *part) receive() *pg.Error {
	f, c, b := p.f, p.f.c, p.b
	if e := b.flush(); e != nil {
		return e
	}
	var buf *[]byte
	counted := 0 // bytes of it
	e := b.receiveAll(toldNothing, func(typ byte, size int) *pg.Error {
		if typ == pg.TypeDataRow {
			n, e := f.memory.takeRow(b, size)
			if e != nil {
				return e
			}
			counted += n
		}
		frame, err := b.frame(size)
		if err != nil {
			return b.lost(err)
		}
		switch typ {
		case pg.TypeRowDescription:
			p.iso = strings.HasPrefix(b.conn.Params["DateStyle"], "ISO")
			p.encoding = b.conn.Params["client_encoding"]
			own := b.conn.Params["server_encoding"]
			p.asIs = p.encoding == own || p.encoding == "SQL_ASCII" || own == "SQL_ASCII"
			p.tell(bytes.Clone(frame[pg.HeaderSize:]), false)
		case pg.TypeNoData:
			p.tell(nil, true)
		case pg.TypeDataRow:
			if buf == nil {
				buf = buffers.Get().(*[]byte)
			}
			*buf = append(*buf, frame...)
		case pg.TypeCommandComplete:
			p.tag = string(pg.CommandTag(frame[pg.HeaderSize:]))
		case pg.TypeNoticeResponse:
			c.notice(frame)
		case pg.TypeParameterStatus:
			b.parameter(frame)
		case pg.TypeCopyOutResponse: // which is no answer to it
			return b.lost(outOfPlace(typ))
		}
		if buf != nil && (len(*buf) >= readSize || !b.buffered()) {
			p.hand(batch{p: p, rows: buf, large: counted})
			buf, counted = nil, 0
		}
		return nil
	})
	if buf != nil {
		p.hand(batch{p: p, rows: buf, large: counted})
	}
	return e
}

// joins makes a part's branch one of the transaction's, as others do at the same time.
func (c *Coordinator) joins(b *branch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.join(b)
}

// maxNotices bounds, in bytes, the notices of one statement that are kept.
const maxNotices = 64 << 10

// hand hands on some rows. It waits until somebody takes them, or none are wanted any more.
func (p *part) hand(bt batch) {
	select {
	case p.rows <- bt:
		p.begun = true
	case <-p.f.stop:
		p.f.spent(bt)
	}
}

func free(rows *[]byte) {
	if cap(*rows) <= 4*readSize {
		*rows = (*rows)[:0]
		buffers.Put(rows)
	}
}

// agrees is the error for a shard whose columns are not the others'.
func (f *fanout) agrees(p *part) *pg.Error {
	if p == f.home {
		return nil
	}
	if !alike(f.home.desc, p.desc) {
		return drift(f.home, p)
	}
	return nil
}

// alike reports whether the columns of two shards' descriptions have the same names and types, as far as that can be told: a type that was made a moment ago may be
// unknown to one of them. nil is none.
func alike(one, other []byte) bool {
	if (one == nil) != (other == nil) {
		return false
	}
	a, _ := columnsOf(one)
	b, _ := columnsOf(other)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if nameAt(one, a, i) != nameAt(other, b, i) { // the columns that * stands for come in another order
			return false
		}
		x, y := typeAt(one, a[i]), typeAt(other, b[i])
		if x != y && !(x == oids.Unknown && y >= oids.First) && !(y == oids.Unknown && x >= oids.First) {
			return false
		}
	}
	return true
}
