package scatter

import (
	"fmt"
	"strings"

	"rangefinder/wire/pg"
)

// steps runs a statement that PostgreSQL refuses in a transaction on one shard after the other, each by itself. If one fails, the error says
// where it stands and how to go on.
func (c *Coordinator) steps(x *execution) *pg.Error {
	if !x.alone {
		return pg.NewError(pg.CodeActiveTransaction, "a statement that several shards run one after the other cannot run inside a transaction block").
			WithHint("Send it by itself, outside of transactions.")
	}
	shares, e := c.cfg.Host.Shards(c.ctx, x.stmt.plan, x.args())
	if e != nil {
		return e
	}
	if shares, e = c.having(x, shares); e != nil {
		return e
	}
	tag := ""
	for i := range shares {
		if tag, e = c.step(x, shares[i]); e != nil {
			return stands(e, shares, i)
		}
	}
	c.taken(x.stmt)
	if x.columns && !x.simple {
		c.out = pg.AppendNoData(c.out)
	}
	c.out = append(c.out, c.notices...)
	c.notices = c.notices[:0]
	c.complete(x, tag)
	return nil
}

// step runs the statement on one shard.
func (c *Coordinator) step(x *execution, s Share) (tag string, _ *pg.Error) {
	b, e := c.connect(c.ctx, s.Slot, c.cfg.Host.Choose(s.Slot, true), true, nil)
	if e != nil {
		return "", e
	}
	defer c.release(b)
	if tag, e = b.command(c.ctx, x.stmt.sql, true); e != nil {
		c.cfg.Host.Failed(b.hop, e.Code)
		return "", e
	}
	c.noteWrite(Wrote{Slot: b.slot, Hop: b.hop})
	return tag, nil
}

// stands is the error of the i-th shard, with what has become of the statement on the others.
func stands(e *pg.Error, shares []Share, i int) *pg.Error {
	names := func(list []Share) string {
		var out []string
		for _, s := range list {
			out = append(out, s.Slot.Shard())
		}
		return strings.Join(out, ", ")
	}
	failed := shares[i].Slot.Shard()
	state := []string{"It failed on " + failed}
	if i > 0 {
		state = append(state, "it is done on "+names(shares[:i]))
	}
	if i+1 < len(shares) {
		state = append(state, "it was not begun on "+names(shares[i+1:]))
	}
	detail := strings.Join(state, "; ") + "."
	if e.Detail != "" {
		detail = e.Detail + " " + detail
	}
	hint := fmt.Sprintf("Mend the cause, then run it on %s, each time with a comment before it: /* rangefinder: shard=%s */.", names(shares[i:]), failed)
	if e.Hint != "" {
		hint = e.Hint + " " + hint
	}
	return e.WithDetail(detail).WithHint(hint + " What CREATE INDEX CONCURRENTLY leaves where it fails is an invalid index: drop it there first.")
}
