package move

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// A range that is frozen waits for the servers' answers, one round trip after another, and these may be far away. So what can be asked together is, and what can
// be done beside is.

// freezeTime is how long a range is frozen at most: nodes hold statements back for a second longer.
const freezeTime = 4 * time.Second

// frozenTrips is how many round trips a freeze takes at most, one after another, if nothing is in its way: some nine to the servers, and those of the nodes.
const frozenTrips = 12

// verify asks the primaries of this moment, over new connections, whether they are still those of the copy.
func (p *Postgres) verify(ctx context.Context, j *Job) error {
	ask := func(shard string) (Server, error) {
		conn, err := p.cfg.Primary(ctx, shard, j.Keyspace.Database)
		if err != nil {
			return Server{}, fmt.Errorf("shard %s: %w", shard, err)
		}
		defer hangUp(conn)
		s, err := serverOf(ctx, conn)
		if err != nil {
			err = fmt.Errorf("shard %s: %w", shard, err)
		}
		return s, err
	}
	now, err := both(func() (Server, error) { return ask(j.Move.From) }, func() (Server, error) { return ask(j.Move.To) })
	if err != nil {
		return err
	}
	return same(now, j)
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
		var who atomic.Pointer[string] // keeps it waiting
		wg.Go(func() {
			if sleep(watching, patient) != nil {
				return
			}
			if conn, err := p.connect(watching, j, j.Move.From); err == nil {
				p.unblock(watching, conn, j, pid, func(text string) { who.Store(&text) })
				hangUp(conn)
			}
		})
		at, err := shut(ctx, l.source, j)
		l.shut = at
		if text := who.Load(); err != nil && text != nil {
			err = fmt.Errorf("on shard %s %s holds up the fence: %w", j.Move.From, *text, err)
		}
		return err
	})
}

// shutAt is where the log of the source stood when its fence had been shut.
type shutAt struct {
	mark int64
	lsn  string // up to where it is on disk
}

// shutSQL closes the fence in one transaction, with the mark behind which nothing of the range comes, and then tells where that is. The lock comes in a statement of
// its own: what is read under it is what was committed before.
func shutSQL(j *Job) string {
	return fmt.Sprintf(`BEGIN; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(%[1]d);
DO $shut$ BEGIN
	UPDATE rangefinder.fence SET state = '%[3]s' WHERE move = %[2]s AND side = '%[4]s' AND term = %[5]d AND state <> '%[6]s';
	IF NOT FOUND THEN RAISE EXCEPTION 'another leader carries out the move' USING ERRCODE = '%[7]s'; END IF;
END $shut$;
UPDATE rangefinder.mark SET n = n + 1 WHERE move = %[2]s RETURNING n;
COMMIT;
SELECT pg_current_wal_flush_lsn()::text`, lockOf(j), number(j), stateFrozen, sideSource, j.Term, stateMoved, codeDeposed)
}

// shut closes the fence.
func shut(ctx context.Context, conn *pgx.Conn, j *Job) (*shutAt, error) {
	results, err := conn.PgConn().Exec(ctx, shutSQL(j)).ReadAll()
	if err != nil {
		return nil, deposed(err)
	}
	at := &shutAt{}
	row, ok := lastRow(results)
	if ok {
		at.lsn = string(row[0])
	}
	if row, ok = lastRow(results[:max(0, len(results)-2)]); !ok {
		return nil, fmt.Errorf("%w: the move's mark is gone from shard %s", ErrBroken, j.Move.From)
	}
	at.mark, err = strconv.ParseInt(string(row[0]), 10, 64)
	return at, err
}

