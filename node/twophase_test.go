package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// bank is a node in front of two shards whose clients may write on both in one transaction: accounts 1 to 999 are on shard_1, those from
// 1000 on on shard_2.
type bank struct {
	node    *testNode
	servers []*pgtest.Server
}

// startBank starts it; prepared is each server's max_prepared_transactions.
func startBank(t *testing.T, prepared ...int) *bank {
	t.Helper()
	return startBankWith(t, nil, prepared...)
}

// startBankWith starts one whose configuration is changed before; nil: it is not.
func startBankWith(t *testing.T, change func(*bank, *Config), prepared ...int) *bank {
	t.Helper()
	b := new(bank)
	b.serve(t, prepared...)
	file := filepath.Join(t.TempDir(), "ops.password")
	if err := os.WriteFile(file, []byte(opsPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "iad")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1", CrossShardWrites: writesTwoPhase}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}, {Name: "ops", SecretRef: SecretRef{PasswordFile: file}}}
	cfg.Console.Users = []string{"ops"}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	for i, s := range b.servers {
		cfg.Backends = append(cfg.Backends, Backend{Name: fmt.Sprintf("iad-%d", i+1), Shard: fmt.Sprintf("shard_%d", i+1), Address: s.Addr()})
	}
	if change != nil {
		change(b, &cfg)
	}
	b.node = newNode(t, cfg, clusterEnv()).open(t)
	b.node.settled(t, 1, len(prepared))
	return b
}

// serve starts the servers alone.
func (b *bank) serve(t *testing.T, prepared ...int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, most := range prepared {
		s := pgtest.NewPrimary(t, pgtest.Options{Name: fmt.Sprintf("shard_%d", i+1), Auth: "scram-sha-256", Params: map[string]string{"max_prepared_transactions": strconv.Itoa(most)}})
		if err := errors.Join(
			s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""), s.Exec(ctx, "GRANT app TO probe"),
			s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.ExecIn(ctx, "app", "GRANT CREATE ON DATABASE app TO probe", schema),
		); err != nil {
			t.Fatal(err)
		}
		b.servers = append(b.servers, s)
	}
}

// create makes the keyspace of accounts, and returns what was said about it.
func (b *bank) create(t *testing.T) string {
	t.Helper()
	code, out, errs := b.node.admin("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "1000..=shard_2")
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	b.node.sees(t, "app.accounts")
	return out + errs
}

func (b *bank) metrics(t *testing.T) string {
	t.Helper()
	_, text := b.node.get(t, "/metrics")
	return text
}

// A shard that cannot prepare is named before a client needs it.
func TestAShardThatCannotPrepareIsNamed(t *testing.T) {
	b := startBank(t, 5, 0)
	if out := b.create(t); !strings.Contains(out, "shard shard_2 cannot take part in a transaction over several shards: its max_prepared_transactions is 0") || strings.Contains(out, "shard shard_1 cannot") {
		t.Errorf("the new keyspace: %s", out)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if alarms := strings.Join(b.node.View().Alarms, "\n"); !strings.Contains(alarms, "shard shard_2 cannot take part") || !strings.Contains(alarms, "Set max_prepared_transactions in") {
			return fmt.Errorf("alarms %q", alarms)
		}
		return nil
	})
}

// What a node that is gone has left prepared holds its locks until another one has asked the shard that decides.
func TestLeftoversOfADeadNodeAreEnded(t *testing.T) {
	b := startBank(t, 5, 5)
	b.create(t)
	// A shard is looked after while its primary is drained, too: its writes have no other place.
	_, out, errs := b.node.admin("backend", "drain", "iad-2", "--timeout", "1s")
	pgtest.Eventually(t, 10*time.Second, func() error {
		if v := b.node.View().Backends; !slices.ContainsFunc(v, func(v BackendView) bool { return v.Name == "iad-2" && v.Drained != "" }) {
			return fmt.Errorf("iad-2 is not drained: %s%s", out, errs)
		}
		return nil
	})
	gid := func(n int) string {
		return fmt.Sprintf("rangefinder:%s:gone:BOOT:%d:shard_1", b.node.state.ClusterID[:8], n)
	}
	if problems := b.node.twophase.Check(t.Context(), "app", []string{"shard_1"}); len(problems) > 0 { // which makes the table there
		t.Fatal(problems)
	}
	for n := range 2 {
		conn, err := b.servers[1].ConnTo(t.Context(), "app", "app")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("BEGIN; INSERT INTO accounts VALUES (%d, 7); PREPARE TRANSACTION '%s'", 2000+n, gid(n)), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
	}
	if err := b.servers[0].ExecIn(t.Context(), "app", fmt.Sprintf("INSERT INTO rangefinder.decision (gid, commit, participants, by) VALUES ('%s', true, '{shard_1,shard_2}', 'app')", gid(0))); err != nil {
		t.Fatal(err)
	}
	// It is seen first: for so young a transaction there may still be somebody.
	pgtest.Eventually(t, time.Minute, func() error {
		out, err := b.node.consolePsql(t, "ops", opsPassword, "SHOW TWO_PHASE;")
		if err != nil || !strings.Contains(out, gid(0)+"|gone|app|shard_1,shard_2|shard_2|shard_1|preparing|") || !strings.Contains(out, "(2 rows)") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if v := b.node.View().TwoPhase; len(v) != 2 || v[0].Node != "gone" || v[0].Decision != "shard_1" {
		t.Errorf("view %+v", v)
	}
	if _, page := b.node.get(t, "/debug"); !strings.Contains(page, gid(1)) || !strings.Contains(page, "Transactions over several shards") {
		t.Error("the page does not show them")
	}
	if m := b.metrics(t); !strings.Contains(m, "\nrangefinder_twophase_open 2\n") {
		t.Error("metrics do not show two open transactions")
	}
	pgtest.Eventually(t, time.Minute, func() error {
		if v := b.node.View().TwoPhase; len(v) != 0 {
			return fmt.Errorf("left: %+v", v)
		}
		return nil
	})
	conn, err := b.servers[1].ConnTo(t.Context(), "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var left int
	var ids []int64
	if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM pg_prepared_xacts), array(SELECT id FROM accounts ORDER BY id)").Scan(&left, &ids); err != nil {
		t.Fatal(err)
	}
	if left != 0 || len(ids) != 1 || ids[0] != 2000 {
		t.Errorf("%d prepared, accounts %v, want 2000 alone: it was decided, the other was not", left, ids)
	}
	if m := b.metrics(t); !strings.Contains(m, "\nrangefinder_twophase_resolved_total 2\n") {
		t.Error("metrics do not show two that were ended")
	}
}
