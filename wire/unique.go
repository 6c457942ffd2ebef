package wire

import (
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

var errNoUnique = pg.NewError(pg.CodeFeatureNotSupported, "rangefinder.unique_id() is not available here")

// uniqueText is a text with its calls of rangefinder.unique_id() replaced.
func (c *core) uniqueText(plan *sqlkey.Plan, sql string) (string, *pg.Error) {
	if c.env.unique == nil {
		return "", errNoUnique
	}
	text, err := plan.WithUnique(sql, c.env.unique)
	if err != nil {
		return "", asError(err)
	}
	return text, nil
}

// uniqueQuery makes of a Query with such calls one without them.
func (c *core) uniqueQuery(plan *sqlkey.Plan, frame []byte) ([]byte, *pg.Error) {
	text, e := c.uniqueText(plan, string(frame[pg.HeaderSize:len(frame)-1]))
	if e != nil {
		return nil, e
	}
	return pg.AppendQuery(nil, text), nil
}

// uniqueParse has a statement with such calls prepared with a zero in their places, so that servers can describe it. What is bound gets numbers
// of its own: see uniqueBind.
func (c *core) uniqueParse(s *statement) *pg.Error {
	if len(s.plan.Unique) == 0 {
		return nil
	}
	plan := s.plan
	text, err := plan.WithUnique(s.sql, func() (int64, error) { return 0, nil })
	if err != nil {
		return asError(err)
	}
	s.calls, s.source, s.sql, s.plan, s.era = plan, s.sql, text, nil, 0
	c.replan(s)
	return nil
}

// uniqueBind is a statement as it is bound this time. It is like one that the client has prepared without a name, just before.
func (c *core) uniqueBind(s *statement) (*statement, *pg.Error) {
	if s.calls == nil {
		return s, nil
	}
	text, e := c.uniqueText(s.calls, s.source)
	if e != nil {
		return nil, e
	}
	c.look()
	c.stmts.nextID++
	return &statement{sql: text, oids: s.oids, params: s.params, carries: s.carries, plan: c.env.planner.PlanOnce(c.catalog, &c.under, text), era: c.era, id: c.stmts.nextID, anew: true}, nil
}
