package sqlkey

import (
	"bytes"
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// A statement that changes rows in WITH runs on several shards if each part that does so could by itself, and what reads the rows that they return
// does it by their key. For then a part changes on each shard that shard's rows, and those that it returns have that shard's keys: to whoever reads
// them they are one more table of the keyspace.

// changing is such a part of WITH.
type changing struct {
	table  *table   // whose rows it returns
	named  bool     // the key's columns have their own names among those that it returns
	within []KeySet // of which its rows have a key
}

// changes tells whether a query of WITH changes rows.
func changes(n *pgquery.Node) bool {
	return n.GetInsertStmt() != nil || n.GetUpdateStmt() != nil || n.GetDeleteStmt() != nil || n.GetMergeStmt() != nil
}

// change analyses a part of WITH that changes rows, by itself. at is where it stands. nil: it cannot run on each shard by itself, and a.stuck says so.
func (a *analysis) change(e *pgquery.CommonTableExpr, at place) *changing {
	n := e.GetCtequery()
	stuck := func(why string) *changing {
		if a.stuck == nil {
			a.stuck = issuef("the part %s of WITH changes rows, which cannot be done on each shard by itself: %s", quoteName(e.GetCtename()), why)
		}
		return nil
	}
	var owner any
	var returning []*pgquery.Node
	var rv *pgquery.RangeVar
	switch {
	case n.GetUpdateStmt() != nil:
		owner, returning, rv = n.GetUpdateStmt(), n.GetUpdateStmt().GetReturningList(), n.GetUpdateStmt().GetRelation()
	case n.GetDeleteStmt() != nil:
		owner, returning, rv = n.GetDeleteStmt(), n.GetDeleteStmt().GetReturningList(), n.GetDeleteStmt().GetRelation()
	case n.GetMergeStmt() != nil:
		owner, rv = n.GetMergeStmt(), n.GetMergeStmt().GetRelation()
	default:
		sel := n.GetInsertStmt().GetSelectStmt().GetSelectStmt()
		if owner, returning, rv = sel, n.GetInsertStmt().GetReturningList(), n.GetInsertStmt().GetRelation(); len(sel.GetValuesLists()) > 0 || sel == nil {
			return stuck("its rows are given as values, and belong to some shards alone")
		}
	}
	var sub *analysis
	problem := "its tables are not joined by their keys"
	for pick := range maxChoices {
		s := &analysis{db: a.db, env: a.env, path: a.path, known: a.known, spread: &spread{owner: owner, pick: pick}}
		s.query(n, place{ctes: at.ctes})
		if a.stuck = s.stuck; a.stuck != nil {
			return nil
		}
		if _, ok := s.spread.bound(s); ok && s.problem == nil {
			sub = s
			break
		}
		if s.problem != nil {
			problem = s.problem.reason
		}
		if pick+1 >= s.spread.choices {
			break
		}
	}
	switch {
	case sub == nil:
		return stuck(problem)
	case len(sub.plain)+len(sub.changed)+len(sub.schemas) > 0:
		return stuck("it names tables of no keyspace, or reference tables, as well")
	}
	if sel, ok := owner.(*pgquery.SelectStmt); ok {
		if f := (&fanned{a: sub, client: sel, shard: sel}); !f.byKey() {
			return stuck("the rows that it inserts are made of rows of several shards")
		}
	}
	a.parts = append(a.parts, sub)
	c := &changing{table: sub.spread.anchor.table, within: sub.spread.sets()}
	if t, kind := a.resolve(rv); kind == keyedTable {
		c.table = t
	}
	alias := rv.GetRelname()
	if al := rv.GetAlias(); al != nil {
		alias = al.GetAliasname()
	}
	c.named = len(e.GetAliascolnames()) == 0 && returnsKey(returning, c.table, alias)
	return c
}

// returnsKey tells whether all of the key's columns of a table are returned under their own names, and nothing else is called so.
func returnsKey(list []*pgquery.Node, t *table, alias string) bool {
	found := make(map[string]bool)
	for _, n := range list {
		val := n.GetResTarget().GetVal()
		if isStar(val) {
			fields := val.GetColumnRef().GetFields()
			if len(fields) > 1 && fields[0].GetString_().GetSval() != alias {
				return false // it may have one of that name
			}
			for _, name := range t.columns {
				found[name] = true
			}
			continue
		}
		name := targetLabel(n)
		if !slices.Contains(t.columns, name) {
			continue
		}
		fields := val.GetColumnRef().GetFields()
		if len(fields) == 0 || len(fields) > 2 || fields[len(fields)-1].GetString_().GetSval() != name || len(fields) == 2 && fields[0].GetString_().GetSval() != alias {
			return false
		}
		found[name] = true
	}
	return len(found) == len(t.columns)
}

// returned is the item of FROM that reads what a part of WITH returns: as good as a table.
func (b *builder) returned(rv *pgquery.RangeVar, c *changing) *item {
	r := b.addRef(rv, c.table)
	r.renames, r.returned = r.renames || !c.named, true
	it := b.leaf(r)
	if len(c.table.columns) == 1 {
		for i := range c.within {
			it.known = append(it.known, fact{a: column{r, 0}, set: &c.within[i]})
		}
	}
	return it
}

// together is of which keys all parts of a statement have rows, its own and those of WITH; nil if they have others, or any.
func (a *analysis) together() []KeySet {
	own := a.spread.sets()
	for _, p := range a.parts {
		if !sameSets(p.spread.sets(), own) {
			return nil
		}
	}
	return own
}

// sameSets tells whether two lists of sets leave the same keys, whatever their texts and their order. What it does not find to be the same may be so
// nevertheless.
func sameSets(a, b []KeySet) bool {
	among := func(list, others []KeySet) bool {
		for i := range list {
			if !slices.ContainsFunc(others, func(o KeySet) bool { return list[i].same(&o) }) {
				return false
			}
		}
		return true
	}
	return among(a, b) && among(b, a)
}

func (s *KeySet) same(o *KeySet) bool {
	key := func(a, b KeyRef) bool { return a.same(&b) }
	end := func(a, b *KeyRef) bool { return a == b || a != nil && b != nil && a.same(b) }
	return slices.EqualFunc(s.Keys, o.Keys, key) && slices.EqualFunc(s.Lists, o.Lists, key) && slices.EqualFunc(s.Bounds, o.Bounds, func(a, b KeyBounds) bool {
		return end(a.From, b.From) && end(a.To, b.To) && a.FromOpen == b.FromOpen && a.ToClosed == b.ToClosed
	})
}

// same tells whether two references are to the same key. That of a constant which is not known is not.
func (k *KeyRef) same(o *KeyRef) bool {
	return k.origin == nil && o.origin == nil && bytes.Equal(k.Literal, o.Literal) && k.Param == o.Param && k.Type == o.Type && k.cast == o.cast && k.formula() == o.formula() &&
		k.Session == o.Session && k.unknown == o.unknown && k.nonASCII == o.nonASCII &&
		slices.EqualFunc(k.Parts, o.Parts, func(a, b KeyRef) bool { return a.same(&b) })
}

// inWith is why a statement that changes rows in WITH cannot run on several shards; nil if it can. own is how many changes are the statement's own.
func (a *analysis) inWith(s *survey, own int) *issue {
	if s.changes == own {
		return nil
	}
	if s.changes != own+len(a.parts) {
		return issuef("it changes rows in a place where the router does not look")
	}
	for _, p := range a.parts {
		if p.spread.anchor.table.keyspace != a.spread.anchor.table.keyspace {
			return issuef("it changes tables of two keyspaces")
		}
	}
	return nil
}

// notSpread is why a statement is not spread: what is in WITH, or its tables.
func (c *compiler) notSpread(n *pgquery.Node) *issue {
	if c.stuck != nil {
		return c.stuck
	}
	with := n.GetSelectStmt().GetWithClause().GetCtes()
	for _, w := range [...]*pgquery.WithClause{n.GetInsertStmt().GetWithClause(), n.GetUpdateStmt().GetWithClause(), n.GetDeleteStmt().GetWithClause(), n.GetMergeStmt().GetWithClause()} {
		with = append(with, w.GetCtes()...)
	}
	if slices.ContainsFunc(with, func(e *pgquery.Node) bool { return changes(e.GetCommonTableExpr().GetCtequery()) }) {
		return issuef("it changes rows in WITH, and what reads them or other tables is not joined by their keys")
	}
	return &issue{code: pg.CodeFeatureNotSupported, reason: "all shards together cannot run it: its tables are not joined by their keys", hint: crossed}
}

// unchanging is a query whose WITH changes rows, without these changes: in their place it reads what they return.
func unchanging(s *pgquery.SelectStmt) *pgquery.SelectStmt {
	s = cloned(s)
	for _, n := range s.GetWithClause().GetCtes() {
		e := n.GetCommonTableExpr()
		q := e.GetCtequery()
		if !changes(q) {
			continue
		}
		read := &pgquery.SelectStmt{Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}
		var rv *pgquery.RangeVar
		switch {
		case q.GetUpdateStmt() != nil:
			rv, read.TargetList, read.FromClause = q.GetUpdateStmt().GetRelation(), q.GetUpdateStmt().GetReturningList(), q.GetUpdateStmt().GetFromClause()
		case q.GetDeleteStmt() != nil:
			rv, read.TargetList, read.FromClause = q.GetDeleteStmt().GetRelation(), q.GetDeleteStmt().GetReturningList(), q.GetDeleteStmt().GetUsingClause()
		case q.GetInsertStmt() != nil:
			rv, read.TargetList = q.GetInsertStmt().GetRelation(), q.GetInsertStmt().GetReturningList()
		default:
			rv, read.TargetList = q.GetMergeStmt().GetRelation(), nil
		}
		read.FromClause = append([]*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: rv}}}, read.FromClause...)
		e.Ctequery = selectNode(read)
	}
	return s
}
