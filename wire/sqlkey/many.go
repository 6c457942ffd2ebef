package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// many makes the plan of a statement that has not one key one for several shards, or refuses with one, and with why that cannot be. a is what was found of it.
func (c *compiler) many(m proto.Message, p *Plan, a *analysis, s *survey, one *refusal) *Plan {
	if one.code != pg.CodeFeatureNotSupported { // the key is given, and wrong
		return p.refuse(one)
	}
	fan, how, problem := c.fan(m, s)
	if problem == nil {
		problem = s.ofOneShard()
	}
	if n, ok := m.(*pgquery.Node); ok && problem != nil && n.GetInsertStmt() != nil {
		fan, how, problem = c.deal(n, a, s, problem)
	}
	if problem != nil {
		one.many = problem.reason
		if problem.hint != "" && one.hint != "" {
			one.hint += " " + problem.hint
		}
		return p.refuse(one)
	}
	return c.over(p, fan, how, one)
}

// ofOneShard is what in the statement means something else on each shard; nil: nothing does.
func (s *survey) ofOneShard() *issue {
	switch {
	case s.placed != "":
		return elsewhere(s.placed)
	case s.tables > 0:
		return &issue{reason: "tableoid is another number on each shard", hint: "Write tableoid::regclass, which is the table's name, also in GROUP BY and ORDER BY."}
	}
	return nil
}

// elsewhere is that a column of those that ofRow names is compared with a value that is one shard's.
func elsewhere(column string) *issue {
	if column == "ctid" {
		return issuef("ctid is the place of another row on each shard")
	}
	return issuef("%s is the number of another transaction or command on each shard", column)
}

// over makes the plan one that runs on several shards. one is what is said where such statements do not run.
func (c *compiler) over(p *Plan, fan *Fan, how string, one *refusal) *Plan {
	refused := *p
	refused.refuse(one)
	fan.Refusal, fan.Why = refused.Err, one.reason
	p.Target, p.Fan, p.about, p.Keys = Many, fan, refused.about, nil
	p.Reason = c.where(p, fan) + ": " + one.reason + "; " + how
	return p
}

// alone is the plan of a statement that has to run on one shard because of where it stands: in EXPLAIN, or among others.
func (p *Plan) alone(why string) *Plan {
	if p.Target != Many || p.Fan.Everywhere {
		return p
	}
	if q := p.Fan.onOne(); q != nil { // its keys may have one
		return q
	}
	q := *p
	e := *p.Fan.Refusal
	q.Target, q.Err, q.Reason, q.Fan = None, e.WithDetail(e.Detail+" "+upperFirst(why)+"."), p.Fan.Why+"; "+why, nil
	return &q
}

// where says which shards are asked.
func (c *compiler) where(p *Plan, f *Fan) string {
	if len(f.Within) == 0 {
		return "all shards of keyspace " + p.KeyspaceName
	}
	texts := make([]string, len(f.Within))
	for i := range f.Within {
		texts[i] = f.Within[i].Text
	}
	return "the shards of keyspace " + p.KeyspaceName + " with " + strings.Join(texts, " and ")
}

// fan is how the statement m runs on several shards. how says it for people.
func (c *compiler) fan(m proto.Message, s *survey) (f *Fan, how string, problem *issue) {
	n, ok := m.(*pgquery.Node)
	switch {
	case !ok:
	case n.GetSelectStmt() != nil:
		return c.fanSelect(n, n.GetSelectStmt(), s)
	case n.GetUpdateStmt() != nil:
		return c.fanWrite(n, n.GetUpdateStmt(), s)
	case n.GetDeleteStmt() != nil:
		return c.fanWrite(n, n.GetDeleteStmt(), s)
	case n.GetMergeStmt() != nil:
		return c.fanWrite(n, n.GetMergeStmt(), s)
	case s.changes > 1 && len(n.GetInsertStmt().GetSelectStmt().GetSelectStmt().GetValuesLists()) > 0:
		return nil, "", issuef("it changes rows in WITH as well, and its own rows are given as values")
	case n.GetInsertStmt().GetSelectStmt().GetSelectStmt() != nil:
		return c.fanWrite(n, n.GetInsertStmt().GetSelectStmt().GetSelectStmt(), s)
	}
	return nil, "", issuef("a statement of its kind cannot run on several shards")
}

