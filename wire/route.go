package wire

import (
	"errors"
	"fmt"
	"slices"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// need is where a request must run.
type need struct {
	slot     *fib.Slot // nil: any shard will do
	write    bool      // on the primary
	catalogs bool      // the system catalogs are read: best where all tables are
	copies   []string  // the shards that have the reference tables it names; nil: it names none
	many     bool      // it runs on several shards
	follows  bool      // a read, on the primary because of what reads of the session must see
}

// route finds where one statement must run, from its plan and the arguments of this execution, and which moves it meets.
func (c *core) route(plan *sqlkey.Plan, args sqlkey.Args) (need, *pg.Error) {
	n, e := c.find(plan, args)
	if e == nil && (plan.Keyspace != 0 || plan.Hint != "") {
		c.moves.keyed = true
		if len(c.table.Ownership().Moves) > 0 {
			c.touches(plan, args)
		}
		if c.srv != nil && c.coordinator == nil && (c.status == 'T' || c.status == 'I' && c.serverOpen) && c.table.Ownership().Epoch != c.begun.epoch {
			c.moves.outrun = c.moves.outrun || c.outlived(c.begun.epoch, plan, args)
		}
	}
	return n, e
}

// find finds where one statement must run.
func (c *core) find(plan *sqlkey.Plan, args sqlkey.Args) (need, *pg.Error) {
	n := need{write: c.mustWrite(plan), copies: plan.Copies}
	switch {
	case plan.Syntax:
		return n, notUnderstood()
	case c.fills(plan):
		return n, pg.NewError(pg.CodeProgramLimitExceeded, "too many parameters are set in one session").
			WithDetail(fmt.Sprintf("At most %d of them, in %d bytes, are kept.", maxSettings, maxSettingBytes)).
			WithHint("RESET those that are not used any more.")
	case plan.Deallocate && c.pinned == "" && c.stmts.named[plan.Statement] == nil: // nor is it on a server
		return n, unknownStatement([]byte(plan.Statement))
	}
	switch plan.Target {
	case sqlkey.None:
		return n, plan.Err
	case sqlkey.Any:
		n.catalogs = plan.Catalogs
		return n, nil
	case sqlkey.Unsharded:
		if plan.AnyHome && c.onServer() {
			return n, nil
		}
		n.slot = c.table.Slot(plan.Shard)
		if n.slot == nil {
			return n, UnknownShard(plan.Shard, plan)
		}
		return n, LacksCopy(plan.Copies, plan.Shard)
	case sqlkey.Many:
		many, err := c.overShards(&n, plan, args)
		if err != nil {
			return n, err
		}
		if n.many = many; many || n.slot == nil {
			return n, nil
		}
		return n, LacksCopy(plan.Copies, n.slot.Shard())
	}
	for i := range plan.Keys {
		key, err := c.appendKey(plan, i, args)
		if err != nil {
			return n, asError(err)
		}
		owner, ok := c.table.Lookup(plan.Keyspace, key)
		if !ok {
			return n, pg.NewError(pg.CodeFeatureNotSupported, fmt.Sprintf("keyspace %s has no owner for %s", plan.KeyspaceName, plan.KeyText(i, args))).
				WithHint("The keyspace may have been made a moment ago; try again.")
		}
		if owner.Slot == nil {
			return n, NoOwner(plan, plan.KeyText(i, args))
		}
		if n.slot == nil {
			n.slot = owner.Slot
			if c.drawn.Due() {
				c.note(plan, i, args, key)
			}
			continue
		}
		if n.slot != owner.Slot && n.slot.Shard() != owner.Slot.Shard() {
			if plan.Statements > 1 && !plan.Keys[i].Session { // they are of different statements, perhaps
				n.slot, n.many = nil, true
				return n, nil
			}
			return n, KeysDiffer(plan, i, plan.KeyText(0, args), plan.KeyText(i, args), n.slot.Shard(), owner.Slot.Shard())
		}
	}
	if e := LacksCopy(plan.Copies, n.slot.Shard()); e != nil {
		return n, e
	}
	return n, HintContradicts(plan, n.slot.Shard())
}

// note notes one of a statement's keys for whoever counts what ranges get. What a hash is of stands behind it in the buffer.
func (c *core) note(plan *sqlkey.Plan, i int, args sqlkey.Args, key rib.Key) {
	both, known := plan.AppendPlain(key, i, args, c.clientUTF8())
	if known {
		c.keyBuf = both
	}
	c.env.heat.Note(&c.drawn, plan.Keyspace, key, both[len(key):])
}

// overShards finds where a statement with several keys runs. It reports whether it needs several shards.
// A session that is tied to a connection runs there what it may have made there itself, and what names a table of the home shard: that it does so
// the server is asked before (see asksLocal).
func (c *core) overShards(n *need, plan *sqlkey.Plan, args sqlkey.Args) (many bool, _ *pg.Error) {
	if c.pinned != "" && c.srvShard != "" && (c.itsOwn(plan.Fan.Names) || c.perhapsLocal(plan)) {
		n.slot = c.table.Slot(c.srvShard)
		return n.slot == nil, nil
	}
	if plan.Fan.Everywhere || plan.Fan.Apart || plan.Fan.Unnamed != nil || plan.Fan.Copy != nil && plan.Fan.Copy.From { // of COPY each row's key is looked at, also if one shard has all
		c.asked = c.spans(plan)
		return true, nil
	}
	if plan.Fan.Split != nil {
		shares, err := c.rowsOf(plan, args)
		if err != nil || len(shares) > 1 {
			c.asked = len(shares)
			return len(shares) > 1, err
		}
		n.slot = shares[0].Slot
		return false, nil
	}
	slots, err := c.needs(plan, args)
	if err == nil && plan.Fan.Rekey != nil && !c.stays(plan, args, slots) {
		c.asked = max(len(slots), 1)
		return true, nil
	}
	if err != nil || len(slots) > 1 {
		c.asked = len(slots)
		for i := 0; i < len(slots) && err == nil; i++ {
			err = LacksCopy(plan.Copies, slots[i].Shard())
		}
		return len(slots) > 1, err
	}
	if n.slot = c.anyOf(plan.Keyspace); len(slots) == 1 {
		n.slot = slots[0]
	}
	return false, nil
}

// stays reports whether all rows of an UPDATE of key columns are on one shard, before and after: then it runs there as it is.
func (c *core) stays(plan *sqlkey.Plan, args sqlkey.Args, slots []*fib.Slot) bool {
	if len(slots) != 1 {
		return len(slots) == 0
	}
	key, ok := plan.NewKey(c.keyBuf[:0], args, c.clientUTF8())
	c.keyBuf = key
	if !ok {
		return false
	}
	owner, ok := c.table.Lookup(plan.Keyspace, key)
	return ok && owner.Slot == slots[0]
}

// spans is how many shards a statement may touch whose shards are those of its keyspaces, or are listed.
func (c *core) spans(plan *sqlkey.Plan) int {
	ids := plan.Fan.Keyspaces
	if plan.Fan.Copy != nil {
		ids = []rib.KeyspaceID{plan.Keyspace}
	}
	shards := slices.Concat(plan.Copies, plan.Fan.Copies)
	for _, id := range ids {
		if ks := c.table.Ownership().Keyspace(id); ks != nil {
			shards = append(shards, ks.Shards()...)
		}
	}
	slices.Sort(shards)
	return max(1, len(slices.Compact(shards)))
}

// needs are the shards of a statement with several keys, until the next call.
func (c *core) needs(plan *sqlkey.Plan, args sqlkey.Args) ([]*fib.Slot, *pg.Error) {
	if !c.cover.Reset(c.table, plan.Keyspace) {
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "keyspace "+plan.KeyspaceName+" has no owner").
			WithHint("The keyspace may have been made a moment ago; try again.")
	}
	buf, err := plan.Shards(&c.cover, c.keyBuf[:0], args, c.clientUTF8())
	c.keyBuf = buf
	if err != nil {
		return nil, asError(err)
	}
	c.covered = c.cover.Slots(c.covered[:0])
	return c.covered, nil
}

