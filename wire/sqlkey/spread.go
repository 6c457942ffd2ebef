package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// spread is the question whether a query level gives on all rows what it gives for each key alone, all taken together. It does
// if the statement could run on one shard were there a condition more on that level, that the key of one of its tables is a
// certain one: whatever that key is, rows with others do not change the result, and each row of the level's result has one key.
// So the analysis is made again with that condition, for a key of which nothing is known (see KeyRef.unknown), and what it finds is
// the answer: every reference to a sharded table must be bound to that key.
type spread struct {
	owner any        // the query level: a statement of the parse tree
	pick  int        // which of its tables it is that has the key
	key   []*binding // by column

	// what was found
	choices int    // tables of the level that could be picked
	anchor  *ref   // the one that was
	picked  []*ref // the same, or the two sides of a full join
	inside  place  // what holds at the level
}

// maxChoices bounds how many tables of a level are tried.
const maxChoices = 8

// unknowns is a key of n columns of which nothing is known.
func unknowns(n int) []*binding {
	list := make([]*binding, n)
	for i := range list {
		list[i] = &binding{KeyRef{unknown: i + 1}}
	}
	return list
}

// pickFrom adds the condition on the table that is picked from the items of a level.
func (q *spread) pickFrom(items []*item, list []fact) []fact {
	var certain [][]*ref
	for _, it := range items {
		certain = it.certain(certain)
	}
	q.choices = len(certain)
	if q.pick >= len(certain) {
		return list
	}
	picked := certain[q.pick]
	q.anchor, q.picked = picked[0], picked
	if q.key == nil {
		q.key = unknowns(len(q.anchor.table.columns))
	}
	if len(q.key) != len(q.anchor.table.columns) {
		return list
	}
	for _, r := range picked {
		var within []*ref
		if len(picked) > 1 {
			within = []*ref{r}
		}
		for i, v := range q.key {
			list = append(list, fact{a: column{r, i}, value: v, within: within})
		}
	}
	return list
}

// certain appends the sharded tables below of which one is there in every row that comes out of the item: one alone, or the two sides of a
// full join by their keys, of which those that are there have the same.
func (it *item) certain(list [][]*ref) [][]*ref {
	if it.left == nil {
		if it.ref.table != nil {
			list = append(list, []*ref{it.ref})
		}
		if it.inner != nil {
			list = it.inner.certain(list)
		}
		return list
	}
	switch it.kind {
	case pgquery.JoinType_JOIN_INNER:
		return it.right.certain(it.left.certain(list))
	case pgquery.JoinType_JOIN_LEFT:
		return it.left.certain(list)
	case pgquery.JoinType_JOIN_RIGHT:
		return it.right.certain(list)
	case pgquery.JoinType_JOIN_FULL:
		for _, l := range it.left.certain(nil) {
			for _, r := range it.right.certain(nil) {
				if it.pairs(l, r) {
					list = append(list, slices.Concat(l, r))
				}
			}
		}
	}
	return list
}

// pairs tells whether the join's condition has the keys of one of the left tables and one of the right ones equal.
func (it *item) pairs(left, right []*ref) bool {
	for _, l := range left {
		for _, r := range right {
			equal := l.table.keyspace == r.table.keyspace && len(l.table.columns) == len(r.table.columns)
			for i := range l.table.columns {
				a, b := column{l, i}, column{r, i}
				equal = equal && slices.ContainsFunc(it.on, func(f fact) bool {
					return f.value == nil && f.set == nil && (f.a == a && f.b == b || f.a == b && f.b == a)
				})
			}
			if equal {
				return true
			}
		}
	}
	return false
}

// mayMiss notes which tables below may be missing in a row that comes out of the item.
func (it *item) mayMiss(missing bool) {
	if it.left == nil {
		it.ref.optional = it.ref.optional || missing
		if it.inner != nil {
			for _, in := range it.inner.level.items {
				in.mayMiss(missing)
			}
		}
		return
	}
	full := it.kind == pgquery.JoinType_JOIN_FULL
	it.left.mayMiss(missing || full || it.kind == pgquery.JoinType_JOIN_RIGHT)
	it.right.mayMiss(missing || full || it.kind == pgquery.JoinType_JOIN_LEFT)
}

// bound tells whether every reference to a sharded table has the unknown key. If not, the first that has not is returned.
func (q *spread) bound(a *analysis) (*ref, bool) {
	if q.anchor == nil {
		return nil, false
	}
	for _, r := range a.rows {
		if r.table.keyspace != q.anchor.table.keyspace || !q.isKey(r.keys) {
			return nil, false
		}
	}
	for _, r := range a.keyed {
		if r.table.keyspace != q.anchor.table.keyspace || !q.isKey(r.keys) {
			return r, false
		}
	}
	return nil, true
}

// isKey tells whether columns have the unknown key.
func (q *spread) isKey(columns []*binding) bool {
	for i, v := range columns {
		if v == nil || v.unknown != i+1 {
			return false
		}
	}
	return len(columns) == len(q.key)
}

// has tells whether an expression of the level is the unknown key's column i in every row.
func (q *spread) has(a *analysis, n *pgquery.Node, i int) bool {
	c, ok := q.inside.scope.column(n, a.env.Database)
	if !ok || c.ref.optional {
		return false
	}
	v := q.inside.facts.value(c)
	return v != nil && v.unknown == i+1
}

// haveKey tells whether all columns of the key are among the expressions.
func (q *spread) haveKey(a *analysis, exprs []*pgquery.Node) bool {
	for i := range q.key {
		found := false
		for _, n := range exprs {
			found = found || q.has(a, n, i)
		}
		if !found {
			return false
		}
	}
	return len(q.key) > 0
}

// spreads looks for a table of the level owner whose key makes the whole statement n spread. The analysis is the one in which it
// was found; nil if there is none.
func (c *compiler) spreads(n *pgquery.Node, owner any) *analysis {
	c.stuck = nil
	for pick := 0; pick < maxChoices; pick++ {
		a := c.analysis()
		a.spread, a.top = &spread{owner: owner, pick: pick}, topOf(n)
		a.query(n, place{})
		if c.stuck = a.stuck; c.stuck != nil {
			return nil
		}
		if _, ok := a.spread.bound(a); ok && a.problem == nil {
			c.markLeave(a)
			return a
		}
		if pick+1 >= a.spread.choices {
			break
		}
	}
	return nil
}
