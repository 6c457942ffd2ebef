package move

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

func quote(s string) string { return rib.QuoteLiteral(s) }

// bump writes the next mark at the source.
func bump(ctx context.Context, conn querier, j *Job) (n int64, err error) {
	err = conn.QueryRow(ctx, "UPDATE rangefinder.mark SET n = n + 1 WHERE move = $1 RETURNING n", pgx.QueryExecModeExec, int64(j.Move.ID)).Scan(&n)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("%w: the move's mark is gone from shard %s", ErrBroken, j.Move.From)
	}
	return n, err
}

// applied waits until a mark has come to the target: then all that was committed before it has.
func (l *link) applied(ctx context.Context, j *Job, mark int64) error {
	checked := time.Now().Add(aliveEvery/10 - aliveEvery)
	for pause := time.Millisecond; ; pause = min(pause*2, 20*time.Millisecond) {
		var n int64
		if err := l.target.QueryRow(ctx, "SELECT n FROM rangefinder.mark WHERE move = $1", pgx.QueryExecModeExec, int64(j.Move.ID)).Scan(&n); err != nil {
			return err
		}
		if n >= mark {
			l.revived = 0
			return nil
		}
		if time.Since(checked) > aliveEvery {
			checked = time.Now()
			if err := l.alive(ctx, j); err != nil {
				return err
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("the target has not caught up: %w", err)
		}
	}
}

// aliveEvery is how often it is looked whether the replication still is, while something is waited for.
const aliveEvery = time.Second

// maxRevived is how often the subscription is begun again without anything having come of it.
const maxRevived = 5

// alive finds out whether the replication can still come to an end. PostgreSQL ends a subscription for good (disable_on_error) also when the
// source's server has only been restarted: so it is begun again, until it has ended too often in a row.
func (l *link) alive(ctx context.Context, j *Job) error {
	var enabled bool
	err := l.target.QueryRow(ctx, "SELECT subenabled FROM pg_subscription WHERE subname = $1", pgx.QueryExecModeExec, slotName(j)).Scan(&enabled)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: the subscription is gone from shard %s", ErrBroken, j.Move.To)
	case err != nil:
		return err
	case !enabled && l.revived >= maxRevived:
		return fmt.Errorf("%w: the subscription on shard %s stops at an error again and again, which the server's log tells", ErrBroken, j.Move.To)
	case !enabled:
		l.revived++
		if err := deposed(script(ctx, l.target, heldSQL(j, sideTarget), "ALTER SUBSCRIPTION "+slotName(j)+" ENABLE")); err != nil {
			return err
		}
	}
	var slots int
	err = l.source.QueryRow(ctx, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = ANY($1) AND coalesce(wal_status, '') <> 'lost'", pgx.QueryExecModeExec, []string{slotName(j), trackName(j)}).Scan(&slots)
	if err == nil && slots < 2 {
		err = fmt.Errorf("%w: a slot is gone from shard %s, or has lost its WAL (max_slot_wal_keep_size)", ErrBroken, j.Move.From)
	}
	return err
}

// followTime bounds one look at how far the target is behind: then at least the answer is that it is.
const followTime = 30 * time.Second

// Follow tells how far the target is behind, and compares what has changed since it was last called.
func (p *Postgres) Follow(ctx context.Context, j *Job) (lag Lag, err error) {
	err = p.with(ctx, j, func(l *link) error {
		if err := l.alive(ctx, j); err != nil {
			return err
		}
		t, err := p.track(ctx, l, j)
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, followTime)
		defer cancel()
		began := time.Now()
		mark, err := bump(ctx, l.source, j)
		if err != nil {
			return err
		}
		if err := l.applied(limited, j, mark); err != nil {
			if limited.Err() != nil && ctx.Err() == nil {
				lag = Lag{Time: time.Since(began)} // whoever hears of such a lag freezes nothing, so what has changed does not matter yet
				return nil
			}
			return err
		}
		lag.Time = time.Since(began)
		if lag.Open, lag.Whose, err = p.oldest(ctx, l.source, j.Move.From, usersSQL, l.names()...); err == nil {
			lag.Unverified, err = l.catchUp(ctx, limited, j, t, mark) // last: until the freeze it becomes more
		}
		return err
	})
	return lag, err
}

