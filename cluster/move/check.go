package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// checker collects what stands against a move.
type checker struct {
	p     *Postgres
	j     *Job
	l     *link
	until time.Time // rows are looked for; zero: as long as it takes
	all   []Obstacle
}

// Check looks for all that stands against the move, and changes nothing.
func (p *Postgres) Check(ctx context.Context, j *Job) ([]Obstacle, error) {
	c := &checker{p: p, j: j, l: &link{}}
	defer c.l.close()
	if j.Move.ID == 0 { // somebody waits for the answer, and the mover will look again
		c.until = time.Now().Add(rowsTime)
	}
	if len(j.Keyspace.Tables) == 0 || j.Keyspace.Reference() || j.Keyspace.BySchema() {
		c.add(j.Move.From, "", "keyspace %s is of method %s, whose ranges cannot be moved: only those of hash, range and list can", j.Keyspace.Name, j.Keyspace.Method)
		return c.all, nil
	}
	for _, side := range []struct {
		conn  **pgx.Conn
		shard string
	}{{&c.l.source, j.Move.From}, {&c.l.target, j.Move.To}} {
		conn, err := p.connect(ctx, j, side.shard)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			c.add(side.shard, "", "its primary cannot be asked: %v", err)
			continue
		}
		*side.conn = conn
	}
	steps := []func(context.Context) error{c.source, c.target, c.tables, c.waits, c.rights}
	if c.l.source == nil || c.l.target == nil {
		steps = nil
	}
	for _, f := range steps {
		if err := f(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, err
		}
	}
	return c.all, nil
}

// unchanged looks at the tables again, now that nobody can change them any more: since the check somebody may have. With a publication on a table that lacks
// what that needs, the source would refuse its clients' updates.
func (p *Postgres) unchanged(ctx context.Context, l *link, j *Job) error {
	c := &checker{p: p, j: j, l: l}
	if err := c.tables(ctx); err != nil {
		return err
	}
	if len(c.all) > 0 {
		return &ObstacleError{c.all}
	}
	return nil
}

func (c *checker) add(shard, table, format string, args ...any) {
	c.all = append(c.all, Obstacle{Shard: shard, Table: table, Problem: fmt.Sprintf(format, args...)})
}

// source looks at the settings of the source.
func (c *checker) source(ctx context.Context) error {
	var level string
	var slots, senders, version int
	err := c.l.source.QueryRow(ctx, `SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int,
current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)::int, current_setting('server_version_num')::int`, pgx.QueryExecModeExec).Scan(&level, &slots, &senders, &version)
	if err != nil {
		return err
	}
	from := c.j.Move.From
	if level != "logical" {
		c.add(from, "", "wal_level is %s: set it to logical in postgresql.conf and restart the server", level)
	}
	if slots < 2 {
		c.add(from, "", "%d replication slots are free, and a move takes 2: raise max_replication_slots, which wants a restart", max(slots, 0))
	}
	if senders < 3 {
		c.add(from, "", "%d WAL senders are free, and a move takes 3: raise max_wal_senders, which wants a restart", max(senders, 0))
	}
	if version < 150000 {
		c.add(from, "", "it runs PostgreSQL %d, and row filters need version 15", version/10000)
	}
	return nil
}

// target looks at the settings of the target.
func (c *checker) target(ctx context.Context) error {
	var workers, processes, origins, version int
	err := c.l.target.QueryRow(ctx, `SELECT current_setting('max_logical_replication_workers')::int - (SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL)::int,
current_setting('max_worker_processes')::int - (SELECT count(*) FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer', 'checkpointer', 'walwriter',
'walsender', 'walreceiver', 'startup', 'archiver'))::int, current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_origin)::int, current_setting('server_version_num')::int`,
		pgx.QueryExecModeExec).Scan(&workers, &processes, &origins, &version)
	if err != nil {
		return err
	}
	to := c.j.Move.To
	if workers < 1 {
		c.add(to, "", "no logical replication worker is free: raise max_logical_replication_workers, which wants a restart")
	}
	if processes < 1 {
		c.add(to, "", "no background worker is free: raise max_worker_processes, which wants a restart")
	}
	if origins < 1 {
		c.add(to, "", "no replication origin is free: raise max_replication_slots, which wants a restart")
	}
	if version < 150000 {
		c.add(to, "", "it runs PostgreSQL %d, and row filters need version 15", version/10000)
	}
	return nil
}

