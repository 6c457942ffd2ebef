package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

const (
	here, there = 1, 1001 // accounts, on shard_1 and shard_2
	opening     = 1000    // of each at first
)

// accounts fills the bank: its accounts are those above, and transfers notes who has moved something.
func (b *bank) accounts(t *testing.T) {
	t.Helper()
	for i, s := range b.servers {
		if err := s.ExecIn(t.Context(), "app", "CREATE TABLE transfers (account bigint, id text, PRIMARY KEY (account, id)); GRANT ALL ON transfers TO app; GRANT SELECT ON transfers TO probe",
			fmt.Sprintf("INSERT INTO accounts VALUES (%d, %d)", here+i*(there-here), opening)); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := b.node.admin("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "1000..=shard_2",
		"--table", "app.transfers:account")
	if code != 0 || strings.Contains(out+errs, "max_prepared_transactions") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	b.node.sees(t, "app.accounts")
}

// on asks one shard's server itself, for numbers.
func (b *bank) on(t *testing.T, shard int, sql string, args ...any) (numbers []int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := b.servers[shard].ConnTo(ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	if numbers, err = pgx.CollectRows(rows, pgx.RowTo[int]); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return numbers
}

// moved checks what the two accounts have.
func (b *bank) moved(t *testing.T, sum int) {
	t.Helper()
	x, y := b.on(t, 0, "SELECT balance FROM accounts WHERE id = $1", here)[0], b.on(t, 1, "SELECT balance FROM accounts WHERE id = $1", there)[0]
	if x != opening-sum || y != opening+sum {
		t.Errorf("the accounts have %d and %d, want %d moved from %d each", x, y, sum, opening)
	}
}

// settled waits until nothing is left of any transaction.
func (b *bank) clean(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, func() error {
		if v := b.node.View().TwoPhase; len(v) > 0 {
			return fmt.Errorf("left: %+v", v)
		}
		for i := range b.servers {
			if n := b.on(t, i, "SELECT count(*)::int FROM pg_prepared_xacts")[0]; n > 0 {
				return fmt.Errorf("%s: %d prepared", b.servers[i].Name(), n)
			}
		}
		return nil
	})
}

// transfer moves an amount in one transaction.
func transfer(ctx context.Context, conn *pgx.Conn, amount int, mode pgx.QueryExecMode, id string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, x := range []struct{ account, amount int }{{here, -amount}, {there, amount}} {
		if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $1 WHERE id = $2", mode, x.amount, x.account); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO transfers (account, id) VALUES ($1, $2)", mode, x.account, id); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func TestTransfersBetweenShards(t *testing.T) {
	b := startBank(t, 20, 20)
	b.accounts(t)
	conn := b.node.connect(t)
	sum := 0
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		if err := transfer(t.Context(), conn, 10, mode, fmt.Sprintf("mode %d", i)); err != nil {
			t.Errorf("%v: %v", mode, err)
			continue
		}
		sum += 10
		b.moved(t, sum)
	}

	t.Run("in one string", func(t *testing.T) {
		sql := fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - 10 WHERE id = %d; UPDATE accounts SET balance = balance + 10 WHERE id = %d; COMMIT", here, there)
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
		sum += 10
		b.moved(t, sum)
	})
	t.Run("in one string without BEGIN", func(t *testing.T) {
		sql := fmt.Sprintf("UPDATE accounts SET balance = balance - 10 WHERE id = %d; UPDATE accounts SET balance = balance + 10 WHERE id = %d", here, there)
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
		sum += 10
		b.moved(t, sum)
		if _, err := conn.PgConn().Exec(t.Context(), sql+"; SELECT 1/0").ReadAll(); sqlstate(err) != "22012" {
			t.Errorf("with an error at its end: %v", err)
		}
		b.moved(t, sum)
	})
	t.Run("in a pipeline", func(t *testing.T) {
		batch := new(pgx.Batch)
		batch.Queue("UPDATE accounts SET balance = balance - 10 WHERE id = $1", here)
		batch.Queue("UPDATE accounts SET balance = balance + 10 WHERE id = $1", there)
		if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatal(err)
		}
		sum += 10
		b.moved(t, sum)
	})
	t.Run("rolled back", func(t *testing.T) {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []int{here, there} {
			if _, err := tx.Exec(t.Context(), "UPDATE accounts SET balance = 0 WHERE id = $1", id); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.moved(t, sum)
	})
	t.Run("one shard cannot", func(t *testing.T) {
		if err := transfer(t.Context(), conn, 10, pgx.QueryExecModeExec, "mode 0"); sqlstate(err) != "23505" { // that is there
			t.Errorf("error %v", err)
		}
		b.moved(t, sum)
	})
	t.Run("refused", func(t *testing.T) {
		other := b.node.connect(t)
		if _, err := other.Exec(t.Context(), "SET rangefinder.cross_shard_writes = 'refuse'"); err != nil {
			t.Fatal(err)
		}
		err := transfer(t.Context(), other, 10, pgx.QueryExecModeExec, "refused")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != pg.CodeFeatureNotSupported || !strings.Contains(pe.Hint, `cross_shard_writes = "2pc"`) {
			t.Errorf("error %+v", pe)
		}
		b.moved(t, sum)
	})
	b.clean(t)
	if m := b.metrics(t); !strings.Contains(m, fmt.Sprintf("\nrangefinder_twophase_total{outcome=\"committed\"} %d\n", sum/10)) {
		t.Errorf("metrics do not show %d transactions", sum/10)
	}
}

// Two transactions that lock the same rows in another order wait for each other, and no server sees it: on one node, and on two.
func TestDeadlockOverShards(t *testing.T) {
	b := startBank(t, 20, 20)
	b.accounts(t)
	cfg := testConfig(t, "fra", b.node.port().Addr())
	cfg.Databases, cfg.Users, cfg.Probe = b.node.cfg.Databases, b.node.cfg.Users, b.node.cfg.Probe
	other := newNode(t, cfg, clusterEnv()).open(t)
	other.settled(t, 2, 2)
	other.sees(t, "app.accounts")
	t.Run("on one node", func(t *testing.T) { b.deadlock(t, b.node.connect(t), b.node.connect(t)) })
	t.Run("on two nodes", func(t *testing.T) { b.deadlock(t, b.node.connect(t), other.connect(t)) })
	b.clean(t)
}

// deadlock has two clients lock the two accounts in another order.
func (b *bank) deadlock(t *testing.T, one, two *pgx.Conn) {
	t.Helper()
	had := b.on(t, 0, "SELECT balance FROM accounts WHERE id = $1", here)[0]
	lock := func(conn *pgx.Conn, id int) error {
		_, err := conn.Exec(t.Context(), "UPDATE accounts SET balance = balance + 1 WHERE id = $1", id)
		return err
	}
	for conn, id := range map[*pgx.Conn]int{one: here, two: there} {
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if err := lock(conn, id); err != nil {
			t.Fatal(err)
		}
	}
	errs := make(chan error, 2)
	commit := func(conn *pgx.Conn, id int) {
		err := lock(conn, id)
		if err == nil {
			_, err = conn.Exec(t.Context(), "COMMIT")
		} else {
			_, _ = conn.Exec(t.Context(), "ROLLBACK")
		}
		errs <- err
	}
	go commit(one, there)
	go commit(two, here)
	first, second := <-errs, <-errs
	if first == nil {
		first, second = second, first
	}
	if sqlstate(first) != pg.CodeDeadlockDetected || second != nil {
		t.Errorf("errors %v and %v, want one deadlock", first, second)
	}
	x, y := b.on(t, 0, "SELECT balance FROM accounts WHERE id = $1", here)[0], b.on(t, 1, "SELECT balance FROM accounts WHERE id = $1", there)[0]
	if x != had+1 || y != had+1 {
		t.Errorf("the accounts have %d and %d, want one more than %d each", x, y, had)
	}
}
