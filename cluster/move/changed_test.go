package move

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestTablesChangeBeforeTheCopy: what somebody does to a table between the check and the copy is seen before anything is published. With a publication and without a
// replica identity the source would refuse updates of all rows.
func TestTablesChangeBeforeTheCopy(t *testing.T) {
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
	source := r.at("shard_1").primary
	m := r.mover(hook("Copy before", func() error { return source.Exec(t.Context(), "ALTER TABLE orders REPLICA IDENTITY NOTHING") }))
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := r.book.became(); len(told) != 1 || !strings.HasPrefix(told[0], "aborted") || !strings.Contains(told[0], "no replica identity") {
		t.Errorf("%q", told)
	}
	if err := source.Exec(t.Context(), "UPDATE orders SET note = 'mine'"); err != nil {
		t.Error(err)
	}
	r.clean()
}

// obstacles is what a check of a move of these positions names.
func (r *rig) obstacles(p *Postgres, low, high rib.Key) string {
	r.t.Helper()
	obstacles, err := p.Check(r.t.Context(), &Job{Move: rib.Move{ID: 1, Low: low, High: high, From: "shard_1", To: "shard_2"}, Keyspace: r.ks})
	if err != nil {
		r.t.Fatal(err)
	}
	return (&ObstacleError{obstacles}).Error()
}

// none is what obstacles tells of a move that has none.
const none = "the range cannot be moved:"

