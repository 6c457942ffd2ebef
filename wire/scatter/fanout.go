package scatter

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// fanout is one statement on its way to several shards and back.
type fanout struct {
	// constant
	c      *Coordinator
	x      *execution
	fan    *sqlkey.Fan
	how    way
	write  bool
	alone  bool // a read in no transaction: each shard's part is by itself, and may be tried again elsewhere
	offset int64
	limit  int64
	ctx    context.Context
	cut    context.CancelFunc
	stop   chan struct{}  // closed when no more rows are wanted
	bad    chan *pg.Error // the first error of a part, as soon as it is known; capacity 1
	rows   chan batch

	once sync.Once
	wg   sync.WaitGroup

	// owned by the coordinator's goroutine
	parts   []*part
	keys    []key // merge's
	last    int   // the last column among them
	cursors []cursor
	home    *part // by whose numbers the columns are described
	columns int   // that the session sees; -1: no rows
	sent    int64 // rows that the session has got, or that are kept for it
	passed  int64 // rows of OFFSET that were left out
	memory  ration
	keep    *rest        // where rows go if not to the session
	seed    maphash.Seed // of the parts' sums
	seeded  bool
	counts  bool // these are numbers of rows

	canceled bool // what still runs
}

// frames makes what a shard is sent whose rows are not gathered.
func (f *fanout) frames(s *Share) []byte {
	x := f.x
	sql := cmp.Or(s.SQL, f.fan.SQL)
	if sql == "" {
		return pg.AppendSync(x.appendRun(nil, x.stmt.sql, "", 0))
	}
	var results []int16
	if n := x.bind.NumResults(); n > 1 && f.fan.Hidden > 0 { // one for each of the session's columns
		for i := range n {
			results = append(results, x.bind.Result(i))
		}
		results = append(results, make([]int16, f.fan.Hidden)...)
	}
	return pg.AppendSync(x.appendAsk(nil, sql, nil, results))
}

// rowsOf makes what a shard is asked that gets some of the rows: prefix stands before the statement.
func (x *execution) rowsOf(split *sqlkey.Split, rows []int, prefix string) []byte {
	sql, params := split.Part(rows)
	oids := make([]uint32, len(params))
	for i, n := range params {
		if n <= len(x.stmt.oids) {
			oids[i] = x.stmt.oids[n-1]
		}
	}
	out := pg.AppendParse(nil, "", prefix+sql, oids)
	out = pg.AppendBindOf(out, x.bind, params)
	out = pg.AppendDescribe(out, pg.KindPortal, "")
	return pg.AppendExecute(out, "", 0)
}

// begin asks all shards.
func (f *fanout) begin(shares []Share) {
	shared := make(chan batch, len(shares))
	f.rows = shared
	var usual []byte
	for i := range shares {
		s := &shares[i]
		slot := s.Slot
		p := &part{f: f, slot: slot, rows: shared, described: make(chan struct{}), placed: make(chan struct{})}
		switch {
		case f.how == gathered:
			p.sql = cmp.Or(s.SQL, f.fan.SQL, f.x.stmt.sql)
		case f.fan.Split != nil:
			p.given = s.Rows
			p.request = pg.AppendSync(f.x.rowsOf(f.fan.Split, s.Rows, ""))
		case s.SQL != "":
			p.request = f.frames(s)
		default:
			if usual == nil {
				usual = f.frames(s)
			}
			p.request = usual
		}
		if f.how == merged || f.how == asWritten {
			p.rows = make(chan batch, 1)
		}
		if !f.alone {
			p.b = f.c.branches[slot.Shard()]
		}
		if p.b == nil {
			p.chooser = f.c.cfg.Host.Choose(slot, f.write)
		}
		f.parts = append(f.parts, p)
		if f.home == nil || slot.Shard() == f.c.cfg.Host.Home() {
			f.home = p
		}
	}
	f.wg.Go(f.start)
}

// start has the parts begin: those that have a connection at once, the others in the order of their shards, each when the one before it does not stand in
// line for a connection any more. So statements that stand in line for each other's connections do not do so in a circle. A write to copies of a table,
// which has all connections by now, is done on one shard first (see sqlkey.Fan.Lead), and so is what concerns tables as such: there those meet who lock the same
// rows or tables.
func (f *fanout) start() {
	var lead *part
	switch {
	case f.fan.Alike():
		lead = f.home // whose rows are taken from the start
	case f.fan.Everywhere && f.how == asTheyCome:
		lead = f.parts[0] // which has no rows
	}
	if lead != nil {
		if lead.run(); lead.err != nil {
			return
		}
	}
	for _, p := range f.parts {
		if p.b != nil && p != lead {
			f.wg.Go(p.run)
		}
	}
	for _, p := range f.parts {
		if p.chooser != nil && p != lead {
			f.wg.Go(p.run)
			<-p.placed
		}
	}
}

