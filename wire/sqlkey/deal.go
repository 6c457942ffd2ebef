package sqlkey

import (
	"slices"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// Deal is how an INSERT runs whose rows are made by a query of no sharded table: of arrays, of series, of reference tables; or by expressions that only
// PostgreSQL can evaluate. One shard does that, and each row is inserted where its key belongs.
type Deal struct {
	query   string   // see Query
	Columns []string // of the table, that the query gives: any of them in any order
	Table   string   // its name, as it may stand in a statement
	// Insert is what each shard is asked that gets rows, with FinalRows for these: a relation named rangefinder_rows of these columns.
	Insert string

	place []int // of the key's columns among Columns
	key   keyTypes
}

// dealt is the relation that is made of the query.
const dealt = "rangefinder_dealt"

// Query is what that shard is asked. The types, by their names, are those of Columns but for modifiers, and the query's columns are cast to them: that what is
// cast can be assigned the server finds out when it is asked for the statement's parameters. What the query leaves open, a constant or a parameter, is a text
// in it. Where it is a list of rows, each value is cast by itself, as for an INSERT; the list would give all of a column one type.
func (d *Deal) Query(types []string) string {
	list := make([]string, len(types))
	swap := make([]string, 0, 2*len(types)+2)
	for i, typ := range types {
		n := strconv.Itoa(i + 1)
		list[i] = dealt + ".rangefinder_" + n + "::" + typ + " AS rangefinder_" + n
		swap = append(swap, FinalType+n+"}", typ)
	}
	return strings.NewReplacer(append(swap, FinalColumns, strings.Join(list, ", "))...).Replace(d.query)
}

// Typed is a question whose columns have the types of Columns.
func (d *Deal) Typed() string {
	list := make([]string, len(d.Columns))
	for i, name := range d.Columns {
		list[i] = rib.QuoteIdent(name)
	}
	return "SELECT " + strings.Join(list, ", ") + " FROM ONLY " + d.Table
}

// Key appends the key that a row has with these values of Columns, as text, in the client's encoding. nil is NULL.
func (d *Deal) Key(dst rib.Key, values [][]byte, clientUTF8 bool) (rib.Key, error) {
	parts := make([][]byte, len(d.place))
	for i, at := range d.place {
		parts[i] = values[at]
	}
	return d.key.appendKey(dst, parts, clientUTF8)
}

// deal is how an INSERT whose query gives keys that only a server can tell runs on several shards. a is what was found of it, and other why it does not
// otherwise.
func (c *compiler) deal(n *pgquery.Node, a *analysis, s *survey, other *issue) (*Fan, string, *issue) {
	insert := n.GetInsertStmt()
	sel := insert.GetSelectStmt().GetSelectStmt()
	if sel == nil || len(a.keyed) > 0 || len(a.rows) == 0 {
		return nil, "", other
	}
	t := a.rows[0].table
	source := insert.GetSelectStmt()
	if len(sel.GetValuesLists()) > 0 && bare(sel) {
		var problem *issue
		if source, problem = c.castRows(sel, len(insert.GetCols())); problem != nil {
			return nil, "", problem
		}
	}
	conflict := insert.GetOnConflictClause()
	switch {
	case s.changes > 1:
		return nil, "", issuef("it changes rows in WITH as well")
	case s.home != "":
		return nil, "", issuef("%s concerns what one shard alone has", s.home)
	case a.catalogs:
		return nil, "", issuef("its rows are made of system catalogs, which each shard has its own of")
	case s.ofOneShard() != nil:
		return nil, "", s.ofOneShard()
	case s.marks:
		return nil, "", issuef("it holds a name or text like %s", FinalRows)
	case holdsQuery(insert.GetReturningList()):
		return nil, "", issuef("RETURNING has a subquery, and on each row's shard there are other rows")
	case holdsQuery(conflict.GetTargetList()), holdsQuery([]*pgquery.Node{conflict.GetWhereClause()}):
		return nil, "", issuef("ON CONFLICT has a subquery, and on each row's shard there are other rows")
	}
	d := &Deal{key: keyTypes{t.keyspace.types, t.keyspace.method, "The query gives it so"}}
	columns := make([]*pgquery.Node, len(insert.GetCols()))
	for i, col := range insert.GetCols() {
		if len(col.GetResTarget().GetIndirection()) > 0 {
			return nil, "", issuef("it gives a part of %s only", quoteName(col.GetResTarget().GetName()))
		}
		d.Columns = append(d.Columns, col.GetResTarget().GetName())
		columns[i] = pgquery.MakeStrNode("rangefinder_" + strconv.Itoa(i+1))
	}
	for _, name := range t.columns {
		d.place = append(d.place, slices.Index(d.Columns, name))
	}
	query := &pgquery.SelectStmt{
		TargetList: []*pgquery.Node{target("", columnRef(FinalColumns))},
		FromClause: []*pgquery.Node{{Node: &pgquery.Node_RangeSubselect{RangeSubselect: &pgquery.RangeSubselect{
			Subquery: source, Alias: &pgquery.Alias{Aliasname: dealt, Colnames: columns},
		}}}},
		WithClause: insert.GetWithClause(), Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT,
	}
	given := surface(insert)
	given.WithClause = nil
	given.SelectStmt = selectNode(&pgquery.SelectStmt{
		TargetList: []*pgquery.Node{target("", starOf("rangefinder_rows"))},
		FromClause: []*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: &pgquery.RangeVar{Relname: FinalRows, Inh: true, Relpersistence: "p"}}}},
		Op:         pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT,
	})
	var err error
	if d.query, err = deparseFinal(selectNode(query)); err == nil {
		d.Insert, err = deparseFinal(&pgquery.Node{Node: &pgquery.Node_InsertStmt{InsertStmt: given}})
	}
	if err == nil {
		d.Table, err = writtenTable(insert.GetRelation())
	}
	if err != nil {
		return nil, "", issuef("what the shards are to be asked cannot be written: %v", err)
	}
	return &Fan{Writes: true, Deal: d}, "one shard makes the rows, and each is inserted where its key belongs", nil
}