// unblock sees to it that whoever keeps a process waiting comes to an end: prepared transactions as they were decided, the others when their
// time is over. tell hears who it is.
func (p *Postgres) unblock(ctx context.Context, conn *pgx.Conn, j *Job, pid uint32, tell func(who string)) {
	began, warned := time.Now(), false
	for {
		var pids []int32
		if err := conn.QueryRow(ctx, "SELECT pg_blocking_pids($1)", pgx.QueryExecModeExec, int32(pid)).Scan(&pids); err != nil {
			return
		}
		prepared := false
		for _, one := range pids {
			if one == 0 {
				prepared = true
				continue
			}
			tell(fmt.Sprintf("the transaction of process %d", one))
			if time.Since(began) >= p.cfg.EndAfter {
				p.cfg.Logger.Warn("a transaction is ended that holds up a move's fence", "move", j.Move.ID, "shard", j.Move.From, "process", one)
				if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1)", pgx.QueryExecModeExec, one); err != nil {
					return
				}
			}
		}
		if prepared && time.Since(began) >= p.cfg.EndAfter/4 { // whoever has prepared may be about to end it
			rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared")
			if err != nil {
				return
			}
			gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return
			}
			if len(gids) > 0 {
				tell(fmt.Sprintf("a prepared transaction that was not ended (of %d there the oldest is %q)", len(gids), gids[0]))
			}
			if p.cfg.Settle != nil {
				err = p.cfg.Settle(ctx, j.Move.From, gids)
			}
			if err != nil && !warned {
				warned = true
				p.cfg.Logger.Warn("prepared transactions hold up a move's fence, and cannot be ended yet", "move", j.Move.ID, "shard", j.Move.From, "error", err)
			}
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// shutBefore tells where the source's log stood when its fence was shut, over another link or by another leader.
func shutBefore(ctx context.Context, conn *pgx.Conn, j *Job) (*shutAt, error) {
	var state string
	at := &shutAt{}
	err := conn.QueryRow(ctx, "SELECT f.state, m.n, pg_current_wal_flush_lsn()::text FROM rangefinder.fence AS f JOIN rangefinder.mark AS m USING (move) WHERE f.move = $1 AND f.side = $2", pgx.QueryExecModeExec,
		int64(j.Move.ID), sideSource).Scan(&state, &at.mark, &at.lsn)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrDeposed
	case err != nil:
		return nil, err
	case state != stateFrozen:
		return nil, fmt.Errorf("the fence of move %d is %s", j.Move.ID, state)
	}
	return at, nil
}

