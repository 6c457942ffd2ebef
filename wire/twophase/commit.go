package twophase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rangefinder/wire/pg"
)

// cleanup is how long it is tried, over the branches, to take back or to commit what has been prepared; then the background does it.
const cleanup = 10 * time.Second

// Commit commits a transaction on all of its branches, or on none. They are named in the order in which they were opened. When it returns, no
// branch is in a transaction any more, but for those that have lost their connection.
//
// An error is for the client, a *pg.Error. Only with CodeTransactionResolutionUnknown it is not known whether anything was committed: of all, or of nothing. After nil everything will
// be: if a branch could not be told, which happens when its server is lost at that moment, its part stays prepared, holds its locks and is not seen
// by anybody, until a node has committed it in the background. Until the last branch was told, which is before Commit returns, others may see the transaction on some shards and not yet on others.
//
// ctx ends the wait up to the decision; what comes after it is tried for a bounded time of its own.
func (m *Manager) Commit(ctx context.Context, database string, all []Participant) error {
	var readers, writers []Participant
	for _, p := range all {
		if p.Wrote {
			writers = append(writers, p)
		} else {
			readers = append(readers, p)
		}
	}
	// Nothing can be lost with them, but a COMMIT can fail: one that is serializable may have read what cannot be.
	if errs := each(readers, func(p Participant) error { return run(ctx, p, "COMMIT", "COMMIT") }); errors.Join(errs...) != nil {
		rollback(ctx, writers)
		return m.failed(readers, errs)
	}
	switch len(writers) {
	case 0:
		return nil
	case 1:
		return m.alone(ctx, writers[0])
	}
	tx, err := m.begin(database, writers)
	if err == nil {
		if err = m.ensure(ctx, place{tx.shards[0], database}); err == nil {
			return m.commit(ctx, tx, writers)
		}
		m.to(tx, Refused)
		m.leave(tx, tx.shards, nil)
	}
	rollback(ctx, writers)
	return err
}

// alone commits the one branch that has written.
func (m *Manager) alone(ctx context.Context, p Participant) error {
	err := run(ctx, p, "COMMIT", "COMMIT")
	switch {
	case err == nil:
		return nil
	case definite(err):
		return asPG(err)
	}
	return pg.Errorf(pg.CodeTransactionResolutionUnknown, "the connection to shard %s was lost while it committed: %v", p.Shard(), err).
		WithDetail("Nobody knows whether the transaction was committed. No other shard has written in it.")
}

// commit takes a transaction through both phases.
func (m *Manager) commit(ctx context.Context, tx *transaction, writers []Participant) error {
	others := writers[1:]
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Busy) // after which other nodes roll it back
	defer cancel()
	errs := each(others, func(p Participant) error { return run(ctx, p, prepareSQL(tx.gid), "PREPARE TRANSACTION") })
	if errors.Join(errs...) != nil {
		m.to(tx, Refused)
		rollback(ctx, writers[:1])
		m.takeBack(ctx, tx, others, errs)
		return m.failed(others, errs)
	}
	m.to(tx, Deciding)
	decided, err := m.decide(ctx, tx, writers[0])
	switch {
	case decided:
		m.to(tx, Decided)
		m.finish(ctx, tx, others)
		m.counts.committed.Add(1)
		return nil
	case err.Code == pg.CodeTransactionResolutionUnknown:
		m.to(tx, InDoubt)
		m.leave(tx, nil, err)
		m.counts.doubtful.Add(1)
		return err
	}
	m.to(tx, Refused)
	m.takeBack(ctx, tx, others, make([]error, len(others)))
	m.counts.rolledBack.Add(1)
	return err
}

// decide has the decision shard commit. If its connection is lost, the shard is asked which it was.
func (m *Manager) decide(ctx context.Context, tx *transaction, b Branch) (decided bool, e *pg.Error) {
	err := run(ctx, b, decideSQL(tx.gid, tx.shards), "COMMIT")
	if err == nil {
		return true, nil
	}
	if definite(err) {
		rollback(ctx, []Participant{{Branch: b}})
		e = asPG(err)
		at := place{tx.shards[0], tx.database}
		switch {
		case e.Code == codeUniqueViolation && e.Schema == "rangefinder":
			e = pg.NewError(pg.CodeSerializationFailure, "could not commit on several shards: another node has rolled the transaction back").
				WithDetail("That is done to what stays prepared for too long: this node was not heard of, or very slow.").WithHint("Repeat the transaction.")
		case e.Code == pg.CodeInvalidSchemaName || e.Code == pg.CodeUndefinedFunction || e.Code == pg.CodeUndefinedTable && strings.Contains(e.Message, "rangefinder"):
			m.unready(at)
			e = pg.Errorf(pg.CodeSerializationFailure, "could not commit on several shards: what keeps the decisions has gone from database %s of shard %s", at.database, at.shard).
				WithDetail(e.Message).WithHint("Repeat the transaction: it is made again.")
		}
		return false, e
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Fate)
	defer cancel()
	for {
		commit, fate := m.fateOf(ctx, tx)
		switch {
		case fate == nil && commit:
			return true, nil
		case fate == nil:
			return false, pg.Errorf(pg.CodeSerializationFailure, "could not commit on several shards: the connection to shard %s was lost before it had decided", b.Shard()).
				WithDetail("Nothing was committed on any shard: " + err.Error()).WithHint("Repeat the transaction.")
		}
		if !pause(ctx, 100*time.Millisecond) {
			return false, pg.Errorf(pg.CodeTransactionResolutionUnknown, "the connection to shard %s was lost while it decided, and it cannot be asked", b.Shard()).
				WithDetail(fmt.Sprintf("Whether the transaction %s was committed is found out when the shard can be reached: on all shards or on none. %v", tx.name, fate)).
				WithHint("SHOW TWO_PHASE in the console shows it until then.")
		}
	}
}

