package twophase

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// shared are the servers of all tests that break none: shards "shard_1" to "shard_3".
var shared struct {
	once sync.Once
	all  []*pgtest.Server
}

// rig is three shards with a table account(id, balance), and a manager that knows them.
type rig struct {
	t       *testing.T
	servers map[string]*pgtest.Server
	m       *Manager
	user    string // whom the branches belong to
	admin   string // whom the sites belong to; "": the superuser
	db      string
}

const start = 1000 // each account's balance at first

func shardNames(n int) (names []string) {
	for i := range n {
		names = append(names, "shard_"+strconv.Itoa(i+1))
	}
	return names
}

func prepared(n int) pgtest.Options {
	return pgtest.Options{Params: map[string]string{"max_prepared_transactions": strconv.Itoa(n)}}
}

// newRig makes a database of the test's own on the shared servers.
func newRig(t *testing.T) *rig {
	shared.once.Do(func() {
		for range 3 {
			s, err := pgtest.Shared(t).Primary(t.Context(), prepared(20))
			if err != nil {
				t.Fatal(err)
			}
			shared.all = append(shared.all, s)
		}
	})
	if len(shared.all) != 3 {
		t.Fatal("the servers did not start in an earlier test")
	}
	return rigOn(t, shared.all...)
}

// rigOn makes a rig of servers.
func rigOn(t *testing.T, servers ...*pgtest.Server) *rig {
	r := &rig{t: t, servers: map[string]*pgtest.Server{}, db: "app", user: "app"}
	for i, s := range servers {
		r.servers[shardNames(3)[i]] = s
		for _, sql := range []string{
			"DROP DATABASE IF EXISTS app WITH (FORCE)", "DROP ROLE IF EXISTS app", "DROP ROLE IF EXISTS other", "DROP ROLE IF EXISTS warden",
			"CREATE ROLE app LOGIN", "CREATE ROLE other LOGIN", "GRANT other TO app", "CREATE ROLE warden LOGIN", "CREATE DATABASE app",
		} {
			if err := s.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.ExecIn(t.Context(), "app", fmt.Sprintf(`CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
			CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
			GRANT ALL ON account, parent, child TO app, other; INSERT INTO account SELECT i, %d FROM generate_series(1, 4) i`, start)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // a database with something prepared in it cannot be dropped
			if t.Failed() || s.PID() == 0 {
				return
			}
			for _, gid := range r.query(r.shardOf(s), "SELECT gid FROM pg_prepared_xacts") {
				t.Errorf("%s: left prepared: %s", s.Name(), gid)
			}
		})
	}
	r.m = r.manager("node_a")
	return r
}

func (r *rig) shardOf(s *pgtest.Server) string {
	for name, x := range r.servers {
		if x == s {
			return name
		}
	}
	return ""
}

// config is a node's, which takes what it finds for left at once.
func (r *rig) config(node string) Config {
	return Config{
		Cluster: "0123456789abcdef", Node: node, Logger: slog.New(slog.DiscardHandler), Grace: 1, Settle: 1, Keep: 1,
		Shards: func() []string { return shardNames(len(r.servers)) }, Uses: func() []string { return []string{r.db} },
		Sites: Connect(func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
			return r.servers[shard].ConnTo(ctx, database, r.admin)
		}),
	}
}

func (r *rig) manager(node string) *Manager { return New(r.config(node)) }

// query asks as the superuser, and returns the first column.
func (r *rig) query(shard, sql string) []string {
	r.t.Helper()
	ctx := context.WithoutCancel(r.t.Context())
	conn, err := r.servers[shard].ConnTo(ctx, r.db, "")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		r.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return list
}

// in is the rig in a part of its test.
func (r *rig) in(t *testing.T) *rig {
	c := *r
	c.t = t
	return &c
}

