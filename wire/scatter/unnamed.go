package scatter

import (
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// unnamed carries out an INSERT without a list of columns: as the one with the columns that the table has.
func (c *Coordinator) unnamed(x *execution) *pg.Error {
	plan := x.stmt.plan
	slot, e := c.cfg.Host.Describes(plan)
	if e != nil {
		return e
	}
	b, e := c.branch(slot, true)
	if e != nil {
		return e
	}
	if !x.stmt.sure {
		if e := c.check(x.stmt); e != nil {
			return e
		}
	}
	columns, e := c.columnsOf(b, plan.Fan.Unnamed.Schema, plan.Fan.Unnamed.Table, true)
	if e != nil {
		return e
	}
	sql, guessed, err := sqlkey.NameColumns(x.stmt.sql, columns)
	if err != nil {
		return pg.NewError(pg.CodeFeatureNotSupported, "the columns of the INSERT cannot be named").WithDetail(err.Error() + ".").WithHint(plan.Fan.Refusal.Hint)
	}
	if guessed {
		if fan := c.cfg.Host.Plan(sql, x.stmt.oids).Fan; fan != nil && fan.Deal != nil {
			e := *plan.Fan.Refusal
			return e.WithDetail(e.Detail + " How many * stands for is not known either.")
		}
	}
	return c.executeAs(x, sql)
}

// executeAs carries out another text in the place of the session's.
func (c *Coordinator) executeAs(x *execution, sql string) *pg.Error {
	run := *x
	run.stmt = &stmt{sql: sql, oids: x.stmt.oids, plan: c.cfg.Host.Plan(sql, x.stmt.oids), sure: true}
	run.alone = false // another branch may be open
	if fan := run.stmt.plan.Fan; fan != nil && fan.Unnamed != nil {
		return c.cannot(x, nil)
	}
	return c.execute(&run)
}
