package scatter

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// What no merging can put together PostgreSQL itself does: the rows of all shards are gathered here, as text and within bounds, and go as
// one array for each column to one shard, which runs Fan.Final over them. Text is what every type can be made of again, also where its
// number differs between shards.

// oidTextArray is the type of the arrays.
const oidTextArray = 1009

// heap is the gathered rows: for each column an array of text in binary form, but for its head. There NULL is NULL whatever array_nulls says, and nothing
// has to be quoted.
type heap struct {
	columns [][]byte
	pick    []int    // which of a row's columns they are; nil: all
	exact   []uint32 // the types of a row's columns that come in binary form; 0: text. nil: all are text
	rows    int
	values  [][]byte // scratch
}

// arrayHead is the size of the head of an array of one dimension.
const arrayHead = 20

// add takes a row.
func (h *heap) add(frame []byte) *pg.Error {
	at := pg.HeaderSize + 2
	h.values = h.values[:0]
	for range h.columns {
		if at+4 > len(frame) {
			return malformed()
		}
		size := int(int32(binary.BigEndian.Uint32(frame[at:])))
		at += 4
		if size < 0 {
			h.values = append(h.values, nil)
			continue
		}
		if at+size > len(frame) {
			return malformed()
		}
		h.values = append(h.values, frame[at:at+size:at+size])
		at += size
	}
	h.put(h.values)
	return nil
}

// put takes a row's values; nil is NULL.
func (h *heap) put(values [][]byte) {
	for i := range h.columns {
		col := h.columns[i]
		if h.rows == 0 {
			col = append(col, make([]byte, arrayHead)...)
		}
		at := i
		if h.pick != nil {
			at = h.pick[i]
		}
		start := len(col)
		col = binary.BigEndian.AppendUint32(col, 0xffffffff)
		switch v := values[at]; {
		case v == nil:
			h.columns[i] = col
			continue
		case h.exact != nil && h.exact[at] != 0:
			col = appendExact(col, h.exact[at], v)
		default:
			col = append(col, v...)
		}
		binary.BigEndian.PutUint32(col[start:], uint32(len(col)-start-4))
		h.columns[i] = col
	}
	h.rows++
}

// array is a column's array.
func (h *heap) array(i int) []byte {
	if h.rows == 0 {
		return binary.BigEndian.AppendUint32(make([]byte, 8, 12), oidText) // of no dimension
	}
	col := h.columns[i]
	for at, n := range [...]uint32{1, 1, oidText, uint32(h.rows), 1} { // one dimension, there may be NULLs, their type, how many, from 1 on
		binary.BigEndian.PutUint32(col[4*at:], n)
	}
	return col
}

// size is how many bytes it holds.
func (h *heap) size() (n int) {
	for _, col := range h.columns {
		n += len(col)
	}
	return n
}

// arrays are those of all columns.
func (h *heap) arrays() [][]byte {
	list := make([][]byte, len(h.columns))
	for i := range list {
		list[i] = h.array(i)
	}
	return list
}

// gather gathers all rows, and has PostgreSQL make the answer of them.
func (f *fanout) gather() *pg.Error {
	desc, e := f.awaitHome()
	if e != nil {
		return e
	}
	ends, ok := columnsOf(desc)
	if !ok || len(ends) < f.fan.Hidden {
		return malformed()
	}
	h := &heap{columns: make([][]byte, len(ends)), exact: exactTypes(desc, ends)}
	for left := len(f.parts); left > 0; {
		bt, e := f.arrive()
		if e != nil {
			return e
		}
		if bt.end {
			left--
		}
		if bt.rows == nil {
			continue
		}
		rows := *bt.rows
		if e = f.memory.take(len(rows)); e != nil {
			e = f.c.cannot(f.x, e)
		}
		before := h.size()
		for len(rows) > 0 && e == nil {
			n := pg.Want(rows)
			e = h.add(rows[:n])
			rows = rows[n:]
		}
		if more := h.size() - before - len(*bt.rows); e == nil && more > 0 { // as text they are larger
			if e = f.memory.take(more); e != nil {
				e = f.c.cannot(f.x, e)
			}
		}
		if f.spent(bt); e != nil {
			return e
		}
	}
	f.wg.Wait()
	return f.final(h, ends)
}

