package scatter

import (
	"encoding/binary"
	"math"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// key is one column by which rows are merged.
type key struct {
	column  int
	compare compare
	desc    bool
	first   bool // NULLs come first
}

// keysOf are the columns of an order, for rows that are described like that. ok is false if only PostgreSQL knows it. asIs: text comes in the
// server's own encoding.
func keysOf(order []sqlkey.FanOrder, desc []byte, ends []int, visible int, iso, asIs bool) (keys []key, ok bool) {
	for _, o := range order {
		at := o.Column
		if o.Hidden {
			at += visible
		}
		if at >= len(ends) {
			return nil, false
		}
		format := int16(binary.BigEndian.Uint16(desc[ends[at]-2:]))
		k := key{column: at, compare: comparer(typeAt(desc, ends[at]), format, o.Bytes && asIs, iso), desc: o.Desc, first: o.NullsFirst}
		if k.compare == nil {
			return nil, false
		}
		keys = append(keys, k)
	}
	return keys, true
}

// cursor is where one shard's sorted rows are read.
type cursor struct {
	p      *part
	batch  batch
	rest   []byte   // of the batch
	row    []byte   // the row in hand; nil: there is none any more
	values [][]byte // of its keys; nil: NULL
	came   int      // rows, with the one in hand
}

// numberOf is the number of a row that a shard has returned after some others, of those that it was given to insert, with these numbers: it inserts one after
// the other. Where it leaves some out (ON CONFLICT DO NOTHING, a trigger), it is the least that it can be. More rows than were given only a rule makes: they
// are the last.
func numberOf(given []int, before int) int {
	if before >= len(given) {
		return math.MaxInt
	}
	return given[before]
}

// next takes the cursor's next row in hand. It waits for it.
func (f *fanout) next(cur *cursor) *pg.Error {
	for len(cur.rest) == 0 {
		f.spent(cur.batch)
		cur.batch = batch{}
		var bt batch
		select {
		case bt = <-cur.p.rows:
		default:
			if f.c.flush() != nil { // what there is need not wait for what is to come
				return gone()
			}
			select {
			case bt = <-cur.p.rows:
			case e := <-f.bad:
				return e
			}
		}
		if bt.end {
			cur.row = nil
			return cur.p.err
		}
		if !cur.p.checked {
			cur.p.checked = true
			if e := f.agrees(cur.p); e != nil {
				return e
			}
		}
		cur.batch, cur.rest = bt, *bt.rows
	}
	n := pg.Want(cur.rest)
	cur.row, cur.rest = cur.rest[:n], cur.rest[n:]
	if cur.came++; f.how == asWritten {
		return nil
	}
	return f.values(cur)
}

// values finds the values of the keys in the row in hand.
func (f *fanout) values(cur *cursor) *pg.Error {
	at := pg.HeaderSize + 2
	for i := range f.last + 1 {
		if at+4 > len(cur.row) {
			return malformed()
		}
		size := int(int32(binary.BigEndian.Uint32(cur.row[at:])))
		at += 4
		var v []byte
		if size >= 0 {
			if at+size > len(cur.row) {
				return malformed()
			}
			v = cur.row[at : at+size : at+size]
			at += size
		}
		for j := range f.keys {
			if f.keys[j].column == i {
				cur.values[j] = v
			}
		}
	}
	return nil
}

func malformed() *pg.Error {
	return pg.NewError(pg.CodeInternalError, "a shard has sent a row that is none")
}

// order finds out by what the rows are merged.
func (f *fanout) order() *pg.Error {
	desc, e := f.awaitHome()
	if e != nil {
		return e
	}
	ends, ok := columnsOf(desc)
	if !ok || len(ends) < f.fan.Hidden {
		return malformed()
	}
	if f.keys, ok = keysOf(f.fan.Order, desc, ends, len(ends)-f.fan.Hidden, f.home.iso, f.home.asIs); !ok {
		return errUnordered
	}
	for i := range f.keys {
		f.last = max(f.last, f.keys[i].column)
	}
	return nil
}

// described waits until the home shard has described the rows, or one shard has failed.
func (f *fanout) described() *pg.Error {
	select {
	case <-f.home.described: // or its connection has ended, as it does with f.ctx
		return nil
	case e := <-f.bad:
		return e
	}
}

// awaitHome waits for the description of the rows.
func (f *fanout) awaitHome() ([]byte, *pg.Error) {
	if e := f.described(); e != nil {
		return nil, e
	}
	switch {
	case f.home.desc != nil:
		return f.home.desc, nil
	case f.home.none:
		return nil, pg.NewError(pg.CodeInternalError, "a shard has no rows where it must have some")
	case f.home.err != nil:
		return nil, f.home.err
	}
	return nil, pg.NewError(pg.CodeInternalError, "a shard has not described its rows")
}

// before reports whether a's row comes before b's. Equal ones come in the order of the shards' names, so that the same rows come in the
// same order as often as they are asked for. One without a row is last.
func (f *fanout) before(a, b int) bool {
	x, y := &f.cursors[a], &f.cursors[b]
	if x.row == nil || y.row == nil {
		return y.row == nil && (x.row != nil || a < b)
	}
	if f.how == asWritten {
		v, w := numberOf(x.p.given, x.came-1), numberOf(y.p.given, y.came-1)
		return v < w || v == w && a < b
	}
	for i := range f.keys {
		k := &f.keys[i]
		v, w := x.values[i], y.values[i]
		c := 0
		switch {
		case v == nil && w == nil:
		case v == nil || w == nil:
			return (v == nil) == k.first
		default:
			c = k.compare(v, w)
		}
		if k.desc {
			c = -c
		}
		if c != 0 {
			return c < 0
		}
	}
	return a < b
}

// merge hands on the rows in their order. A tournament of the shards' first rows keeps the loser of each match: so a row costs one match
// on each level.
func (f *fanout) merge() *pg.Error {
	if f.how == merged {
		if e := f.order(); e != nil {
			return e
		}
	}
	if e := f.describe(); e != nil {
		return e
	}
	n := len(f.parts)
	f.cursors = make([]cursor, n)
	for i, p := range f.parts {
		f.cursors[i] = cursor{p: p, values: make([][]byte, len(f.keys))}
	}
	for i := range f.cursors {
		if e := f.next(&f.cursors[i]); e != nil {
			return e
		}
	}
	losers := make([]int, n) // losers[0] is the winner of all
	f.play(losers)
	for {
		top := losers[0]
		cur := &f.cursors[top]
		if cur.row == nil {
			return nil
		}
		if f.limit >= 0 && f.sent >= f.limit {
			f.enough(f.alone)
			return nil
		}
		if e := f.row(cur.row); e != nil {
			return e
		}
		if e := f.next(cur); e != nil {
			return e
		}
		winner := top
		for node := (top + n) / 2; node > 0; node /= 2 {
			if f.before(losers[node], winner) {
				losers[node], winner = winner, losers[node]
			}
		}
		losers[0] = winner
	}
}

// play plays the whole tournament: leaves are the nodes n to 2n-1.
func (f *fanout) play(losers []int) {
	n := len(losers)
	winners := make([]int, 2*n)
	for i := range n {
		winners[n+i] = i
	}
	for node := n - 1; node > 0; node-- {
		a, b := winners[2*node], winners[2*node+1]
		if f.before(b, a) {
			a, b = b, a
		}
		winners[node], losers[node] = a, b
	}
	losers[0] = winners[min(1, 2*n-1)]
}
