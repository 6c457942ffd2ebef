package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// PostgresConfig is what Postgres needs. Zero values are the defaults.
type PostgresConfig struct {
	// Primary connects to a shard's primary.
	Primary func(ctx context.Context, shard, database string) (*pgx.Conn, error)
	// Replicas connects to those of a shard's replicas that may be promoted and are not down. nil: to none; those that a primary streams to
	// count all the same.
	Replicas func(ctx context.Context, shard, database string) (conns []*pgx.Conn, err error)
	// TLS is how the target's server encrypts towards the source when it subscribes: sslmode as libpq has it, and the file on that server with the
	// authorities, "" for the one that libpq looks for. nil: require if the connections of Primary are encrypted, else disable.
	TLS func() (mode, rootCert string)
	// Cluster is whose terms the jobs' are. nil: there is one cluster alone.
	Cluster func() string
	// Everywhere tells whether a table is whole on every shard, as reference tables are. nil: none is.
	Everywhere func(database, schema, table string) bool
	// Settle ends prepared transactions as they were decided. nil: they are waited for.
	Settle func(ctx context.Context, shard string, gids []string) error
	Logger *slog.Logger // nil: slog.Default

	Rate     int64         // bytes of rows that a copy or a removal moves in a second; 0: 8 MiB
	Workers  int           // connections that copy; 0: 2
	Locks    time.Duration // how long statements of others may wait for a lock that a move wants on a table, and up to ten times as long if it is not to be had in minutes; 0: 50ms
	LockWait time.Duration // how long such a lock is tried for; 0: 1m
	EndAfter time.Duration // how long the fence waits for writers before it ends them; 0: 1s
	Freeze   time.Duration // how long a range may be frozen, as Config has it: from too far away it cannot change hands in that time; 0: 4s
}

