package sqlkey

import (
	"fmt"
	"slices"

	"rangefinder/wire/pg"
)

// combine makes one plan of the plans of several statements in one text, which PostgreSQL runs in one transaction. If they do not all go to
// one shard, they run one by one (Fan.Apart).
func combine(parts []*Plan, sharded bool) *Plan {
	if refused := ownAmong(parts); refused != nil {
		refused.Statements = len(parts)
		return refused
	}
	if onlySets(parts) {
		p := &Plan{Statements: len(parts), Target: Any, Intent: Write, WhyWrite: "SET", Reason: "session statements", Session: SessSet, Parts: parts}
		for _, q := range parts {
			p.Catalogs, p.OfPrimary = p.Catalogs || q.Catalogs, p.OfPrimary || q.OfPrimary
		}
		return p
	}
	apart := "" // why they do not
	for i, q := range parts {
		if q.Target != Many {
			continue
		}
		if one := q.Fan.onOne(); one != nil { // its keys may belong together
			parts[i] = one
		} else if apart == "" {
			apart = fmt.Sprintf("statement %d: %s", i+1, q.Fan.Why)
		}
	}
	p := &Plan{Statements: len(parts), Target: Any, Unchanging: !slices.ContainsFunc(parts, (*Plan).changes)}
	if followed(parts) {
		p.Session, p.Parts = SessSeveral, parts
	}
	for i, q := range parts {
		if q.Target == None {
			p.Target, p.Reason = None, fmt.Sprintf("statement %d: %s", i+1, q.Reason)
			p.Err, p.Tx = q.Err, TxNone
			p.Session, p.Parts = SessNone, nil
			p.Tables, p.Keys = q.Tables, nil
			p.Intent, p.WhyWrite, p.Unchanging = Write, "not routed", false
			return p
		}
		if q.Tx != TxNone {
			p.MixedTx = p.MixedTx || q.Tx != TxSet
		} else if q.Intent == Write && p.Intent == Read && q.Session == SessNone {
			p.Intent, p.WhyWrite = Write, q.WhyWrite
		}
		p.Notifies = p.Notifies || q.Notifies
		if q.Listen != ListenNone && p.Session != SessSeveral {
			p.Listen = ListenSeveral
		}
		if q.Session != SessNone {
			p.Intent = Write
			if p.WhyWrite == "" {
				p.WhyWrite = q.WhyWrite
			}
			switch {
			case p.Session == SessSeveral:
			case q.Session == SessPin && q.Remains == 0:
				p.mayLeave(q.WhyPin)
			case q.Session == SessPin:
				p.leaves(q.Remains, q.WhyPin)
			case len(parts) > maxParts: // it is not taken apart
				p.leaves(RemainUnknown, q.WhyWrite)
			}
		}
		if len(parts) <= maxParts && (q.Session != SessNone || q.Tx != TxNone) {
			p.Parts = parts
		}
		p.Opaque, p.Defines = p.Opaque || q.Opaque, p.Defines || q.Defines
		p.Frees = p.Frees || q.Frees
		p.UnmadeMore = p.UnmadeMore || q.UnmadeMore || q.Unmade != nil
		if q.Target != Many && !p.join(q) && apart == "" {
			apart = "its statements belong to different places"
		}
		for _, u := range q.Names {
			u.Statement = i
			p.Names = append(p.Names, u)
		}
		p.Tables = append(p.Tables, q.Tables...)
		p.fixed, p.bound = p.fixed || q.fixed, append(p.bound, q.bound...)
		p.NumParams = max(p.NumParams, q.NumParams)
		p.OfPrimary = p.OfPrimary || q.OfPrimary
		p.Catalogs = p.Catalogs || q.Catalogs
		p.CopyIn, p.CopyOut = p.CopyIn || q.CopyIn, p.CopyOut || q.CopyOut
	}
	if p.Listen != ListenNone {
		for _, q := range parts {
			if q.Listen == ListenNone {
				return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, "LISTEN or UNLISTEN among other statements", "Send them one by one."}})
			}
		}
		p.Parts = parts
	}
	if p.MixedTx && p.Intent == Read {
		p.Intent, p.WhyWrite = Write, "transaction statements among others"
	}
	p.Unchanging = p.Unchanging && p.Intent == Write
	if sharded {
		if r := p.followPath(parts); r != nil {
			return p.refuse(r)
		}
	}
	switch {
	case apart != "":
		p.goApart(apart)
	case p.Target == Any && p.Reason == "":
		p.Reason = "no table is named"
	}
	return p
}

