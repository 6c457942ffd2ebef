package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// Reference tables are whole on each shard of their keyspace. What reads them may run on any of these, so they stand in no other table's way;
// what writes them runs on all, and must do the same on each.

// target resolves the name of a table that is written.
func (a *analysis) target(rv *pgquery.RangeVar) *table {
	if t, kind := a.resolve(rv); kind == copiedTable {
		if a.changed = append(a.changed, t); rv.GetSchemaname() == "" {
			a.refuseTwoMeanings(t)
		}
	}
	return a.relation(rv)
}

// copiesOf are the shards that have all the tables; nil if there are no tables, or no such shard.
func copiesOf(tables []*table) (shards []string) {
	for i, t := range tables {
		if i == 0 {
			shards = t.keyspace.shards
		} else {
			shards = common(shards, t.keyspace.shards)
		}
	}
	return shards
}

// common are the names in both of two sorted lists; nil if there is none.
func common(a, b []string) (both []string) {
	if slices.Equal(a, b) {
		return a
	}
	for _, s := range a {
		if _, ok := slices.BinarySearch(b, s); ok {
			both = append(both, s)
		}
	}
	return both
}

// copied plans what names reference tables, and no others.
func (c *compiler) copied(p *Plan, a *analysis) *Plan {
	p.Reason = a.copied[0].String() + " is whole on every shard of keyspace " + a.copied[0].keyspace.name
	if p.Intent == Write {
		p.Target, p.Shard = Unsharded, c.leader(p.Copies)
	}
	return p
}

// leader is the one of the shards with copies of a table on which rows are locked first, by whoever does so: there they meet, and do not wait for each
// other on several shards in a circle. It is the one where sequences are that no table owns, if that has a copy.
func (c *compiler) leader(shards []string) string {
	if slices.Contains(shards, c.db.home) {
		return c.db.home
	}
	return shards[0]
}

// everywhere plans a write to reference tables.
func (c *compiler) everywhere(m proto.Message, p *Plan, a *analysis, s *survey) *Plan {
	t := a.changed[0]
	ks := t.keyspace
	refuse := func(reason, hint string) *Plan {
		q := p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, reason, hint}, table: t})
		q.about = nil // no hint makes it right
		return q
	}
	switch {
	case ks.method == nil:
		return refuse("its keyspace uses a sharding method that this version does not know", "Upgrade this node.")
	case len(a.keyed)+len(a.rows) > 0:
		return refuse("a write to it names a sharded table as well, of which each shard has other rows", "Select what is to be written first, and send it as constants or parameters.")
	case len(a.plain) > 0:
		return refuse("a write to it names "+strings.Join(a.plain, ", ")+" as well, which one shard alone has", "Select what is to be written first, and send it as constants or parameters.")
	}
	for _, u := range a.copied {
		if !slices.Equal(u.keyspace.shards, ks.shards) {
			return refuse("a write to it names "+u.String()+" as well, which is on other shards", "Select what is to be written first, and send it as constants or parameters.")
		}
	}
	p.Target, p.Keyspace, p.KeyspaceName = Many, ks.id, ks.name
	p.fixed = true // some constants would be refused
	p.Fan = &Fan{Writes: true, Everywhere: true, Lead: c.leader(ks.shards), Times: s.times, Why: t.String() + " is whole on several shards, and all of them are written"}
	p.Fan.Refusal = pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed: "+t.what()).
		WithDetail(t.rule() + ": all of them would be written.").
		WithHint("Send it as a statement of its own.")
	p.Reason = p.Fan.Why
	why := a.own
	if s.unlike != "" {
		why = s.unlike + " may come out differently on each shard"
	} else if a.catalogs {
		why = "the system catalogs differ between shards"
	}
	if _, copying := m.(*pgquery.CopyStmt); why == "" && len(a.copied) > 1 && !copying {
		why = "what it reads of " + a.read().String() + " may have changed on one shard and not yet on the next"
	}
	if why == "" {
		return p
	}
	if problem := c.once(m, p, t, s, why); problem != nil {
		p.Fan, p.fixed = nil, false
		return refuse("a write to it must do the same on every shard, and "+why+"; it cannot be evaluated once for all of them: "+problem.reason,
			"Compute it first (SELECT ...), and send the values as constants or parameters; rangefinder.unique_id() makes numbers.")
	}
	p.Reason += ": " + p.Fan.Once.On + " carries it out, for " + why + ", and the others are given its rows"
	return p
}

// read is a reference table that a write to another one reads; the one that is written if it reads no other.
func (a *analysis) read() *table {
	for _, t := range a.copied {
		if !slices.Contains(a.changed, t) {
			return t
		}
	}
	return a.changed[0]
}

// insertWhole notes that an INSERT into a reference table leaves a column to each server.
func (a *analysis) insertWhole(t *table, s *pgquery.InsertStmt, values *pgquery.SelectStmt) {
	if a.db.told && t.all == nil { // it was made a moment ago, and not through this node
		a.owns("its columns are not known yet, and each server might compute a default of its own")
	}
	if len(t.columns) == 0 {
		return
	}
	own := func(what string) { a.owns(what + ", for which each server would compute a default of its own") }
	if values == nil {
		own("DEFAULT VALUES gives no " + quoteNames(t.columns))
		return
	}
	if s.GetOverride() == pgquery.OverridingKind_OVERRIDING_USER_VALUE {
		own("OVERRIDING USER VALUE leaves out " + quoteNames(t.columns))
		return
	}
	if len(s.GetCols()) == 0 {
		own("INSERT names no columns, and may leave out " + quoteNames(t.columns))
		return
	}
	for _, column := range t.columns {
		at := slices.IndexFunc(s.GetCols(), func(n *pgquery.Node) bool { return n.GetResTarget().GetName() == column })
		if at < 0 {
			own("INSERT gives no " + quoteName(column))
			return
		}
		for _, n := range values.GetValuesLists() {
			if items := n.GetList().GetItems(); at < len(items) && items[at].GetSetToDefault() != nil {
				own("INSERT leaves " + quoteName(column) + " to its DEFAULT")
				return
			}
		}
	}
	a.updateWhole(t, s.GetOnConflictClause().GetTargetList())
}

// updateWhole notes assignments of DEFAULT that each server would compute for itself.
func (a *analysis) updateWhole(t *table, assignments []*pgquery.Node) {
	for _, n := range assignments {
		r := n.GetResTarget()
		val := r.GetVal()
		if m := val.GetMultiAssignRef(); m != nil { // of SET (a, b) = (...); what is no row there has no DEFAULT
			if args, at := m.GetSource().GetRowExpr().GetArgs(), int(m.GetColno())-1; at >= 0 && at < len(args) {
				val = args[at]
			}
		}
		if val.GetSetToDefault() != nil && slices.Contains(t.columns, r.GetName()) {
			a.owns("it sets " + quoteName(r.GetName()) + " to its DEFAULT, which each server would compute for itself")
		}
	}
}

// owns notes what each server would compute for itself.
func (a *analysis) owns(what string) {
	if a.own == "" {
		a.own = what
	}
}

func quoteNames(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteName(n)
	}
	return strings.Join(quoted, ", ")
}

// valueFunction is how SQL writes a function that has no parentheses.
func valueFunction(op pgquery.SQLValueFunctionOp) string {
	name := strings.TrimPrefix(op.String(), "SVFOP_")
	return strings.TrimSuffix(name, "_N")
}
