package scatter

import (
	"fmt"
	"slices"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Adopted is what is known of the transaction that is open on a connection which becomes a branch.
type Adopted struct {
	Slot     *fib.Slot
	Write    bool // the connection is to a primary
	Wrote    bool // the transaction may have written there
	ReadOnly bool // it cannot
	Shaped   bool // it may have made tables that the catalogs of one shard alone tell of
	Opaque   bool // code that nobody can look into has run there
}

// maxJournal bounds what is repeated on each new branch.
const maxJournal = 1000

// transactional carries out BEGIN, COMMIT, SAVEPOINT and the like.
func (c *Coordinator) transactional(x *execution) *pg.Error {
	plan := x.stmt.plan
	warn := func(code, message string) {
		c.out = pg.AppendNotice(c.out, &pg.Error{Severity: "WARNING", Code: code, Message: message})
	}
	switch plan.Tx {
	case sqlkey.TxBegin:
		if c.block {
			warn(pg.CodeActiveTransaction, "there is already a transaction in progress")
			break
		}
		c.block, c.begin, c.readOnly = true, x.stmt.sql, plan.TxReadOnly
	case sqlkey.TxCommit, sqlkey.TxRollback:
		return c.endBlock(x)
	case sqlkey.TxSavepoint, sqlkey.TxRelease, sqlkey.TxRollbackTo:
		if e := c.savepoint(x); e != nil {
			return e
		}
	case sqlkey.TxSet:
		if plan.Snapshot {
			return Imported()
		}
		if !c.block && len(c.branches) == 0 && x.alone {
			warn(pg.CodeNoActiveTransaction, "SET LOCAL can only be used in transaction blocks")
			break
		}
		if len(c.journal) >= maxJournal {
			return tooMuch()
		}
		if e := c.onAll(c.open(), x.stmt.sql); e != nil {
			return e
		}
		c.report(c.open())
		c.readOnly = (c.readOnly || plan.TxReadOnly) && !plan.TxReadWrite
		c.journal = append(c.journal, x.stmt.sql)
	default:
		return pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be part of a transaction over several shards")
	}
	c.tell(x, plan.Tag)
	return nil
}

// Imported is the error for a transaction over several shards that has a snapshot by SET TRANSACTION SNAPSHOT. Sessions say the same.
func Imported() *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "a transaction with an imported snapshot cannot go to several shards").
		WithDetail("The name in SET TRANSACTION SNAPSHOT is that of a snapshot of one server.").
		WithHint("Have the transaction read one shard: by the keys of its statements, or SET rangefinder.shard. Shards have no snapshot in common.")
}

func tooMuch() *pg.Error {
	return pg.NewError(pg.CodeProgramLimitExceeded, "too many savepoints and settings in one transaction over several shards").
		WithHint("Release savepoints that are not needed any more.")
}

// endBlock carries out COMMIT or ROLLBACK.
func (c *Coordinator) endBlock(x *execution) *pg.Error {
	plan := x.stmt.plan
	tag := "COMMIT"
	if plan.Tx == sqlkey.TxRollback || c.failed {
		tag = "ROLLBACK"
	}
	switch {
	case plan.Chain && !c.block:
		return pg.NewError(pg.CodeNoActiveTransaction, tag+" AND CHAIN can only be used in transaction blocks")
	case !c.block:
		c.out = pg.AppendNotice(c.out, &pg.Error{Severity: "WARNING", Code: pg.CodeNoActiveTransaction, Message: "there is no transaction in progress"})
	}
	begin, readOnly := c.begin, c.readOnly
	var e *pg.Error
	if tag == "ROLLBACK" {
		c.rollback(c.ctx)
	} else {
		e = c.commit(c.ctx)
	}
	c.clear()
	if e != nil {
		return e
	}
	if plan.Chain {
		c.block, c.begin, c.readOnly = true, begin, readOnly
	}
	c.tell(x, tag)
	return nil
}

// savepoint carries out SAVEPOINT, RELEASE and ROLLBACK TO on all branches.
func (c *Coordinator) savepoint(x *execution) *pg.Error {
	plan := x.stmt.plan
	if !c.block {
		return pg.NewError(pg.CodeNoActiveTransaction, plan.Tag+" can only be used in transaction blocks")
	}
	if plan.Tx == sqlkey.TxSavepoint {
		if len(c.journal) >= maxJournal {
			return tooMuch()
		}
		if e := c.onAll(c.open(), x.stmt.sql); e != nil {
			return e
		}
		c.journal = append(slices.Clip(c.journal), x.stmt.sql)
		c.marks = append(c.marks, Mark{plan.Savepoint, len(c.journal)})
		return nil
	}
	i := len(c.marks) - 1
	for i >= 0 && c.marks[i].Name != plan.Savepoint {
		i--
	}
	if i < 0 {
		return pg.NewError(pg.CodeInvalidSavepoint, fmt.Sprintf("savepoint %q does not exist", plan.Savepoint))
	}
	if e := c.onAll(c.open(), x.stmt.sql); e != nil {
		return e
	}
	c.report(c.open())
	at := c.marks[i].At
	if plan.Tx == sqlkey.TxRollbackTo {
		c.failed = false
		c.journal, c.marks = c.journal[:at], c.marks[:i+1]
		for name, cur := range c.cursors { // those that were made since are gone
			if cur.depth > i {
				delete(c.cursors, name)
			}
		}
		for name, p := range c.portals {
			if p.depth > i {
				c.forget(p)
				delete(c.portals, name)
			}
		}
		return nil
	}
	if at == len(c.journal) { // nothing has been set since
		c.journal = c.journal[:at-1]
	} else {
		c.journal = append(slices.Clip(c.journal), x.stmt.sql)
	}
	c.marks = c.marks[:i]
	for _, cur := range c.cursors {
		cur.depth = min(cur.depth, i)
	}
	for _, p := range c.portals {
		p.depth = min(p.depth, i)
	}
	return nil
}