// usersSQL lists the locks of those who have used some tables, or partitions of them: each keeps one to its transaction's end. pg_partition_tree would wait for who has a
// partition for himself.
const usersSQL = `SELECT l.pid, l.virtualtransaction, l.mode FROM pg_locks AS l WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND l.relation IN (WITH RECURSIVE tree (oid) AS (SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.oid) SELECT oid FROM tree)`

// writersSQL lists those alone that keep a trigger from being made: readers do not.
const writersSQL = usersSQL + ` AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')`

// oldestSQL finds the client whose transaction is open for longest, of those that have such locks.
const oldestSQL = `WITH locks AS (%s) SELECT a.pid, coalesce(a.usename::text, ''), a.state LIKE 'idle%%', extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_stat_activity AS a WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
	AND NOT (a.usename = current_user AND a.application_name LIKE 'rangefinder move %%')
	AND a.pid IN (SELECT pid FROM locks) ORDER BY a.xact_start LIMIT 1`

// preparedSQL finds prepared transactions, which no process holds open, that have such locks.
const preparedSQL = `WITH locks AS (%s) SELECT p.gid, extract(epoch FROM clock_timestamp() - p.prepared)::float8 FROM pg_prepared_xacts AS p WHERE p.database = current_database()
AND EXISTS (SELECT FROM pg_locks AS x JOIN locks AS l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
	WHERE x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL)
ORDER BY p.prepared`

// settleAfter is how old a prepared transaction is before it is asked what was decided, as long as no statement waits for that: whoever has prepared it may be about to
// decide, and what nothing was decided of is rolled back.
const settleAfter = longTransaction

// oldest tells for how long the oldest of the transactions is open on a server, or prepared there, that have locks on tables, and whose it is. What was decided
// about prepared ones is done first.
func (p *Postgres) oldest(ctx context.Context, conn *pgx.Conn, shard, locks string, tables ...string) (age time.Duration, whose string, err error) {
	age, whose, err = longestOpen(ctx, conn, locks, tables)
	if err != nil {
		return 0, "", err
	}
	gids, longest, err := prepared(ctx, conn, locks, tables)
	if err == nil && longest >= settleAfter && p.cfg.Settle != nil {
		_ = p.cfg.Settle(ctx, shard, gids) // of those that are left it is told
		gids, longest, err = prepared(ctx, conn, locks, tables)
	}
	if err != nil {
		return 0, "", err
	}
	if longest > age {
		age, whose = longest, fmt.Sprintf("transaction %q has been prepared for %s and was not ended; whoever prepared it must commit it or roll it back", gids[0], longest.Round(time.Second))
	}
	return age, whose, nil
}

// prepared lists the prepared transactions that have locks on tables and are not about to be ended, and tells how old the oldest is; 0: there is none.
func prepared(ctx context.Context, conn *pgx.Conn, locks string, tables []string) (gids []string, longest time.Duration, err error) {
	rows, err := conn.Query(ctx, fmt.Sprintf(preparedSQL, locks), pgx.QueryExecModeExec, tables)
	if err != nil {
		return nil, 0, err
	}
	var gid string
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&gid, &seconds}, func() error {
		age := max(0, time.Duration(seconds*float64(time.Second)))
		if len(gids) == 0 || age >= settleAfter {
			gids, longest = append(gids, gid), max(longest, age)
		}
		return nil
	})
	return gids, longest, err
}

// names are those of the tables.
func (l *link) names() []string {
	names := make([]string, len(l.tables))
	for i := range l.tables {
		names[i] = l.tables[i].name
	}
	return names
}

// longestOpen tells for how long the oldest transaction of a client is open on a server that has locks on tables, and whose it is; 0: there is none.
func longestOpen(ctx context.Context, conn *pgx.Conn, locks string, tables []string) (age time.Duration, whose string, err error) {
	var pid int
	var user string
	var idle bool
	var seconds float64
	err = conn.QueryRow(ctx, fmt.Sprintf(oldestSQL, locks), pgx.QueryExecModeExec, tables).Scan(&pid, &user, &idle, &seconds)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	age = max(0, time.Duration(seconds*float64(time.Second)))
	whose = fmt.Sprintf("a transaction of user %s has been open for %s (process %d)", rib.QuoteIdent(user), age.Round(time.Second), pid)
	if idle {
		whose += ", and waits for its client"
	}
	return age, whose, nil
}

