package sqlkey

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// CopyFormat is how the data of a COPY are written.
type CopyFormat uint8

// The formats of COPY.
const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// Copy is what a COPY between a client and a sharded table says: what the package copysplit needs to find each row's key. Of options
// that are wrong the shards say so, before any data.
type Copy struct {
	From         bool   // COPY FROM STDIN, else TO STDOUT
	Schema, Name string // of the table; "" of COPY (query)
	// Columns are the statement's list of columns; nil: all of the table's that are not generated, in its order.
	Columns []string
	// Given are columns that the list leaves to rangefinder.unique_id(): the node gives each row numbers for them, and Fan.SQL has them at the end of
	// its list of columns.
	Given []string
	// Key are the key's columns, in the keyspace's order.
	Key    []string
	Types  []rib.Type // of Key
	Method rib.Method

	Format    CopyFormat
	Delimiter byte    // text, CSV
	Null      string  // text, CSV: as it stands in the data
	Default   *string // text, CSV: what stands for a column's default, which may be ""; nil if nothing does
	Header    bool    // text, CSV: the first line is a header
	Quote     byte    // CSV
	Escape    byte    // CSV
	// ForceNull and ForceNotNull are CSV's columns of that option. All: of *, that is, of every column.
	ForceNull, ForceNotNull       []string
	ForceNullAll, ForceNotNullAll bool
	// ForceQuote are CSV's columns whose values are always in quotes.
	ForceQuote    []string
	ForceQuoteAll bool
	// Made, of COPY (query) TO STDOUT: its data are made of the rows that the statement has as a query.
	Made bool
	// Check, with Made, is a COPY with the same options and columns of no rows: a server says what is wrong with them.
	Check string
	// Alike, of COPY (query) TO STDOUT whose columns are not all named in it, or in binary format, is a query that has the same, and no rows: all shards must
	// describe it alike.
	Alike string
	// Encoding is the one that the statement gives the data; "": client_encoding.
	Encoding string
}

// copy plans COPY. Between the client and a sharded table it is one for all shards.
func (c *compiler) copy(s *pgquery.CopyStmt) *Plan {
	a, sv := c.analysis(), c.survey()
	sv.take(s)
	streams := s.GetFilename() == "" && !s.GetIsProgram()
	unchanging := streams && !s.GetIsFrom() && sv.write == ""
	sv.writes("COPY")
	if s.GetQuery() != nil {
		a.query(s.GetQuery(), place{})
	}
	var sharded *table
	if s.GetRelation() != nil {
		if whole, kind := a.resolve(s.GetRelation()); kind == copiedTable && s.GetIsFrom() {
			a.firm = true // a hint would have one copy written
			a.copyWhole(whole, s, streams)
		}
		if sharded = a.relation(s.GetRelation()); sharded != nil {
			hint := "Copy on each shard, connected to its primary, or COPY (SELECT ... WHERE the key = a value) TO STDOUT."
			if !streams {
				hint = "Use COPY FROM STDIN or TO STDOUT, or psql's \\copy: a file of a server's is read by that server alone."
			}
			a.refuse(sharded, &issue{pg.CodeFeatureNotSupported, "COPY concerns the rows of all shards", hint})
		}
	}
	a.subqueries(place{}, s.GetWhereClause())
	p := c.route(s, a, sv)
	p.Unchanging = unchanging
	if streams {
		if p.Target == None && p.about != nil {
			p = c.copySeveral(p, s, a, sharded)
		}
		if p.Target == Many && p.Fan.Everywhere {
			p.Fan.Copy = readCopy(s)
			p.Fan.Copy.Schema, p.Fan.Copy.Name = a.changed[0].schema, a.changed[0].name
		}
		p.CopyIn, p.CopyOut = s.GetIsFrom(), !s.GetIsFrom()
	}
	return p
}

// copyWhole takes a reference table that COPY fills: all copies get the same data.
func (a *analysis) copyWhole(t *table, s *pgquery.CopyStmt, streams bool) {
	a.changed = append(a.changed, t)
	if !streams {
		a.refuse(t, &issue{pg.CodeFeatureNotSupported, "a file of a server's is read by that server alone", "Use COPY FROM STDIN, or psql's \\copy."})
	}
	columns := stringsOf(s.GetAttlist())
	for _, name := range t.columns {
		switch {
		case len(columns) > 0 && !slices.Contains(columns, name):
			a.owns("COPY gives no " + quoteName(name) + ", for which each server would compute a default of its own")
		case readCopy(s).Default != nil:
			a.owns("its data may leave " + quoteName(name) + " to the default, which each server would compute for itself")
		}
	}
}

