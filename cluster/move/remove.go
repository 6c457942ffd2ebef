package move

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// slotTime is how long a slot's process may take to end.
const slotTime = 10 * time.Second

// freeSlot ends whoever reads from a slot: another leader, or a connection of ours that the server has not seen end yet.
func freeSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	until := time.Now().Add(slotTime)
	for {
		var active bool
		err := conn.QueryRow(ctx, "SELECT active AND pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", pgx.QueryExecModeExec, name).Scan(&active)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("%w: slot %s is gone", ErrBroken, name)
		case err != nil:
			return err
		case !active:
			return nil
		case time.Now().After(until):
			return fmt.Errorf("slot %s is in use, and its process does not end", name)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// dropSlot removes a slot, if it is there.
func dropSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	until := time.Now().Add(slotTime)
	for {
		err := freeSlot(ctx, conn, name)
		if errors.Is(err, ErrBroken) {
			return nil
		}
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", pgx.QueryExecModeExec, name)
		}
		if code := sqlState(err); code == codeUndefinedObject {
			return nil
		} else if code != codeObjectInUse || time.Now().After(until) { // else the target has just come back to it
			return err
		}
	}
}

// unpublish ends the replication at the source.
func unpublish(ctx context.Context, conn *pgx.Conn, j *Job) error {
	for _, name := range []string{slotName(j), trackName(j)} {
		if err := dropSlot(ctx, conn, name); err != nil {
			return err
		}
	}
	return script(ctx, conn, "DROP PUBLICATION IF EXISTS "+slotName(j))
}

// unsubscribe ends the replication at the target, which need not reach the source for that.
func unsubscribe(ctx context.Context, conn *pgx.Conn, j *Job) error {
	var there bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))", pgx.QueryExecModeExec, slotName(j)).Scan(&there)
	if err != nil || !there {
		return err
	}
	return script(ctx, conn, "ALTER SUBSCRIPTION "+slotName(j)+" DISABLE", "ALTER SUBSCRIPTION "+slotName(j)+" SET (slot_name = NONE)", "DROP SUBSCRIPTION "+slotName(j))
}

