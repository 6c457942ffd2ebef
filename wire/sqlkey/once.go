package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Once is how a write to a reference table runs that servers would each evaluate otherwise: a clock, a sequence, a default that calls such a function.
// One shard, On, carries it out, and tells the rows as they are then. The others are given these: inserted, or, by the primary key, updated or deleted.
type Once struct {
	On string
	// SQL is what that shard is asked. Its columns are all of the table's, and behind them those of the client's RETURNING.
	SQL   string
	Op    OnceOp
	Table string   // its name, as it may stand in a statement
	Alias string   // by which the others call it: nothing else is
	Sets  []string // columns that OnceUpdate and OnceUpsert assign: they must be none of the primary key's
	Why   string   // for people: what would differ
}

// OnceOp is what becomes of the rows on the other shards.
type OnceOp uint8

// What becomes of them.
const (
	OnceInsert OnceOp = iota
	OnceUpsert        // they are inserted, or updated by Sets if they are there: of ON CONFLICT DO UPDATE
	OnceUpdate
	OnceDelete
)

// once makes the plan p, of a write to all copies of t, one that is evaluated once.
func (c *compiler) once(m proto.Message, p *Plan, t *table, s *survey, why string) *issue {
	n, _ := m.(*pgquery.Node)
	o := &Once{Alias: rib.QuoteIdent("rangefinder_copy"), Why: why}
	var returning *[]*pgquery.Node
	var rv *pgquery.RangeVar
	if n == nil {
		return issuef("COPY does not tell which rows it has made")
	}
	n = cloned(n)
	switch {
	case n.GetInsertStmt() != nil:
		i := n.GetInsertStmt()
		rv, returning = i.GetRelation(), &i.ReturningList
		if i.GetOnConflictClause().GetAction() == pgquery.OnConflictAction_ONCONFLICT_UPDATE {
			o.Op, o.Sets = OnceUpsert, assignedColumns(i.GetOnConflictClause().GetTargetList())
		}
	case n.GetUpdateStmt() != nil:
		u := n.GetUpdateStmt()
		rv, returning, o.Op, o.Sets = u.GetRelation(), &u.ReturningList, OnceUpdate, assignedColumns(u.GetTargetList())
	case n.GetDeleteStmt() != nil:
		rv, returning, o.Op = n.GetDeleteStmt().GetRelation(), &n.GetDeleteStmt().ReturningList, OnceDelete
	case n.GetMergeStmt() != nil:
		return issuef("MERGE does not tell which rows it has changed")
	default:
		return issuef("a statement of its kind does not tell which rows it has changed")
	}
	home := c.db.home
	switch {
	case s.changes > 1:
		return issuef("it changes rows in WITH as well")
	case s.current:
		return issuef("a cursor is on one shard")
	case !rv.GetInh():
		return issuef("ONLY leaves it open where the rows are")
	case s.homeTied && s.home != "" && !slices.Contains(t.keyspace.shards, home):
		return issuef("%s concerns shard %s alone, which has no copy", s.home, orUnknown(home))
	}
	o.On = p.Fan.Lead
	alias := rv.GetRelname()
	if al := rv.GetAlias(); al != nil {
		alias = al.GetAliasname()
	}
	*returning = append([]*pgquery.Node{target("", starOf(alias))}, *returning...)
	var err error
	if o.SQL, err = deparse(n); err == nil {
		o.Table, err = writtenTable(rv)
	}
	if err != nil {
		return issuef("what a shard is to be asked cannot be written: %v", err)
	}
	p.Fan.Once = o
	return nil
}

// assignedColumns are the names of the columns that are assigned.
func assignedColumns(list []*pgquery.Node) (names []string) {
	for _, n := range list {
		names = append(names, n.GetResTarget().GetName())
	}
	return names
}

// writtenTable is a table's name without an alias, as it may stand in a statement.
func writtenTable(rv *pgquery.RangeVar) (string, error) {
	del := &pgquery.DeleteStmt{Relation: cloned(rv)}
	del.Relation.Alias = nil
	const begins = "DELETE FROM "
	text, err := deparse(&pgquery.Node{Node: &pgquery.Node_DeleteStmt{DeleteStmt: del}})
	return strings.TrimPrefix(text, begins), err
}

func (o *Once) bytes() int {
	n := len(o.On) + len(o.SQL) + len(o.Table) + len(o.Alias) + len(o.Why)
	for _, s := range o.Sets {
		n += len(s) + 16
	}
	return n + 128
}

// alikeExplained refuses EXPLAIN ANALYZE of writes to reference tables: what is evaluated once would run on one shard alone, and of all others nobody would
// see whether they do the same to all copies.
func alikeExplained(p *Plan) *Plan {
	q := *p
	q.Fan, q.about = nil, nil
	why := "EXPLAIN ANALYZE would carry it out, and does not tell whether all copies of the table have changed alike"
	if p.Fan.Once != nil {
		why = "EXPLAIN ANALYZE would carry it out on one shard alone: " + p.Fan.Once.Why
	}
	return q.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, why, "Use EXPLAIN without ANALYZE."}})
}
