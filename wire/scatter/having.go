package scatter

import (
	"slices"
	"strings"
	"sync"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// having are those of the shards that have what a statement is about, as its Fan.Probe finds them in the transaction's own view: what it has
// made itself is there. If no shard has it, the database's own one is to say so.
func (c *Coordinator) having(x *execution, shares []Share) ([]Share, *pg.Error) {
	fan := x.stmt.plan.Fan
	if fan.Probe == "" || len(shares) == 1 {
		return shares, nil
	}
	home := max(0, slices.IndexFunc(shares, func(s Share) bool { return s.Slot.Shard() == fan.Home }))
	if fan.Local { // a table of the database's own shard is no other's business
		has, e := c.probe(fan, shares[home:home+1])
		if e != nil || strings.Contains(has[0], sqlkey.ProbeTable) {
			return shares[home : home+1], e
		}
	}
	has, e := c.probe(fan, shares)
	if e != nil {
		return nil, e
	}
	var with []Share
	first := ""
	for i, s := range shares {
		if !strings.Contains(has[i], "t") {
			continue
		}
		if with = append(with, s); len(with) == 1 {
			first = has[i]
		}
		if has[i] != first {
			return nil, pg.NewError(pg.CodeFeatureNotSupported, "the statement names several things, and not every shard has all of them").
				WithDetail("Compare " + with[0].Slot.Shard() + " with " + s.Slot.Shard() + ".").WithHint("Name them one by one.")
		}
	}
	if len(with) > 0 {
		return with, nil
	}
	return shares[home : home+1], nil
}

// probe asks shards at once.
func (c *Coordinator) probe(fan *sqlkey.Fan, shares []Share) (has []string, _ *pg.Error) {
	has = make([]string, len(shares))
	errs, branches := make([]*pg.Error, len(shares)), make([]*branch, len(shares))
	for i, s := range shares {
		var e *pg.Error
		if fan.Steps { // by itself, as the statement will be
			branches[i], e = c.connect(c.ctx, s.Slot, c.cfg.Host.Choose(s.Slot, true), true, nil)
		} else {
			branches[i], e = c.branch(s.Slot, true)
		}
		if errs[i] = e; e != nil {
			break
		}
	}
	var wg sync.WaitGroup
	for i, b := range branches {
		if b == nil {
			continue
		}
		wg.Go(func() {
			errs[i] = c.guard(func() *pg.Error {
				if fan.Steps {
					defer c.release(b)
				}
				row, e := c.ask(b, &execution{stmt: &stmt{}, bind: noArguments}, fan.Probe)
				if e == nil && len(row) == 1 {
					has[i] = row[0]
				}
				return e
			})
		})
	}
	wg.Wait()
	for _, e := range errs {
		if e != nil {
			return nil, e
		}
	}
	return has, nil
}
