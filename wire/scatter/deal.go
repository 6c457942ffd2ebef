package scatter

import (
	"strconv"
	"strings"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// An INSERT whose rows only a server can make (sqlkey.Deal) is carried out in steps, all in one transaction: one shard makes the rows, and is asked for
// them as values of the types of the table's columns; then each row is inserted on the shard that owns its key.

// numberSize is what the number of a row takes.
const numberSize = 8

// dealing is one such statement.
type dealing struct {
	c      *Coordinator
	x      *execution // with the types of all parameters
	how    *sqlkey.Deal
	memory ration
	home   *branch

	types []string // of the columns that are given
	hands []*hand
}

// hand is what a shard gets.
type hand struct {
	slot    *fib.Slot
	rows    *heap
	numbers []int // of the rows among those that were made

	returned []byte // what RETURNING has given: whole frames
	came     int    // how many of them have been taken
}

func (c *Coordinator) deal(x *execution, shares []Share) *pg.Error {
	d := &dealing{c: c, how: x.stmt.plan.Fan.Deal, memory: ration{of: &c.cfg.Shared.Memory}}
	defer d.memory.drop()
	desc, e := d.study(x, shares[0])
	if e == nil {
		e = d.make()
	}
	if e != nil {
		return e
	}
	writers := make([]Share, len(d.hands))
	for i, h := range d.hands {
		writers[i].Slot = h.slot
	}
	if e := c.mayWrite(x.stmt.plan, writers); e != nil {
		return e
	}
	n, e := d.insert(desc)
	if e != nil {
		return e
	}
	return c.returns(x, desc, "INSERT 0 "+strconv.Itoa(n), d.returned)
}

// study asks one shard about the statement, which PostgreSQL has to find right as it is, and about the table. desc are the columns of RETURNING.
func (d *dealing) study(x *execution, s Share) (desc []byte, e *pg.Error) {
	c := d.c
	if d.home, e = c.branch(s.Slot, true); e != nil {
		return nil, e
	}
	if desc, d.x, e = c.studied(x, d.home); e != nil {
		return nil, e
	}
	about, e := c.about(d.home, d.x, d.how.Table)
	if e != nil {
		return nil, e
	}
	why := about.changed()
	if about.rules {
		why = d.how.Table + " has rules."
	}
	args := d.x.args()
	for i := range d.x.bind.NumParams() { // its type has another number on other shards, so it would be read as text
		if _, format, oid, null, _ := args.Arg(i + 1); format == pg.FormatBinary && oid == 0 && !null {
			why = "Parameter $" + strconv.Itoa(i+1) + " has a type that is not PostgreSQL's own, and comes in binary format."
		}
	}
	ask := &errand{b: d.home, send: pg.AppendParse(nil, "", d.how.Typed(), nil)}
	ask.send = pg.AppendDescribe(ask.send, pg.KindStatement, "")
	if e := c.errands(d.x, []*errand{ask}); e != nil {
		return nil, e
	}
	ends, ok := columnsOf(ask.desc)
	if !ok || len(ends) != len(d.how.Columns) {
		return nil, malformed()
	}
	for i, end := range ends {
		if typeAt(ask.desc, end) == oidInterval && reads(modifierAt(ask.desc, end)) {
			why = "What a constant means for column " + strconv.Quote(d.how.Columns[i]) + " depends on the fields that its type, interval, is restricted to."
		}
	}
	if why != "" {
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "the rows cannot be made on one shard for the others").WithDetail(why).
			WithHint("Ask for the rows first, and insert them with VALUES.")
	}
	d.types, e = c.typesOf(d.x, d.home, ask.desc, ends)
	return desc, e
}

// oidInterval is the one type whose modifier changes what a constant means: '5' is five minutes as interval minute.
const oidInterval = 1186

// reads tells whether an interval's modifier restricts its fields: the upper half of it, all bits of which mean all fields.
func reads(modifier int32) bool { return modifier >= 0 && modifier>>16&0x7fff != 0x7fff }

// make has the shard make the rows, and deals them out.
func (d *dealing) make() *pg.Error {
	utf8 := d.home.conn.Params["client_encoding"] == "UTF8"
	var key rib.Key
	made := 0
	ask := &errand{b: d.home, memory: &d.memory, send: d.x.appendAsk(nil, d.how.Query(d.types), nil, []int16{})}
	ask.row = func(frame []byte) *pg.Error {
		values, err := pg.DecodeDataRow(frame[pg.HeaderSize:])
		if err != nil || len(values) != len(d.types) {
			return malformed()
		}
		if key, err = d.how.Key(key[:0], values, utf8); err != nil {
			return asError(err)
		}
		owner, e := d.c.cfg.Host.Owner(d.x.stmt.plan, key)
		if e != nil {
			return e
		}
		if e := d.memory.take(numberSize); e != nil {
			return e
		}
		h := d.of(owner)
		h.rows.put(values)
		h.numbers = append(h.numbers, made)
		made++
		return nil
	}
	e := d.c.errands(d.x, []*errand{ask})
	if e == nil && len(d.hands) == 0 { // an INSERT of no rows is one all the same: it may be forbidden, or have triggers
		d.of(d.home.slot)
	}
	return e
}

// of is what a shard gets.
func (d *dealing) of(slot *fib.Slot) *hand {
	for _, h := range d.hands {
		if h.slot.Shard() == slot.Shard() {
			return h
		}
	}
	h := &hand{slot: slot, rows: &heap{columns: make([][]byte, len(d.types))}}
	d.hands = append(d.hands, h)
	return h
}

// insert has the shards insert the rows. n is how many were inserted, and desc are the columns of RETURNING.
func (d *dealing) insert(desc []byte) (n int, _ *pg.Error) {
	c := d.c
	text := strings.Replace(d.how.Insert, sqlkey.FinalRows, relationOf(d.types, d.x.bind.NumParams()), 1)
	list := make([]*errand, len(d.hands))
	for i, h := range d.hands {
		b, e := c.branch(h.slot, true)
		if e != nil {
			return 0, e
		}
		list[i] = &errand{b: b, writes: true, memory: &d.memory, send: d.x.appendAsk(nil, text, h.rows.arrays(), nil)}
		list[i].row = func(frame []byte) *pg.Error {
			h.returned = append(h.returned, frame...)
			return nil
		}
	}
	if e := c.errands(d.x, list); e != nil {
		return 0, e
	}
	for _, ask := range list {
		if desc != nil && !alike(desc, ask.desc) {
			return 0, driftBetween(d.home.slot, ask.b.slot)
		}
		n += tagged(ask.tag)
	}
	return n, nil
}

// returned are the rows that RETURNING has given, in the order in which they were made.
func (d *dealing) returned(yield func([]byte) bool) {
	for {
		var first *hand
		least := 0
		for _, h := range d.hands {
			if len(h.returned) == 0 {
				continue
			}
			if n := numberOf(h.numbers, h.came); first == nil || n < least {
				first, least = h, n
			}
		}
		if first == nil {
			return
		}
		n := pg.Want(first.returned)
		if !yield(first.returned[:n]) {
			return
		}
		first.returned = first.returned[n:]
		first.came++
	}
}
