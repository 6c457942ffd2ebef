package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
	"rangefinder/rib"
)

const (
	benchUser     = "bench"
	benchPassword = "bench"
	benchDatabase = "bench"

	tableRows   = 200_000 // of pgbench_accounts, and of big
	maxClients  = 64
	idleClients = 5000
)

// script is pgbench's -S, and looks at the answer. A row that is missing fails the \gset, a wrong one the division.
var script = fmt.Sprintf(`\set aid random(1, %d)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid \gset
\if :abalance <> %s
SELECT 1/0 AS the_answer_was_wrong
\endif
`, tableRows, balance(":aid"))

// balance is what a row holds: nobody guesses it who has not read the right one.
func balance(aid string) string { return aid + " * 7919 % 999983" }

// scenario is a whole table on one PostgreSQL server, the same rows shared out between two others, and the targets.
//
// The node has the two shards behind it, everything else the one server: each statement is the same work for PostgreSQL either
// way, on the same processors, and servers that nobody asks cost nothing.
type scenario struct {
	farm    *pgtest.Farm
	whole   *pgtest.Server
	halves  [2]*pgtest.Server
	owner   program.User // who owns the servers, and runs the peers
	secret  string       // what PostgreSQL stores of the password
	script  string       // file
	targets []*target
}

// newScenario starts the servers and makes the rows. Targets are added by the caller.
func newScenario(ctx context.Context) (s *scenario, err error) {
	if err := raiseFiles(); err != nil {
		return nil, fmt.Errorf("raise the limit of open files: %w", err)
	}
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return nil, err
	}
	s = &scenario{farm: farm}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	even := rib.EvenRanges([]string{"shard_1", "shard_2"})
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	var errs [3]error
	wg.Go(func() { s.whole, errs[2] = s.server(ctx, "whole", "true") })
	for i, r := range even {
		rows := hash.Predicate([]string{"aid"}, []rib.Type{rib.TypeInt}, r.From, r.To)
		wg.Go(func() { s.halves[i], errs[i] = s.server(ctx, r.Shard, rows) })
	}
	wg.Wait()
	if err = errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Dir(s.whole.LogFile()))
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != uint32(os.Geteuid()) {
		s.owner = program.User{UID: owner.Uid, GID: owner.Gid}
	}
	conn, err := s.whole.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if err = conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", benchUser).Scan(&s.secret); err != nil {
		return nil, err
	}
	s.script = filepath.Join(farm.Dir(), "script.sql")
	return s, os.WriteFile(s.script, []byte(script), 0o600)
}

// server starts one server with those rows of pgbench_accounts for which the condition holds, and all of big.
func (s *scenario) server(ctx context.Context, name, rows string) (*pgtest.Server, error) {
	pg, err := s.farm.Primary(ctx, pgtest.Options{Name: name, Params: map[string]string{"shared_buffers": "256MB", "max_connections": "300", "autovacuum": "off"}})
	if err != nil {
		return nil, err
	}
	if err := pg.CreateUser(ctx, benchUser, benchPassword, ""); err != nil {
		return nil, err
	}
	if err := pg.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser); err != nil {
		return nil, err
	}
	return pg, pg.ExecIn(ctx, benchDatabase, fmt.Sprintf(`
		SET ROLE %s;
		CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
		INSERT INTO pgbench_accounts SELECT aid, 1, %s, '' FROM generate_series(1, %d) AS aid WHERE %s;
		CREATE TABLE big AS SELECT aid, 1 AS bid, %s AS abalance, ''::char(84) AS filler FROM generate_series(1, %d) AS aid`,
		benchUser, balance("aid::bigint"), tableRows, rows, balance("aid::bigint"), tableRows),
		"VACUUM ANALYZE")
}

func (s *scenario) close() {
	for _, t := range s.targets {
		if t.process != nil {
			t.process.Stop(t.signal)
		}
	}
	if err := s.farm.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// folder makes a folder for a target, which the peers' user may write.
func (s *scenario) folder(name string) (string, error) {
	dir := filepath.Join(s.farm.Dir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, nil
}

// give hands a folder and what is in it to the peers' user.
func (s *scenario) give(dir string) error {
	if s.owner.UID == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(s.owner.UID), int(s.owner.GID))
	})
}