// final runs Fan.Final, and hands on what it answers.
func (f *fanout) final(h *heap, ends []int) *pg.Error {
	c, x := f.c, f.x
	b, e := f.finalBranch()
	if e != nil {
		return e
	}
	if f.alone {
		defer c.release(b)
	}
	types, e := f.typeNames(b, ends)
	if e != nil {
		return e
	}
	return f.runFinal(b, finalText(f.fan, f.home.desc, ends, types, x.bind.NumParams(), h.rows), h)
}

// finalBranch is where Final runs: in a transaction, where what that has written is.
func (f *fanout) finalBranch() (*branch, *pg.Error) {
	if !f.alone {
		return f.c.branches[f.home.slot.Shard()], nil
	}
	return f.c.connect(f.ctx, f.home.slot, f.c.cfg.Host.Choose(f.home.slot, f.c.cfg.Write), f.c.cfg.Write, nil)
}

// runFinal runs Final's text with the arguments and the arrays.
func (f *fanout) runFinal(b *branch, text string, h *heap) *pg.Error {
	c, x := f.c, f.x
	arrays := h.arrays()
	b.send = pg.AppendSync(x.appendAsk(b.send, x.declare+text, arrays, nil))
	h.columns = nil
	b.conn.Unnamed = 0
	c.taken(x.stmt)
	b.begin()
	defer b.done()
	if e := b.flush(); e != nil {
		return e
	}
	f.columns = -1
	e := b.receiveAll(toldNothing, func(typ byte, size int) *pg.Error {
		switch typ {
		case pg.TypeRowDescription:
			if f.columns = 0; x.made != nil {
				return f.makes(b, size)
			}
			if !x.columns {
				break
			}
			return c.relay(x, b, typ, size)
		case pg.TypeDataRow:
			n, e := f.memory.takeRow(b, size)
			if e != nil {
				return c.cannot(x, e)
			}
			defer f.memory.give(n)
			frame, err := b.frame(size)
			if err != nil {
				return b.lost(err)
			}
			if e := f.row(frame); e != nil {
				b.strike()
				return e
			}
			return nil
		case pg.TypeNoticeResponse:
			return c.relay(x, b, typ, size)
		}
		if _, err := b.frame(size); err != nil {
			return b.lost(err)
		}
		return nil
	})
	if e != nil {
		if why := c.brokenBy(e); why != nil {
			return why
		}
		c.cfg.Host.Failed(b.hop, e.Code)
	}
	return e
}

// makes begins the data that are made of Final's rows, as they are described by the next frame.
func (f *fanout) makes(b *branch, size int) *pg.Error {
	frame, err := b.frame(size)
	if err != nil {
		return b.lost(err)
	}
	desc := frame[pg.HeaderSize:]
	ends, ok := columnsOf(desc)
	if !ok {
		return malformed()
	}
	f.x.made.begin(namesOf(desc, ends, len(ends)), b.conn.Params["client_encoding"])
	return nil
}

