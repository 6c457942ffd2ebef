package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// replicaReigns has this node believe that a shard's replica has been promoted.
func (s *spread) replicaReigns(shard int) {
	s.t.Helper()
	name := fmt.Sprintf("shard_%d", shard+1)
	s.promoted(name+"-replica", 2)
	pgtest.Eventually(s.t, patience, func() error {
		if w := s.handle.Load().Slot(name).Candidates().Writes; len(w) == 0 || w[0].Backend.Name != name+"-replica" {
			return errors.New("the replica is not the primary yet")
		}
		return nil
	})
}

// failsOver has a shard's primary die and its replica be promoted.
func (s *spread) failsOver(shard int) {
	s.t.Helper()
	if err := s.servers[shard].primary.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.servers[shard].replica.Promote(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	s.replicaReigns(shard)
}

// writer is a client that is warned.
type writer struct {
	*pgx.Conn
	warned atomic.Int32
}

func (s *spread) writer(mode pgx.QueryExecMode) *writer {
	s.t.Helper()
	cfg, err := pgx.ParseConfig(s.dsn())
	if err != nil {
		s.t.Fatal(err)
	}
	w := new(writer)
	cfg.DefaultQueryExecMode = mode
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Code == "01000" && strings.Contains(n.Message, "last write is not known") {
			w.warned.Add(1)
		}
	}
	if w.Conn, err = pgx.ConnectConfig(s.ctx, cfg); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { w.Close(context.Background()) })
	return w
}