// tables looks at each table on both servers.
func (c *checker) tables(ctx context.Context) error {
	for i := range c.j.Keyspace.Tables {
		t := &c.j.Keyspace.Tables[i]
		there := true
		for _, side := range []string{sideSource, sideTarget} {
			found, err := c.table(ctx, side, t)
			if err != nil {
				return err
			}
			there = there && found
		}
		if !there {
			continue
		}
		a, err := columnsOf(ctx, c.l.source, tableName(t))
		if err != nil {
			return err
		}
		b, err := columnsOf(ctx, c.l.target, tableName(t))
		if err != nil {
			return err
		}
		if d := difference(a, b); d != "" {
			c.add(c.j.Move.To, tableName(t), "its columns differ from those on %s: %s. Make them alike", c.j.Move.From, d)
			continue
		}
		if err := c.constraints(ctx, t); err != nil {
			return err
		}
		if err := c.rows(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// constraintsSQL tells what a table's rows must be.
const constraintsSQL = "SELECT replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('c', 'f', 'p', 'u', 'x') ORDER BY 1"

// constraints compares them: rows that the source has taken the target may not take, and what the target would take later the source would not have.
func (c *checker) constraints(ctx context.Context, t *rib.KeyedTable) error {
	read := func(conn *pgx.Conn) ([]string, error) {
		rows, err := conn.Query(ctx, constraintsSQL, pgx.QueryExecModeExec, tableName(t))
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	}
	a, err := read(c.l.source)
	if err != nil {
		return err
	}
	b, err := read(c.l.target)
	if err != nil {
		return err
	}
	only := func(list, other []string) string {
		return cmp.Or(strings.Join(slices.DeleteFunc(slices.Clone(list), func(d string) bool { return slices.Contains(other, d) }), ", "), "nothing more")
	}
	if !slices.Equal(a, b) {
		c.add(c.j.Move.To, tableName(t), "its constraints differ from those on %s: only on the source %s; only on the target %s. Make them alike", c.j.Move.From, only(a, b), only(b, a))
	}
	return nil
}

// identitySQL tells of a table and of each partition of it what replication identifies rows by.
const identitySQL = `
SELECT c.oid::regclass::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_index AS i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at) JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.n
             WHERE i.indrelid = c.oid AND i.indisvalid AND k.at <= i.indnkeyatts AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
FROM pg_class AS c WHERE c.oid = $1::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree($1::regclass))`

const uniqueSQL = `
SELECT x.relname::text, i.indisexclusion, ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at)
       LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.n AND k.n > 0 WHERE k.at <= i.indnkeyatts)
FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid WHERE i.indrelid = $1::regclass AND (i.indisunique OR i.indisexclusion)`

// alwaysSQL finds triggers of others that fire for what is replicated too.
const alwaysSQL = `
SELECT c.oid::regclass::text, g.tgname::text FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
WHERE NOT g.tgisinternal AND g.tgenabled IN ('A', 'R') AND (c.oid = $1::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree($1::regclass)))
AND NOT EXISTS (SELECT FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace WHERE f.oid = g.tgfoid AND n.nspname = 'rangefinder') ORDER BY 1, 2`

// pointedSQL finds what a table's foreign keys point at.
const pointedSQL = `
SELECT f.conname::text, n.nspname::text, c.relname::text FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.confrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conrelid = $1::regclass AND f.conparentid = 0`

const pointingSQL = `
SELECT f.conname::text, n.nspname::text, c.relname::text FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid = $1::regclass AND f.conparentid = 0`

// table looks at one table on one server, and tells whether it is there.
func (c *checker) table(ctx context.Context, side string, t *rib.KeyedTable) (bool, error) {
	conn, shard, name := c.l.on(side), c.j.Move.From, tableName(t)
	if side == sideTarget {
		shard = c.j.Move.To
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, name).Scan(&there); err != nil {
		return false, err
	}
	if !there {
		c.add(shard, name, "it does not exist: create it there first, as it is on the other shard")
		return false, nil
	}
	rows, err := conn.Query(ctx, identitySQL, pgx.QueryExecModeExec, name)
	if err != nil {
		return false, err
	}
	var leaf, kind, persistence, identity string
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&leaf, &kind, &persistence, &identity, &columns}, func() error {
		missing := slices.DeleteFunc(slices.Clone(t.Columns), func(k string) bool { return slices.Contains(columns, k) })
		switch {
		case kind != "r" && kind != "p":
			c.add(shard, leaf, "it is not a table")
		case persistence == "u":
			c.add(shard, leaf, "it is unlogged, so its rows are not replicated: ALTER TABLE ... SET LOGGED")
		case identity == "f":
		case identity == "n", len(columns) == 0:
			c.add(shard, leaf, "it has no replica identity, so updates of moving rows could not be replicated: give it a primary key that holds the key (%s), or ALTER TABLE ... REPLICA IDENTITY FULL", strings.Join(t.Columns, ", "))
		case len(missing) > 0:
			c.add(shard, leaf, "its replica identity does not hold the key (%s is missing), so updates of moving rows could not be replicated: add it to the primary key, or ALTER TABLE ... REPLICA IDENTITY FULL", strings.Join(missing, ", "))
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if side == sideTarget {
		if err := c.comparable(ctx, name); err != nil {
			return false, err
		}
	}
	var inherited bool
	if err := conn.QueryRow(ctx, "SELECT relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = oid) FROM pg_class WHERE oid = $1::regclass", pgx.QueryExecModeExec, name).Scan(&inherited); err != nil {
		return false, err
	}
	if inherited { // reading it reads their rows too, which do not move
		c.add(shard, name, "other tables inherit from it, whose rows would not move along: ALTER TABLE ... NO INHERIT for each, or make it a partitioned table")
	}
	if rows, err = conn.Query(ctx, alwaysSQL, pgx.QueryExecModeExec, name); err != nil {
		return false, err
	}
	var trigger string
	_, err = pgx.ForEachRow(rows, []any{&leaf, &trigger}, func() error {
		c.add(shard, leaf, "trigger %[1]s fires for replicated rows too (ENABLE ALWAYS or REPLICA): it would do its work again for each row that is copied here, or removed from here. Until the move is over: ALTER TABLE ... ENABLE TRIGGER %[1]s, or DISABLE TRIGGER", rib.QuoteIdent(trigger))
		return nil
	})
	if err != nil {
		return false, err
	}
	if rows, err = conn.Query(ctx, uniqueSQL, pgx.QueryExecModeExec, name); err != nil {
		return false, err
	}
	var index string
	var exclusion bool
	_, err = pgx.ForEachRow(rows, []any{&index, &exclusion, &columns}, func() error {
		for _, k := range t.Columns {
			if !slices.Contains(columns, k) {
				c.add(shard, name, "unique index %s is without the key (%s): a moving row may clash with one of the target's. Add the key to it", index, strings.Join(t.Columns, ", "))
				break
			}
		}
		return nil
	})
	if err != nil || side == sideTarget {
		return true, err
	}
	for _, k := range t.Columns {
		var generated bool
		if err := conn.QueryRow(ctx, "SELECT coalesce((SELECT attgenerated <> '' FROM pg_attribute WHERE attrelid = $1::regclass AND attname = $2), false)", pgx.QueryExecModeExec, name, k).Scan(&generated); err != nil {
			return false, err
		}
		if generated {
			c.add(shard, name, "key column %s is a generated one, which is not replicated", rib.QuoteIdent(k))
		}
	}
	var constraint, schema, other string
	movesAlong := func() bool {
		return slices.ContainsFunc(c.j.Keyspace.Tables, func(k rib.KeyedTable) bool { return k.Schema == schema && k.Name == other })
	}
	if rows, err = conn.Query(ctx, pointedSQL, pgx.QueryExecModeExec, name); err != nil {
		return false, err
	}
	_, err = pgx.ForEachRow(rows, []any{&constraint, &schema, &other}, func() error {
		if !movesAlong() && (c.p.cfg.Everywhere == nil || !c.p.cfg.Everywhere(c.j.Keyspace.Database, schema, other)) {
			c.add(shard, name, "its foreign key %s points at %s.%s, which does not move along and is no reference table: the rows would stand on %s without what they point at. Put that table into the keyspace, make it a reference table, or drop the constraint",
				constraint, rib.QuoteIdent(schema), rib.QuoteIdent(other), c.j.Move.To)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if rows, err = conn.Query(ctx, pointingSQL, pgx.QueryExecModeExec, name); err != nil {
		return false, err
	}
	_, err = pgx.ForEachRow(rows, []any{&constraint, &schema, &other}, func() error {
		if !movesAlong() {
			c.add(shard, name, "foreign key %s of %s.%s points at it, and that table does not move along: drop the constraint, or put the table into the keyspace", constraint, rib.QuoteIdent(schema), rib.QuoteIdent(other))
		}
		return nil
	})
	return true, err
}

// incomparableSQL finds columns whose type has no equality, in tables that have no index by which rows are found: there a row is looked for by all of
// its columns.
const incomparableSQL = `
SELECT c.oid::regclass::text, a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_type AS d ON d.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_type AS b ON b.oid = CASE d.typcategory WHEN 'A' THEN d.typelem ELSE d.oid END
WHERE (c.oid = $1::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree($1::regclass))) AND c.relkind = 'r' AND b.typtype = 'b'
AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident AND c.relreplident = 'i'))
AND NOT EXISTS (SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod WHERE o.opcdefault AND m.amname IN ('btree', 'hash')
	AND (o.opcintype = b.oid OR EXISTS (SELECT FROM pg_cast AS k WHERE k.castsource = b.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i')))`

// comparable looks for what keeps the target from finding the rows that are changed.
func (c *checker) comparable(ctx context.Context, name string) error {
	rows, err := c.l.target.Query(ctx, incomparableSQL, pgx.QueryExecModeExec, name)
	if err != nil {
		return err
	}
	var leaf, column, kind string
	_, err = pgx.ForEachRow(rows, []any{&leaf, &column, &kind}, func() error {
		c.add(c.j.Move.To, leaf, "its rows can be told apart by all of their columns alone, and values of column %s, of type %s, cannot be compared: give it a primary key that holds the key", rib.QuoteIdent(column), kind)
		return nil
	})
	return err
}

// rows looks for rows of the range on the target, which cannot be told from copied ones.
func (c *checker) rows(ctx context.Context, t *rib.KeyedTable) error {
	where, err := predicate(c.j, t, "")
	if err != nil {
		return err
	}
	limited, cancel := ctx, func() {}
	if !c.until.IsZero() {
		limited, cancel = context.WithDeadline(ctx, c.until)
	}
	defer cancel()
	var n int64
	err = c.l.target.QueryRow(limited, fmt.Sprintf("SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %d) AS few", tableName(t), where, rowsCounted), pgx.QueryExecModeExec).Scan(&n)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		hangUp(c.l.target) // it was ended with the question
		c.l.target, err = c.p.connect(ctx, c.j, c.j.Move.To)
	}
	if err != nil || n == 0 {
		return err
	}
	number := fmt.Sprint(n)
	if n == rowsCounted {
		number = "at least " + number
	}
	c.all = append(c.all, Obstacle{Shard: c.j.Move.To, Table: tableName(t), Rows: n,
		Problem: fmt.Sprintf("%s rows of the range lie there already, and nobody knows why: delete them, or move them to %s", number, c.j.Move.From)})
	return nil
}

// Bounds of a look for rows that must not be there. How many there are beyond the first does not matter, and a large table is read whole if no index
// begins with its key.
const (
	rowsCounted = 10_000
	rowsTime    = 10 * time.Second // where somebody waits
)

// longTransaction is how old a transaction may be when a move begins. The copy can only begin when all that were there before it are over.
const longTransaction = 10 * time.Second

// waits looks for what the copy would wait for.
func (c *checker) waits(ctx context.Context) error {
	rows, err := c.l.source.Query(ctx, `SELECT pid, coalesce(usename::text, ''), coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - $1::float8 * interval '1 second' AND backend_xid IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()`, pgx.QueryExecModeExec, longTransaction.Seconds())
	if err != nil {
		return err
	}
	var pid int
	var user string
	var age float64
	if _, err := pgx.ForEachRow(rows, []any{&pid, &user, &age}, func() error {
		c.add(c.j.Move.From, "", "a transaction of user %s that writes is open for %s (process %d): the copy can begin only when it is over. Wait for it, or end it", user, time.Duration(age*float64(time.Second)).Round(time.Second), pid)
		return nil
	}); err != nil {
		return err
	}
	gids, err := c.l.preparedFor(ctx, longTransaction)
	if err != nil || len(gids) == 0 {
		return err
	}
	if c.p.cfg.Settle != nil {
		if err := c.p.cfg.Settle(ctx, c.j.Move.From, gids); err == nil {
			gids, err = c.l.preparedFor(ctx, longTransaction)
			if err != nil {
				return err
			}
		}
	}
	for _, gid := range gids {
		c.add(c.j.Move.From, "", "a transaction is prepared there and was not ended: %q. Whoever prepared it must commit it or roll it back", gid)
	}
	return nil
}

// preparedFor lists what is prepared in this database at the source for longer than an age.
func (l *link) preparedFor(ctx context.Context, age time.Duration) ([]string, error) {
	rows, err := l.source.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - $1::float8 * interval '1 second' ORDER BY prepared", pgx.QueryExecModeExec, age.Seconds())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// rights tries what the move will do, in transactions that are rolled back. It also finds out whether the target can reach the source.
func (c *checker) rights(ctx context.Context) error {
	try := func(conn *pgx.Conn, shard, what, hint string, sql ...string) error {
		err := script(ctx, conn, append([]string{"BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '20s'"}, append(sql, "ROLLBACK")...)...)
		if err == nil {
			return nil
		}
		if conn.IsClosed() {
			return fmt.Errorf("shard %s: %w", shard, err)
		}
		if err := script(ctx, conn, "ROLLBACK"); err != nil {
			return err
		}
		c.add(shard, "", "user %s cannot %s: %v. %s", rib.QuoteIdent(conn.Config().User), what, err, hint)
		return nil
	}
	const super = "The node's user (admin.user, else probe.user) needs the rights of a superuser there"
	from, to := c.j.Move.From, c.j.Move.To
	own := strings.Split(ownSQL, ";\n")
	filters := make([]string, 0, len(c.j.Keyspace.Tables))
	for i := range c.j.Keyspace.Tables {
		t := &c.j.Keyspace.Tables[i]
		where, err := predicate(c.j, t, "")
		if err != nil {
			return err
		}
		filters = append(filters, fmt.Sprintf("TABLE %s WHERE %s", tableName(t), where))
	}
	if len(c.all) == 0 { // else it fails for what is told already
		if err := try(c.l.source, from, "publish the tables", super, "CREATE PUBLICATION rangefinder_try FOR "+strings.Join(filters, ", ")+" WITH (publish_via_partition_root = true)"); err != nil {
			return err
		}
	}
	if err := try(c.l.source, from, "fence writes", super, append(own, `CREATE FUNCTION rangefinder.try() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		"CREATE EVENT TRIGGER rangefinder_try ON sql_drop EXECUTE FUNCTION rangefinder.try()")...); err != nil {
		return err
	}
	var replicates bool
	if err := c.l.source.QueryRow(ctx, "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user", pgx.QueryExecModeExec).Scan(&replicates); err != nil {
		return err
	}
	if !replicates {
		c.add(from, "", "user %s may not replicate: ALTER ROLE ... REPLICATION", rib.QuoteIdent(c.l.source.Config().User))
	}
	if err := try(c.l.target, to, "keep triggers from firing for rows that are copied", super, append(own, "SET LOCAL session_replication_role = replica")...); err != nil {
		return err
	}
	conninfo := c.p.conninfo(c.l.source)
	err := try(c.l.target, to, fmt.Sprintf("subscribe to %s", from), "The target's server must reach the source's, as this node does and encrypted alike (backend_tls.mode, moves.ca_file), and "+super,
		fmt.Sprintf("CREATE SUBSCRIPTION rangefinder_try CONNECTION %s PUBLICATION rangefinder_try WITH (create_slot = false, enabled = false, copy_data = false, slot_name = 'rangefinder_try')", rib.QuoteLiteral(conninfo)))
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), conninfo, "(connection)"))
	}
	return nil
}
