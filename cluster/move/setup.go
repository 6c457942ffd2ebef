package move

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// conninfo is how the target's server reaches the source: as whoever carries out the move does, and no less encrypted.
func (p *Postgres) conninfo(source *pgx.Conn) string {
	c := source.Config()
	quote := func(v string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
	}
	mode, rootCert := "disable", ""
	switch {
	case p.cfg.TLS != nil:
		mode, rootCert = p.cfg.TLS()
	case c.TLSConfig != nil:
		mode = "require"
	}
	info := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=%s connect_timeout=10", quote(c.Host), c.Port, quote(c.User), quote(c.Password), quote(c.Database), quote(mode))
	if rootCert != "" {
		info += " sslrootcert=" + quote(rootCert)
	}
	return info
}

// rowsOf makes a move's rows of rangefinder.fence, one on each server.
func (p *Postgres) rowsOf(ctx context.Context, l *link, j *Job) error {
	return beside(func() error { return p.rowOf(ctx, l.source, j, sideSource) }, func() error { return p.rowOf(ctx, l.target, j, sideTarget) })
}

// rowSQL makes one of them, in a transaction in which no newer leader begins: one that has been here may have ended the move. It tells whether it is ours.
const rowSQL = `WITH lead AS (` + leadSQL + ` RETURNING 1), row AS (INSERT INTO rangefinder.fence (move, side, keyspace, low, high, from_shard, to_shard, state, term, generation, epoch)
SELECT $3::bigint, $4, $5, $6::bytea, $7::bytea, $8, $9, $10, $2::bigint, $11::bigint, $12::bigint WHERE EXISTS (SELECT FROM lead)
ON CONFLICT (move, side) DO UPDATE SET state = CASE WHEN rangefinder.fence.state = '` + stateEmpty + `' THEN '` + stateEmpty + `' ELSE '` + stateOpen + `' END, term = EXCLUDED.term WHERE rangefinder.fence.term <= EXCLUDED.term RETURNING 1)
SELECT EXISTS (SELECT FROM row)`

func (p *Postgres) rowOf(ctx context.Context, conn *pgx.Conn, j *Job, side string) error {
	var ours bool
	state := stateOpen
	if side == sideTarget {
		state = stateEmpty
	}
	err := ask(ctx, conn, question{sql: rowSQL, args: append(p.claimArgs(j, side), j.Keyspace.Name, fmt.Sprintf(`\x%x`, []byte(j.Move.Low)), fmt.Sprintf(`\x%x`, []byte(j.Move.High)), j.Move.From, j.Move.To, state,
		strconv.FormatUint(uint64(j.Move.Epoch.Generation), 10), strconv.FormatUint(uint64(j.Move.Epoch.Index), 10)), answer: one(&ours)})
	if err == nil && !ours {
		err = ErrDeposed
	}
	return err
}

