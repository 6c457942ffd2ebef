package wire

import (
	"maps"
	"slices"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// transaction is a client's transaction block as long as no server knows of it. BEGIN is answered by the node; the block is
// opened on the shard of the first statement that names one. From then on the server's own status counts and open is false.
type transaction struct {
	open      bool
	failed    bool
	begin     string   // the client's own BEGIN
	deferred  []string // SET, SET TRANSACTION, SAVEPOINT: sent behind the BEGIN when the block opens, on each shard
	readOnly  bool
	readWrite bool
	isolation string   // as far as it is known: as it, its SET TRANSACTION or the session's default say; "": read committed
	imported  bool     // it has a snapshot by SET TRANSACTION SNAPSHOT, which is one server's
	queried   bool     // a statement of it has been run that took a snapshot
	plain     bool     // begin asks for nothing special
	saved     settings // of before the block, for ROLLBACK
	applied   string   // what was in force on the server when the block was opened there
	marks     []savepoint
	inServer  bool // opened on a server: saved and marks still count
	unopened  bool // the server has refused to open it: to the client, who was told that it is open, it has failed
	wrote     bool
	shaped    bool                  // it may have made tables that the catalogs of one shard alone tell of
	lost      *pg.Error             // why the block has failed, as long as the client has not been told
	overfull  bool                  // not all that has been set in it is in deferred
	modes     []int                 // which of deferred are SET TRANSACTION, or BEGIN: AND CHAIN keeps them
	locals    string                // the block's SET LOCAL: what a statement means may depend on it
	told      map[string]blockParam // while open: the parameters that the client has been told of since
}

// maxDeferred bounds what is kept for when a block is opened.
const maxDeferred = 1000

// savepoint remembers what was in force when it was set.
type savepoint struct {
	name     string
	settings settings
	deferred int // the length of transaction.deferred with it
	readOnly bool
	channels int // see core.channelMark
	told     map[string]blockParam
}

// bindUnnamed binds the unnamed statement, without arguments, to the unnamed portal.
var bindUnnamed = []byte{'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0}

// openBlock sends what opens the client's block on the server connection. It does so in the extended protocol and without a
// Sync: if one of the statements fails, the server discards what comes behind them, the request in hand above all.
func (c *core) openBlock() {
	c.changes = 0
	for i := -1; i < len(c.tx.deferred); i++ {
		sql := c.tx.begin
		if i >= 0 {
			sql = c.tx.deferred[i]
		}
		c.toServer = pg.AppendExecute(append(pg.AppendParse(c.toServer, "", sql, nil), bindUnnamed...), "", 0)
		for _, kind := range [...]byte{'P', 'B', 'E'} {
			c.push(expectation{kind: kind, quiet: true, begin: true})
		}
	}
}

// opening returns the statements that open the block on a server.
func (t *transaction) opening() string {
	if len(t.deferred) == 0 {
		return t.begin
	}
	return t.begin + separator + strings.Join(t.deferred, separator)
}

// status is what ReadyForQuery tells the client while no server holds its transaction.
func (c *core) virtualStatus() byte {
	switch {
	case c.tx.open && c.tx.failed:
		return 'E'
	case c.tx.open:
		return 'T'
	}
	return 'I'
}

// onServer reports whether the client's transaction block is open on the server connection.
func (c *core) onServer() bool { return c.srv != nil && (c.status == 'T' || c.status == 'E') }

// heardOf reports whether a server has the client's transaction, or will: behind a Flush it has not said so yet, as its status comes with the
// next Sync, but what has been sent in front of that is in the block, or in the one that a BEGIN would make of it.
func (c *core) heardOf() bool {
	return c.onServer() || c.srv != nil && !c.tx.open && (c.tx.inServer || c.serverOpen)
}

// virtual answers a transaction statement that no server needs to hear of. It returns the answer without ReadyForQuery, and
// false if the statement must go to a server.
func (c *core) virtual(dst []byte, plan *sqlkey.Plan) ([]byte, bool) {
	if plan.Deallocate {
		return c.deallocate(dst, plan)
	}
	if c.heardOf() || c.pinned != "" && !c.tx.open {
		return dst, false
	}
	switch plan.Tx {
	case sqlkey.TxBegin:
		if c.tx.open {
			if len(c.tx.deferred) >= maxDeferred {
				return dst, false
			}
			c.tx.modes = append(c.tx.modes, len(c.tx.deferred))
			c.again(plan.SQL) // what it says of the transaction counts
			c.characterize(plan)
			dst = pg.AppendNotice(dst, alreadyOpen())
			return pg.AppendCommandComplete(dst, plan.Tag), true
		}
		c.tx = transaction{
			open: true, begin: plan.SQL, readOnly: plan.TxReadOnly, readWrite: plan.TxReadWrite, isolation: plan.Isolation, saved: c.settings,
			plain: plan.Isolation == "" && !plan.TxReadOnly && !plan.TxReadWrite,
		}
		if c.carried { // what has been set before it in the same segment is in the block
			c.tx.saved = c.uncarried()
			for _, p := range c.late {
				c.tx.note(p.name, p.value, c.params.get(p.name), false)
			}
			c.tx.deferred = c.settings.since(c.tx.saved)
		}
		if plan.Isolation == "" {
			c.tx.isolation = c.defaultLevel()
		}
		return pg.AppendCommandComplete(dst, plan.Tag), true
	case sqlkey.TxCommit, sqlkey.TxRollback:
		tag := "COMMIT"
		if plan.Tx == sqlkey.TxRollback || c.tx.failed {
			tag = "ROLLBACK"
		}
		if !c.tx.open && plan.Chain {
			return dst, false // an error, which the server raises
		}
		if !c.tx.open {
			if was := c.uncarried(); tag == "ROLLBACK" {
				c.settings = was
				c.recall()
			}
			c.firm = len(c.late)
			dst = pg.AppendNotice(dst, &pg.Error{Severity: "WARNING", Code: pg.CodeNoActiveTransaction, Message: "there is no transaction in progress"})
			return pg.AppendCommandComplete(dst, tag), true
		}
		if c.settings = c.settings.settled(); tag == "ROLLBACK" {
			c.settings = c.tx.saved
			c.failChannels()
		}
		c.untell(tag == "COMMIT")
		c.endChannels()
		next := transaction{}
		if plan.Chain {
			next = transaction{open: true, begin: c.tx.begin, deferred: c.tx.chained(), readOnly: c.tx.readOnly, readWrite: c.tx.readWrite, isolation: c.tx.isolation, plain: c.tx.plain, saved: c.settings}
			for i := range next.deferred {
				next.modes = append(next.modes, i)
			}
		}
		c.tx = next
		c.stmts.dropPortals()
		return pg.AppendCommandComplete(dst, tag), true
	case sqlkey.TxSet:
		if c.tx.open && !c.tx.failed && len(c.tx.deferred) < maxDeferred {
			if plan.Isolation != "" || plan.TxReadOnly || plan.TxReadWrite || plan.TxDeferrable {
				c.tx.modes = append(c.tx.modes, len(c.tx.deferred))
			}
			c.tx.deferred = append(c.tx.deferred, plan.SQL)
			c.setLocal(plan.SQL)
			local := c.localOf(plan.Setting, plan.Value, plan.Default)
			c.settings = c.settings.withLocal(local)
			c.setLocally(local)
			c.tx.imported = c.tx.imported || plan.Snapshot
			c.characterize(plan)
			return pg.AppendCommandComplete(dst, plan.Tag), true
		}
	case sqlkey.TxSavepoint:
		if c.tx.open && !c.tx.failed && len(c.tx.deferred) < maxDeferred {
			c.tx.deferred = append(c.tx.deferred, plan.SQL)
			c.markSavepoint(plan.Savepoint)
			return pg.AppendCommandComplete(dst, plan.Tag), true
		}
	case sqlkey.TxRollbackTo:
		if i := c.savepointIndex(plan.Savepoint); i >= 0 && c.tx.open {
			m := &c.tx.marks[i]
			c.settings, c.tx.readOnly, c.tx.failed = m.settings, m.readOnly, false
			c.backToMark(m.channels)
			c.untellSince(m.told)
			c.tx.deferred, c.tx.marks = c.tx.deferred[:m.deferred], c.tx.marks[:i+1]
			c.tx.modes = slices.DeleteFunc(c.tx.modes, func(n int) bool { return n >= m.deferred })
			return pg.AppendCommandComplete(dst, plan.Tag), true
		}
	case sqlkey.TxRelease:
		if i := c.savepointIndex(plan.Savepoint); i >= 0 && c.tx.open && !c.tx.failed && len(c.tx.deferred) < maxDeferred {
			if at := c.tx.marks[i].deferred; at == len(c.tx.deferred) { // nothing has been set since
				c.tx.deferred = c.tx.deferred[:at-1]
			} else {
				c.tx.deferred = append(c.tx.deferred, plan.SQL)
			}
			c.tx.marks = c.tx.marks[:i]
			return pg.AppendCommandComplete(dst, plan.Tag), true
		}
	}
	return dst, false
}

// uncarried ends what the segment has carried so far: what comes next is in another transaction. It returns the settings of before.
func (c *core) uncarried() settings {
	was := c.settings
	if c.carried {
		was = c.unsynced
		was.hints = c.settings.hints
	}
	c.carried = false
	return was
}

func alreadyOpen() *pg.Error {
	return &pg.Error{Severity: "WARNING", Code: pg.CodeActiveTransaction, Message: "there is already a transaction in progress"}
}

// chained are the statements that bring the next transaction to the modes of this one.
func (t *transaction) chained() (list []string) {
	for _, i := range t.modes {
		if i < len(t.deferred) { // else it was rolled back
			list = append(list, t.deferred[i])
		}
	}
	return list
}

// characterize notes what SET TRANSACTION, or a BEGIN within the block, says of a transaction that is open nowhere.
func (c *core) characterize(plan *sqlkey.Plan) {
	t := &c.tx
	if plan.Isolation != "" {
		t.isolation = plan.Isolation
	}
	t.readOnly = (t.readOnly || plan.TxReadOnly) && !plan.TxReadWrite
	t.readWrite = t.readWrite && !plan.TxReadOnly || plan.TxReadWrite
	t.plain = t.plain && plan.Isolation == "" && !plan.TxReadOnly && !plan.TxReadWrite
}

// level is the transaction's isolation.
func (t *transaction) level() string {
	if t.isolation == "" {
		return "read committed"
	}
	return t.isolation
}

// oneSnapshot reports whether all of the transaction's statements are to see the same.
func (t *transaction) oneSnapshot() bool {
	return t.isolation == "repeatable read" || t.isolation == serializable
}

// tooLate refuses what PostgreSQL refuses to change of a transaction that has asked for something, or within a savepoint, while the block is
// open nowhere; and to go back to a savepoint that there is not, or not any more.
func (c *core) tooLate(plan *sqlkey.Plan) *pg.Error {
	t := &c.tx
	if t.open && plan.Tx == sqlkey.TxRollbackTo && c.savepointIndex(plan.Savepoint) < 0 {
		return pg.Errorf(pg.CodeInvalidSavepoint, "savepoint \"%s\" does not exist", plan.Savepoint)
	}
	if !t.open || t.failed || plan.Tx != sqlkey.TxSet && plan.Tx != sqlkey.TxBegin || !t.queried && len(t.marks) == 0 {
		return nil
	}
	text := ""
	switch within := len(t.marks) > 0; {
	case plan.Isolation != "" && plan.Isolation != t.level() && t.queried:
		text = "SET TRANSACTION ISOLATION LEVEL must be called before any query"
	case plan.Isolation != "" && plan.Isolation != t.level():
		text = "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction"
	case plan.TxReadWrite && t.readOnly && within:
		text = "cannot set transaction read-write mode inside a read-only transaction"
	case plan.TxReadWrite && t.readOnly:
		text = "transaction read-write mode must be set before any query"
	case plan.TxDeferrable && within:
		text = "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction"
	case plan.TxDeferrable:
		text = "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"
	default:
		return nil
	}
	return pg.NewError(pg.CodeActiveTransaction, text)
}

// answersTx reports whether virtual would answer the statement as things stand.
func (c *core) answersTx(plan *sqlkey.Plan) bool {
	if c.heardOf() || c.pinned != "" && !c.tx.open {
		return false
	}
	switch plan.Tx {
	case sqlkey.TxBegin:
		return !c.tx.open || len(c.tx.deferred) < maxDeferred
	case sqlkey.TxCommit, sqlkey.TxRollback:
		return c.tx.open || !plan.Chain
	case sqlkey.TxSet, sqlkey.TxSavepoint:
		return c.tx.open && !c.tx.failed && len(c.tx.deferred) < maxDeferred
	case sqlkey.TxRollbackTo:
		return c.tx.open
	case sqlkey.TxRelease:
		return c.tx.open && !c.tx.failed && len(c.tx.deferred) < maxDeferred && c.savepointIndex(plan.Savepoint) >= 0
	}
	return false
}

func (c *core) markSavepoint(name string) {
	c.tx.marks = append(c.tx.marks, savepoint{name, c.settings, len(c.tx.deferred), c.tx.readOnly, c.channelMark(), maps.Clone(c.tx.told)})
}

// txStatementDone follows what a transaction statement that a server has carried out does to the session's settings.
func (c *core) txStatementDone(plan *sqlkey.Plan) {
	switch plan.Tx {
	case sqlkey.TxSavepoint:
		if c.tx.inServer {
			c.again(plan.SQL)
		}
		c.markSavepoint(plan.Savepoint)
	case sqlkey.TxRollbackTo:
		if i := c.savepointIndex(plan.Savepoint); i >= 0 {
			c.settings = c.tx.marks[i].settings
			c.backToMark(c.tx.marks[i].channels)
			c.tx.deferred = c.tx.deferred[:min(c.tx.marks[i].deferred, len(c.tx.deferred))]
			c.tx.marks = c.tx.marks[:i+1]
			c.srv.Applied = stale
		}
	case sqlkey.TxRelease:
		if i := c.savepointIndex(plan.Savepoint); i >= 0 {
			if at := c.tx.marks[i].deferred; at > 0 && at == len(c.tx.deferred) { // nothing has been set since
				c.tx.deferred = c.tx.deferred[:at-1]
			} else {
				c.again(plan.SQL)
			}
			c.tx.marks = c.tx.marks[:i]
		}
	case sqlkey.TxBegin: // among other statements: it has begun with the text
		switch {
		case c.tx.inServer: // what it says counts for the block that is open
			c.again(plan.SQL)
		case !c.tx.open:
			c.tx = transaction{inServer: true, begin: plan.SQL, isolation: plan.Isolation, saved: c.unsynced, applied: c.unsyncedIn, wrote: c.tx.wrote}
		}
	case sqlkey.TxSet:
		c.explain(plan.Setting)
		if plan.Isolation != "" && c.onServer() {
			c.tx.isolation = plan.Isolation
		}
		c.tx.imported = c.tx.imported || plan.Snapshot && c.onServer()
		if c.tx.inServer {
			c.again(plan.SQL)
		}
		c.setLocal(plan.SQL)
		if c.onServer() || c.tx.inServer || c.serverOpen { // without a block until the Sync
			c.settings = c.settings.withLocal(c.localOf(plan.Setting, plan.Value, plan.Default))
		}
	case sqlkey.TxCommit, sqlkey.TxRollback:
		c.txEnded(plan.Chain)
	}
}

// txEnded follows a COMMIT or ROLLBACK that a server has carried out.
func (c *core) txEnded(chain bool) {
	switch {
	case string(c.lastTag) != "ROLLBACK":
		if c.tx.wrote {
			c.noteWrite()
		}
	case c.tx.inServer:
		c.settings, c.srv.Applied = c.tx.saved, c.tx.applied
	default: // without a block: it undoes what came before it in the same text or pipeline
		hints := c.settings.hints
		c.settings, c.srv.Applied = c.unsynced, c.unsyncedIn
		c.settings.hints = hints
	}
	if string(c.lastTag) == "ROLLBACK" {
		c.failChannels()
		c.explain("")
	}
	c.settings = c.settings.settled()
	c.endChannels()
	c.unsynced, c.unsyncedIn, c.carried = c.settings, c.srv.Applied, false
	c.tx = transaction{}
	if chain {
		c.tx = transaction{inServer: true, saved: c.settings, applied: c.srv.Applied}
	}
	c.begun.by(c.table.Ownership()) // the next one may begin with the same request: none of its snapshots is older than that
}

func (c *core) savepointIndex(name string) int {
	for i := len(c.tx.marks) - 1; i >= 0; i-- {
		if c.tx.marks[i].name == name {
			return i
		}
	}
	return -1
}

// repeats reports whether what is set in a block that a server has can be repeated on another shard.
func (c *core) repeats() bool {
	c.tx.overfull = c.tx.overfull || len(c.tx.deferred) >= maxDeferred
	return !c.tx.overfull
}

// statusChanged follows the server's transaction status.
func (c *core) statusChanged(now byte) {
	was, wrote := c.status, c.tx.wrote // of "I" a server says also that a COMMIT has failed: see lastTag
	c.status = now
	if c.scratch {
		if c.scratch = now != 'I'; !c.scratch {
			c.stmts.dropPortals()
		}
		return
	}
	if now == 'I' {
		c.serverOpen = false
		c.stmts.dropPortals()
		if c.tx.inServer {
			if string(c.lastTag) == "ROLLBACK" {
				c.settings = c.tx.saved
				c.srv.Applied = c.tx.applied
				c.failChannels()
				c.explain("")
			}
			c.settings = c.settings.settled()
			c.tx = transaction{open: c.tx.unopened, failed: c.tx.unopened, saved: c.tx.saved}
		} else if len(c.settings.local) > 0 && !c.tx.open {
			c.settings = c.settings.settled()
		}
		if wrote {
			c.noteWrite()
			c.tx.wrote = false
		}
		return
	}
	if was == 'I' && !c.tx.inServer {
		// Opened by a statement that held more than a BEGIN.
		c.tx = transaction{inServer: true, saved: c.unsynced, applied: c.unsyncedIn, wrote: wrote}
	}
}