// copySeveral makes the plan of a COPY that cannot run on one shard, p, one for several, if it can be.
func (c *compiler) copySeveral(p *Plan, s *pgquery.CopyStmt, a *analysis, t *table) *Plan {
	fan := &Fan{Writes: s.GetIsFrom(), Why: "COPY concerns the rows of all shards", Refusal: p.Err}
	switch ks := p.about; {
	case t == nil:
		return c.copyQuery(p, s)
	case a.problem == nil || a.problem.table != t || t.of != nil || ks.method == nil:
		return p
	default:
		p.Keyspace, p.KeyspaceName, p.method = ks.id, ks.name, ks.method
	}
	if s.GetIsFrom() && t.wrong != "" {
		return p.refuse(&refusal{issue: *wrongKey(t), table: t})
	}
	if fan.Copy = readCopy(s); copyOption(s, "on_error") == "ignore" {
		return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, "COPY with ON_ERROR ignore is not possible on several shards", "Leave the option out: COPY ends at the first bad row."}, table: t})
	}
	fan.Copy.Schema, fan.Copy.Name, fan.Copy.Key, fan.Copy.Types, fan.Copy.Method = t.schema, t.name, t.columns, t.keyspace.types, t.keyspace.method
	if ids := c.db.ids[t.tableName]; s.GetIsFrom() && len(s.GetAttlist()) > 0 {
		var err error
		for _, name := range ids {
			if !slices.Contains(fan.Copy.Columns, name) {
				fan.Copy.Given = append(fan.Copy.Given, name)
			}
		}
		if fan.SQL, err = givenCopy(s, fan.Copy.Given); err != nil {
			return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, "it leaves " + quoteNames(fan.Copy.Given) + " to rangefinder.unique_id(), and with that column it cannot be written",
				"Add the column to COPY's list of columns, and to the data: SELECT rangefinder.unique_id() makes a number."}, table: t})
		}
	}
	p.Target, p.Fan, p.Err = Many, fan, nil
	p.Reason = c.where(p, fan) + ": each gets the rows whose keys it owns"
	if len(fan.Copy.Given) > 0 {
		p.Reason += ", with numbers for " + quoteNames(fan.Copy.Given)
	}
	if !s.GetIsFrom() {
		c.leaveCopied(s)
		p.Intent, p.WhyWrite, p.Unchanging = Read, "", false
		p.Reason = c.where(p, fan) + ": rows come as they are"
	}
	return p
}

// givenCopy is a COPY FROM with more columns; "" if there are none to be added.
func givenCopy(s *pgquery.CopyStmt, columns []string) (string, error) {
	if len(columns) == 0 {
		return "", nil
	}
	of := cloned(s)
	for _, name := range columns {
		of.Attlist = append(of.Attlist, pgquery.MakeStrNode(name))
	}
	textOptions(of)
	n := &pgquery.Node{Node: &pgquery.Node_CopyStmt{CopyStmt: of}}
	text, err := deparse(n)
	if err == nil && !same(n, text) {
		err = errOptions
	}
	return text, err
}

// leaveCopied makes of the COPY of a table one of a query, which can leave rows out: as PostgreSQL does where policies for rows do so.
func (c *compiler) leaveCopied(s *pgquery.CopyStmt) {
	l := c.leaves
	switch {
	case l == nil:
		return
	case len(s.GetAttlist()) == 0:
		l.fail(errors.New("it does not name its columns")) // it will: see NameCopied
		return
	}
	sel := &pgquery.SelectStmt{FromClause: []*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: s.GetRelation()}}},
		WhereClause: s.GetWhereClause(), Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}
	for _, name := range stringsOf(s.GetAttlist()) {
		sel.TargetList = append(sel.TargetList, target("", columnRef(name)))
	}
	a := c.analysis()
	a.spread = &spread{owner: sel}
	a.query(selectNode(sel), place{})
	if a.spread.anchor == nil || a.problem != nil {
		l.fail(errors.New("its table is not read as one of a query"))
		return
	}
	c.markLeave(a)
	of := surface(s)
	of.Relation, of.Attlist, of.WhereClause, of.Query = nil, nil, nil, selectNode(sel)
	c.takeLeave(&pgquery.Node{Node: &pgquery.Node_CopyStmt{CopyStmt: of}})
}