// gone makes sure that nothing of the replication is left: a removal at the source would reach the target.
func gone(ctx context.Context, l *link, j *Job) error {
	until := time.Now().Add(slotTime)
	for {
		var slots, publications, subscriptions, workers int
		err := l.source.QueryRow(ctx, "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = ANY($1)), (SELECT count(*) FROM pg_publication WHERE pubname = $2)", pgx.QueryExecModeExec,
			[]string{slotName(j), trackName(j)}, slotName(j)).Scan(&slots, &publications)
		if err == nil {
			err = l.target.QueryRow(ctx, "SELECT (SELECT count(*) FROM pg_subscription WHERE subname = $1), (SELECT count(*) FROM pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL)", pgx.QueryExecModeExec,
				slotName(j)).Scan(&subscriptions, &workers)
		}
		switch {
		case err != nil:
			return err
		case slots+publications+subscriptions+workers == 0:
			return nil
		case time.Now().After(until):
			return fmt.Errorf("the replication has not ended: %d slots, %d publications, %d subscriptions, %d workers are left", slots, publications, subscriptions, workers)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// guards are what keeps tables from changing.
type guards int

const (
	stillGuards guards = iota // those against TRUNCATE and DDL
	allGuards                 // and the fence
)

// unguard removes triggers and their functions from a server.
func (p *Postgres) unguard(ctx context.Context, conn *pgx.Conn, j *Job, side string, which guards) error {
	sql := []string{"DROP EVENT TRIGGER IF EXISTS " + ddlName(j), "DROP EVENT TRIGGER IF EXISTS " + dropName(j), "DROP FUNCTION IF EXISTS " + ddlCall(j) + "()",
		"DELETE FROM rangefinder.still WHERE move = " + number(j)}
	if err := script(ctx, conn, sql...); err != nil && sqlState(err) != codeUndefinedTable && sqlState(err) != codeInvalidSchema {
		return err
	}
	names := []string{truncName(j)}
	if which == allGuards {
		names = append(names, fenceName(j), changeName(j), removeName(j))
	}
	rows, err := conn.Query(ctx, "SELECT tgname::text, tgrelid::regclass::text FROM pg_trigger WHERE tgname = ANY($1) AND tgparentid = 0", pgx.QueryExecModeExec, names)
	if err != nil {
		return err
	}
	byTable := map[string][]string{}
	var trigger, table string
	if _, err := pgx.ForEachRow(rows, []any{&trigger, &table}, func() error {
		byTable[table] = append(byTable[table], fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", trigger, table))
		return nil
	}); err != nil {
		return err
	}
	for table, drops := range byTable {
		if err := p.locked(ctx, lockOn{conn, shardOf(j, side), table, usersSQL}, drops...); err != nil {
			return err
		}
	}
	if which == allGuards {
		err := script(ctx, conn, "DROP FUNCTION IF EXISTS "+fenceCall(j)+"()", "DROP FUNCTION IF EXISTS "+movesCall(j))
		if err != nil && sqlState(err) != codeInvalidSchema {
			return err
		}
	}
	return nil
}

const codeInvalidSchema = "3F000"

// forget removes the move's own rows from a server.
func forget(ctx context.Context, conn *pgx.Conn, j *Job, side string) error {
	err := script(ctx, conn, "DELETE FROM rangefinder.mark WHERE move = "+number(j), fmt.Sprintf("DELETE FROM rangefinder.fence WHERE move = %s AND side = '%s'", number(j), side))
	if code := sqlState(err); code == codeUndefinedTable || code == codeInvalidSchema {
		return nil
	}
	return err
}

// vacate removes the range's rows from a server, and waits for its replicas to do so: once the move says that they are gone, no statement over
// shards leaves them out any more.
func (p *Postgres) vacate(ctx context.Context, conn *pgx.Conn, j *Job, side string, report func(Copied)) error {
	var all Copied
	if err := p.deleteRows(ctx, conn, j, side, func(c Copied) {
		all = c
		report(c)
	}); err != nil {
		return err
	}
	lsn, err := flushed(ctx, conn)
	if err != nil {
		return err
	}
	for {
		limited, cancel := context.WithTimeoutCause(ctx, tellAfter, errors.New("it has not replayed the removal of the range's rows"))
		err := p.replayed(limited, j, shardOf(j, side), lsn)
		late := limited.Err() != nil && ctx.Err() == nil
		cancel()
		all.Waits = ""
		if err == nil || !late {
			report(all)
			return err
		}
		all.Waits = err.Error()
		report(all)
	}
}

// tellAfter is how long a replica is waited for before it is told which.
const tellAfter = 3 * time.Second

// deleteRows removes the range's rows from a server, in batches, as fast as a copy goes.
func (p *Postgres) deleteRows(ctx context.Context, conn *pgx.Conn, j *Job, side string, report func(Copied)) error {
	tables, err := look(ctx, conn, j)
	if err != nil {
		return err
	}
	// No foreign key's action and nobody's trigger: the rows go on to live elsewhere, or never did here.
	if err := script(ctx, conn, "SET session_replication_role = replica"); err != nil {
		return err
	}
	slow := &pace{rate: p.cfg.Rate}
	var all Copied
	for vain := 0; ; {
		before := all.Rows
		list, err := pieces(ctx, conn, tables)
		if err != nil {
			return err
		}
		for i, one := range list {
			t := &tables[one.table]
			n, err := deleteSome(ctx, conn, j, side, fmt.Sprintf("DELETE FROM ONLY %s WHERE %s AND %s", one.window.leaf, one.window.condition(), t.where))
			if err != nil {
				return err
			}
			all.Rows, all.Part = all.Rows+n, float64(i+1)/float64(len(list))
			report(all)
			cost := int64(windowBlocks * 8192 / 4)
			if n > 0 {
				cost = windowBlocks * 8192
			}
			if err := slow.wait(ctx, cost); err != nil {
				return err
			}
		}
		// A row may have come to a place that was looked at already, if it was written while this began.
		table, err := some(ctx, conn, tables)
		if err != nil {
			return err
		}
		if table == "" {
			return script(ctx, conn, "RESET session_replication_role")
		}
		if vain++; all.Rows > before {
			vain = 0
		}
		if vain >= vainRemovals {
			return fmt.Errorf("rows of the range in table %s cannot be removed: DELETE leaves them there. See whether a rule or a trigger of the table is ENABLE ALWAYS or REPLICA", table)
		}
	}
}

// vainRemovals is how often in a row all rows are to be removed, and none is, until that is an error.
const vainRemovals = 3

// some is a table of which a server has rows of the range; "": none.
func some(ctx context.Context, conn *pgx.Conn, tables []table) (string, error) {
	for i := range tables {
		var found bool
		err := conn.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE %s)", tables[i].name, tables[i].where), pgx.QueryExecModeExec).Scan(&found)
		switch {
		case err != nil:
			return "", err
		case found:
			return tables[i].name, nil
		}
	}
	return "", nil
}

func deleteSome(ctx context.Context, conn *pgx.Conn, j *Job, side, sql string) (n int64, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := held(ctx, tx, j, side); err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec)
	if err != nil {
		return 0, err
	}
	return tag.RowsAffected(), tx.Commit(ctx)
}

// aloneSQL ends whatever else is connected in a move's name, and tells how many there were.
const aloneSQL = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = $1 AND pid <> pg_backend_pid()`

// alone ends all other connections to a server in a move's name. What a call had sent that was given up, by this leader or another one, may still
// be under way there, and make anew what is about to be removed.
func alone(ctx context.Context, conn *pgx.Conn, j *Job) error {
	until := time.Now().Add(slotTime)
	for {
		var n int
		if err := conn.QueryRow(ctx, aloneSQL, pgx.QueryExecModeExec, applicationName(j)).Scan(&n); err != nil || n == 0 {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("%d other connections of the move do not end", n)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Clean removes all that an aborted move has left on both servers. What can be removed on one is, also when the other does not answer.
func (p *Postgres) Clean(ctx context.Context, j *Job, report func(Copied)) error {
	p.drop(j.Move.ID)
	side := func(side string, f func(conn *pgx.Conn) error) error {
		conn, err := p.claimed(ctx, j, side)
		if err != nil {
			return err
		}
		defer hangUp(conn)
		if err = alone(ctx, conn, j); err == nil {
			err = f(conn)
		}
		if err != nil {
			return fmt.Errorf("shard %s: %w", shardOf(j, side), err)
		}
		return forget(ctx, conn, j, side)
	}
	target := side(sideTarget, func(conn *pgx.Conn) error { return unsubscribeAndDelete(ctx, p, conn, j, report) })
	source := side(sideSource, func(conn *pgx.Conn) error {
		if err := unpublish(ctx, conn, j); err != nil {
			return err
		}
		return p.unguard(ctx, conn, j, sideSource, allGuards)
	})
	return errors.Join(source, target)
}

func unsubscribeAndDelete(ctx context.Context, p *Postgres, conn *pgx.Conn, j *Job, report func(Copied)) error {
	if err := unsubscribe(ctx, conn, j); err != nil {
		return err
	}
	copies, err := holdsCopies(ctx, conn, j)
	if err == nil && copies { // else what it has of the range is somebody's
		// Nobody adds rows to what is removed: whoever was let through before has ended when the fence has been made.
		err = script(ctx, conn, stateSQL(j, sideTarget, stateOpen))
		if err == nil {
			err = p.shield(ctx, conn, j)
		}
		if err == nil {
			err = p.vacate(ctx, conn, j, sideTarget, report)
		}
		if err == nil { // what comes behind this is somebody's, however often the rest is tried
			err = script(ctx, conn, stateSQL(j, sideTarget, stateEmpty))
		}
	}
	if err != nil {
		return err
	}
	return p.unguard(ctx, conn, j, sideTarget, allGuards)
}

// Detach ends the replication, and makes sure that it has ended.
func (p *Postgres) Detach(ctx context.Context, j *Job) error {
	p.drop(j.Move.ID)
	return p.with(ctx, j, func(l *link) error {
		_, err := l.source.Exec(ctx, "UPDATE rangefinder.fence SET state = $3, generation = $4, epoch = $5 WHERE move = $1 AND side = $2", pgx.QueryExecModeExec,
			int64(j.Move.ID), sideSource, stateMoved, int64(j.Move.Epoch.Generation), int64(j.Move.Epoch.Index))
		for _, conn := range []*pgx.Conn{l.source, l.target} {
			if err == nil {
				err = alone(ctx, conn, j)
			}
		}
		if err == nil {
			err = unsubscribe(ctx, l.target, j)
		}
		if err == nil {
			err = unpublish(ctx, l.source, j)
		}
		if err == nil {
			err = gone(ctx, l, j)
		}
		if err == nil {
			err = p.unguard(ctx, l.target, j, sideTarget, allGuards)
		}
		if err == nil {
			err = forget(ctx, l.target, j, sideTarget)
		}
		return err
	})
}

// Delete removes the range's rows at the source. It looks once more whether the replication has ended.
func (p *Postgres) Delete(ctx context.Context, j *Job, report func(Copied)) error {
	defer p.drop(j.Move.ID)
	return p.with(ctx, j, func(l *link) error {
		err := gone(ctx, l, j)
		if err == nil {
			err = p.vacate(ctx, l.source, j, sideSource, report)
		}
		if err != nil {
			return err
		}
		if err = p.unguard(ctx, l.source, j, sideSource, stillGuards); sqlState(err) == codeLockNotAvailable { // the rows would be looked for again, as slowly as before
			p.cfg.Logger.Warn("what keeps a move's tables from changing goes with its fence", "move", j.Move.ID, "shard", j.Move.From, "error", err)
			err = nil
		}
		return err
	})
}

// atWorkSQL lists what runs in the source's database. Who is idle, also within a transaction, runs nothing: what comes next
// is sent by whoever has that connection. Movers' own statements are each under their move's row. A session that does not tell what it does (track_activities) counts while it is in a transaction.
const atWorkSQL = `SELECT a.pid || ' ' || a.backend_start, coalesce(a.query_start::text, ''), coalesce(a.xact_start::text, '')
FROM pg_stat_activity AS a WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
	AND NOT (a.usename = current_user AND a.application_name LIKE 'rangefinder move %')
	AND CASE a.state WHEN 'disabled' THEN EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'virtualxid') ELSE a.state NOT LIKE 'idle%' END`

// AtWork tells what runs at the source.
func (p *Postgres) AtWork(ctx context.Context, j *Job) (works []Work, err error) {
	err = p.with(ctx, j, func(l *link) error {
		rows, err := l.source.Query(ctx, atWorkSQL, pgx.QueryExecModeExec)
		if err != nil {
			return err
		}
		works, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Work])
		return err
	})
	return works, err
}

// RemoveFence removes the last that is left. If another primary was promoted after the rows were removed, which had not heard of all of it, they
// are there again: they are removed again, while the fence still keeps others from seeing to them.
func (p *Postgres) RemoveFence(ctx context.Context, j *Job) error {
	p.drop(j.Move.ID)
	conn, err := p.claimed(ctx, j, sideSource)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	there, err := present(ctx, conn, j, sideSource)
	if err != nil {
		return err
	}
	if there {
		if err := p.emptied(ctx, conn, j); err != nil {
			return err
		}
	}
	// The row first: without it nothing is let through, and what comes when a fence has gone is not removed when this is tried again.
	if err := forget(ctx, conn, j, sideSource); err != nil {
		return err
	}
	return p.unguard(ctx, conn, j, sideSource, allGuards)
}

// emptied makes sure that the source has no rows of the range.
func (p *Postgres) emptied(ctx context.Context, conn *pgx.Conn, j *Job) error {
	tables, err := look(ctx, conn, j)
	if err != nil {
		return err
	}
	found, err := some(ctx, conn, tables)
	if err != nil || found == "" {
		return err
	}
	p.cfg.Logger.Warn("rows of a range that has moved are at its old owner again, and are removed again", "move", j.Move.ID, "shard", j.Move.From)
	return p.Delete(ctx, j, func(Copied) {})
}
