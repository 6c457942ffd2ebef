package sqlkey

import (
	"fmt"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// hint is what a comment of the text says about where it is to run: /* rangefinder: key=42 */ or /* rangefinder: shard=shard_1 */.
type hint struct {
	key, shard string
	isKey      bool
}

// hintPrefix begins a comment that is a hint.
const hintPrefix = "rangefinder:"

const hintForms = "A hint is a comment of one of the forms /* rangefinder: key=42 */ and /* rangefinder: shard=shard_1 */, anywhere in the text."

// findHint finds the hint among the comments of a text, wherever they stand; nil if there is none. PostgreSQL's own scanner says what is
// a comment. What looks like a hint and is none is an error: it would be taken for one that works.
func findHint(sql string) (*hint, *pg.Error) {
	if !strings.Contains(sql, hintPrefix) {
		return nil, nil
	}
	scanned, err := pgquery.Scan(sql)
	if err != nil {
		return nil, nil // the parser will say it better
	}
	var found *hint
	for _, t := range scanned.GetTokens() {
		if t.GetToken() != pgquery.Token_C_COMMENT || int(t.GetEnd()) > len(sql) || t.GetEnd()-t.GetStart() < 4 {
			continue
		}
		text, ok := strings.CutPrefix(trimSpace(sql[t.GetStart()+2:t.GetEnd()-2]), hintPrefix)
		if !ok {
			continue
		}
		h, problem := parseHint(trimSpace(text))
		switch {
		case problem != nil:
			return nil, problem
		case found != nil && *found != *h:
			return nil, hintError("the statement has two hints that differ", clip(found.String())+" and "+clip(h.String())+".")
		}
		found = h
	}
	return found, nil
}

func parseHint(text string) (*hint, *pg.Error) {
	name, value, ok := strings.Cut(text, "=")
	name, value = trimSpace(name), trimSpace(value)
	if ok && value != "" {
		switch name {
		case "key":
			return &hint{key: value, isKey: true}, nil
		case "shard":
			return &hint{shard: value}, nil
		}
	}
	return nil, hintError("the statement's hint is not understood", "It says "+rib.QuoteLiteral(clip(text))+".")
}

func hintError(message, detail string) *pg.Error {
	return pg.NewError(pg.CodeInvalidParameterValue, message).WithDetail(detail).WithHint(hintForms)
}

// String is the hint as it is written.
func (h *hint) String() string {
	if h.isKey {
		return "key=" + h.key
	}
	return "shard=" + h.shard
}

// apply is the plan with the hint. What has a key of its own keeps it, and the hint must agree. Of what cannot be routed the hint says
// where it runs, unless it would be wrong everywhere.
func (h *hint) apply(p *Plan, a *analysis) *Plan {
	switch {
	case p.Target == None && p.about == nil:
		return p
	case len(a.changed) > 0:
		p.Reason = "a hint cannot have some copies of a reference table written and others not"
		p.Fan, p.Keyspace, p.KeyspaceName = nil, 0, ""
		return p.hintRefused("a write to a reference table runs on all shards that have it, and the hint says one", upperFirst(p.Reason)+".")
	case p.Target == Many && p.about == nil: // no hint makes it one shard's
		return p
	case h.isKey:
		return h.applyKey(p, a)
	case p.Target == Keyed:
		p.HintShard = h.shard
		return p
	case p.Target == Unsharded && p.Shard != h.shard && a.placed():
		p.Reason = "the hint " + clip(h.String()) + " contradicts the tables that are named"
		return p.hintRefused("the statement's hint contradicts its tables", fmt.Sprintf("The hint says shard %s; %s.", clip(h.shard), p.Shard+" has "+strings.Join(a.plain, ", ")))
	}
	p.Target, p.Shard, p.HintShard, p.AnyHome, p.Err, p.about, p.Keys, p.Fan = Unsharded, h.shard, h.shard, false, nil, nil, nil, nil
	p.Keyspace, p.KeyspaceName, p.method = 0, "", nil
	p.Reason = "the hint says shard " + clip(h.shard)
	return p
}

func (h *hint) applyKey(p *Plan, a *analysis) *Plan {
	ks := p.about
	if p.Target == Keyed && len(a.keyed)+len(a.rows) > 0 {
		ks = a.firstTable().keyspace
	}
	if ks == nil || ks.method == nil || ks.whole {
		p.Reason = "the hint names a key, and no sharded table is named"
		return p.hintRefused("the statement's hint names a key, and the statement no sharded table", "Without a table it cannot be told whose key "+rib.QuoteLiteral(clip(h.key))+" is.")
	}
	key, err := rib.ParseKey(ks.method, ks.types, h.key)
	if err != nil {
		p.Reason = "the hint's key cannot be one of keyspace " + ks.name
		e := p.hintRefused("the statement's hint gives no key of keyspace "+ks.name, upperFirst(err.Error())+".")
		if code := CodeOf(err); code != pg.CodeFeatureNotSupported {
			e.Err.Code = code
		}
		return e
	}
	ref := KeyRef{Literal: key, Type: ks.types[0], Text: "the hint " + clip(h.String()), nonASCII: !IsASCII(h.key)}
	if p.Target == Keyed {
		for i := range p.Keys {
			if k := &p.Keys[i]; k.Literal != nil && string(k.Literal) != string(key) {
				p.Reason = ref.Text + " contradicts " + k.Text
				return p.hintRefused("the statement's hint contradicts its key", "The hint says "+clip(h.String())+"; the statement says "+k.Text+".")
			}
		}
		p.fixed = true               // texts with other keys would have to be compared with the hint anew
		p.Keys = append(p.Keys, ref) // of a parameter it is seen when it is there: they must have one shard
		p.Reason += "; " + ref.Text
		return p
	}
	p.Target, p.Err, p.about, p.Keys, p.Shard, p.Fan = Keyed, nil, nil, []KeyRef{ref}, "", nil
	p.Keyspace, p.KeyspaceName, p.method = ks.id, ks.name, ks.method
	p.Reason = "keyspace " + ks.name + " by " + ref.Text
	return p
}

// hintRefused makes the plan one that its hint keeps from being routed.
func (p *Plan) hintRefused(message, detail string) *Plan {
	p.Target, p.Keys, p.Shard, p.about, p.Fan = None, nil, "", nil, nil
	p.Err = hintError(message, detail)
	return p
}

// placed tells whether tables are named that are in no keyspace, and so on a shard that is known. One that is being made is on none yet.
func (a *analysis) placed() bool {
	return slices.ContainsFunc(a.plain, func(name string) bool { return name != a.made })
}

// unlessSet plans as if the session had set no hint.
func (c *compiler) unlessSet(plan func() *Plan) *Plan {
	env := c.env
	without := *env
	without.HintShard, without.HintKey = "", false
	c.env = &without
	p := plan()
	c.env = env
	return p
}

// hintBySession is the plan with the hints that the session has set. What tells by itself where it runs is held against them; tables of no
// keyspace, and what is heard from every shard, are where they are.
func (c *compiler) hintBySession(p *Plan, a *analysis) *Plan {
	if p.Target == Many && (p.about == nil || len(p.Fan.Within) > 0 || p.Fan.Split != nil) { // its own keys say where it runs
		return p
	}
	if p.Target == None && p.about == nil || p.AnyHome || len(a.changed) > 0 || len(a.schemas) > 0 && c.env.HintKey || len(a.plain) > 0 && (c.env.HintKey || c.env.HintShard != c.db.home && a.placed()) {
		return p
	}
	keyed := p.Target == Keyed
	if !c.env.HintKey {
		p.HintShard, p.HintedBySession = c.env.HintShard, true
		p.Hint = HintShardSetting + " = " + clip(c.env.HintShard)
		if keyed {
			return p
		}
		p.Target, p.Shard, p.AnyHome, p.Err, p.about, p.Keys, p.Fan = Unsharded, c.env.HintShard, false, nil, nil, nil, nil
		p.Keyspace, p.KeyspaceName, p.method = 0, "", nil
		p.Reason = HintShardSetting + " says shard " + clip(c.env.HintShard)
		return p
	}
	ks, problem := c.db.hintKeyspace()
	if problem != nil {
		p.Reason = problem.Message
		p.hintRefused("", "").Err = problem
		return p
	}
	p.HintShard, p.HintedBySession = c.env.HintShard, c.env.HintShard != ""
	if p.Hint = HintKeySetting; p.HintedBySession {
		p.Hint += ", and " + HintShardSetting + " = " + clip(c.env.HintShard)
	}
	ref := KeyRef{Session: true, Type: ks.types[0], Text: HintKeySetting}
	if keyed {
		p.Keys = append(p.Keys, ref) // they must have one shard
		p.Reason += "; " + ref.Text
		return p
	}
	p.Target, p.Err, p.about, p.Keys, p.Shard, p.AnyHome, p.Fan = Keyed, nil, nil, []KeyRef{ref}, "", false, nil
	p.Keyspace, p.KeyspaceName, p.method = ks.id, ks.name, ks.method
	p.Reason = "keyspace " + ks.name + " by " + ref.Text
	return p
}

var errSessionKey = pg.NewError(pg.CodeInternalError, "the session's key was asked of a plan")

// hintKeyspace is the keyspace whose key HintKeySetting is.
func (d *database) hintKeyspace() (*keyspace, *pg.Error) {
	switch {
	case len(d.keyspaces) == 0:
		return nil, pg.NewError(pg.CodeInvalidParameterValue, HintKeySetting+" cannot be used: the database has no keyspace").
			WithHint("Use " + HintShardSetting + ", or make a keyspace with \"rangefinder keyspace create\".")
	case len(d.keyspaces) > 1:
		names := make([]string, len(d.keyspaces))
		for i, k := range d.keyspaces {
			names[i] = k.name
		}
		return nil, pg.NewError(pg.CodeInvalidParameterValue, HintKeySetting+" cannot be used: the database has several keyspaces, and it cannot be told whose key is meant").
			WithDetail("Its keyspaces are " + clip(strings.Join(names, ", ")) + ".").
			WithHint("Use " + HintShardSetting + ", or a comment: /* rangefinder: key=... */ is a key of the statement's own table.")
	case d.keyspaces[0].method == nil:
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "keyspace "+d.keyspaces[0].name+" uses a sharding method that this version does not know").WithHint("Upgrade this node.")
	}
	return d.keyspaces[0], nil
}

// HintKey makes the key that text, a value of HintKeySetting, is in a database, and tells of which keyspace.
func (c *Catalog) HintKey(database, text string) (rib.KeyspaceID, rib.Key, *pg.Error) {
	ks, problem := c.find(database).hintKeyspace()
	if problem != nil {
		return 0, nil, problem
	}
	key, err := rib.ParseKey(ks.method, ks.types, text)
	if err != nil {
		code := CodeOf(err)
		if code == pg.CodeFeatureNotSupported {
			code = pg.CodeInvalidParameterValue
		}
		return 0, nil, pg.NewError(code, "invalid value for parameter \""+HintKeySetting+"\": "+rib.QuoteLiteral(clip(text))).
			WithDetail(upperFirst(err.Error()) + ".").
			WithHint("Give a key of keyspace " + ks.name + ", as in a comment's key=...: the columns of a key that has several with commas, text that needs it in quotes.")
	}
	return ks.id, key, nil
}

// Hintable tells whether a hint can say where a statement runs that cannot be routed.
func (p *Plan) Hintable() bool { return p.Target == None && p.about != nil }
