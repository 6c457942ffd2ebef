package scatter

import (
	"hash/maphash"
	"slices"
	"strconv"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// The copies of a reference table are to change alike. A row that another transaction has inserted is seen on one shard before it is on the next, as
// that commits there later; what finds it there and not here must not commit, or the copies would differ for good.

// copies prepares a write to copies of a reference table, and carries out one that is evaluated once.
func (c *Coordinator) copies(x *execution, shares []Share) *pg.Error {
	for _, s := range shares { // in the order of the shards, whichever does it first: see fanout.start
		if _, e := c.branch(s.Slot, true); e != nil {
			return e
		}
	}
	if x.stmt.plan.Fan.Once != nil {
		return c.once(x, shares)
	}
	return c.timely(x, shares[0])
}

// timely refuses parameters that each server would take for another time: now, today and their like as text.
func (c *Coordinator) timely(x *execution, on Share) *pg.Error {
	args := x.args()
	tells := func(i int, oid uint32) bool { // parameter i, from 1, of that type
		if isText(oid) && !slices.Contains(x.stmt.plan.Fan.Times, i) {
			return false
		}
		val, format, _, null, ok := args.Arg(i)
		return ok && !null && format == pg.FormatText && sqlkey.TellsNow(string(val))
	}
	found := false
	for i := range x.bind.NumParams() {
		_, _, oid, _, _ := args.Arg(i + 1)
		found = found || tells(i+1, oid)
	}
	if !found {
		return nil
	}
	b, e := c.branch(on.Slot, true)
	if e != nil {
		return e
	}
	ask := &errand{b: b, send: pg.AppendDescribe(pg.AppendParse(nil, "", x.stmt.sql, x.stmt.oids), pg.KindStatement, "")}
	if e := c.errands(x, []*errand{ask}); e != nil {
		return e
	}
	for i, oid := range ask.oids {
		if tells(i+1, oid) {
			return pg.NewError(pg.CodeFeatureNotSupported, "parameter $"+strconv.Itoa(i+1)+" would be another time on each shard").
				WithDetail("A write to a reference table must do the same on every shard, and each server takes now, today, tomorrow and yesterday for its own.").
				WithHint("Send the time itself, or write now() or CURRENT_DATE in the statement: that is evaluated once.")
		}
	}
	return nil
}

// fills refuses to make columns of reference tables that each server would fill for itself.
func (c *Coordinator) fills(fan *sqlkey.Fan, on Share) *pg.Error {
	if fan.Fills == "" {
		return nil
	}
	b, e := c.branch(on.Slot, true)
	if e != nil {
		return e
	}
	row, e := c.ask(b, &execution{stmt: &stmt{}, bind: noArguments}, fan.Fills)
	if e == nil && len(row) == 1 && row[0] != "" {
		e = pg.NewError(pg.CodeFeatureNotSupported, "each server would compute values of "+row[0]+" for itself, so the copies of a reference table would differ").
			WithDetail("The default of the domain calls a function that is not immutable.").
			WithHint("Give the column a DEFAULT of its own that is a constant, or NULL, and have INSERT give the value: rangefinder.unique_id() makes numbers.")
	}
	return e
}

// isText tells whether a type keeps a text as it is.
func isText(oid uint32) bool {
	const jsonb = 3802
	return oid == oidText || oid == oidVarchar || oid == oidBpchar || oid == oidName || oid == oidChar || oid == oidTextArray || oid == oidBytea || oid == oidJSON || oid == jsonb
}

// add notes rows that a write to copies returns on one of them. In which order they come does not matter. Where a value may not be written the same
// on each server (numbers of tables, types and transactions) it is how many they are that counts.
func (f *fanout) add(p *part, rows []byte) {
	if !f.seeded {
		f.seed, f.seeded = maphash.MakeSeed(), true
		ends, ok := columnsOf(f.home.desc)
		f.counts = !ok
		for _, end := range ends {
			if _, common := commonTypes[typeAt(f.home.desc, end)]; !common {
				f.counts = true
			}
		}
	}
	for len(rows) > 0 {
		n := pg.Want(rows)
		if f.counts {
			p.sum++
		} else {
			p.sum += maphash.Bytes(f.seed, rows[:n])
		}
		rows = rows[n:]
	}
}

// unlike is the error if a write has not done the same to all copies, as far as their answers tell.
func (f *fanout) unlike() *pg.Error {
	for _, p := range f.parts {
		if p.tag != f.home.tag || p.sum != f.home.sum {
			return unlike(f.home.slot, p.slot, f.home.tag, p.tag)
		}
	}
	return nil
}

func unlike(one, other *fib.Slot, tag, otherTag string) *pg.Error {
	detail := one.Shard() + " says " + tag + ", and " + other.Shard() + " " + otherTag + ". "
	if tag == otherTag {
		detail = "The rows that " + other.Shard() + " returns are not those of " + one.Shard() + ". "
	}
	return pg.NewError(pg.CodeSerializationFailure, "the shards' copies of a reference table would not be changed alike").
		WithDetail(detail + "Another transaction may have changed them a moment ago, which the shards come to see one after the other; or the copies differ.").
		WithHint("Try the transaction again. If it goes on, compare the copies.")
}
