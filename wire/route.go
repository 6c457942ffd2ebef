package wire

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
)

// need is where a request must run.
type need struct {
	slot     *fib.Slot // nil: any shard will do
	write    bool      // on the primary
	catalogs bool      // the system catalogs are read: best where all tables are
	copies   []string  // the shards that have the reference tables it names; nil: it names none
	many     bool      // it runs on several shards
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
				c.env.heat.Note(&c.drawn, plan.Keyspace, key)
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

// overShards finds where a statement with several keys runs. It reports whether it needs several shards.
// A session that is tied to a connection runs there what it may have made there itself, and what names a table of the home shard, perhaps.
func (c *core) overShards(n *need, plan *sqlkey.Plan, args sqlkey.Args) (many bool, _ *pg.Error) {
	if c.pinned != "" && c.srvShard != "" && (c.itsOwn(plan.Fan.Names) || plan.Fan.Local && (c.remains&sqlkey.RemainTemp != 0 || c.srvShard == plan.Fan.Home)) {
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

// fills reports whether a statement would set more than a session may.
func (c *core) fills(plan *sqlkey.Plan) bool {
	return (plan.Parts != nil || plan.Session == sqlkey.SessSet && !plan.Default) && c.settings.full(max(1, len(plan.Parts), len(plan.Sets)), len(plan.SQL))
}

// mustWrite reports whether a statement must run on the primary.
func (c *core) mustWrite(plan *sqlkey.Plan) bool {
	if !repeatable(plan) {
		return true
	}
	return plan.OfPrimary || c.tx.open && (c.tx.serializable || c.tx.readWrite || !c.tx.readOnly && plan.Target != sqlkey.Any) // a standby cannot be serializable
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

// dispatch sends the request in hand on its way: to the connection that the session holds, or to the closest backend.
func (c *core) dispatch(n need) {
	n.write = n.write || c.ownConn && n.slot != nil // whatever comes later must be able to run there
	c.need, c.outMark, c.flushed, c.redo, c.copied = n, len(c.out), false, false, false
	if c.status == 'I' && !c.serverOpen {
		c.begun.by(c.table.Ownership())
	}
	if c.moves.keyed && (c.isolated() || c.holdsBack()) {
		return
	}
	switch {
	case c.srv != nil && c.reaches(n) && !c.handsOver():
		e := LacksCopy(n.copies, c.srvShard)
		if e == nil {
			e = c.elsewhere(n)
		}
		c.fail(e)
		return
	case c.srv == nil && n.many || c.srv != nil && c.reaches(n):
		c.convene()
		return
	case c.moves.outrun && c.srv != nil && c.coordinator == nil: // its snapshot may be older: a coordinator asks the server whether it is
		if c.handsOver() && c.seg.pin == "" && c.seg.asks == "" {
			c.convene()
		} else {
			c.fail(scatter.Outlived())
		}
		return
	case c.coordinator != nil && (c.seg.pin != "" || c.seg.asks != ""):
		c.fail(scatter.Pins(c.seg.pin + c.seg.asks))
		return
	case c.srv != nil:
		c.emit()
		return
	}
	slot := n.slot
	if slot == nil {
		slot = c.anySlot(n)
	}
	if slot == nil {
		c.fail(noShard(c.db))
		return
	}
	cand := slot.For(c.db)
	c.slot, c.list, c.srvShard = slot, cand, slot.Shard()
	c.hops, c.first, c.after = cand.Reads, 0, owing{}
	if n.write {
		c.hops = cand.Writes
	} else if len(cand.Reads) > 0 {
		c.first = cand.PickRead(c.env.random())
	}
	c.left = every(len(c.hops))
	if c.heed(cand) {
		return
	}
	switch {
	case c.need.write && c.left == 0:
		c.stall(c.headless())
		return
	case c.left == 0:
		c.fail(pg.NewError(pg.CodeCannotConnectNow, "shard "+slot.Shard()+" has no backend that can be used now").
			WithHint("See why with: rangefinder route '…', or /debug/fib on the node's HTTP port."))
		return
	}
	c.wanting = true
	c.setHop()
}

// headless is the error for what needs a primary while there is none.
func (c *core) headless() *pg.Error {
	return pg.NewError(pg.CodeCannotConnectNow, "shard "+c.srvShard+" has no primary that takes writes now").
		WithDetail(c.list.WritesReason + ".").
		WithHint("Nothing was sent: try again when one has been promoted; see why with: rangefinder route '…'.")
}

// elsewhere is the error for a statement that needs another shard than the session's connection belongs to, while that cannot be left.
func (c *core) elsewhere(n need) *pg.Error {
	what := "the statement"
	if c.plan != nil {
		what = describe(c.plan, &c.values)
	}
	needs := what + " needs several shards"
	if n.slot != nil && !n.many {
		needs = what + " belongs to " + n.slot.Shard()
	}
	if c.pinned != "" && c.status == 'I' {
		return pg.NewError(pg.CodeFeatureNotSupported, needs+", but this session is tied to "+c.srvShard).
			WithDetail("The session's state cannot be moved: " + c.pinned + ".").
			WithHint("Use another connection for the other shard.")
	}
	e := pg.NewError(pg.CodeFeatureNotSupported, needs+", but this transaction is open on "+c.srvShard).
		WithDetail("The transaction cannot go on elsewhere as things stand.").
		WithHint("Use one transaction for each shard.")
	switch {
	case c.pinned != "":
		e = e.WithDetail("The session is tied to its connection: " + c.pinned + ".")
	case c.tx.overfull:
		e = e.WithDetail("Too much has been set in it, or too many savepoints, for it to go on elsewhere.")
	case c.serverOpen:
		e = e.WithDetail("It began with messages that end in a Flush.").WithHint("Send a Sync, or a statement of each shard in one block.")
	}
	return e
}

// anySlot picks the shard for a statement that names none. After a write it goes where whatever the session has made would be.
func (c *core) anySlot(n need) *fib.Slot {
	return AnySlot(c.table, c.env.catalog(c.table), c.db, n.copies, n.catalogs || len(c.wrote) > 0, n.write)
}

// AnySlot picks the shard for a statement with the target Any: the closest one that has the database, or always the same one
// for a write and for the catalogs (Plan.Catalogs). It is nil if no shard could run it. Explanations call it too, so that they
// say what sessions do. With copies it is one of these shards.
func AnySlot(table *fib.Table, catalog *sqlkey.Catalog, database string, copies []string, catalogs, write bool) *fib.Slot {
	shards := catalog.Shards(database)
	if copies != nil {
		shards = copies
	}
	if usual := catalog.CatalogShard(database); (catalogs || write) && (copies == nil || slices.Contains(copies, usual)) {
		// Reads of the catalogs do without the usual shard when nothing of it is known, as after a restart all alone.
		if s := table.Slot(usual); s != nil && (write || len(s.For(database).Reads) > 0) {
			return s
		}
	}
	var best *fib.Slot
	var first *fib.NextHop
	for _, shard := range shards {
		s := table.Slot(shard)
		if s == nil {
			continue
		}
		hops := s.For(database).Reads
		if write {
			hops = s.For(database).Writes
		}
		if len(hops) == 0 || best != nil && !hops[0].Healthy {
			continue
		}
		if best == nil || !first.Healthy || hops[0].Closer(first) {
			best, first = s, &hops[0]
		}
	}
	return best
}

// setHop points at the candidate whose turn it is: the first choice, then the others in their order. left must not be empty.
func (c *core) setHop() {
	i := c.first
	if c.left&(1<<i) == 0 {
		i = bits.TrailingZeros64(c.left)
	}
	if c.follows() && c.leads(&c.hops[i]) {
		c.toPrimary()
		i = 0
	}
	c.left &^= 1 << i
	c.hop = &c.hops[i]
}

// acquired takes the connection that the transport got for hop.
func (c *core) acquired(conn *pool.Conn) {
	c.wanting, c.lastErr = false, nil
	c.srv, c.srvHop, c.status = conn, c.hop, 'I'
	c.srvHop.Gauge.InFlight.Add(1)
	conn.Unnamed = 0 // whatever the last borrower left there
	if c.unproven(conn) {
		c.retrying = true // when it is given back
		c.slot.Wrote()
		return
	}
	sql := c.wanted().print
	left := conn.Left != 0 && conn.Left != c.id
	if conn.Applied == sql && !left {
		c.emit()
		return
	}
	switch {
	case left:
		sql = cleanSession + sql
		conn.Left = 0
	case conn.Applied != "":
		sql = resetSettings + sql
	}
	// On its own, and waited for: a statement must never run under the settings of somebody else.
	c.toServer = pg.AppendQuery(c.toServer, sql)
	c.push(expectation{kind: 'Q', quiet: true, settings: true})
}

// wanted is what must be in force before the request in hand is sent. A block that it opens begins with what was set before it.
func (c *core) wanted() *settings {
	if c.seg.opens && c.tx.open {
		return &c.tx.saved
	}
	return &c.settings
}

// refused tells that hop could not be had. The next candidate is tried if that may help.
func (c *core) refused(err error) {
	var ce *pool.ConnectError
	// A replica that is behind may lack the role or the database that another copy has.
	if errors.As(err, &ce) && (ce.Elsewhere() || !c.need.write) && (c.left != 0 || c.follows()) {
		c.nextHop()
		c.env.metrics.Failover(ce.Backend)
		return
	}
	if errors.Is(err, errDeaf) { // the newest list has a better one in front
		c.env.metrics.Failover(c.hop.Backend.Name)
		c.wanting, c.convening = false, false
		c.anew()
		return
	}
	c.wanting, c.convening = false, false
	if c.need.write && noPrimary(err) {
		c.stall(c.refusal(err))
		return
	}
	c.fail(c.refusal(err))
}

func (c *core) refusal(err error) *pg.Error {
	if e := loginRefused(err); e != nil {
		return e
	}
	var ee *pool.ExhaustedError
	var ce *pool.ConnectError
	var pe *pg.Error
	if errors.As(err, &ee) {
		c.env.metrics.Limited(RefusedWait)
	}
	switch {
	case errors.As(err, &ee) && ee.Full != nil:
		return pg.NewError(pg.CodeTooManyConnections, ee.Error()).WithDetail("It says: " + ee.Full.Message + ".").
			WithHint("Raise the backend's max_connections or the role's CONNECTION LIMIT, or lower pool.size or pool.budget on the nodes.")
	case errors.As(err, &ee):
		return pg.NewError(pg.CodeTooManyConnections, ee.Error()).
			WithHint("Raise pool.size (and pool.budget, if it is set), or look for transactions that stay open: /debug shows each pool.")
	case errors.As(err, &ce) && errors.As(ce.Err, &pe):
		return pg.NewError(pe.Code, "backend "+ce.Backend+" refused the connection: "+pe.Message).WithDetail(pe.Detail).WithHint(pe.Hint)
	case errors.As(err, &ce):
		return pg.NewError(pg.CodeCannotConnectNow, "no backend of shard "+c.srvShard+" that could run this can be reached").
			WithDetail(ce.Error()).
			WithHint("Nothing was sent: the statement can be tried again.")
	case errors.As(err, &pe):
		return pe
	case noPrimary(err):
		return pg.NewError(pg.CodeCannotConnectNow, "the primary of shard "+c.srvShard+" cannot be used").
			WithDetail("Of backend " + c.hop.Backend.Name + ": " + err.Error() + ".").
			WithHint("Nothing was sent: the statement can be tried again.")
	}
	return pg.NewError(pg.CodeCannotConnectNow, err.Error())
}

// returned tells that the server connection was given back or closed.
func (c *core) returned() {
	if hop := c.srvHop; hop != nil {
		hop.Gauge.InFlight.Add(-1)
		if !c.need.write && !c.broken && !c.redo && !c.retrying {
			hop.Gauge.Read(c.env.now() - c.served)
		}
	}
	old := c.broken && c.srv.Connected.Sub(c.env.made) < c.came // it was there before the request
	c.srv, c.srvHop, c.broken, c.status = nil, nil, false, 'I'
	c.coordinator, c.host = nil, nil
	c.unpin()
	c.serverOpen, c.copyIn, c.scratch, c.fatal = false, false, false, nil
	c.asks, c.fixes, c.reports = "", nil, c.reports[:0]
	renew := c.worn
	c.worn, c.looseSync = false, false
	c.toServer = c.toServer[:0]
	c.srvIn, c.passing, c.parting = c.srvIn[:0], 0, c.parting[:0]
	c.leaveRanges()
	switch {
	case c.redo && c.moves.fenced:
		c.awaitOwner()
	case c.redo:
		n := c.need
		n.write = n.write || !renew
		c.dispatch(n)
	case c.retrying && c.left == 0 && !c.follows() && old: // it may have broken long ago, and tells nothing of the backend
		c.retrying, c.wanting, c.served = false, true, c.env.now()
	case c.retrying && c.left == 0 && !c.follows():
		c.retrying = false
		e := c.refusal(errBroken)
		if c.seg.retry {
			e = pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+c.hop.Backend.Name+" was lost while the statement ran").
				WithHint("It was a read: it can be tried again.")
		}
		c.stall(e)
	case c.retrying:
		c.retrying, c.wanting, c.served = false, true, c.env.now()
		c.nextHop()
	}
}

// nextHop goes on to the next candidate. A read that must see a write, and has no replica left, goes to the primary.
func (c *core) nextHop() {
	if c.left == 0 {
		c.toPrimary()
	}
	if c.left == 0 {
		c.wanting = false
		c.stall(c.headless())
		return
	}
	c.setHop()
}

func noShard(database string) *pg.Error {
	return pg.NewError(pg.CodeCannotConnectNow, "no shard is known to hold database "+database).
		WithHint("Set the key \"shard\" of [[databases]], make a keyspace, or wait for the node to hear of backends: see /debug on its HTTP port.")
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

func asError(err error) *pg.Error {
	var e *pg.Error
	if errors.As(err, &e) {
		return e
	}
	return pg.NewError(pg.CodeInternalError, err.Error())
}
