package scatter

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// A write to a reference table that each server would evaluate otherwise (sqlkey.Once) is carried out by one shard, which tells the rows as they are
// then. The others are given these, all in one transaction, and tell theirs: copies that would not be the same are an error.

// replay is one such statement.
type replay struct {
	c      *Coordinator
	x      *execution // with the types of all parameters
	how    *sqlkey.Once
	about  tableFacts
	memory ration

	desc    []byte // of the rows, behind which are the client's columns
	ends    []int
	types   []string // of the table's columns
	changed *heap    // the rows, as they are now
	sum     uint64   // of hashes of them: in which order they come does not matter
	seed    maphash.Seed
}

func (c *Coordinator) once(x *execution, shares []Share) *pg.Error {
	r := &replay{c: c, how: x.stmt.plan.Fan.Once, memory: ration{of: &c.cfg.Shared.Memory}, seed: maphash.MakeSeed()}
	defer r.memory.drop()
	at := slices.IndexFunc(shares, func(s Share) bool { return s.Slot.Shard() == r.how.On })
	if at < 0 { // the keyspace is on other shards by now
		at = 0
	}
	b, e := c.branch(shares[at].Slot, true)
	if e != nil {
		return e
	}
	var desc []byte
	if desc, r.x, e = c.studied(x, b); e == nil {
		r.about, e = c.about(b, r.x, r.how.Table)
	}
	if e != nil {
		return e
	}
	if e := r.obstacle(); e != nil {
		return e
	}
	if e := c.mayWrite(x.stmt.plan, shares); e != nil {
		return e
	}
	tag, rows, e := r.first(b, desc)
	if e != nil {
		return e
	}
	if e := r.others(b, slices.Delete(slices.Clone(shares), at, at+1)); e != nil {
		return e
	}
	return c.returns(x, desc, tag, rowsIn(rows))
}

// obstacle is why the rows cannot be given to other shards.
func (r *replay) obstacle() *pg.Error {
	why := r.about.changed()
	if r.how.Op != sqlkey.OnceInsert && r.about.key == nil && why == "" {
		why = "Table " + r.how.Table + " has no primary key, by which the other shards could find the rows."
	}
	if why == "" {
		return nil
	}
	return r.cannot(why)
}

func (r *replay) cannot(why string) *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be evaluated once for all shards").
		WithDetail(upperFirst(r.how.Why) + ". " + why).
		WithHint("Compute the values first (SELECT ...), and send them as constants or parameters.")
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// first has one shard carry out the statement. rows are the client's, whose columns desc tells.
func (r *replay) first(b *branch, desc []byte) (tag string, rows []byte, _ *pg.Error) {
	n := r.about.columns
	formats := []int16{}
	if desc != nil {
		ends, ok := columnsOf(desc)
		if !ok {
			return "", nil, malformed()
		}
		formats = make([]int16, n)
		for i := range ends {
			formats = append(formats, formatOf(r.x.bind, i))
		}
	}
	ask := &errand{b: b, writes: true, memory: &r.memory, send: r.x.appendAsk(nil, r.how.SQL, nil, formats)}
	r.changed = &heap{columns: make([][]byte, n)}
	ask.row = func(frame []byte) *pg.Error {
		at, ok := whole(frame, n)
		if !ok {
			return malformed()
		}
		r.sum += maphash.Bytes(r.seed, frame[pg.HeaderSize+2:at])
		if e := r.changed.add(frame); e != nil || desc == nil {
			return e
		}
		start := len(rows)
		rows = append(rows, pg.TypeDataRow, 0, 0, 0, 0)
		rows = binary.BigEndian.AppendUint16(rows, binary.BigEndian.Uint16(frame[pg.HeaderSize:])-uint16(n))
		rows = append(rows, frame[at:]...)
		binary.BigEndian.PutUint32(rows[start+1:], uint32(len(rows)-start-1))
		return nil
	}
	if e := r.c.errands(r.x, []*errand{ask}); e != nil {
		return "", nil, e
	}
	var ok bool
	if r.ends, ok = columnsOf(ask.desc); !ok || len(r.ends) < n || n == 0 {
		return "", nil, malformed()
	}
	r.desc, r.ends = ask.desc, r.ends[:n]
	var e *pg.Error
	r.types, e = r.c.typesOf(r.x, b, r.desc, r.ends)
	return ask.tag, rows, e
}

// whole is where in a row its first n columns end.
func whole(frame []byte, n int) (end int, ok bool) {
	at := pg.HeaderSize + 2
	if len(frame) < at || int(binary.BigEndian.Uint16(frame[pg.HeaderSize:])) < n {
		return 0, false
	}
	for range n {
		if at+4 > len(frame) {
			return 0, false
		}
		if size := int32(binary.BigEndian.Uint32(frame[at:])); size > 0 {
			at += int(size)
		}
		if at += 4; at > len(frame) {
			return 0, false
		}
	}
	return at, true
}