// crossed is the hint for what only one place that has all rows could answer.
const crossed = "Joins and subqueries across shards need the key on both sides: table_1.key = table_2.key."

func (c *compiler) fanSelect(n *pgquery.Node, sel *pgquery.SelectStmt, s *survey) (*Fan, string, *issue) {
	if s.volatile != "" {
		return nil, "", issuef("function %s would be called on each shard, and it may be volatile", s.volatile)
	}
	f, problem := c.fanned(n, sel)
	if problem != nil && s.changes > 0 {
		return nil, "", problem
	}
	if problem != nil {
		if f = c.nested(sel); f == nil {
			if sel = c.regrouped(sel); sel != nil {
				f = c.nested(sel)
			}
		}
		if f == nil {
			return nil, "", problem
		}
	}
	fan := &Fan{Hidden: f.hidden, Order: f.order, Offset: f.offset, Limit: f.limit, Outputs: f.guards, Writes: s.changes > 0, Query: s.changes > 0}
	if !f.set {
		fan.Within = f.a.together()
	}
	if fan.Writes {
		if problem := f.once(s); problem != nil {
			return nil, "", problem
		}
		fan.Order = nil // it is not asked again if only PostgreSQL knows the order
		if f.order != nil && f.final == nil {
			return nil, "", issuef("it changes rows in WITH, and its own rows are to be merged")
		}
	}
	var err error
	if fan.Writes {
		if fan.Unasked, err = deparse(selectNode(unchanging(f.shard))); err != nil {
			return nil, "", issuef("it changes rows in WITH, and what that returns cannot be described: %v", err)
		}
	}
	if f.changed {
		if fan.SQL, err = deparse(selectNode(f.shard)); err != nil {
			return nil, "", issuef("what each shard is to be asked cannot be written: %v", err)
		}
	}
	if f.final != nil {
		if s.marks {
			return nil, "", issuef("it holds a name or text like %s", FinalRows)
		}
		if fan.Final, err = deparseFinal(selectNode(f.final)); err != nil {
			return nil, "", issuef("what is to be made of the shards' rows cannot be written: %v", err)
		}
	}
	c.takeLeave(selectNode(f.shard))
	return fan, f.how, nil
}

// fanWrite is how a statement that changes rows runs on several shards: as it is, on each. owner is the level that the rows are of.
func (c *compiler) fanWrite(n *pgquery.Node, owner any, s *survey) (*Fan, string, *issue) {
	if s.current {
		return nil, "", issuef("a cursor is on one shard")
	}
	a := c.spreads(n, owner)
	if a == nil {
		return nil, "", c.notSpread(n)
	}
	if problem := a.inWith(s, 1); problem != nil {
		return nil, "", problem
	}
	if sel, ok := owner.(*pgquery.SelectStmt); ok {
		f := &fanned{a: a, client: sel, shard: sel}
		if !f.byKey() {
			return nil, "", issuef("the rows that it inserts are made of rows of several shards")
		}
	}
	c.takeLeave(n)
	return &Fan{Writes: true, Within: a.together()}, "each changes its rows", nil
}

// once is why a query that changes rows in WITH cannot run once on each shard; nil if it can.
func (f *fanned) once(s *survey) *issue {
	if f.set {
		return issuef("it changes rows in WITH, and is a set operation")
	}
	changes := 0 // what is done over the shards' rows would change rows as well
	if f.final != nil {
		walk(f.final, func(n any) bool {
			switch n.(type) {
			case *pgquery.InsertStmt, *pgquery.UpdateStmt, *pgquery.DeleteStmt, *pgquery.MergeStmt:
				changes++
			}
			return true
		})
	}
	if changes > 0 {
		return issuef("it changes rows in WITH, and its own rows are made of those of several shards")
	}
	return f.a.inWith(s, 0)
}

// fanned takes a query apart that stands for itself in n.
func (c *compiler) fanned(n *pgquery.Node, sel *pgquery.SelectStmt) (*fanned, *issue) {
	if sel.GetOp() != pgquery.SetOperation_SETOP_NONE {
		return c.fannedSet(sel)
	}
	a := c.spreads(n, sel)
	if a == nil {
		return nil, c.notSpread(n)
	}
	f := &fanned{a: a, client: sel, shard: cloned(sel)}
	return f, f.selects()
}