// enough says that no more rows are wanted. What runs by itself is canceled; in a transaction that would end it.
func (f *fanout) enough(cancel bool) {
	f.once.Do(func() {
		close(f.stop)
		f.cut()
		if f.canceled = cancel; cancel {
			f.c.cancelLive()
		}
	})
}

// describe tells the session the columns, once.
func (f *fanout) describe() *pg.Error {
	if e := f.described(); e != nil {
		return e
	}
	switch {
	case f.home.none:
		f.columns = -1
		f.c.taken(f.x.stmt)
		if f.x.columns && !f.x.simple {
			f.c.out = pg.AppendNoData(f.c.out)
		}
		return nil
	case f.home.desc == nil:
		_, e := f.awaitHome()
		return e
	}
	ends, ok := columnsOf(f.home.desc)
	if !ok || len(ends) < f.fan.Hidden {
		return pg.NewError(pg.CodeInternalError, "a shard has described rows that it cannot have")
	}
	if f.fan.SQL == "" && !f.x.simple { // else they are described in other words, and checked by who describes them
		if e := f.c.cfg.Host.Changed(f.x.stmt.name, f.home.desc); e != nil {
			return e
		}
	}
	f.columns = len(ends) - f.fan.Hidden
	f.c.taken(f.x.stmt)
	switch {
	case f.x.made != nil:
		f.x.made.begin(namesOf(f.home.desc, ends, f.columns), f.home.encoding)
	case f.x.columns:
		end := 2
		if f.columns > 0 {
			end = ends[f.columns-1]
		}
		f.c.out = append(f.c.out, pg.TypeRowDescription)
		f.c.out = binary.BigEndian.AppendUint32(f.c.out, uint32(4+end))
		f.c.out = binary.BigEndian.AppendUint16(f.c.out, uint16(f.columns))
		f.c.out = append(f.c.out, f.home.desc[2:end]...)
	}
	return nil
}

// typeAt is the type of the column that ends there.
func typeAt(desc []byte, end int) uint32 { return binary.BigEndian.Uint32(desc[end-12:]) }

// modifierAt is its type's modifier; -1: it has none.
func modifierAt(desc []byte, end int) int32 { return int32(binary.BigEndian.Uint32(desc[end-6:])) }

func drift(a, b *part) *pg.Error { return driftBetween(a.slot, b.slot) }

func driftBetween(a, b *fib.Slot) *pg.Error {
	return pg.NewError(pg.CodeDatatypeMismatch, "the shards' tables differ: they answer with other columns").
		WithDetail("Compare " + a.Shard() + " with " + b.Shard() + ".").
		WithHint("Bring the tables of all shards to the same definition.")
}

// concat hands on the rows as they come.
func (f *fanout) concat() *pg.Error {
	if e := f.describe(); e != nil {
		return e
	}
	for left := len(f.parts); left > 0; {
		if f.limit >= 0 && f.sent >= f.limit && !f.fan.Writes {
			f.enough(f.alone)
			return nil
		}
		if len(f.rows) == 0 && f.keep == nil {
			if f.c.flush() != nil {
				return nil
			}
		}
		bt, e := f.arrive()
		if e != nil {
			return e
		}
		if bt.end {
			left--
		}
		if bt.rows != nil && f.fan.Alike() {
			f.add(bt.p, *bt.rows)
		}
		if bt.rows != nil && (!f.fan.Everywhere || bt.p == f.home) { // of what all have done alike the session hears one
			e = f.take(*bt.rows)
		}
		if f.spent(bt); e != nil {
			return e
		}
	}
	return nil
}

// arrive waits for what a shard sends next. The first of each is looked at for whether its columns are the others'.
func (f *fanout) arrive() (batch, *pg.Error) {
	var bt batch
	select {
	case bt = <-f.rows:
	case e := <-f.bad:
		return bt, e
	}
	p := bt.p
	if bt.end && p.err != nil {
		return bt, p.err
	}
	if !p.checked {
		p.checked = true
		return bt, f.agrees(p)
	}
	return bt, nil
}