func (c *PostgresConfig) defaults() {
	if c.Rate == 0 {
		c.Rate = 8 << 20
	}
	c.Workers = cmp.Or(c.Workers, 2)
	c.Locks, c.LockWait, c.EndAfter = cmp.Or(c.Locks, 50*time.Millisecond), cmp.Or(c.LockWait, time.Minute), cmp.Or(c.EndAfter, time.Second)
	c.Freeze = cmp.Or(c.Freeze, freezeTime)
	if c.Cluster == nil {
		c.Cluster = func() string { return "" }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// Postgres are shards that are PostgreSQL servers, of version 15 or later.
type Postgres struct {
	// constant
	cfg PostgresConfig

	// guarded by mu
	mu    sync.Mutex
	links map[uint64]*link
}

// link is what is kept open of one move between two calls.
type link struct {
	source, target *pgx.Conn
	tracker        *tracker // nil: not begun
	tables         []table  // nil: not looked at
	sequences      counters
	shut           *shutAt // the fence was shut over this link, and nobody has asked for that yet; nil: it was not
	revived        int     // how often the subscription has been begun again since it was last seen to work
}

var _ Servers = (*Postgres)(nil)

// NewPostgres returns the shards. It connects to nothing.
func NewPostgres(cfg PostgresConfig) *Postgres {
	cfg.defaults()
	return &Postgres{cfg: cfg, links: make(map[uint64]*link)}
}

// Close closes what is open.
func (p *Postgres) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.links {
		l.close()
		delete(p.links, id)
	}
}

func (l *link) close() {
	for _, c := range []*pgx.Conn{l.source, l.target} {
		hangUp(c)
	}
	if l.tracker != nil {
		l.tracker.close()
	}
}

func hangUp(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// drop forgets what is open of a move: after a failure, a connection may be in any state.
func (p *Postgres) drop(id uint64) {
	p.mu.Lock()
	l := p.links[id]
	delete(p.links, id)
	p.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// with calls f with connections to both primaries, which are those that the move began with. They are kept for the next call if it succeeds.
func (p *Postgres) with(ctx context.Context, j *Job, f func(l *link) error) (err error) {
	p.mu.Lock()
	l := p.links[j.Move.ID]
	p.mu.Unlock()
	if l == nil {
		if l, err = p.open(ctx, j); err != nil {
			return err
		}
		p.mu.Lock()
		p.links[j.Move.ID] = l
		p.mu.Unlock()
	}
	if err = f(l); err != nil {
		p.drop(j.Move.ID)
	}
	return err
}

func (p *Postgres) open(ctx context.Context, j *Job) (l *link, err error) {
	l = &link{}
	err = beside(func() (err error) { l.source, err = p.claimed(ctx, j, sideSource); return err }, func() (err error) { l.target, err = p.claimed(ctx, j, sideTarget); return err })
	if err == nil && j.Identity != (Identity{}) {
		err = recognize(ctx, l.source, l.target, j)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// sessionSQL has rows look alike as text wherever they are read, and keeps what the database's own settings would do to a move away.
const sessionSQL = `SET search_path = pg_catalog; SET datestyle = ISO; SET intervalstyle = postgres; SET timezone = UTC; SET extra_float_digits = 1; SET bytea_output = hex;
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '5s'; SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
SET row_security = off; SET idle_session_timeout = 0; SET client_encoding = 'UTF8'; SET synchronous_commit = on; SET client_min_messages = warning; SET xmloption = content; SET quote_all_identifiers = off;
SELECT set_config('transaction_timeout', '0', false) WHERE current_setting('transaction_timeout', true) IS NOT NULL`

// connect connects to a shard's primary for a move.
func (p *Postgres) connect(ctx context.Context, j *Job, shard string) (*pgx.Conn, error) {
	conn, err := p.cfg.Primary(ctx, shard, j.Keyspace.Database)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard, err)
	}
	results, err := conn.PgConn().Exec(ctx, sessionSQL+"; SET rangefinder.mover = '"+number(j)+"'; SET application_name = '"+applicationName(j)+"'; SELECT pg_is_in_recovery()").ReadAll()
	if err == nil {
		if row, ok := lastRow(results); !ok || string(row[0]) != "f" {
			err = errors.New("the server that answered is a replica")
		}
	}
	if err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("shard %s: %w", shard, err)
	}
	return conn, nil
}

// claimed connects to one of the move's two primaries in the name of the job's term.
func (p *Postgres) claimed(ctx context.Context, j *Job, side string) (*pgx.Conn, error) {
	conn, err := p.connect(ctx, j, shardOf(j, side))
	if err != nil {
		return nil, err
	}
	if err := p.claim(ctx, conn, j, side); err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("shard %s: %w", shardOf(j, side), err)
	}
	return conn, nil
}

func shardOf(j *Job, side string) string {
	if side == sideSource {
		return j.Move.From
	}
	return j.Move.To
}

// Names of what a move makes on the servers.

func number(j *Job) string { return strconv.FormatUint(j.Move.ID, 10) }

func applicationName(j *Job) string { return "rangefinder move " + number(j) }

func slotName(j *Job) string    { return "rangefinder_move_" + number(j) }
func trackName(j *Job) string   { return "rangefinder_track_" + number(j) }
func fenceName(j *Job) string   { return "rangefinder_fence_" + number(j) }
func fenceCall(j *Job) string   { return "rangefinder.fence_" + number(j) }
func movesCall(j *Job) string   { return "rangefinder.moves_" + number(j) }
func ddlCall(j *Job) string     { return "rangefinder.ddl_" + number(j) }
func ddlName(j *Job) string     { return "rangefinder_ddl_" + number(j) }
func dropName(j *Job) string    { return "rangefinder_drop_" + number(j) }
func truncName(j *Job) string   { return "rangefinder_truncate_" + number(j) }
func changeName(j *Job) string  { return "rangefinder_fence_change_" + number(j) }
func removeName(j *Job) string  { return "rangefinder_fence_old_" + number(j) }
func lockOf(j *Job) (key int64) { return lockKey("rangefinder move " + number(j)) }

func lockKey(s string) int64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return int64(h.Sum64())
}

// ownSQL makes the tables that moves keep what they need in. They stay, all empty but for rangefinder.leader: the newest leader of a cluster that has
// been here. An older one may not have heard that a move is over, and would begin it anew: the move's own row is gone then.
const ownSQL = rib.SchemaSQL + `
CREATE TABLE IF NOT EXISTS rangefinder.fence (
	move bigint, side text, keyspace text NOT NULL, low bytea NOT NULL, high bytea NOT NULL, from_shard text NOT NULL, to_shard text NOT NULL,
	state text NOT NULL, term bigint NOT NULL, generation bigint NOT NULL, epoch bigint NOT NULL, PRIMARY KEY (move, side)
);
CREATE TABLE IF NOT EXISTS rangefinder.mark (move bigint PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE IF NOT EXISTS rangefinder.still (move bigint, relation oid, PRIMARY KEY (move, relation));
CREATE TABLE IF NOT EXISTS rangefinder.leader (cluster text PRIMARY KEY, term bigint NOT NULL)`

// The two rows of a move, one on each server.
const (
	sideSource = "source"
	sideTarget = "target"
)

