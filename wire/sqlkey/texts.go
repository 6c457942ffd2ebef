package sqlkey

import pgquery "github.com/pganalyze/pg_query_go/v6"

// Texts takes a text of several statements apart, by PostgreSQL's own scanner. What it returns are parts of the text, without the
// semicolons.
func Texts(sql string) ([]string, error) { return pgquery.SplitWithScanner(sql, true) }