// finish commits what is prepared. Whatever goes wrong with that goes on in the background.
func (m *Manager) finish(ctx context.Context, tx *transaction, others []Participant) {
	m.end(ctx, tx, others, commitPreparedSQL(tx.name), "COMMIT PREPARED")
}

// takeBack rolls back what is prepared. failed are the errors of preparing it.
func (m *Manager) takeBack(ctx context.Context, tx *transaction, others []Participant, failed []error) {
	var prepared, not []Participant
	var unprepared []string
	for i, p := range others {
		switch {
		case failed[i] == nil:
			prepared = append(prepared, p)
		case definite(failed[i]):
			not, unprepared = append(not, p), append(unprepared, p.Shard())
		}
	}
	rollback(ctx, not)
	m.mu.Lock()
	m.shut(tx, unprepared)
	m.mu.Unlock()
	m.end(ctx, tx, prepared, rollbackPreparedSQL(tx.name), "ROLLBACK PREPARED")
}

func (m *Manager) end(ctx context.Context, tx *transaction, prepared []Participant, sql, tag string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	var shut []string
	errs := each(prepared, func(p Participant) error { return run(ctx, p, sql, tag) })
	for i, p := range prepared {
		var pe *pg.Error
		if errs[i] == nil || errors.As(errs[i], &pe) && pe.Code == pg.CodeUndefinedObject { // the other: somebody else has done it
			shut = append(shut, p.Shard())
		}
	}
	m.leave(tx, shut, errors.Join(errs...))
}

// rollback ends transactions in which nothing is prepared. One that has lost its connection is rolled back by its server.
func rollback(ctx context.Context, list []Participant) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	each(list, func(p Participant) error {
		_, err := p.Exec(ctx, "ROLLBACK")
		return err
	})
}

// failed is what the client is told of a branch that could not commit, or prepare.
func (m *Manager) failed(list []Participant, errs []error) error {
	m.counts.rolledBack.Add(1)
	at := slices.IndexFunc(errs, definite)
	if at < 0 {
		at = slices.IndexFunc(errs, func(err error) bool { return err != nil })
	}
	shard, err := list[at].Shard(), errs[at]
	if !definite(err) {
		return pg.Errorf(pg.CodeSerializationFailure, "could not commit on several shards: the connection to shard %s was lost", shard).
			WithDetail("Nothing was committed on any shard: " + err.Error()).WithHint("Repeat the transaction.")
	}
	e := asPG(err)
	switch {
	case e.Code == pg.CodeObjectNotInPrerequisiteState && strings.HasPrefix(e.Routine, "MarkAsPreparing"):
		m.cannotPrepare(shard)
		return disabled(shard)
	case e.Code == pg.CodeOutOfMemory && strings.HasPrefix(e.Routine, "MarkAsPreparing"):
		return e.WithDetail(fmt.Sprintf("Shard %s has as many prepared transactions as it can have. Nothing was committed on any shard.", shard)).
			WithHint(fmt.Sprintf("Raise max_prepared_transactions in the postgresql.conf of shard %s's backends, replicas first, and restart them; it should be as large as max_connections.", shard))
	case e.Detail == "":
		return e.WithDetail(fmt.Sprintf("Shard %s said so. Nothing was committed on any shard.", shard))
	}
	return e
}

// disabled is that a shard cannot prepare transactions.
func disabled(shard string) *pg.Error {
	return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "shard %s cannot take part in a transaction over several shards: its max_prepared_transactions is 0", shard).
		WithDetail("Nothing was committed on any shard.").
		WithHint(fmt.Sprintf("Set max_prepared_transactions in the postgresql.conf of shard %s's backends, replicas first, as large as max_connections, and restart them.", shard))
}

// definite tells whether an error says that a statement was not carried out: its server has answered, and has not ended meanwhile.
func definite(err error) bool {
	var pe *pg.Error
	return errors.As(err, &pe) && pe.Severity == "ERROR"
}

// asPG is the server's answer in an error that is definite.
func asPG(err error) *pg.Error {
	var pe *pg.Error
	errors.As(err, &pe)
	return pe
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