// bare tells whether a list of rows is that alone: else its columns have types of their own, as those of a query, before it is sorted.
func bare(values *pgquery.SelectStmt) bool {
	return len(values.GetSortClause()) == 0 && values.GetLimitCount() == nil && values.GetLimitOffset() == nil && values.GetWithClause() == nil && len(values.GetLockingClause()) == 0
}

// castRows is a list of rows in which each value is cast to its column's type. A cast of ARRAY[...] or ROW(...) would be one of what is in it.
func (c *compiler) castRows(values *pgquery.SelectStmt, columns int) (*pgquery.Node, *issue) {
	list := make([]*pgquery.Node, len(values.GetValuesLists()))
	for i, row := range values.GetValuesLists() {
		items := row.GetList().GetItems()
		switch {
		case c.fold.rowsOf(row) != nil: // the text is parsed as a whole then
			c.fold.doubt = true
			return nil, issuef("it has many rows")
		case len(items) != columns:
			return nil, issuef("a row has another number of values than there are columns")
		}
		cast := make([]*pgquery.Node, len(items))
		for j, val := range items {
			switch {
			case val.GetSetToDefault() != nil:
				return nil, issuef("a row leaves a column to its DEFAULT: leave the column out")
			case val.GetAArrayExpr() != nil, val.GetRowExpr() != nil:
				return nil, issuef("a value is written as ARRAY[...] or ROW(...): cast it to its type")
			}
			cast[j] = castNode(val, FinalType+strconv.Itoa(j+1)+"}")
		}
		list[i] = pgquery.MakeListNode(cast)
	}
	all := surface(values)
	all.ValuesLists = list
	return selectNode(all), nil
}

func (d *Deal) bytes() int {
	n := len(d.query) + len(d.Table) + len(d.Insert)
	for _, c := range d.Columns {
		n += len(c) + 16
	}
	return n + 192
}