// catchUp compares what has changed up to a mark, and what comes in meanwhile, for as long as that becomes less and limited lasts. It tells how many rows
// are left, with those that have come in during the last comparison: all of them are to be compared while the range is frozen.
func (l *link) catchUp(ctx, limited context.Context, j *Job, t *tracker, mark int64) (left int, err error) {
	for before := math.MaxInt; ; before = left {
		err := t.reached(ctx, mark)
		full := errors.Is(err, errFull)
		if err != nil && !full {
			return 0, err
		}
		if _, err := l.compare(ctx, j, t, false); err != nil {
			return 0, err
		}
		left = t.open()
		if full {
			left += maxChanged // nobody knows how many
		}
		if !full && left <= compareAtOnce || left > before/2 || limited.Err() != nil {
			return left, nil
		}
	}
}

// How many rows are compared in one statement: few while they go on changing, for then as many are looked at again.
const (
	compareAtOnce = 500
	compareStill  = 5000
)

// compare holds the rows that have changed against each other, and tells how many were not found alike: those that have changed again
// meanwhile, or, when the source is fenced and the target has all, those that differ.
func (l *link) compare(ctx context.Context, j *Job, t *tracker, still bool) (open int, err error) {
	changed, at := t.take()
	atOnce := compareAtOnce
	if still {
		atOnce = compareStill
	}
	back := map[string][]string{}
	defer func() { open = t.give(back, at) }()
	for i := range l.tables {
		table, seen := &l.tables[i], 0
		for keys := range slices.Chunk(changed[table.name], atOnce) {
			differ, err := l.differ(ctx, j, table, t.keys[table.name], keys, still)
			if err != nil {
				// What was not looked at must not be forgotten.
				back[table.name] = append(back[table.name], changed[table.name][seen:]...)
				for _, later := range l.tables[i+1:] {
					back[later.name] = changed[later.name]
				}
				return 0, err
			}
			seen += len(keys)
			back[table.name] = append(back[table.name], differ...)
		}
	}
	return 0, nil
}

// differ compares some rows of a table and returns those that are not alike.
func (l *link) differ(ctx context.Context, j *Job, t *table, columns, keys []string, still bool) (list []string, err error) {
	sql, args := sumSQL(t, columns, keys)
	a, b := make([]string, len(keys)), make([]string, len(keys))
	read := func(conn *pgx.Conn, into []string) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err == nil {
			var at int
			var v string
			_, err = pgx.ForEachRow(rows, []any{&at, &v}, func() error {
				into[at-1] = v
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("compare table %s: %w", t.name, err)
		}
		return nil
	}
	if still {
		first := make(chan error, 1)
		go func() { first <- read(l.source, a) }()
		err = read(l.target, b)
		err = errors.Join(err, <-first)
	} else {
		if err = read(l.source, a); err == nil {
			var mark int64
			if mark, err = bump(ctx, l.source, j); err == nil { // what the source had must have come to the target
				err = l.applied(ctx, j, mark)
			}
		}
		if err == nil {
			err = read(l.target, b)
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range keys {
		if a[i] != b[i] {
			list = append(list, keys[i])
		}
	}
	return list, nil
}

// sumSQL tells of rows that are named by some of their columns, by their place in the list, how many each is and what they come to.
func sumSQL(t *table, columns, keys []string) (sql string, args []any) {
	values := make([][]string, len(columns))
	for _, key := range keys {
		for i, v := range strings.SplitN(key, "\x00", len(columns)) {
			values[i] = append(values[i], v)
		}
	}
	args = []any{pgx.QueryExecModeExec}
	var unnest, names, joins []string
	for i, c := range columns {
		args = append(args, values[i])
		unnest = append(unnest, fmt.Sprintf("$%d::text[]", i+1))
		names = append(names, fmt.Sprintf("k%d", i))
		joins = append(joins, fmt.Sprintf("t.%s = k.k%d::%s", rib.QuoteIdent(c), i, t.column(c).Type))
	}
	var all []string
	for _, c := range t.columns {
		all = append(all, "t."+rib.QuoteIdent(c.Name))
	}
	return fmt.Sprintf("SELECT k.at::int, count(t.tableoid) || '/' || coalesce(sum(hashtextextended(ROW(%s)::text, 0)::numeric) FILTER (WHERE t.tableoid IS NOT NULL), 0) "+
		"FROM unnest(%s) WITH ORDINALITY AS k(%s, at) LEFT JOIN %s AS t ON %s GROUP BY k.at",
		strings.Join(all, ", "), strings.Join(unnest, ", "), strings.Join(names, ", "), t.name, strings.Join(joins, " AND ")), args
}
