package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// derived is a subquery in FROM of which the key columns can be followed: a condition on one of them is one on the rows that it is
// made of, for no row of another key has a part in a row of its result.
type derived struct {
	query *pgquery.SelectStmt
	level *built
	plain bool // each of its rows is one of its items'
	out   []column
}

// derive looks into an item's subquery, which was written at a place.
func (b *builder) derive(it *item, at place) {
	s := it.query.GetSelectStmt()
	if s == nil || s.GetOp() != pgquery.SetOperation_SETOP_NONE || s.GetWithClause() != nil || s.GetIntoClause() != nil || len(s.GetValuesLists()) > 0 ||
		s.GetLimitCount() != nil || s.GetLimitOffset() != nil || len(s.GetDistinctClause()) > 0 && s.GetDistinctClause()[0].GetNode() != nil {
		return
	}
	sh := shapeOf(s)
	if sh.odd != nil || sh.sets || len(sh.windows) > 0 {
		return
	}
	level := b.build(s, nil, s.GetFromClause(), s.GetWhereClause(), place{at.scope, nil, at.ctes})
	it.inner = &derived{query: s, level: level, plain: !sh.grouped && len(s.GetDistinctClause()) == 0}
	if it.ref.renames {
		return
	}
	it.ref.exports = make(map[string]column)
	twice := make(map[string]bool)
	export := func(name string, c column) {
		it.inner.out = append(it.inner.out, c)
		if _, ok := it.ref.exports[name]; ok {
			twice[name] = true
		}
		it.ref.exports[name] = c
	}
	for _, t := range s.GetTargetList() {
		val := t.GetResTarget().GetVal()
		if isStar(val) {
			level.exportAll(val, export)
			continue
		}
		name := targetLabel(t)
		if c, ok := level.scope.column(val, b.env.Database); ok && level.has(c) {
			export(name, c)
			continue
		}
		if _, ok := it.ref.exports[name]; ok {
			twice[name] = true
		}
	}
	for name := range twice {
		delete(it.ref.exports, name)
	}
}

// exportAll exports the key columns that * or a.* has.
func (l *built) exportAll(star *pgquery.Node, export func(string, column)) {
	alias := ""
	if fields := star.GetColumnRef().GetFields(); len(fields) == 2 {
		alias = fields[0].GetString_().GetSval()
	} else if len(fields) > 2 {
		return
	}
	for _, r := range l.scope.refs {
		if r.renames || alias != "" && r.alias != alias {
			continue
		}
		for name, c := range r.exports {
			l.exportOne(name, c, alias, export)
		}
		if r.table != nil {
			for i, name := range r.table.columns {
				l.exportOne(name, column{r, i}, alias, export)
			}
		}
	}
}

// exportOne exports a column of *. One that JOIN USING has merged is there once, as the item's whose value it has.
func (l *built) exportOne(name string, c column, alias string, export func(string, column)) {
	if merged, ok := l.scope.merged[name]; ok && alias == "" {
		if m, known := merged.key(name); !known || m != c {
			return
		}
	}
	export(name, c)
}

// has tells whether a column is one of the level's own items, or of theirs, and not of a level around it.
func (l *built) has(c column) bool {
	for _, it := range l.items {
		for _, r := range it.leaves() {
			if r == c.ref {
				return true
			}
		}
	}
	return false
}

// certain appends the sharded tables below that are there in every row of the subquery's result, and have one key in it.
func (d *derived) certain(list [][]*ref) [][]*ref {
	var all [][]*ref
	for _, it := range d.level.items {
		all = it.certain(all)
	}
	for _, refs := range all {
		if d.plain || len(refs) == 1 && d.exported(refs[0]) {
			list = append(list, refs)
		}
	}
	return list
}

// exported tells whether all columns of a table's key are among the subquery's: then each of its rows is of one key.
func (d *derived) exported(r *ref) bool {
	for i := range r.table.columns {
		if !slices.Contains(d.out, column{r, i}) {
			return false
		}
	}
	return true
}