// fenceSQL makes the function that keeps writes out, and what keeps tables from changing while the range moves.
//
// At the source: in READ COMMITTED each statement of the function sees what was committed before it, so the lock comes first, and what is read under it is how
// things are until the transaction ends. In stricter isolation the row that is read may be an old one: there it is locked itself, and whoever
// finds it changed gets a serialization failure.
//
// At the target the rows are copies until it has them all: whoever changed one there (by a hint, in a function, on a connection past the nodes) would
// be heard of by nobody, for only what changes at the source is compared, and the row would be wrong once it counts. What is copied, applied and
// removed is so with session_replication_role = replica, in which the target's triggers do not fire. It takes no lock for those whom it lets through.
//
// Every write to the range runs it, so it is made to be cheap. It has its owner's rights and whatever search_path the session has, for to set one costs as
// much as all the rest: so every name in it is qualified, operators and types too, and none is looked up where a session could put its own. And the
// lock is taken by an expression, for which PL/pgSQL begins no query.
func fenceSQL(j *Job, side string) string {
	body := fmt.Sprintf(`
	IF %[4]s THEN
		IF pg_catalog.pg_advisory_xact_lock_shared(%[2]d) IS NULL THEN NULL; END IF;
		SELECT f.state INTO found_state FROM rangefinder.fence AS f WHERE f.move OPERATOR(pg_catalog.=) %[1]s AND f.side OPERATOR(pg_catalog.=) 'source';
	ELSE
		SELECT f.state INTO found_state FROM rangefinder.fence AS f WHERE f.move OPERATOR(pg_catalog.=) %[1]s AND f.side OPERATOR(pg_catalog.=) 'source' FOR SHARE;
	END IF;
	IF found_state OPERATOR(pg_catalog.=) 'open' OR pg_catalog.current_setting('rangefinder.mover', true) OPERATOR(pg_catalog.=) '%[1]s' THEN RETURN NULL; END IF;
	RAISE EXCEPTION 'the row belongs to another shard now, or is about to' USING ERRCODE = 'RF001', DETAIL = 'Move %[1]s, to shard ' OPERATOR(pg_catalog.||) %[3]s OPERATOR(pg_catalog.||) '.',
		HINT = 'Repeat the transaction through a node that knows the present owner.';`, number(j), lockOf(j), inFence(j.Move.To), readCommitted)
	if side == sideTarget {
		body = fmt.Sprintf(`
	SELECT f.state INTO found_state FROM rangefinder.fence AS f WHERE f.move OPERATOR(pg_catalog.=) %[1]s AND f.side OPERATOR(pg_catalog.=) 'target';
	IF found_state IS NULL AND NOT (%[4]s) THEN
		RAISE EXCEPTION 'a range of keys has begun to move to this shard since the transaction began' USING ERRCODE = '40001', HINT = 'Repeat the transaction.';
	END IF;
	IF found_state IS NULL OR found_state OPERATOR(pg_catalog.=) '%[3]s' OR pg_catalog.current_setting('rangefinder.mover', true) OPERATOR(pg_catalog.=) '%[1]s' THEN RETURN NULL; END IF;
	IF NOT (%[4]s) THEN
		PERFORM FROM rangefinder.fence AS f WHERE f.move OPERATOR(pg_catalog.=) %[1]s AND f.side OPERATOR(pg_catalog.=) 'target' FOR SHARE;
	END IF;
	RAISE EXCEPTION 'the row is of a range of keys that is being copied to this shard, and belongs to another one' USING ERRCODE = '55006',
		DETAIL = 'Move %[1]s, from shard ' OPERATOR(pg_catalog.||) %[2]s OPERATOR(pg_catalog.||) '.',
		HINT = 'Send the statement to the owner of the key, without a hint that names this shard, or wait until the move is over.';`, number(j), inFence(j.Move.From), stateFilled, readCommitted)
	}
	return fmt.Sprintf(`
CREATE OR REPLACE FUNCTION %[1]s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $fence$
DECLARE found_state pg_catalog.text;
BEGIN
	IF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
		IF pg_catalog.current_setting('rangefinder.mover', true) OPERATOR(pg_catalog.=) '%[2]s' THEN RETURN NULL; END IF;
		RAISE EXCEPTION 'table %%.%% cannot be truncated while a range of its keys moves between shards', TG_TABLE_SCHEMA, TG_TABLE_NAME
			USING ERRCODE = '55006', HINT = 'Wait until the move is over, or abort it: rangefinder move abort %[2]s. DELETE works.';
	END IF;%[3]s
END $fence$`, fenceCall(j), number(j), body)
}

// readCommitted is true where each statement of a function sees what was committed before it.
const readCommitted = "pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed' OR pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read uncommitted'"

// inFence is a shard's name as a literal in the fence's body.
func inFence(shard string) string { return strings.ReplaceAll(rib.QuoteLiteral(shard), "$fence$", "") }