// TestTriggersThatFireAlways are in the way on both sides: they would do again, for copied rows, what they did for the written ones.
func TestTriggersThatFireAlways(t *testing.T) {
	r := newRig(t, false)
	r.fill(10)
	low, high := r.quarter()
	p := NewPostgres(r.config)
	defer p.Close()
	check := func() string { return r.obstacles(p, low, high) }
	for _, name := range []string{"shard_1", "shard_2"} {
		if err := r.at(name).primary.Exec(t.Context(), "CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			`CREATE TRIGGER "Zz" BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_it()`); err != nil {
			t.Fatal(err)
		}
		if all := check(); strings.Contains(all, "trigger") {
			t.Errorf("one that fires for clients alone: %s", all)
		}
		for _, how := range []string{"ALWAYS", "REPLICA"} {
			if err := r.at(name).primary.Exec(t.Context(), "ALTER TABLE orders ENABLE "+how+` TRIGGER "Zz"`); err != nil {
				t.Fatal(err)
			}
			if all := check(); !strings.Contains(all, "on "+name+`, table public.orders: trigger "Zz" fires for replicated rows too`) {
				t.Errorf("%s on %s: %s", how, name, all)
			}
		}
		if err := r.at(name).primary.Exec(t.Context(), `ALTER TABLE orders ENABLE TRIGGER "Zz"`); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRulesThatFireAlways are in the way as such triggers are: one that puts something else in the place of a removal would keep the source's rows for ever.
func TestRulesThatFireAlways(t *testing.T) {
	r := newRig(t, false)
	r.fill(10)
	low, high := r.quarter()
	p := NewPostgres(r.config)
	defer p.Close()
	source := r.at("shard_1").primary
	if err := source.Exec(t.Context(), `CREATE RULE "Keep" AS ON DELETE TO orders DO INSTEAD NOTHING`); err != nil {
		t.Fatal(err)
	}
	if all := r.obstacles(p, low, high); strings.Contains(all, "rule") {
		t.Errorf("one that fires for clients alone: %s", all)
	}
	if err := source.Exec(t.Context(), `ALTER TABLE orders ENABLE ALWAYS RULE "Keep"`); err != nil {
		t.Fatal(err)
	}
	all := r.obstacles(p, low, high)
	for _, want := range []string{`on shard_1, table public.orders: rule "Keep" fires for replicated rows too`, `ENABLE RULE "Keep", or DISABLE RULE`} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
}

// TestRowsThatStay: rows that cannot be removed are an error, which names the table, and no removal without end.
func TestRowsThatStay(t *testing.T) {
	r := newRig(t, false)
	r.fill(10)
	if err := r.at("shard_1").primary.Exec(t.Context(), "CREATE RULE keep AS ON DELETE TO orders DO INSTEAD NOTHING", "ALTER TABLE orders ENABLE ALWAYS RULE keep"); err != nil {
		t.Fatal(err)
	}
	p := NewPostgres(r.config)
	defer p.Close()
	low, high := r.quarter()
	j := &Job{Move: rib.Move{ID: 7, Keyspace: 1, Low: low, High: high, From: "shard_1", To: "shard_2", Phase: rib.MoveFlipped}, Keyspace: r.ks, Term: 1}
	limited, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := p.with(limited, j, func(l *link) error {
		if err := p.rowsOf(limited, l, j); err != nil {
			return err
		}
		return p.deleteRows(limited, l.source, j, sideSource, func(Copied) {})
	})
	if err == nil || limited.Err() != nil || !strings.Contains(err.Error(), `table "public"."orders"`) {
		t.Errorf("%v", err)
	}
}

// TestPreparedElsewhere: what is prepared in another database of the source's server keeps a slot from being made all the same. What could be ended is no obstacle any
// more, though something else could not.
func TestPreparedElsewhere(t *testing.T) {
	r := newRig(t, false)
	source := r.at("shard_1").primary
	if err := source.Exec(t.Context(), "CREATE DATABASE elsewhere", "CREATE TABLE x (i int)", "BEGIN; INSERT INTO x VALUES (1); PREPARE TRANSACTION 'ours'", "BEGIN; INSERT INTO x VALUES (2); PREPARE TRANSACTION 'nobodys'"); err != nil {
		t.Fatal(err)
	}
	conn, err := source.ConnTo(t.Context(), "elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := script(t.Context(), conn, "CREATE TABLE x (i int)", "BEGIN", "INSERT INTO x VALUES (1)", "PREPARE TRANSACTION 'theirs'"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := script(context.Background(), conn, "ROLLBACK PREPARED 'theirs'"); err != nil {
			t.Error(err)
		}
	}()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if r.query("shard_1", fmt.Sprintf("SELECT bool_and(clock_timestamp() - prepared > interval '%d s')::text FROM pg_prepared_xacts", int(longTransaction.Seconds()))) != "true" {
			return errors.New("they are not old yet")
		}
		return nil
	})
	var asked []string
	r.config.Settle = func(ctx context.Context, _ string, gids []string) error {
		asked = gids
		return errors.Join(source.Exec(ctx, "ROLLBACK PREPARED 'ours'"), errors.New("somebody else has prepared it"))
	}
	p := NewPostgres(r.config)
	defer p.Close()
	low, high := r.quarter()
	all := r.obstacles(p, low, high)
	for _, want := range []string{`on shard_1: a transaction is prepared there, in database "elsewhere", and was not ended: "theirs"`, `on shard_1: a transaction is prepared there and was not ended: "nobodys"`} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
	if strings.Contains(all, `"ours"`) {
		t.Errorf("what was ended is told of:\n%s", all)
	}
	if !slices.Equal(asked, []string{"ours", "nobodys"}) { // and not what is of another database
		t.Errorf("it was asked for the decision about %q", asked)
	}
}

// prepare leaves a transaction prepared that has changed a row of the range.
func (r *rig) prepare(low, high rib.Key) error {
	conn, err := r.at("shard_1").primary.Conn(r.t.Context())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	return script(r.t.Context(), conn, "BEGIN", "UPDATE orders SET note = 'prepared' WHERE customer_id = (SELECT min(customer_id) FROM orders WHERE "+r.where(low, high)+")", "PREPARE TRANSACTION 'mine'")
}

