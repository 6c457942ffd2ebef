package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// A client that was told a statement's columns is not given other ones, on whatever connection the statement is prepared anew:
// it is told so in PostgreSQL's own words, and nothing has run.
func TestResultsDoNotChangeUnseen(t *testing.T) {
	for _, block := range []string{"", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN; SET LOCAL work_mem = '5MB'"} {
		t.Run(block, func(t *testing.T) {
			r := newRig(t, rigOptions{poolSize: 3, shards: alone(t)})
			ctx := ctxOf(t)
			a, other := r.pgConn(t), r.pgConn(t)
			exec := func(conn *pgconn.PgConn, sql string) {
				t.Helper()
				if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			exec(other, "CREATE TABLE changing (a int, b text); INSERT INTO changing VALUES (1, 'x')")
			for name, sql := range map[string]string{"read": "SELECT * FROM changing WHERE a = $1", "write": "INSERT INTO changing VALUES ($1) RETURNING *", "same": "SELECT b FROM changing WHERE a = $1"} {
				if _, err := a.Prepare(ctx, name, sql, nil); err != nil {
					t.Fatal(err)
				}
			}
			exec(other, "ALTER TABLE changing ADD COLUMN c int")
			// A connection that has none of the statements, and one on which another session has prepared the same since.
			for _, prepared := range []bool{false, true} {
				r.pools.Reconnect("app")
				if prepared {
					if _, err := other.Prepare(ctx, "mine", "SELECT * FROM changing WHERE a = $1", nil); err != nil {
						t.Fatal(err)
					}
				}
				for _, name := range []string{"read", "write"} {
					if block != "" {
						exec(a, block)
					}
					res := a.ExecPrepared(ctx, name, [][]byte{[]byte("1")}, nil, nil).Read()
					var pe *pgconn.PgError
					if !errors.As(res.Err, &pe) || pe.Code != "0A000" || pe.Message != "cached plan must not change result type" || pe.Routine != "RevalidateCachedQuery" {
						t.Errorf("%s gives %d rows, %v", name, len(res.Rows), res.Err)
					}
					if want := byte('I'); block == "" && a.TxStatus() != want || block != "" && a.TxStatus() != 'E' {
						t.Errorf("status %c", a.TxStatus())
					}
					if block != "" {
						exec(a, "ROLLBACK")
					}
				}
				if block != "" {
					exec(a, block)
				}
				if res := a.ExecPrepared(ctx, "same", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.Rows) != 1 {
					t.Errorf("a statement whose columns are as they were: %d rows, %v", len(res.Rows), res.Err)
				}
				if block != "" {
					exec(a, "COMMIT")
				}
				if prepared {
					if res := other.ExecPrepared(ctx, "mine", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.FieldDescriptions) != 3 {
						t.Errorf("who has prepared it since: %v", res.Err)
					}
				}
			}
			if got, err := other.Exec(ctx, "SELECT count(*) FROM changing").ReadAll(); err != nil || string(got[0].Rows[0][0]) != "1" {
				t.Errorf("refused statements have run: %v %v", got, err)
			}
			if err := a.Deallocate(ctx, "read"); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Prepare(ctx, "read", "SELECT * FROM changing WHERE a = $1", nil); err != nil {
				t.Fatal(err)
			}
			if res := a.ExecPrepared(ctx, "read", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.Rows) != 1 {
				t.Errorf("prepared again: %v", res.Err)
			}
		})
	}
}

// What is prepared unasked may fail, and the client learns why.
func TestWhatCannotBePreparedAgain(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	ctx := ctxOf(t)
	a, other := r.pgConn(t), r.pgConn(t)
	exec := func(conn *pgconn.PgConn, sql string) error {
		_, err := conn.Exec(ctx, sql).ReadAll()
		return err
	}
	if err := exec(other, "CREATE TABLE changing (a int)"); err != nil {
		t.Fatal(err)
	}
	if err := exec(a, "PREPARE q AS SELECT a FROM changing"); err != nil {
		t.Fatal(err)
	}
	for name, describe := range map[string]bool{"told": true, "untold": false} {
		if describe {
			if _, err := a.Prepare(ctx, name, "SELECT a FROM changing", nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := exec(a, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := exec(other, "DROP TABLE changing"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.pools.Reconnect("app")
		var pe *pgconn.PgError
		if res := a.ExecPrepared(ctx, "told", nil, nil, nil).Read(); !errors.As(res.Err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'I' {
			t.Errorf("%v, status %c", res.Err, a.TxStatus())
		}
		if err := exec(a, "EXECUTE q"); !errors.As(err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'I' {
			t.Errorf("%v, status %c", err, a.TxStatus())
		}
		if err := exec(a, "BEGIN; SET LOCAL work_mem = '5MB'"); err != nil {
			t.Fatal(err)
		}
		if res := a.ExecPrepared(ctx, "told", nil, nil, nil).Read(); !errors.As(res.Err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'E' {
			t.Errorf("in a block: %v, status %c", res.Err, a.TxStatus())
		}
		if err := exec(a, "EXECUTE q"); !errors.As(err, &pe) || pe.Code != "25P02" || a.TxStatus() != 'E' {
			t.Errorf("in a failed block: %v, status %c", err, a.TxStatus())
		}
		if err := exec(a, "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		if err := exec(a, "SELECT 1"); err != nil {
			t.Error(err)
		}
	}
	r.busy(t, 0)
}

// A statement that was prepared under a SET LOCAL means what it meant then.
func TestPreparedUnderSetLocal(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	ctx := ctxOf(t)
	a := r.connect(pgx.QueryExecModeExec)
	for i, want := range []string{"2020-01-02", "2020-02-01", "2020-01-02"} {
		tx, err := a.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			if _, err := tx.Exec(ctx, "SET LOCAL datestyle = 'ISO, DMY'"); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprint("s", i)
		if _, err := tx.Prepare(ctx, name, "SELECT '2/1/2020'::date::text FROM (SELECT count(*) FROM notes) x"); err != nil {
			t.Fatal(err)
		}
		var day string
		if err := tx.QueryRow(ctx, name).Scan(&day); err != nil || day != want {
			t.Errorf("%q, %v; want %q", day, err, want)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// However many statements sessions prepare, a server connection keeps no more than it may, and each means what it meant.
func TestPreparedAreBounded(t *testing.T) {
	const bound, clients, each = 150, 20, 250
	r := newRig(t, rigOptions{poolSize: 2, prepared: bound, wait: 30 * time.Second, shards: alone(t)})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var most, closed atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			conn, err := pgconn.Connect(ctx, r.dsn())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.Background())
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for j := range each {
				value := fmt.Sprint(i*each + j)
				// Half of them by the protocol, half by SQL.
				if j%2 == 0 {
					_, err = conn.Prepare(ctx, fmt.Sprint("s", j), "SELECT "+value+" + $1::int", nil)
				} else {
					_, err = conn.Exec(ctx, fmt.Sprint("PREPARE s", j, " (int) AS SELECT ", value, " + $1")).ReadAll()
				}
				if err != nil {
					t.Error(err)
					return
				}
				k := random.IntN(j + 1)
				res := conn.ExecPrepared(ctx, fmt.Sprint("s", k), [][]byte{[]byte("0")}, nil, nil).Read()
				if res.Err != nil || string(res.Rows[0][0]) != fmt.Sprint(i*each+k) {
					t.Errorf("statement %d gives %v, %v", i*each+k, res.Rows, res.Err)
					return
				}
				if j%10 != 0 {
					continue
				}
				got, err := conn.Exec(ctx, fmt.Sprintf("SELECT count(*) FROM pg_prepared_statements; EXECUTE s%d(1)", k)).ReadAll()
				if err != nil || string(got[1].Rows[0][0]) != fmt.Sprint(i*each+k+1) {
					t.Errorf("EXECUTE gives %v, %v", got, err)
					return
				}
				n, _ := strconv.ParseInt(string(got[0].Rows[0][0]), 10, 64)
				for {
					if was := most.Load(); n <= was || most.CompareAndSwap(was, n) {
						break
					}
				}
			}
			closed.Add(1)
		})
	}
	wg.Wait()
	if most.Load() > bound || most.Load() < bound/2 {
		t.Errorf("a connection had %d statements, the bound is %d", most.Load(), bound)
	}
	if closed.Load() != clients {
		t.Errorf("%d of %d clients came to their end", closed.Load(), clients)
	}
}

// A server that was started again knows nothing of what was prepared, and nobody notices but by the connections that are lost.
func TestPreparedOverRestart(t *testing.T) {
	shards := []shardServers{{primary: pgtest.NewPrimary(t, pgtest.Options{})}}
	r := newRig(t, rigOptions{poolSize: 2, shards: shards})
	a := r.pgConn(t)
	if _, err := a.Prepare(ctxOf(t), "s", "SELECT count(*) FROM notes WHERE id = $1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctxOf(t), "PREPARE q (int) AS SELECT $1 FROM (SELECT count(*) FROM notes) x").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if err := shards[0].primary.Restart(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		r.table.Health().Evidence("shard_1-primary", false, "")
		if res := a.ExecPrepared(ctxOf(t), "s", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.Rows) != 1 {
			return fmt.Errorf("%d rows, %v", len(res.Rows), res.Err)
		}
		return nil
	})
	if got, err := a.Exec(ctxOf(t), "EXECUTE q(7)").ReadAll(); err != nil || string(got[0].Rows[0][0]) != "7" {
		t.Errorf("%v %v", got, err)
	}
}

// alone is one primary without a replica, which could be behind.
func alone(t *testing.T) []shardServers { return []shardServers{{primary: servers(t)[0].primary}} }

func (r *rig) pgConn(t *testing.T) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// A FETCH may be prepared before there is its cursor, which then says what it returns, wherever it runs.
func TestFetchIsPreparedBeforeItsCursor(t *testing.T) {
	own := []shardServers{{primary: servers(t)[0].primary}, {primary: servers(t)[1].primary}}
	for _, place := range []struct {
		database string
		shards   []shardServers
	}{{"plain", own[:1]}, {"app", own}} {
		r := newRig(t, rigOptions{shards: place.shards, poolSize: 3})
		if place.database != "app" {
			plainDatabase(t, own[0].primary, place.database)
		}
		connect := func() *pgx.Conn {
			t.Helper()
			conn, err := pgx.Connect(ctxOf(t), r.dsnOf(place.database))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		conn, other := connect(), connect()
		if sd, err := conn.Prepare(ctxOf(t), "fetches", "FETCH ALL IN c"); err != nil || len(sd.Fields) > 0 {
			t.Fatal(sd, err)
		}
		if _, err := other.Exec(ctxOf(t), "BEGIN; SELECT count(*) FROM notes"); err != nil { // has the server connection
			t.Fatal(err)
		}
		for _, query := range []string{"SELECT 1 AS n, 'x' AS s FROM notes LIMIT 1", "SELECT 2 AS m", "SELECT count(*) FROM orders"} {
			tx, err := conn.Begin(ctxOf(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctxOf(t), "INSERT INTO notes SELECT 500 WHERE NOT EXISTS (SELECT FROM notes WHERE id = 500)"); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctxOf(t), "DECLARE c CURSOR FOR "+query); err != nil {
				t.Fatal(query, err)
			}
			rows, err := tx.Query(ctxOf(t), "fetches")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if fields := rows.FieldDescriptions(); rows.Err() != nil || n != 1 || len(fields) != strings.Count(query, ",")+1 {
				t.Errorf("%s: %s: %d rows of %v (%v)", place.database, query, n, fields, rows.Err())
			}
			if err := tx.Rollback(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
