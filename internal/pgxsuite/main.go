package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
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
	addr, end, err := startNode(ctx, farm, server, dir)
	if err != nil {
		return false, err
	}
	defer end()
	through, err := goTest(ctx, suite, addr, run, packages)
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

// startNode builds a node, starts it in front of the server, and waits until it is ready.
func startNode(ctx context.Context, farm *pgtest.Farm, server *pgtest.Server, dir string) (addr string, end func(), err error) {
	binary := filepath.Join(dir, "rangefinder")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "rangefinder").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build: %w: %s", err, out)
	}
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	config := fmt.Sprintf(`region = "here"
data_dir = %q
[ports]
postgres = %s
cluster = %s
http = %s
[probe]
user = %q
password_env = "PGX_PASSWORD"
[[databases]]
name = %q
shard = "shard_1"
[[users]]
name = %q
password_env = "PGX_PASSWORD"
[pool]
size = 100
[[backends]]
name = "shard_1-here"
shard = "shard_1"
address = %q
`, filepath.Join(dir, "data"), ports[0], ports[1], ports[2], user, database, user, server.Addr())
	file := filepath.Join(dir, "node.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", nil, err
	}
	log, err := os.Create(filepath.Join(dir, "node.log"))
	if err != nil {
		return "", nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(binary, "start", "--config", file)
	cmd.Env = append(os.Environ(), "PGX_PASSWORD="+password)
	cmd.Stdout, cmd.Stderr = log, log
	if err := farm.Start(cmd); err != nil {
		return "", nil, err
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	end = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-done
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = pgtest.Wait(ctx, 50*time.Millisecond, func() error {
		resp, err := http.Get("http://127.0.0.1:" + ports[2] + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	if err != nil {
		end()
		said, _ := os.ReadFile(log.Name())
		return "", nil, fmt.Errorf("the node does not become ready: %w: %s", err, bytes.TrimSpace(said[max(0, len(said)-2000):]))
	}
	return "127.0.0.1:" + ports[0], end, nil
}