// copyQuery plans COPY (query) TO STDOUT of several shards. Where the query's rows are the shards' as they come, each makes its data; else the node does,
// of the rows that it has put together.
func (c *compiler) copyQuery(p *Plan, s *pgquery.CopyStmt) *Plan {
	check, unwritten := checking(s)
	hint := c.hint
	c.hint = nil // it was heeded
	q := c.query(s.GetQuery())
	c.hint = hint
	if q.Target != Many || q.Fan.Writes {
		return p
	}
	fan := *q.Fan
	fan.Copy = readCopy(s)
	fan.Copy.Made = fan.SQL != "" || fan.Order != nil || fan.Final != "" || fan.Hidden > 0 || fan.Limit.Set || fan.Offset.Set
	if q.Fan = &fan; !fan.Copy.Made {
		if holdsStar(s.GetQuery()) || fan.Copy.Format == CopyBinary {
			var err error
			if fan.Copy.Alike, err = deparse(noRows(s.GetQuery())); err != nil {
				e := *p.Err
				e.Hint = "Name the columns instead of *."
				p.Err = &e
				return p
			}
		}
		c.takeLeave(&pgquery.Node{Node: &pgquery.Node_CopyStmt{CopyStmt: s}}) // its query is marked by now
		return q
	}
	refuse := func(why, hint string) *Plan {
		e := *p.Err
		e.Detail += " " + why
		e.Hint = hint
		p.Err = &e
		return p
	}
	if fan.Copy.Check = check; unwritten != nil {
		return refuse("Its options cannot be written for a shard to check them.", "Use SELECT.")
	}
	if fan.Copy.Encoding != "" {
		return refuse("The node makes the data of rows of several shards in the client's encoding.", "Leave ENCODING out, and SET client_encoding.")
	}
	if fan.SQL == "" {
		var err error
		if fan.SQL, err = deparse(s.GetQuery()); err != nil {
			return refuse("What each shard is to be asked cannot be written.", "Use SELECT.")
		}
	}
	q.Reason += "; the node writes them as COPY does"
	return q
}

// checking is what a server is asked to check the options of a COPY (query).
func checking(s *pgquery.CopyStmt) (string, error) {
	of := cloned(s)
	textOptions(of)
	of.Query = noRows(of.GetQuery())
	n := &pgquery.Node{Node: &pgquery.Node_CopyStmt{CopyStmt: of}}
	text, err := deparse(n)
	if err == nil && !same(n, text) {
		err = errors.New("it would be written in words that mean something else")
	}
	return text, err
}

// noRows is a query that has the columns of another one.
func noRows(query *pgquery.Node) *pgquery.Node {
	rows := &pgquery.Node{Node: &pgquery.Node_RangeSubselect{RangeSubselect: &pgquery.RangeSubselect{Subquery: query, Alias: &pgquery.Alias{Aliasname: "rangefinder_rows"}}}}
	all := pgquery.MakeColumnRefNode([]*pgquery.Node{pgquery.MakeAStarNode()}, 0)
	return selectNode(&pgquery.SelectStmt{TargetList: []*pgquery.Node{target("", all)}, FromClause: []*pgquery.Node{rows}, LimitCount: pgquery.MakeAConstIntNode(0, 0),
		Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_COUNT})
}

func holdsStar(n *pgquery.Node) (found bool) {
	walk(n, func(x any) bool {
		_, ok := x.(*pgquery.A_Star)
		found = found || ok
		return !found
	})
	return found
}

// errOptions is that pg_query would not write the options of a COPY: it takes for granted that they have values of the right kind, and reads what is
// not there if they have not.
var errOptions = errors.New("its options have values of another kind than they should")

