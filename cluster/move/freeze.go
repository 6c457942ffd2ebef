package move

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// verify asks the primaries of this moment, over new connections, whether they are still those of the copy.
func (p *Postgres) verify(ctx context.Context, j *Job) error {
	source, err := p.connect(ctx, j, j.Move.From)
	if err != nil {
		return err
	}
	defer hangUp(source)
	target, err := p.connect(ctx, j, j.Move.To)
	if err != nil {
		return err
	}
	defer hangUp(target)
	return recognize(ctx, source, target, j)
}

// patient is how long the fence waits before it is looked who keeps it waiting.
const patient = 30 * time.Millisecond

// Fence has the source refuse writes to the range. Whoever is at one is waited for, and ended if that takes too long.
func (p *Postgres) Fence(ctx context.Context, j *Job) error {
	return p.with(ctx, j, func(l *link) error {
		watching, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		pid := l.source.PgConn().PID()
		wg.Go(func() {
			if sleep(watching, patient) != nil {
				return
			}
			if conn, err := p.connect(watching, j, j.Move.From); err == nil {
				p.unblock(watching, conn, j, pid)
				hangUp(conn)
			}
		})
		return shut(ctx, l.source, j)
	})
}

// shut closes the fence in one transaction, with the mark behind which nothing of the range comes.
func shut(ctx context.Context, conn *pgx.Conn, j *Job) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 0"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", pgx.QueryExecModeExec, lockOf(j)); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, "UPDATE rangefinder.fence SET state = $4 WHERE move = $1 AND side = $2 AND term = $3 AND state <> $5", pgx.QueryExecModeExec,
		int64(j.Move.ID), sideSource, int64(j.Term), stateFrozen, stateMoved)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrDeposed
	}
	if err == nil {
		_, err = bump(ctx, tx, j)
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	return err
}

// unblock sees to it that whoever keeps a process waiting comes to an end: prepared transactions as they were decided, the others when their
// time is over.
func (p *Postgres) unblock(ctx context.Context, conn *pgx.Conn, j *Job, pid uint32) {
	began := time.Now()
	for {
		var pids []int32
		if err := conn.QueryRow(ctx, "SELECT pg_blocking_pids($1)", pgx.QueryExecModeExec, int32(pid)).Scan(&pids); err != nil {
			return
		}
		prepared := false
		for _, one := range pids {
			switch {
			case one == 0:
				prepared = true
			case time.Since(began) >= p.cfg.EndAfter:
				p.cfg.Logger.Warn("a transaction is ended that holds up a move's fence", "move", j.Move.ID, "shard", j.Move.From, "process", one)
				if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1)", pgx.QueryExecModeExec, one); err != nil {
					return
				}
			}
		}
		if prepared && p.cfg.Settle != nil && time.Since(began) >= p.cfg.EndAfter/4 { // whoever has prepared may be about to end it
			rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
			if err != nil {
				return
			}
			gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return
			}
			if err := p.cfg.Settle(ctx, j.Move.From, gids); err != nil {
				p.cfg.Logger.Warn("prepared transactions hold up a move's fence, and cannot be ended yet", "move", j.Move.ID, "shard", j.Move.From, "error", err)
			}
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// Complete returns when the target has all that the source had accepted, compared, and the replicas of both have what they need.
func (p *Postgres) Complete(ctx context.Context, j *Job) error {
	return p.with(ctx, j, func(l *link) error {
		var state string
		var mark int64
		var lsn string
		err := l.source.QueryRow(ctx, "SELECT f.state, m.n, pg_current_wal_flush_lsn()::text FROM rangefinder.fence AS f JOIN rangefinder.mark AS m USING (move) WHERE f.move = $1 AND f.side = $2", pgx.QueryExecModeExec,
			int64(j.Move.ID), sideSource).Scan(&state, &mark, &lsn)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrDeposed
		case err != nil:
			return err
		case state != stateFrozen:
			return fmt.Errorf("the fence of move %d is %s", j.Move.ID, state)
		}
		// Who is promoted after this has replayed the fence, or it is found out here; who was before is not who was fenced.
		beside := make(chan error, 3)
		go func() { beside <- p.replayed(ctx, j, j.Move.From, lsn) }()
		go func() { beside <- p.verify(ctx, j) }()
		var there *standbys
		go func() (err error) {
			defer func() { beside <- err }()
			there, err = p.standbys(ctx, j, j.Move.To)
			return err
		}()
		err = p.settled(ctx, l, j, mark)
		if err = errors.Join(err, <-beside, <-beside, <-beside); there != nil {
			defer there.close()
		}
		if err != nil {
			return err
		}
		return p.filled(ctx, l, j, there)
	})
}

// settled has the target hold what the source does.
func (p *Postgres) settled(ctx context.Context, l *link, j *Job, mark int64) error {
	began := time.Now()
	t, err := p.track(ctx, l, j)
	if err != nil {
		return err
	}
	if err := l.applied(ctx, j, mark); err != nil {
		return err
	}
	applied, rows := time.Now(), 0
	for done := false; !done; {
		err := t.reached(ctx, mark)
		if done = err == nil; err != nil && !errors.Is(err, errFull) {
			return err
		}
		rows += t.open()
		open, err := l.compare(ctx, j, t, true)
		if err != nil {
			return err
		}
		if open > 0 {
			return fmt.Errorf("%w: among %d rows that have changed", ErrDiffers, open)
		}
	}
	compared := time.Now()
	err = l.advance(ctx)
	if err == nil {
		p.cfg.Logger.Info("the target has all of a range that moves", "move", j.Move.ID, "applied", applied.Sub(began), "compared", compared.Sub(applied), "rows", rows, "sequences", time.Since(compared))
	}
	return err
}

