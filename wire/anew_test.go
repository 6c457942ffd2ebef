package wire_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// anew makes the database app anew on each shard, and waits until the replicas have it.
func anew(t *testing.T, shards []shardServers) {
	t.Helper()
	ctx, errs := ctxOf(t), make([]error, len(shards))
	var wg sync.WaitGroup
	for i, s := range shards {
		wg.Go(func() {
			errs[i] = s.primary.Ask(ctx, func(conn *pgx.Conn) error { return s.anew(ctx, conn, i == 0) })
			if errs[i] == nil && s.replica != nil {
				errs[i] = s.replica.CaughtUp(ctx)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// anew copies the database from one that the server keeps for that. The first shard has a table more: one of no keyspace.
func (s *shardServers) anew(ctx context.Context, conn *pgx.Conn, first bool) error {
	original := "app_original"
	if first {
		original = "app_original_first"
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1", original).Scan(&there); err != nil {
		return err
	}
	if !there {
		if err := s.original(ctx, conn, original, first); err != nil {
			return err
		}
	}
	for _, sql := range []string{"DROP DATABASE IF EXISTS app WITH (FORCE)", "CREATE DATABASE app TEMPLATE " + original + " STRATEGY file_copy"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
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
