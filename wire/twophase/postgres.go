package twophase

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Connect opens a connection to a shard's primary as the node's own user. database "" is any.
type Connect func(ctx context.Context, shard, database string) (*pgx.Conn, error)

// Open makes Connect the Sites of real servers.
func (c Connect) Open(ctx context.Context, shard, database string) (Site, error) {
	conn, err := c(ctx, shard, database)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard, err)
	}
	p := &postgres{shard: shard, conn: conn}
	// Nothing of the database's own is on this path. Who decides may wait for a replica; longer than this nobody waits here for him.
	if err := p.exec(ctx, "SET search_path = pg_catalog; SET lock_timeout = '5s'; SET statement_timeout = '15s'; SET default_transaction_read_only = off"); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// postgres is a site that is a PostgreSQL server.
type postgres struct {
	shard string
	conn  *pgx.Conn
}

func (p *postgres) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx)
}

func (p *postgres) exec(ctx context.Context, sql string) error {
	_, err := p.conn.PgConn().Exec(ctx, sql).ReadAll()
	return p.wrap(err)
}

func (p *postgres) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("shard %s: %w", p.shard, err)
}

// sqlState is the code of a server's error; "": it is none.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// readySQL makes what keeps decisions. The function runs with its owner's rights, so nobody else needs any on the table, and it notes who has
// decided: for a transaction that somebody else has prepared, that does not count. participants and xid are what tells when a row to roll back has done its work.
const readySQL = rib.SchemaSQL + `
CREATE TABLE IF NOT EXISTS rangefinder.decision (
	gid text PRIMARY KEY,
	commit boolean NOT NULL,
	participants text[] NOT NULL,
	decided timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	by name NOT NULL,
	xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()
);
CREATE OR REPLACE FUNCTION rangefinder.decide(gid text, participants text[]) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ INSERT INTO rangefinder.decision (gid, commit, participants, by)
   VALUES ($1, true, $2, CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user ELSE pg_catalog.current_setting('role')::name END) $$;
GRANT USAGE ON SCHEMA rangefinder TO PUBLIC;
GRANT EXECUTE ON FUNCTION rangefinder.decide(text, text[]) TO PUBLIC`

// isReadySQL asks whether all that is there, and this user may use it.
const isReadySQL = `SELECT coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
	AND pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, DELETE') AND p.oid IS NOT NULL, false)
FROM (SELECT 1) one
	LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'rangefinder'
	LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'decision'
	LEFT JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = 'decide'`

func (p *postgres) Ready(ctx context.Context) error {
	ready := false
	if err := p.conn.QueryRow(ctx, isReadySQL, pgx.QueryExecModeExec).Scan(&ready); err != nil || ready {
		return p.wrap(err)
	}
	err := p.exec(ctx, readySQL)
	if sqlState(err) == pg.CodeInsufficientPrivilege {
		c := p.conn.Config()
		return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "shard %s cannot keep the decisions of transactions over several shards: %v", p.shard, errors.Unwrap(err)).
			WithDetail("They are rows of the table rangefinder.decision in each database, which a node makes when it first needs it.").
			WithHint(fmt.Sprintf("Let the node's user (admin.user, else probe.user) make it: GRANT CREATE ON DATABASE %s TO %s on the primary of shard %s. If somebody else has made it: GRANT USAGE ON SCHEMA rangefinder, and SELECT, INSERT, DELETE ON rangefinder.decision, TO %s.",
				pgx.Identifier{c.Database}.Sanitize(), pgx.Identifier{c.User}.Sanitize(), p.shard, pgx.Identifier{c.User}.Sanitize()))
	}
	return err
}

func (p *postgres) Prepared(ctx context.Context, prefix string) (f Found, err error) {
	rows, err := p.conn.Query(ctx, `SELECT pg_catalog.current_setting('max_prepared_transactions')::int, coalesce(x.gid, ''), coalesce(x.database::text, ''), coalesce(x.owner::text, ''),
	coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - x.prepared)::float8, 0)
	FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_prepared_xacts x ON pg_catalog.starts_with(x.gid, $1) ORDER BY x.prepared`, pgx.QueryExecModeExec, prefix)
	if err != nil {
		return f, p.wrap(err)
	}
	var x Prepared
	var age float64
	_, err = pgx.ForEachRow(rows, []any{&f.Max, &x.GID, &x.Database, &x.Owner, &age}, func() error {
		if x.GID != "" {
			x.Age = time.Duration(age * float64(time.Second))
			f.Prepared = append(f.Prepared, x)
		}
		return nil
	})
	return f, p.wrap(err)
}

func (p *postgres) Waits(ctx context.Context) ([]Wait, error) {
	rows, err := p.conn.Query(ctx, "SELECT pid::bigint, coalesce(max(waitstart)::text, ''), pg_catalog.pg_blocking_pids(pid)::bigint[] FROM pg_catalog.pg_locks WHERE NOT granted AND pid IS NOT NULL GROUP BY pid",
		pgx.QueryExecModeExec)
	if err != nil {
		return nil, p.wrap(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Wait])
	return list, p.wrap(err)
}

const decisionColumns = `gid, commit, participants, by::text FROM rangefinder.decision`

