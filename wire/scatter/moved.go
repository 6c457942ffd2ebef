package scatter

import (
	"strconv"
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
)

// Whole rows of a table that have been read on one shard are written on another as text, in an array for each column: what every type can be made of
// again. This file is about what both ways of doing so need, that of an UPDATE of the key (rekey.go) and that of a write that is evaluated once
// (once.go).

// tableFacts are what matters of a table whose rows are to be written elsewhere.
type tableFacts struct {
	columns   int    // that it has
	generated []int  // columns, from 0, that cannot be given
	key       []int  // those of its primary key; nil: it has none
	cascades  string // a foreign key that refers to it and does more than to refuse
	inherited bool
	rules     bool
	digits    bool // numbers keep all their digits as text
	iso       bool // dates are the same everywhere as text
}

// aboutTable asks for them. (relhasrules and relhassubclass stay true of a table whose last rule or child was dropped.)
const aboutTable = `SELECT
 (SELECT pg_catalog.string_agg(q.n::text, ',') FROM (SELECT a.attgenerated, pg_catalog.row_number() OVER (ORDER BY a.attnum) AS n
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) q WHERE q.attgenerated <> ''),
 (SELECT f.conname::text FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.confrelid = c.oid
  AND (f.confupdtype IN ('c', 'n', 'd') OR f.confdeltype IN ('c', 'n', 'd')) ORDER BY 1 LIMIT 1),
 c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid), EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid),
 pg_catalog.current_setting('extra_float_digits')::int > 0, pg_catalog.current_setting('DateStyle'),
 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
 (SELECT pg_catalog.string_agg(q.n::text, ',') FROM (SELECT a.attnum, pg_catalog.row_number() OVER (ORDER BY a.attnum) AS n
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) q
  WHERE q.attnum = ANY (SELECT pg_catalog.unnest((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
 FROM pg_catalog.pg_class c WHERE c.oid = {table}::pg_catalog.regclass`

// about asks a shard about a table, whose name is as it may stand in a statement.
func (c *Coordinator) about(b *branch, x *execution, table string) (f tableFacts, _ *pg.Error) {
	row, e := c.ask(b, x, strings.ReplaceAll(aboutTable, "{table}", rib.QuoteLiteral(table)))
	switch {
	case e != nil:
		return f, e
	case len(row) != 8:
		return f, malformed()
	}
	f.generated, f.key = places(row[0]), places(row[7])
	f.cascades, f.inherited, f.rules = row[1], row[2] == "t", row[3] == "t"
	f.digits, f.iso = row[4] == "t", strings.HasPrefix(row[5], "ISO")
	f.columns, _ = strconv.Atoi(row[6])
	return f, nil
}

// studied asks one shard about a statement, which PostgreSQL has to find right as it is, and tells the session its columns. desc are these; nil: it has
// none. run is the statement with the types of all parameters.
func (c *Coordinator) studied(x *execution, b *branch) (desc []byte, run *execution, _ *pg.Error) {
	ask := &errand{b: b, send: pg.AppendParse(nil, "", x.stmt.sql, x.stmt.oids)}
	ask.send = pg.AppendDescribe(ask.send, pg.KindStatement, "")
	ask.send = pg.AppendBindAs(ask.send, x.bind, "", "")
	ask.send = pg.AppendDescribe(ask.send, pg.KindPortal, "")
	if e := c.errands(x, []*errand{ask}); e != nil {
		return nil, nil, e
	}
	c.taken(x.stmt)
	switch {
	case !x.columns:
	case ask.desc != nil:
		c.out = pg.AppendFrame(c.out, pg.TypeRowDescription, ask.desc)
	case !x.simple:
		c.out = pg.AppendNoData(c.out)
	}
	stmt, with := *x.stmt, *x
	stmt.oids = ask.oids
	for i, oid := range stmt.oids {
		if oid >= oids.First { // elsewhere it may be another: the text tells
			stmt.oids[i] = 0
		}
	}
	with.stmt = &stmt
	return ask.desc, &with, nil
}

// places are the numbers, from 1, of a list: from 0 here.
func places(list string) (at []int) {
	if list == "" {
		return nil
	}
	for n := range strings.SplitSeq(list, ",") {
		i, _ := strconv.Atoi(n)
		at = append(at, i-1)
	}
	return at
}

// changed is why values would not be the same again once they have been text; "": they are.
func (f *tableFacts) changed() string {
	switch {
	case !f.digits:
		return "With extra_float_digits below 1 numbers would lose digits."
	case !f.iso:
		return "Dates can be moved with DateStyle ISO only."
	}
	return ""
}

// relationOf is rows, which are sent as arrays behind some parameters, as a relation: rangefinder_rows, with the columns rangefinder_1 and so on.
func relationOf(types []string, params int) string {
	var out, from, names []string
	for i, typ := range types {
		n := strconv.Itoa(i + 1)
		out = append(out, "v.c"+n+"::"+typ+" AS rangefinder_"+n)
		from = append(from, "pg_catalog.unnest($"+strconv.Itoa(params+i+1)+")")
		names = append(names, "c"+n)
	}
	return "(SELECT " + strings.Join(out, ", ") + " FROM ROWS FROM (" + strings.Join(from, ", ") + ") AS v(" + strings.Join(names, ", ") + ")) AS rangefinder_rows"
}
