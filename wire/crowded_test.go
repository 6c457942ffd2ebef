package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// crowd has all connections to all servers in use, in pools of one, by transactions that stay open. It returns what ends them.
func (r *rig) crowd() (end func()) {
	r.t.Helper()
	ctx := ctxOf(r.t)
	var open []pgx.Tx
	for _, shard := range []string{"shard_1", "shard_2"} {
		key := r.keyOn(shard, 1)
		for mode, sql := range map[pgx.TxAccessMode]string{pgx.ReadWrite: "INSERT INTO orders (customer_id, id) VALUES ($1, 1)", pgx.ReadOnly: "SELECT 1 FROM orders WHERE customer_id = $1"} {
			tx, err := r.connect(pgx.QueryExecModeExec).BeginTx(ctx, pgx.TxOptions{AccessMode: mode})
			if err == nil {
				_, err = tx.Exec(ctx, sql, key)
			}
			if err != nil {
				r.t.Fatal(err)
			}
			open = append(open, tx)
		}
	}
	for _, p := range r.pools.Stats() {
		if p.InUse != 1 {
			r.t.Fatalf("%s: %d connections are in use", p.Backend, p.InUse)
		}
	}
	return func() {
		r.t.Helper()
		for _, tx := range open {
			if err := tx.Rollback(ctx); err != nil {
				r.t.Error(err)
			}
		}
	}
}

// counting counts the connections that are open at a time to each address.
type counting struct {
	mu   sync.Mutex
	open map[string]int
	most map[string]int
}

func (c *counting) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.add(addr, 1)
	return &counted{Conn: conn, gone: sync.OnceFunc(func() { c.add(addr, -1) })}, nil
}

func (c *counting) add(addr string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[addr] += n
	c.most[addr] = max(c.most[addr], c.open[addr])
}

func (c *counting) now() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := make(map[string]int)
	for addr, n := range c.open {
		now[addr] = n
	}
	return now
}

type counted struct {
	net.Conn
	gone func()
}

func (c *counted) Close() error {
	c.gone()
	return c.Conn.Close()
}

// soon logs in, in a time in which no connection of the pool becomes free.
func soon(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctxOf(t), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("a login with %q: %v", dsn, err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// A login does not wait behind sessions that keep their connections: only its first statement does. What has to be asked for it is asked over two more
// connections to a backend at most.
func TestLoginWithAFullPool(t *testing.T) {
	dials := &counting{open: map[string]int{}, most: map[string]int{}}
	r := newRig(t, rigOptions{poolSize: 1, wait: 2 * patience, startup: 2 * patience, dial: dials.dial})
	plainDatabase(t, r.servers[0].primary, "plain")
	if err := r.servers[0].replica.CaughtUp(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	end := r.crowd()
	login := func(dsn string) *pgx.Conn { return soon(t, dsn) }
	login(r.dsn()) // who asks is not asked again for a while
	r.server.AgeFresh("app")
	waits := login(r.dsn())
	if now := dials.now(); now[r.servers[0].replica.Addr()] != 1 {
		t.Errorf("after the login there are %d connections to the replica, want the pool's", now[r.servers[0].replica.Addr()])
	}
	if got := login(r.dsn() + " datestyle=german").PgConn().ParameterStatus("DateStyle"); got != "German, DMY" {
		t.Errorf("the server's words on DateStyle are %q", got)
	}
	var pe *pgconn.PgError
	if _, err := pgx.Connect(ctxOf(t), r.dsn()+" work_mem=none"); !errors.As(err, &pe) || pe.Code != pg.CodeInvalidParameterValue {
		t.Errorf("a parameter that no server takes: %v", err)
	}
	if got := login(r.dsnOf("plain") + " search_path=nobody").PgConn().ParameterStatus("server_version"); got == "" {
		t.Error("the server has no version")
	}

	r.server.AgeFresh("app")
	r.server.AgeFresh("plain")
	var logins sync.WaitGroup
	for i := range 30 {
		logins.Go(func() {
			conn, err := pgx.Connect(ctxOf(t), fmt.Sprintf("%s work_mem=%d", r.dsnOf([]string{"app", "plain"}[i%2]), 1000+i))
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close(context.Background())
		})
	}
	logins.Wait()
	dials.mu.Lock()
	for addr, most := range dials.most {
		if most > 3 {
			t.Errorf("there were %d connections at a time to %s, want the pool's and two more", most, addr)
		}
	}
	dials.mu.Unlock()

	answered := make(chan error, 1)
	go func() {
		var n int
		answered <- waits.QueryRow(ctxOf(t), "SELECT count(*) FROM notes").Scan(&n)
	}()
	pgtest.Eventually(t, patience, func() error {
		for _, p := range r.pools.Stats() {
			if p.Waiting > 0 {
				return nil
			}
		}
		return errors.New("the statement does not wait")
	})
	select {
	case err := <-answered:
		t.Errorf("the statement got a connection: %v", err)
	default:
	}
	end()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// Where the backend itself has no connection left, what was learned before is good enough for a login; without that it waits until there is one.
func TestLoginWithAFullBackend(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, wait: 2 * patience, startup: 3 * patience, shards: alone(t)})
	server := r.servers[0].primary
	plainDatabase(t, server, "plain")
	holder := r.connect(pgx.QueryExecModeExec)
	tx, err := holder.Begin(ctxOf(t))
	if err == nil {
		_, err = tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'held')")
	}
	if err == nil {
		err = server.Exec(ctxOf(t), "ALTER ROLE app CONNECTION LIMIT 1")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Exec(context.Background(), "ALTER ROLE app CONNECTION LIMIT -1"); err != nil {
			t.Error(err)
		}
	})
	r.server.AgeFresh("app")
	soon(t, r.dsn())
	stranger := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(ctxOf(t), r.dsnOf("plain"))
		if err == nil {
			err = conn.Close(context.Background())
		}
		stranger <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		if s := r.pools.Stats(); s[0].Waiting != 1 {
			return fmt.Errorf("%d wait", s[0].Waiting)
		}
		return nil
	})
	select {
	case err := <-stranger:
		t.Errorf("nobody knows what its role begins with, and it got this: %v", err)
	default:
	}
	if err := tx.Commit(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-stranger; err != nil {
		t.Error(err)
	}
}

// A backend that refuses a user while the pool is full is named to its client as at other times.
func TestRefusedLoginWithAFullPool(t *testing.T) {
	server := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	r := newRig(t, rigOptions{poolSize: 1, wait: 2 * patience, startup: 2 * patience, shards: []shardServers{{primary: server}}})
	if err := server.Exec(ctxOf(t), "ALTER ROLE app PASSWORD '"+strings.ReplaceAll(testPassword, "'", "''")+"'"); err != nil {
		t.Fatal(err)
	}
	plainDatabase(t, server, "plain")
	tx, err := r.connect(pgx.QueryExecModeExec).Begin(ctxOf(t))
	if err == nil {
		_, err = tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'held')")
	}
	if err == nil {
		err = server.Exec(ctxOf(t), "ALTER ROLE app PASSWORD 'another'")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctxOf(t), patience)
	defer cancel()
	var pe *pgconn.PgError
	if _, err := pgx.Connect(ctx, r.dsnOf("plain")); !errors.As(err, &pe) || pe.Code != pg.CodeInvalidPassword || pe.Message != `shard_1 does not take the password of user "app"` {
		t.Errorf("a password that is not the server's: %v", err)
	}
}