// maxParts bounds the statements of a text that is taken apart.
const maxParts = 100

// onlySets tells whether a text sets parameters, as drivers do when they have connected, and at most reads some or what
// depends on no table.
func onlySets(parts []*Plan) bool {
	sets := false
	for _, q := range parts {
		reads := q.Session == SessNone && q.Listen == ListenNone && q.Intent == Read && q.Target == Any && len(q.Tables)+len(q.Names) == 0
		if q.Tx != TxNone || q.Session != SessSet && !reads || len(q.Sets) > 0 && !q.SetsOnly {
			return false
		}
		sets = sets || q.Session == SessSet
	}
	return sets && len(parts) <= maxParts
}

// followed tells whether what a text does to the session can be followed statement by statement: it resets and sets parameters and
// ends listening, as pools do with what they get back, among statements that leave nothing behind. There is a server for it, to which
// UNLISTEN means nothing.
func followed(parts []*Plan) bool {
	concerns, only := false, true
	for _, q := range parts {
		unlistens := q.Listen == Unlisten || q.Listen == UnlistenAll
		resets := q.Session == SessSet || q.Session == SessReset && q.Setting == "RESET ALL"
		if q.Tx != TxNone || q.Listen != ListenNone && !unlistens || q.Session != SessNone && !resets && !unlistens {
			return false
		}
		concerns, only = concerns || unlistens || resets, only && unlistens
	}
	return concerns && !only && len(parts) <= maxParts
}

// join makes q's target p's too. It returns false if no place is both.
func (p *Plan) join(q *Plan) bool {
	if q.Copies != nil {
		if p.Copies == nil {
			p.Copies = q.Copies
		} else if p.Copies = common(p.Copies, q.Copies); len(p.Copies) == 0 {
			return false
		}
	}
	switch {
	case q.Target == Any:
		return true
	case p.Target == Any:
		p.Target, p.Shard, p.HintShard, p.Reason = q.Target, q.Shard, q.HintShard, q.Reason
		p.Keyspace, p.KeyspaceName, p.Keys, p.method = q.Keyspace, q.KeyspaceName, q.Keys[:len(q.Keys):len(q.Keys)], q.method
		return true
	case p.Target != q.Target || p.Shard != q.Shard || p.Keyspace != q.Keyspace:
		return false
	}
	p.Keys = append(p.Keys, q.Keys...)
	return true
}

// goApart makes a plan of several statements one that runs them one by one.
func (p *Plan) goApart(why string) {
	p.Target, p.Reason, p.Shard, p.HintShard, p.Keys, p.Copies = Many, why+": they run one by one", "", "", nil, nil
	p.Keyspace, p.KeyspaceName, p.method = 0, "", nil
	p.Fan = &Fan{Apart: true, Why: why, Refusal: pg.NewError(pg.CodeFeatureNotSupported, "the statements cannot be routed together").
		WithDetail("They do not all run on one shard: " + why + ".").WithHint("Send them one by one.")}
}

// changes reports whether a statement among others may change something that outlives the session.
func (p *Plan) changes() bool {
	return p.Intent == Write && p.Tx == TxNone && !p.Unchanging && !isOneOf(p.WhyWrite, "SET", "RESET")
}

// setsPath tells whether set_config may change what unqualified names mean.
func (p *Plan) setsPath() bool {
	for _, a := range p.Sets {
		if a.NameParam > 0 || movesPath(a.Name) {
			return true
		}
	}
	return false
}

// followPath refuses a text that changes what unqualified names mean and names tables as well: its plan stands on the path
// of before.
func (p *Plan) followPath(parts []*Plan) *refusal {
	changes := 0
	for _, q := range parts {
		if movesPath(q.Setting) || q.setsPath() || q.Session == SessReset {
			changes++
			p.Setting, p.Value, p.Default = q.Setting, q.Value, q.Default
		}
	}
	if changes > 0 && (changes > 1 || len(p.Tables) > 0 || len(p.Names) > 0) {
		return &refusal{issue: issue{pg.CodeFeatureNotSupported, "it changes the search path or the role together with other statements", "Send the SET as a statement of its own."}}
	}
	return nil
}
