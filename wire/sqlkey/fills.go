package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// Columns of a domain have the domain's default, unless they have one of their own. What that is only a server knows.

// volatileDefault tells, of a default as servers keep it, whether it may come out otherwise on another one.
const volatileDefault = `(t.typdefaultbin::pg_catalog.text OPERATOR(pg_catalog.~) '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|COERCEVIAIO)' OR EXISTS (
	SELECT FROM pg_catalog.regexp_matches(t.typdefaultbin::pg_catalog.text, ':(?:op)?funcid (\d+)', 'g') AS m JOIN pg_catalog.pg_proc AS p ON p.oid = m[1]::pg_catalog.oid
	WHERE p.provolatile <> 'i'))`

// filledByTypes asks which types of columns that a statement gives a table fill these by functions; "" if there are none that could.
func filledByTypes(n *pgquery.Node) string {
	var types []string
	add := func(d *pgquery.ColumnDef) {
		words := stringsOf(d.GetTypeName().GetNames())
		own := slices.ContainsFunc(d.GetConstraints(), func(o *pgquery.Node) bool {
			return isOneOf(o.GetConstraint().GetContype().String(), "CONSTR_DEFAULT", "CONSTR_IDENTITY", "CONSTR_GENERATED")
		})
		if len(words) == 0 || len(words) > 2 || words[0] == "pg_catalog" || len(d.GetTypeName().GetArrayBounds()) > 0 || own {
			return
		}
		types = append(types, "pg_catalog.to_regtype("+rib.QuoteLiteral(quotedWords(words))+")")
	}
	for _, e := range n.GetCreateStmt().GetTableElts() {
		if d := e.GetColumnDef(); d != nil {
			add(d)
		}
	}
	for _, e := range n.GetAlterTableStmt().GetCmds() {
		switch cmd := e.GetAlterTableCmd(); cmd.GetSubtype() {
		case pgquery.AlterTableType_AT_AddColumn, pgquery.AlterTableType_AT_AlterColumnType:
			add(cmd.GetDef().GetColumnDef())
		}
	}
	if len(types) == 0 {
		return ""
	}
	return "SELECT pg_catalog.string_agg('a column of type ' || t.oid::pg_catalog.regtype, ', ') FROM pg_catalog.pg_type AS t WHERE t.oid IN (" + strings.Join(types, ", ") +
		") AND t.typtype = 'd' AND " + volatileDefault
}

// filledByDomain asks which columns of reference tables a domain's new default would fill on each server by itself; "" if it would not.
func (c *compiler) filledByDomain(s *pgquery.AlterDomainStmt) string {
	if s.GetDef() == nil || s.GetSubtype() != "T" {
		return ""
	}
	sv := c.survey()
	sv.take(s.GetDef())
	words := stringsOf(s.GetTypeName())
	if sv.unlike == "" || len(words) == 0 || len(words) > 2 {
		return ""
	}
	var tables []string
	for _, t := range c.db.tables {
		if t.keyspace.whole {
			tables = append(tables, "pg_catalog.to_regclass("+rib.QuoteLiteral(quotedWords([]string{t.schema, t.name}))+")")
		}
	}
	if len(tables) == 0 {
		return ""
	}
	slices.Sort(tables)
	return "SELECT pg_catalog.string_agg('column ' || a.attname || ' of ' || a.attrelid::pg_catalog.regclass, ', ') FROM pg_catalog.pg_attribute AS a WHERE a.atttypid = " +
		"pg_catalog.to_regtype(" + rib.QuoteLiteral(quotedWords(words)) + ") AND a.attrelid IN (" + strings.Join(tables, ", ") + ") AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef"
}
