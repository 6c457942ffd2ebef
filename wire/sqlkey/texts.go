package sqlkey

import pgquery "github.com/pganalyze/pg_query_go/v6"

// Texts takes a text of several statements apart, by PostgreSQL's own scanner. What it returns are parts of the text, without the
// semicolons.
func Texts(sql string) ([]string, error) { return pgquery.SplitWithScanner(sql, true) }

// First is where the semicolon behind a text's first statement stands, if that holds none itself; -1: nowhere, or the text cannot be read.
func First(sql string) int {
	scanned, err := pgquery.Scan(sql)
	if err != nil {
		return -1
	}
	begun := false
	for _, t := range scanned.Tokens {
		switch t.Token {
		case pgquery.Token_SQL_COMMENT, pgquery.Token_C_COMMENT:
		case pgquery.Token_ASCII_59:
			if begun { // it was not an empty one
				return int(t.Start)
			}
		default:
			begun = true
		}
	}
	return -1
}
