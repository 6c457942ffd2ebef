package move

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestObstacles has everything wrong at once: all of it is named, and nothing is touched.
func TestObstacles(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	low, high := r.quarter()
	source, target := r.at("shard_1").primary, r.at("shard_2").primary
	for _, err := range []error{
		source.Exec(t.Context(), "CREATE TABLE wrong (id int PRIMARY KEY, customer_id bigint)", "CREATE TABLE fast (customer_id bigint PRIMARY KEY)", "ALTER TABLE fast SET UNLOGGED",
			"CREATE TABLE notes (customer_id bigint REFERENCES nothing)", "CREATE TABLE bare (customer_id bigint)", "CREATE TABLE heir () INHERITS (bare)",
			"CREATE DOMAIN number AS bigint", "CREATE TABLE domained (customer_id number PRIMARY KEY)"),
		target.Exec(t.Context(), "CREATE TABLE wrong (id int PRIMARY KEY, customer_id bigint, more text)", "CREATE TABLE bare (customer_id bigint)",
			"CREATE DOMAIN number AS bigint", "CREATE TABLE domained (customer_id number PRIMARY KEY)",
			"INSERT INTO nothing SELECT g, 1 FROM generate_series(1, 100) AS g"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"wrong", "fast", "bare", "domained"} {
		r.ks.Tables = append(r.ks.Tables, rib.KeyedTable{Schema: "public", Name: name, Columns: []string{"customer_id"}})
	}
	open, err := source.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close(t.Context())
	if err := script(t.Context(), open, "BEGIN", "INSERT INTO nothing VALUES (-1, 1)", "PREPARE TRANSACTION 'somebody'"); err != nil {
		t.Fatal(err)
	}
	p := NewPostgres(r.config)
	defer p.Close()
	j := &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks}
	obstacles, err := p.Check(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	all := (&ObstacleError{obstacles}).Error()
	for _, want := range []string{
		`on shard_1, table public.wrong: its replica identity does not hold the key`, `on shard_2, table public.wrong: its replica identity does not hold the key`,
		`table "public"."wrong": unique index wrong_pkey is without the key`, `on shard_2, table "public"."wrong": its columns differ from those on shard_1: only on the source nothing more; only on the target "more" text`,
		`on shard_1, table public.fast: it is unlogged`, `on shard_2, table "public"."fast": it does not exist`, `table public.bare: it has no replica identity`, `on shard_1, table "public"."bare": other tables inherit from it`,
		`on shard_1, table "public"."domained": key column "customer_id" is of the domain public.number, and PostgreSQL replicates no part of a table by a column of a domain`,
		`foreign key notes_customer_id_fkey of "public"."notes" points at it`, `rows of the range lie there already`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
	r.clean()
	if err := script(t.Context(), open, "ROLLBACK PREPARED 'somebody'"); err != nil {
		t.Fatal(err)
	}
}

// TestUnreachable has a source that the target cannot reach, and a user who may do nothing.
func TestUnreachable(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	p := NewPostgres(r.config)
	defer p.Close()
	j := &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks}
	obstacles, err := p.Check(t.Context(), j)
	if err != nil || len(obstacles) > 0 {
		t.Fatal(err, obstacles)
	}

	// Something else that makes the nodes' schema for the first time is no obstacle.
	target := r.at("shard_2").primary
	other, err := target.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if err := script(t.Context(), other, "BEGIN", rib.SchemaSQL); err != nil {
		t.Fatal(err)
	}
	again := make(chan error, 1)
	go func() {
		obstacles, err := p.Check(t.Context(), j)
		if len(obstacles) > 0 {
			err = errors.Join(err, &ObstacleError{obstacles})
		}
		again <- err
	}()
	pgtest.Eventually(t, time.Minute, func() error {
		conn, err := target.Conn(t.Context())
		if err != nil {
			return err
		}
		defer conn.Close(t.Context())
		var waits int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&waits); err != nil || waits == 0 {
			return errors.Join(err, errors.New("nobody waits"))
		}
		return nil
	})
	if err := script(t.Context(), other, "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-again; err != nil {
		t.Fatal(err)
	}

	if err := r.at("shard_1").primary.Exec(t.Context(), "ALTER SYSTEM SET wal_level = replica"); err != nil {
		t.Fatal(err)
	}
	if err := r.at("shard_1").primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.at("shard_2").primary.CreateUser(t.Context(), "nobody", "secret", ""); err != nil {
		t.Fatal(err)
	}
	if err := r.at("shard_2").primary.Exec(t.Context(), "GRANT SELECT ON ALL TABLES IN SCHEMA public TO nobody"); err != nil {
		t.Fatal(err)
	}
	q := NewPostgres(PostgresConfig{Primary: r.as("shard_2", "nobody")})
	defer q.Close()
	if obstacles, err = q.Check(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	all := (&ObstacleError{obstacles}).Error()
	for _, want := range []string{"on shard_1: wal_level is replica", `on shard_2: user "nobody" cannot subscribe to shard_1`, `user "nobody" cannot keep triggers from firing`} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
}

// stopped starts a move that stays in its copy's end until the test lets it go on, under which tables must not be changed.
func (r *rig) stopped(at string) (id uint64, m *Mover, goOn func()) {
	r.t.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	low, high := r.quarter()
	m = r.mover(hook(at, func() error {
		close(reached)
		<-release
		return nil
	}))
	id = r.book.start(low, high, "shard_1", "shard_2")
	<-reached
	done := false
	goOn = func() {
		if !done {
			close(release)
			done = true
		}
	}
	r.t.Cleanup(goOn)
	return id, m, goOn
}

// TestNoDDL refuses TRUNCATE and DDL of moving tables, on both shards, and lets other tables be.
func TestNoDDL(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	id, m, goOn := r.stopped("Follow after")
	for name := range r.shards {
		for sql, code := range map[string]string{
			"TRUNCATE nothing": "55006", "TRUNCATE orders CASCADE": "55006", "ALTER TABLE orders ADD COLUMN more text": "55006", "DROP TABLE nothing": "55006",
			"CREATE INDEX ON orders (note)": "55006", "DROP INDEX orders_pkey": "55006", "ALTER TABLE orders DROP COLUMN note": "55006", "CREATE TABLE elsewhere (x int)": "",
			"ALTER SCHEMA public RENAME TO private": "55006", "CREATE SCHEMA empty; ALTER SCHEMA empty RENAME TO vacant; DROP SCHEMA vacant": "",
		} {
			err := r.at(name).primary.Exec(t.Context(), sql)
			var pe *pgconn.PgError
			errors.As(err, &pe)
			if got := sqlState(err); got != code && !(sql == "DROP INDEX orders_pkey" && got == "2BP01") {
				t.Errorf("%s on %s: %v", sql, name, err)
			}
		}
	}
	goOn()
	r.over(id, m)
	if got := fmt.Sprint(r.book.became()); got != "[flipped]" {
		t.Error(got)
	}
	r.clean()
	if err := r.at("shard_1").primary.Exec(t.Context(), "ALTER TABLE orders ADD COLUMN more text", "TRUNCATE nothing"); err != nil {
		t.Error(err)
	}
}

// TestNoDDLOfPartitions: partitions are guarded as their table is, in another schema too, with the indexes that they have for themselves.
func TestNoDDLOfPartitions(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, `CREATE SCHEMA "Old Ones"; CREATE TABLE t (c bigint NOT NULL, at int NOT NULL) PARTITION BY RANGE (at); CREATE TABLE "Old Ones".t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);
CREATE UNIQUE INDEX t_1_c ON "Old Ones".t_1 (c, at); ALTER TABLE "Old Ones".t_1 REPLICA IDENTITY USING INDEX t_1_c; ALTER TABLE t REPLICA IDENTITY FULL`)
	low, high := r.quarter()
	m := r.mover(hook("Copy after", func() error {
		for _, name := range []string{"shard_1", "shard_2"} {
			for _, sql := range []string{`ALTER SCHEMA "Old Ones" RENAME TO old`, `DROP SCHEMA "Old Ones" CASCADE`, `ALTER TABLE "Old Ones".t_1 REPLICA IDENTITY NOTHING`, `TRUNCATE "Old Ones".t_1`, `DROP INDEX "Old Ones".t_1_c`} {
				if code := sqlState(r.at(name).primary.Exec(t.Context(), sql)); code != "55006" {
					t.Errorf("%s: %s: %q", name, sql, code)
				}
			}
		}
		return nil
	}))
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if told := fmt.Sprint(r.book.became()); told != "[flipped]" {
		t.Error(told)
	}
}