// take hands on whole rows of one shard.
func (f *fanout) take(rows []byte) *pg.Error {
	if f.fan.Hidden == 0 && f.passed >= f.offset && f.limit < 0 && f.keep == nil && f.x.max == 0 && f.x.made == nil {
		for at := 0; at < len(rows); at += pg.Want(rows[at:]) {
			f.sent++
		}
		if f.c.emit(rows) != nil {
			return gone()
		}
		return nil
	}
	for len(rows) > 0 {
		n := pg.Want(rows)
		if e := f.row(rows[:n]); e != nil {
			return e
		}
		rows = rows[n:]
	}
	return nil
}

// row hands on one row, if OFFSET and LIMIT let it.
func (f *fanout) row(frame []byte) *pg.Error {
	switch {
	case f.passed < f.offset:
		f.passed++
		return nil
	case f.limit >= 0 && f.sent >= f.limit:
		return nil
	}
	if f.fan.Hidden > 0 && f.how != gathered {
		frame = visible(frame, f.columns)
	}
	if f.x.max > 0 && f.sent >= int64(f.x.max) {
		if f.keep == nil {
			f.keep = f.c.newRest()
		}
		if e := f.keep.add(frame); e != nil {
			return f.c.cannot(f.x, e)
		}
		f.sent++
		return nil
	}
	f.sent++
	if f.x.made != nil {
		return f.x.made.row(frame)
	}
	if f.c.emit(frame) != nil {
		return gone()
	}
	return nil
}

func gone() *pg.Error { return pg.NewError(pg.CodeConnectionDoesNotExist, "the session is gone") }

// visible cuts a row after its first n columns, in place.
func visible(frame []byte, n int) []byte {
	at := pg.HeaderSize + 2
	for range n {
		if size := int32(binary.BigEndian.Uint32(frame[at:])); size > 0 {
			at += int(size)
		}
		at += 4
	}
	binary.BigEndian.PutUint16(frame[pg.HeaderSize:], uint16(n))
	binary.BigEndian.PutUint32(frame[1:], uint32(at-1))
	return frame[:at]
}

// wait waits until all parts have ended. PostgreSQL forgets a request to cancel that comes a moment before its statement: so it is asked again.
func (f *fanout) wait() {
	if !f.canceled {
		f.wg.Wait()
		return
	}
	ended := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(ended)
	}()
	for again := cancelAgain; ; again *= 2 {
		select {
		case <-ended:
			return
		case <-time.After(again):
			f.c.cancelLive()
		}
	}
}

// cancelAgain is how long what was canceled may take to end before it is canceled once more.
const cancelAgain = 100 * time.Millisecond

// end waits for all parts, and answers how the statement has ended.
func (f *fanout) end(e *pg.Error) *pg.Error {
	if e != nil || f.c.gone != nil {
		f.enough(f.alone || e != errUnordered) // which is no reason to end a transaction
	}
	f.wait()
	f.memory.drop()
	c := f.c
	for _, p := range f.parts {
		if e == nil && !f.alone && p.err != nil && p.b != nil && p.b.status == pg.StatusFailed { // its rows are not needed, but its transaction is
			e = p.err
		}
	}
	if e == nil && f.fan.Alike() {
		e = f.unlike()
	}
	c.mu.Lock()
	c.out = append(c.out, c.notices...)
	c.notices = c.notices[:0]
	c.mu.Unlock()
	if e != nil {
		if f.keep != nil {
			f.keep.drop()
		}
		if !f.x.stmt.sure && e != errUnordered {
			c.refused(f.x.stmt)
		}
		return ofColumn(f.fan, c.misfit(f.x, e))
	}
	c.taken(f.x.stmt)
	if f.x.declare != "" { // the session is told by who declares it
		return nil
	}
	tag := ""
	for _, p := range f.parts {
		if p.err == nil && (!f.fan.Everywhere || p == f.home) {
			tag = sum(tag, p.tag)
		}
	}
	if f.columns >= 0 && (!f.fan.Writes || f.fan.Query) {
		tag = "SELECT " + strconv.FormatInt(f.sent, 10)
	}
	if f.x.made != nil {
		tag = f.x.made.end(f.sent)
	}
	if f.keep != nil {
		f.keep.tag, f.keep.left = tag, f.sent-int64(f.x.max)
		f.x.portal.rest = f.keep
		c.out = pg.AppendPortalSuspended(c.out)
		return nil
	}
	if f.x.max > 0 && f.columns >= 0 {
		f.x.portal.rest = c.newRest()
		f.x.portal.rest.tag = tag
	}
	c.complete(f.x, tag)
	return nil
}
