package scatter

import (
	"encoding/json"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

// All copies of a reference table get the same data. In a column of dates or times now, today, tomorrow and yesterday would be another value on each server,
// so data for such columns are looked through on their way.

// checker makes what looks through the data, if there are such columns.
func (s *copySplit) checker(b *branch) *pg.Error {
	c, say := s.c, s.plan.Fan.Copy
	if say.Format == sqlkey.CopyBinary {
		return nil
	}
	table := rib.QuoteLiteral(rib.QuoteIdent(say.Schema) + "." + rib.QuoteIdent(say.Name))
	row, e := c.ask(b, &execution{stmt: &stmt{}, bind: noArguments}, "SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute AS a"+
		" JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type AS of ON of.oid = t.typelem WHERE a.attrelid = "+table+
		"::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND (t.typcategory IN ('D', 'R', 'C') OR t.typcategory = 'A' AND coalesce(of.typcategory IN ('D', 'R', 'C'), true))")
	if e != nil {
		return c.ended(s.x, b, e)
	}
	var times []string
	if len(row) == 1 && row[0] != "" {
		if err := json.Unmarshal([]byte(row[0]), &times); err != nil {
			return malformed()
		}
	}
	if len(times) == 0 {
		return nil
	}
	config, e := s.config(b)
	if e != nil {
		return c.ended(s.x, b, e)
	}
	config.Times = times
	check, err := copysplit.New(config, dropped{})
	if err != nil {
		return asError(err)
	}
	s.check = check
	return nil
}

// dropped takes rows that are only looked at.
type dropped struct{}

func (dropped) Owner(rib.Key) (int, error) { return 0, nil }

func (dropped) Row(int, []byte, uint64, int) error { return nil }
