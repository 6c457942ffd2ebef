package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
	"rangefinder/rib"
)

// soakPool is the node's number of connections to one backend.
const soakPool = 40

// servers are two shards, each a primary with a replica.
type servers struct {
	primaries, replicas [2]*pgtest.Server
}

func (v *servers) all() []*pgtest.Server { return append(v.primaries[:], v.replicas[:]...) }

func soakServers(ctx context.Context, farm *pgtest.Farm, rows int) (*servers, error) {
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return nil, err
	}
	v := new(servers)
	var wg sync.WaitGroup
	var errs [2]error
	for i, r := range rib.EvenRanges([]string{"shard_1", "shard_2"}) {
		mine := hash.Predicate([]string{"id"}, []rib.Type{rib.TypeInt}, r.From, r.To)
		wg.Go(func() { errs[i] = v.start(ctx, farm, i, r.Shard, mine, rows) })
	}
	wg.Wait()
	return v, errors.Join(errs[:]...)
}

func (v *servers) start(ctx context.Context, farm *pgtest.Farm, i int, shard, mine string, rows int) error {
	params := map[string]string{"max_connections": "100"}
	primary, err := farm.Primary(ctx, pgtest.Options{Name: shard + "-primary", Params: params})
	if err != nil {
		return err
	}
	if err := primary.CreateUser(ctx, benchUser, benchPassword, ""); err != nil {
		return err
	}
	if err := primary.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser); err != nil {
		return err
	}
	err = primary.ExecIn(ctx, benchDatabase, fmt.Sprintf(`
		SET ROLE %s;
		CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL, mark int NOT NULL) WITH (fillfactor = 50);
		INSERT INTO counters SELECT id, 0, id::bigint * 7919 %% 999983 FROM generate_series(1, %d) AS id WHERE %s;
		CREATE TABLE sink (id int, body text);
		CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
		CREATE TRIGGER drop_row BEFORE INSERT ON sink FOR EACH ROW EXECUTE FUNCTION drop_row()`, benchUser, rows, mine))
	if err != nil {
		return err
	}
	replica, err := farm.Replica(ctx, primary, pgtest.Options{Name: shard + "-replica", Params: params})
	v.primaries[i], v.replicas[i] = primary, replica
	return err
}

// startNode builds the router and starts it in front of the servers.
func (s *soak) startNode(ctx context.Context) error {
	dir := filepath.Join(s.farm.Dir(), "node")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	tables := func(limits string) string {
		return fmt.Sprintf(`[console]
users = [%q]
[pool]
size = %d
wait = "30s"
[limits]
clients = %d
%s`, benchUser, soakPool, s.clients+200, limits)
	}
	node, err := program.PrepareNode(ctx, program.NodeConfig{
		Dir: dir, User: benchUser, Password: benchPassword, Database: benchDatabase, Servers: s.servers.all(), More: tables(`statement_timeout = "5s"`),
	})
	if err != nil {
		return err
	}
	s.unhurried = func(ctx context.Context) error {
		return errors.Join(node.Configure(tables("")), s.console(ctx, "RELOAD", func(map[string]any) {}))
	}
	s.addr, s.admin, s.log = node.Addr, node.Admin, node.Log
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if s.node, err = node.Start(ctx, s.farm); err != nil {
		return err
	}
	if err := makeKeyspace(ctx, node, "counters", "id"); err != nil {
		return err
	}
	return pgtest.Wait(ctx, 50*time.Millisecond, func() error { // rows of both shards
		conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", benchUser, benchPassword, s.addr, benchDatabase))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		for id := 1; id <= 20; id++ {
			var n, m int
			if err := conn.QueryRow(ctx, readSQL, id).Scan(&n, &m); err != nil || m != mark(id) {
				return fmt.Errorf("row %d: %d, %w", id, m, err)
			}
		}
		return nil
	})
}

