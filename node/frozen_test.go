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
)

// A server freezes while statements wait for it. Its observer finds that out within three probes, tells the others, and each node takes
// its statements away from there: the reads of the replica are answered by the primary, also without a client noticing; the write to the
// primary, of which the node of another region has only heard, has an error that says that its fate is unknown.
func TestServersFreezeUnderStatements(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	if err := errors.Join(
		primary.CreateUser(ctx, "app", appPassword, ""), primary.CreateUser(ctx, "probe", probePassword, ""),
		primary.Exec(ctx, "CREATE DATABASE app OWNER app"),
	); err != nil {
		t.Fatal(err)
	}
	if err := primary.ExecIn(ctx, "app", schema,
		"CREATE VIEW slow AS SELECT CASE WHEN pg_is_in_recovery() THEN (SELECT 'replica' FROM pg_sleep(600)) ELSE 'primary' END AS who",
		"GRANT ALL ON slow TO app"); err != nil {
		t.Fatal(err)
	}
	replica := pgtest.NewReplica(t, primary, pgtest.Options{Auth: "scram-sha-256"})
	if err := replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	var nodes []*testNode
	var join []string
	for i, s := range []*pgtest.Server{primary, replica} {
		cfg := testConfig(t, testRegions[i], join...)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		cfg.Backends = []Backend{{Name: testRegions[i] + "-db", Shard: "shard_1", Address: s.Addr()}}
		nodes = append(nodes, newNode(t, cfg, clusterEnv()).open(t))
		join = []string{nodes[0].port().Addr()}
	}
	node := nodes[1] // beside the replica
	pgtest.Eventually(t, 30*time.Second, func() error {
		slot := node.fib.Load().Slot("shard_1")
		if slot == nil || len(slot.Candidates().Reads) != 2 || slot.Candidates().Reads[0].Backend.Name != testRegions[1]+"-db" || len(slot.Candidates().Writes) != 1 {
			return errors.New("the replica is not the closest yet, or the primary not known")
		}
		return nil
	})
	running := func(s *pgtest.Server, n int) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			c, err := s.Conn(ctx)
			if err != nil {
				return err
			}
			defer c.Close(ctx)
			found := 0
			if err := c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'").Scan(&found); err != nil || found == n {
				return err
			}
			return fmt.Errorf("%d statements run, want %d", found, n)
		})
	}
	// Three probes, one a second, the last of which waits for its timeout; a sweep; a second for the node's own question; a busy machine.
	p := node.setup.Load().probes()
	limit := time.Duration(p.Fall)*p.Interval*11/10 + p.Timeout + 500*time.Millisecond + time.Second + 3*time.Second

	const readers = 4
	answers := make(chan error, readers)
	for range readers {
		conn := node.connect(t)
		go func() {
			var who string
			err := conn.QueryRow(ctx, "SELECT who FROM slow").Scan(&who)
			if err == nil && who != "primary" {
				err = errors.New("answered by the " + who)
			}
			answers <- err
		}()
	}
	writer := node.connect(t)
	wrote := make(chan error, 1)
	go func() {
		_, err := writer.Exec(ctx, "INSERT INTO settings SELECT 'x', pg_sleep(600)::text")
		wrote <- err
	}()
	running(replica, readers)
	running(primary, 1)

	began := time.Now()
	if err := replica.Freeze(); err != nil {
		t.Fatal(err)
	}
	for range readers {
		if err := <-answers; err != nil {
			t.Errorf("a read: %v", err)
		}
	}
	took := time.Since(began)
	t.Logf("reads went on after %v", took)
	if took > limit {
		t.Errorf("it took %v, more than %v", took, limit)
	}
	if err := replica.Thaw(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if down := node.fib.Load().Slot("shard_1").Candidates().Down; len(down) > 0 {
			return errors.New("the replica is still down")
		}
		return nil
	})
	select {
	case err := <-wrote:
		t.Fatalf("the write: %v", err)
	default:
	}

	began = time.Now()
	if err := primary.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer primary.Thaw()
	var pe *pgconn.PgError
	if err := <-wrote; !errors.As(err, &pe) || pe.Code != "08007" || !strings.Contains(pe.Message, "unknown") || pe.Hint == "" {
		t.Errorf("the write: %v", err)
	}
	took = time.Since(began)
	t.Logf("the write ended after %v", took)
	if took > limit {
		t.Errorf("it took %v, more than %v", took, limit)
	}
	// The same session's look whether it took effect is for who may know. Reads of any copy go on.
	const read = "SELECT count(*) FROM settings"
	if _, err := writer.Exec(ctx, read, pgx.QueryExecModeExec); !errors.As(err, &pe) || pe.Code != "57P03" || !strings.Contains(pe.Hint, "has to see what the session wrote") {
		t.Errorf("a look while there is no primary: %v", err)
	}
	if _, err := writer.Exec(ctx, "SET rangefinder.read_consistency = 'eventual'"); err != nil {
		t.Error(err)
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		_, err := writer.Exec(ctx, read, pgx.QueryExecModeExec)
		return err
	})
}