// finalText writes Final with what stands for its marks. rows is how many there are.
func finalText(fan *sqlkey.Fan, desc []byte, ends []int, types []string, params, rows int) string {
	visible := len(ends) - fan.Hidden
	var from, outer strings.Builder
	from.WriteString("(SELECT ")
	for i := range ends {
		if i > 0 {
			from.WriteString(", ")
		}
		n := strconv.Itoa(i + 1)
		from.WriteString("u.c" + n + "::" + types[i] + " AS c" + n)
	}
	from.WriteString(" FROM ROWS FROM (")
	for i := range ends {
		if i > 0 {
			from.WriteString(", ")
		}
		from.WriteString("pg_catalog.unnest($" + strconv.Itoa(params+i+1) + ")")
	}
	from.WriteString(") AS u(")
	for i := range ends {
		if i > 0 {
			from.WriteString(", ")
		}
		from.WriteString("c" + strconv.Itoa(i+1))
	}
	from.WriteString(")) AS rows")
	if len(ends) == 0 { // nothing but how many tells of them
		from.Reset()
		from.WriteString("(SELECT FROM pg_catalog.generate_series(1, " + strconv.Itoa(rows) + ")) AS rows")
	}
	for i := range visible {
		if i > 0 {
			outer.WriteString(", ")
		}
		outer.WriteString("rows.c" + strconv.Itoa(i+1) + ` AS "` + strings.ReplaceAll(nameAt(desc, ends, i), `"`, `""`) + `"`)
	}
	words := []string{sqlkey.FinalRows, from.String(), sqlkey.FinalColumns, outer.String()}
	for i := range ends {
		words = append(words, sqlkey.FinalType+strconv.Itoa(i+1)+"}", types[i])
	}
	for i := range fan.Hidden {
		words = append(words, sqlkey.FinalHidden+strconv.Itoa(i+1)+"}", "c"+strconv.Itoa(visible+i+1))
	}
	return strings.NewReplacer(words...).Replace(fan.Final)
}

// nameAt is a column's name.
func nameAt(desc []byte, ends []int, i int) string {
	start := 2
	if i > 0 {
		start = ends[i-1]
	}
	return string(desc[start : ends[i]-19])
}

// commonTypes are names of types that need no question.
var commonTypes = map[uint32]string{
	oidBool: "bool", oidBytea: "bytea", oidInt8: "int8", oidInt2: "int2", oidInt4: "int4", oidText: "text", oidFloat4: "float4",
	oidFloat8: "float8", oidDate: "date", oidNumeric: "numeric", oidUUID: "uuid", oidVarchar: "varchar",
	oidTimestamp: "timestamp", oidTimestamptz: "timestamptz", oidBpchar: "bpchar",
}

// typeNames are the names of the columns' types, as the shard of b knows them; modifiers included, as a bit string without one is one bit, and
// the collations that the columns have if it is not the database's.
func (f *fanout) typeNames(b *branch, ends []int) ([]string, *pg.Error) {
	c, desc := f.c, f.home.desc
	names := make([]string, len(ends))
	var ask []string
	lossy := ""       // types whose text may not be the whole value
	computed := false // there is what is no column of a table: PostgreSQL is asked what collation it has
	var where []int
	for i, end := range ends {
		oid, modifier := typeAt(desc, end), int32(binary.BigEndian.Uint32(desc[end-6:]))
		table, attribute := b.localTable(binary.BigEndian.Uint32(desc[end-18:])), int16(binary.BigEndian.Uint16(desc[end-14:]))
		if oid == oidRecord || oid == oidRecordArray {
			return nil, pg.NewError(pg.CodeFeatureNotSupported, "rows of several shards cannot be put together by a value like ROW(a, b), whose type has no name").
				WithHint("Name its columns one by one (ORDER BY a, b; GROUP BY a, b), or cast it to a composite type.")
		}
		name, ok := commonTypes[oid]
		if ok && modifier == -1 {
			names[i] = "pg_catalog." + name
		} else {
			ask = append(ask, "pg_catalog.format_type("+strconv.FormatUint(uint64(b.local(oid)), 10)+", "+strconv.Itoa(int(modifier))+")")
			where = append(where, i)
		}
		if !ok && isLossy(oid) {
			lossy += "," + strconv.FormatUint(uint64(b.local(oid)), 10)
		}
		text := oid == oidText || oid == oidVarchar || oid == oidBpchar
		switch {
		case table != 0 && (!ok || text):
			ask = append(ask, fmt.Sprintf(collationOf, table, attribute))
			where = append(where, i)
		case text:
			computed = true
			ask = append(ask, fmt.Sprintf(collationFor, i+1))
			where = append(where, i)
		case !ok && table == 0: // an array of texts, or a type that somebody has made, may have one as well
			computed = true
			ask = append(ask, fmt.Sprintf(collationIfAny, b.local(oid), fmt.Sprintf(collationFor, i+1)))
			where = append(where, i)
		}
	}
	if len(ask) == 0 {
		return names, nil
	}
	sql := "SELECT " + strings.Join(ask, ", ")
	if lossy != "" {
		sql += ", " + strings.ReplaceAll(whollyTold, "{types}", lossy[1:])
	}
	if computed {
		sql += f.unasked(len(ends))
	}
	row, e := c.ask(b, f.x, sql)
	if e != nil {
		return nil, e
	}
	for j, i := range where {
		if j >= len(row) || !isType(row[j]) {
			return nil, unknownType()
		}
		names[i] += row[j]
	}
	if lossy != "" && (len(row) <= len(where) || row[len(where)] != "t") {
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "values of several shards cannot be put together with these settings").
			WithDetail("With extra_float_digits below 1, or a DateStyle that is not ISO, a shard does not tell the whole of an array, a range or a composite that holds such values.").
			WithHint("SET extra_float_digits = 1, and SET DateStyle = ISO.")
	}
	return names, nil
}

