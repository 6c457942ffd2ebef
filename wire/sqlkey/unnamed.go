package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Unnamed is an INSERT into a sharded table that names no columns. Which value is the key the table's columns tell, and they are asked of a shard
// when the statement runs: what is kept anywhere else may be old, and a wrong column would be a wrong shard.
type Unnamed struct {
	Schema, Table string
}

// topOf is the statement of a node, as analysis.top has it.
func topOf(n *pgquery.Node) any {
	switch {
	case n.GetUpdateStmt() != nil:
		return n.GetUpdateStmt()
	case n.GetInsertStmt() != nil:
		return n.GetInsertStmt()
	}
	return nil
}

// unnamed makes the plan of such an INSERT.
func (c *compiler) unnamed(p *Plan, a *analysis) *Plan {
	t := a.unnamed
	name := quoteName(t.columns[0])
	one := &refusal{issue: issue{pg.CodeFeatureNotSupported, "INSERT names no columns, so which value is " + name + " is not known before a shard is asked",
		"Name the columns: INSERT INTO " + t.String() + " (" + name + ", ...) VALUES (...)."}, table: t}
	refused := *p
	refused.refuse(one)
	p.Target, p.Keyspace, p.KeyspaceName, p.method, p.about = Many, t.keyspace.id, t.keyspace.name, t.keyspace.method, refused.about
	p.Fan = &Fan{Writes: true, Unnamed: &Unnamed{t.schema, t.name}, Why: one.reason, Refusal: refused.Err}
	p.Reason = "keyspace " + p.KeyspaceName + ": " + one.reason
	return p
}

// NameCopied is a COPY of a table without a list of columns with one.
func NameCopied(sql string, columns []string) (string, error) {
	tree, err := pgquery.Parse(sql)
	if err != nil {
		return "", err
	}
	if len(tree.GetStmts()) != 1 || tree.GetStmts()[0].GetStmt().GetCopyStmt().GetRelation() == nil || len(columns) == 0 {
		return "", errNoCopy
	}
	scan, err := pgquery.Scan(sql)
	if err != nil {
		return "", err
	}
	rv := tree.GetStmts()[0].GetStmt().GetCopyStmt().GetRelation()
	names := 1 // that the table is called by
	for _, qualified := range []string{rv.GetSchemaname(), rv.GetCatalogname()} {
		if qualified != "" {
			names++
		}
	}
	for i, t := range scan.GetTokens() {
		if t.GetStart() != rv.GetLocation() {
			continue
		}
		last := i + 2*(names-1) // names have dots between them
		if last >= len(scan.GetTokens()) {
			break
		}
		end := scan.GetTokens()[last].GetEnd()
		return sql[:end] + " (" + strings.Join(rib.QuoteIdents(columns), ", ") + ")" + sql[end:], nil
	}
	return "", errNoCopy
}

// NameColumns is an INSERT without a list of columns with one: as many of a table's columns as it gives. guessed: it gives *, which is taken for all.
func NameColumns(sql string, columns []string) (named string, guessed bool, _ error) {
	f := foldLists(sql)
	tree, err := f.parse()
	if tree == nil && err == nil {
		f = nil
		tree, err = pgquery.Parse(sql)
	}
	if err != nil {
		return "", false, err
	}
	if len(tree.GetStmts()) != 1 || tree.GetStmts()[0].GetStmt().GetInsertStmt() == nil {
		return "", false, errNoInsert
	}
	n := tree.GetStmts()[0].GetStmt()
	values := n.GetInsertStmt().GetSelectStmt().GetSelectStmt()
	count := 0
	for _, row := range values.GetValuesLists() {
		count = max(count, len(row.GetList().GetItems()))
	}
	for values.GetOp() != pgquery.SetOperation_SETOP_NONE {
		values = values.GetLarg()
	}
	for _, t := range values.GetTargetList() {
		if count++; isStar(t.GetResTarget().GetVal()) {
			count, guessed = len(columns), true
			break
		}
	}
	for _, name := range columns[:min(count, len(columns))] {
		n.GetInsertStmt().Cols = append(n.GetInsertStmt().Cols, target(name, nil))
	}
	text, err := deparse(n)
	return f.unfold(text), guessed, err
}