// writable tells whether pg_query can write the options of a COPY.
func writable(options []*pgquery.Node) bool {
	for _, o := range options {
		d := o.GetDefElem()
		arg, ok := d.GetArg(), true
		switch name := d.GetDefname(); {
		case ofText(name):
			ok = arg.GetString_() != nil
		case isOneOf(name, "force_quote", "force_null", "force_not_null"):
			ok = arg.GetAStar() != nil || arg.GetList() != nil
		case isOneOf(name, "header", "freeze"):
			ok = arg == nil || arg.GetString_() != nil || arg.GetInteger() != nil || arg.GetBoolean() != nil
		}
		if !ok {
			return false
		}
	}
	return true
}

// textOptions makes texts of what stands for them: numbers, and the true of HEADER in the old form, which is written so.
func textOptions(s *pgquery.CopyStmt) {
	for _, o := range s.GetOptions() {
		switch d := o.GetDefElem(); {
		case d.GetArg().GetBoolean() != nil:
			d.Arg = pgquery.MakeStrNode(strconv.FormatBool(d.GetArg().GetBoolean().GetBoolval()))
		case ofText(d.GetDefname()) && (d.GetArg().GetInteger() != nil || d.GetArg().GetFloat() != nil):
			d.Arg = pgquery.MakeStrNode(optionText(d))
		}
	}
}

// ofText tells whether an option of COPY has a text as its value.
func ofText(option string) bool {
	return isOneOf(option, "format", "delimiter", "null", "quote", "escape", "encoding")
}

// readCopy reads the options of a COPY. What is wrong with them is for a server to say.
func readCopy(s *pgquery.CopyStmt) *Copy {
	c := &Copy{From: s.GetIsFrom(), Columns: stringsOf(s.GetAttlist())}
	c.Delimiter, c.Null = '\t', `\N`
	switch copyOption(s, "format") {
	case "csv":
		c.Format, c.Delimiter, c.Null = CopyCSV, ',', ""
	case "binary":
		c.Format = CopyBinary
	}
	c.Quote = '"'
	escaped := false
	for _, o := range s.GetOptions() {
		d := o.GetDefElem()
		text := optionText(d)
		switch d.GetDefname() {
		case "delimiter":
			c.Delimiter = firstByte(text, c.Delimiter)
		case "null":
			c.Null = text
		case "default":
			c.Default = &text
		case "header":
			c.Header = isTrue(d.GetArg())
		case "quote":
			c.Quote = firstByte(text, c.Quote)
		case "escape":
			c.Escape, escaped = firstByte(text, c.Escape), true
		case "force_null":
			c.ForceNull, c.ForceNullAll = stringsOf(d.GetArg().GetList().GetItems()), d.GetArg().GetAStar() != nil
		case "force_not_null":
			c.ForceNotNull, c.ForceNotNullAll = stringsOf(d.GetArg().GetList().GetItems()), d.GetArg().GetAStar() != nil
		case "force_quote":
			c.ForceQuote, c.ForceQuoteAll = stringsOf(d.GetArg().GetList().GetItems()), d.GetArg().GetAStar() != nil
		case "encoding":
			c.Encoding = text
		}
	}
	if !escaped {
		c.Escape = c.Quote
	}
	return c
}

// copyOption is an option's value in lower case, "" if it is not given.
func copyOption(s *pgquery.CopyStmt, name string) string {
	i := slices.IndexFunc(s.GetOptions(), func(o *pgquery.Node) bool { return o.GetDefElem().GetDefname() == name })
	if i < 0 {
		return ""
	}
	return strings.ToLower(optionText(s.GetOptions()[i].GetDefElem()))
}

// optionText is an option's value as PostgreSQL reads it that wants a text; a number may stand for one.
func optionText(d *pgquery.DefElem) string {
	switch n := d.GetArg(); {
	case n.GetInteger() != nil:
		return strconv.Itoa(int(n.GetInteger().GetIval()))
	case n.GetFloat() != nil:
		return n.GetFloat().GetFval()
	default:
		return n.GetString_().GetSval()
	}
}

func stringsOf(nodes []*pgquery.Node) (list []string) {
	for _, n := range nodes {
		list = append(list, n.GetString_().GetSval())
	}
	return list
}

func firstByte(s string, other byte) byte {
	if s == "" {
		return other
	}
	return s[0]
}
