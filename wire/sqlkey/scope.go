package sqlkey

import pgquery "github.com/pganalyze/pg_query_go/v6"

// ref is one item of a FROM clause, or the target of a data-modifying statement.
type ref struct {
	alias   string            // the name its columns are qualified with
	schema  string            // for schema-qualified columns; "" if it has an alias or is no table
	table   *table            // nil for everything that has no key
	renames bool              // its alias renames columns, so no column is known by name
	exports map[string]column // of a subquery: the key columns of its tables among its own

	row    map[string]*pgquery.Node // of a subquery that is one row of expressions: these, by column
	target *pgquery.UpdateStmt      // that changes it; nil of all others

	value bool // of a function that gives one value a row: its alias is the column's name as well

	returned bool // it is what a part of WITH that changes rows returns

	level *built // where it is an item of FROM, or the target

	optional bool // on the side of an outer join that may be missing

	keys  []*binding // by key column, once known
	issue *issue     // the first reason found why a condition on its key did not count
}

// scope is what column names may mean in one query level; parent is the level around it.
type scope struct {
	parent *scope
	refs   []*ref
	merged map[string]*ref // columns that JOIN USING has merged; nil: it cannot be told of which item
}

// within returns the scope for an expression that sees only some items of s, as a join's condition does.
func (s *scope) within(refs []*ref) *scope { return &scope{s.parent, refs, s.merged} }

// column finds the key column that a column reference means. ok is false if it means none, or if that cannot be told for
// certain: only key columns of sharded tables are known, so an unknown name may be a column of any item.
func (s *scope) column(n *pgquery.Node, database string) (c column, ok bool) {
	fields := n.GetColumnRef().GetFields()
	if len(fields) == 0 || len(fields) > 4 {
		return column{}, false
	}
	var names [4]string
	for i, f := range fields {
		if f.GetString_() == nil {
			return column{}, false
		}
		names[i] = f.GetString_().GetSval()
	}
	if len(fields) == 4 {
		if names[0] != database {
			return column{}, false
		}
		copy(names[:], names[1:])
	}
	for level := s; level != nil; level = level.parent {
		var found *ref
		var name string
		var here bool
		switch len(fields) {
		case 1:
			name = names[0]
			found, here = level.unqualified(name)
		case 2:
			name = names[1]
			found, here = level.named(func(r *ref) bool { return r.alias == names[0] })
		default:
			name = names[2]
			found, here = level.named(func(r *ref) bool { return r.schema == names[0] && r.table != nil && r.table.name == names[1] })
		}
		if here {
			return found.key(name)
		}
	}
	return column{}, false
}

// unqualified finds the one item of this level that certainly has the column. here is true if the search ends at this
// level, found or not: any item may have columns that are not known.
func (s *scope) unqualified(name string) (found *ref, here bool) {
	if r, ok := s.merged[name]; ok {
		for _, visible := range s.refs {
			if visible == r {
				return r, true
			}
		}
		if r == nil {
			return nil, true
		}
	}
	for _, r := range s.refs {
		if _, ok := r.key(name); ok {
			if found != nil {
				return nil, true // ambiguous; PostgreSQL will say so
			}
			found = r
		}
	}
	return found, len(s.refs) > 0
}

// named finds the one item that matches. Several make the name ambiguous.
func (s *scope) named(match func(*ref) bool) (found *ref, here bool) {
	for _, r := range s.refs {
		if match(r) {
			if found != nil {
				return nil, true
			}
			found = r
		}
	}
	return found, found != nil
}

// key is the key column of that name.
func (r *ref) key(name string) (column, bool) {
	if r == nil || r.renames {
		return column{}, false
	}
	if c, ok := r.exports[name]; ok || r.table == nil {
		return c, ok
	}
	for i, c := range r.table.columns {
		if c == name {
			return column{r, i}, true
		}
	}
	return column{}, false
}

// ctes are the names that WITH gives in a statement and around it.
type ctes struct {
	parent *ctes
	names  map[string]bool
	once   map[string]*subquery // those that are as good as a subquery where they are named

	changing *changing // its one name is that of a part that changes rows, and what that returns is as good as a table; nil: it is none, or that is not asked
}

// subquery is a query where it was written.
type subquery struct {
	query *pgquery.Node
	at    place
}

// find is the subquery that a name stands for; nil if it stands for what is to be taken for itself.
func (c *ctes) find(name string) *subquery {
	for ; c != nil; c = c.parent {
		if c.names[name] {
			return c.once[name]
		}
	}
	return nil
}

// returns is what the part that changes rows and has a name returns; nil if there is no such part.
func (c *ctes) returns(name string) *changing {
	for ; c != nil; c = c.parent {
		if c.names[name] {
			return c.changing
		}
	}
	return nil
}

func (c *ctes) has(name string) bool {
	for ; c != nil; c = c.parent {
		if c.names[name] {
			return true
		}
	}
	return false
}

// place is where in a statement an expression or a query stands: what names mean there, and what holds there.
type place struct {
	scope *scope
	facts *facts
	ctes  *ctes
}
