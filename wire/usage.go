package wire

import (
	"rangefinder/wire/console"
	"rangefinder/wire/sqlkey"
)

// used counts a statement that a server has carried out. Where several came together, each is reckoned from the end of the one before.
func (c *core) used(plan *sqlkey.Plan, rows uint64) {
	now := c.env.now()
	plan.Used(c.id, now, now-c.told, c.asked, rows, false)
	c.told = now
}

// misused counts a statement that a server has refused. h is what its error answers.
func (c *core) misused(h *expectation) {
	c.erred = true
	plan := h.plan
	if plan == nil && h.stmt != nil {
		plan = h.stmt.plan
	}
	if plan != nil {
		plan.Used(c.id, c.env.now(), 0, 0, 0, true)
	}
}

// statements are what the console shows of the statements that were counted.
func (s *Server) statements() []console.Statement {
	usages := s.cfg.Planner.Usages()
	list := make([]console.Statement, len(usages))
	for i, u := range usages {
		list[i] = console.Statement{
			Database: u.Database, Text: u.Form, Calls: u.Calls, Errors: u.Errors, Shards: u.Shards, Rows: u.Rows, Total: u.Total, Max: u.Max,
		}
	}
	return list
}
