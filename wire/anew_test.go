package wire_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// anew makes the database app anew on each shard, as a copy of one that the server keeps for that, and waits until the replicas have it.
func anew(t *testing.T, shards []shardServers) {
	t.Helper()
	ctx, errs := ctxOf(t), make([]error, len(shards))
	var wg sync.WaitGroup
	for i, s := range shards {
		wg.Go(func() {
			var lsn string
			errs[i] = admins.ask(ctx, s.primary, func(conn *pgx.Conn) (err error) {
				lsn, err = s.anew(ctx, conn, i == 0)
				return err
			})
			if errs[i] == nil && s.replica != nil {
				errs[i] = admins.ask(ctx, s.replica, func(conn *pgx.Conn) error { return replayed(ctx, conn, lsn) })
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// anew returns where the primary's WAL is then. The first shard has a table more: one of no keyspace.
func (s *shardServers) anew(ctx context.Context, conn *pgx.Conn, first bool) (lsn string, err error) {
	original := "app_original"
	if first {
		original = "app_original_first"
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1", original).Scan(&there); err != nil {
		return "", err
	}
	if !there {
		if err := s.original(ctx, conn, original, first); err != nil {
			return "", err
		}
	}
	for _, sql := range []string{"DROP DATABASE IF EXISTS app WITH (FORCE)", "CREATE DATABASE app TEMPLATE " + original + " STRATEGY file_copy"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("%s: %w", sql, err)
		}
	}
	return lsn, conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&lsn)
}

func (s *shardServers) original(ctx context.Context, conn *pgx.Conn, name string, first bool) error {
	for _, sql := range []string{"DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$", "CREATE DATABASE " + name} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	sql := []string{
		"CREATE TABLE orders (customer_id bigint NOT NULL, id bigint NOT NULL, item text, PRIMARY KEY (customer_id, id))",
		"CREATE TABLE countries (code text PRIMARY KEY, name text)", "GRANT ALL ON countries TO app",
		"GRANT ALL ON orders TO app", "GRANT ALL ON SCHEMA public TO app",
	}
	if first {
		sql = append(sql, "CREATE TABLE notes (id int PRIMARY KEY, body text)", "GRANT ALL ON notes TO app")
	}
	return s.primary.ExecIn(ctx, name, sql...)
}

// replayed waits until a replica has replayed the WAL so far.
func replayed(ctx context.Context, conn *pgx.Conn, lsn string) error {
	var failed error
	waited := pgtest.Wait(ctx, 2*time.Millisecond, func() error {
		var there bool
		failed = conn.QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)", lsn).Scan(&there)
		if failed == nil && !there {
			return errors.New("the replica has not replayed it yet")
		}
		return nil
	})
	return errors.Join(failed, waited)
}

// adminConns are connections to servers that outlive a rig: a new one takes a server longer than all that rigs ask it.
type adminConns struct {
	mu   sync.Mutex
	idle map[*pgtest.Server]*pgx.Conn
}

var admins = adminConns{idle: make(map[*pgtest.Server]*pgx.Conn)}

// ask asks over a server's connection, and once more over a new one if that fails: the server may have been started anew.
func (a *adminConns) ask(ctx context.Context, s *pgtest.Server, f func(*pgx.Conn) error) error {
	a.mu.Lock()
	conn := a.idle[s]
	delete(a.idle, s)
	a.mu.Unlock()
	for {
		var err error
		kept := conn != nil
		if !kept {
			if conn, err = s.Conn(ctx); err != nil {
				return err
			}
		}
		if err = f(conn); err == nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.idle[s] = conn
			return nil
		}
		_ = conn.Close(ctx)
		conn = nil
		if !kept || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", s.Name(), err)
		}
	}
}
