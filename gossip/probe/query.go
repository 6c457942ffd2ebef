package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// query asks all in one round trip. Columns: in recovery, timeline, lag in milliseconds (NULL: unknown), system
// identifier, lag in bytes (NULL: unknown), connections in use in percent, position, where recovery ended (NULL: unknown), whether
// commits wait for replicas, what is on its disk (NULL: it is a replica), whether its receiver's timeline is hidden from this user (NULL:
// no receiver). Qualified, so that no search_path of the probe's user matters.
//
// The timeline of a primary is that of the file it writes now: pg_control_checkpoint lags behind a promotion until the
// next checkpoint. A replica's is its receiver's, which only who has the rights of pg_read_all_stats is told. Without it, and without a
// receiver, it is what its control file says: of its last restartpoint, minutes old, or of the last page that it has written out since.
//
// A replica is at the head if it has replayed all that it has received, as long as a receiver runs; without one that
// proves nothing, and the age of the last replayed commit is the only (pessimistic) answer. A receiver to which nothing comes any more
// runs on until wal_receiver_timeout: what the primary says it has tells more, if this node looks at it too, see rib.Positions. Received may be less than
// replayed: a receiver begins at the start of a segment, of which a replica that was restarted has more on its own disk.
//
// In bytes a replica is behind what its primary last said that it has (latest_end_lsn, for who may see it), or behind what it has
// received. Without a receiver nobody can tell.
//
// The position of a primary is where it inserts, not what it has flushed: with synchronous_commit = off a commit is acknowledged
// before it is flushed. A replica's receiver only follows a timeline that holds what it has replayed, so its timeline is good for
// the position too; without a receiver the timeline may be an older one, and is never a newer one.
//
// Commits wait for a replica if synchronous_standby_names is set, and synchronous_commit says so; not if that says otherwise for some role
// or database, whatever that is: which settings a client's session begins with is not known.
//
// Where recovery ended is, after a promotion, where the new timeline began. After a crash it is something else: see forks.
const query = `SELECT r,
 CASE WHEN r THEN greatest(
   (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
   (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
   (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))
 ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
 CASE WHEN NOT r THEN 0
 WHEN pg_catalog.pg_last_wal_receive_lsn() <= pg_catalog.pg_last_wal_replay_lsn()
   AND EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver) THEN 0
 ELSE (extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::bigint END,
 (SELECT system_identifier FROM pg_catalog.pg_control_system()),
 CASE WHEN NOT r THEN 0
 ELSE (SELECT greatest(0, pg_catalog.pg_wal_lsn_diff(greatest(latest_end_lsn, pg_catalog.pg_last_wal_receive_lsn()), pg_catalog.pg_last_wal_replay_lsn()))::bigint
   FROM pg_catalog.pg_stat_wal_receiver) END,
 (SELECT coalesce(100 * pg_catalog.sum(numbackends) / greatest(1, pg_catalog.current_setting('max_connections')::int
   - pg_catalog.current_setting('superuser_reserved_connections')::int), 0)::int FROM pg_catalog.pg_stat_database),
 CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
 CASE WHEN NOT r THEN pg_catalog.pg_last_wal_replay_lsn() END,
 CASE WHEN r OR pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.=) '' THEN false
 ELSE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) ALL ('{off,local}')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS d, pg_catalog.unnest(d.setconfig) AS c
     WHERE pg_catalog.starts_with(c, 'synchronous_commit=') AND pg_catalog.lower(c) OPERATOR(pg_catalog.<>)
       ALL ('{synchronous_commit=on,synchronous_commit=remote_write,synchronous_commit=remote_apply,synchronous_commit=true,synchronous_commit=yes,synchronous_commit=1}')) END,
 CASE WHEN NOT r THEN pg_catalog.pg_current_wal_flush_lsn() END,
 (SELECT received_tli IS NULL FROM pg_catalog.pg_stat_wal_receiver)
 FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS s`

// answer is what a server says of itself.
type answer struct {
	role     rib.Role
	timeline uint32
	lag      time.Duration
	systemID uint64
	lagBytes int64
	used     int    // percent of its connections
	lsn      uint64 // 0: unknown
	ended    uint64 // of a primary: where its recovery ended; 0: unknown
	flushed  uint64 // of a primary: what its disk has; 0: unknown
	sync     bool   // of a primary: every commit waits for a replica, unless its session says otherwise
	hidden   bool   // of a replica: the probe's user is not told which timeline it receives
}

const columns = 11 // of query

const maxAnswer = 64 << 10 // bytes of one message of a server