// waysOverShards are ways to write on two shards.
func (s *spread) waysOverShards() map[string]func(w *writer, id int) error {
	one, two := fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, $1)", s.one), fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, $1)", s.two)
	block := func(statements ...string) func(*writer, int) error {
		return func(w *writer, id int) error {
			return pgx.BeginFunc(s.ctx, w, func(tx pgx.Tx) error {
				for _, sql := range statements {
					if _, err := tx.Exec(s.ctx, sql, id); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	return map[string]func(w *writer, id int) error{
		"from one shard to the other": block(one, two),
		"and back":                    block(two, one),
		"by one statement in a block": block(fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, $1), (%d, $1)", s.one, s.two)),
		"by one statement": func(w *writer, id int) error {
			_, err := w.Exec(s.ctx, fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, $1), (%d, $1)", s.one, s.two), id)
			return err
		},
		"by a text": func(w *writer, id int) error {
			_, err := w.Exec(s.ctx, strings.ReplaceAll(one+"; "+two, "$1", fmt.Sprint(id)), pgx.QueryExecModeSimpleProtocol)
			return err
		},
	}
}

// A shard fails over to a replica that may lack what a session has written there. The session is told so once, whatever way it writes on several shards, and
// then goes on. The node has heard of the new primary and has not seen yet how far it is: that is found out meanwhile.
func TestLossIsToldOnceOverShards(t *testing.T) {
	for name, c := range map[string]struct {
		looked       bool // at the old primary, which does not wait for replicas: so the last write counts as lost
		told, warned int
	}{"lost": {true, 1, 0}, "not known": {false, 0, 1}} {
		t.Run(name, func(t *testing.T) {
			s := ownSpread(t, 2)
			if c.looked {
				s.looks(1)
			}
			ways := s.waysOverShards()
			writers, id := make(map[string]*writer), 0
			for way, write := range ways {
				for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
					w := s.writer(mode)
					id++
					if err := write(w, id); err != nil {
						t.Fatalf("%s: %v", way, err)
					}
					writers[fmt.Sprintf("%s, %v", way, mode)] = w
				}
			}
			s.failsOver(1)
			for name, w := range writers {
				told := 0
				for range 4 {
					id++
					err := ways[strings.Split(name, ", ")[0]](w, id)
					var e *pgconn.PgError
					switch {
					case err == nil:
					case errors.As(err, &e) && e.Code == pg.CodeObjectNotInPrerequisiteState && strings.Contains(e.Message, "shard_2"):
						told++
					default:
						t.Errorf("%s: %v", name, err)
					}
				}
				if warned := int(w.warned.Load()); told != c.told || warned != c.warned {
					t.Errorf("%s: it was told %d times of the loss, want %d, and warned %d times, want %d", name, told, c.told, warned, c.warned)
				}
			}
			s.busy(t, 0)
		})
	}
}

// A statement over several shards waits for the next primary of one, and then learns that this may lack what the session has written. It says so, and the next one
// does not.
func TestLossIsFoundWhileAStatementWaits(t *testing.T) {
	s := ownSpread(t, 2)
	s.looks(1)
	insert := fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, $1), (%d, $1)", s.one, s.two)
	s.exec(insert, 1)
	s.busy(t, 0)
	s.observe(rib.Route{Backend: "shard_2-primary", State: rib.Up, Role: rib.Replica, Timeline: 1})
	pgtest.Eventually(t, patience, func() error {
		if len(s.handle.Load().Slot("shard_2").Candidates().Writes) > 0 {
			return errors.New("there is still a primary")
		}
		return nil
	})
	done := s.begin(insert, 2)
	s.busy(t, 1) // it has the first shard
	s.failsOver(1)
	if e := wantCode(t, wait(t, done), pg.CodeObjectNotInPrerequisiteState); !strings.Contains(e.Message, "shard_2") {
		t.Errorf("%+v", e)
	}
	for id := range 3 {
		s.exec(insert, 3+id)
	}
	if got := s.read("SELECT count(*)::text FROM orders WHERE id >= 2"); got != "6" {
		t.Errorf("%s rows", got)
	}
	s.busy(t, 0)
}

// Two shards have failed over, and one statement finds both losses. An error tells of one shard: what is lost of the other one is told as well.
func TestEachLossOverShardsIsTold(t *testing.T) {
	s := ownSpread(t, 3)
	keys := []int64{s.one, s.two, s.keyOn("shard_3", 1)}
	for _, shard := range []int{1, 2} {
		s.looks(shard)
		s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1)", keys[shard])
	}
	s.failsOver(1)
	s.failsOver(2)
	told := make(map[string]int)
	for range 4 {
		err := pgx.BeginFunc(s.ctx, s.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(s.ctx, "SELECT id FROM orders WHERE customer_id = $1", s.one); err != nil {
				return err
			}
			_, err := tx.Exec(s.ctx, "SELECT id FROM orders")
			return err
		})
		if err != nil {
			e := wantCode(t, err, pg.CodeObjectNotInPrerequisiteState)
			told[strings.Fields(e.Message)[1]]++
		}
	}
	if len(told) != 2 || told["shard_2"] != 1 || told["shard_3"] != 1 {
		t.Errorf("told %v times", told)
	}
	s.busy(t, 0)
}

// While nobody knows how far the new primary is, a statement over several shards waits for that, and the wait can be given up.
func TestWaitOverShardsForAPosition(t *testing.T) {
	s := newSpread(t, rigOptions{failover: patience})
	s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1)", s.two)
	s.replicaReigns(1) // it is none, and does not say how far it is
	for _, way := range []string{"canceled", "in vain"} {
		s.exec("BEGIN")
		s.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 2)", s.one)
		before := s.counts.looks("shard_2-replica")
		done := s.begin("SELECT id FROM orders WHERE customer_id = $1", s.two)
		pgtest.Eventually(t, patience, func() error {
			if s.counts.looks("shard_2-replica") == before {
				return errors.New("nobody has looked")
			}
			return nil
		})
		want := pg.CodeCannotConnectNow
		if way == "canceled" {
			want = pg.CodeQueryCanceled
			running(t, "the read", done)
			if err := s.conn.PgConn().CancelRequest(s.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if e := wantCode(t, wait(t, done), want); way == "in vain" && !strings.Contains(e.Message, "shard_2") {
			t.Errorf("%+v", e)
		}
		s.exec("ROLLBACK")
	}
	s.promoted("shard_2-primary", 3)
	s.busy(t, 0)
}
