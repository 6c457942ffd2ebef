package sqlkey

import (
	"cmp"
	"fmt"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// OwnOp is what a statement does to a parameter of the node's own. Such a statement goes to no backend.
type OwnOp uint8

// The operations on the node's parameters.
const (
	OwnNone    OwnOp = iota
	OwnSet           // SET Plan.Setting TO Plan.Value
	OwnReset         // RESET Plan.Setting, or SET to the default
	OwnShow          // SHOW Plan.Setting
	OwnExplain       // EXPLAIN (ROUTE): tells where the statement with the plan Plan.Explained would go
)

// The node's parameters that hint where statements run.
const (
	HintKeySetting   = "rangefinder.key"
	HintShardSetting = "rangefinder.shard"
)

// ownPrefix begins the names of the node's parameters.
const ownPrefix = "rangefinder."

// IsOwn tells whether a parameter, in lower case, is the node's own.
func IsOwn(setting string) bool { return strings.HasPrefix(setting, ownPrefix) }

func showOwn(name string) *Plan {
	return &Plan{Target: Any, Reason: "the node answers", Own: OwnShow, Setting: name, Tag: "SHOW"}
}

// setOwn plans SET and RESET of one of the node's parameters.
func (p *Plan) setOwn(local bool) *Plan {
	if local && !isOneOf(p.Setting, HintKeySetting, HintShardSetting) {
		return ownRefused(p.Setting+" cannot be set for one transaction", "Use SET without LOCAL.")
	}
	own := &Plan{Target: Any, Reason: "the node answers", Own: OwnSet, OwnLocal: local, Setting: p.Setting, Value: p.Value, Tag: "SET"}
	if p.Default {
		own.Own, own.Tag = OwnReset, p.WhyWrite // SET or RESET
	}
	return own
}

func ownRefused(message, hint string) *Plan {
	return &Plan{
		Target: None, Intent: Write, WhyWrite: "not routed", Reason: message,
		Err: pg.NewError(pg.CodeFeatureNotSupported, message).WithHint(hint),
	}
}

// ownAmong refuses statements about the node's parameters where they cannot be carried out; nil if there are none.
func ownAmong(parts []*Plan) *Plan {
	for i, q := range parts {
		if q.Own != OwnNone {
			return ownRefused(fmt.Sprintf("statement %d: %s is the node's own, and cannot stand among other statements", i+1, q.Setting), "Send it alone.")
		}
	}
	return nil
}

// ownAssigned plans set_config of the node's parameters; nil if that sets none. Hints can be set so, by a call that is all of the statement:
// there is no other way to set them by a parameter.
func ownAssigned(list []Assignment, only bool) *Plan {
	for _, a := range list {
		if !IsOwn(a.Name) {
			continue
		}
		if len(list) != 1 || !only || a.LocalParam != 0 || !isOneOf(a.Name, HintKeySetting, HintShardSetting) {
			return ownRefused(a.Name+" is the node's own, and cannot be set by a function", "Use SET "+a.Name+" = …; "+HintKeySetting+" and "+HintShardSetting+" can be set by SELECT set_config('"+HintKeySetting+"', $1, false), alone.")
		}
		return &Plan{
			Target: Any, Reason: "the node answers", Own: OwnSet, OwnLocal: a.Local, OwnCall: true, OwnParam: a.ValueParam, NumParams: a.ValueParam,
			Setting: a.Name, Value: a.Value, Tag: "SELECT 1",
		}
	}
	return nil
}

// explainRoute plans EXPLAIN (ROUTE) of a statement with the plan p.
func explainRoute(p *Plan, options []*pgquery.Node) *Plan {
	p.Statements = 1
	own := &Plan{Target: Any, Reason: "the node answers", Own: OwnExplain, Setting: "EXPLAIN (ROUTE)", Tag: "EXPLAIN", Explained: p, NumParams: p.NumParams}
	for _, o := range options {
		d := o.GetDefElem()
		switch {
		case d.GetDefname() == "route":
		case d.GetDefname() != "format":
			refused := ownRefused("EXPLAIN option "+strings.ToUpper(clip(d.GetDefname()))+" cannot be used with ROUTE", "EXPLAIN (ROUTE) runs nothing. Its only option is FORMAT, TEXT or JSON.")
			refused.Err.Code = pg.CodeSyntaxError
			return refused
		default:
			form := strings.ToLower(d.GetArg().GetString_().GetSval())
			if own.ExplainJSON = form == "json"; !own.ExplainJSON && form != "text" {
				refused := ownRefused("unrecognized value for EXPLAIN (ROUTE) option FORMAT: "+rib.QuoteLiteral(clip(form)), "FORMAT is TEXT or JSON.")
				refused.Err.Code = pg.CodeInvalidParameterValue
				return refused
			}
		}
	}
	return own
}

// ExplainedText is the statement in the text of an EXPLAIN (...).
func ExplainedText(sql string) string {
	scan, err := pgquery.Scan(sql)
	if err != nil {
		return sql
	}
	explains, depth := false, 0
	for _, t := range scan.GetTokens() {
		switch t.GetToken() {
		case pgquery.Token_EXPLAIN:
			explains = true
		case pgquery.Token_ASCII_40:
			depth++
		case pgquery.Token_ASCII_41:
			if depth--; explains && depth == 0 {
				return strings.Clone(trimSpace(sql[t.GetEnd():]))
			}
		}
	}
	return sql
}

// Needs is the highest number of a parameter that the key is made of; 0 if it is made of none.
func (k *KeyRef) Needs() (n int) {
	k.eachPart(func(part *KeyRef) {
		part.eachParam(func(param int) { n = max(n, param) })
	})
	return n
}

// ParamType is the OID of the type that parameter n has as a key, or of text.
func (p *Plan) ParamType(n int) uint32 {
	oid := uint32(oidText)
	look := func(keys []KeyRef) {
		for i := range keys {
			keys[i].eachPart(func(k *KeyRef) {
				switch {
				case k.Param == n:
					oid = oidOf(orType(k.cast, k.Type))
				case k.made != nil:
					oid = cmp.Or(k.made.declared(n), oid)
				}
			})
		}
	}
	look(p.Keys)
	if p.Fan != nil {
		for i := range p.Fan.Within {
			look(p.Fan.Within[i].Keys)
		}
	}
	return oid
}

func oidOf(t rib.Type) uint32 {
	switch t {
	case rib.TypeBigint:
		return oidInt8
	case rib.TypeInt:
		return oidInt4
	case rib.TypeSmallint:
		return oidInt2
	case rib.TypeUUID:
		return oidUUID
	case rib.TypeBytea:
		return oidBytea
	case rib.TypeDate:
		return oidDate
	case rib.TypeTimestamptz:
		return oidTimestamptz
	}
	return oidText
}
