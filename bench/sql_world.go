package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
	"rangefinder/rib"
)

// sqlShards is how many shards `bench sql` has.
const sqlShards = 8

// sqlFiller makes a row of items some 110 bytes long.
var sqlFiller = strings.Repeat("x", 84)

func sqlShard(i int) string { return fmt.Sprintf("shard_%d", i+1) }

// sqlWorld is a node with eight shards, and a server that has all rows.
type sqlWorld struct {
	farm    *pgtest.Farm
	shards  []*pgtest.Server
	plain   *pgtest.Server
	node    *program.Node
	process *program.Process // nil: it does not run
}

func newSQLWorld(ctx context.Context, rows int) (w *sqlWorld, err error) {
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return nil, err
	}
	w = &sqlWorld{farm: farm, shards: make([]*pgtest.Server, sqlShards)}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	names := make([]string, sqlShards)
	for i := range names {
		names[i] = sqlShard(i)
	}
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	errs := make([]error, sqlShards+1)
	for i, r := range rib.EvenRanges(names) {
		mine := hash.Predicate([]string{"id"}, []rib.Type{rib.TypeInt}, r.From, r.To)
		wg.Go(func() { w.shards[i], errs[i] = w.server(ctx, r.Shard, rows, mine) })
	}
	wg.Go(func() { w.plain, errs[sqlShards] = w.server(ctx, "plain", rows, "true") })
	wg.Wait()
	if err = errors.Join(errs...); err != nil {
		return nil, err
	}
	dir := filepath.Join(farm.Dir(), "node")
	if err = os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	w.node, err = program.PrepareNode(ctx, program.NodeConfig{Dir: dir, User: benchUser, Password: benchPassword, Database: benchDatabase, Servers: w.shards})
	return w, err
}

// server starts a server with those rows for which the condition holds.
func (w *sqlWorld) server(ctx context.Context, name string, rows int, mine string) (*pgtest.Server, error) {
	pg, err := w.farm.Primary(ctx, pgtest.Options{Name: name, Params: map[string]string{
		"shared_buffers": "128MB", "autovacuum": "off", "max_prepared_transactions": "20", "max_wal_size": "4GB"}})
	if err != nil {
		return nil, err
	}
	if err := pg.CreateUser(ctx, benchUser, benchPassword, "SUPERUSER"); err != nil {
		return nil, err
	}
	if err := pg.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser); err != nil {
		return nil, err
	}
	tables := fmt.Sprintf(`
		SET ROLE %s;
		CREATE TABLE items (id int PRIMARY KEY, tag int NOT NULL, filler text NOT NULL);
		CREATE TABLE loaded (id int, tag int NOT NULL, filler text NOT NULL);
		INSERT INTO items SELECT id, id %% 1000, '%s' FROM generate_series(1, %d) AS id WHERE %s;
		CREATE INDEX ON items (tag, id)`, benchUser, sqlFiller, rows, mine)
	return pg, pg.ExecIn(ctx, benchDatabase, tables, "VACUUM ANALYZE")
}

// restart starts the node anew, with so much added to the way to the shards, and makes the keyspaces the first time.
func (w *sqlWorld) restart(ctx context.Context, delay time.Duration) error {
	first := w.process == nil
	if !first {
		w.process.Stop(syscall.SIGTERM)
		w.process = nil
	}
	more := "[log]\nlevel = \"warn\"\n[[hba]]\naddress = \"127.0.0.1\"\nmethod = \"trust\"\n"
	if delay > 0 {
		more += fmt.Sprintf("[[lab]]\nnet = \"127.0.0.0/8\"\nrtt = \"%s\"\n", delay)
	}
	if err := w.node.Configure(more); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if w.process, err = w.node.Start(ctx, w.farm); err != nil {
		return err
	}
	if first {
		for _, table := range []string{"items", "loaded"} {
			if err := w.keyspace(ctx, table); err != nil {
				return err
			}
		}
	}
	return pgtest.Wait(ctx, 100*time.Millisecond, func() error { // all shards are there
		c, err := w.client(ctx)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		_, err = once(ctx, c, "SELECT id FROM items WHERE tag = 7 ORDER BY id LIMIT 10", 10)
		return err
	})
}

func (w *sqlWorld) keyspace(ctx context.Context, table string) error {
	names := make([]string, sqlShards)
	for i := range names {
		names[i] = sqlShard(i)
	}
	return pgtest.Wait(ctx, 200*time.Millisecond, func() error {
		cmd := exec.CommandContext(ctx, w.node.Binary, "keyspace", "create", benchDatabase+"."+table,
			"--key", "id", "--type", "int", "--method", "hash", "--shards", strings.Join(names, ","))
		cmd.Env = append(os.Environ(), w.node.Env...)
		if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "already") {
			return fmt.Errorf("keyspace create: %w: %s", err, out)
		}
		return nil
	})
}

func (w *sqlWorld) close() {
	if w.process != nil {
		w.process.Stop(syscall.SIGTERM)
	}
	if err := w.farm.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// pids are the node's.
func (w *sqlWorld) pids() []int { return tree(w.process.PID()) }

func (w *sqlWorld) door() door      { return door{addr: w.node.Addr, database: benchDatabase} }
func (w *sqlWorld) plainDoor() door { return door{addr: w.plain.Addr(), database: benchDatabase} }
func (w *sqlWorld) shardDoor(i int) door {
	return door{addr: w.shards[i].Addr(), database: benchDatabase}
}

// client connects to the node.
func (w *sqlWorld) client(ctx context.Context) (*pgconn.PgConn, error) { return connect(ctx, w.door()) }

// writer connects to the node, and may write on several shards.
func (w *sqlWorld) writer(ctx context.Context) (*pgconn.PgConn, error) {
	c, err := w.client(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "SET rangefinder.cross_shard_writes = '2pc'").ReadAll(); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// empty empties a table on each shard.
func (w *sqlWorld) empty(ctx context.Context, table string) error {
	for _, s := range w.shards {
		if err := s.ExecIn(ctx, benchDatabase, "TRUNCATE "+table); err != nil {
			return err
		}
	}
	return nil
}

// count counts a table's rows on all shards, without the node.
func (w *sqlWorld) count(ctx context.Context, table string) (sum int, err error) {
	for _, s := range w.shards {
		c, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return 0, err
		}
		var n int
		err = c.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n)
		c.Close(ctx)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// keys returns two ids that the first shard has, and one of the second.
func (w *sqlWorld) keys(ctx context.Context) (near [2]int, far int, err error) {
	ids := func(i, n int) (ids []int, err error) {
		c, err := w.shards[i].ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return nil, err
		}
		defer c.Close(ctx)
		err = c.QueryRow(ctx, "SELECT array_agg(id) FROM (SELECT id FROM items ORDER BY id LIMIT $1) AS few", n).Scan(&ids)
		return ids, err
	}
	a, err := ids(0, 2)
	if err != nil {
		return near, 0, err
	}
	b, err := ids(1, 1)
	if err != nil {
		return near, 0, err
	}
	return [2]int{a[0], a[1]}, b[0], nil
}
