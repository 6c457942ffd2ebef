package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/rib"
)

// A sequence that counts for a column of a sharded table is on each of its shards, and counts there by itself. What one client asks of it is
// for one of them. But what is meant for the sequence as such is for all: setval sets it everywhere, and where it stands, as pg_dump asks, is
// where the furthest of them stands. So what was dumped and restored gives no number twice.

// sequence makes the plan p of a query about a sequence as such, which would run on the home shard, one for all shards that have it.
func (c *compiler) sequence(p *Plan, n *pgquery.Node, a *analysis) *Plan {
	s := n.GetSelectStmt()
	if s == nil || len(s.GetTargetList()) == 0 {
		return p
	}
	bare := &pgquery.SelectStmt{TargetList: s.GetTargetList(), FromClause: s.GetFromClause(), LimitOption: s.GetLimitOption(), Op: s.GetOp()}
	if s.GetOp() != pgquery.SetOperation_SETOP_NONE || !proto.Equal(bare, s) {
		return p
	}
	if len(s.GetFromClause()) == 0 {
		if f := s.GetTargetList()[0].GetResTarget().GetVal().GetFuncCall(); f != nil && stringsOf(f.GetFuncname())[len(f.GetFuncname())-1] == "setval" {
			p.fixed = true // by the name of the sequence
		}
		words := c.sequenceSet(s.GetTargetList())
		if words == nil {
			return p
		}
		d := (&definition{names: []string{objectName(words)}}).existing(hasSequence(words, false))
		return c.everyShardOf(p, n, d, a)
	}
	rv := s.GetFromClause()[0].GetRangeVar()
	order := sequenceRead(s.GetTargetList())
	if len(s.GetFromClause()) > 1 || rv == nil || rv.GetAlias() != nil || order == nil || len(a.plain) != 1 {
		return p
	}
	d := (&definition{names: slices.Clone(a.plain)}).existing(hasSequence(wordsOf(rv), true))
	apart := *a
	apart.plain = nil
	q := c.everyShardOf(p, n, d, &apart)
	if q.Fan != nil {
		q.Fan.Writes, q.Fan.Furthest, q.Fan.Order = false, true, order
		q.Reason = q.Fan.Why + ": the furthest is the answer"
	}
	return q
}

// sequenceSet is the name of the sequence that a list of nothing but a call of setval sets to a constant or a parameter; nil: it is something else.
func (c *compiler) sequenceSet(targets []*pgquery.Node) []string {
	f := targets[0].GetResTarget().GetVal().GetFuncCall()
	if len(targets) > 1 || f == nil || len(f.GetArgs()) < 2 || len(f.GetArgs()) > 3 {
		return nil
	}
	switch names := stringsOf(f.GetFuncname()); {
	case names[len(names)-1] != "setval", len(names) > 2, len(names) == 2 && names[0] != "pg_catalog", len(names) == 1 && !c.path.builtinsFirst:
		return nil
	}
	for _, arg := range f.GetArgs()[1:] {
		if v := uncast(arg); v.GetAConst() == nil && v.GetParamRef() == nil {
			return nil
		}
	}
	v, ok := uncast(f.GetArgs()[0]).GetAConst().GetVal().(*pgquery.A_Const_Sval)
	if !ok {
		return nil
	}
	return wordsOfText(v.Sval.GetSval())
}

// uncast is what is cast.
func uncast(n *pgquery.Node) *pgquery.Node {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().GetArg()
	}
	return n
}

// sequenceRead is the order in which the furthest comes first, of a list of columns that sequences have, and among them where it stands; nil of
// any other list.
func sequenceRead(targets []*pgquery.Node) (order []FanOrder) {
	for i, t := range targets {
		fields := t.GetResTarget().GetVal().GetColumnRef().GetFields()
		if len(fields) != 1 {
			return nil
		}
		switch fields[0].GetString_().GetSval() {
		case "last_value":
			order = slices.Insert(order, 0, FanOrder{Column: i, Desc: true})
		case "is_called":
			order = append(order, FanOrder{Column: i, Desc: true})
		case "log_cnt":
		default:
			return nil
		}
	}
	if !slices.ContainsFunc(targets, func(t *pgquery.Node) bool { return lastName(t.GetResTarget().GetVal()) == "last_value" }) {
		return nil
	}
	return order
}

// hasSequence asks for a sequence, and no table. up: for one that counts up.
func hasSequence(words []string, up bool) string {
	text := "EXISTS (SELECT FROM pg_catalog.pg_sequence AS s WHERE s.seqrelid = pg_catalog.to_regclass(" + rib.QuoteLiteral(quotedWords(words)) + ")"
	if up {
		text += " AND s.seqincrement > 0"
	}
	return text + ")"
}

// wordsOfText are the words of a name as text that is cast to regclass, one or two; nil if it is no such name.
func wordsOfText(text string) (words []string) {
	for rest := trimSpace(text); ; rest = trimSpace(rest[1:]) {
		word, ok := "", true
		if rest != "" && rest[0] == '"' {
			word, rest, ok = quotedName(rest)
		} else {
			i := strings.IndexAny(rest+".", ". \t\n\r\f\v")
			word, rest = LowerASCII(rest[:i]), rest[i:]
		}
		if words = append(words, word); !ok || word == "" || len(words) > 2 {
			return nil
		}
		if rest = trimSpace(rest); rest == "" {
			return words
		}
		if rest[0] != '.' {
			return nil
		}
	}
}
