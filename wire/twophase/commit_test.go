package twophase

import (
	"context"
	"io"
	"strings"
	"testing"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

func TestCommitOnAllShards(t *testing.T) {
	r := newRig(t)
	reader := r.open("shard_3")
	r.exec(reader, "BEGIN")
	all := append(writers(r.transfer()...), Participant{reader, false})
	if err := r.m.Commit(t.Context(), "app", all); err != nil {
		t.Fatal(err)
	}
	r.is(true)
	for _, p := range all {
		if status := p.Branch.(*branch).conn.PgConn().TxStatus(); status != 'I' {
			t.Errorf("%s: status %c after the commit", p.Shard(), status)
		}
	}
	if rows := r.query("shard_1", "SELECT array_to_string(participants, ' ') || ' ' || by || ' ' || commit FROM rangefinder.decision"); len(rows) != 1 || rows[0] != "shard_1 shard_2 app true" {
		t.Errorf("decisions %q", rows)
	}
	r.m.Mend(t.Context())
	r.clean(r.m)
	if c := r.m.Counts(); c != (Counts{Committed: 1}) {
		t.Errorf("counts %+v", c)
	}
}

// One writer needs no second phase, so no shard needs to be able to prepare.
func TestOneWriterCommitsPlainly(t *testing.T) {
	r := newRig(t)
	for _, sql := range []string{"BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"} {
		reader, before := r.open("shard_2"), r.balance("shard_1")
		r.exec(reader, sql)
		if err := r.m.Commit(t.Context(), "app", []Participant{{reader, false}, {r.begin("shard_1", 5), true}}); err != nil {
			t.Fatal(err)
		}
		if got := r.balance("shard_1"); got != before+5 {
			t.Errorf("balance %d after %d", got, before)
		}
	}
	if rows := r.query("shard_1", "SELECT nspname::text FROM pg_namespace WHERE nspname = 'rangefinder'"); len(rows) != 0 {
		t.Error("a schema was made for decisions that nobody needs")
	}
	b := r.begin("shard_1", 5)
	b.after = func(string) error { return io.ErrUnexpectedEOF }
	if err := r.m.Commit(t.Context(), "app", writers(b)); code(err) != pg.CodeTransactionResolutionUnknown {
		t.Errorf("a lost connection: %v", err)
	}
}

// What one shard refuses when it prepares, or when it decides, happens on none.
func TestOneShardRefuses(t *testing.T) {
	r := newRig(t)
	for at := range 2 {
		list := r.transfer()
		r.exec(list[at], "INSERT INTO child VALUES (1)") // whose parent is missed at the end
		err := r.m.Commit(t.Context(), "app", writers(list...))
		if code(err) != "23503" {
			t.Errorf("refused by %s: %v", list[at].shard, err)
		}
		r.is(false)
		r.m.Mend(t.Context())
		r.clean(r.m)
		for _, b := range list {
			if status := b.conn.PgConn().TxStatus(); status != 'I' {
				t.Errorf("%s: status %c after the end", b.shard, status)
			}
		}
	}
}

// PostgreSQL answers COMMIT and PREPARE with ROLLBACK in a transaction that has failed before.
func TestABranchHasFailedBefore(t *testing.T) {
	r := newRig(t)
	for at := range 2 {
		list := r.transfer()
		_, _ = list[at].conn.Exec(t.Context(), "SELECT 1/0")
		if err := r.m.Commit(t.Context(), "app", writers(list...)); code(err) == "" {
			t.Errorf("failed on %s: %v", list[at].shard, err)
		}
		r.is(false)
	}
	list := r.transfer()
	reader := r.open("shard_3")
	r.exec(reader, "BEGIN")
	_, _ = reader.conn.Exec(t.Context(), "SELECT 1/0")
	if err := r.m.Commit(t.Context(), "app", append(writers(list...), Participant{reader, false})); code(err) != pg.CodeTransactionRollback {
		t.Errorf("a reader has failed: %v", err)
	}
	r.is(false)
	r.clean(r.m)
}

func TestAShardThatCannotPrepare(t *testing.T) {
	r := rigOn(t, pgtest.NewPrimary(t, prepared(1)), pgtest.NewPrimary(t, prepared(0)))
	err := r.m.Commit(t.Context(), "app", writers(r.transfer()...))
	e, ok := err.(*pg.Error)
	if !ok || e.Code != pg.CodeObjectNotInPrerequisiteState || !strings.Contains(e.Message, "shard_2") || !strings.Contains(e.Hint, "max_prepared_transactions") {
		t.Errorf("error %+v", err)
	}
	r.is(false)
	if a := r.m.Alarms(); len(a) != 1 || !strings.Contains(a[0], "shard shard_2 cannot take part") {
		t.Errorf("alarms %q", a)
	}
	fresh := r.manager("node_b")
	fresh.Look(t.Context()) // finds it without a transaction
	if u := fresh.Unable(); len(u) != 1 || u[0] != "shard_2" {
		t.Errorf("unable: %q", u)
	}
	if problems := fresh.Check(t.Context(), "app", shardNames(2)); len(problems) != 1 || !strings.Contains(problems[0].Message, "shard_2") {
		t.Errorf("problems %v", problems)
	}

	// The other way about: the one that decides needs not prepare.
	if err := r.m.Commit(t.Context(), "app", writers(r.begin("shard_2", 100), r.begin("shard_1", -100))); err != nil {
		t.Fatal(err)
	}
	r.is(true)

	// And one that has prepared as much as it can.
	r.exec(r.begin("shard_1", 0), "PREPARE TRANSACTION 'somebody'")
	b := r.open("shard_1")
	r.exec(b, "BEGIN")
	r.exec(b, "UPDATE account SET balance = 0 WHERE id = 2")
	err = r.m.Commit(t.Context(), "app", writers(r.begin("shard_2", 0), b))
	if e, ok := err.(*pg.Error); !ok || e.Code != pg.CodeOutOfMemory || !strings.Contains(e.Hint, "shard_1") {
		t.Errorf("error %+v", err)
	}
	if err := r.servers["shard_1"].ExecIn(t.Context(), "app", "ROLLBACK PREPARED 'somebody'"); err != nil {
		t.Fatal(err)
	}
	r.m.Mend(t.Context())
	r.clean(r.m)
}

// A commit waits for no disk where synchronous_commit is off. Of a decision that would make a half of the whole if the server crashed.
func TestTheDecisionIsOnTheDisk(t *testing.T) {
	r := newRig(t)
	list := r.transfer()
	for _, b := range list {
		if err := r.servers[b.shard].ExecIn(t.Context(), r.db, `CREATE TABLE seen (setting text);
			CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER note AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()`); err != nil {
			t.Fatal(err)
		}
		r.exec(b, "SET synchronous_commit = off")
		r.exec(b, "INSERT INTO parent VALUES (1)")
	}
	if err := r.m.Commit(t.Context(), "app", writers(list...)); err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if seen := r.query(b.shard, "SELECT setting FROM seen"); len(seen) != 1 || seen[0] != "on" {
			t.Errorf("%s: synchronous_commit was %q at the end of the transaction", b.shard, seen)
		}
		var now string
		if err := b.conn.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&now); err != nil || now != "off" {
			t.Errorf("%s: synchronous_commit is %q after it: %v", b.shard, now, err)
		}
	}
}

// A server that fails may take what it has committed with it, if nobody has waited for its replica. What it had prepared is committed by the next
// one: the decision is still there.
func TestADecisionOutlivesItsWork(t *testing.T) {
	r := newRig(t)
	cfg := r.config("n1")
	cfg.Settle = 0 // a minute
	m, all := New(cfg), r.transfer()
	lost := Participant{forgetful{all[1]}, true}
	if err := m.Commit(t.Context(), r.db, []Participant{{all[0], true}, lost}); err != nil {
		t.Fatal(err)
	}
	m.Mend(t.Context())
	m.Mend(t.Context())
	other := r.manager("n2")
	other.Look(t.Context())
	r.is(true)
}

// forgetful is a branch whose server loses what it commits.
type forgetful struct{ *branch }

func (b forgetful) Exec(ctx context.Context, sql string) (string, error) {
	if strings.HasPrefix(sql, "COMMIT PREPARED") {
		return "COMMIT PREPARED", nil
	}
	return b.branch.Exec(ctx, sql)
}
