package wire

import (
	"fmt"
	"slices"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// LacksCopy is the error for a statement that must run on a shard without the reference tables that it names; nil if there is none, or if
// it names none (copies is nil). Explanations say the same.
func LacksCopy(copies []string, shard string) *pg.Error {
	if copies == nil || slices.Contains(copies, shard) {
		return nil
	}
	return pg.NewError(pg.CodeFeatureNotSupported, "shard "+shard+" does not have the reference tables that the statement names").
		WithDetail("They are on " + strings.Join(copies, ", ") + ".").
		WithHint("Ask for the tables one by one, or make the keyspace of the reference tables over this shard too.")
}

// NoOwner is the error for a key that no shard owns: a value that its keyspace does not list. keyText is the condition that gives it.
// Explanations say the same.
func NoOwner(plan *sqlkey.Plan, keyText string) *pg.Error {
	code := pg.CodeFeatureNotSupported
	if plan.Intent == sqlkey.Write {
		code = pg.CodeCheckViolation // as for a row that no partition takes
	}
	return pg.NewError(code, "keyspace "+plan.KeyspaceName+" lists no shard for "+keyText).
		WithDetail("It has no default shard, so such a row can be on none.").
		WithHint("Give the value a shard: rangefinder keyspace add " + plan.KeyspaceName + " --value VALUE=SHARD.")
}

// KeysDiffer is the error for keys of which another shard owns the i-th than the first. Explanations say the same.
func KeysDiffer(plan *sqlkey.Plan, i int, firstText, text, first, shard string) *pg.Error {
	detail := fmt.Sprintf("%s belongs to %s, %s to %s.", firstText, first, text, shard)
	if plan.Keys[i].Session {
		return pg.NewError(pg.CodeInvalidParameterValue, "the statement's key contradicts "+sqlkey.HintKeySetting).WithDetail(detail).
			WithHint("RESET " + sqlkey.HintKeySetting + ", or set the key that is meant.")
	}
	return pg.NewError(pg.CodeFeatureNotSupported, "the statement's keys belong to different shards").WithDetail(detail).
		WithHint("Send one statement for each shard.")
}

// HintContradicts is the error for a statement whose keys another shard owns than its hint says; nil if there is none. Explanations say
// the same.
func HintContradicts(plan *sqlkey.Plan, shard string) *pg.Error {
	if plan.HintShard == "" || plan.HintShard == shard {
		return nil
	}
	if plan.HintedBySession {
		return pg.NewError(pg.CodeInvalidParameterValue, "the statement's key contradicts "+sqlkey.HintShardSetting).
			WithDetail("The session has set shard " + plan.HintShard + "; the key belongs to " + shard + ".").
			WithHint("RESET " + sqlkey.HintShardSetting + ", or set the shard that is meant.")
	}
	return pg.NewError(pg.CodeInvalidParameterValue, "the statement's hint contradicts its key").
		WithDetail("The hint says shard " + plan.HintShard + "; the key belongs to " + shard + ".").
		WithHint("Leave out the hint, or mend it.")
}

// UnknownShard is the error for a shard that the table does not know, and that plan's hint may name; plan may be nil. Explanations say
// the same.
func UnknownShard(name string, plan *sqlkey.Plan) *pg.Error {
	if plan != nil && plan.HintShard == name {
		if plan.HintedBySession {
			return unknownHint(name)
		}
		return pg.NewError(pg.CodeInvalidParameterValue, "the statement's hint names shard "+name+", which is not known to this node").
			WithHint("The shards and their backends are listed by: rangefinder status.")
	}
	return pg.NewError(pg.CodeCannotConnectNow, "shard "+name+" is not known to this node").
		WithHint("Check the `shard` key of [[databases]] and that a node lists a backend of that shard.")
}