// decisions are those that a shard keeps.
func (r *rig) decisions(shard string) []string {
	r.t.Helper()
	if r.query(shard, "SELECT coalesce(to_regclass('rangefinder.decision')::text, '')")[0] == "" {
		return nil
	}
	return r.query(shard, "SELECT gid || ' commit ' || commit FROM rangefinder.decision")
}

// balance is that of account 1 on a shard.
func (r *rig) balance(shard string) int {
	r.t.Helper()
	n, err := strconv.Atoi(r.query(shard, "SELECT balance::text FROM account WHERE id = 1")[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// branch is a connection of a test's.
type branch struct {
	shard string
	conn  *pgx.Conn
	// before is asked before a statement is sent, and may lose the connection by an error; after the same, once it is done. nil: nothing
	// happens.
	before, after func(sql string) error
}

func (b *branch) Shard() string { return b.shard }

func (b *branch) Exec(ctx context.Context, sql string) (string, error) {
	if b.before != nil {
		if err := b.before(sql); err != nil {
			b.lose()
			return "", err
		}
	}
	results, err := b.conn.PgConn().Exec(ctx, sql).ReadAll()
	if b.after != nil {
		if err := b.after(sql); err != nil {
			b.lose()
			return "", err
		}
	}
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe):
		return "", &pg.Error{Severity: pe.SeverityUnlocalized, Code: pe.Code, Message: pe.Message, Detail: pe.Detail, Hint: pe.Hint, Routine: pe.Routine, Schema: pe.SchemaName, Table: pe.TableName}
	case err != nil:
		return "", err
	}
	return results[len(results)-1].CommandTag.String(), nil
}

// lose ends the connection without a word.
func (b *branch) lose() { _ = b.conn.PgConn().Conn().Close() }

var errLost = errors.New("connection lost")

// begin opens a branch in a transaction that has moved an amount to account 1, which may be less than nothing.
func (r *rig) begin(shard string, amount int) *branch {
	r.t.Helper()
	b := r.open(shard)
	r.exec(b, "BEGIN")
	r.exec(b, fmt.Sprintf("UPDATE account SET balance = balance + %d WHERE id = 1", amount))
	return b
}

func (r *rig) open(shard string) *branch {
	r.t.Helper()
	conn, err := r.servers[shard].ConnTo(r.t.Context(), r.db, r.user)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &branch{shard: shard, conn: conn}
}

func (r *rig) exec(b *branch, sql string) {
	r.t.Helper()
	if _, err := b.conn.Exec(r.t.Context(), sql); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func writers(list ...*branch) (all []Participant) {
	for _, b := range list {
		all = append(all, Participant{b, true})
	}
	return all
}

// transfer begins a transaction that moves 100 from shard_1 to shard_2.
func (r *rig) transfer() []*branch {
	return []*branch{r.begin("shard_1", -100), r.begin("shard_2", 100)}
}

// is checks the balances of shard_1 and shard_2: whether the transfer is there.
func (r *rig) is(done bool) {
	r.t.Helper()
	moved := 0
	if done {
		moved = 100
	}
	if a, b := r.balance("shard_1"), r.balance("shard_2"); a != start-moved || b != start+moved {
		r.t.Errorf("balances %d and %d, want the transfer to be there: %v", a, b, done)
	}
}

// clean checks that nothing is left: nothing prepared, no decision, nothing in the manager's books.
func (r *rig) clean(m *Manager) {
	r.t.Helper()
	for shard := range r.servers {
		if left := r.query(shard, "SELECT gid FROM pg_prepared_xacts"); len(left) > 0 {
			r.t.Errorf("%s: left prepared: %v", shard, left)
		}
		if left := r.decisions(shard); len(left) > 0 {
			r.t.Errorf("%s: decisions left: %v", shard, left)
		}
	}
	if left := m.Transactions(); len(left) > 0 {
		r.t.Errorf("left in the books: %+v", left)
	}
}

// code is an error's SQLSTATE; "": it is none of ours.
func code(err error) string {
	var pe *pg.Error
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}
