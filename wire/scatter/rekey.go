package scatter

import (
	"bytes"
	"cmp"
	"strconv"
	"strings"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// An UPDATE of key columns is carried out in steps, all in one transaction. Every shard is asked for the rows, which it locks, and for what the
// statement makes of them. Then all rows that belong elsewhere from now on are deleted, those that stay are updated, and the first are
// inserted where they belong. So PostgreSQL does it where a row moves from one partition to another, with the same triggers but that a row
// that moves has none of UPDATE.

// rekeying is one such statement.
type rekeying struct {
	c      *Coordinator
	x      *execution // with the types of all parameters
	how    *sqlkey.Rekey
	memory ration
	home   *branch

	desc      []byte // of the rows
	ends      []int
	types     []string // of their columns
	generated []int    // columns of the table, from 0, that cannot be given
	obstacle  string   // why no row of it may move; "": nothing
	shards    []*rekeyed
	tag       int    // rows
	told      []byte // what describes the first rows that the session is told of
}

// rekeyed is what becomes of the rows of one shard, and of those that come there.
type rekeyed struct {
	slot             *fib.Slot
	rows             [][]byte // frames, as the shard has sent them
	stay, gone, come *heap
}

func (c *Coordinator) rekey(x *execution, shares []Share) *pg.Error {
	r := &rekeying{c: c, how: x.stmt.plan.Fan.Rekey, memory: ration{of: &c.cfg.Shared.Memory}}
	defer r.memory.drop()
	if e := r.study(x, shares[0]); e != nil {
		return e
	}
	if e := r.collect(shares); e != nil {
		return e
	}
	moved, e := r.sort()
	if e != nil {
		return e
	}
	var writers []Share
	for _, s := range r.shards {
		if s.stay.rows+s.gone.rows+s.come.rows > 0 {
			writers = append(writers, Share{Slot: s.slot})
		}
	}
	switch {
	case moved && r.obstacle != "":
		return pg.NewError(pg.CodeFeatureNotSupported, "the rows cannot be moved to the shards of their new keys").
			WithDetail(r.obstacle).WithHint("DELETE the rows and INSERT them anew, in one transaction.")
	case len(writers) > 0:
		if e := c.mayWrite(x.stmt.plan, writers); e != nil {
			return e
		}
	}
	return r.write(x)
}

// study asks one shard about the statement, which PostgreSQL has to find right as it is, and about the table.
func (r *rekeying) study(x *execution, s Share) (e *pg.Error) {
	c := r.c
	if r.home, e = c.branch(s.Slot, true); e != nil {
		return e
	}
	if _, r.x, e = c.studied(x, r.home); e != nil {
		return e
	}
	about, e := c.about(r.home, r.x, r.how.Table)
	if e != nil {
		return e
	}
	r.generated = about.generated
	switch {
	case about.cascades != "":
		r.obstacle = "What a foreign key does with the rows that refer to them would be done for the DELETE: " + about.cascades + "."
	case about.inherited:
		r.obstacle = "Other tables inherit from " + r.how.Table + "."
	case about.rules:
		r.obstacle = r.how.Table + " has rules."
	default:
		r.obstacle = about.changed()
	}
	return nil
}

// collect asks all shards for their rows.
func (r *rekeying) collect(shares []Share) *pg.Error {
	c := r.c
	var list []*errand
	for _, s := range shares {
		b, e := c.branch(s.Slot, true)
		if e != nil {
			return e
		}
		one := &rekeyed{slot: s.Slot}
		r.shards = append(r.shards, one)
		ask := &errand{b: b, send: r.x.appendAsk(nil, cmp.Or(s.SQL, r.how.SQL), nil, []int16{}), memory: &r.memory}
		ask.row = func(frame []byte) *pg.Error {
			one.rows = append(one.rows, bytes.Clone(frame))
			return nil
		}
		list = append(list, ask)
	}
	if e := c.lost(c.ctx); e != nil {
		return e
	}
	if e := c.errands(r.x, list); e != nil {
		return e
	}
	r.desc = list[0].desc
	var ok bool
	if r.ends, ok = columnsOf(r.desc); !ok || len(r.ends) < 3+len(r.how.Columns) {
		return malformed()
	}
	for i, ask := range list {
		ends, ok := columnsOf(ask.desc)
		for j := range r.ends {
			ok = ok && len(ends) == len(r.ends) && nameAt(ask.desc, ends, j) == nameAt(r.desc, r.ends, j)
		}
		if !ok {
			return driftBetween(shares[0].Slot, shares[i].Slot)
		}
	}
	var e *pg.Error
	r.types, e = c.typesOf(r.x, r.home, r.desc, r.ends)
	return e
}

// given are which columns of a row make the table's columns when it is inserted, and the names of these.
func (r *rekeying) given() (pick []int, names []string) {
	first := 2 + len(r.how.Columns)
	for i := first; i < len(r.ends); i++ {
		name, at := nameAt(r.desc, r.ends, i), i
		for j, set := range r.how.Columns {
			if set == name {
				at = 2 + j
			}
		}
		skip := false
		for _, g := range r.generated {
			skip = skip || g == i-first
		}
		if !skip {
			pick, names = append(pick, at), append(names, name)
		}
	}
	return pick, names
}

// on is what becomes of the rows of a shard.
func (r *rekeying) on(slot *fib.Slot) *rekeyed {
	for _, s := range r.shards {
		if s.slot.Shard() == slot.Shard() {
			return s
		}
	}
	s := &rekeyed{slot: slot}
	r.prepare(s)
	r.shards = append(r.shards, s)
	return s
}

func (r *rekeying) prepare(s *rekeyed) {
	pick, _ := r.given()
	stay := []int{0, 1}
	for i := range r.how.Columns {
		stay = append(stay, 2+i)
	}
	heapOf := func(pick []int) *heap { return &heap{columns: make([][]byte, len(pick)), pick: pick} }
	s.stay, s.gone, s.come = heapOf(stay), heapOf([]int{0, 1}), heapOf(pick)
}

// sort finds out where each row belongs from now on.
func (r *rekeying) sort() (moved bool, _ *pg.Error) {
	pick, names := r.given()
	at := make([]int, len(r.how.Key))
	for i, key := range r.how.Key {
		at[i] = -1
		for j, name := range names {
			if name == key {
				at[i] = pick[j]
			}
		}
		if at[i] < 0 {
			return false, pg.NewError(pg.CodeUndefinedColumn, "a shard's table has no column "+strconv.Quote(key))
		}
	}
	for _, s := range r.shards {
		r.prepare(s)
	}
	utf8 := r.home.conn.Params["client_encoding"] == "UTF8"
	var key rib.Key
	parts := make([][]byte, len(at))
	for _, s := range r.shards[:len(r.shards):len(r.shards)] {
		seen := make(map[string]bool)
		for _, frame := range s.rows {
			values, err := pg.DecodeDataRow(frame[pg.HeaderSize:])
			if err != nil || len(values) != len(r.ends) {
				return false, malformed()
			}
			id := string(values[0]) + " " + string(values[1])
			if seen[id] { // it meets several rows of FROM: one of them is taken, as PostgreSQL does
				continue
			}
			seen[id] = true
			if e := r.memory.take(len(frame)); e != nil {
				return false, e
			}
			for i, j := range at {
				parts[i] = values[j]
			}
			if key, err = r.how.NewKey(key[:0], parts, utf8); err != nil {
				return false, asError(err)
			}
			owner, e := r.c.cfg.Host.Owner(r.x.stmt.plan, key)
			if e != nil {
				return false, e
			}
			if owner.Shard() == s.slot.Shard() {
				s.stay.put(values)
				continue
			}
			moved = true
			s.gone.put(values)
			r.on(owner).come.put(values)
		}
		s.rows = nil
	}
	return moved, nil
}

// write changes the rows, and answers.
func (r *rekeying) write(x *execution) *pg.Error {
	_, names := r.given()
	h := r.how
	target := h.Table + " AS " + h.Alias
	this := " WHERE " + h.Alias + ".tableoid OPERATOR(pg_catalog.=) rangefinder_rows.rangefinder_1 AND " + h.Alias + ".ctid OPERATOR(pg_catalog.=) rangefinder_rows.rangefinder_2 AND " +
		h.Alias + ".ctid OPERATOR(pg_catalog.=) ANY ($" + strconv.Itoa(x.bind.NumParams()+2) + "::pg_catalog.tid[])"
	var sets, columns []string
	for i, name := range h.Columns {
		sets = append(sets, rib.QuoteIdent(name)+" = rangefinder_rows.rangefinder_"+strconv.Itoa(3+i))
	}
	for _, name := range names {
		columns = append(columns, rib.QuoteIdent(name))
	}
	steps := []struct {
		rows   func(*rekeyed) *heap
		counts bool   // its rows are the session's
		whole  string // what every row must be; "": one may be left as it is
		text   func(rows string) string
	}{
		{func(s *rekeyed) *heap { return s.gone }, false, "deleted", func(rows string) string { return "DELETE FROM " + target + " USING " + rows + this }},
		{func(s *rekeyed) *heap { return s.stay }, true, "", func(rows string) string {
			return "UPDATE " + target + " SET " + strings.Join(sets, ", ") + " FROM " + rows + this + h.Returning
		}},
		{func(s *rekeyed) *heap { return s.come }, true, "inserted", func(rows string) string {
			return "INSERT INTO " + target + " (" + strings.Join(columns, ", ") + ") OVERRIDING SYSTEM VALUE SELECT rangefinder_rows.* FROM " + rows + h.Returning
		}},
	}
	out := r.c.newRest()
	defer out.drop()
	for _, step := range steps {
		if e := r.step(step.rows, step.text, step.counts, step.whole, out); e != nil {
			return e
		}
	}
	return r.answer(x, out)
}

// step has all shards change some of their rows. counts: these are among the rows that the session is told of. whole: each of them must be that.
func (r *rekeying) step(rows func(*rekeyed) *heap, text func(rows string) string, counts bool, whole string, out *rest) *pg.Error {
	var list []*errand
	var want []int
	kept := make([][]byte, 0, len(r.shards))
	for _, s := range r.shards {
		h := rows(s)
		if h.rows == 0 {
			continue
		}
		b, e := r.c.branch(s.slot, true)
		if e != nil {
			return e
		}
		i := len(list)
		kept, want = append(kept, nil), append(want, h.rows)
		ask := &errand{b: b, writes: true, memory: &r.memory, send: r.x.appendAsk(nil, text(r.relation(h.pick)), h.arrays(), nil)}
		ask.row = func(frame []byte) *pg.Error {
			kept[i] = append(kept[i], frame...)
			return nil
		}
		list = append(list, ask)
	}
	if e := r.c.errands(r.x, list); e != nil {
		return e
	}
	for i, ask := range list {
		n := tagged(ask.tag)
		if counts {
			r.tag += n
			if r.told == nil {
				r.told = ask.desc
			}
			if !alike(r.told, ask.desc) {
				return driftBetween(r.home.slot, ask.b.slot)
			}
		}
		if whole != "" && n != want[i] {
			return pg.NewError(pg.CodeFeatureNotSupported, "rows cannot be moved to the shards of their new keys").
				WithDetail("A trigger or a policy of shard " + ask.b.slot.Shard() + " kept some of them from being " + whole + ".").
				WithHint("DELETE the rows and INSERT them anew, in one transaction.")
		}
		for rows := kept[i]; len(rows) > 0; out.left++ {
			n := pg.Want(rows)
			if e := out.add(rows[:n]); e != nil {
				return e
			}
			rows = rows[n:]
		}
	}
	return nil
}

// relation is rows, which are sent as arrays behind the statement's own parameters, as a relation.
func (r *rekeying) relation(pick []int) string {
	types := make([]string, len(pick))
	for i, at := range pick {
		switch types[i] = r.types[at]; at {
		case 0:
			types[i] = "pg_catalog.oid"
		case 1:
			types[i] = "pg_catalog.tid"
		}
	}
	return relationOf(types, r.x.bind.NumParams())
}

// answer tells the session what has been done.
func (r *rekeying) answer(x *execution, out *rest) *pg.Error {
	c := r.c
	tag := "UPDATE " + strconv.Itoa(r.tag)
	if x.max > 0 && out.left > 0 {
		keep := *out
		*out = *c.newRest() // it is the portal's now
		keep.tag = tag
		x.portal.rest = &keep
		more := *x
		more.columns = false
		return c.more(&more)
	}
	if c.emit(out.rows) != nil {
		return gone()
	}
	c.complete(x, tag)
	return nil
}
