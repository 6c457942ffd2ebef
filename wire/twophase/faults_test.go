package twophase

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// The steps of the protocol, by a word of their statements.
const (
	atPrepare  = "PREPARE TRANSACTION"
	atDecision = "rangefinder.decide"
	atCommit   = "COMMIT PREPARED"
)

// at is a fault that strikes with the statement of one step.
func at(step string, strike func() error) func(string) error {
	return func(sql string) error {
		if strings.Contains(sql, step) {
			return strike()
		}
		return nil
	}
}

func lose() error { return errLost }

// stroke is a step of the protocol at which something strikes on one shard, before or after its server has done what it was asked.
type stroke struct {
	shard, step string
	after       bool
	done        bool // the transfer is there all the same
}

func strokes() []stroke {
	return []stroke{
		{"shard_2", atPrepare, false, false},
		{"shard_2", atPrepare, true, false},
		{"shard_1", atDecision, false, false},
		{"shard_1", atDecision, true, true},
		{"shard_2", atCommit, false, true},
		{"shard_2", atCommit, true, true},
	}
}

// on has it strike on one of the branches.
func (f stroke) on(list []*branch, strike func() error) {
	for _, b := range list {
		if b.shard == f.shard && f.after {
			b.after = at(f.step, strike)
		} else if b.shard == f.shard {
			b.before = at(f.step, strike)
		}
	}
}

// A connection is lost, before or after its server has done what it was asked. The server itself lives.
func TestConnectionsAreLost(t *testing.T) {
	r := newRig(t)
	for _, c := range strokes() {
		t.Run(fmt.Sprintf("%s %s %v", c.shard, c.step, c.after), func(t *testing.T) {
			r := r.in(t)
			r.reset()
			list := r.transfer()
			c.on(list, lose)
			err := r.m.Commit(t.Context(), "app", writers(list...))
			if c.done && err != nil || !c.done && code(err) != pg.CodeSerializationFailure {
				t.Errorf("error %v, want the transfer to be there: %v", err, c.done)
			}
			r.settled(r.m)
			r.is(c.done)
		})
	}
}

// reset makes the balances what they were.
func (r *rig) reset() {
	r.t.Helper()
	for _, s := range r.servers {
		if err := s.ExecIn(r.t.Context(), r.db, fmt.Sprintf("UPDATE account SET balance = %d", start)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// settled waits until a manager has ended all that was left, which is as soon as the servers have noticed which connections are gone.
func (r *rig) settled(m *Manager) {
	r.t.Helper()
	pgtest.Eventually(r.t, time.Minute, func() error {
		m.Mend(r.t.Context())
		m.Look(r.t.Context())
		if list := m.Transactions(); len(list) > 0 {
			return fmt.Errorf("left: %+v", list)
		}
		return nil
	})
	m.Mend(r.t.Context())
	m.Look(r.t.Context())
	pgtest.Eventually(r.t, time.Minute, func() error { // a decision to roll back stays for as long as anybody has a transaction there
		m.Look(r.t.Context())
		for shard := range r.servers {
			if left := r.decisions(shard); len(left) > 0 {
				return fmt.Errorf("%s: decisions left: %v", shard, left)
			}
		}
		return nil
	})
	r.clean(m)
}

// A commit that was sent may arrive when everybody has given it up. It must fail then: what it would have decided has been rolled back.
func TestADecisionComesTooLate(t *testing.T) {
	for name, sql := range map[string]string{
		"it has written":       "UPDATE account SET balance = balance - 100 WHERE id = 1",
		"it has found nothing": "UPDATE account SET balance = balance - 100 WHERE id = -1", // and its transaction has no number
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			decider := r.open("shard_1")
			r.exec(decider, "BEGIN")
			r.exec(decider, sql)
			late := ""
			if err := r.m.Commit(t.Context(), "app", []Participant{{&lateBranch{branch: decider, sql: &late}, true}, {r.begin("shard_2", 100), true}}); code(err) != pg.CodeSerializationFailure {
				t.Fatalf("error %v", err)
			}
			r.is(false)
			r.m.Look(t.Context()) // which removes what is old: that is everything, as if the server's clock had been set ahead
			if _, err := decider.Exec(t.Context(), late); code(err) != codeUniqueViolation {
				t.Errorf("the decision that came too late: %v", err)
			}
			r.exec(decider, "ROLLBACK")
			r.is(false)
			r.settled(r.m)
		})
	}
}

// lateBranch loses its connection when it decides, and what was sent is still on its way.
type lateBranch struct {
	*branch
	sql *string
}

func (b *lateBranch) Exec(ctx context.Context, sql string) (string, error) {
	if strings.Contains(sql, atDecision) {
		*b.sql = sql
		return "", errLost
	}
	return b.branch.Exec(ctx, sql)
}

// While a decision waits (for a replica, say) nobody takes the other side: who asks waits for it.
func TestWhoAsksWaitsForADecisionUnderWay(t *testing.T) {
	r := newRig(t)
	if err := r.m.ensure(t.Context(), place{"shard_1", "app"}); err != nil {
		t.Fatal(err)
	}
	list := r.transfer()
	gid := GID{Cluster: "01234567", Node: "node_z", Boot: "x", Number: 1, Decision: "shard_1"}
	if _, err := list[1].Exec(t.Context(), prepareSQL(gid)); err != nil {
		t.Fatal(err)
	}
	half, _ := strings.CutSuffix(decideSQL(gid, shardNames(2)), "; COMMIT")
	if _, err := list[0].Exec(t.Context(), half); err != nil {
		t.Fatal(err)
	}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		r.m.Look(t.Context())
	}()
	pgtest.Eventually(t, time.Minute, func() error {
		if waits := r.query("shard_1", "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"); len(waits) != 1 {
			return fmt.Errorf("waiting: %q", waits)
		}
		return nil
	})
	if _, err := list[0].Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	<-looked
	r.is(true)
	r.settled(r.m)
}

