package move

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

// checker collects what stands against a move. The servers may be far away: each is asked everything in one round trip, and both at the same time.
type checker struct {
	p *Postgres
	j *Job
	l *link

	// each owned by whoever asks that server, until both have answered
	source, target side
}

// side is what was found on one of the two servers.
type side struct {
	name    string // sideSource or sideTarget
	shard   string
	all     []Obstacle
	rights  []Obstacle // what its user may not do
	publish []Obstacle // the same, of what fails too for what is told of tables
	tables  []seen     // by their place in the keyspace
	gids    []string   // prepared there, for too long
	others  []string   // the same in other databases of its server, as people read it
	hurry   bool       // somebody waits for the answer: rows are not looked for as long as that takes
}

func (s *side) add(table, format string, args ...any) {
	s.all = append(s.all, Obstacle{Shard: s.shard, Table: table, Problem: fmt.Sprintf(format, args...)})
}

func newChecker(p *Postgres, j *Job, l *link) *checker {
	n := len(j.Keyspace.Tables)
	return &checker{p: p, j: j, l: l, source: side{name: sideSource, shard: j.Move.From, tables: make([]seen, n)}, target: side{name: sideTarget, shard: j.Move.To, tables: make([]seen, n)}}
}

// Check looks for all that stands against the move, and changes nothing.
func (p *Postgres) Check(ctx context.Context, j *Job) ([]Obstacle, error) {
	c := newChecker(p, j, &link{})
	defer c.l.close()
	if len(j.Keyspace.Tables) == 0 || j.Keyspace.Reference() || j.Keyspace.BySchema() {
		c.source.add("", "keyspace %s is of method %s, whose ranges cannot be moved: only those of hash, range and list can", j.Keyspace.Name, j.Keyspace.Method)
		return c.source.all, nil
	}
	c.target.hurry = j.Move.ID == 0 // the mover will look again
	reach := func(s *side, conn **pgx.Conn) func() error {
		return func() (err error) {
			if *conn, err = p.connect(ctx, j, s.shard); err != nil {
				s.add("", "its primary cannot be asked: %v", err)
				return nil
			}
			return p.near(ctx, *conn, s)
		}
	}
	if err := beside(reach(&c.source, &c.l.source), reach(&c.target, &c.l.target)); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	if c.l.source == nil || c.l.target == nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return append(c.source.all, c.target.all...), nil
	}
	err := c.ask(ctx, func(s *side) ([]question, error) {
		list, err := c.tables(s)
		if err != nil {
			return nil, err
		}
		rights, err := c.rights(s)
		return append(append(settings(s), list...), rights...), err
	})
	if err == nil {
		err = c.unended(ctx)
	}
	if err == nil {
		err = c.untaken(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	differ, err := c.compare()
	if err != nil {
		return nil, err
	}
	all := append(append(c.source.all, c.target.all...), differ...)
	if len(all) == 0 {
		all = append(all, c.source.publish...)
	}
	return append(append(all, c.source.rights...), c.target.rights...), nil
}

// nearTries is how often a round trip that takes too long is tried again: it may have been a busy moment.
const nearTries = 5

// near tells of a server that is so far away that no freeze would be long enough.
func (p *Postgres) near(ctx context.Context, conn *pgx.Conn, s *side) error {
	most := (p.cfg.Freeze / frozenTrips).Truncate(time.Millisecond)
	var took time.Duration
	for i := range nearTries {
		began := time.Now()
		if err := ask(ctx, conn, question{sql: "SELECT"}); err != nil {
			return fmt.Errorf("shard %s: %w", s.shard, err)
		}
		if now := time.Since(began); i == 0 || now < took {
			took = now
		}
		if took <= most {
			return nil
		}
	}
	s.add("", "a round trip from here to its primary takes %s, and a range changes hands in %s only if it takes %s at most: have a node lead that is nearer", took.Round(time.Millisecond), p.cfg.Freeze, most)
	return nil
}

// publishable looks at the source's tables again, now that nobody can begin to change them any more: since the check somebody may have. With a publication on a table
// that lacks what that needs, the source would refuse its clients' updates.
func (p *Postgres) publishable(ctx context.Context, l *link, j *Job) error {
	c := newChecker(p, j, l)
	if err := c.askOne(ctx, &c.source, c.tables); err != nil {
		return err
	}
	if len(c.source.all) > 0 {
		return &ObstacleError{c.source.all}
	}
	return nil
}

// unchanged looks at the tables of both once more, when whoever was at one has ended: for the source that is so when a slot has been made. What lies at the target now is
// nobody's copy.
func (p *Postgres) unchanged(ctx context.Context, l *link, j *Job) error {
	c := newChecker(p, j, l)
	if err := c.ask(ctx, c.tables); err != nil {
		return err
	}
	differ, err := c.compare()
	if err != nil {
		return err
	}
	if all := append(append(c.source.all, c.target.all...), differ...); len(all) > 0 {
		return &ObstacleError{all}
	}
	return nil
}

// ask asks both servers at the same time.
func (c *checker) ask(ctx context.Context, questions func(*side) ([]question, error)) error {
	return beside(func() error { return c.askOne(ctx, &c.source, questions) }, func() error { return c.askOne(ctx, &c.target, questions) })
}

// askOne asks one of them.
func (c *checker) askOne(ctx context.Context, s *side, questions func(*side) ([]question, error)) error {
	list, err := questions(s)
	if err == nil {
		err = ask(ctx, c.l.on(s.name), list...)
	}
	if err != nil {
		return fmt.Errorf("shard %s: %w", s.shard, err)
	}
	return nil
}

// settings asks for the settings of a server, and for what the copy would wait for.
func settings(s *side) []question {
	if s.name == sideTarget {
		return []question{targetSettings(s)}
	}
	return []question{sourceSettings(s), longOpen(s), preparedFor(s)}
}

func sourceSettings(s *side) question {
	var level string
	var slots, senders, version int
	return question{sql: `SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int,
current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)::int, current_setting('server_version_num')::int`, answer: each([]any{&level, &slots, &senders, &version}, func() error {
		if level != "logical" {
			s.add("", "wal_level is %s: set it to logical in postgresql.conf and restart the server", level)
		}
		if slots < 2 {
			s.add("", "%d replication slots are free, and a move takes 2: raise max_replication_slots, which wants a restart", max(slots, 0))
		}
		if senders < 2 {
			s.add("", "%d WAL senders are free, and a move takes 2: raise max_wal_senders, which wants a restart", max(senders, 0))
		}
		oldServer(s, version)
		return nil
	})}
}

func oldServer(s *side, version int) {
	if version < 150000 {
		s.add("", "it runs PostgreSQL %d, and row filters need version 15", version/10000)
	}
}

func targetSettings(s *side) question {
	var workers, processes, origins, version int
	return question{sql: `SELECT current_setting('max_logical_replication_workers')::int - (SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL)::int,
current_setting('max_worker_processes')::int - (SELECT count(*) FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer', 'checkpointer', 'walwriter',
'walsender', 'walreceiver', 'startup', 'archiver'))::int, current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_origin)::int, current_setting('server_version_num')::int`,
		answer: each([]any{&workers, &processes, &origins, &version}, func() error {
			if workers < 1 {
				s.add("", "no logical replication worker is free: raise max_logical_replication_workers, which wants a restart")
			}
			if processes < 1 {
				s.add("", "no background worker is free: raise max_worker_processes, which wants a restart")
			}
			if origins < 1 {
				s.add("", "no replication origin is free: raise max_replication_slots, which wants a restart")
			}
			oldServer(s, version)
			return nil
		})}
}

// longTransaction is how old a transaction may be when a move begins. The copy can only begin when all that were there before it are over.
const longTransaction = 10 * time.Second

// longOpen asks who has been writing for long.
func longOpen(s *side) question {
	var pid int
	var user string
	var age float64
	return question{sql: `SELECT pid, coalesce(usename::text, ''), coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - $1::float8 * interval '1 second' AND backend_xid IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()`,
		args: []string{fmt.Sprint(longTransaction.Seconds())}, answer: each([]any{&pid, &user, &age}, func() error {
			s.add("", "a transaction of user %s that writes is open for %s (process %d): the copy can begin only when it is over. Wait for it, or end it", user, time.Duration(age*float64(time.Second)).Round(time.Second), pid)
			return nil
		})}
}

// preparedFor asks what has been prepared for long. A slot waits for what other databases of the server have prepared too.
func preparedFor(s *side) question {
	var gid, database string
	var here bool
	return question{sql: "SELECT gid, database::text, database = current_database() FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - $1::float8 * interval '1 second' ORDER BY prepared",
		args: []string{fmt.Sprint(longTransaction.Seconds())}, answer: func(rows pgx.Rows) error {
			s.gids, s.others = nil, nil
			_, err := pgx.ForEachRow(rows, []any{&gid, &database, &here}, func() error {
				if here {
					s.gids = append(s.gids, gid)
				} else {
					s.others = append(s.others, fmt.Sprintf("in database %s, and was not ended: %q", rib.QuoteIdent(database), gid))
				}
				return nil
			})
			return err
		}}
}

// unended has what is prepared at the source ended, as it was decided, and tells of the rest.
func (c *checker) unended(ctx context.Context) error {
	s := &c.source
	if len(s.gids) > 0 && c.p.cfg.Settle != nil {
		_ = c.p.cfg.Settle(ctx, s.shard, s.gids) // of those that are left it is told
		if err := ask(ctx, c.l.source, preparedFor(s)); err != nil {
			return fmt.Errorf("shard %s: %w", s.shard, err)
		}
	}
	for _, gid := range s.gids {
		s.add("", "a transaction is prepared there and was not ended: %q. Whoever prepared it must commit it or roll it back", gid)
	}
	for _, other := range s.others {
		s.add("", "a transaction is prepared there, %s. The copy can begin only when it is over: whoever prepared it must commit it or roll it back, in that database", other)
	}
	return nil
}

// rights tries what the move will do, in transactions that are rolled back. It also finds out whether the target can reach the source.
func (c *checker) rights(s *side) (list []question, err error) {
	user := c.l.on(s.name).Config().User
	try := func(into *[]Obstacle, what, hint string, sql ...string) {
		told := false
		failed := func(refused *pgconn.PgError) error {
			if !told { // the other errors are of the same transaction
				*into = append(*into, Obstacle{Shard: s.shard, Problem: fmt.Sprintf("user %s cannot %s: %v. %s", rib.QuoteIdent(user), what, refused, hint)})
			}
			told = true
			return nil
		}
		for _, one := range append(append([]string{"BEGIN", "SET LOCAL lock_timeout = '2s'", "SET LOCAL statement_timeout = '20s'"}, sql...), "ROLLBACK") {
			list = append(list, question{sql: one, failed: failed})
		}
	}
	const super = "The node's user (admin.user, else probe.user) needs the rights of a superuser there"
	own := strings.Split(ownSQL, ";\n")
	if s.name == sideTarget {
		try(&s.rights, "keep triggers from firing for rows that are copied", super, append(own, "SET LOCAL session_replication_role = replica")...)
		try(&s.rights, "subscribe to "+c.j.Move.From, "The target's server must reach the source's, as this node does and encrypted alike (backend_tls.mode, moves.ca_file), and "+super,
			fmt.Sprintf("CREATE SUBSCRIPTION rangefinder_try CONNECTION %s PUBLICATION rangefinder_try WITH (create_slot = false, enabled = false, copy_data = false, slot_name = 'rangefinder_try')",
				rib.QuoteLiteral(c.p.conninfo(c.l.source))))
		return list, nil
	}
	filters := make([]string, 0, len(c.j.Keyspace.Tables))
	for i := range c.j.Keyspace.Tables {
		t := &c.j.Keyspace.Tables[i]
		where, err := predicate(c.j, keyOf(t, ""))
		if err != nil {
			return nil, err
		}
		filters = append(filters, fmt.Sprintf("TABLE %s WHERE %s", t.SQL(), where))
	}
	try(&s.publish, "publish the tables", super, "CREATE PUBLICATION rangefinder_try FOR "+strings.Join(filters, ", ")+" WITH (publish_via_partition_root = true)")
	try(&s.rights, "fence writes", super, append(own, `CREATE FUNCTION rangefinder.try() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		"CREATE EVENT TRIGGER rangefinder_try ON sql_drop EXECUTE FUNCTION rangefinder.try()")...)
	var replicates bool
	return append(list, question{sql: "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user", answer: each([]any{&replicates}, func() error {
		if !replicates {
			s.rights = append(s.rights, Obstacle{Shard: s.shard, Problem: fmt.Sprintf("user %s may not replicate: ALTER ROLE ... REPLICATION", rib.QuoteIdent(user))})
		}
		return nil
	})}), nil
}
