package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestMovesThatNobodyNotices: statements over shards, through each of three nodes, answer at every moment of a move what they answer without one: none is
// refused or fails, no row is met twice and none is missed, and what they write is written once.
func TestMovesThatNobodyNotices(t *testing.T) {
	c := startMovable(t)
	c.accounts(t)
	n := c.follower(t)
	const rows = 900
	setup := n.connect(t)
	var list [][]any
	for i := range rows {
		list = append(list, []any{int64(i * 3), int64(1)})
	}
	mustExecOn(t, setup, "SET rangefinder.cross_shard_writes = '2pc'")
	if _, err := setup.CopyFrom(t.Context(), pgx.Identifier{"accounts"}, []string{"id", "balance"}, pgx.CopyFromRows(list)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var asked, added atomic.Int64
	client := func(node *testNode, what string, mode pgx.QueryExecMode, each func(conn *pgx.Conn) error) {
		cfg, err := pgx.ParseConfig(node.dsn(appPassword))
		if err != nil {
			t.Fatal(err)
		}
		cfg.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustExecOn(t, conn, "SET rangefinder.cross_shard_writes = '2pc'")
		wg.Go(func() {
			defer conn.Close(context.Background())
			for failed := 0; ctx.Err() == nil && failed < 3; asked.Add(1) {
				if err := each(conn); err != nil && !errors.Is(err, context.Canceled) && ctx.Err() == nil {
					failed++
					t.Errorf("%s: %s: %v", node.cfg.Name, what, err)
				}
			}
		})
	}
	ids := func(conn interface {
		Query(context.Context, string, ...any) (pgx.Rows, error)
	}, want string, sql string, args ...any) error {
		r, err := conn.Query(t.Context(), sql, args...)
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(r, pgx.RowTo[int64])
		if err == nil && fmt.Sprint(list) != want {
			err = fmt.Errorf("%s: %v, want %s", sql, list, want)
		}
		return err
	}
	counts := fmt.Sprint([]int64{rows / 3, rows / 3, rows / 3})
	for i, node := range c.nodes {
		mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec}[i]
		client(node, "reads", mode, func(conn *pgx.Conn) error {
			return errors.Join(
				ids(conn, fmt.Sprint([]int64{rows}), "SELECT count(*) FROM accounts"),
				ids(conn, counts, "SELECT count(*) FROM accounts GROUP BY id % 9 ORDER BY id % 9"),
				ids(conn, "[0 3 6 9 12]", "SELECT id FROM accounts ORDER BY id LIMIT 5"),
				ids(conn, "[1500 300 30]", "SELECT id FROM accounts WHERE id IN ($1, $2, 1500) ORDER BY id DESC", 300, 30),
				ids(conn, "[]", "SELECT a.id FROM accounts a LEFT JOIN accounts b ON b.id = a.id WHERE b.id IS NULL"),
			)
		})
		client(node, "transactions", mode, func(conn *pgx.Conn) error {
			return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				return errors.Join(ids(tx, fmt.Sprint([]int64{rows}), "SELECT count(*) FROM accounts"), ids(tx, fmt.Sprint([]int64{rows / 3 * 2}), "SELECT count(*) FROM accounts WHERE id < 1800"))
			})
		})
	}
	client(c.nodes[0], "writes", pgx.QueryExecModeExec, func(conn *pgx.Conn) error {
		tag, err := conn.Exec(t.Context(), "UPDATE accounts SET balance = balance + 1")
		if err == nil && tag.RowsAffected() != rows {
			err = fmt.Errorf("%s", tag)
		}
		if err == nil {
			added.Add(1)
		}
		return err
	})
	pgtest.Eventually(t, 20*time.Second, func() error {
		if asked.Load() < 50 {
			return fmt.Errorf("%d statements", asked.Load())
		}
		return nil
	})
	for i, to := range []string{"shard_2", "shard_1", "shard_3"} {
		before := asked.Load()
		code, out, errs := n.admin("move", "start", "app.accounts", "..500", "--to", to, "--watch")
		if code != 0 || !strings.Contains(out, "flipped") {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
		t.Logf("move %d: %d rounds of statements beside it", i+1, asked.Load()-before)
		if i == 1 {
			code, out, errs := n.admin("move", "start", "app.accounts", "1200..1400", "--to", "shard_3")
			if code != 0 {
				t.Fatalf("exit %d\n%s%s", code, out, errs)
			}
			if code, out, errs := n.admin("move", "abort", "--watch"); code != 0 && !strings.Contains(errs, "flipped") { // it may have been that fast
				t.Errorf("abort: exit %d\n%s%s", code, out, errs)
			}
		}
	}
	stop()
	wg.Wait()
	var sum int64
	if err := setup.QueryRow(t.Context(), "SELECT sum(balance) FROM accounts").Scan(&sum); err != nil || sum < rows*(1+added.Load()) || sum > rows*(2+added.Load()) {
		t.Errorf("%d were written, %v: want %d", sum, err, rows*(1+added.Load()))
	}
}

// TestMoveWaitsForWhatWasAtWork: nothing is copied as long as a transaction is open, on whichever node, that began before its node knew of the move.
func TestMoveWaitsForWhatWasAtWork(t *testing.T) {
	c := startMovable(t)
	c.accounts(t)
	n := c.follower(t)
	old, fresh := n.connect(t), n.connect(t)
	mustExecOn(t, old, "INSERT INTO accounts (id, balance) VALUES (10, 1)")
	mustExecOn(t, old, "BEGIN")
	mustExecOn(t, old, "SELECT * FROM accounts WHERE id = 1500")
	var m MoveView
	api := newClient(t, n)
	if status, e := api.call(t, "POST", "/api/v1/moves", `{"keyspace": "app.accounts", "range": "..100", "to": "shard_3"}`, &m); status != 202 {
		t.Fatalf("%d %+v", status, e)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		v, err := n.Move(t.Context(), m.ID)
		if err == nil && (v.Step != "copy" || fmt.Sprint(v.Missing) != "["+n.cfg.Name+"]") {
			err = fmt.Errorf("step %s, waits for %v", v.Step, v.Missing)
		}
		return err
	})
	ks := n.sees(t, "app.accounts")
	if all, _ := c.countOn(t, ks, "accounts", "id", 2); all != 0 {
		t.Errorf("%d rows were copied", all)
	}
	mustExecOn(t, fresh, "BEGIN") // this one knows of the move, and nobody waits for it
	mustExecOn(t, fresh, "SELECT * FROM accounts WHERE id = 1500")
	mustExecOn(t, old, "COMMIT")
	n.owner(t, "app.accounts", "10", "shard_3")
	mustExecOn(t, fresh, "COMMIT")
}

func mustExecOn(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
