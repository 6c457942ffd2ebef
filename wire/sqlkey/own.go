package sqlkey

import (
	"fmt"
	"strings"

	"rangefinder/wire/pg"
)

// OwnOp is what a statement does to a parameter of the node's own. Such a statement goes to no backend.
type OwnOp uint8

// The operations on the node's parameters.
const (
	OwnNone  OwnOp = iota
	OwnSet         // SET Plan.Setting TO Plan.Value
	OwnReset       // RESET Plan.Setting, or SET to the default
	OwnShow        // SHOW Plan.Setting
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
			return ownRefused(fmt.Sprintf("statement %d: %s is the node's own, and cannot be set or shown among other statements", i+1, q.Setting), "Send it alone.")
		}
	}
	return nil
}

// ownAssigned refuses set_config of the node's parameters; nil if that sets none.
func ownAssigned(list []Assignment) *Plan {
	for _, a := range list {
		if IsOwn(a.Name) {
			return ownRefused(a.Name+" is the node's own, and cannot be set by a function", "Use SET "+a.Name+" = …")
		}
	}
	return nil
}