// apart tells whether the keys of a Query's plan belong to several shards.
func (c *core) apart(plan *sqlkey.Plan) bool {
	var first *fib.Slot
	for i := range plan.Keys {
		key, err := c.appendKey(plan, i, &c.values)
		if err != nil {
			return false
		}
		owner, ok := c.table.Lookup(plan.Keyspace, key)
		if !ok || owner.Slot == nil {
			return false
		}
		if first != nil && owner.Slot != first {
			return true
		}
		first = owner.Slot
	}
	return false
}

// fills reports whether a statement would set more than a session may.
func (c *core) fills(plan *sqlkey.Plan) bool {
	return (plan.Parts != nil || plan.Session == sqlkey.SessSet && !plan.Default) && c.settings.full(max(1, len(plan.Parts), len(plan.Sets)), len(plan.SQL))
}

// mustWrite reports whether a statement must run on the primary.
func (c *core) mustWrite(plan *sqlkey.Plan) bool {
	if !repeatable(plan) {
		return true
	}
	return plan.OfPrimary || c.serializable() || c.setsLevel(plan) || c.tx.open && (c.tx.readWrite || !c.tx.readOnly && (plan.Target != sqlkey.Any || c.opens(plan)))
}

func (c *core) clientUTF8() bool { return c.params.encoding == "UTF8" }

// merge joins what two statements of one request need.
func (n *need) merge(o need) {
	n.write, n.catalogs, n.many = n.write || o.write, n.catalogs || o.catalogs, n.many || o.many
	switch {
	case n.copies == nil:
		n.copies = o.copies
	case o.copies != nil && !slices.Equal(n.copies, o.copies):
		n.copies = slices.DeleteFunc(slices.Clone(n.copies), func(shard string) bool { return !slices.Contains(o.copies, shard) })
		n.many = n.many || len(n.copies) == 0
	}
	switch {
	case o.slot == nil:
	case n.slot == nil:
		n.slot = o.slot
	case n.slot.Shard() != o.slot.Shard():
		n.many = true
	}
	n.many = n.many || n.slot != nil && LacksCopy(n.copies, n.slot.Shard()) != nil
}

// describe names what ties a statement to its shard. args are those of its keys.
func describe(plan *sqlkey.Plan, args sqlkey.Args) string {
	switch {
	case len(plan.Keys) > 0 && plan.Keys[0].Text != "":
		return "the key " + plan.KeyText(0, args)
	case len(plan.Tables) > 0:
		return "table " + plan.Tables[0]
	}
	return "the next statement"
}

func asError(err error) *pg.Error {
	var e *pg.Error
	if errors.As(err, &e) {
		return e
	}
	return pg.NewError(pg.CodeInternalError, err.Error())
}
