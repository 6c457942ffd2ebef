package twophase

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// The node's user is no superuser: what it lacks is named, with the statement that gives it.
func TestRights(t *testing.T) {
	r := newRig(t)
	r.admin = "warden"
	grant := func(database, sql string) {
		t.Helper()
		for _, s := range r.servers {
			if err := s.ExecIn(t.Context(), database, sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := r.m.Commit(t.Context(), "app", writers(r.transfer()...))
	e, ok := err.(*pg.Error)
	if !ok || e.Code != pg.CodeObjectNotInPrerequisiteState || !strings.Contains(e.Hint, `GRANT CREATE ON DATABASE "app" TO "warden" on the primary of shard shard_1`) {
		t.Fatalf("without any right: %+v", err)
	}
	r.is(false)
	r.clean(r.m)

	grant("app", `GRANT CREATE ON DATABASE "app" TO "warden"`)
	if err := r.m.Commit(t.Context(), "app", writers(r.transfer()...)); err != nil {
		t.Fatal(err)
	}
	r.is(true)

	// What app has prepared only app may end, and whoever is a member of it.
	r.reset()
	list := r.transfer()
	list[1].before = at(atCommit, lose)
	if err := r.m.Commit(t.Context(), "app", writers(list...)); err != nil {
		t.Fatal(err)
	}
	r.m.Mend(t.Context())
	if l := r.m.Transactions(); len(l) != 1 || l[0].State != Decided || !strings.Contains(l[0].Problem, `"warden" may not end what "app" has prepared`) {
		t.Errorf("books %+v", l)
	}
	grant("", `GRANT "app" TO "warden"`)
	r.settled(r.m)
	r.is(true)
}

// Something else that makes the nodes' schema for the first time is waited for.
func TestTheSchemaIsMadeBySomethingElse(t *testing.T) {
	r := newRig(t)
	other, err := r.servers["shard_1"].ConnTo(t.Context(), "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := other.Exec(t.Context(), "BEGIN;"+rib.SchemaSQL); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.m.Commit(t.Context(), "app", writers(r.transfer()...)) }()
	pgtest.Eventually(t, time.Minute, func() error {
		if waits := r.query("shard_1", "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"); len(waits) != 1 {
			return fmt.Errorf("waiting: %q", waits)
		}
		return nil
	})
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.is(true)
}

// A role that was set for the transaction alone is another one when that is over, and may not commit what is prepared: the node does it.
func TestARoleOfTheTransaction(t *testing.T) {
	r := newRig(t)
	list := r.transfer()
	for _, b := range list {
		r.exec(b, "SET LOCAL ROLE other")
	}
	if err := r.m.Commit(t.Context(), "app", writers(list...)); err != nil {
		t.Fatal(err)
	}
	if l := r.m.Transactions(); len(l) != 1 || l[0].State != Decided || !l[0].Left {
		t.Errorf("books %+v", l)
	}
	r.settled(r.m)
	r.is(true)
}

// Whoever may log in may call the function that decides. For others' transactions it decides nothing.
func TestAStrangerDecides(t *testing.T) {
	r := newRig(t)
	if err := r.m.ensure(t.Context(), place{"shard_1", "app"}); err != nil {
		t.Fatal(err)
	}
	gid := GID{Cluster: "01234567", Node: "node_z", Boot: "x", Number: 1, Decision: "shard_1"}
	list := r.transfer()
	if _, err := list[1].Exec(t.Context(), prepareSQL(gid)); err != nil {
		t.Fatal(err)
	}
	r.user = "other"
	stranger := r.open("shard_1")
	for _, sql := range []string{
		"SELECT * FROM rangefinder.decision", "DELETE FROM rangefinder.decision",
		"INSERT INTO rangefinder.decision (gid, commit, participants, by) VALUES ('" + gid.String() + "', true, '{}', 'app')",
	} {
		if _, err := stranger.Exec(t.Context(), sql); code(err) != pg.CodeInsufficientPrivilege {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := stranger.Exec(t.Context(), "BEGIN; "+decideSQL(gid, shardNames(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := list[0].Exec(t.Context(), decideSQL(gid, shardNames(2))); code(err) != codeUniqueViolation {
		t.Errorf("the true decision: %v", err)
	}
	if _, err := list[0].Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	r.settled(r.m)
	r.is(false)
}

// A stranger decides for a transaction whose own decision never comes: neither the node that commits it nor one that looks later believes it.
func TestAStrangerDecidesAndTheConnectionIsLost(t *testing.T) {
	for _, asked := range []bool{true, false} {
		r := newRig(t)
		if err := r.m.ensure(t.Context(), place{"shard_1", "app"}); err != nil {
			t.Fatal(err)
		}
		if !asked {
			r.m.cfg.Fate = 1
		}
		list := r.transfer()
		r.user = "other"
		stranger := r.open("shard_1")
		list[0].before = func(sql string) error {
			if !strings.Contains(sql, atDecision) {
				return nil
			}
			gid, ok := ParseGID(r.query("shard_2", "SELECT gid FROM pg_prepared_xacts")[0])
			if !ok {
				t.Error("nothing is prepared")
			}
			if _, err := stranger.Exec(t.Context(), "BEGIN; "+decideSQL(gid, shardNames(2))); err != nil {
				t.Error(err)
			}
			return errLost
		}
		want := pg.CodeSerializationFailure
		if !asked {
			want = pg.CodeTransactionResolutionUnknown
		}
		if err := r.m.Commit(t.Context(), "app", writers(list...)); code(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
		r.settled(r.m)
		r.is(false)
	}
}