// TestSequences has the target's numbers go on behind the source's, each by its own steps, whatever the sequence is called there.
func TestSequences(t *testing.T) {
	for _, name := range []string{"orders_id_seq", "numbers"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			r.fill(300)
			if err := r.at("shard_2").primary.Exec(t.Context(), "ALTER SEQUENCE orders_id_seq INCREMENT BY 10 START 7 RESTART 7", "ALTER SEQUENCE orders_id_seq RENAME TO moved", "ALTER SEQUENCE moved RENAME TO "+name); err != nil {
				t.Fatal(err)
			}
			last := r.query("shard_1", "SELECT last_value::text FROM orders_id_seq")
			low, high := r.quarter()
			m := r.mover(nil)
			r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
			if got := r.query("shard_2", fmt.Sprintf("SELECT (v > %s AND v %% 10 = 7)::text FROM (SELECT nextval('%s') AS v) AS n", last, name)); got != "true" {
				t.Errorf("the target's next number is not behind %s: %s", last, r.query("shard_2", "SELECT last_value::text FROM "+name))
			}
		})
	}
}

// TestWritersInTheWay fences a range on which a transaction is open, and one that is prepared: the first is ended, the other one settled.
func TestWritersInTheWay(t *testing.T) {
	r := newRig(t, false)
	r.fill(300)
	r.config.EndAfter = 200 * time.Millisecond
	settled := make(chan string, 1)
	r.config.Settle = func(ctx context.Context, shard string, gids []string) error {
		select {
		case settled <- shard + " " + strings.Join(gids, ","):
		default:
		}
		return r.at(shard).primary.Exec(ctx, "COMMIT PREPARED 'ours'")
	}
	low, high := r.quarter()
	customer := r.query("shard_1", "SELECT customer_id::text FROM orders WHERE "+r.where(low, high)+" LIMIT 1")
	id, m, goOn := r.stopped("Fence before")
	conn, err := r.at("shard_1").primary.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := script(t.Context(), conn, "BEGIN", "UPDATE orders SET note = 'prepared' WHERE customer_id = "+customer, "PREPARE TRANSACTION 'ours'", "BEGIN ISOLATION LEVEL REPEATABLE READ", "INSERT INTO nothing VALUES ("+customer+", 5)"); err != nil {
		t.Fatal(err)
	}
	goOn()
	r.over(id, m)
	if got := fmt.Sprint(r.book.became()); got != "[flipped]" {
		t.Error(got)
	}
	if got := <-settled; got != "shard_1 ours" {
		t.Error(got)
	}
	if err := script(t.Context(), conn, "COMMIT"); err == nil {
		t.Error("a transaction that was in the way has committed")
	}
	if got := r.query("shard_2", "SELECT note FROM orders WHERE customer_id = "+customer+" LIMIT 1"); got != "prepared" {
		t.Errorf("what was prepared is not on the target: %q", got)
	}
	if got := r.query("shard_2", "SELECT count(*)::text FROM nothing"); got != "0" {
		t.Errorf("%s rows of a transaction that was ended", got)
	}
	r.clean()
}
