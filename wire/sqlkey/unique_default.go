package sqlkey

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// rangefinder.unique_id() may be a column's default. Servers have a function of that name, so that tables can be made with it, which makes no
// numbers: an INSERT of rows that leaves the column out, or to DEFAULT, gets them from the node, by which such a column may be the key. What a node
// cannot see (COPY, INSERT ... SELECT, triggers) meets the function, and hears from it what to do.

// uniqueDefaults are the places in a text where numbers are to be put for columns that INSERTs leave to such a default.
func (c *compiler) uniqueDefaults(tree *pgquery.ParseResult, sql string) (list []Span) {
	if len(c.db.ids) == 0 {
		return nil
	}
	var tokens []*pgquery.ScanToken
	for _, s := range tree.GetStmts() {
		insert := s.GetStmt().GetInsertStmt()
		if insert == nil {
			insert = s.GetStmt().GetExplainStmt().GetQuery().GetInsertStmt()
		}
		rows := insert.GetSelectStmt().GetSelectStmt().GetValuesLists()
		if insert == nil || len(insert.GetCols()) == 0 || len(rows) == 0 {
			continue
		}
		for _, column := range c.idsOf(insert.GetRelation()) {
			if tokens == nil {
				scan, err := pgquery.Scan(sql)
				if err != nil {
					return nil
				}
				tokens = slices.DeleteFunc(scan.GetTokens(), func(t *pgquery.ScanToken) bool {
					return t.GetToken() == pgquery.Token_SQL_COMMENT || t.GetToken() == pgquery.Token_C_COMMENT
				})
			}
			list = append(list, uniqueColumn(insert, column, len(rows), tokens)...)
		}
	}
	return list
}

// idsOf are the columns with that default of a table. Of one without a schema that is in no keyspace it is the first schema of the search path
// that decides: what others hold by that name is not known.
func (c *compiler) idsOf(rv *pgquery.RangeVar) []string {
	if rv.GetSchemaname() != "" {
		return c.db.ids[tableName{rv.GetSchemaname(), rv.GetRelname()}]
	}
	if t, _ := c.analysis().resolve(rv); t != nil {
		return c.db.ids[t.tableName]
	}
	for _, schema := range c.path.schemas {
		if schema != c.env.User {
			return c.db.ids[tableName{schema, rv.GetRelname()}]
		}
	}
	return nil
}

// uniqueColumn are the places for one column of an INSERT; nil if they cannot be found: a server says what is wrong then.
func uniqueColumn(insert *pgquery.InsertStmt, column string, rows int, tokens []*pgquery.ScanToken) (list []Span) {
	first := insert.GetCols()[0].GetResTarget().GetLocation()
	at := slices.IndexFunc(tokens, func(t *pgquery.ScanToken) bool { return t.GetStart() == first })
	if at < 0 {
		return nil
	}
	named := slices.IndexFunc(insert.GetCols(), func(n *pgquery.Node) bool { return n.GetResTarget().GetName() == column })
	end := closing(tokens, at, func(int, *pgquery.ScanToken) {})
	if end < 0 {
		return nil
	}
	if named < 0 {
		list = append(list, Span{Start: int(tokens[end].GetStart()), End: int(tokens[end].GetStart()), Text: ", " + rib.QuoteIdent(column), Plain: true})
	}
	for at = end; at < len(tokens) && tokens[at].GetToken() != pgquery.Token_VALUES; {
		at++
	}
	for row := 0; row < rows; row++ {
		at++ // VALUES, or the comma behind the row before
		if at >= len(tokens) || tokens[at].GetToken() != pgquery.Token_ASCII_40 {
			return nil
		}
		end := closing(tokens, at+1, func(item int, t *pgquery.ScanToken) {
			if item == named && t.GetToken() == pgquery.Token_DEFAULT {
				list = append(list, Span{Start: int(t.GetStart()), End: int(t.GetEnd())})
			}
		})
		if end < 0 {
			return nil
		}
		if named < 0 {
			list = append(list, Span{Start: int(tokens[end].GetStart()), End: int(tokens[end].GetStart()), Text: ", "})
		}
		at = end + 1
	}
	return list
}

// closing is the number of the token that closes the parenthesis before the one at number at, -1 if none does. each is called with the tokens that
// stand in no further one, and with the number of commas before them.
func closing(tokens []*pgquery.ScanToken, at int, each func(item int, t *pgquery.ScanToken)) int {
	depth, item := 0, 0
	for ; at < len(tokens); at++ {
		switch t := tokens[at]; t.GetToken() {
		case pgquery.Token_ASCII_40, pgquery.Token_ASCII_91: // ( and [
			depth++
		case pgquery.Token_ASCII_41, pgquery.Token_ASCII_93:
			if depth == 0 {
				return at
			}
			depth--
		case pgquery.Token_ASCII_44:
			if depth == 0 {
				item++
			}
		default:
			if depth == 0 {
				each(item, t)
			}
		}
	}
	return -1
}