// TestPreparedTransactionsAreWaitedFor: one that nobody ends holds up the freeze as an open transaction does, and is named, before and after a freeze in vain.
func TestPreparedTransactionsAreWaitedFor(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		t.Run(fmt.Sprintf("frozen %v", frozen), func(t *testing.T) {
			r := newRig(t, false)
			r.fill(200)
			low, high := r.quarter()
			r.config.EndAfter = 200 * time.Millisecond
			m := r.mover(func(c *Config) {
				c.Freeze, c.Again = time.Second, 50*time.Millisecond
				if frozen {
					hook("Fence before", func() error { return r.prepare(low, high) })(c)
					return
				}
				hook("Copy after", func() error {
					if err := r.prepare(low, high); err != nil {
						return err
					}
					pgtest.Eventually(t, 10*time.Second, func() error {
						if r.query("shard_1", "SELECT (clock_timestamp() - prepared > interval '600 ms')::text FROM pg_prepared_xacts") != "true" {
							return fmt.Errorf("it is not old yet")
						}
						return nil
					})
					return nil
				})(c)
			})
			id := r.book.start(low, high, "shard_1", "shard_2")
			pgtest.Eventually(t, 30*time.Second, func() error {
				s := m.Status()
				if len(s) != 1 || s[0].Phase != rib.MovePrepare || !strings.Contains(s[0].Problem, `transaction "mine" has been prepared`) || (s[0].Thawed > 0) != frozen {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			if n := decodeNote(r.book.owners().Move(id).Note); frozen && !strings.Contains(n.Problem, `"mine"`) {
				t.Errorf("why it was frozen in vain: %s", n.Problem)
			}
			if err := r.at("shard_1").primary.Exec(t.Context(), "COMMIT PREPARED 'mine'"); err != nil {
				t.Fatal(err)
			}
			r.over(id, m)
			if told := r.book.became(); told[len(told)-1] != "flipped" {
				t.Errorf("%q", told)
			}
			if got := r.query("shard_2", "SELECT count(*)::text FROM orders WHERE note = 'prepared'"); got == "0" {
				t.Error("what was prepared has not moved along")
			}
			r.clean()
		})
	}
}

// TestConstraintsAreAlike: what the rows must be on one side they must be on the other, and what they point at is there too.
func TestConstraintsAreAlike(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	for name, sql := range map[string]string{
		"shard_1": "CREATE TABLE child (customer_id bigint PRIMARY KEY, c int CHECK (c < 10), p int REFERENCES parent, q int REFERENCES everywhere, UNIQUE (customer_id, c))",
		"shard_2": "CREATE TABLE child (customer_id bigint PRIMARY KEY, c int CHECK (c < 5), p int REFERENCES parent, q int REFERENCES everywhere)",
	} {
		if err := r.at(name).primary.Exec(t.Context(), "CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE everywhere (id int PRIMARY KEY)", sql); err != nil {
			t.Fatal(err)
		}
	}
	r.ks.Tables = append(r.ks.Tables, rib.KeyedTable{Schema: "public", Name: "child", Columns: []string{"customer_id"}})
	r.config.Everywhere = func(database, schema, table string) bool {
		return database == r.ks.Database && schema == "public" && table == "everywhere"
	}
	p := NewPostgres(r.config)
	defer p.Close()
	check := func() string { return r.obstacles(p, low, high) }
	all := check()
	for _, want := range []string{
		`on shard_2, table "public"."child": its constraints differ from those on shard_1: only on the source CHECK ((c < 10)), UNIQUE (customer_id, c); only on the target CHECK ((c < 5))`,
		`on shard_1, table "public"."child": its foreign key child_p_fkey points at "public"."parent", which does not move along`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told of:\n%s", want, all)
		}
	}
	if strings.Contains(all, "child_q_fkey") {
		t.Errorf("a reference table is there already:\n%s", all)
	}
	if err := r.at("shard_2").primary.Exec(t.Context(), "ALTER TABLE child DROP CONSTRAINT child_c_check, ADD CONSTRAINT another_name CHECK (c < 10) NOT VALID, ADD UNIQUE (customer_id, c)"); err != nil {
		t.Fatal(err)
	}
	if all := check(); strings.Contains(all, "constraints differ") {
		t.Errorf("they are alike:\n%s", all)
	}
	if err := r.at("shard_2").primary.Exec(t.Context(), "CREATE UNIQUE INDEX once ON child (customer_id, p) WHERE q > 1"); err != nil {
		t.Fatal(err)
	}
	if all, want := check(), "only on the source nothing more; only on the target UNIQUE INDEX btree (customer_id, p) WHERE (q > 1)"; !strings.Contains(all, want) {
		t.Errorf("%q is not told of:\n%s", want, all)
	}
	if err := r.at("shard_1").primary.Exec(t.Context(), "CREATE UNIQUE INDEX the_same ON child (customer_id, p) WHERE q > 1"); err != nil {
		t.Fatal(err)
	}
	if all := check(); strings.Contains(all, "constraints differ") {
		t.Errorf("they are alike again:\n%s", all)
	}
}

// TestRowsThatAreNotTaken: a row for which the target has no partition aborts the move at once, and leaves nothing.
func TestRowsThatAreNotTaken(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	for name, partition := range map[string]string{"shard_1": "DEFAULT", "shard_2": "FOR VALUES FROM (0) TO (10)"} {
		if err := r.at(name).primary.Exec(t.Context(), "CREATE TABLE parted (customer_id bigint, n int, PRIMARY KEY (customer_id, n)) PARTITION BY RANGE (n)", "CREATE TABLE parted_0 PARTITION OF parted "+partition); err != nil {
			t.Fatal(err)
		}
	}
	ks := *r.ks
	ks.Tables = append(slices.Clone(ks.Tables), rib.KeyedTable{Schema: "public", Name: "parted", Columns: []string{"customer_id"}})
	r.of(&ks)
	fill := func() error {
		return r.at("shard_1").primary.Exec(t.Context(), "INSERT INTO parted SELECT c, c FROM generate_series(1, 100) AS c WHERE "+strings.ReplaceAll(r.where(low, high), "customer_id", "c::bigint"))
	}
	var copies atomic.Int64
	m := r.mover(func(c *Config) {
		c.Servers = &counting{Servers: c.Servers, copies: &copies}
		hook("Check after", fill)(c) // else it would be told of before
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := r.book.became(); len(told) != 1 || !strings.HasPrefix(told[0], "aborted: ") || !strings.Contains(told[0], `no partition of relation "parted" found for row`) {
		t.Errorf("%q", told)
	}
	if n := copies.Load(); n != 1 {
		t.Errorf("it was copied %d times", n)
	}
	r.clean()
}

// TestPartitionsTakeAllRows: rows for which the target has no partition are told of before anything is copied, and no others: its partitions may be other ones.
func TestPartitionsTakeAllRows(t *testing.T) {
	const parted = "CREATE TABLE t (c bigint, n int, PRIMARY KEY (c, n)) PARTITION BY RANGE (n)"
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, parted)
	low, high := r.quarter()
	mine := strings.ReplaceAll(r.where(low, high), "customer_id", "c")
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	do := func(name, sql string) {
		t.Helper()
		if err := r.at(name).primary.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, untaken bool) {
		t.Helper()
		if all := r.obstacles(p, low, high); strings.Contains(all, `shard_2, table "public"."t": it has no partition for rows of the range, such as one of c `) != untaken || !untaken && all != none {
			t.Errorf("%s: %q", when, all)
		}
	}
	do("shard_1", "CREATE TABLE t_all PARTITION OF t FOR VALUES FROM (0) TO (1000)")
	expect("there are no rows", false)
	do("shard_1", "INSERT INTO t SELECT c, 150 FROM generate_series(1, 100) AS c WHERE NOT "+mine)
	expect("there are no rows of the range", false)
	do("shard_1", "INSERT INTO t SELECT c, 150 FROM generate_series(1, 100) AS c WHERE "+mine)
	expect("the target has no partition", true)
	do("shard_2", "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
	expect("the target has another partition", true)
	do("shard_2", "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (300)")
	expect("the target has other partitions, which take them", false)
	do("shard_2", "DROP TABLE t_2; CREATE TABLE t_d PARTITION OF t DEFAULT")
	expect("the target has a DEFAULT partition", false)
	do("shard_2", "DROP TABLE t; CREATE TABLE t (c bigint, n int, PRIMARY KEY (c, n)) PARTITION BY HASH (c); CREATE TABLE t_h PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
	expect("the target's are of the method hash", false)
	do("shard_2", "DROP TABLE t; CREATE TABLE t (c bigint, n int, PRIMARY KEY (c, n))")
	expect("the target has no partitions", false)
}

// TestDomainsAreAlike: a value that the target's domain does not take is told of before anything is copied.
func TestDomainsAreAlike(t *testing.T) {
	r := single(t, "hash", rib.TypeBigint, pgtest.Options{}, "CREATE DOMAIN small AS int; CREATE TABLE t (c bigint PRIMARY KEY, n small, ns small[])")
	low, high := r.quarter()
	p := NewPostgres(r.config)
	t.Cleanup(p.Close)
	again := "DROP TABLE t; DROP DOMAIN small; CREATE DOMAIN small AS int %s; CREATE TABLE t (c bigint PRIMARY KEY, n small, ns small[])"
	for _, c := range []struct{ shard, small, want string }{
		{"shard_1", "", none},
		{"shard_2", "CHECK (VALUE < 10)", `only on the target "n" public.small DOMAIN integer CHECK ((VALUE < 10)); "ns" public.small[] DOMAIN integer CHECK ((VALUE < 10))`},
		{"shard_1", "CONSTRAINT of_another_name CHECK (VALUE < 10)", none},
		{"shard_1", "NOT NULL CHECK (VALUE < 10)", `only on the source "n" public.small DOMAIN integer NOT NULL CHECK`},
	} {
		if err := r.at(c.shard).primary.Exec(t.Context(), fmt.Sprintf(again, c.small)); err != nil {
			t.Fatal(err)
		}
		if all := r.obstacles(p, low, high); !strings.Contains(all, c.want) || c.want == none && all != none {
			t.Errorf("%s: %q", c.small, all)
		}
	}
}

// TestLabelsAreAlike: a value that the target's type does not have is told of before anything is copied.
func TestLabelsAreAlike(t *testing.T) {
	r := newRig(t, false)
	low, high := r.quarter()
	for name, labels := range map[string]string{"shard_1": "'sad', 'glad', 'new'", "shard_2": "'glad', 'sad'"} {
		if err := r.at(name).primary.Exec(t.Context(), "CREATE TYPE mood AS ENUM ("+labels+")", "CREATE TABLE felt (customer_id bigint PRIMARY KEY, m mood, ms mood[])"); err != nil {
			t.Fatal(err)
		}
	}
	r.ks.Tables = append(r.ks.Tables, rib.KeyedTable{Schema: "public", Name: "felt", Columns: []string{"customer_id"}})
	p := NewPostgres(r.config)
	defer p.Close()
	want := `table "public"."felt": its columns differ from those on shard_1: only on the source "m" public.mood ENUM ('glad', 'new', 'sad'); "ms" public.mood[] ENUM ('glad', 'new', 'sad'); only on the target "m" public.mood ENUM ('glad', 'sad')`
	if all := r.obstacles(p, low, high); !strings.Contains(all, want) {
		t.Errorf("%q is not told of:\n%s", want, all)
	}
	if err := r.at("shard_2").primary.Exec(t.Context(), "ALTER TYPE mood ADD VALUE 'new' BEFORE 'glad'"); err != nil {
		t.Fatal(err)
	}
	if all := r.obstacles(p, low, high); strings.Contains(all, "felt") {
		t.Errorf("they are alike:\n%s", all)
	}
}
