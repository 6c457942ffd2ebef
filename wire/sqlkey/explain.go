package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Explain is an EXPLAIN of which each shard is asked.
type Explain struct {
	Prefix  string // EXPLAIN with its options and a space: what stands before the statement
	SQL     string // the statement; "" if it is an EXECUTE
	Analyze bool   // it is carried out
	Format  string // "text", "json", "xml" or "yaml"
}

// explains reads an EXPLAIN; nil if it cannot be written again.
func explains(e *pgquery.ExplainStmt, analyze bool) *Explain {
	x := &Explain{Analyze: analyze, Format: "text"}
	for _, o := range e.GetOptions() {
		if o.GetDefElem().GetDefname() == "format" {
			x.Format = strings.ToLower(o.GetDefElem().GetArg().GetString_().GetSval())
		}
	}
	const query = "SELECT 1"
	one, err := pgquery.Parse(query)
	if err != nil {
		return nil
	}
	shell := &pgquery.ExplainStmt{Query: one.GetStmts()[0].GetStmt(), Options: e.GetOptions()}
	text, err := deparse(&pgquery.Node{Node: &pgquery.Node_ExplainStmt{ExplainStmt: shell}})
	if err != nil || !strings.HasSuffix(text, query) {
		return nil
	}
	x.Prefix = strings.TrimSuffix(text, query)
	if e.GetQuery().GetExecuteStmt() == nil {
		if x.SQL, err = deparse(e.GetQuery()); err != nil {
			return nil
		}
	}
	return x
}

// Explainable tells whether each shard that a plan needs can be asked to explain its part.
func Explainable(p *Plan) bool { return p.Fan == nil || p.Fan.explainable() }

// explainable tells whether a plan for several shards has parts that each can explain.
func (f *Fan) explainable() bool {
	return !f.Everywhere && !f.Apart && !f.Steps && f.Copy == nil && f.Unnamed == nil && f.Rekey == nil && f.Deal == nil
}