// connConfig is for one connection. Nothing comes from the environment that is not overridden here.
func (p *Prober) connConfig(t Target, s *Settings) (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return nil, fmt.Errorf("probe: backend %s: address: %w", t.Name, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("probe: backend %s: address %q: want host:port", t.Name, t.Addr)
	}
	c, err := pgconn.ParseConfig("host=127.0.0.1 user=x sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	c.Host, c.Port = host, uint16(n)
	c.User, c.Password, c.Database = s.User, s.Password, s.Database
	c.TLSConfig, c.Fallbacks = nil, nil // see ask
	// A hot standby takes nothing that is serializable, which may be its own default.
	c.RuntimeParams = map[string]string{"application_name": "rangefinder_probe", "default_transaction_isolation": "read committed"}
	c.ConnectTimeout = connectSteps * s.Timeout // see patience
	c.MaxProtocolMessageBodyLen = maxAnswer
	if p.cfg.Plain != nil && !p.cfg.Plain(t.Addr) {
		c.RequireAuth = NoPlain
	}
	c.DialFunc = p.dial
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // the dialer does it
	return c, nil
}

// ask connects if need be and runs the query, each for as long as p lets it; took is the query's time alone, and asked when it was sent.
func (w *worker) ask(ctx context.Context, p *patience) (a answer, took time.Duration, asked time.Time, err error) {
	defer func() {
		if r := recover(); r != nil { // the server's bytes are a stranger's
			err = fmt.Errorf("probe: answer: %v", r)
		}
		if err != nil {
			w.hangUp()
		}
	}()
	if w.conn == nil || w.conn.IsClosed() {
		w.hangUp()
		config, err := w.prober.connConfig(w.target, w.prober.settings.Load())
		if err != nil {
			return a, 0, asked, err
		}
		if w.prober.cfg.TLS != nil {
			config.TLSConfig = w.prober.cfg.TLS(w.target.Addr)
		}
		var dialed *listened
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := w.prober.dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			p.again()
			dialed = &listened{Conn: conn, p: p}
			return dialed, nil
		}
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return a, 0, asked, Refusal(err)
		}
		dialed.established.Store(true)
		p.again()
		w.conn = conn
	}
	asked = time.Now()
	row, err := oneRow(ctx, w.conn, query, columns)
	took = time.Since(asked)
	if err != nil {
		return a, took, asked, err
	}
	a, err = parse(row)
	return a, took, asked, err
}

// oneRow runs a query that is answered with one row. A server that says more is not listened to any further; after an error the
// connection has to be closed.
func oneRow(ctx context.Context, conn *pgconn.PgConn, sql string, columns int) (row [][]byte, err error) {
	strange := fmt.Errorf("probe: the answer is not one row of %d columns", columns)
	results := conn.Exec(ctx, sql)
	for n := 0; results.NextResult(); n++ {
		if n > 0 {
			return nil, strange
		}
		for reader := results.ResultReader(); reader.NextRow(); {
			if row != nil || len(reader.Values()) != columns {
				return nil, strange
			}
			row = make([][]byte, columns)
			for i, v := range reader.Values() {
				row[i] = bytes.Clone(v) // nil stays nil
			}
		}
	}
	if err := results.Close(); err != nil {
		return nil, err
	}
	if row == nil {
		return nil, strange
	}
	return row, nil
}

func parse(row [][]byte) (a answer, err error) {
	switch string(row[0]) {
	case "t":
		a.role = rib.Replica
	case "f":
		a.role = rib.Primary
	default:
		return a, fmt.Errorf("probe: pg_is_in_recovery() = %q", row[0])
	}
	if row[1] != nil {
		tli, err := strconv.ParseInt(string(row[1]), 10, 32)
		if err != nil || tli < 0 {
			return a, fmt.Errorf("probe: timeline = %q", row[1])
		}
		a.timeline = uint32(tli)
	}
	a.lag = rib.LagUnknown
	if row[2] != nil {
		ms, err := strconv.ParseInt(string(row[2]), 10, 64)
		if err != nil {
			return a, fmt.Errorf("probe: lag = %q", row[2])
		}
		const longest = int64(1 << 40) // 35 years
		a.lag = time.Duration(min(max(ms, 0), longest)) * time.Millisecond
	}
	id, err := strconv.ParseInt(string(row[3]), 10, 64)
	if err != nil {
		return a, fmt.Errorf("probe: system identifier = %q", row[3])
	}
	a.systemID = uint64(id)
	a.lagBytes = rib.LagBytesUnknown
	if row[4] != nil {
		if a.lagBytes, err = strconv.ParseInt(string(row[4]), 10, 64); err != nil || a.lagBytes < 0 {
			return a, fmt.Errorf("probe: lag in bytes = %q", row[4])
		}
	}
	if a.used, err = strconv.Atoi(string(row[5])); err != nil || a.used < 0 {
		return a, fmt.Errorf("probe: connections in use = %q", row[5])
	}
	if row[6] != nil {
		if a.lsn, err = rib.ParseLSN(string(row[6])); err != nil {
			return a, fmt.Errorf("probe: position = %q", row[6])
		}
	}
	if row[7] != nil {
		if a.ended, err = rib.ParseLSN(string(row[7])); err != nil {
			return a, fmt.Errorf("probe: end of recovery = %q", row[7])
		}
	}
	a.sync = string(row[8]) == "t"
	if row[9] != nil {
		if a.flushed, err = rib.ParseLSN(string(row[9])); err != nil {
			return a, fmt.Errorf("probe: position on disk = %q", row[9])
		}
	}
	a.hidden = string(row[10]) == "t"
	return a, nil
}

// explain is an error for the log: without the connection string's parts that pgconn adds, and with the SQLSTATE.
func explain(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	if errors.Is(err, ErrPlain) {
		return ErrPlain.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Error()
	}
	return err.Error()
}