// others have all other shards do to their copies what has been done to the first.
func (r *replay) others(first *branch, shares []Share) *pg.Error {
	if r.changed.rows == 0 {
		return nil
	}
	for _, i := range r.about.key {
		if name := nameAt(r.desc, r.ends, i); slices.Contains(r.how.Sets, name) {
			return r.cannot("It assigns " + strconv.Quote(name) + ", a column of the primary key, by which the other shards find the rows.")
		}
	}
	var list []*errand
	sums := make([]uint64, len(shares))
	text, arrays := r.text()
	x := &execution{stmt: &stmt{plan: r.x.stmt.plan, sure: true}, bind: noArguments}
	for i, s := range shares {
		b, e := r.c.branch(s.Slot, true)
		if e != nil {
			return e
		}
		ask := &errand{b: b, writes: true, memory: &r.memory, send: x.appendAsk(nil, text, arrays, []int16{})}
		ask.row = func(frame []byte) *pg.Error {
			r.memory.give(len(frame))
			sums[i] += maphash.Bytes(r.seed, frame[pg.HeaderSize+2:])
			return nil
		}
		list = append(list, ask)
	}
	if e := r.c.errands(x, list); e != nil {
		return e
	}
	for i, ask := range list {
		if n := tagged(ask.tag); n < r.changed.rows && (r.how.Op == sqlkey.OnceUpdate || r.how.Op == sqlkey.OnceDelete) {
			return pg.NewError(pg.CodeSerializationFailure, "shard "+ask.b.slot.Shard()+" does not have all of the rows of table "+r.how.Table+" that "+first.slot.Shard()+" has").
				WithDetail("Another transaction may have inserted them a moment ago, which the shards come to see one after the other; or the copies differ.").
				WithHint("Try the transaction again. If it goes on, compare the copies.")
		}
		if tagged(ask.tag) != r.changed.rows || sums[i] != r.sum {
			return pg.NewError(pg.CodeFeatureNotSupported, "the shards' copies of table "+r.how.Table+" would not be the same").
				WithDetail(upperFirst(r.how.Why) + ", so " + ask.b.slot.Shard() + " was given the rows of " + first.slot.Shard() + ", and made others of them: a trigger or a policy changes them, or the copies differ already.").
				WithHint("Compare the copies, or compute the values first and send them as constants or parameters.")
		}
	}
	return nil
}

// text is what the others are asked, with the rows.
func (r *replay) text() (string, [][]byte) {
	h := r.how
	var given, key []int
	for i := range r.ends {
		if !slices.Contains(r.about.generated, i) {
			given = append(given, i)
		}
	}
	key = r.about.key
	name := func(i int) string { return rib.QuoteIdent(nameAt(r.desc, r.ends, i)) }
	set := func(pick []int, value func(at, column int) string) string { // those of the columns that are assigned
		var list []string
		for at, i := range pick {
			if slices.Contains(h.Sets, nameAt(r.desc, r.ends, i)) {
				list = append(list, name(i)+" = "+value(at, i))
			}
		}
		for at, i := range pick { // generated columns alone are assigned, which follow by themselves: nothing else changes
			if len(list) == 0 && slices.Contains(key, i) {
				list = append(list, name(i)+" = "+value(at, i))
			}
		}
		return strings.Join(list, ", ")
	}
	sent := func(at, _ int) string { return "rangefinder_rows.rangefinder_" + strconv.Itoa(at+1) }
	names := func(pick []int) string {
		var list []string
		for _, i := range pick {
			list = append(list, name(i))
		}
		return strings.Join(list, ", ")
	}
	same := func(pick []int) string {
		var list []string
		for at, i := range pick {
			if slices.Contains(key, i) {
				list = append(list, h.Alias+"."+name(i)+" = "+sent(at, i))
			}
		}
		return " WHERE " + strings.Join(list, " AND ")
	}
	target, returning := h.Table+" AS "+h.Alias, " RETURNING "+h.Alias+".*"
	pick, out := given, ""
	switch h.Op {
	case sqlkey.OnceDelete:
		pick = key
		out = "DELETE FROM " + target + " USING {rows}" + same(pick)
	case sqlkey.OnceUpdate:
		pick = slices.DeleteFunc(slices.Clone(given), func(i int) bool {
			return !slices.Contains(key, i) && !slices.Contains(h.Sets, nameAt(r.desc, r.ends, i))
		})
		out = "UPDATE " + target + " SET " + set(pick, sent) + " FROM {rows}" + same(pick)
	default:
		out = "INSERT INTO " + target + " (" + names(pick) + ") OVERRIDING SYSTEM VALUE SELECT rangefinder_rows.* FROM {rows}"
		if h.Op == sqlkey.OnceUpsert {
			out += " ON CONFLICT (" + names(key) + ") DO UPDATE SET " + set(pick, func(_, i int) string { return "excluded." + name(i) })
		}
	}
	types, arrays := make([]string, len(pick)), make([][]byte, len(pick))
	for at, i := range pick {
		types[at], arrays[at] = r.types[i], r.changed.array(i)
	}
	return strings.Replace(out, "{rows}", relationOf(types, 0), 1) + returning, arrays
}