// States of a move's row.
const (
	stateEmpty  = "empty"  // target: nothing has been copied to it
	stateOpen   = "open"   // source: writes are let through; target: they are refused, for it holds copies
	stateFrozen = "frozen" // source: they are refused
	stateMoved  = "moved"  // source: the same, and another shard has the range
	stateFilled = "filled" // target: it has all, and writes are let through
)

// stateSQL changes the state of a move's row.
func stateSQL(j *Job, side, state string) string {
	return fmt.Sprintf("UPDATE rangefinder.fence SET state = '%s' WHERE move = %s AND side = '%s'", state, number(j), side)
}

// leadSQL notes the newest leader, unless there has been a newer one.
const leadSQL = `INSERT INTO rangefinder.leader AS l VALUES ($1, $2::bigint) ON CONFLICT (cluster) DO UPDATE SET term = EXCLUDED.term WHERE l.term <= EXCLUDED.term`

// claimSQL takes the term on a server, so that older leaders, which may not know of it yet, begin nothing there any more; and of the move, where that has been
// before. It tells whether there has been no newer leader, and whether the move's row is ours.
const claimSQL = `WITH lead AS (` + leadSQL + ` RETURNING 1), row AS (UPDATE rangefinder.fence SET term = $2::bigint WHERE move = $3::bigint AND side = $4 AND term <= $2::bigint AND EXISTS (SELECT FROM lead) RETURNING 1)
SELECT EXISTS (SELECT FROM lead), EXISTS (SELECT FROM row)`

// claim does that, and makes the tables that it needs.
func (p *Postgres) claim(ctx context.Context, conn *pgx.Conn, j *Job, side string) error {
	var leads, ours, there bool
	err := ask(ctx, conn, question{sql: "DO $claim$ BEGIN IF to_regclass('rangefinder.leader') IS NULL THEN EXECUTE $own$" + ownSQL + "$own$; END IF; END $claim$"},
		question{sql: claimSQL, args: p.claimArgs(j, side), answer: one(&leads, &ours)},
		question{sql: presentSQL, args: []string{number(j), side}, answer: one(&there)})
	if err == nil && (!leads || there && !ours) {
		err = ErrDeposed
	}
	return err
}

// claimArgs are the arguments of claimSQL.
func (p *Postgres) claimArgs(j *Job, side string) []string {
	return []string{p.cfg.Cluster(), strconv.FormatUint(j.Term, 10), number(j), side}
}

// presentSQL tells whether a server that has been claimed has the move's row.
const presentSQL = "SELECT EXISTS (SELECT FROM rangefinder.fence WHERE move = $1::bigint AND side = $2)"

// present tells whether a server has the move's row.
func present(ctx context.Context, conn *pgx.Conn, j *Job, side string) (there bool, err error) {
	err = conn.QueryRow(ctx, "SELECT to_regclass('rangefinder.fence') IS NOT NULL", pgx.QueryExecModeExec).Scan(&there)
	if err == nil && there {
		err = conn.QueryRow(ctx, presentSQL, pgx.QueryExecModeExec, int64(j.Move.ID), side).Scan(&there)
	}
	return there, err
}

// holdsCopies tells whether what the target has of the range was copied by the move, as far as anybody knows.
func holdsCopies(ctx context.Context, conn *pgx.Conn, j *Job) (copies bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM rangefinder.fence WHERE move = $1 AND side = $2 AND state <> $3)", pgx.QueryExecModeExec, int64(j.Move.ID), sideTarget, stateEmpty).Scan(&copies)
	return copies, err
}

func (l *link) on(side string) *pgx.Conn {
	if side == sideSource {
		return l.source
	}
	return l.target
}

// held is a condition in a move's transaction: it holds the row against a newer leader until the transaction ends.
func held(ctx context.Context, conn querier, j *Job, side string) error {
	var one int
	err := conn.QueryRow(ctx, "SELECT 1 FROM rangefinder.fence WHERE move = $1 AND side = $2 AND term = $3 FOR SHARE", pgx.QueryExecModeExec,
		int64(j.Move.ID), side, int64(j.Term)).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrDeposed
	}
	return err
}

// heldSQL is held as a statement of a script: the script's transaction fails with codeDeposed.
func heldSQL(j *Job, side string) string {
	return fmt.Sprintf(`DO $held$ BEGIN
	PERFORM FROM rangefinder.fence WHERE move = %s AND side = '%s' AND term = %d FOR SHARE;
	IF NOT FOUND THEN RAISE EXCEPTION 'another leader carries out the move' USING ERRCODE = '%s'; END IF;
END $held$`, number(j), side, j.Term, codeDeposed)
}

