package wire

import (
	"fmt"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// hint says where a statement runs that does not tell itself: on the shard that owns a key, on a shard; "" is none. If both are set, both
// must be right.
type hint struct{ key, shard string }

// hints are what a session has set of it. They are a part of its settings, and immutable as these are, so they end and come back with
// transactions and savepoints as all that is SET does.
type hints struct {
	session hint
	now     hint // in force: the session's, or the transaction's own
}

// isHint reports whether a parameter, in lower case, is one of the two.
func isHint(name string) bool {
	return name == sqlkey.HintKeySetting || name == sqlkey.HintShardSetting
}

// inForce returns what holds now.
func (h *hints) inForce() hint {
	if h == nil {
		return hint{}
	}
	return h.now
}

// settled returns them at the end of a transaction.
func (h *hints) settled() *hints {
	if h == nil || h.now == h.session {
		return h
	}
	return &hints{h.session, h.session}
}

func (h *hint) field(name string) *string {
	if name == sqlkey.HintKeySetting {
		return &h.key
	}
	return &h.shard
}

// withHint returns the settings with one of the two.
func (s settings) withHint(name, value string, local bool) settings {
	var h hints
	if s.hints != nil {
		h = *s.hints
	}
	*h.now.field(name) = value
	if !local {
		*h.session.field(name) = value
	}
	if s.hints = &h; h == (hints{}) {
		s.hints = nil
	}
	return s
}

// checkHints tells what is wrong with a hint.
func (c *core) checkHints(h hint) *pg.Error {
	table := c.env.fib.Load()
	if h.shard != "" && table.Slot(h.shard) == nil {
		return unknownHint(h.shard)
	}
	if h.key != "" {
		_, _, e := c.env.catalog(table).HintKey(c.db, h.key)
		return e
	}
	return nil
}

func unknownHint(shard string) *pg.Error {
	return pg.NewError(pg.CodeInvalidParameterValue, fmt.Sprintf("%s names shard %.64s, which is not known to this node", sqlkey.HintShardSetting, shard)).
		WithHint("The shards and their backends are listed by: rangefinder status.")
}

// answerHint is answerOwn for the two.
func (c *core) answerHint(dst []byte, plan *sqlkey.Plan, rows bool) ([]byte, *pg.Error) {
	if plan.Own == sqlkey.OwnShow {
		if rows {
			dst = describeOwn(dst, plan)
		}
		now := c.settings.hints.inForce()
		return pg.AppendCommandComplete(pg.AppendDataRow(dst, [][]byte{[]byte(*now.field(plan.Setting))}), plan.Tag), nil
	}
	value := plan.Value
	if plan.OwnParam != 0 {
		return dst, pg.Errorf(pg.CodeUndefinedParameter, "there is no parameter $%d", plan.OwnParam)
	}
	if plan.Own == sqlkey.OwnReset {
		begun := c.base.hints.inForce()
		value = *begun.field(plan.Setting)
	}
	var wanted hint
	*wanted.field(plan.Setting) = value
	if e := c.checkHints(wanted); e != nil {
		return dst, e
	}
	switch nowhere := plan.OwnLocal && !c.tx.open && !c.onServer(); {
	case !nowhere:
		c.settings = c.settings.withHint(plan.Setting, value, plan.OwnLocal)
	case !plan.OwnCall: // set_config says nothing
		dst = pg.AppendNotice(dst, &pg.Error{Severity: "WARNING", Code: pg.CodeNoActiveTransaction, Message: "SET LOCAL can only be used in transaction blocks"})
	}
	if plan.OwnCall {
		if rows {
			dst = describeOwn(dst, plan)
		}
		dst = pg.AppendDataRow(dst, [][]byte{[]byte(value)})
	}
	return pg.AppendCommandComplete(dst, plan.Tag), nil
}

// undoHints takes back what the segment in hand says of them, unless there is a block that does.
func (c *core) undoHints() {
	if !c.tx.open && !c.onServer() {
		c.settings.hints = c.seg.hints
	}
}

// hintedKey is the session's rangefinder.key as it was parsed last.
type hintedKey struct {
	text     string
	catalog  *sqlkey.Catalog
	keyspace rib.KeyspaceID
	key      rib.Key
	err      *pg.Error
}

// appendKey makes a plan's i-th key. It is good until the next call.
func (c *core) appendKey(plan *sqlkey.Plan, i int, args sqlkey.Args) (rib.Key, error) {
	if !plan.Keys[i].Session {
		key, err := plan.AppendKey(c.keyBuf[:0], i, args, c.clientUTF8())
		if err == nil {
			c.keyBuf = key
		}
		return key, err
	}
	k := &c.hinted
	if text := c.settings.hints.inForce().key; k.text != text || k.catalog != c.catalog {
		*k = hintedKey{text: text, catalog: c.catalog}
		k.keyspace, k.key, k.err = c.catalog.HintKey(c.db, text)
	}
	if k.err != nil {
		return nil, k.err
	}
	return k.key, nil
}

// hintArgument gives a call of set_config the argument of its Bind.
func (c *core) hintArgument(plan *sqlkey.Plan, args sqlkey.Args) (*sqlkey.Plan, *pg.Error) {
	value, null, ok := argument(args, plan.OwnParam)
	if !ok {
		return nil, pg.Errorf(pg.CodeUndefinedParameter, "there is no parameter $%d", plan.OwnParam)
	}
	bound := *plan
	if bound.OwnParam = 0; !null {
		bound.Value = value
	}
	return &bound, nil
}
