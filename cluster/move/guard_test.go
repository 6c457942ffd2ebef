package move

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

// TestCopiesAreGuarded: until the target has all of a range, it accepts no write to the copies that it holds, by whomever, and all to other rows. A
// transaction whose snapshot is older than that has to begin anew. What an abort, or another leader, finds of that is removed as the rest is.
func TestCopiesAreGuarded(t *testing.T) {
	r := newRig(t, false)
	r.fill(500)
	low, high := r.quarter()
	where := r.where(low, high)
	mine := strings.ReplaceAll(where, "customer_id", "c")
	target := func(sql string) string { return sqlState(r.at("shard_2").primary.Exec(t.Context(), sql)) }
	if code := target("INSERT INTO nothing SELECT c, 1 FROM generate_series(100000, 100100) AS c WHERE NOT " + mine); code != "" {
		t.Fatal(code)
	}
	guarded := func(when string) {
		t.Helper()
		for _, sql := range []string{
			"UPDATE orders SET note = 'lost' WHERE " + where, "DELETE FROM \"Order Lines\" WHERE " + where, "DELETE FROM orders WHERE " + where,
			"INSERT INTO nothing SELECT c, 1 FROM generate_series(1000, 1100) AS c WHERE " + mine,
			fmt.Sprintf("UPDATE nothing SET customer_id = (SELECT c FROM generate_series(1000, 1100) AS c WHERE %s LIMIT 1) WHERE customer_id = (SELECT min(customer_id) FROM nothing)", mine),
			"BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE orders SET note = 'lost' WHERE " + where + "; COMMIT",
		} {
			if code := target(sql); code != "55006" {
				t.Errorf("%s, %s: %q", when, sql, code)
			}
		}
		if code := target("UPDATE nothing SET x = x + 1"); code != "" {
			t.Errorf("%s: rows that do not move: %s", when, code)
		}
	}
	before := r.rowsOf("shard_1")
	first := r.mover(func(c *Config) {
		hook("Copy after", func() error { guarded("copied"); return nil })(c)
		hook("Complete after", func() error { return ErrDiffers })(c)
		hook("Clean within", func() error { guarded("aborted"); return nil })(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), first)
	first.Close()
	r.clean()
	if told := r.book.became(); !strings.HasPrefix(told[len(told)-1], "aborted") || r.rowsOf("shard_1") != before || r.query("shard_2", "SELECT count(*)::text FROM orders") != "0" {
		t.Fatalf("after an abort: %v", told)
	}

	strict, late := r.connect("shard_2"), ""
	second := r.mover(func(c *Config) {
		hook("Follow after", func() error {
			guarded("followed")
			return script(t.Context(), strict, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM orders")
		})(c)
		hook("Complete after", func() error {
			late = sqlState(script(t.Context(), strict, "UPDATE orders SET note = 'late' WHERE "+where))
			if code := target("UPDATE orders SET note = 'kept' WHERE " + where); code != "" {
				t.Errorf("the target has all, and refuses a write: %s", code)
			}
			return script(t.Context(), strict, "ROLLBACK")
		})(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), second)
	second.Close()
	r.clean()
	if late != "40001" {
		t.Errorf("a snapshot from before: %q", late)
	}
	if n := r.query("shard_2", "SELECT count(*) FILTER (WHERE note = 'kept') || ' of ' || count(*) FROM orders"); strings.HasPrefix(n, "0") || n != strings.Split(n, " ")[0]+" of "+strings.Split(n, " ")[0] {
		t.Error(n)
	}
}

// TestMoveOfAnotherBuildGoesOn: a move whose copies are not guarded, as an older build has left it, comes to its end under this one.
func TestMoveOfAnotherBuildGoesOn(t *testing.T) {
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
	gone := make(chan struct{})
	var first *Mover
	first = r.mover(hook("Follow after", func() error {
		j := &Job{Move: rib.Move{ID: r.book.owners().Moves[0].ID}}
		var sql []string
		for _, table := range []string{"orders", `"Order Lines"`, "nothing"} {
			for _, name := range []string{fenceName(j), changeName(j), removeName(j)} {
				sql = append(sql, fmt.Sprintf("SET rangefinder.mover = '%s'; DROP TRIGGER %s ON %s", number(j), name, table))
			}
		}
		err := r.at("shard_2").primary.Exec(t.Context(), sql...)
		first.stop()
		close(gone)
		return errors.Join(err, errKilled)
	}))
	id := r.book.start(low, high, "shard_1", "shard_2")
	<-gone
	first.Close()
	r.book.mu.Lock()
	r.book.leader = id
	r.book.mu.Unlock()
	second := r.mover(nil)
	r.over(id, second)
	second.Close()
	if told := r.book.became(); told[len(told)-1] != "flipped" {
		t.Error(told)
	}
	r.clean()
}

// TestCopyIsChangedMeanwhile: while rows are copied no write pays for a fence yet. What somebody writes to the range at the target by then is found when all is
// compared, and costs the copy and nothing else.
func TestCopyIsChangedMeanwhile(t *testing.T) {
	r := newRig(t, false)
	r.fill(500)
	low, high := r.quarter()
	fences := func(name string) string {
		return r.query(name, "SELECT count(*)::text FROM pg_trigger WHERE tgname LIKE 'rangefinder_fence%'")
	}
	var during, after []string
	m := r.mover(func(c *Config) {
		hook("Copy within", func() error {
			during = []string{fences("shard_1"), fences("shard_2")}
			return r.at("shard_2").primary.Exec(t.Context(), r.insertSQL(low, high))
		})(c)
	})
	before := r.rowsOf("shard_1")
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if told := r.book.became(); len(told) != 1 || !strings.HasPrefix(told[0], "aborted") || !strings.Contains(told[0], ErrDiffers.Error()) {
		t.Errorf("%q", told)
	}
	if r.rowsOf("shard_1") != before || r.query("shard_2", "SELECT count(*)::text FROM nothing") != "0" {
		t.Error("rows are not as they were")
	}
	r.clean()
	m = r.mover(hook("Copy after", func() error { after = []string{fences("shard_1"), fences("shard_2")}; return nil }))
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	m.Close()
	if !slices.Equal(during, []string{"0", "0"}) || !slices.Equal(after, []string{"9", "9"}) {
		t.Errorf("fences while rows are copied: %s; behind that: %s", during, after)
	}
}

// TestFenceLooksNothingUp: the fence has its owner's rights, so nothing that a session has put before pg_catalog may run in it, nor have it let a row through.
func TestFenceLooksNothingUp(t *testing.T) {
	r := newRig(t, false)
	r.fill(200)
	low, high := r.quarter()
	evil := []string{"CREATE SCHEMA evil", "CREATE ROLE app LOGIN", "GRANT USAGE ON SCHEMA evil TO app", "GRANT ALL ON orders, nothing TO app", "CREATE DOMAIN evil.text AS pg_catalog.varchar(1)", "CREATE TABLE evil.fence (state text)"}
	bait := func(name, in, out string) {
		evil = append(evil, fmt.Sprintf("CREATE FUNCTION evil.%s(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'as %%', current_user USING ERRCODE = 'ZZ001'; END $$", name, in, out))
	}
	bait("current_setting", "pg_catalog.text", "pg_catalog.text")
	bait("current_setting", "pg_catalog.text, boolean", "pg_catalog.text")
	bait("pg_advisory_xact_lock_shared", "bigint", "void")
	bait("hashint8extended", "bigint, bigint", "bigint")
	for name, op := range map[string]string{"equal": "=", "unlike": "<>", "less": "<"} {
		for _, types := range []string{"pg_catalog.text, pg_catalog.text", "bigint, integer", "bigint, bigint"} {
			bait(name, types, "boolean")
			left, right, _ := strings.Cut(types, ", ")
			evil = append(evil, fmt.Sprintf("CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%s)", op, left, right, name))
		}
	}
	bait("join", "pg_catalog.text, pg_catalog.text", "pg_catalog.text")
	evil = append(evil, "CREATE OPERATOR evil.|| (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.join)")
	for _, name := range []string{"shard_1", "shard_2"} {
		if err := r.at(name).primary.Exec(t.Context(), evil...); err != nil {
			t.Fatal(err)
		}
	}
	as := func(name, sql string) string {
		conn, err := r.at(name).primary.ConnTo(t.Context(), "postgres", "app")
		if err != nil {
			t.Error(err)
			return ""
		}
		defer hangUp(conn)
		return sqlState(script(t.Context(), conn, "SET search_path = evil, pg_catalog, public", sql))
	}
	// Both statements touch all rows, for a condition would call what lies in wait.
	expect := func(when, name, want string) {
		for _, sql := range []string{"UPDATE public.orders SET note = 'app'", "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE public.orders SET note = 'app'; COMMIT"} {
			if code := as(name, sql); code != want {
				t.Errorf("%s, %s: %s: %q and not %q", when, name, sql, code, want)
			}
		}
		if code := as(name, "TRUNCATE public.nothing"); code != "55006" {
			t.Errorf("%s, %s: TRUNCATE: %q", when, name, code)
		}
	}
	m := r.mover(func(c *Config) {
		hook("Copy after", func() error {
			expect("copied", "shard_1", "")
			expect("copied", "shard_2", "55006")
			return nil
		})(c)
		hook("Complete after", func() error { expect("frozen", "shard_1", "RF001"); return nil })(c)
	})
	r.over(r.book.start(low, high, "shard_1", "shard_2"), m)
	if told := r.book.became(); told[len(told)-1] != "flipped" {
		t.Error(told)
	}
}