// movesSQL makes the function that tells of a key whether it is in the range. Each statement reads and plans the WHEN conditions of its table anew, which costs
// more than to call a function, the longer they are: so they call this one, whose plan PL/pgSQL keeps. Whoever writes to a table runs it, with his own rights.
func movesSQL(j *Job) (string, error) {
	params, typed := make([]string, len(j.Keyspace.Types)), make([]string, len(j.Keyspace.Types))
	for i, t := range j.Keyspace.Types {
		params[i] = fmt.Sprintf("k%d", i)
		typed[i] = params[i] + " " + t.SQL()
	}
	where, err := predicate(j, params)
	return fmt.Sprintf(`
CREATE OR REPLACE FUNCTION %[1]s(%[2]s) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS %[3]s;
GRANT EXECUTE ON FUNCTION %[1]s TO PUBLIC`, movesCall(j), strings.Join(typed, ", "), quote("BEGIN RETURN "+where+"; END")), err
}

// rowTriggersSQL has each write to the moving rows of a table call the fence, once. They come after the row, so that no other trigger can still change its
// key. Those of the source fire in every session_replication_role. Some may be there already: copies are fenced anew before they are removed.
func rowTriggersSQL(j *Job, t *table, side string) (sql []string) {
	moves := func(row string) string { return movesCall(j) + "(" + strings.Join(keyOf(t.keyed, row), ", ") + ")" }
	for _, one := range []struct{ name, event, when string }{
		{fenceName(j), "INSERT", moves("NEW.")},
		{changeName(j), "UPDATE", moves("NEW.") + " OR " + moves("OLD.")},
		{removeName(j), "DELETE", moves("OLD.")},
	} {
		sql = append(sql, fmt.Sprintf("CREATE OR REPLACE TRIGGER %s AFTER %s ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION %s()", one.name, one.event, t.name, one.when, fenceCall(j)))
		if side == sideSource {
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", t.name, one.name))
		}
	}
	return sql
}

// guard makes what refuses TRUNCATE and DDL on both servers, and the functions that are to refuse writes. The source's tables are to be as they were then, and
// so are the target's, which it returns.
func (p *Postgres) guard(ctx context.Context, l *link, j *Job) (there []table, err error) {
	err = beside(func() (err error) { l.tables, err = p.guardOn(ctx, l.source, j, sideSource); return err }, func() (err error) { there, err = p.guardOn(ctx, l.target, j, sideTarget); return err })
	return there, err
}

// guarded tells whether a server's tables are as they were guarded: somebody may have begun to change one before, which no event trigger hears of then. It is asked
// when all have ended who had changed anything: at the source when a slot has been made, at the target when the tables have been fenced.
func guarded(ctx context.Context, conn *pgx.Conn, j *Job, side string, were []table) error {
	tables, err := look(ctx, conn, j)
	if err != nil {
		return err
	}
	for i := range tables {
		if was := &were[i]; !slices.Equal(tables[i].leaves, was.leaves) || !slices.Equal(tables[i].columns, was.columns) {
			return fmt.Errorf("shard %s: table %s has changed while the move began: it begins anew", shardOf(j, side), tables[i].name)
		}
	}
	return nil
}

// guardOn makes it on one server, and returns the tables that it has guarded. Each is locked by itself, so that nobody waits for one while another one is waited
// for.
func (p *Postgres) guardOn(ctx context.Context, conn *pgx.Conn, j *Job, side string) ([]table, error) {
	tables, err := look(ctx, conn, j)
	if err != nil {
		return nil, err
	}
	moves, err := movesSQL(j)
	if err != nil {
		return nil, err
	}
	sql := []string{heldSQL(j, side), fenceSQL(j, side), moves}
	for i := range tables { // that a key has a type which the function takes should not come out behind the copy
		sql = append(sql, fmt.Sprintf("SELECT FROM ONLY %s WHERE %s(%s) LIMIT 0", tables[i].name, movesCall(j), strings.Join(keyOf(tables[i].keyed, ""), ", ")))
	}
	sql = append(sql, ddlSQL(j, tables)...)
	for i := range tables {
		if err := p.locked(ctx, lockOn{conn, shardOf(j, side), tables[i].name, writersSQL}, append(sql, truncateSQL(j, &tables[i])...)...); err != nil {
			return nil, deposed(err)
		}
		sql = []string{heldSQL(j, side)}
	}
	return tables, nil
}