// filled has the target accept writes to the range, when its replicas have the rows. From then on it may have others' writes: so all that takes time, or may have
// to be done again, comes before.
func (p *Postgres) filled(ctx context.Context, l *link, j *Job, there *standbys) error {
	began := time.Now()
	// The subscription does not wait for the disk. Each of these commits does, and for all before it.
	for _, set := range []string{"term = term", "state = '" + stateFilled + "'"} {
		tag, err := l.target.Exec(ctx, "UPDATE rangefinder.fence SET "+set+" WHERE move = $1 AND side = $2 AND term = $3", pgx.QueryExecModeExec, int64(j.Move.ID), sideTarget, int64(j.Term))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrDeposed
		}
		var lsn string
		if err := l.target.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text", pgx.QueryExecModeExec).Scan(&lsn); err != nil {
			return err
		}
		if err := there.replayed(ctx, lsn); err != nil {
			return err
		}
	}
	p.cfg.Logger.Info("the target accepts writes to a range that moves", "move", j.Move.ID, "took", time.Since(began))
	return nil
}

// Thaw has the source accept writes to the range again, and makes sure that nothing comes any more of what was begun in the freeze.
func (p *Postgres) Thaw(ctx context.Context, j *Job) error {
	p.drop(j.Move.ID)
	source, err := p.claimed(ctx, j, sideSource)
	if err != nil {
		return err
	}
	defer hangUp(source)
	// Whoever is about to shut the fence, in this move's name, has been given up.
	if err := alone(ctx, source, j); err != nil {
		return err
	}
	_, err = source.Exec(ctx, "UPDATE rangefinder.fence SET state = $4 WHERE move = $1 AND side = $2 AND term = $3 AND state = $5", pgx.QueryExecModeExec,
		int64(j.Move.ID), sideSource, int64(j.Term), stateOpen, stateFrozen)
	if err != nil {
		return err
	}
	target, err := p.claimed(ctx, j, sideTarget)
	if err != nil {
		return err
	}
	defer hangUp(target)
	if err := alone(ctx, target, j); err != nil {
		return err
	}
	var filled bool
	err = target.QueryRow(ctx, "SELECT EXISTS (SELECT FROM rangefinder.fence WHERE move = $1 AND side = $2 AND state = $3)", pgx.QueryExecModeExec, int64(j.Move.ID), sideTarget, stateFilled).Scan(&filled)
	if err == nil && filled {
		err = fmt.Errorf("shard %s: %w", j.Move.To, ErrFilled)
	}
	return err
}

// sequencesSQL lists the sequences that the tables' columns count by.
const sequencesSQL = `
SELECT DISTINCT s.oid::regclass::text FROM unnest($1::text[]) AS t(name)
JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND (
	d.classid = 'pg_class'::regclass AND d.refobjid = t.name::regclass AND d.deptype IN ('a', 'i')
	OR d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = t.name::regclass))
JOIN pg_class AS s ON s.relkind = 'S' AND s.oid = CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid ELSE d.refobjid END`

// advanceSQL has sequences go on behind the source's values, each by as many of its own steps as that takes.
const advanceSQL = `
SELECT setval(s.name::regclass, v.last + i.step * ceil((s.value - v.last) / i.step)::bigint)
FROM unnest($1::text[], $2::numeric[]) AS s(name, value), LATERAL (SELECT seqincrement AS step, seqstart AS start FROM pg_sequence WHERE seqrelid = to_regclass(s.name)) AS i,
	LATERAL (SELECT coalesce(pg_sequence_last_value(s.name::regclass), i.start) AS last) AS v
WHERE (s.value - v.last) / i.step > 0`

// sequences lists what the tables' columns count by at the source.
func sequences(ctx context.Context, conn *pgx.Conn, tables []table) ([]string, error) {
	var list []string
	for i := range tables {
		list = append(list, tables[i].name)
	}
	rows, err := conn.Query(ctx, sequencesSQL, pgx.QueryExecModeExec, list)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// advance sees to it that the target gives no number that a row from the source has already. A sequence that the target does not have is left
// out: there something else counts.
func (l *link) advance(ctx context.Context) error {
	if len(l.sequences) == 0 {
		return nil
	}
	var names, values []string
	err := l.source.QueryRow(ctx, "SELECT array_agg(name), array_agg(pg_sequence_last_value(name::regclass)::text) FROM unnest($1::text[]) AS s(name) WHERE pg_sequence_last_value(name::regclass) IS NOT NULL",
		pgx.QueryExecModeExec, l.sequences).Scan(&names, &values)
	if err == nil {
		_, err = l.target.Exec(ctx, advanceSQL, pgx.QueryExecModeExec, names, values)
	}
	if err != nil {
		return fmt.Errorf("sequences: %w", err)
	}
	return nil
}

// Unfence has the source accept writes to the range again.
func (p *Postgres) Unfence(ctx context.Context, j *Job) error {
	p.drop(j.Move.ID)
	conn, err := p.claimed(ctx, j, sideSource)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	there, err := present(ctx, conn, j, sideSource)
	if err != nil || !there {
		return err
	}
	_, err = conn.Exec(ctx, "UPDATE rangefinder.fence SET state = $3 WHERE move = $1 AND side = $2", pgx.QueryExecModeExec, int64(j.Move.ID), sideSource, stateOpen)
	return err
}