// outside is what can be seen of the node and its servers from outside.
type outside struct {
	rss        int64 // bytes
	goroutines int
	sessions   int            // of the soak's database
	servers    map[string]int // connections, by server
	working    []string       // those that are not idle
}

func (s *soak) outside(ctx context.Context) (x outside, err error) {
	if x.rss, err = rss(tree(s.node.PID())); err != nil {
		return x, err
	}
	body, err := text(ctx, s.admin+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return x, err
	}
	if _, err := fmt.Sscanf(body, "goroutine profile: total %d", &x.goroutines); err != nil {
		return x, err
	}
	if x.sessions, err = s.sessions(ctx); err != nil {
		return x, err
	}
	x.servers = make(map[string]int)
	for _, server := range s.servers.all() {
		conn, err := server.Conn(ctx)
		if err != nil { // it is being restarted
			continue
		}
		rows, _ := conn.Query(ctx, "SELECT coalesce(state, '') || ': ' || query FROM pg_stat_activity WHERE usename = $1 AND datname = $2", benchUser, benchDatabase)
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		conn.Close(ctx)
		if err != nil {
			continue
		}
		x.servers[server.Name()] = len(found)
		for _, state := range found {
			if !strings.HasPrefix(state, "idle: ") {
				x.working = append(x.working, server.Name()+" "+state)
			}
		}
	}
	return x, nil
}

// console runs a command there and calls row for each row of its answer, with the values by name.
func (s *soak) console(ctx context.Context, command string, row func(map[string]any)) error {
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/rangefinder?sslmode=disable&default_query_exec_mode=simple_protocol", benchUser, benchPassword, s.addr))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, command)
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	for _, r := range all {
		row(r)
	}
	return err
}

func (s *soak) sessions(ctx context.Context) (n int, err error) {
	err = s.console(ctx, "SHOW CLIENTS", func(r map[string]any) {
		if r["database"] == benchDatabase {
			n++
		}
	})
	return n, err
}

func text(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// restart is the fault of a soak: one server, in one of two ways.
func (s *soak) restart(ctx context.Context, server *pgtest.Server, crash bool) error {
	s.disturbedUntil.Store(time.Now().Add(time.Hour).UnixNano())
	defer func() { s.disturbedUntil.Store(time.Now().Add(afterFault).UnixNano()) }()
	if !crash {
		return server.Restart(ctx)
	}
	if err := server.Kill(); err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	return server.Start(ctx)
}

// stopNode ends the node as an operator would.
func (s *soak) stopNode() error {
	if code := s.node.Stop(syscall.SIGTERM); code != 0 {
		return fmt.Errorf("the node ended with code %d", code)
	}
	return nil
}

// drain reads an answer without looking at it, and returns how many bytes it had.
func drain(conn net.Conn) (total int64, err error) {
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return total, err
		}
		n := int64(uint32(header[1])<<24|uint32(header[2])<<16|uint32(header[3])<<8|uint32(header[4])) - 4
		if header[0] == 'E' {
			b := make([]byte, min(n, 4096))
			_, _ = io.ReadFull(conn, b)
			return total, fmt.Errorf("error: %q", b)
		}
		if _, err := io.CopyN(io.Discard, conn, n); err != nil {
			return total, err
		}
		total += n + 5
		if header[0] == 'Z' {
			return total, nil
		}
	}
}

// makeKeyspace shards a table over both shards by the hash of an int column, once the node can.
func makeKeyspace(ctx context.Context, node *program.Node, table, key string) error {
	return pgtest.Wait(ctx, 200*time.Millisecond, func() error {
		cmd := exec.CommandContext(ctx, node.Binary, "keyspace", "create", benchDatabase+"."+table,
			"--key", key, "--type", "int", "--method", "hash", "--shards", "shard_1,shard_2")
		cmd.Env = append(os.Environ(), node.Env...)
		if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "already") {
			return fmt.Errorf("keyspace create: %w: %s", err, out)
		}
		return nil
	})
}