// deposed is an error of a script with heldSQL.
func deposed(err error) error {
	if sqlState(err) == codeDeposed {
		return ErrDeposed
	}
	return err
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// identify asks who the two servers are.
func identify(ctx context.Context, source, target *pgx.Conn) (Identity, error) {
	return both(func() (Server, error) { return serverOf(ctx, source) }, func() (Server, error) { return serverOf(ctx, target) })
}

// both asks two servers at the same time.
func both(source, target func() (Server, error)) (id Identity, err error) {
	err = beside(func() (err error) { id.Source, err = source(); return err }, func() (err error) { id.Target, err = target(); return err })
	return id, err
}

// serverOf asks a primary which server it is.
func serverOf(ctx context.Context, conn *pgx.Conn) (s Server, err error) {
	var replica bool
	var system string
	// The checkpoint's timeline may be the one before a promotion: the current file's is not.
	err = conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), system_identifier::text, CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
FROM pg_control_system()`, pgx.QueryExecModeExec).Scan(&replica, &system, &s.Timeline)
	switch {
	case err != nil:
		return s, err
	case replica:
		return s, errors.New("the server that answered is a replica")
	}
	s.SystemID, err = strconv.ParseUint(system, 10, 64)
	return s, err
}

// recognize refuses servers that are not those with which the move began.
func recognize(ctx context.Context, source, target *pgx.Conn, j *Job) error {
	if !j.Move.Phase.Ahead() {
		return nil // what is to be removed is removed wherever it is
	}
	now, err := identify(ctx, source, target)
	if err != nil {
		return err
	}
	return same(now, j)
}

// same refuses other servers than those with which the move began.
func same(now Identity, j *Job) error {
	switch {
	case now.Source != j.Identity.Source:
		return fmt.Errorf("shard %s: %w since the move began", j.Move.From, ErrPromoted)
	case now.Target != j.Identity.Target:
		return fmt.Errorf("shard %s: %w since the move began", j.Move.To, ErrPromoted)
	}
	return nil
}

// predicate is the condition that holds for the rows that move, on expressions for the columns of a table's key.
func predicate(j *Job, columns []string) (string, error) {
	method, err := rib.MethodByName(j.Keyspace.Method)
	if err != nil {
		return "", err
	}
	return method.Predicate(columns, j.Keyspace.Types, j.Move.Low, j.Move.High), nil
}

// keyOf are the columns of a table's key behind a prefix such as "NEW.".
func keyOf(t *rib.KeyedTable, prefix string) []string {
	columns := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = prefix + rib.QuoteIdent(c)
	}
	return columns
}

// script runs statements one after another in one transaction, unless they say otherwise.
func script(ctx context.Context, conn *pgx.Conn, sql ...string) error {
	_, err := conn.PgConn().Exec(ctx, strings.Join(sql, ";\n")).ReadAll()
	return err
}

// lastRow is the one row of the last statement of a script.
func lastRow(results []*pgconn.Result) (row [][]byte, ok bool) {
	if len(results) == 0 || len(results[len(results)-1].Rows) != 1 {
		return nil, false
	}
	return results[len(results)-1].Rows[0], true
}

// sqlState is the code of a server's error; "": it is none.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// lost tells whether an error is of a connection that has ended or is not to be had, so that another one may do better: a server was restarted.
func lost(err error) bool {
	code := sqlState(err)
	return code == "" || strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P")
}

const (
	codeLockNotAvailable  = "55P03"
	codeDeadlock          = "40P01"
	codeUndefinedObject   = "42704"
	codeObjectInUse       = "55006"
	codeUndefinedTable    = "42P01"
	codeCanceled          = "57014"
	codeUndefinedFunction = "42883"
	codeDeposed           = "RF900" // of heldSQL alone: nobody else sees it
)

// lockOn is a lock on a table and its partitions that is wanted.
type lockOn struct {
	conn   *pgx.Conn
	shard  string
	table  string
	others string // the locks of others that are in its way: writersSQL or usersSQL
}

// locked runs statements that want a lock. Others wait for it no longer than a try lasts, so it may take many. After LockWait it gives up.
func (p *Postgres) locked(ctx context.Context, on lockOn, sql ...string) error {
	until := time.Now().Add(p.cfg.LockWait)
	return p.patiently(ctx, on, func(err error) error {
		if time.Now().Before(until) {
			return nil
		}
		if _, whose, again := p.oldest(ctx, on.conn, on.shard, on.others, on.table); again == nil && whose != "" {
			err = fmt.Errorf("%s: %w", whose, err)
		}
		return fmt.Errorf("a lock on table %s was not to be had in %s: %w", on.table, p.cfg.LockWait, err)
	}, sql...)
}

// patiently does that until vain returns an error, which is called before each pause, with the error of the last try. The pauses grow.
func (p *Postgres) patiently(ctx context.Context, on lockOn, vain func(error) error, sql ...string) error {
	conn := on.conn
	var err error
	began, tried := time.Now(), time.Time{}
	var oldest float64 // seconds
	for wait, try := p.cfg.Locks, p.cfg.Locks; ; wait = min(2*wait, pausePerTry*try) {
		if worthTrying(time.Since(tried), time.Duration(oldest*float64(time.Second))) {
			tried, try = time.Now(), tryFor(p.cfg.Locks, time.Since(began))
			err = script(ctx, conn, append([]string{fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = '%dms'", try.Milliseconds())}, append(sql, "COMMIT")...)...)
			if err == nil {
				return nil
			}
			if conn.PgConn().TxStatus() != 'I' {
				if again := script(ctx, conn, "ROLLBACK"); again != nil {
					return errors.Join(err, again)
				}
			}
			if code := sqlState(err); code != codeLockNotAvailable && code != codeDeadlock {
				return err
			}
		}
		if err := vain(err); err != nil {
			return err
		}
		if err := sleep(ctx, wait/2+rand.N(wait)); err != nil { // not in step with anybody's transactions
			return err
		}
		if err := conn.QueryRow(ctx, fmt.Sprintf(inTheWaySQL, on.others), pgx.QueryExecModeExec, []string{on.table}).Scan(&oldest); sqlState(err) != "" { // it lacks the right to end an autovacuum
			p.cfg.Logger.Warn("an autovacuum may hold up a move", "shard", on.shard, "table", on.table, "error", err)
			oldest = 0
		} else if err != nil {
			return err
		}
	}
}

// betweenTries is the shortest time between two tries for a lock that an old transaction has.
const betweenTries = 500 * time.Millisecond

const (
	pausePerTry = 20               // so many times as long as a try is the longest pause behind it
	longerAfter = 10 * time.Second // as often as that a try becomes longer by what the first one took,
	longestTry  = 10               // up to so many times that
)

// tryFor is how long a try for a lock lasts that has been wanted for so long. Of several that have it at the same time one is always left within a short one.
func tryFor(locks, waited time.Duration) time.Duration {
	return locks * min(1+waited/longerAfter, longestTry)
}

// worthTrying tells whether to try for a lock so long after the last try, while the oldest transaction that has it is so old; 0: none has had it for long. A try that
// comes to nothing has others wait for as long, and one comes to something only if all that have the lock end within that: the older they are the less likely it is, and
// the fewer tries are made. But some are: a client that begins its next transaction at the end of each leaves no other moment.
func worthTrying(since, oldest time.Duration) bool {
	return oldest == 0 || since >= max(betweenTries, oldest/10)
}

// inTheWaySQL tells for how many seconds the oldest transaction is open, or prepared, of those that have a lock on a table; 0: none is for more than a second. It ends
// autovacuums, if nobody else has one for long, as PostgreSQL does by itself for whoever has waited a second for a lock; but not one that cannot be put off, nor one of which
// that is not known.
const inTheWaySQL = `WITH locks AS (%s), vacuums AS (SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE 'autovacuum: %%' AND query NOT LIKE '%%to prevent wraparound%%'),
open AS (SELECT l.pid, CASE WHEN l.pid IS NOT NULL THEN a.xact_start ELSE (SELECT min(p.prepared) FROM pg_locks AS x JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
	WHERE x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction) END AS since FROM locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)),
long AS MATERIALIZED (SELECT pid, since FROM open WHERE since < clock_timestamp() - interval '1 second'),
others AS (SELECT FROM long WHERE pid IS NULL OR pid NOT IN (SELECT pid FROM vacuums)),
ended AS MATERIALIZED (SELECT pg_cancel_backend(pid) AS so FROM vacuums WHERE pid IN (SELECT pid FROM locks) AND NOT EXISTS (SELECT FROM others))
SELECT CASE WHEN (SELECT bool_and(so) FROM ended) THEN 0 ELSE coalesce((SELECT extract(epoch FROM clock_timestamp() - min(since)) FROM long), 0) END::float8`
