package sqlkey

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// parted is the plan of a set operation whose parts name keys of their own: the shards that own them are asked, and each has the rows of its keys alone. p has
// the keys. nil: all of them must be on one shard.
func (c *compiler) parted(m proto.Message, p *Plan, a *analysis, s *survey) *Plan {
	n, _ := m.(*pgquery.Node)
	sel := n.GetSelectStmt()
	if len(p.Keys) < 2 || len(a.rows) > 0 || sel == nil || sel.GetOp() == pgquery.SetOperation_SETOP_NONE || c.hint != nil || c.env.HintShard != "" || c.env.HintKey ||
		s.changes > 0 || s.placed || s.tables > 0 {
		return nil
	}
	if c.sharing { // some constants give one key, others several
		p.fixed = true
		return nil
	}
	fan, how, problem := c.fan(m, s)
	if problem != nil {
		return nil
	}
	together := *p
	together.byKeys()
	one := &refusal{issue: issue{pg.CodeFeatureNotSupported, "its parts have several keys, " + p.Keys[0].Text + " and " + p.Keys[1].Text, "Send one statement for each key."}, table: a.firstTable()}
	refused := *p
	refused.refuse(one)
	fan.Within = []KeySet{{Keys: p.Keys, Text: p.Keys[0].Text + " OR " + p.Keys[1].Text}}
	if len(p.Keys) > 2 {
		fan.Within[0].Text += " OR " + itoa(len(p.Keys)-2) + " more"
	}
	fan.Refusal, fan.Why, fan.together = refused.Err, one.reason, &together
	p.Target, p.Fan, p.Keys = Many, fan, nil
	p.Reason = c.where(p, fan) + ": " + one.reason + "; " + how
	return p
}

// onOne is the statement's plan if it is to run on one shard all the same; nil: there is none.
func (f *Fan) onOne() *Plan {
	if f.together == nil {
		return nil
	}
	p := *f.together
	return &p
}