// collationOf asks for a column's collation, if it is not the database's.
const collationOf = `(SELECT pg_catalog.concat(' COLLATE ', pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(l.collname))
 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation l ON l.oid OPERATOR(pg_catalog.=) a.attcollation
 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) l.collnamespace
 WHERE a.attrelid OPERATOR(pg_catalog.=) %d AND a.attnum OPERATOR(pg_catalog.=) %d AND l.collname OPERATOR(pg_catalog.<>) 'default')`

// collationFor asks for the collation of a column of unasked, if it is not the database's.
const collationFor = `' COLLATE ' OPERATOR(pg_catalog.||) nullif(pg_catalog.pg_collation_for(q.c%d), '"default"')`

// collationIfAny asks a question about a column if its type has collations at all.
const collationIfAny = `CASE WHEN (SELECT t.typcollation FROM pg_catalog.pg_type t WHERE t.oid OPERATOR(pg_catalog.=) %d) OPERATOR(pg_catalog.<>) 0 THEN %s END`

// unasked is a FROM of one row that has what the shards are asked as q, whose columns are c1, c2, ...: PostgreSQL says what they are, and
// runs nothing of it.
func (f *fanout) unasked(columns int) string {
	sql := f.fan.SQL
	if f.fan.Unasked != "" {
		sql = f.fan.Unasked
	}
	if sql == "" {
		sql = f.x.stmt.sql
		if parts, err := sqlkey.Texts(sql); err == nil && len(parts) == 1 {
			sql = parts[0] // without a semicolon
		}
	}
	var names []string
	for i := range columns {
		names = append(names, "c"+strconv.Itoa(i+1))
	}
	return " FROM (SELECT 1) AS one LEFT JOIN (" + sql + "\n) AS q(" + strings.Join(names, ", ") + ") ON false"
}

// ask has a branch answer a query of the coordinator's own, which may have the parameters of x. Its only row is returned; "" is NULL as well.
func (c *Coordinator) ask(b *branch, x *execution, sql string) (row []string, _ *pg.Error) {
	b.send = pg.AppendSync(x.appendAsk(b.send, sql, nil, []int16{}))
	e := b.answer(func(values [][]byte, err error) *pg.Error {
		if err != nil {
			return b.lost(err)
		}
		row = row[:0]
		for _, v := range values {
			row = append(row, string(v))
		}
		return nil
	})
	return row, e
}

// mentioned tells which of the parameters a text may mention. One that it does not must not be bound as what it is: its type could not be
// told.
func mentioned(sql string, params int) []bool {
	found := make([]bool, params)
	for i := 0; i < len(sql); i++ {
		if sql[i] != '$' {
			continue
		}
		n := 0
		for i+1 < len(sql) && sql[i+1] >= '0' && sql[i+1] <= '9' && n <= params {
			i++
			n = n*10 + int(sql[i]-'0')
		}
		if n >= 1 && n <= params {
			found[n-1] = true
		}
	}
	return found
}