// fenceTables has writes to the moving rows of a server call the fence, from when it returns on: whoever wrote to one of the tables before has ended by then.
// locked runs statements that want locks.
func fenceTables(j *Job, side string, tables []table, locked func(t *table, sql ...string) error) error {
	for i := range tables {
		if err := locked(&tables[i], append([]string{heldSQL(j, side)}, rowTriggersSQL(j, &tables[i], side)...)...); err != nil {
			return deposed(err)
		}
	}
	return nil
}

// fence does that when rows have been copied, which is nothing to throw away: so locks are waited for as long as it takes, and it is told who has them.
func (c *copier) fence(ctx context.Context, side string, tables []table) error {
	conn, shard := c.l.on(side), shardOf(c.j, side)
	return fenceTables(c.j, side, tables, func(t *table, sql ...string) error {
		began := time.Now()
		err := c.p.patiently(ctx, lockOn{conn, shard, t.name, writersSQL}, func(error) error {
			_, whose, err := c.p.oldest(ctx, conn, shard, writersSQL, t.name)
			if err == nil && time.Since(began) >= tellAfter {
				c.waits(strings.TrimSuffix(fmt.Sprintf("shard %s: the fence on table %s waits for its writers to end: %s", shard, t.name, whose), ": "))
			}
			return err
		}, sql...)
		c.waits("")
		return err
	})
}

// shield fences what a move has copied, before that is removed: a row that somebody wrote there meanwhile would go with the others, without a word.
func (p *Postgres) shield(ctx context.Context, conn *pgx.Conn, j *Job) error {
	var there bool
	err := conn.QueryRow(ctx, "SELECT to_regproc($1) IS NOT NULL AND to_regproc($2) IS NOT NULL", pgx.QueryExecModeExec, fenceCall(j), movesCall(j)).Scan(&there)
	if err != nil || !there {
		return err
	}
	tables, err := look(ctx, conn, j)
	if err != nil {
		return err
	}
	err = fenceTables(j, sideTarget, tables, func(t *table, sql ...string) error {
		return p.locked(ctx, lockOn{conn, j.Move.To, t.name, writersSQL}, sql...)
	})
	if sqlState(err) == codeUndefinedFunction { // a key that the function does not take: nothing can be fenced, and nothing is to stay
		return nil
	}
	return err
}