// Complete returns when the target has all that the source had accepted, compared, and the replicas of both have what they need.
func (p *Postgres) Complete(ctx context.Context, j *Job) error {
	return p.with(ctx, j, func(l *link) error {
		at := l.shut
		if l.shut = nil; at == nil {
			var err error
			if at, err = shutBefore(ctx, l.source, j); err != nil {
				return err
			}
		}
		// Who is promoted after this has replayed the fence, or it is found out here; who was before is not who was fenced.
		beside, found := make(chan error, 2), make(chan error, 1)
		go func() { beside <- p.replayed(ctx, j, j.Move.From, at.lsn) }()
		go func() { beside <- p.verify(ctx, j) }()
		var there *standbys
		go func() (err error) {
			defer func() { found <- err }()
			there, err = p.standbys(ctx, j, j.Move.To)
			return err
		}()
		err := p.settled(ctx, l, j, at.mark)
		if err = errors.Join(err, <-found); there != nil {
			defer there.close()
		}
		began := time.Now()
		if err == nil { // the subscription does not wait for the disk: this commit does, and for all before it
			err = kept(ctx, l, j, there, "term = term")
		}
		took := time.Since(began)
		if err = errors.Join(err, <-beside, <-beside); err != nil {
			return err
		}
		// What comes now takes as long once more. A range that is given up behind it has to be copied anew, and one that is given up before it has not.
		if until, ok := ctx.Deadline(); ok && time.Until(until) < took+took/2 {
			return fmt.Errorf("%w: shard %s and its replicas took %s for a commit, and there is less time left than another one takes", errLate, j.Move.To, took.Round(time.Millisecond))
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
	if err := kept(ctx, l, j, there, "state = '"+stateFilled+"'"); err != nil {
		return err
	}
	p.cfg.Logger.Info("the target accepts writes to a range that moves", "move", j.Move.ID, "took", time.Since(began))
	return nil
}

// kept commits a change of the move's row on the target, and returns when its replicas have that, and all before it.
func kept(ctx context.Context, l *link, j *Job, there *standbys, set string) error {
	results, err := l.target.PgConn().Exec(ctx, fmt.Sprintf("BEGIN; UPDATE rangefinder.fence SET %s WHERE move = %s AND side = '%s' AND term = %d RETURNING term; COMMIT; SELECT pg_current_wal_flush_lsn()::text",
		set, number(j), sideTarget, j.Term)).ReadAll()
	if err != nil {
		return err
	}
	if _, ok := lastRow(results[:max(0, len(results)-2)]); !ok {
		return ErrDeposed
	}
	row, ok := lastRow(results)
	if !ok {
		return errors.New("where the target's log stands was not understood")
	}
	return there.replayed(ctx, string(row[0]))
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
SELECT DISTINCT t.name, a.attname::text, s.oid::regclass::text FROM unnest($1::text[]) AS t(name)
JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND (
	d.classid = 'pg_class'::regclass AND d.refobjid = t.name::regclass AND d.deptype IN ('a', 'i')
	OR d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = t.name::regclass))
JOIN pg_class AS s ON s.relkind = 'S' AND s.oid = CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid ELSE d.refobjid END
JOIN pg_attribute AS a ON a.attrelid = t.name::regclass AND a.attnum = CASE WHEN d.classid = 'pg_class'::regclass THEN d.refobjsubid ELSE (SELECT adnum FROM pg_attrdef WHERE oid = d.objid) END
ORDER BY 1, 2, 3`

// advanceSQL has sequences go on behind the source's values, each by as many of its own steps as that takes.
const advanceSQL = `
SELECT setval(s.name::regclass, v.last + i.step * ceil((s.value - v.last) / i.step)::bigint)
FROM unnest($1::text[], $2::numeric[]) AS s(name, value), LATERAL (SELECT seqincrement AS step, seqstart AS start FROM pg_sequence WHERE seqrelid = to_regclass(s.name)) AS i,
	LATERAL (SELECT coalesce(pg_sequence_last_value(s.name::regclass), i.start) AS last) AS v
WHERE (s.value - v.last) / i.step > 0`

// counts is that a column counts by a sequence.
type counts struct{ Table, Column, Sequence string }

// counters are sequences of the source and those of the target that have to go on behind them, in the same order.
type counters struct{ source, target []string }

// counters finds what the tables' columns count by: the same column of the target may do so by a sequence of another name. Where it does not count there, one of the same name does that
// perhaps for who asks for its numbers.
func (l *link) counters(ctx context.Context, tables []table) (c counters, err error) {
	var names []string
	for i := range tables {
		names = append(names, tables[i].name)
	}
	read := func(conn *pgx.Conn, into *[]counts) func() error {
		return func() error {
			rows, err := conn.Query(ctx, sequencesSQL, pgx.QueryExecModeExec, names)
			if err == nil {
				*into, err = pgx.CollectRows(rows, pgx.RowToStructByPos[counts])
			}
			return err
		}
	}
	var here, there []counts
	if err := beside(read(l.source, &here), read(l.target, &there)); err != nil {
		return c, fmt.Errorf("sequences: %w", err)
	}
	for _, one := range here {
		found := false
		for _, other := range there {
			if one.Table == other.Table && one.Column == other.Column {
				c.source, c.target, found = append(c.source, one.Sequence), append(c.target, other.Sequence), true
			}
		}
		if !found {
			c.source, c.target = append(c.source, one.Sequence), append(c.target, one.Sequence)
		}
	}
	return c, nil
}

// advance sees to it that the target gives no number that a row from the source has already. A sequence that the target does not have is left
// out: there something else counts.
func (l *link) advance(ctx context.Context) error {
	if len(l.sequences.source) == 0 {
		return nil
	}
	var names, values []string
	err := l.source.QueryRow(ctx, "SELECT array_agg(target), array_agg(pg_sequence_last_value(source::regclass)::text) FROM unnest($1::text[], $2::text[]) AS s(source, target) WHERE pg_sequence_last_value(source::regclass) IS NOT NULL",
		pgx.QueryExecModeExec, l.sequences.source, l.sequences.target).Scan(&names, &values)
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
	// Whoever is about to shut the fence, in this move's name, has been given up.
	if err := alone(ctx, conn, j); err != nil {
		return err
	}
	there, err := present(ctx, conn, j, sideSource)
	if err != nil || !there {
		return err
	}
	return script(ctx, conn, stateSQL(j, sideSource, stateOpen))
}
