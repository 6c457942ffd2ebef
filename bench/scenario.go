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
	benchDatabase = "bench" // the node's: a shard has the rows that the keyspace gives it
	plainDatabase = "plain" // the others', on the same two servers: as many rows, but the first half on one and the rest on the other

	tableRows   = 200_000 // of pgbench_accounts on both servers together, and of big
	maxClients  = 64
	idleClients = 5000
)

// script is pgbench's -S, and looks at the answer. A row that is missing fails the \gset, a wrong one the division. from and to are
// given by -D.
var script = fmt.Sprintf(`\set aid random(:from, :to)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid \gset
\if :abalance <> %s
SELECT 1/0 AS the_answer_was_wrong
\endif
`, balance(":aid"))

// balance is what a row holds: nobody guesses it who has not read the right one.
func balance(aid string) string { return aid + " * 7919 % 999983" }

// scenario is two PostgreSQL servers with half of the rows each, and the targets.
//
// Each target has both servers behind it, and gets half of its work from each. The servers have the same addresses, as if each had a machine
// of its own: those whose clients ask both by turns would pay for the processor's branch prediction otherwise, the others less.
type scenario struct {
	farm    *pgtest.Farm
	servers [2]*pgtest.Server
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
	if err := farm.FixedAddresses(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: the servers have addresses of their own, so statements that go to both by turns take longer:", err)
	}
	even := rib.EvenRanges([]string{"shard_1", "shard_2"})
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	var errs [2]error
	for i, r := range even {
		mine := hash.Predicate([]string{"aid"}, []rib.Type{rib.TypeInt}, r.From, r.To)
		wg.Go(func() { s.servers[i], errs[i] = s.server(ctx, i, r.Shard, mine) })
	}
	wg.Wait()
	if err = errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Dir(s.servers[0].LogFile()))
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != uint32(os.Geteuid()) {
		s.owner = program.User{UID: owner.Uid, GID: owner.Gid}
	}
	conn, err := s.servers[0].Conn(ctx)
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

// half is the first and the last row that is on a server in the database plain.
func half(i int) (from, to int) { return i*tableRows/2 + 1, (i + 1) * tableRows / 2 }

// server starts one server. The node's database has those rows of pgbench_accounts for which the condition holds, the others' the same
// number of rows. big, which nobody shards, is on the first server.
func (s *scenario) server(ctx context.Context, i int, name, mine string) (*pgtest.Server, error) {
	pg, err := s.farm.Primary(ctx, pgtest.Options{Name: name, Params: map[string]string{"shared_buffers": "256MB", "max_connections": "300", "autovacuum": "off"}})
	if err != nil {
		return nil, err
	}
	if err := pg.CreateUser(ctx, benchUser, benchPassword, ""); err != nil {
		return nil, err
	}
	from, to := half(i)
	for database, rows := range map[string]string{benchDatabase: mine, plainDatabase: fmt.Sprintf("aid BETWEEN %d AND %d", from, to)} {
		if err := pg.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+benchUser); err != nil {
			return nil, err
		}
		tables := fmt.Sprintf(`
			SET ROLE %s;
			CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
			INSERT INTO pgbench_accounts SELECT aid, 1, %s, '' FROM generate_series(1, %d) AS aid WHERE %s;`,
			benchUser, balance("aid::bigint"), tableRows, rows)
		if i == 0 {
			tables += fmt.Sprintf(`
			CREATE TABLE big AS SELECT aid, 1 AS bid, %s AS abalance, ''::char(84) AS filler FROM generate_series(1, %d) AS aid`,
				balance("aid::bigint"), tableRows)
		}
		if err := pg.ExecIn(ctx, database, tables, "VACUUM ANALYZE"); err != nil {
			return nil, err
		}
	}
	return pg, nil
}

func (s *scenario) close() {
	for _, t := range s.targets {
		t.stop()
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
