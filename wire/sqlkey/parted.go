package sqlkey

import (
	"slices"

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
		s.changes > 0 || s.placed != "" || s.tables > 0 {
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
	one := &refusal{issue: issue{pg.CodeFeatureNotSupported, "its parts have several keys, " + p.Keys[0].Text + " and " + p.Keys[1].Text, "Send one statement for each key."}, table: a.firstTable()}
	fan.Within = []KeySet{{Keys: p.Keys, Text: p.Keys[0].Text + " OR " + p.Keys[1].Text}}
	if len(p.Keys) > 2 {
		fan.Within[0].Text += " OR " + itoa(len(p.Keys)-2) + " more"
	}
	p.besideOne(fan, one)
	p.Reason = c.where(p, fan) + ": " + one.reason + "; " + how
	return p
}

// computed is the plan of a statement of which a key is computed of parameters: the shard that owns it is asked, or all of them if it cannot be computed. p has
// the keys. nil: it must be.
func (c *compiler) computed(m proto.Message, p *Plan, a *analysis, s *survey) *Plan {
	at := slices.IndexFunc(p.Keys, func(k KeyRef) bool { return k.isMade() })
	if at < 0 || len(a.rows) > 0 || s.placed != "" || s.tables > 0 {
		return nil
	}
	fan, how, problem := c.fan(m, s)
	if problem != nil {
		return nil
	}
	one := &refusal{issue: issue{pg.CodeFeatureNotSupported, p.Keys[at].Text + " cannot be computed of these parameters", "Compute it in the application, and send it as a parameter."}, table: a.firstTable()}
	p.besideOne(fan, one)
	p.Reason = c.where(p, fan) + ", or all if that cannot be computed; " + how
	return p
}

// besideOne makes p, which has keys, a plan for several shards. one is why it may need them.
func (p *Plan) besideOne(fan *Fan, one *refusal) {
	together, refused := *p, *p
	together.byKeys()
	refused.refuse(one)
	fan.Refusal, fan.Why, fan.together = refused.Err, one.reason, &together
	p.Target, p.Fan, p.Keys = Many, fan, nil
}

// onOne is the statement's plan if it is to run on one shard all the same; nil: there is none.
func (f *Fan) onOne() *Plan {
	if f.together == nil {
		return nil
	}
	p := *f.together
	return &p
}