// kept tells whether anybody has ever decided anything in this database. To find out by an error would fill the server's log.
func (p *postgres) kept(ctx context.Context) (there bool, err error) {
	err = p.conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass('rangefinder.decision') IS NOT NULL", pgx.QueryExecModeExec).Scan(&there)
	return there, p.wrap(err)
}

func (p *postgres) Decision(ctx context.Context, gid string) (*Decision, error) {
	if there, err := p.kept(ctx); err != nil || !there {
		return nil, err
	}
	var d Decision
	err := p.conn.QueryRow(ctx, "SELECT "+decisionColumns+" WHERE gid = $1", pgx.QueryExecModeExec, gid).Scan(&d.GID, &d.Commit, &d.Participants, &d.By)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, p.wrap(err)
	}
	return &d, nil
}

func (p *postgres) Refuse(ctx context.Context, gid string) error {
	// A decision is lost with a server that has not told its replica, and so is this: it must not be less certain than what it prevents.
	err := p.exec(ctx, syncSessionSQL)
	if err == nil {
		_, err = p.conn.Exec(ctx, refuseSQL, pgx.QueryExecModeExec, gid)
		err = p.wrap(err)
	}
	return err
}

// refuseSQL notes in place of participants which transactions are open, in numbers that no clock goes into. One of them may be the one that is refused, and still
// decide: none decides before it has been begun on all shards and prepared on the others. It may have written nothing, and so have no xid.
const refuseSQL = `INSERT INTO rangefinder.decision (gid, commit, participants, by)
SELECT $1, false, ARRAY(SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND pid <> pg_catalog.pg_backend_pid()), session_user
ON CONFLICT DO NOTHING`

const syncSessionSQL = "SELECT CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local') THEN pg_catalog.set_config('synchronous_commit', 'on', false) END"

func (p *postgres) Finish(ctx context.Context, gid string, commit bool) (ended bool, err error) {
	sql := rollbackPreparedSQL(gid)
	if commit {
		sql = commitPreparedSQL(gid)
	}
	err = p.exec(ctx, sql)
	if sqlState(err) == pg.CodeInsufficientPrivilege { // only its owner may, and a superuser
		err = p.finishAsOwner(ctx, gid, sql)
	}
	if errors.Is(err, errNotPrepared) || sqlState(err) == pg.CodeUndefinedObject {
		return false, nil
	}
	return err == nil, err
}

var errNotPrepared = errors.New("nothing is prepared under that name")

func (p *postgres) finishAsOwner(ctx context.Context, gid, sql string) error {
	var owner string
	err := p.conn.QueryRow(ctx, "SELECT owner::text FROM pg_catalog.pg_prepared_xacts WHERE gid = $1", pgx.QueryExecModeExec, gid).Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotPrepared
	}
	if err != nil {
		return p.wrap(err)
	}
	role := pgx.Identifier{owner}.Sanitize()
	if err := p.exec(ctx, "SET ROLE "+role); err != nil {
		if sqlState(err) == pg.CodeInsufficientPrivilege {
			user := pgx.Identifier{p.conn.Config().User}.Sanitize()
			return pg.Errorf(pg.CodeInsufficientPrivilege, "shard %s: %s may not end what %s has prepared", p.shard, user, role).
				WithHint(fmt.Sprintf("On the primary of shard %s: GRANT %s TO %s. Or make the node's user (admin.user, else probe.user) a superuser.", p.shard, role, user))
		}
		return err
	}
	err = p.exec(ctx, sql)
	if reset := p.exec(ctx, "RESET ROLE"); err == nil {
		err = reset
	}
	return err
}

func (p *postgres) Decisions(ctx context.Context, age time.Duration, limit int) ([]Decision, error) {
	if there, err := p.kept(ctx); err != nil || !there {
		return nil, err
	}
	rows, err := p.conn.Query(ctx, "SELECT "+decisionColumns+" WHERE commit AND decided < pg_catalog.clock_timestamp() - $1::float8 * interval '1 second' ORDER BY decided LIMIT $2",
		pgx.QueryExecModeExec, age.Seconds(), limit)
	if err == nil {
		var list []Decision
		if list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Decision]); err == nil {
			return list, nil
		}
	}
	return nil, p.wrap(err)
}

func (p *postgres) Forget(ctx context.Context, gids []string) error {
	_, err := p.conn.Exec(ctx, "DELETE FROM rangefinder.decision WHERE commit AND gid = ANY($1)", pgx.QueryExecModeExec, gids)
	return p.wrap(err)
}

func (p *postgres) ForgetRefusals(ctx context.Context, age time.Duration) error {
	if there, err := p.kept(ctx); err != nil || !there {
		return err
	}
	// The age is for people, and may be wrong. xid is for rows of a release that noted no transactions: those with a number have had it before the row had its own.
	_, err := p.conn.Exec(ctx, `DELETE FROM rangefinder.decision WHERE NOT commit AND decided < pg_catalog.clock_timestamp() - $1::float8 * interval '1 second'
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND virtualtransaction = ANY (participants))
	AND xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())`, pgx.QueryExecModeExec, age.Seconds())
	return p.wrap(err)
}
