package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

const (
	user     = "pgx"
	password = "secret"
	database = "pgx_test"
)

func main() {
	run := flag.String("run", "", "only tests whose names match, as go test takes it")
	packages := flag.String("packages", "./...", "packages of pgx, with commas between them")
	verbose := flag.Bool("v", false, "print the output of tests that fail through the node alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	same, err := compare(ctx, *run, strings.Split(*packages, ","), *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgxsuite:", err)
		os.Exit(2)
	}
	if !same {
		os.Exit(1)
	}
}

// compare runs the suite both ways. It returns false if there are differences that are not known.
func compare(ctx context.Context, run string, packages []string, verbose bool) (bool, error) {
	dir, err := os.MkdirTemp("", "pgxsuite")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	suite := filepath.Join(dir, "pgx")
	if err := copyModule(ctx, "github.com/jackc/pgx/v5", suite); err != nil {
		return false, err
	}
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return false, err
	}
	defer farm.Close()
	server, err := farm.Primary(ctx, pgtest.Options{Name: "shard_1", Auth: "scram-sha-256", Params: map[string]string{"max_connections": "200"}})
	if err != nil {
		return false, err
	}
	if err := server.CreateUser(ctx, user, password, "SUPERUSER"); err != nil {
		return false, err
	}
	setup, err := os.ReadFile(filepath.Join(suite, "testsetup", "postgresql_setup.sql"))
	if err != nil {
		return false, err
	}
	if err := freshDatabase(ctx, server, string(setup)); err != nil {
		return false, err
	}
	direct, err := goTest(ctx, suite, server.Addr(), run, packages)
	if err != nil {
		return false, fmt.Errorf("PostgreSQL alone: %w", err)
	}
	if err := freshDatabase(ctx, server, string(setup)); err != nil {
		return false, err
	}
	own := filepath.Join(farm.Dir(), "node")
	if err := os.Mkdir(own, 0o700); err != nil {
		return false, err
	}
	node, err := program.PrepareNode(ctx, program.NodeConfig{
		Dir: own, User: user, Password: password, Database: database, Servers: []*pgtest.Server{server}, More: "[pool]\nsize = 100\n",
	})
	if err != nil {
		return false, err
	}
	starting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	process, err := node.Start(starting, farm)
	if err != nil {
		return false, err
	}
	defer process.Stop(syscall.SIGTERM)
	through, err := goTest(ctx, suite, node.Addr, run, packages)
	if err != nil {
		return false, fmt.Errorf("through a node: %w", err)
	}
	return report(os.Stdout, direct, through, verbose), nil
}

// freshDatabase makes the suite's database anew.
func freshDatabase(ctx context.Context, server *pgtest.Server, setup string) error {
	if err := server.Exec(ctx, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)", "CREATE DATABASE "+database+" OWNER "+user); err != nil {
		return err
	}
	// Roles outlive the database, and are made once.
	server.Exec(ctx, `CREATE USER " tricky, ' } "" \\ test user " SUPERUSER PASSWORD 'secret'`)
	var wanted []string
	for line := range strings.Lines(setup) {
		if strings.HasPrefix(line, "create extension") || strings.HasPrefix(line, "create domain") {
			wanted = append(wanted, line)
		}
	}
	return server.ExecIn(ctx, database, wanted...)
}

// copyModule copies a module that this one requires, so that its tests can be run.
func copyModule(ctx context.Context, module, to string) error {
	from, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("go list %s: %w", module, err)
	}
	if err := os.CopyFS(to, os.DirFS(strings.TrimSpace(string(from)))); err != nil {
		return err
	}
	return filepath.Walk(to, func(path string, info os.FileInfo, err error) error { // the module cache is read-only
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode()|0o200)
	})
}
