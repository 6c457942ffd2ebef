package sqlkey

import (
	"cmp"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

func (c *compiler) createAs(s *pgquery.CreateTableAsStmt) *Plan {
	a, sv := c.analysis(), c.survey()
	sv.take(s)
	sv.write = "CREATE TABLE AS"
	a.creates(s.GetInto().GetRel())
	e := s.GetQuery().GetExecuteStmt()
	if e == nil {
		a.view = s.GetObjtype() == pgquery.ObjectType_OBJECT_MATVIEW
		a.query(s.GetQuery(), place{})
		if s.GetObjtype() == pgquery.ObjectType_OBJECT_MATVIEW {
			sv.write = "CREATE MATERIALIZED VIEW"
			return c.viewed(&pgquery.Node{Node: &pgquery.Node_CreateTableAsStmt{CreateTableAsStmt: s}}, s, a, sv, s.GetInto().GetRel())
		}
		return c.route(s, a, sv)
	}
	a.subqueries(place{}, e.GetParams()...)
	p := c.route(s, a, sv)
	p.Names, p.NumParams = c.execute(e).Names, 0
	for i := range p.Names {
		p.Names[i].Creates = true
	}
	return p
}

func (c *compiler) view(s *pgquery.ViewStmt) *Plan {
	a, sv := c.analysis(), c.survey()
	sv.take(s)
	sv.write = "CREATE VIEW"
	a.creates(s.GetView())
	a.view = true
	if c.path.temporary(s.GetView()) {
		sv.remains(RemainTemp, "a temporary view")
	}
	a.query(s.GetQuery(), place{})
	p := c.viewed(&pgquery.Node{Node: &pgquery.Node_ViewStmt{ViewStmt: s}}, s, a, sv, s.GetView())
	if c.path.temporary(s.GetView()) {
		p.Made = qualified("", s.GetView().GetRelname())
	}
	return p
}

// viewed plans what makes a view: where the sharded tables are that it reads, each with the part that is there.
func (c *compiler) viewed(n *pgquery.Node, m proto.Message, a *analysis, sv *survey, made *pgquery.RangeVar) *Plan {
	for _, r := range a.keyed {
		a.eachShard(r.table, sv.write)
	}
	return c.everyShard(c.route(m, a, sv), n, a, made)
}

// Mentions reports whether a text may name a relation.
func Mentions(sql, name string) bool {
	scan, err := pgquery.Scan(sql)
	if err != nil {
		return true
	}
	for _, t := range scan.GetTokens() {
		word := sql[t.GetStart():t.GetEnd()]
		switch {
		case strings.HasPrefix(word, `"`):
			word = strings.ReplaceAll(strings.Trim(word, `"`), `""`, `"`)
		case len(word) > 2 && strings.EqualFold(word[:3], `U&"`):
			return true
		default:
			word = strings.ToLower(word)
		}
		if word == name {
			return true
		}
	}
	return false
}

// temporary tells whether a relation of that name is made as one of the session's own.
func (p *path) temporary(rv *pgquery.RangeVar) bool {
	return rv.GetRelpersistence() == "t" || rv.GetSchemaname() == "pg_temp" || rv.GetSchemaname() == "" && p.temporaryFirst()
}

// temporaryFirst tells whether what is made without a schema is the session's own.
func (p *path) temporaryFirst() bool { return len(p.schemas) > 0 && p.schemas[0] == "pg_temp" }

// temporaryPerhaps tells whether what is made without a schema is the session's own if those before pg_temp are not there. known: one of them is.
func (p *path) temporaryPerhaps(db *database) (perhaps, known bool) {
	i := slices.Index(p.schemas, "pg_temp")
	if i <= 0 {
		return false, false
	}
	return true, slices.ContainsFunc(p.schemas[:i], db.knowsSchema)
}

// knowsSchema tells whether a schema of that name is there, as far as is known.
func (db *database) knowsSchema(name string) bool {
	if name == "public" || name == "pg_catalog" || name == "information_schema" || db.tenants[name] != nil {
		return true
	}
	for t := range db.tables {
		if t.schema == name {
			return true
		}
	}
	return false
}

// perhapsTemporary notes that what a statement makes may be the session's own, on the connection that it is tied to until the server is asked, which is at once. Where
// there are several, or it is not likely, each is cleaned before another session gets it.
func (c *compiler) perhapsTemporary(p *Plan, n *pgquery.Node) {
	perhaps, known := c.path.temporaryPerhaps(c.db)
	if !perhaps || p.Target == None || p.WhyWrite != "SELECT INTO" && !strings.HasPrefix(p.WhyWrite, "CREATE ") {
		return
	}
	p.Opaque = true
	if known || p.Target == Many {
		return
	}
	p.leaves(RemainTemp, "a temporary object")
	p.Frees = true
	if made := cmp.Or(n.GetViewStmt().GetView(), n.GetCreateSeqStmt().GetSequence()); made.GetSchemaname() == "" && p.Made == "" {
		p.Made = qualified("", made.GetRelname())
	}
}