// truncateSQL refuses TRUNCATE of a table and of each of its partitions.
func truncateSQL(j *Job, t *table) (sql []string) {
	names := []string{t.name}
	if t.partition {
		names = append(names, t.leaves...)
	}
	for _, name := range names {
		sql = append(sql, fmt.Sprintf("CREATE TRIGGER %s BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %s()", truncName(j), name, fenceCall(j)),
			fmt.Sprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", name, truncName(j)))
	}
	return sql
}

// ddlSQL refuses to change, index or drop the tables.
func ddlSQL(j *Job, tables []table) []string {
	names := make([]string, len(tables))
	for i := range tables {
		names[i] = rib.QuoteLiteral(tables[i].name) + "::regclass"
	}
	return []string{
		fmt.Sprintf(`DELETE FROM rangefinder.still WHERE move = %[1]s;
INSERT INTO rangefinder.still SELECT %[1]s, p.oid FROM (SELECT unnest(ARRAY[%[2]s])::oid AS oid) AS t, LATERAL (SELECT t.oid UNION SELECT relid::oid FROM pg_partition_tree(t.oid::regclass)
	UNION SELECT indexrelid FROM pg_index WHERE indrelid = t.oid OR indrelid IN (SELECT relid FROM pg_partition_tree(t.oid::regclass))) AS p`, number(j), strings.Join(names, ", ")),
		fmt.Sprintf(`CREATE OR REPLACE FUNCTION %[1]s() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $ddl$
DECLARE touched text;
BEGIN
	IF coalesce(current_setting('rangefinder.mover', true), '') <> '' THEN RETURN; END IF;
	IF TG_EVENT = 'sql_drop' THEN
		SELECT object_identity INTO touched FROM pg_event_trigger_dropped_objects() AS o
			WHERE o.classid = 'pg_class'::regclass AND o.objid IN (SELECT relation FROM rangefinder.still WHERE move = %[2]s) LIMIT 1;
	ELSE
		SELECT object_identity INTO touched FROM pg_event_trigger_ddl_commands() AS o
			WHERE o.command_tag = 'ALTER SCHEMA' AND o.objid IN (SELECT c.relnamespace FROM rangefinder.still AS s JOIN pg_class AS c ON c.oid = s.relation WHERE s.move = %[2]s)
			OR o.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM rangefinder.still AS s WHERE s.move = %[2]s AND (s.relation = o.objid OR s.relation IN (SELECT indrelid FROM pg_index WHERE indexrelid = o.objid)
				OR s.relation IN (SELECT inhparent FROM pg_inherits WHERE inhrelid = o.objid))) LIMIT 1;
	END IF;
	IF touched IS NOT NULL THEN
		RAISE EXCEPTION '%% cannot be changed while a range of its keys moves between shards', touched
			USING ERRCODE = '55006', HINT = 'Wait until the move is over, or abort it: rangefinder move abort %[2]s.';
	END IF;
END $ddl$`, ddlCall(j), number(j)),
		fmt.Sprintf("CREATE EVENT TRIGGER %s ON ddl_command_end EXECUTE FUNCTION %s()", ddlName(j), ddlCall(j)),
		fmt.Sprintf("CREATE EVENT TRIGGER %s ON sql_drop EXECUTE FUNCTION %s()", dropName(j), ddlCall(j)),
	}
}

// publish makes the publication: the tables' rows of the range, and the mark that tells how far the target is.
func publish(ctx context.Context, l *link, j *Job) error {
	var parts []string
	for i := range l.tables {
		parts = append(parts, fmt.Sprintf("TABLE ONLY %s WHERE %s", l.tables[i].name, l.tables[i].where))
	}
	for i := range l.tables {
		if l.tables[i].partition {
			parts[i] = strings.Replace(parts[i], "TABLE ONLY ", "TABLE ", 1)
		}
	}
	parts = append(parts, "TABLE ONLY rangefinder.mark WHERE (move = "+number(j)+")")
	return deposed(script(ctx, l.source, heldSQL(j, sideSource),
		fmt.Sprintf("INSERT INTO rangefinder.mark VALUES (%s, 1) ON CONFLICT (move) DO NOTHING", number(j)),
		fmt.Sprintf("CREATE PUBLICATION %s FOR %s WITH (publish = 'insert,update,delete', publish_via_partition_root = true)", slotName(j), strings.Join(parts, ", "))))
}

// subscribe makes the subscription, which does not begin yet. From then on what the target has of the range are copies.
func (p *Postgres) subscribe(ctx context.Context, l *link, j *Job) error {
	err := script(ctx, l.target, heldSQL(j, sideTarget),
		stateSQL(j, sideTarget, stateOpen),
		fmt.Sprintf("INSERT INTO rangefinder.mark VALUES (%s, 0) ON CONFLICT (move) DO UPDATE SET n = 0", number(j)),
		fmt.Sprintf("CREATE SUBSCRIPTION %[1]s CONNECTION %[2]s PUBLICATION %[1]s WITH (create_slot = false, slot_name = '%[1]s', enabled = false, copy_data = false, disable_on_error = true)",
			slotName(j), rib.QuoteLiteral(p.conninfo(l.source))))
	if err = deposed(err); err != nil {
		return fmt.Errorf("subscribe to shard %s from %s: %w", j.Move.From, j.Move.To, hide(err, p.conninfo(l.source)))
	}
	return nil
}

// hide takes a connection string, with its password, out of an error.
func hide(err error, conninfo string) error {
	if !strings.Contains(err.Error(), conninfo) {
		return err
	}
	return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), conninfo, "(connection)"))
}