// The node dies at each step: no more comes from it, and its connections end. Another node ends what it has left.
func TestTheNodeDies(t *testing.T) {
	r := newRig(t)
	for _, c := range strokes() {
		t.Run(fmt.Sprintf("%s %s %v", c.shard, c.step, c.after), func(t *testing.T) {
			r := r.in(t)
			r.reset()
			list := r.transfer()
			dies, dead := make(chan struct{}), make(chan struct{})
			died := false
			strike := func() error {
				if !died {
					died = true
					close(dies)
				}
				<-dead // until the others have done their work
				return errLost
			}
			c.on(list, strike)
			victim := r.manager("node_b")
			ctx, cancel := context.WithCancel(t.Context())
			victim.cfg.Sites, victim.cfg.Fate = &mortal{Sites: victim.cfg.Sites, dead: dies}, time.Millisecond
			result := make(chan error, 1)
			go func() { result <- victim.Commit(ctx, "app", writers(list...)) }()
			<-dies
			for _, b := range list {
				b.lose()
			}
			r.settled(r.m)
			r.is(c.done)
			cancel()
			close(dead)
			<-result
			r.is(c.done)
		})
	}
}

// mortal are the sites of a node that dies.
type mortal struct {
	Sites
	dead <-chan struct{}
}

func (m *mortal) Open(ctx context.Context, shard, database string) (Site, error) {
	select {
	case <-m.dead:
		return nil, errLost
	default:
		return m.Sites.Open(ctx, shard, database)
	}
}

// A shard's server crashes at each step, and comes back.
func TestAServerCrashes(t *testing.T) {
	a, b := pgtest.NewPrimary(t, prepared(5)), pgtest.NewPrimary(t, prepared(5))
	r := rigOn(t, a, b)
	for _, c := range []struct {
		shard, step string
		after       bool
		done        bool
		code        string // of the error; "": none
	}{
		{"shard_2", atPrepare, false, false, pg.CodeSerializationFailure},
		{"shard_2", atPrepare, true, false, pg.CodeSerializationFailure},
		{"shard_1", atDecision, false, false, pg.CodeTransactionResolutionUnknown},
		{"shard_1", atDecision, true, true, pg.CodeTransactionResolutionUnknown},
		{"shard_2", atDecision, false, true, ""},
		{"shard_2", atDecision, true, true, ""},
		{"shard_2", atCommit, false, true, ""},
		{"shard_2", atCommit, true, true, ""},
		{"shard_1", atCommit, false, true, ""},
	} {
		t.Run(fmt.Sprintf("%s %s %v", c.shard, c.step, c.after), func(t *testing.T) {
			r := r.in(t)
			r.reset()
			m := r.manager("node_c")
			m.cfg.Fate = time.Millisecond
			list := r.transfer()
			for _, b := range list {
				strike := at(c.step, func() error {
					if err := r.servers[c.shard].Kill(); err != nil || !c.after || b.shard != c.shard {
						return err
					}
					return errLost // with the answer
				})
				if c.after {
					b.after = strike
				} else {
					b.before = strike
				}
			}
			err := m.Commit(t.Context(), "app", writers(list...))
			if code(err) != c.code || c.code == "" && err != nil {
				t.Errorf("error %v, want %q", err, c.code)
			}
			if c.code == pg.CodeTransactionResolutionUnknown {
				if l := m.Transactions(); len(l) != 1 || l[0].State != InDoubt || !l[0].Left {
					t.Errorf("books %+v", l)
				}
			}
			m.Mend(t.Context()) // to no avail
			if err := r.servers[c.shard].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.settled(m)
			r.is(c.done)
		})
	}
}

// The shard that decides fails over to its synchronous replica: what was decided is decided there too, and what was prepared on the other
// shard follows it.
func TestTheDecisionShardFailsOver(t *testing.T) {
	a := pgtest.NewPrimary(t, prepared(5))
	b := pgtest.NewReplica(t, a, pgtest.Options{Params: map[string]string{"synchronous_standby_names": ""}})
	other := pgtest.NewPrimary(t, prepared(5))
	r := rigOn(t, a, other)
	if err := r.m.ensure(t.Context(), place{"shard_1", r.db}); err != nil {
		t.Fatal(err)
	}
	if err := a.Set(map[string]string{"synchronous_standby_names": "*"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, func() error {
		if s := r.query("shard_1", "SELECT sync_state FROM pg_stat_replication"); len(s) != 1 || s[0] != "sync" {
			return fmt.Errorf("replicas %q", s)
		}
		return nil
	})
	list := r.transfer()
	list[0].after = at(atDecision, func() error {
		if err := a.Kill(); err != nil {
			return err
		}
		return errLost
	})
	r.m.cfg.Fate = time.Millisecond
	if err := r.m.Commit(t.Context(), "app", writers(list...)); code(err) != pg.CodeTransactionResolutionUnknown {
		t.Fatalf("error %v", err)
	}
	if err := b.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.servers["shard_1"] = b
	r.settled(r.m)
	r.is(true)
}
